// Elementwise operations of two tensors, with NumPy's broadcasting.
//
//   y[i] = a[i] OP b[i]                      same:      one vec4 an invocation
//   y[i] = a[index_a(i)] OP b[index_b(i)]    broadcast: one element an invocation
//
// Layout: row-major f32. Shapes are given as four axes, outermost first; a stride of 0 repeats an
// axis. Grid: ceil(n / 256) groups (n counts vec4 in `same`), folded to 2-D.
//
// @compile same OP=1
// @compile same OP=2
// @compile same OP=3
// @compile broadcast OP=1
// @compile broadcast OP=2
// @compile broadcast OP=3

// 0 add, 1 sub, 2 mul, 3 div
override OP: u32 = 0u;

struct Params {
  n: u32,
  size1: u32,
  size2: u32,
  size3: u32,
  a0: u32,
  a1: u32,
  a2: u32,
  a3: u32,
  b0: u32,
  b1: u32,
  b2: u32,
  b3: u32,
}

@group(0) @binding(0) var<storage, read> a4: array<vec4f>;
@group(0) @binding(1) var<storage, read> b4: array<vec4f>;
@group(0) @binding(2) var<storage, read_write> y4: array<vec4f>;
@group(0) @binding(0) var<storage, read> a: array<f32>;
@group(0) @binding(1) var<storage, read> b: array<f32>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;
@group(1) @binding(0) var<uniform> p: Params;

fn combine(u: vec4f, v: vec4f) -> vec4f {
  switch OP {
    case 0u: { return u + v; }
    case 1u: { return u - v; }
    case 2u: { return u * v; }
    default: { return u / v; }
  }
}

@compute @workgroup_size(256)
fn same(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) local: u32,
) {
  let i = (group.x + group.y * groups.x) * 256u + local;
  if (i >= p.n) {
    return;
  }
  y4[i] = combine(a4[i], b4[i]);
}

@compute @workgroup_size(256)
fn broadcast(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) local: u32,
) {
  let i = (group.x + group.y * groups.x) * 256u + local;
  if (i >= p.n) {
    return;
  }
  let i3 = i % p.size3;
  let i2 = (i / p.size3) % p.size2;
  let i1 = (i / (p.size3 * p.size2)) % p.size1;
  let i0 = i / (p.size3 * p.size2 * p.size1);
  let u = a[i0 * p.a0 + i1 * p.a1 + i2 * p.a2 + i3 * p.a3];
  let v = b[i0 * p.b0 + i1 * p.b1 + i2 * p.b2 + i3 * p.b3];
  y[i] = combine(vec4f(u), vec4f(v)).x;
}
