// Batch normalisation of x [rows, c] over its rows, with ReLU and a residual fused in.
//
//   y = relu((x − μ)·γ/σ + β + residual),  σ² = var(x) + ε
//   g = dy·[y > 0],  dβ = Σ g,  dγ = Σ g·x̂,  x̂ = (x − μ)/σ
//   dx = γ/σ·(g − dβ/rows − x̂·dγ/rows)      (without the last two terms for running statistics)
//
// Layout: `fold` rows form a line, such that lines are whole vec4, and the value at column j belongs to
// channel j % c. What is kept by channel is repeated for each row of a line: coefficients [mean, 1/σ,
// γ/σ, β], slopes [dγ·γ/(σ²·rows), dβ·γ/(σ·rows)], each as wide as a line.
//
// An invocation walks along one column through `run` lines, next to each other as caches like it. For
// sums a fixed tree joins the invocations of a workgroup, and a second kernel joins the workgroups. Means
// and squared deviations are merged as in Chan, Golub and LeVeque, "Updating Formulae and a Pairwise
// Algorithm for Computing Sample Variances", 1979, which loses nothing where the mean is large.
//
// Grids: by line: (ceil(columns / 2^log_across), spans folded to y and z); by channel: ceil(c / 8).
//
// @compile apply RELU=1
// @compile apply_residual RELU=1
// @compile sums RELU=1
// @compile apply_gradient RELU=1

override RELU: u32 = 0u;

// Lines loaded at a time, before anything is stored; `run` of the apply kernels.
const BLOCK = 8u;

struct Params {
  c: u32,
  size: u32, // rows · c
  fold: u32, // rows in a line
  columns: u32, // vec4 in a line
  lines: u32,
  log_across: u32, // columns of a workgroup are 2^log_across
  run: u32, // lines of an invocation
  spans: u32, // workgroups along the lines
  epsilon: f32,
  momentum: f32,
  weight_of_sums: f32, // 1 / rows, or 0 with running statistics
}

@group(0) @binding(0) var<storage, read> x: array<vec4f>;
@group(0) @binding(1) var<storage, read> coefficients: array<vec4f>;
@group(0) @binding(2) var<storage, read_write> y: array<vec4f>;
@group(0) @binding(3) var<storage, read> residual: array<vec4f>;

@group(0) @binding(2) var<storage, read> dy: array<vec4f>;
@group(0) @binding(3) var<storage, read> output: array<vec4f>;
@group(0) @binding(3) var<storage, read> slopes: array<vec4f>;
@group(0) @binding(4) var<storage, read_write> dx: array<vec4f>;
@group(0) @binding(4) var<storage, read_write> masked_dy: array<vec4f>;
@group(0) @binding(5) var<storage, read_write> partial_sums: array<vec4f>;

@group(0) @binding(0) var<storage, read> channel_partials: array<f32>;
@group(0) @binding(1) var<storage, read_write> channel_coefficients: array<f32>;
@group(0) @binding(2) var<storage, read> weight: array<f32>;
@group(0) @binding(3) var<storage, read> bias: array<f32>;
@group(0) @binding(4) var<storage, read_write> running_mean: array<f32>;
@group(0) @binding(5) var<storage, read_write> running_var: array<f32>;
@group(0) @binding(6) var<storage, read> fixed_mean: array<f32>;
@group(0) @binding(7) var<storage, read> fixed_var: array<f32>;

@group(0) @binding(1) var<storage, read> saved_coefficients: array<f32>;
@group(0) @binding(2) var<storage, read_write> channel_slopes: array<f32>;
@group(0) @binding(3) var<storage, read_write> dweight: array<f32>;
@group(0) @binding(4) var<storage, read_write> dbias: array<f32>;

@group(1) @binding(0) var<uniform> p: Params;

/// The way of an invocation through an array of vec4: from `first` to `last` by `columns`.
struct Walk {
  column: u32,
  columns: u32,
  first: u32,
  last: u32, // below `first` where there is nothing to do
  span: u32,
}

fn walk(group: vec3u, groups: vec3u, local: u32) -> Walk {
  // Shifts, because division is slow.
  let column = (group.x << p.log_across) + (local & ((1u << p.log_across) - 1u));
  let span = group.y + group.z * groups.y;
  let line = ((span << (6u - p.log_across)) + (local >> p.log_across)) * p.run;
  if (column >= p.columns || line >= p.lines) {
    return Walk(column, p.columns, 1u, 0u, span);
  }
  let end = min(line + p.run, p.lines);
  return Walk(column, p.columns, line * p.columns + column, (end - 1u) * p.columns + column, span);
}

/// k lines after i, but not past the last: the last is then done again, which changes nothing.
fn step(at: Walk, i: u32, k: u32) -> u32 {
  return min(i + k * at.columns, at.last);
}

/// Which values at index i belong to the array and to the way: not those of its ragged end.
fn valid(at: Walk, i: u32) -> vec4<bool> {
  return 4u * i + vec4u(0u, 1u, 2u, 3u) < vec4u(min(p.size, 4u * at.last + 4u));
}

// ---- statistics

struct Moments {
  count: vec4f,
  mean: vec4f,
  m2: vec4f, // sum of squared deviations from the mean
}

var<workgroup> moments_of: array<Moments, 64>;

fn merge(a: Moments, b: Moments) -> Moments {
  let count = a.count + b.count;
  let share = b.count / max(count, vec4f(1.0));
  let delta = b.mean - a.mean;
  return Moments(count, a.mean + delta * share, a.m2 + b.m2 + delta * delta * a.count * share);
}

/// Joins the parts of a workgroup; right for the first `across` invocations.
fn merge_parts(mine: Moments, local: u32, across: u32) -> Moments {
  moments_of[local] = mine;
  for (var half = 32u; half >= across; half >>= 1u) {
    workgroupBarrier();
    if (local < half) {
      moments_of[local] = merge(moments_of[local], moments_of[local + half]);
    }
  }
  return moments_of[local];
}

@compute @workgroup_size(64)
fn moments(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) local: u32,
) {
  let at = walk(group, groups, local);
  let full = min(at.last, p.size / 4u - 1u);
  var sum = Moments();
  var i = at.first;
  for (; i + (BLOCK - 1u) * at.columns <= full; i += BLOCK * at.columns) {
    var v: array<vec4f, BLOCK>;
    var mean = vec4f();
    // @unroll
    for (var k = 0u; k < BLOCK; k++) {
      v[k] = x[i + k * at.columns];
      mean += v[k];
    }
    mean /= f32(BLOCK);
    var m2 = vec4f();
    // @unroll
    for (var k = 0u; k < BLOCK; k++) {
      m2 += (v[k] - mean) * (v[k] - mean);
    }
    sum = merge(sum, Moments(vec4f(f32(BLOCK)), mean, m2));
  }
  for (; i <= at.last; i += at.columns) {
    let counts = valid(at, i);
    let one = Moments(
      select(vec4f(0.0), vec4f(1.0), counts),
      select(vec4f(0.0), x[i], counts),
      vec4f(0.0),
    );
    sum = merge(sum, one);
  }
  sum = merge_parts(sum, local, 1u << p.log_across);
  if (local < 1u << p.log_across && at.column < p.columns) {
    let to = at.span * 3u * p.columns + at.column;
    partial_sums[to] = sum.count;
    partial_sums[to + p.columns] = sum.mean;
    partial_sums[to + 2u * p.columns] = sum.m2;
  }
}

fn write_coefficients(channel: u32, mean: f32, variance: f32) {
  let deviation = sqrt(variance + p.epsilon);
  let width = 4u * p.columns;
  for (var row = 0u; row < p.fold; row++) {
    let to = row * p.c + channel;
    channel_coefficients[to] = mean;
    channel_coefficients[to + width] = 1.0 / deviation;
    channel_coefficients[to + 2u * width] = weight[channel] / deviation;
    channel_coefficients[to + 3u * width] = bias[channel];
  }
}

@compute @workgroup_size(64)
fn batch_coefficients(
  @builtin(workgroup_id) group: vec3u,
  @builtin(local_invocation_index) local: u32,
) {
  let channel = group.x * 8u + local % 8u;
  let width = 4u * p.columns;
  var sum = Moments();
  let end = select(0u, p.spans * p.fold, channel < p.c);
  for (var i = local / 8u; i < end; i += 8u) {
    let source = i / p.fold * 3u * width + i % p.fold * p.c + channel;
    let part = Moments(
      vec4f(channel_partials[source]),
      vec4f(channel_partials[source + width]),
      vec4f(channel_partials[source + 2u * width]),
    );
    sum = merge(sum, part);
  }
  sum = merge_parts(sum, local, 8u);
  if (local < 8u && channel < p.c) {
    let mean = sum.mean.x;
    let count = sum.count.x;
    write_coefficients(channel, mean, sum.m2.x / count);
    running_mean[channel] = mix(running_mean[channel], mean, p.momentum);
    running_var[channel] = mix(running_var[channel], sum.m2.x / (count - 1.0), p.momentum);
  }
}

@compute @workgroup_size(8)
fn running_coefficients(@builtin(global_invocation_id) id: vec3u) {
  if (id.x < p.c) {
    write_coefficients(id.x, fixed_mean[id.x], fixed_var[id.x]);
  }
}

// ---- y from x

struct Affine {
  mean: vec4f,
  inverse: vec4f, // 1/σ
  scale: vec4f, // γ/σ
  shift: vec4f, // β
}

fn affine(column: u32) -> Affine {
  return Affine(
    coefficients[column],
    coefficients[column + p.columns],
    coefficients[column + 2u * p.columns],
    coefficients[column + 3u * p.columns],
  );
}

fn normalise(v: vec4f, by: Affine) -> vec4f {
  return (v - by.mean) * by.scale + by.shift;
}

fn activate(v: vec4f) -> vec4f {
  if (RELU == 1u) {
    return max(v, vec4f(0.0));
  }
  return v;
}

@compute @workgroup_size(64)
fn apply(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) local: u32,
) {
  let at = walk(group, groups, local);
  if (at.first > at.last) {
    return;
  }
  let by = affine(at.column);
  var v: array<vec4f, BLOCK>;
  // @unroll
  for (var k = 0u; k < BLOCK; k++) {
    v[k] = x[step(at, at.first, k)];
  }
  // @unroll
  for (var k = 0u; k < BLOCK; k++) {
    y[step(at, at.first, k)] = activate(normalise(v[k], by));
  }
}

@compute @workgroup_size(64)
fn apply_residual(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) local: u32,
) {
  let at = walk(group, groups, local);
  if (at.first > at.last) {
    return;
  }
  let by = affine(at.column);
  var v: array<vec4f, BLOCK>;
  // @unroll
  for (var k = 0u; k < BLOCK; k++) {
    v[k] = normalise(x[step(at, at.first, k)], by) + residual[step(at, at.first, k)];
  }
  // @unroll
  for (var k = 0u; k < BLOCK; k++) {
    y[step(at, at.first, k)] = activate(v[k]);
  }
}

// ---- gradients

/// dy where the ReLU lets x through.
fn gradient(dy_i: vec4f, x_i: vec4f, by: Affine) -> vec4f {
  if (RELU == 1u) {
    return select(vec4f(0.0), dy_i, normalise(x_i, by) > vec4f(0.0));
  }
  return dy_i;
}

struct Sums {
  g: vec4f,
  gx: vec4f,
}

var<workgroup> sums_of: array<Sums, 64>;

fn add_parts(mine: Sums, local: u32, across: u32) -> Sums {
  sums_of[local] = mine;
  for (var half = 32u; half >= across; half >>= 1u) {
    workgroupBarrier();
    if (local < half) {
      sums_of[local].g += sums_of[local + half].g;
      sums_of[local].gx += sums_of[local + half].gx;
    }
  }
  return sums_of[local];
}

/// @param mine Σ g and Σ g·(x − μ)
fn write_sums(mine: Sums, by: Affine, at: Walk, local: u32) {
  let sum = add_parts(Sums(mine.g, mine.gx * by.inverse), local, 1u << p.log_across);
  if (local < 1u << p.log_across && at.column < p.columns) {
    let to = at.span * 2u * p.columns + at.column;
    partial_sums[to] = sum.g;
    partial_sums[to + p.columns] = sum.gx;
  }
}

@compute @workgroup_size(64)
fn sums(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) local: u32,
) {
  let at = walk(group, groups, local);
  let by = affine(at.column);
  var sum = Sums();
  for (var i = at.first; i <= at.last; i += BLOCK * at.columns) {
    var v: array<vec4f, BLOCK>;
    var g: array<vec4f, BLOCK>;
    // @unroll
    for (var k = 0u; k < BLOCK; k++) {
      v[k] = x[step(at, i, k)];
      g[k] = dy[step(at, i, k)];
    }
    // @unroll
    for (var k = 0u; k < BLOCK; k++) {
      let counts = valid(at, i + k * at.columns);
      let gradient_k = select(vec4f(0.0), gradient(g[k], v[k], by), counts);
      sum.g += gradient_k;
      sum.gx += gradient_k * select(vec4f(0.0), v[k] - by.mean, counts);
    }
  }
  write_sums(sum, by, at, local);
}

// With a residual the ReLU's mask is that of the output, and the masked dy is the residual's gradient.
@compute @workgroup_size(64)
fn masked_sums(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) local: u32,
) {
  let at = walk(group, groups, local);
  let by = affine(at.column);
  var sum = Sums();
  for (var i = at.first; i <= at.last; i += BLOCK * at.columns) {
    var v: array<vec4f, BLOCK>;
    var g: array<vec4f, BLOCK>;
    // @unroll
    for (var k = 0u; k < BLOCK; k++) {
      v[k] = x[step(at, i, k)];
      g[k] = select(vec4f(0.0), dy[step(at, i, k)], output[step(at, i, k)] > vec4f(0.0));
    }
    // @unroll
    for (var k = 0u; k < BLOCK; k++) {
      let counts = valid(at, i + k * at.columns);
      let gradient_k = select(vec4f(0.0), g[k], counts);
      sum.g += gradient_k;
      sum.gx += gradient_k * select(vec4f(0.0), v[k] - by.mean, counts);
      masked_dy[step(at, i, k)] = g[k];
    }
  }
  write_sums(sum, by, at, local);
}

@compute @workgroup_size(64)
fn parameter_gradients(
  @builtin(workgroup_id) group: vec3u,
  @builtin(local_invocation_index) local: u32,
) {
  let channel = group.x * 8u + local % 8u;
  let width = 4u * p.columns;
  var mine = Sums();
  let end = select(0u, p.spans * p.fold, channel < p.c);
  for (var i = local / 8u; i < end; i += 8u) {
    let source = i / p.fold * 2u * width + i % p.fold * p.c + channel;
    mine.g += vec4f(channel_partials[source]);
    mine.gx += vec4f(channel_partials[source + width]);
  }
  let sum = add_parts(mine, local, 8u);
  if (local < 8u && channel < p.c) {
    dbias[channel] = sum.g.x;
    dweight[channel] = sum.gx.x;
    let inverse = saved_coefficients[channel + width];
    let scale = saved_coefficients[channel + 2u * width] * p.weight_of_sums;
    for (var row = 0u; row < p.fold; row++) {
      let to = row * p.c + channel;
      channel_slopes[to] = sum.gx.x * scale * inverse;
      channel_slopes[to + width] = sum.g.x * scale;
    }
  }
}

@compute @workgroup_size(64)
fn apply_gradient(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) local: u32,
) {
  let at = walk(group, groups, local);
  if (at.first > at.last) {
    return;
  }
  let by = affine(at.column);
  let slope = slopes[at.column];
  let shift = slopes[at.column + at.columns];
  var v: array<vec4f, BLOCK>;
  // @unroll
  for (var k = 0u; k < BLOCK; k++) {
    let x_k = x[step(at, at.first, k)];
    v[k] = gradient(dy[step(at, at.first, k)], x_k, by) * by.scale - shift - (x_k - by.mean) * slope;
  }
  // @unroll
  for (var k = 0u; k < BLOCK; k++) {
    dx[step(at, at.first, k)] = v[k];
  }
}
