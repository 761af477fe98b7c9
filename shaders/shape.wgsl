// Copies a region of up to four axes between two tensors in which it lies at different strides.
//
//   copy, copy4  y[y_start + Σ iₖ·yₖ] = x[x_start + Σ iₖ·xₖ],  0 ≤ iₖ < sizeₖ
//   transpose4   y[o, j, i] = x[o, i, j]
//   fill         y[i] = value
//
// Layout: words of 4 bytes of any type. copy moves one word an invocation; copy4 a vec4: the last axis
// is contiguous in both and everything is counted in vec4. transpose4 turns a block of 4×4 words an
// invocation; rows and columns of x count vec4. Grid: ceil(n / 256) groups, folded to 2-D; n counts words
// (copy), vec4, or blocks.

struct Params {
  n: u32,
  size1: u32,
  size2: u32,
  size3: u32,
  x0: u32,
  x1: u32,
  x2: u32,
  x3: u32,
  y0: u32,
  y1: u32,
  y2: u32,
  y3: u32,
  x_start: u32,
  y_start: u32,
}

struct Matrices {
  n: u32,
  rows: u32,
  columns: u32,
}

struct Fill {
  n: u32,
  value: f32,
}

@group(0) @binding(0) var<storage, read> x: array<u32>;
@group(0) @binding(1) var<storage, read_write> y: array<u32>;
@group(0) @binding(0) var<storage, read> x4: array<vec4u>;
@group(0) @binding(1) var<storage, read_write> y4: array<vec4u>;
@group(1) @binding(0) var<uniform> p: Params;
@group(1) @binding(0) var<uniform> m: Matrices;
@group(1) @binding(0) var<uniform> f: Fill;

// The positions of the i-th part of the region in x and y.
fn positions(i: u32) -> vec2u {
  let i2 = i / p.size3;
  let i3 = i - i2 * p.size3;
  let start = vec2u(p.x_start, p.y_start) + i3 * vec2u(p.x3, p.y3);
  let stride2 = vec2u(p.x2, p.y2);
  if (p.size1 == 0u) {
    return start + i2 * stride2;
  }
  let i1 = i2 / p.size2;
  let i0 = i1 / p.size1;
  return start + (i2 - i1 * p.size2) * stride2 +
    (i1 - i0 * p.size1) * vec2u(p.x1, p.y1) + i0 * vec2u(p.x0, p.y0);
}

@compute @workgroup_size(256)
fn copy(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) local: u32,
) {
  let i = (group.x + group.y * groups.x) * 256u + local;
  if (i >= p.n) {
    return;
  }
  let at = positions(i);
  y[at.y] = x[at.x];
}

@compute @workgroup_size(256)
fn copy4(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) local: u32,
) {
  let i = (group.x + group.y * groups.x) * 256u + local;
  if (i >= p.n) {
    return;
  }
  let at = positions(i);
  y4[at.y] = x4[at.x];
}

@compute @workgroup_size(256)
fn transpose4(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) local: u32,
) {
  let i = (group.x + group.y * groups.x) * 256u + local;
  if (i >= m.n) {
    return;
  }
  let line = i / m.columns;
  let column = i - line * m.columns;
  let matrix = line / m.rows;
  let row = line - matrix * m.rows;
  let top = line * 4u * m.columns + column;
  let u = x4[top];
  let v = x4[top + m.columns];
  let w = x4[top + 2u * m.columns];
  let z = x4[top + 3u * m.columns];
  let left = (matrix * m.columns + column) * 4u * m.rows + row;
  y4[left] = vec4u(u.x, v.x, w.x, z.x);
  y4[left + m.rows] = vec4u(u.y, v.y, w.y, z.y);
  y4[left + 2u * m.rows] = vec4u(u.z, v.z, w.z, z.z);
  y4[left + 3u * m.rows] = vec4u(u.w, v.w, w.w, z.w);
}

@compute @workgroup_size(256)
fn fill(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) local: u32,
) {
  let i = (group.x + group.y * groups.x) * 256u + local;
  if (i >= f.n) {
    return;
  }
  y4[i] = bitcast<vec4u>(vec4f(f.value));
}
