// Rows of x [n, width] by index, and the sums of their gradients.
//
//   gather, gather4    y[j] = x[indices[j]]; NaN where there is no such row
//   scatter, scatter4  dx[r] += Σ dy[j] over all j in begin…end with indices[j] = r, in that order
//
// Layout: row-major; gather moves words of any 4-byte type; the vec4 forms count width in vec4. In
// scatter the invocation of the first j of a row adds up all of them, so nothing is written twice and
// the order is fixed. Grid: gather: ceil(m·width / 256) groups; scatter: ceil((end − begin)·width / 256);
// folded to 2-D. An invocation makes end − begin steps.

struct Params {
  // Rows of x.
  n: u32,
  width: u32,
  begin: u32,
  end: u32,
}

@group(0) @binding(0) var<storage, read> x: array<u32>;
@group(0) @binding(0) var<storage, read> x4: array<vec4u>;
@group(0) @binding(0) var<storage, read> dy: array<f32>;
@group(0) @binding(0) var<storage, read> dy4: array<vec4f>;
@group(0) @binding(1) var<storage, read> indices: array<u32>;
@group(0) @binding(2) var<storage, read_write> y: array<u32>;
@group(0) @binding(2) var<storage, read_write> y4: array<vec4u>;
@group(0) @binding(2) var<storage, read_write> dx: array<f32>;
@group(0) @binding(2) var<storage, read_write> dx4: array<vec4f>;
@group(1) @binding(0) var<uniform> p: Params;

const nan = 0x7fc00000u;

@compute @workgroup_size(256)
fn gather(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) local: u32,
) {
  let i = (group.x + group.y * groups.x) * 256u + local;
  let j = p.begin + i / p.width;
  if (j >= p.end) {
    return;
  }
  let row = indices[j];
  y[i] = select(nan, x[min(row, p.n - 1u) * p.width + i % p.width], row < p.n);
}

@compute @workgroup_size(256)
fn gather4(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) local: u32,
) {
  let i = (group.x + group.y * groups.x) * 256u + local;
  let j = p.begin + i / p.width;
  if (j >= p.end) {
    return;
  }
  let row = indices[j];
  y4[i] = select(vec4u(nan), x4[min(row, p.n - 1u) * p.width + i % p.width], row < p.n);
}

// Whether indices[j] occurs nowhere in begin…j.
fn is_first(j: u32) -> bool {
  for (var k = p.begin; k < j; k++) {
    if (indices[k] == indices[j]) {
      return false;
    }
  }
  return true;
}

@compute @workgroup_size(256)
fn scatter(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) local: u32,
) {
  let i = (group.x + group.y * groups.x) * 256u + local;
  let j = p.begin + i / p.width;
  if (j >= p.end || indices[j] >= p.n || !is_first(j)) {
    return;
  }
  let row = indices[j];
  let column = i % p.width;
  var total = 0.0;
  for (var k = j; k < p.end; k++) {
    if (indices[k] == row) {
      total += dy[k * p.width + column];
    }
  }
  dx[row * p.width + column] += total;
}

@compute @workgroup_size(256)
fn scatter4(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) local: u32,
) {
  let i = (group.x + group.y * groups.x) * 256u + local;
  let j = p.begin + i / p.width;
  if (j >= p.end || indices[j] >= p.n || !is_first(j)) {
    return;
  }
  let row = indices[j];
  let column = i % p.width;
  var total = vec4f(0);
  for (var k = j; k < p.end; k++) {
    if (indices[k] == row) {
      total += dy4[k * p.width + column];
    }
  }
  dx4[row * p.width + column] += total;
}
