// Nearest-neighbour enlargement of x [n, h, w, c] by a whole factor, and its gradient.
//
//   forward, forward4    y[n, i, j] = x[n, i / factor, j / factor]
//   gradient, gradient4  dx[n, i, j] = Σ dy[n, factor·i + a, factor·j + b],  0 ≤ a, b < factor
//
// Layout: NHWC f32; the vec4 forms count c in vec4. One element
// or vec4 an invocation. Grid: ceil(n / 256) groups of n of them, folded to 2-D.

struct Params {
  n: u32,
  // Of x, the smaller one.
  w: u32,
  c: u32,
  factor: u32,
}

@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(0) var<storage, read> x4: array<vec4f>;
@group(0) @binding(1) var<storage, read_write> y: array<f32>;
@group(0) @binding(1) var<storage, read_write> y4: array<vec4f>;
@group(0) @binding(0) var<storage, read> dy: array<f32>;
@group(0) @binding(0) var<storage, read> dy4: array<vec4f>;
@group(0) @binding(1) var<storage, read_write> dx: array<f32>;
@group(0) @binding(1) var<storage, read_write> dx4: array<vec4f>;
@group(1) @binding(0) var<uniform> p: Params;

// The position in x of element i of y.
fn source(i: u32) -> u32 {
  let pixel = i / p.c;
  let wide = p.w * p.factor;
  let row = pixel / wide;
  let column = pixel - row * wide;
  return ((row / p.factor) * p.w + column / p.factor) * p.c + i - pixel * p.c;
}

// The position in y of the first element that is a copy of element i of x.
fn first_copy(i: u32) -> u32 {
  let pixel = i / p.c;
  let row = pixel / p.w;
  let column = pixel - row * p.w;
  return (row * p.factor * p.w + column) * p.factor * p.c + i - pixel * p.c;
}

@compute @workgroup_size(256)
fn forward(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) local: u32,
) {
  let i = (group.x + group.y * groups.x) * 256u + local;
  if (i >= p.n) {
    return;
  }
  y[i] = x[source(i)];
}

@compute @workgroup_size(256)
fn forward4(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) local: u32,
) {
  let i = (group.x + group.y * groups.x) * 256u + local;
  if (i >= p.n) {
    return;
  }
  y4[i] = x4[source(i)];
}

@compute @workgroup_size(256)
fn gradient(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) local: u32,
) {
  let i = (group.x + group.y * groups.x) * 256u + local;
  if (i >= p.n) {
    return;
  }
  let first = first_copy(i);
  var total = 0.0;
  for (var a = 0u; a < p.factor; a++) {
    for (var b = 0u; b < p.factor; b++) {
      total += dy[first + (a * p.w * p.factor + b) * p.c];
    }
  }
  dx[i] = total;
}

@compute @workgroup_size(256)
fn gradient4(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) local: u32,
) {
  let i = (group.x + group.y * groups.x) * 256u + local;
  if (i >= p.n) {
    return;
  }
  let first = first_copy(i);
  var total = vec4f(0);
  for (var a = 0u; a < p.factor; a++) {
    for (var b = 0u; b < p.factor; b++) {
      total += dy4[first + (a * p.w * p.factor + b) * p.c];
    }
  }
  dx4[i] = total;
}
