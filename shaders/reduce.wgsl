// Sums and maxima along one axis of x, seen as [outer, r, inner]: the r values of a column are cut
// into `chunks` pieces of `length`, and y [outer, chunks, inner] gets one value a piece, times p.scale.
// Passes follow each other until one piece is left: a fixed tree, the same on every device.
//
//   rows, rows4        inner = 1: LANES neighbouring invocations share a piece
//   columns, columns4  inner > 1: one invocation walks down a piece of one column, or of four
//
// Layout: f32, row-major; the vec4 forms want r and length (rows4) or inner (columns4) divisible by
// 4 and count their params in vec4. Grid: rows: ceil(outer·chunks / (256 / LANES)) groups; columns:
// ceil(outer·chunks·inner / 256); both folded to 2-D. An invocation makes at most 128 steps.
//
// @compile rows OP=1
// @compile rows4 OP=1
// @compile rows LANES=32
// @compile rows4 LANES=32
// @compile rows LANES=1
// @compile rows LANES=32 OP=1
// @compile rows4 LANES=1
// @compile rows4 LANES=32 OP=1
// @compile columns OP=1
// @compile columns4 OP=1

// 0 sum, 1 maximum
override OP: u32 = 0u;
override LANES: u32 = 256u;

struct Params {
  // Pieces in all: outer · chunks (rows), or values of y (columns).
  n: u32,
  r: u32,
  inner: u32,
  chunks: u32,
  length: u32,
  scale: f32,
}

@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(0) var<storage, read> x4: array<vec4f>;
@group(0) @binding(1) var<storage, read_write> y: array<f32>;
@group(0) @binding(1) var<storage, read_write> y4: array<vec4f>;
@group(1) @binding(0) var<uniform> p: Params;

var<workgroup> partial: array<f32, 256>;

fn fold(u: f32, v: f32) -> f32 {
  return select(u + v, max(u, v), OP == 1u);
}

fn fold4(u: vec4f, v: vec4f) -> vec4f {
  return select(u + v, max(u, v), vec4<bool>(OP == 1u));
}

// The values of LANES neighbouring invocations folded into the first, by halves.
fn fold_lanes(value: f32, local: u32) -> f32 {
  if (LANES == 1u) {
    return value;
  }
  partial[local] = value;
  workgroupBarrier();
  for (var half = LANES / 2u; half > 0u; half /= 2u) {
    if (local % LANES < half) {
      partial[local] = fold(partial[local], partial[local + half]);
    }
    workgroupBarrier();
  }
  return partial[local];
}

@compute @workgroup_size(256)
fn rows(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) local: u32,
) {
  let piece = (group.x + group.y * groups.x) * (256u / LANES) + local / LANES;
  // Surplus invocations repeat the last piece: all must reach the barriers.
  let mine = min(piece, p.n - 1u);
  let row = mine / p.chunks;
  let begin = row * p.r + (mine - row * p.chunks) * p.length;
  let end = min(begin + p.length, (row + 1u) * p.r);
  // A maximum begins with a value, not with −∞, which WGSL cannot write; a value may count twice.
  var total = select(0.0, x[min(begin + local % LANES, end - 1u)], OP == 1u);
  for (var i = begin + local % LANES; i < end; i += LANES) {
    total = fold(total, x[i]);
  }
  total = fold_lanes(total, local);
  if (local % LANES == 0u && piece < p.n) {
    y[piece] = total * p.scale;
  }
}

@compute @workgroup_size(256)
fn rows4(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) local: u32,
) {
  let piece = (group.x + group.y * groups.x) * (256u / LANES) + local / LANES;
  let mine = min(piece, p.n - 1u);
  let row = mine / p.chunks;
  let begin = row * p.r + (mine - row * p.chunks) * p.length;
  let end = min(begin + p.length, (row + 1u) * p.r);
  var sums = select(vec4f(0), x4[min(begin + local % LANES, end - 1u)], vec4<bool>(OP == 1u));
  for (var i = begin + local % LANES; i < end; i += LANES) {
    sums = fold4(sums, x4[i]);
  }
  let total = fold_lanes(fold(fold(sums.x, sums.y), fold(sums.z, sums.w)), local);
  if (local % LANES == 0u && piece < p.n) {
    y[piece] = total * p.scale;
  }
}

@compute @workgroup_size(256)
fn columns(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) local: u32,
) {
  let i = (group.x + group.y * groups.x) * 256u + local;
  if (i >= p.n) {
    return;
  }
  let piece = i / p.inner;
  let outer = piece / p.chunks;
  let begin = (piece - outer * p.chunks) * p.length;
  let end = min(begin + p.length, p.r);
  var at = (outer * p.r + begin) * p.inner + i - piece * p.inner;
  var total = x[at];
  for (var k = begin + 1u; k < end; k++) {
    at += p.inner;
    total = fold(total, x[at]);
  }
  y[i] = total * p.scale;
}

@compute @workgroup_size(256)
fn columns4(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) local: u32,
) {
  let i = (group.x + group.y * groups.x) * 256u + local;
  if (i >= p.n) {
    return;
  }
  let piece = i / p.inner;
  let outer = piece / p.chunks;
  let begin = (piece - outer * p.chunks) * p.length;
  let end = min(begin + p.length, p.r);
  var at = (outer * p.r + begin) * p.inner + i - piece * p.inner;
  var total = x4[at];
  for (var k = begin + 1u; k < end; k++) {
    at += p.inner;
    total = fold4(total, x4[at]);
  }
  y4[i] = total * p.scale;
}
