// Losses and their gradients; x is row-major f32.
//
// Cross-entropy of softmax(x), x [n, k], with q = (1 − ε)·target + ε/k, m = max x, s = Σ e^(x−m):
//   cross_entropy           losses[row] = −Σ q·log softmax(x) = Q·log s − Σ q·(x − m),  Q = Σ q
//                           stats[row]  = (m, Q / s)
//   cross_entropy_gradient  dx = (e^(x−m)·Q/s − q)·dy/n
// LANES neighbouring invocations share a row. Grid: ceil(n / (256 / LANES)) groups; gradient:
// ceil(n·k / 1024), four elements an invocation; folded to 2-D. An invocation makes at most
// 2·ceil(k / LANES) + 16 steps.
//
// Means over n elements of x in k columns, in two steps; for bce a target t of NaN is missing:
//   bce      partials[group] = (Σ loss, number present) of 4096 elements,
//            loss = (1 − t)·x + w·(log(1 + e^−|x|) + max(−x, 0)),  w = 1 + (weight[column] − 1)·t
//   focal    the same with loss = t·w₊·(1 − p)^γ₊·(−log p) + (1 − t)·w₋·s^γ₋·(−log(1 − s)),
//            p = σ(x), s = max(p − shift, 0)
//   mse      the same with loss = (x − t)²
//   average  y = Σ loss / present, 0 where none is; present = their number
//   bce_gradient  dx = ((1 − t) − w·σ(−x))·dy/present
//   focal_gradient  dx = dy/present·(−t·w₊·(1 − p)^γ₊·(γ₊·p·(−log p) + 1 − p)
//                      + (1 − t)·w₋·s^γ₋·p·(1 − p)·(γ₋·(−log(1 − s))/s + 1/(1 − s)))
//   mse_gradient  dx = 2·(x − t)·dy/present; with SIDE = 1 the gradient of t, its negative
// Grid: bce, focal, mse: ceil(n / 4096) groups, folded; average: one; gradients: ceil(n / 1024), folded.
//
// @compile cross_entropy SOFT=1
// @compile cross_entropy LANES=32
// @compile cross_entropy LANES=1
// @compile cross_entropy LANES=32 SOFT=1
// @compile cross_entropy_gradient SOFT=1
// @compile bce WEIGHTED=1
// @compile bce_gradient WEIGHTED=1
// @compile mse_gradient SIDE=1

override LANES: u32 = 256u;
// 1 where the targets are probabilities [n, k], 0 where they are class numbers [n].
override SOFT: u32 = 0u;
// 1 where the positives of a column are weighted.
override WEIGHTED: u32 = 0u;
override SIDE: u32 = 0u;

struct Rows {
  n: u32,
  k: u32,
  smoothing: f32,
}

struct Elements {
  n: u32,
  k: u32,
}

struct Focus {
  n: u32,
  gamma_positive: f32,
  gamma_negative: f32,
  weight_positive: f32,
  weight_negative: f32,
  shift: f32,
}

struct Partials {
  groups: u32,
}

@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(0) var<storage, read> x4: array<vec4f>;
@group(0) @binding(1) var<storage, read> labels: array<u32>;
@group(0) @binding(1) var<storage, read> targets: array<vec4u>;
@group(0) @binding(2) var<storage, read_write> losses: array<f32>;
@group(0) @binding(2) var<storage, read> saved_stats: array<vec2f>;
@group(0) @binding(2) var<storage, read> weight: array<f32>;
@group(0) @binding(3) var<storage, read_write> stats: array<vec2f>;
@group(0) @binding(3) var<storage, read_write> partials: array<vec2f>;
@group(0) @binding(3) var<storage, read> present: array<f32>;
@group(0) @binding(4) var<storage, read> dy: array<f32>;
@group(0) @binding(5) var<storage, read_write> dx: array<vec4f>;
@group(0) @binding(0) var<storage, read> parts: array<vec2f>;
@group(0) @binding(1) var<storage, read_write> y: array<f32>;
@group(0) @binding(2) var<storage, read_write> found: array<f32>;
@group(1) @binding(0) var<uniform> p: Rows;
@group(1) @binding(0) var<uniform> e: Elements;
@group(1) @binding(0) var<uniform> f: Focus;
@group(1) @binding(0) var<uniform> q: Partials;

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

fn smoothed(target_value: f32) -> f32 {
  return (1 - p.smoothing) * target_value + p.smoothing / f32(p.k);
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
      sums += smoothed(target_at(row, c)) * vec2f(x[row * p.k + c] - m, 1);
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
  dx[i] = g * (dy[0] / f32(p.n));
}

fn is_present(t: vec4u) -> vec4<bool> {
  return (t & vec4u(0x7fffffff)) <= vec4u(0x7f800000);
}

// Which of the four elements from 4·i on are among the n of x.
fn is_inside(i: u32, n: u32) -> vec4<bool> {
  return vec4u(4u * i) + vec4u(0, 1, 2, 3) < vec4u(n);
}

// The weights w of the four elements from 4·i on, of targets t.
fn weights(i: u32, t: vec4f) -> vec4f {
  if (WEIGHTED == 0u) {
    return vec4f(1);
  }
  let column = (vec4u(4u * i) + vec4u(0, 1, 2, 3)) % e.k;
  let positive = vec4f(weight[column.x], weight[column.y], weight[column.z], weight[column.w]);
  return 1 + (positive - 1) * t;
}

// log(1 + u) for 0 ≤ u ≤ 1 to f32 precision: 2·artanh(s) with s = u / (2 + u) ≤ 1/3.
fn log1p(u: vec4f) -> vec4f {
  let s = u / (2 + u);
  let r = s * s;
  let tail = r * (1.0 / 3 + r * (0.2 + r * (1.0 / 7 + r * (1.0 / 9 + r * (1.0 / 11 + r * (1.0 / 13 + r / 15))))));
  return 2 * s * (1 + tail);
}

// The group's sum into partials: every invocation brings four losses and which of them count.
fn add_group(losses4: vec4f, counts: vec4f, group: u32, groups: u32, local: u32) {
  pairs[local] = vec2f(dot(losses4, vec4f(1)), dot(counts, vec4f(1)));
  workgroupBarrier();
  for (var half = 128u; half > 0u; half /= 2u) {
    if (local < half) {
      pairs[local] += pairs[local + half];
    }
    workgroupBarrier();
  }
  if (local == 0u && group < groups) {
    partials[group] = pairs[0];
  }
}

@compute @workgroup_size(256)
fn bce(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) local: u32,
) {
  let index = group.x + group.y * groups.x;
  var losses4 = vec4f(0);
  var counts = vec4f(0);
  for (var step = 0u; step < 4u; step++) {
    let i = index * 1024u + step * 256u + local;
    let counted = is_present(targets[i]) & is_inside(i, e.n);
    let t = select(vec4f(0), bitcast<vec4f>(targets[i]), counted);
    let logit = x4[i];
    let loss = (1 - t) * logit + weights(i, t) * (log1p(exp(-abs(logit))) + max(-logit, vec4f(0)));
    losses4 += select(vec4f(0), loss, counted);
    counts += select(vec4f(0), vec4f(1), counted);
  }
  add_group(losses4, counts, index, (e.n + 4095u) / 4096u, local);
}

// Focal loss of four logits and its derivative. Powers of p and 1 − p come from their logarithms, which
// are exact where p or 1 − p vanishes.
fn focused(logit: vec4f, t: vec4f) -> mat2x4f {
  let u = exp(-abs(logit));
  let is_above = logit >= vec4f(0);
  let hit = select(u, vec4f(1), is_above) / (1 + u);
  let miss = select(vec4f(1), u, is_above) / (1 + u);
  let rest = log1p(u);
  let minus_log_hit = rest + max(-logit, vec4f(0));
  let minus_log_miss = rest + max(logit, vec4f(0));

  let positive = f.weight_positive * exp(-f.gamma_positive * minus_log_miss);
  let positive_slope = -positive * (f.gamma_positive * hit * minus_log_hit + miss);

  // Without a shift s is p.
  var power = exp(-f.gamma_negative * minus_log_hit);
  var minus_log_rest = minus_log_miss;
  var over_s = miss;
  var over_rest = hit;
  if (f.shift > 0) {
    let s = max(hit - f.shift, vec4f(0));
    let counted = s > vec4f(0);
    // 1 − s
    let below = select(vec4f(1), miss + f.shift, counted);
    let odds = s / below;
    minus_log_rest = select(-log(below), log1p(min(odds, vec4f(1))), odds <= vec4f(1));
    let divisor = select(vec4f(1), s, counted);
    power = select(vec4f(0), pow(divisor, vec4f(f.gamma_negative)), counted);
    over_s = hit * miss / divisor;
    over_rest = hit * miss / below;
  }
  let negative = f.weight_negative * power;
  let negative_slope = negative * (f.gamma_negative * minus_log_rest * over_s + over_rest);

  return mat2x4f(
    t * positive * minus_log_hit + (1 - t) * negative * minus_log_rest,
    t * positive_slope + (1 - t) * negative_slope,
  );
}

@compute @workgroup_size(256)
fn focal(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) local: u32,
) {
  let index = group.x + group.y * groups.x;
  var losses4 = vec4f(0);
  var counts = vec4f(0);
  for (var step = 0u; step < 4u; step++) {
    let i = index * 1024u + step * 256u + local;
    let counted = is_present(targets[i]) & is_inside(i, f.n);
    let t = select(vec4f(0), bitcast<vec4f>(targets[i]), counted);
    losses4 += select(vec4f(0), focused(x4[i], t)[0], counted);
    counts += select(vec4f(0), vec4f(1), counted);
  }
  add_group(losses4, counts, index, (f.n + 4095u) / 4096u, local);
}

@compute @workgroup_size(256)
fn mse(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) local: u32,
) {
  let index = group.x + group.y * groups.x;
  var losses4 = vec4f(0);
  var counts = vec4f(0);
  for (var step = 0u; step < 4u; step++) {
    let i = index * 1024u + step * 256u + local;
    let counted = is_inside(i, e.n);
    let difference = x4[i] - bitcast<vec4f>(targets[i]);
    losses4 += select(vec4f(0), difference * difference, counted);
    counts += select(vec4f(0), vec4f(1), counted);
  }
  add_group(losses4, counts, index, (e.n + 4095u) / 4096u, local);
}

@compute @workgroup_size(256)
fn average(@builtin(local_invocation_index) local: u32) {
  var total = vec2f(0);
  for (var i = local; i < q.groups; i += 256u) {
    total += parts[i];
  }
  pairs[local] = total;
  workgroupBarrier();
  for (var half = 128u; half > 0u; half /= 2u) {
    if (local < half) {
      pairs[local] += pairs[local + half];
    }
    workgroupBarrier();
  }
  if (local == 0u) {
    y[0] = select(0.0, pairs[0].x / pairs[0].y, pairs[0].y > 0);
    found[0] = pairs[0].y;
  }
}

@compute @workgroup_size(256)
fn bce_gradient(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) local: u32,
) {
  let i = (group.x + group.y * groups.x) * 256u + local;
  if (4u * i >= e.n) {
    return;
  }
  let counted = is_present(targets[i]);
  let t = select(vec4f(0), bitcast<vec4f>(targets[i]), counted);
  let u = exp(-abs(x4[i]));
  // σ(−x)
  let miss = select(u, vec4f(1), x4[i] < vec4f(0)) / (1 + u);
  let slope = (1 - t) - weights(i, t) * miss;
  dx[i] = select(vec4f(0), slope * (dy[0] / max(present[0], 1)), counted);
}

@compute @workgroup_size(256)
fn focal_gradient(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) local: u32,
) {
  let i = (group.x + group.y * groups.x) * 256u + local;
  if (4u * i >= f.n) {
    return;
  }
  let counted = is_present(targets[i]);
  let t = select(vec4f(0), bitcast<vec4f>(targets[i]), counted);
  let slope = focused(x4[i], t)[1];
  dx[i] = select(vec4f(0), slope * (dy[0] / max(present[0], 1)), counted);
}

@compute @workgroup_size(256)
fn mse_gradient(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) local: u32,
) {
  let i = (group.x + group.y * groups.x) * 256u + local;
  if (4u * i >= e.n) {
    return;
  }
  let factor = select(2.0, -2.0, SIDE == 1u) * dy[0] / present[0];
  let difference = x4[i] - bitcast<vec4f>(targets[i]);
  dx[i] = difference * factor;
}
