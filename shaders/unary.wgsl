// Elementwise functions of one tensor.
//
//   forward   y[i] = f(x[i])
//   gradient  dx[i] = dy[i] · f′, from v, the output or the input of f (`slope` says which)
//
// Layout: f32, row-major, one vec4 an invocation. Grid: ceil(n / 256) groups of n vec4, folded to 2-D.
//
// @compile forward OP=1
// @compile forward OP=2
// @compile forward OP=3
// @compile forward OP=4
// @compile forward OP=5
// @compile forward OP=6
// @compile forward OP=7
// @compile forward OP=8
// @compile forward OP=9
// @compile forward OP=10
// @compile forward OP=11
// @compile forward OP=12
// @compile gradient OP=1
// @compile gradient OP=2
// @compile gradient OP=3
// @compile gradient OP=4
// @compile gradient OP=5
// @compile gradient OP=6
// @compile gradient OP=7
// @compile gradient OP=8
// @compile gradient OP=9
// @compile gradient OP=10
// @compile gradient OP=11
// @compile gradient OP=12

// 0 neg, 1 abs, 2 square, 3 sqrt, 4 rsqrt, 5 exp, 6 log, 7 relu, 8 sigmoid, 9 tanh, 10 softplus,
// 11 gelu, 12 clamp
override OP: u32 = 0u;

struct Params {
  n: u32,
  // Bounds of clamp.
  low: f32,
  high: f32,
}

@group(0) @binding(0) var<storage, read> x: array<vec4f>;
@group(0) @binding(1) var<storage, read_write> y: array<vec4f>;
@group(0) @binding(0) var<storage, read> v: array<vec4f>;
@group(0) @binding(1) var<storage, read> dy: array<vec4f>;
@group(0) @binding(2) var<storage, read_write> dx: array<vec4f>;
@group(1) @binding(0) var<uniform> p: Params;

// 1 / (1 + e^−u) without overflow on either side.
fn sigmoid(u: vec4f) -> vec4f {
  let e = exp(-abs(u));
  return select(vec4f(1), e, u < vec4f(0)) / (1 + e);
}

// (1 − t) / (1 + t) with t = e^−2|u|: WGSL's own tanh may overflow.
fn hyperbolic_tangent(u: vec4f) -> vec4f {
  let t = exp(-2 * abs(u));
  return sign(u) * (1 - t) / (1 + t);
}

// log(1 + e) for 0 ≤ e ≤ 1, to f32 precision also where e is tiny:
// 2·artanh(s) = 2·(s + s³/3 + s⁵/5 + …) with s = e / (2 + e) ≤ 1/3.
fn log1p(e: vec4f) -> vec4f {
  let s = e / (2 + e);
  let q = s * s;
  let tail = q * (1.0 / 3 + q * (0.2 + q * (1.0 / 7 + q * (1.0 / 9 + q * (1.0 / 11 + q * (1.0 / 13 + q / 15))))));
  return 2 * s * (1 + tail);
}

// The standard normal distribution function, ½ erfc(−u / √2), by formula 7.1.26 of Abramowitz and
// Stegun, Handbook of Mathematical Functions (|error| of erf ≤ 1.5e-7).
fn normal_cdf(u: vec4f) -> vec4f {
  let z = abs(u) * 0.70710678;
  let t = 1 / (1 + 0.3275911 * z);
  let series = t * (0.254829592 + t * (-0.284496736 + t * (1.421413741 + t * (-1.453152027 + t * 1.061405429))));
  let tail = 0.5 * series * exp(-z * z);
  return select(1 - tail, tail, u < vec4f(0));
}

fn value(u: vec4f) -> vec4f {
  switch OP {
    case 0u: { return -u; }
    case 1u: { return abs(u); }
    case 2u: { return u * u; }
    case 3u: { return sqrt(u); }
    case 4u: { return 1 / sqrt(u); }
    case 5u: { return exp(u); }
    case 6u: { return log(u); }
    // Written so that NaN stays NaN: a diverged network must show.
    case 7u: { return select(u, vec4f(0), u < vec4f(0)); }
    case 8u: { return sigmoid(u); }
    case 9u: { return hyperbolic_tangent(u); }
    case 10u: { return max(u, vec4f(0)) + log1p(exp(-abs(u))); }
    case 11u: { return u * normal_cdf(u); }
    default: { return clamp(u, vec4f(p.low), vec4f(p.high)); }
  }
}

fn slope(u: vec4f) -> vec4f {
  switch OP {
    case 0u: { return vec4f(-1); }
    // From the input:
    case 1u: { return sign(u); }
    case 2u: { return 2 * u; }
    case 6u: { return 1 / u; }
    case 10u: { return sigmoid(u); }
    case 11u: { return normal_cdf(u) + u * 0.39894228 * exp(-0.5 * u * u); }
    case 12u: { return select(vec4f(0), vec4f(1), (u >= vec4f(p.low)) & (u <= vec4f(p.high))); }
    // From the output:
    case 3u: { return 0.5 / u; }
    case 4u: { return -0.5 * u * u * u; }
    case 5u: { return u; }
    case 7u: { return select(vec4f(0), vec4f(1), u > vec4f(0)); }
    case 8u: { return u * (1 - u); }
    default: { return 1 - u * u; }
  }
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
  y[i] = value(x[i]);
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
  dx[i] = dy[i] * slope(v[i]);
}
