// Losses and their gradients. Logits x and targets are row-major [n, k].
//
// Cross-entropy of softmax(x) with q = (1 − ε)·target + ε/k, m = max x, s = Σ e^(x−m):
//   cross_entropy           losses[row] = −Σ q·log softmax(x) = Q·log s − Σ q·(x − m),  Q = Σ q
//                           stats[row]  = (m, Q / s)
//   cross_entropy_gradient  dx = (e^(x−m)·Q/s − q)·dy/n
// LANES neighbouring invocations share a row. Grid: ceil(n / (256 / LANES)) groups; gradient:
// ceil(n·k / 4 / 256) groups, four elements an invocation; both folded to 2-D. An invocation makes
// at most 2·ceil(k / LANES) + 16 steps.
//
// Binary cross-entropy and squared error, n elements in all; a target NaN is missing and counts for
// nothing. The mean is taken in two steps:
//   bce      partials[group] = (Σ loss, number present) over 4096 elements,
//            loss = (1 − t)·x + w·(log(1 + e^−|x|) + max(−x, 0)),  w = 1 + (weight[column] − 1)·t
//   mse      the same with loss = (x − t)²
//   average  y = Σ loss / present, or 0 where none is; present = their number
//   bce_gradient  dx = ((1 − t) − w·σ(−x))·dy/present
//   mse_gradient  dx = sign·2·(x − t)·dy/present, sign −1 for the gradient of the target
// Grid: bce, mse: ceil(n / 4096) groups; average: one; gradients: ceil(n / 4 / 256), folded.
//
// @compile cross_entropy LANES=1
// @compile cross_entropy LANES=32 SOFT=1
// @compile cross_entropy_gradient SOFT=1

override LANES: u32 = 256u;
// 1 where the targets are probabilities [n, k], 0 where they are class numbers [n].
override SOFT: u32 = 0u;

struct Rows {
  n: u32,
  k: u32,
  smoothing: f32,
}

@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read> labels: array<u32>;
@group(0) @binding(2) var<storage, read_write> losses: array<f32>;
@group(0) @binding(3) var<storage, read_write> stats: array<vec2f>;
@group(1) @binding(0) var<uniform> p: Rows;

@group(0) @binding(0) var<storage, read> x4: array<vec4f>;
@group(0) @binding(2) var<storage, read> saved_stats: array<vec2f>;
@group(0) @binding(3) var<storage, read> dy: array<f32>;
@group(0) @binding(4) var<storage, read_write> dx4: array<vec4f>;

// The largest value and the sum of the exponentials of what lies below it, of LANES invocations.
var<workgroup> pairs: array<vec2f, 256>;

const lowest = -3.4028234e38;

// (m, Σ e^(x−m)) of two disjoint sets of values.
fn merge(u: vec2f, v: vec2f) -> vec2f {
  let m = max(u.x, v.x);
  return vec2f(m, u.y * exp(u.x - m) + v.y * exp(v.x - m));
}

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
  let merged = pairs[local - local % LANES];
  workgroupBarrier();
  return merged;
}

fn add_lanes(value: vec2f, local: u32) -> vec2f {
  if (LANES == 1u) {
    return value;
  }
  pairs[local] = value;
  workgroupBarrier();
  for (var half = LANES / 2u; half > 0u; half /= 2u) {
    if (local % LANES < half) {
      pairs[local] += pairs[local + half];
    }
    workgroupBarrier();
  }
  return pairs[local - local % LANES];
}

// The target probability q of class `column`, before smoothing.
fn target_at(row: u32, column: u32) -> f32 {
  if (SOFT == 1u) {
    return bitcast<f32>(labels[row * p.k + column]);
  }
  return select(0.0, 1.0, labels[row] == column);
}

fn smoothed(q: f32) -> f32 {
  return (1 - p.smoothing) * q + p.smoothing / f32(p.k);
}

@compute @workgroup_size(256)
fn cross_entropy(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) local: u32,
) {
  let index = (group.x + group.y * groups.x) * (256u / LANES) + local / LANES;
  // Surplus invocations repeat the last row: all must reach the barriers.
  let row = min(index, p.n - 1u);
  let lane = local % LANES;
  var largest = vec2f(lowest, 0);
  for (var c = lane; c < p.k; c += LANES) {
    let value = x[row * p.k + c];
    if (value > largest.x) {
      largest = vec2f(value, largest.y * exp(largest.x - value) + 1);
    } else {
      largest.y += exp(value - largest.x);
    }
  }
  largest = merge_lanes(largest, local);
  let m = largest.x;

  // (Σ q·(x − m), Σ q)
  var sums = vec2f(0);
  if (SOFT == 1u || p.smoothing > 0) {
    for (var c = lane; c < p.k; c += LANES) {
      let q = smoothed(target_at(row, c));
      sums += q * vec2f(x[row * p.k + c] - m, 1);
    }
    sums = add_lanes(sums, local);
  } else {
    sums = vec2f(x[row * p.k + min(labels[row], p.k - 1u)] - m, 1);
  }
  if (lane == 0u && index < p.n) {
    var loss = sums.y * log(largest.y) - sums.x;
    if (SOFT == 0u && labels[row] >= p.k) {
      // There is no such class: NaN, which cannot be overlooked.
      var bits = 0x7fc00000u;
      loss = bitcast<f32>(bits);
    }
    losses[row] = loss;
    stats[row] = vec2f(m, sums.y / largest.y);
  }
}

fn logit_gradient(i: u32, logit: f32) -> f32 {
  let row = i / p.k;
  let s = saved_stats[row];
  return exp(logit - s.x) * s.y - smoothed(target_at(row, i - row * p.k));
}

@compute @workgroup_size(256)
fn cross_entropy_gradient(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) local: u32,
) {
  let i = (group.x + group.y * groups.x) * 256u + local;
  if (4u * i >= p.n * p.k) {
    return;
  }
  let logits = x4[i];
  let g = vec4f(
    logit_gradient(4u * i, logits.x),
    logit_gradient(4u * i + 1u, logits.y),
    logit_gradient(4u * i + 2u, logits.z),
    logit_gradient(4u * i + 3u, logits.w),
  );
  dx4[i] = g * dy[0] / f32(p.n);
}
