// Maxima and means of the windows of x [n, h, w, c], and their gradients, gathered: every invocation
// owns one element of y, or the STRIDE × STRIDE elements of dx between the corners of two windows and the
// next two. Where the name ends in 4, it owns `run` such places along a row, in four channels each, and reads
// once what neighbours share.
//
//   y[n, oy, ox, c]  = max or mean over (ky, kx) of x[n, oy·stride − padding + ky, ox·stride − padding + kx, c]
//   dx[n, iy, ix, c] = sum of dy over the windows that hold (iy, ix), where it was the maximum; or of dy / kernel²
//
// The maximum of a window is the first in row-major order; where it was is kept as tap = ky·kernel + kx,
// a byte for each of four channels or a word. SIGNED, it is the minimum where the weight of a channel is
// negative: always the maximum of x · weight. The mean counts padding as zeros.
//
// A pixel lies in at most COVER = ceil(kernel / stride) windows along an axis. Coordinates may run below zero
// and wrap round, and are then past the end too.
//
// NORMALISED, x was pooled for what comes out of its batch normalisation, with RELU or without: dy is the
// gradient of that, and goes back through both, by batch_norm.wgsl's coefficients [mean, 1/σ, γ/σ, β] and slopes:
//
//   g = (sum of dy as above)·[(x − μ)·γ/σ + β > 0],  dx = g·γ/σ − (x − μ)·slope₀ − slope₁
//
// Grid: (ceil(w·channels / 64), n·h folded to y and z) of y, or of such blocks of dx;
// in fours (ceil(w / run), ceil(n·h·channels / 64) folded to y and z).
//
// @compile max_pool4 KERNEL=2
// @compile max_pool4 KERNEL=2 STRIDE=3 COVER=1
// @compile max_pool_gradient4 KERNEL=2 COVER=1
// @compile max_pool_gradient4 NORMALISED=1 RELU=1
// @compile max_pool_gradient NORMALISED=1
// @compile max_pool4 Real4=16
// @compile max_pool Real=16
// @compile max_pool4 SIGNED=1 Real4=16
// @compile max_pool SIGNED=1 Real=16
// @compile avg_pool Real=16
// @compile max_pool_gradient4 Real4=16
// @compile max_pool_gradient Real=16
// @compile avg_pool_gradient Real=16

alias Real4 = vec4f;
alias Real = f32;

const KERNEL = 3u;
const STRIDE = 2u;
const COVER = 2u;
override SIGNED: u32 = 0u;
override NORMALISED: u32 = 0u;
override RELU: u32 = 0u;

struct Params {
  n: u32,
  channels: u32, // of c, or vec4 of them
  h: u32,
  w: u32,
  oh: u32,
  ow: u32,
  padding: u32,
  run: u32,
  columns: u32, // vec4 in a line of coefficients and slopes
}

@group(0) @binding(0) var<storage, read> x4: array<Real4>;
@group(0) @binding(1) var<storage, read_write> y4: array<Real4>;
@group(0) @binding(0) var<storage, read> x: array<Real>;
@group(0) @binding(1) var<storage, read_write> y: array<Real>;
@group(0) @binding(2) var<storage, read_write> taps: array<u32>;
@group(0) @binding(3) var<storage, read> weight4: array<vec4f>;
@group(0) @binding(3) var<storage, read> weight: array<f32>;

@group(0) @binding(0) var<storage, read> dy4: array<Real4>;
@group(0) @binding(1) var<storage, read_write> dx4: array<Real4>;
@group(0) @binding(0) var<storage, read> dy: array<Real>;
@group(0) @binding(1) var<storage, read_write> dx: array<Real>;
@group(0) @binding(2) var<storage, read> saved_taps: array<u32>;
@group(0) @binding(3) var<storage, read> pooled4: array<Real4>;
@group(0) @binding(4) var<storage, read> coefficients4: array<vec4f>;
@group(0) @binding(5) var<storage, read> slopes4: array<vec4f>;
@group(0) @binding(3) var<storage, read> pooled: array<Real>;
@group(0) @binding(4) var<storage, read> coefficients: array<f32>;
@group(0) @binding(5) var<storage, read> slopes: array<f32>;

@group(1) @binding(0) var<uniform> p: Params;

const LOWEST = -3.4028234e38;

/// ⌊a / b⌋ for a < 2^22, where floating point gets it right: division of integers is slow.
fn quotient(a: u32, b: u32) -> u32 {
  return u32((f32(a) + 0.5) / f32(b));
}

/// An element of an array [n, height, width, channels].
struct Place {
  image: u32,
  row: u32,
  column: u32,
  channel: u32,
  index: u32,
  inside: bool,
}

fn place(group: vec3u, groups: vec3u, local: u32, height: u32, width: u32) -> Place {
  let row = group.y + group.z * groups.y;
  let along = group.x * 64u + local;
  let image = row / height;
  let column = quotient(along, p.channels);
  return Place(
    image,
    row - image * height,
    column,
    along - column * p.channels,
    row * width * p.channels + along,
    image < p.n && column < width,
  );
}

/// Where a tap, a window or a pixel is, and whether it exists.
struct Source {
  index: u32,
  inside: bool,
}

/// The element of the input under a tap of an output's window, `origin` being that under the tap (0, 0).
fn tap_source(at: Place, origin: u32, ky: u32, kx: u32) -> Source {
  let inside = at.row * STRIDE + ky - p.padding < p.h && at.column * STRIDE + kx - p.padding < p.w;
  let index = origin + ky * p.w * p.channels + kx * p.channels;
  return Source(select(0u, index, inside), inside);
}

fn origin_of(at: Place) -> u32 {
  let row = at.image * p.h + at.row * STRIDE - p.padding;
  return (row * p.w + at.column * STRIDE - p.padding) * p.channels + at.channel;
}

/// A block of dx: its first pixel is the corner of the window of the output in the same row and column.
fn block(group: vec3u, groups: vec3u, local: u32) -> Place {
  let corner = p.padding + STRIDE - 1u;
  return place(group, groups, local, (p.h + corner) / STRIDE, (p.w + corner) / STRIDE);
}

/// The output j rows and i columns before a block; of its window the block shows the taps from (j, i) · STRIDE on.
fn window_over(at: Place, j: u32, i: u32) -> Source {
  let oy = at.row - j;
  let ox = at.column - i;
  let inside = oy < p.oh && ox < p.ow;
  let index = ((at.image * p.oh + oy) * p.ow + ox) * p.channels + at.channel;
  return Source(select(0u, index, inside), inside);
}

/// The pixel (r, s) of a block.
fn pixel_of(at: Place, r: u32, s: u32) -> Source {
  let row = at.row * STRIDE + r - p.padding;
  let column = at.column * STRIDE + s - p.padding;
  let index = ((at.image * p.h + row) * p.w + column) * p.channels + at.channel;
  return Source(index, row < p.h && column < p.w);
}

/// The first place of an invocation that owns several, and the column past the last.
struct Walk {
  at: Place,
  end: u32,
}

fn walk(group: vec3u, groups: vec3u, local: u32, height: u32, width: u32) -> Walk {
  let along = (group.y + group.z * groups.y) * 64u + local;
  let line = along / p.channels;
  let image = line / height;
  let column = group.x * p.run;
  let inside = image < p.n;
  let at = Place(image, line - image * height, column, along - line * p.channels, 0u, inside);
  return Walk(at, select(0u, min(column + p.run, width), inside));
}

/// The largest values in a column of a window, the first of equal ones, and the tap at the left of their row.
struct Maximum {
  value: vec4f,
  tap: vec4u,
}

fn column_maximum(at: Place, kx: u32, sign: vec4f) -> Maximum {
  var best = Maximum(vec4f(LOWEST), vec4u());
  let origin = origin_of(at);
  // @unroll
  for (var ky = 0u; ky < KERNEL; ky++) {
    let from_x = tap_source(at, origin, ky, kx);
    let v = select(vec4f(LOWEST), sign * vec4f(x4[from_x.index]), from_x.inside);
    best.tap = select(best.tap, vec4u(ky * KERNEL), v > best.value);
    best.value = max(best.value, v);
  }
  return best;
}

@compute @workgroup_size(64)
fn max_pool4(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) local: u32,
) {
  let way = walk(group, groups, local, p.oh, p.ow);
  var at = way.at;
  var sign = vec4f(1.0);
  if (SIGNED == 1u) {
    sign = select(vec4f(1.0), vec4f(-1.0), weight4[at.channel] < vec4f(0.0));
  }
  // The last columns of a window are the first ones of the next.
  var columns: array<Maximum, KERNEL>;
  // @unroll
  for (var kx = 0u; kx < KERNEL; kx++) {
    if (kx + STRIDE < KERNEL) {
      columns[(kx + STRIDE) % KERNEL] = column_maximum(at, kx, sign);
    }
  }
  for (; at.column < way.end; at.column++) {
    var best = Maximum(vec4f(LOWEST), vec4u());
    // @unroll
    for (var kx = 0u; kx < KERNEL; kx++) {
      if (kx + STRIDE < KERNEL) {
        columns[kx] = columns[(kx + STRIDE) % KERNEL];
      } else {
        columns[kx] = column_maximum(at, kx, sign);
      }
      let tap = columns[kx].tap + kx;
      let v = columns[kx].value;
      best.tap = select(best.tap, tap, (v > best.value) | ((v == best.value) & (tap < best.tap)));
      best.value = max(best.value, v);
    }
    let to = ((at.image * p.oh + at.row) * p.ow + at.column) * p.channels + at.channel;
    y4[to] = Real4(sign * best.value);
    taps[to] = dot(best.tap, vec4u(1u, 1u << 8u, 1u << 16u, 1u << 24u));
  }
}

@compute @workgroup_size(64)
fn max_pool(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) local: u32,
) {
  let at = place(group, groups, local, p.oh, p.ow);
  if (!at.inside) {
    return;
  }
  var sign = 1.0;
  if (SIGNED == 1u) {
    sign = select(1.0, -1.0, weight[at.channel] < 0.0);
  }
  var best = LOWEST;
  var chosen = 0u;
  let origin = origin_of(at);
  // @unroll
  for (var ky = 0u; ky < KERNEL; ky++) {
    // @unroll
    for (var kx = 0u; kx < KERNEL; kx++) {
      let from_x = tap_source(at, origin, ky, kx);
      let v = select(LOWEST, sign * f32(x[from_x.index]), from_x.inside);
      chosen = select(chosen, ky * KERNEL + kx, v > best);
      best = max(best, v);
    }
  }
  y[at.index] = Real(sign * best);
  taps[at.index] = chosen;
}

@compute @workgroup_size(64)
fn avg_pool(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) local: u32,
) {
  let at = place(group, groups, local, p.oh, p.ow);
  if (!at.inside) {
    return;
  }
  var sum = 0.0;
  let origin = origin_of(at);
  // @unroll
  for (var ky = 0u; ky < KERNEL; ky++) {
    // @unroll
    for (var kx = 0u; kx < KERNEL; kx++) {
      let from_x = tap_source(at, origin, ky, kx);
      let v = select(0.0, f32(x[from_x.index]), from_x.inside);
      sum += v;
    }
  }
  y[at.index] = Real(sum / f32(KERNEL * KERNEL));
}

/// What a gradient goes back through, of four channels or of one.
struct Normalisation {
  mean: vec4f,
  scale: vec4f, // γ/σ
  bias: vec4f, // β
  slope: vec4f,
  shift: vec4f,
}

fn through(by: Normalisation, g: vec4f, v: vec4f) -> vec4f {
  let deviation = v - by.mean;
  let stopped = (deviation * by.scale + by.bias <= vec4f(0.0)) & vec4<bool>(RELU == 1u);
  return select(g, vec4f(0.0), stopped) * by.scale - by.shift - deviation * by.slope;
}

/// The gradient of a window, and the tap that takes it.
struct Window {
  g: vec4f,
  tap: vec4u,
}

fn gradient_over(at: Place, j: u32, i: u32) -> Window {
  let from_y = window_over(at, j, i);
  return Window(
    select(vec4f(), vec4f(dy4[from_y.index]), from_y.inside),
    (vec4u(saved_taps[from_y.index]) >> vec4u(0u, 8u, 16u, 24u)) & vec4u(255u),
  );
}

@compute @workgroup_size(64)
fn max_pool_gradient4(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) local: u32,
) {
  let corner = p.padding + STRIDE - 1u;
  let way = walk(group, groups, local, (p.h + corner) / STRIDE, (p.w + corner) / STRIDE);
  var at = way.at;
  var by: Normalisation;
  if (NORMALISED == 1u) {
    by.mean = coefficients4[at.channel];
    by.scale = coefficients4[at.channel + 2u * p.columns];
    by.bias = coefficients4[at.channel + 3u * p.columns];
    by.slope = slopes4[at.channel];
    by.shift = slopes4[at.channel + p.columns];
  }
  // The windows over a block, from left to right; all but the last of a row are over the block before, too.
  var windows: array<Window, COVER * COVER>;
  // @unroll
  for (var k = 0u; k < COVER * COVER; k++) {
    if (k % COVER + 1u < COVER) {
      windows[(k + 1u) % (COVER * COVER)] = gradient_over(at, k / COVER, COVER - 1u - k % COVER);
    }
  }
  for (; at.column < way.end; at.column++) {
    // @unroll
    for (var k = 0u; k < COVER * COVER; k++) {
      if (k % COVER + 1u < COVER) {
        windows[k] = windows[(k + 1u) % (COVER * COVER)];
      } else {
        windows[k] = gradient_over(at, k / COVER, 0u);
      }
    }
    // @unroll
    for (var k = 0u; k < STRIDE * STRIDE; k++) {
      var g = vec4f();
      // @unroll
      for (var w = 0u; w < COVER * COVER; w++) {
        let ky = k / STRIDE + w / COVER * STRIDE;
        let kx = k % STRIDE + w % COVER * STRIDE;
        if (ky < KERNEL && kx < KERNEL) {
          let from_y = windows[w / COVER * COVER + COVER - 1u - w % COVER];
          g += select(vec4f(), from_y.g, from_y.tap == vec4u(ky * KERNEL + kx));
        }
      }
      let pixel = pixel_of(at, k / STRIDE, k % STRIDE);
      if (NORMALISED == 1u) {
        g = through(by, g, vec4f(pooled4[select(0u, pixel.index, pixel.inside)]));
      }
      if (pixel.inside) {
        dx4[pixel.index] = Real4(g);
      }
    }
  }
}

@compute @workgroup_size(64)
fn max_pool_gradient(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) local: u32,
) {
  let at = block(group, groups, local);
  if (!at.inside) {
    return;
  }
  var sum: array<f32, STRIDE * STRIDE>;
  // @unroll
  for (var j = 0u; j < COVER; j++) {
    // @unroll
    for (var i = 0u; i < COVER; i++) {
      let window = window_over(at, j, i);
      let chosen = saved_taps[window.index];
      let g = select(0.0, f32(dy[window.index]), window.inside);
      // @unroll
      for (var k = 0u; k < STRIDE * STRIDE; k++) {
        let ky = k / STRIDE + j * STRIDE;
        let kx = k % STRIDE + i * STRIDE;
        if (ky < KERNEL && kx < KERNEL) {
          sum[k] += select(0.0, g, chosen == ky * KERNEL + kx);
        }
      }
    }
  }
  // @unroll
  for (var k = 0u; k < STRIDE * STRIDE; k++) {
    let pixel = pixel_of(at, k / STRIDE, k % STRIDE);
    var g = sum[k];
    if (NORMALISED == 1u) {
      let width = 4u * p.columns;
      let by = Normalisation(
        vec4f(coefficients[at.channel]),
        vec4f(coefficients[at.channel + 2u * width]),
        vec4f(coefficients[at.channel + 3u * width]),
        vec4f(slopes[at.channel]),
        vec4f(slopes[at.channel + width]),
      );
      g = through(by, vec4f(g), vec4f(f32(pooled[select(0u, pixel.index, pixel.inside)]))).x;
    }
    if (pixel.inside) {
      dx[pixel.index] = Real(g);
    }
  }
}

@compute @workgroup_size(64)
fn avg_pool_gradient(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) local: u32,
) {
  let at = block(group, groups, local);
  if (!at.inside) {
    return;
  }
  var sum: array<f32, STRIDE * STRIDE>;
  // @unroll
  for (var j = 0u; j < COVER; j++) {
    // @unroll
    for (var i = 0u; i < COVER; i++) {
      let window = window_over(at, j, i);
      let g = select(0.0, f32(dy[window.index]), window.inside);
      // @unroll
      for (var k = 0u; k < STRIDE * STRIDE; k++) {
        let ky = k / STRIDE + j * STRIDE;
        let kx = k % STRIDE + i * STRIDE;
        if (ky < KERNEL && kx < KERNEL) {
          sum[k] += g;
        }
      }
    }
  }
  // @unroll
  for (var k = 0u; k < STRIDE * STRIDE; k++) {
    let pixel = pixel_of(at, k / STRIDE, k % STRIDE);
    if (pixel.inside) {
      dx[pixel.index] = Real(sum[k] / f32(KERNEL * KERNEL));
    }
  }
}
