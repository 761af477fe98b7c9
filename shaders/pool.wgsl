// Maxima and means of the windows of x [n, h, w, c], and their gradients, gathered: every invocation
// owns one element of y, or the STRIDE × STRIDE elements of dx between the corners of two windows and the
// next two (in four channels where the name ends in 4).
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
// Grid: (ceil(w·channels / 64), n·h folded to y and z) of y, or of such blocks of dx.
//
// @compile max_pool4 KERNEL=2
// @compile max_pool_gradient4 KERNEL=2 COVER=1
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

struct Params {
  n: u32,
  channels: u32, // of c, or vec4 of them
  h: u32,
  w: u32,
  oh: u32,
  ow: u32,
  padding: u32,
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

@compute @workgroup_size(64)
fn max_pool4(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) local: u32,
) {
  let at = place(group, groups, local, p.oh, p.ow);
  if (!at.inside) {
    return;
  }
  var sign = vec4f(1.0);
  if (SIGNED == 1u) {
    sign = select(vec4f(1.0), vec4f(-1.0), weight4[at.channel] < vec4f(0.0));
  }
  var best = vec4f(LOWEST);
  var chosen = vec4u();
  let origin = origin_of(at);
  // @unroll
  for (var ky = 0u; ky < KERNEL; ky++) {
    // @unroll
    for (var kx = 0u; kx < KERNEL; kx++) {
      let from_x = tap_source(at, origin, ky, kx);
      let v = select(vec4f(LOWEST), sign * vec4f(x4[from_x.index]), from_x.inside);
      chosen = select(chosen, vec4u(ky * KERNEL + kx), v > best);
      best = max(best, v);
    }
  }
  y4[at.index] = Real4(sign * best);
  taps[at.index] = dot(chosen, vec4u(1u, 1u << 8u, 1u << 16u, 1u << 24u));
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

@compute @workgroup_size(64)
fn max_pool_gradient4(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) local: u32,
) {
  let at = block(group, groups, local);
  if (!at.inside) {
    return;
  }
  var sum: array<vec4f, STRIDE * STRIDE>;
  // @unroll
  for (var j = 0u; j < COVER; j++) {
    // @unroll
    for (var i = 0u; i < COVER; i++) {
      let window = window_over(at, j, i);
      let chosen = (vec4u(saved_taps[window.index]) >> vec4u(0u, 8u, 16u, 24u)) & vec4u(255u);
      let g = select(vec4f(), vec4f(dy4[window.index]), window.inside);
      // @unroll
      for (var k = 0u; k < STRIDE * STRIDE; k++) {
        let ky = k / STRIDE + j * STRIDE;
        let kx = k % STRIDE + i * STRIDE;
        if (ky < KERNEL && kx < KERNEL) {
          sum[k] += select(vec4f(), g, chosen == vec4u(ky * KERNEL + kx));
        }
      }
    }
  }
  // @unroll
  for (var k = 0u; k < STRIDE * STRIDE; k++) {
    let pixel = pixel_of(at, k / STRIDE, k % STRIDE);
    if (pixel.inside) {
      dx4[pixel.index] = Real4(sum[k]);
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
    if (pixel.inside) {
      dx[pixel.index] = Real(sum[k]);
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
