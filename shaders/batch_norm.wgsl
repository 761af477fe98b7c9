// Batch normalisation of x [rows, c] over its rows, with ReLU and a residual fused in.
//
//   y = relu((x − μ)·γ/σ + β + residual),  σ² = var(x) + ε
//   g = dy·[y > 0],  dβ = Σ g,  dγ = Σ g·x̂,  x̂ = (x − μ)/σ
//   dx = γ/σ·(g − dβ/rows − x̂·dγ/rows)      (without the last two terms for running statistics)
//
// Layout: `fold` rows form a line of whole vec4, 16 of them or more, and the value at column j belongs to
// channel j % c. What is kept by channel is repeated for each row of a line: coefficients [mean, 1/σ,
// γ/σ, β], slopes [dγ·γ/(σ²·rows), dβ·γ/(σ·rows)], each as wide as a line.
//
// Eight invocations walk side by side down `run` lines, each at QUADS columns that are 8 apart: memory is
// read in order, 128·QUADS bytes at a time. For sums the runs of a workgroup are joined one after
// another, and a second kernel joins the workgroups. Sums of squares are taken about the first value of each run,
// which itself is one of the deviations, so they lose nothing where the mean is large; means and squared
// deviations of runs are merged as in Chan, Golub and LeVeque, "Updating Formulae and a Pairwise Algorithm
// for Computing Sample Variances", 1979. A convolution may have left such moments of parts of its rows; then they
// come from there.
//
// Grids: by line: (ceil(columns / (8·QUADS)), spans folded to y and z); by channel: ceil(c / 8).
//
// @compile moments QUADS=2
// @compile apply RELU=1 QUADS=2
// @compile apply_residual RELU=1 QUADS=2
// @compile sums RELU=1 QUADS=2
// @compile apply_gradient RELU=1 QUADS=2
// @compile masked_sums QUADS=2
// @compile masked_sums QUADS=2 PARTS=2
// @compile apply_gradient QUADS=2
// @compile moments QUADS=4
// @compile apply RELU=1 QUADS=4
// @compile apply_residual RELU=1 QUADS=4
// @compile sums RELU=1 QUADS=4
// @compile apply_gradient RELU=1 QUADS=4
// @compile masked_sums QUADS=4
// @compile apply_gradient QUADS=4
// @compile apply RELU=1
// @compile sums RELU=1
// @compile moments Real4=16
// @compile apply RELU=1 QUADS=2 Real4=16
// @compile apply_residual RELU=1 QUADS=4 Real4=16
// @compile sums RELU=1 QUADS=2 Real4=16
// @compile masked_sums QUADS=4 PARTS=2 Real4=16
// @compile apply_gradient RELU=1 QUADS=2 Real4=16

// Elements of images and their gradients; what is kept by channel is of f32.
alias Real4 = vec4f;

override RELU: u32 = 0u;
// What dy is the sum of, where there are two: dy and more.
override PARTS: u32 = 1u;
const QUADS = 1u;

struct Params {
  c: u32,
  size: u32, // rows · c
  fold: u32, // rows in a line
  columns: u32, // vec4 in a line
  lines: u32,
  run: u32, // lines of an invocation
  spans: u32, // workgroups along the lines, or parts of which there are sums
  part_fold: u32, // rows that sums of a part are kept of
  epsilon: f32,
  momentum: f32,
  weight_of_sums: f32, // 1 / rows, or 0 with running statistics
}

@group(0) @binding(0) var<storage, read> x: array<Real4>;
@group(0) @binding(1) var<storage, read> coefficients: array<vec4f>;
@group(0) @binding(2) var<storage, read_write> y: array<Real4>;
@group(0) @binding(3) var<storage, read> residual: array<Real4>;

@group(0) @binding(2) var<storage, read> dy: array<Real4>;
@group(0) @binding(3) var<storage, read> output: array<Real4>;
@group(0) @binding(3) var<storage, read> slopes: array<vec4f>;
@group(0) @binding(4) var<storage, read_write> dx: array<Real4>;
@group(0) @binding(4) var<storage, read_write> masked_dy: array<Real4>;
@group(0) @binding(5) var<storage, read_write> partial_sums: array<vec4f>;
@group(0) @binding(6) var<storage, read> more: array<Real4>;

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

/// The way of an invocation down an array of vec4: from `first` to `last` by `columns`, and QUADS − 1 more
/// columns 8 apart.
struct Walk {
  column: u32,
  columns: u32,
  first: u32,
  last: u32, // below `first` where there is nothing to do
  lines: u32,
  span: u32,
}

fn walk(group: vec3u, groups: vec3u, local: u32) -> Walk {
  let column = group.x * 8u * QUADS + (local & 7u);
  let span = group.y + group.z * groups.y;
  let line = (8u * span + (local >> 3u)) * p.run;
  if (column >= p.columns || line >= p.lines) {
    return Walk(column, p.columns, 1u, 0u, 0u, span);
  }
  let lines = min(p.run, p.lines - line);
  let first = line * p.columns + column;
  return Walk(column, p.columns, first, first + (lines - 1u) * p.columns, lines, span);
}

/// Which values of a vec4 are to be counted: not those of rows past the last in a line.
fn counts(i: u32) -> vec4<bool> {
  return 4u * i + vec4u(0u, 1u, 2u, 3u) < vec4u(p.size);
}

/// Whether there is a value at i: in the last line there may be none. A write there could land on the last one.
fn inside(i: u32) -> bool {
  return 4u * i < p.size;
}

// ---- statistics

struct Moments {
  count: vec4f,
  mean: vec4f,
  m2: vec4f, // sum of squared deviations from the mean
}

var<workgroup> moments_of: array<Moments, 64u * QUADS>;

fn merge(a: Moments, b: Moments) -> Moments {
  let count = a.count + b.count;
  let share = b.count / max(count, vec4f(1.0));
  let delta = b.mean - a.mean;
  return Moments(count, a.mean + delta * share, a.m2 + b.m2 + delta * delta * a.count * share);
}

/// Merges what the invocations of a workgroup have of a column; there are 8 · QUADS.
fn merge_runs(column: u32) -> Moments {
  workgroupBarrier();
  var all = Moments();
  let end = select(0u, 64u, column < 8u * QUADS);
  for (var run = 0u; run < end; run += 8u) {
    all = merge(all, moments_of[column / 8u * 64u + run + column % 8u]);
  }
  return all;
}

@compute @workgroup_size(64)
fn moments(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) local: u32,
) {
  let at = walk(group, groups, local);
  var origin: array<vec4f, QUADS>;
  var sum: array<vec4f, QUADS>;
  var squares: array<vec4f, QUADS>;
  // @unroll
  for (var q = 0u; q < QUADS; q++) {
    origin[q] = select(vec4f(0.0), vec4f(x[at.first + q * 8u]), counts(at.first + q * 8u));
  }
  for (var i = at.first; i <= at.last; i += at.columns) {
    // @unroll
    for (var q = 0u; q < QUADS; q++) {
      let v = vec4f(x[i + q * 8u]);
      let deviation = select(vec4f(0.0), v - origin[q], counts(i + q * 8u));
      sum[q] += deviation;
      squares[q] += deviation * deviation;
    }
  }
  // @unroll
  for (var q = 0u; q < QUADS; q++) {
    let incomplete = select(vec4f(1.0), vec4f(0.0), counts(at.last + q * 8u));
    let count = max(f32(at.lines) - incomplete, vec4f(0.0));
    let mean = sum[q] / max(count, vec4f(1.0));
    let m2 = max(squares[q] - sum[q] * mean, vec4f(0.0));
    moments_of[q * 64u + local] = Moments(count, origin[q] + mean, m2);
  }
  let all = merge_runs(local);
  let column = group.x * 8u * QUADS + local;
  if (local < 8u * QUADS && column < p.columns) {
    let to = at.span * 3u * p.columns + column;
    partial_sums[to] = all.count;
    partial_sums[to + p.columns] = all.mean;
    partial_sums[to + 2u * p.columns] = all.m2;
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

/// Where four parts of the sums begin that are kept of a channel in `kinds` lines a part.
struct Parts {
  first: vec4u,
  live: vec4<bool>, // the last may lack some
}

fn four_parts(i: u32, channel: u32, kinds: u32) -> Parts {
  let part = i + vec4u(0u, 1u, 2u, 3u);
  let live = part < vec4u(p.spans * p.part_fold);
  let first = (part / p.part_fold * kinds * p.part_fold + part % p.part_fold) * p.c + channel;
  return Parts(select(vec4u(channel), first, live), live);
}

fn four_sums(at: Parts, kind: u32) -> vec4f {
  let i = at.first + kind * p.part_fold * p.c;
  let four = vec4f(
    channel_partials[i.x],
    channel_partials[i.y],
    channel_partials[i.z],
    channel_partials[i.w],
  );
  return select(vec4f(0.0), four, at.live);
}

@compute @workgroup_size(64)
fn batch_coefficients(
  @builtin(workgroup_id) group: vec3u,
  @builtin(local_invocation_index) local: u32,
) {
  let channel = group.x * 8u + local % 8u;
  var four = Moments();
  let end = select(0u, p.spans * p.part_fold, channel < p.c);
  for (var i = local / 8u * 4u; i < end; i += 32u) {
    let at = four_parts(i, channel, 3u);
    four = merge(four, Moments(four_sums(at, 0u), four_sums(at, 1u), four_sums(at, 2u)));
  }
  moments_of[local] = four;
  four = merge_runs(local);
  let two = merge(four, Moments(four.count.zwxy, four.mean.zwxy, four.m2.zwxy));
  let all = merge(two, Moments(two.count.yxwz, two.mean.yxwz, two.m2.yxwz));
  if (local < 8u && channel < p.c) {
    let mean = all.mean.x;
    let count = all.count.x;
    write_coefficients(channel, mean, all.m2.x / count);
    running_mean[channel] = mix(running_mean[channel], mean, p.momentum);
    running_var[channel] = mix(running_var[channel], all.m2.x / (count - 1.0), p.momentum);
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
  var by: array<Affine, QUADS>;
  // @unroll
  for (var q = 0u; q < QUADS; q++) {
    by[q] = affine(at.column + q * 8u);
  }
  for (var i = at.first; i <= at.last; i += at.columns) {
    // @unroll
    for (var q = 0u; q < QUADS; q++) {
      let v = normalise(vec4f(x[i + q * 8u]), by[q]);
      if (inside(i + q * 8u)) {
        y[i + q * 8u] = Real4(activate(v));
      }
    }
  }
}

@compute @workgroup_size(64)
fn apply_residual(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) local: u32,
) {
  let at = walk(group, groups, local);
  var by: array<Affine, QUADS>;
  // @unroll
  for (var q = 0u; q < QUADS; q++) {
    by[q] = affine(at.column + q * 8u);
  }
  for (var i = at.first; i <= at.last; i += at.columns) {
    // @unroll
    for (var q = 0u; q < QUADS; q++) {
      let v = normalise(vec4f(x[i + q * 8u]), by[q]) + vec4f(residual[i + q * 8u]);
      if (inside(i + q * 8u)) {
        y[i + q * 8u] = Real4(activate(v));
      }
    }
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

var<workgroup> sums_of: array<Sums, 64u * QUADS>;

/// Adds what the invocations of a workgroup have of a column; there are 8 · QUADS.
fn add_runs(column: u32) -> Sums {
  workgroupBarrier();
  var all = Sums();
  let end = select(0u, 64u, column < 8u * QUADS);
  for (var run = 0u; run < end; run += 8u) {
    let part = sums_of[column / 8u * 64u + run + column % 8u];
    all.g += part.g;
    all.gx += part.gx;
  }
  return all;
}

fn write_sums(at: Walk, first: u32, local: u32) {
  let all = add_runs(local);
  if (local < 8u * QUADS && first + local < p.columns) {
    let to = at.span * 2u * p.columns + first + local;
    partial_sums[to] = all.g;
    partial_sums[to + p.columns] = all.gx;
  }
}

@compute @workgroup_size(64)
fn sums(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) local: u32,
) {
  let at = walk(group, groups, local);
  var by: array<Affine, QUADS>;
  var sum_g: array<vec4f, QUADS>;
  var sum_gx: array<vec4f, QUADS>;
  // @unroll
  for (var q = 0u; q < QUADS; q++) {
    by[q] = affine(at.column + q * 8u);
  }
  for (var i = at.first; i <= at.last; i += at.columns) {
    // @unroll
    for (var q = 0u; q < QUADS; q++) {
      let v = vec4f(x[i + q * 8u]);
      let g = gradient(vec4f(dy[i + q * 8u]), v, by[q]);
      sum_g[q] += select(vec4f(0.0), g, counts(i + q * 8u));
      sum_gx[q] += select(vec4f(0.0), g * (v - by[q].mean), counts(i + q * 8u));
    }
  }
  // @unroll
  for (var q = 0u; q < QUADS; q++) {
    sums_of[q * 64u + local] = Sums(sum_g[q], sum_gx[q] * by[q].inverse);
  }
  write_sums(at, group.x * 8u * QUADS, local);
}

// With a residual the ReLU's mask is that of the output, and the masked dy is the residual's gradient.
@compute @workgroup_size(64)
fn masked_sums(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) local: u32,
) {
  let at = walk(group, groups, local);
  var by: array<Affine, QUADS>;
  var sum_g: array<vec4f, QUADS>;
  var sum_gx: array<vec4f, QUADS>;
  // @unroll
  for (var q = 0u; q < QUADS; q++) {
    by[q] = affine(at.column + q * 8u);
  }
  for (var i = at.first; i <= at.last; i += at.columns) {
    // @unroll
    for (var q = 0u; q < QUADS; q++) {
      let v = vec4f(x[i + q * 8u]);
      let passes = vec4f(output[i + q * 8u]) > vec4f(0.0);
      var whole = dy[i + q * 8u];
      if (PARTS == 2u) {
        // Rounded as a sum in memory is.
        whole = Real4(vec4f(whole) + vec4f(more[i + q * 8u]));
      }
      let g = select(vec4f(0.0), vec4f(whole), passes);
      sum_g[q] += select(vec4f(0.0), g, counts(i + q * 8u));
      sum_gx[q] += select(vec4f(0.0), g * (v - by[q].mean), counts(i + q * 8u));
      if (inside(i + q * 8u)) {
        masked_dy[i + q * 8u] = Real4(g);
      }
    }
  }
  // @unroll
  for (var q = 0u; q < QUADS; q++) {
    sums_of[q * 64u + local] = Sums(sum_g[q], sum_gx[q] * by[q].inverse);
  }
  write_sums(at, group.x * 8u * QUADS, local);
}

@compute @workgroup_size(64)
fn parameter_gradients(
  @builtin(workgroup_id) group: vec3u,
  @builtin(local_invocation_index) local: u32,
) {
  let channel = group.x * 8u + local % 8u;
  let width = 4u * p.columns;
  var mine = Sums();
  let end = select(0u, p.spans * p.part_fold, channel < p.c);
  for (var i = local / 8u * 4u; i < end; i += 32u) {
    let at = four_parts(i, channel, 2u);
    mine.g += four_sums(at, 0u);
    mine.gx += four_sums(at, 1u);
  }
  sums_of[local] = mine;
  let four = add_runs(local);
  if (local < 8u && channel < p.c) {
    let sum_g = dot(four.g, vec4f(1.0));
    let sum_gx = dot(four.gx, vec4f(1.0));
    dbias[channel] = sum_g;
    dweight[channel] = sum_gx;
    let inverse = saved_coefficients[channel + width];
    let scale = saved_coefficients[channel + 2u * width] * p.weight_of_sums;
    for (var row = 0u; row < p.fold; row++) {
      let to = row * p.c + channel;
      channel_slopes[to] = sum_gx * scale * inverse;
      channel_slopes[to + width] = sum_g * scale;
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
  var by: array<Affine, QUADS>;
  var slope: array<vec4f, QUADS>;
  var shift: array<vec4f, QUADS>;
  // @unroll
  for (var q = 0u; q < QUADS; q++) {
    by[q] = affine(at.column + q * 8u);
    slope[q] = slopes[at.column + q * 8u];
    shift[q] = slopes[at.column + q * 8u + at.columns];
  }
  for (var i = at.first; i <= at.last; i += at.columns) {
    // @unroll
    for (var q = 0u; q < QUADS; q++) {
      let v = vec4f(x[i + q * 8u]);
      let g = gradient(vec4f(dy[i + q * 8u]), v, by[q]);
      if (inside(i + q * 8u)) {
        dx[i + q * 8u] = Real4(g * by[q].scale - shift[q] - (v - by[q].mean) * slope[q]);
      }
    }
  }
}
