// Operations along the rows of x [n, k], row-major f32.
//
//   softmax             y = e^(x−m) / s with m = max x, s = Σ e^(x−m); LOG: y = x − m − log s
//   softmax_gradient    dx = y·(dy − Σ y·dy); LOG: dx = dy − e^y·Σ dy
//   normalize           y = x / max(‖x‖₂, ε); norms[row] = ‖x‖₂
//   normalize_gradient  dx = (dy − y·Σ y·dy) / ‖x‖₂; dy / ε where ‖x‖₂ ≤ ε
//
// LANES neighbouring invocations share a row. Grid: ceil(n / (256 / LANES)) groups, folded to 2-D. An
// invocation makes at most 2·ceil(k / LANES) + 16 steps.
//
// @compile softmax LOG=1
// @compile softmax_gradient LOG=1
// @compile softmax LANES=1
// @compile softmax LANES=32 LOG=1
// @compile softmax_gradient LANES=1
// @compile softmax_gradient LANES=32 LOG=1
// @compile normalize LANES=1
// @compile normalize_gradient LANES=32

override LANES: u32 = 256u;
override LOG: u32 = 0u;

struct Params {
  n: u32,
  k: u32,
  eps: f32,
}

@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read_write> y: array<f32>;
@group(0) @binding(2) var<storage, read_write> norms: array<f32>;
@group(0) @binding(0) var<storage, read> saved_y: array<f32>;
@group(0) @binding(1) var<storage, read> dy: array<f32>;
@group(0) @binding(2) var<storage, read_write> dx: array<f32>;
@group(0) @binding(3) var<storage, read> saved_norms: array<f32>;
@group(1) @binding(0) var<uniform> p: Params;

var<workgroup> pairs: array<vec2f, 256>;
var<workgroup> sums: array<f32, 256>;

const lowest = -3.4028234e38;

// (m, Σ e^(x−m)) of two disjoint sets of values.
fn merge(u: vec2f, v: vec2f) -> vec2f {
  let m = max(u.x, v.x);
  return vec2f(m, u.y * exp(u.x - m) + v.y * exp(v.x - m));
}

// The pairs of the LANES invocations of a row merged, for all of them.
fn merge_lanes(value: vec2f, local: u32) -> vec2f {
  if (LANES == 1u) {
    return value;
  }
  pairs[local] = value;
  workgroupBarrier();
  for (var half = LANES / 2u; half > 0u; half /= 2u) {
    if (local % LANES < half) {
      pairs[local] = merge(pairs[local], pairs[local + half]);
    }
    workgroupBarrier();
  }
  return pairs[local - local % LANES];
}

// The sum over the LANES invocations of a row, for all of them.
fn add_lanes(value: f32, local: u32) -> f32 {
  if (LANES == 1u) {
    return value;
  }
  sums[local] = value;
  workgroupBarrier();
  for (var half = LANES / 2u; half > 0u; half /= 2u) {
    if (local % LANES < half) {
      sums[local] += sums[local + half];
    }
    workgroupBarrier();
  }
  return sums[local - local % LANES];
}

@compute @workgroup_size(256)
fn softmax(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) local: u32,
) {
  let row = (group.x + group.y * groups.x) * (256u / LANES) + local / LANES;
  // Surplus invocations see the last row, but write nothing: all must reach the barriers.
  let first = min(row, p.n - 1u) * p.k;
  var pair = vec2f(lowest, 0);
  for (var c = local % LANES; c < p.k; c += LANES) {
    let value = x[first + c];
    if (value > pair.x) {
      pair = vec2f(value, pair.y * exp(pair.x - value) + 1);
    } else {
      pair.y += exp(value - pair.x);
    }
  }
  pair = merge_lanes(pair, local);
  if (row >= p.n) {
    return;
  }
  let log_sum = log(pair.y);
  for (var c = local % LANES; c < p.k; c += LANES) {
    let shifted = x[first + c] - pair.x;
    if (LOG == 1u) {
      y[first + c] = shifted - log_sum;
    } else {
      y[first + c] = exp(shifted) / pair.y;
    }
  }
}

@compute @workgroup_size(256)
fn softmax_gradient(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) local: u32,
) {
  let row = (group.x + group.y * groups.x) * (256u / LANES) + local / LANES;
  let first = min(row, p.n - 1u) * p.k;
  var total = 0.0;
  for (var c = local % LANES; c < p.k; c += LANES) {
    total += dy[first + c] * select(saved_y[first + c], 1.0, LOG == 1u);
  }
  total = add_lanes(total, local);
  if (row >= p.n) {
    return;
  }
  for (var c = local % LANES; c < p.k; c += LANES) {
    let at = first + c;
    if (LOG == 1u) {
      dx[at] = dy[at] - exp(saved_y[at]) * total;
    } else {
      dx[at] = saved_y[at] * (dy[at] - total);
    }
  }
}

@compute @workgroup_size(256)
fn normalize(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) local: u32,
) {
  let row = (group.x + group.y * groups.x) * (256u / LANES) + local / LANES;
  let first = min(row, p.n - 1u) * p.k;
  var total = 0.0;
  for (var c = local % LANES; c < p.k; c += LANES) {
    total += x[first + c] * x[first + c];
  }
  let norm = sqrt(add_lanes(total, local));
  if (row >= p.n) {
    return;
  }
  for (var c = local % LANES; c < p.k; c += LANES) {
    y[first + c] = x[first + c] / max(norm, p.eps);
  }
  if (local % LANES == 0u) {
    norms[row] = norm;
  }
}

@compute @workgroup_size(256)
fn normalize_gradient(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) local: u32,
) {
  let row = (group.x + group.y * groups.x) * (256u / LANES) + local / LANES;
  let first = min(row, p.n - 1u) * p.k;
  var total = 0.0;
  for (var c = local % LANES; c < p.k; c += LANES) {
    total += saved_y[first + c] * dy[first + c];
  }
  total = add_lanes(total, local);
  if (row >= p.n) {
    return;
  }
  let norm = saved_norms[row];
  // Below ε the divisor is a constant.
  total = select(0.0, total, norm > p.eps);
  for (var c = local % LANES; c < p.k; c += LANES) {
    let at = first + c;
    dx[at] = (dy[at] - saved_y[at] * total) / max(norm, p.eps);
  }
}
