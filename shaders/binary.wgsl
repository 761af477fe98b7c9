// Elementwise operations of two operands, with NumPy's broadcasting.
//
//   apply       y[i] = a[·] OP b[·]
//   gradient    y[i] = dy[i] · ∂(a OP b)/∂a, or ∂b with SIDE = 1
//   accumulate  y[i] += a[i]
//
// Layout: row-major; all operands of f32 or all of f16, computed with f32. One invocation computes four consecutive elements of y, whose shape is
// seen as [·, size1, size2, size3]. A and B tell where the operands have theirs:
//   0  at the same place as y: one vec4
//   1  nowhere, it is the number p.number
//   2  at the strides p.a0…a3 or p.b0…b3, 0 along an axis that is repeated: four elements
//   3  as 2, with size3 a multiple of 4 and a last stride of 1: one vec4
//   4  as 2, with one element for all four
// Grid: ceil(n / 256) groups, folded to 2-D; n counts vec4.
//
// @compile apply OP=1
// @compile apply OP=2 B=1
// @compile apply OP=3 A=2 B=2
// @compile apply OP=4 A=3 B=4
// @compile apply OP=5 A=4 B=3
// @compile apply OP=6
// @compile apply OP=7
// @compile gradient OP=2
// @compile gradient OP=3 SIDE=1
// @compile gradient OP=4
// @compile gradient OP=4 SIDE=1
// @compile gradient OP=5
// @compile gradient OP=6 SIDE=1
// @compile apply Real4=16
// @compile apply A=2 B=4 Real4=16
// @compile gradient OP=2 Real4=16
// @compile accumulate Real4=16

alias Real4 = vec4f;

// 0 add, 1 sub, 2 mul, 3 div, 4 pow, 5 maximum, 6 minimum, 7 equal
override OP: u32 = 0u;
override A: u32 = 0u;
override B: u32 = 0u;
override SIDE: u32 = 0u;

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
  number: f32,
}

struct Count {
  n: u32,
}

@group(0) @binding(0) var<storage, read> a: array<Real4>;
@group(0) @binding(1) var<storage, read> b: array<Real4>;
@group(0) @binding(2) var<storage, read_write> y: array<Real4>;
@group(0) @binding(3) var<storage, read> dy: array<Real4>;
@group(1) @binding(0) var<uniform> p: Params;
@group(1) @binding(0) var<uniform> count: Count;

// The position of element i of y in an operand of the given strides.
fn position(i: u32, strides: vec4u) -> u32 {
  let i2 = i / p.size3;
  let row = (i - i2 * p.size3) * strides.w;
  if (p.size1 == 0u) {
    return row + i2 * strides.z;
  }
  let i1 = i2 / p.size2;
  let i0 = i1 / p.size1;
  return row + (i2 - i1 * p.size2) * strides.z + (i1 - i0 * p.size1) * strides.y + i0 * strides.x;
}

fn a_element(i: u32) -> f32 {
  let at = position(i, vec4u(p.a0, p.a1, p.a2, p.a3));
  return f32(a[at / 4u][at % 4u]);
}

fn b_element(i: u32) -> f32 {
  let at = position(i, vec4u(p.b0, p.b1, p.b2, p.b3));
  return f32(b[at / 4u][at % 4u]);
}

fn a_vector(i: u32) -> vec4f {
  switch A {
    case 0u: { return vec4f(a[i]); }
    case 1u: { return vec4f(p.number); }
    case 2u: {
      return vec4f(a_element(4u * i), a_element(4u * i + 1u), a_element(4u * i + 2u), a_element(4u * i + 3u));
    }
    case 3u: { return vec4f(a[position(4u * i, vec4u(p.a0, p.a1, p.a2, p.a3)) / 4u]); }
    default: { return vec4f(a_element(4u * i)); }
  }
}

fn b_vector(i: u32) -> vec4f {
  switch B {
    case 0u: { return vec4f(b[i]); }
    case 1u: { return vec4f(p.number); }
    case 2u: {
      return vec4f(b_element(4u * i), b_element(4u * i + 1u), b_element(4u * i + 2u), b_element(4u * i + 3u));
    }
    case 3u: { return vec4f(b[position(4u * i, vec4u(p.b0, p.b1, p.b2, p.b3)) / 4u]); }
    default: { return vec4f(b_element(4u * i)); }
  }
}

// u^v as C has it: 1 for v = 0, of either sign for u < 0 and a whole v. WGSL's is for u > 0 only.
fn power(u: vec4f, v: vec4f) -> vec4f {
  let magnitude = select(pow(abs(u), v), select(vec4f(0), 1 / abs(u), v < vec4f(0)), u == vec4f(0));
  let odd = abs(v - 2 * floor(v / 2)) == vec4f(1);
  let whole = v == floor(v);
  // The root of a negative number is NaN.
  let signed = select(sqrt(u), select(magnitude, -magnitude, odd), whole);
  return select(select(magnitude, signed, u < vec4f(0)), vec4f(1), v == vec4f(0));
}

fn combine(u: vec4f, v: vec4f) -> vec4f {
  switch OP {
    case 0u: { return u + v; }
    case 1u: { return u - v; }
    case 2u: { return u * v; }
    case 3u: { return u / v; }
    case 4u: { return power(u, v); }
    case 5u: { return max(u, v); }
    case 6u: { return min(u, v); }
    default: { return select(vec4f(0), vec4f(1), u == v); }
  }
}

// The derivative by u. Of equal operands, maximum and minimum give each a half, as PyTorch.
fn slope_u(u: vec4f, v: vec4f) -> vec4f {
  switch OP {
    case 2u: { return v; }
    case 3u: { return 1 / v; }
    case 4u: { return select(v * power(u, v - 1), vec4f(0), v == vec4f(0)); }
    case 5u: { return select(select(vec4f(0), vec4f(0.5), u == v), vec4f(1), u > v); }
    case 6u: { return select(select(vec4f(0), vec4f(0.5), u == v), vec4f(1), u < v); }
    default: { return vec4f(1); }
  }
}

// The derivative by v. d(u^v)/dv at u = 0 is 0 for v ≥ 0, as PyTorch.
fn slope_v(u: vec4f, v: vec4f) -> vec4f {
  switch OP {
    case 1u: { return vec4f(-1); }
    case 2u: { return u; }
    case 3u: { return -u / (v * v); }
    case 4u: { return select(power(u, v) * log(u), vec4f(0), (u == vec4f(0)) & (v >= vec4f(0))); }
    case 5u: { return select(select(vec4f(0), vec4f(0.5), u == v), vec4f(1), v > u); }
    case 6u: { return select(select(vec4f(0), vec4f(0.5), u == v), vec4f(1), v < u); }
    default: { return vec4f(1); }
  }
}

@compute @workgroup_size(256)
fn apply(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) local: u32,
) {
  let i = (group.x + group.y * groups.x) * 256u + local;
  if (i >= p.n) {
    return;
  }
  y[i] = Real4(combine(a_vector(i), b_vector(i)));
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
  let u = a_vector(i);
  let v = b_vector(i);
  if (SIDE == 0u) {
    y[i] = Real4(vec4f(dy[i]) * slope_u(u, v));
  } else {
    y[i] = Real4(vec4f(dy[i]) * slope_v(u, v));
  }
}

@compute @workgroup_size(256)
fn accumulate(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) local: u32,
) {
  let i = (group.x + group.y * groups.x) * 256u + local;
  if (i >= count.n) {
    return;
  }
  y[i] = Real4(vec4f(y[i]) + vec4f(a[i]));
}
