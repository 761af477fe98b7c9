// Maxima and means of the windows of x [n, h, w, c], and their gradients, gathered: every invocation
// owns one element of the result (four channels where the name ends in 4).
//
//   y[n, oy, ox, c]  = max or mean over (ky, kx) of x[n, oy·stride − padding + ky, ox·stride − padding + kx, c]
//   dx[n, iy, ix, c] = sum of dy over the windows that hold (iy, ix), where it was the maximum; or of dy / kernel²
//
// The maximum of a window is the first in row-major order; where it was is kept as tap = ky·kernel + kx,
// a byte for each of four channels or a word. The mean counts padding as zeros.
//
// Grid: (ceil(w·channels / 64), n·h folded to y and z) of the result.

struct Params {
  n: u32,
  channels: u32, // of c, or vec4 of them
  h: u32,
  w: u32,
  oh: u32,
  ow: u32,
  kernel: u32,
  stride: u32,
  padding: u32,
}

@group(0) @binding(0) var<storage, read> x4: array<vec4f>;
@group(0) @binding(1) var<storage, read_write> y4: array<vec4f>;
@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read_write> y: array<f32>;
@group(0) @binding(2) var<storage, read_write> taps: array<u32>;

@group(0) @binding(0) var<storage, read> dy4: array<vec4f>;
@group(0) @binding(1) var<storage, read_write> dx4: array<vec4f>;
@group(0) @binding(0) var<storage, read> dy: array<f32>;
@group(0) @binding(1) var<storage, read_write> dx: array<f32>;
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

/// The indices from `first` to before `end` along one axis.
struct Range {
  first: u32,
  end: u32,
}

/// The taps of an output's window that lie inside the input.
fn taps_of(output: u32, size: u32) -> Range {
  let start = output * p.stride;
  return Range(p.padding - min(p.padding, start), min(p.kernel, size + p.padding - start));
}

/// The outputs whose windows hold an input.
fn outputs_of(input: u32, size: u32) -> Range {
  let shifted = input + p.padding;
  let skipped = shifted - min(shifted, p.kernel - 1u);
  return Range(
    quotient(skipped + p.stride - 1u, p.stride),
    min(quotient(shifted, p.stride) + 1u, size),
  );
}

/// The element of the input under the tap (0, 0) of a window, which may lie in the padding.
fn origin(at: Place) -> u32 {
  let row = at.image * p.h + at.row * p.stride - p.padding;
  return (row * p.w + at.column * p.stride - p.padding) * p.channels + at.channel;
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
  let rows = taps_of(at.row, p.h);
  let columns = taps_of(at.column, p.w);
  let start = origin(at);
  var best = vec4f(LOWEST);
  var chosen = vec4u(rows.first * p.kernel + columns.first);
  for (var ky = rows.first; ky < rows.end; ky++) {
    for (var kx = columns.first; kx < columns.end; kx++) {
      let v = x4[start + (ky * p.w + kx) * p.channels];
      chosen = select(chosen, vec4u(ky * p.kernel + kx), v > best);
      best = max(best, v);
    }
  }
  y4[at.index] = best;
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
  let rows = taps_of(at.row, p.h);
  let columns = taps_of(at.column, p.w);
  let start = origin(at);
  var best = LOWEST;
  var chosen = rows.first * p.kernel + columns.first;
  for (var ky = rows.first; ky < rows.end; ky++) {
    for (var kx = columns.first; kx < columns.end; kx++) {
      let v = x[start + (ky * p.w + kx) * p.channels];
      chosen = select(chosen, ky * p.kernel + kx, v > best);
      best = max(best, v);
    }
  }
  y[at.index] = best;
  taps[at.index] = chosen;
}

@compute @workgroup_size(64)
fn max_pool_gradient4(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) local: u32,
) {
  let at = place(group, groups, local, p.h, p.w);
  if (!at.inside) {
    return;
  }
  let rows = outputs_of(at.row, p.oh);
  let columns = outputs_of(at.column, p.ow);
  var sum = vec4f();
  for (var oy = rows.first; oy < rows.end; oy++) {
    for (var ox = columns.first; ox < columns.end; ox++) {
      let o = ((at.image * p.oh + oy) * p.ow + ox) * p.channels + at.channel;
      let tap = (at.row + p.padding - oy * p.stride) * p.kernel + at.column + p.padding - ox * p.stride;
      let chosen = (vec4u(saved_taps[o]) >> vec4u(0u, 8u, 16u, 24u)) & vec4u(255u);
      sum += select(vec4f(), dy4[o], chosen == vec4u(tap));
    }
  }
  dx4[at.index] = sum;
}

@compute @workgroup_size(64)
fn max_pool_gradient(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) local: u32,
) {
  let at = place(group, groups, local, p.h, p.w);
  if (!at.inside) {
    return;
  }
  let rows = outputs_of(at.row, p.oh);
  let columns = outputs_of(at.column, p.ow);
  var sum = 0.0;
  for (var oy = rows.first; oy < rows.end; oy++) {
    for (var ox = columns.first; ox < columns.end; ox++) {
      let o = ((at.image * p.oh + oy) * p.ow + ox) * p.channels + at.channel;
      let tap = (at.row + p.padding - oy * p.stride) * p.kernel + at.column + p.padding - ox * p.stride;
      sum += select(0.0, dy[o], saved_taps[o] == tap);
    }
  }
  dx[at.index] = sum;
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
  let rows = taps_of(at.row, p.h);
  let columns = taps_of(at.column, p.w);
  let start = origin(at);
  var sum = 0.0;
  for (var ky = rows.first; ky < rows.end; ky++) {
    for (var kx = columns.first; kx < columns.end; kx++) {
      sum += x[start + (ky * p.w + kx) * p.channels];
    }
  }
  y[at.index] = sum / f32(p.kernel * p.kernel);
}

@compute @workgroup_size(64)
fn avg_pool_gradient(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) local: u32,
) {
  let at = place(group, groups, local, p.h, p.w);
  if (!at.inside) {
    return;
  }
  let rows = outputs_of(at.row, p.oh);
  let columns = outputs_of(at.column, p.ow);
  var sum = 0.0;
  for (var oy = rows.first; oy < rows.end; oy++) {
    for (var ox = columns.first; ox < columns.end; ox++) {
      sum += dy[((at.image * p.oh + oy) * p.ow + ox) * p.channels + at.channel];
    }
  }
  dx[at.index] = sum / f32(p.kernel * p.kernel);
}
