// Dropout and other noise, each a function of its counters: nothing is stored to compute it again.
//
//   dropout   y[i] = x[i] / (1 − rate) where uniform i is ≥ rate, else 0; its own gradient
//   noise     y[i] = x[i] + rate · a standard normal number (Box–Muller of two uniforms)
//   mask      y[i] = 0 where the uniform of its patch of side × side pixels is < rate, else x[i]
//
// Uniforms are those of the sequence (seed, stream, index).
// The sequence is that of `Random` in src/random.ts: four words a counter, the last one first.
// Layout: f32, one vec4 an invocation. Grid: ceil(n / 256) groups of n vec4, folded to 2-D.

struct Params {
  n: u32,
  seed: u32,
  stream: u32,
  index: u32,
  rate: f32,
}

struct PatchParams {
  n: u32,
  seed: u32,
  stream: u32,
  index: u32,
  rate: f32,
  height: u32,
  width: u32,
  channels: u32,
  side: u32,
}

@group(0) @binding(0) var<storage, read> x: array<vec4f>;
@group(0) @binding(1) var<storage, read_write> y: array<vec4f>;
@group(0) @binding(0) var<storage, read> pixels: array<f32>;
@group(0) @binding(1) var<storage, read_write> masked: array<f32>;
@group(1) @binding(0) var<uniform> p: Params;
@group(1) @binding(0) var<uniform> q: PatchParams;

// Jarzynski and Olano, "Hash Functions for GPU Rendering", JCGT 9(3), 2020.
fn pcg4d(counters: vec4u) -> vec4u {
  var v = counters * 1664525u + 1013904223u;
  v.x += v.y * v.w;
  v.y += v.z * v.x;
  v.z += v.x * v.y;
  v.w += v.y * v.z;
  v ^= v >> vec4u(16);
  v.x += v.y * v.w;
  v.y += v.z * v.x;
  v.z += v.x * v.y;
  v.w += v.y * v.z;
  return v;
}

@compute @workgroup_size(256)
fn dropout(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) local: u32,
) {
  let i = (group.x + group.y * groups.x) * 256u + local;
  if (i >= p.n) {
    return;
  }
  let uniforms = vec4f(pcg4d(vec4u(p.seed, p.stream, p.index, i)).wzyx >> vec4u(8)) / 16777216;
  y[i] = select(vec4f(0), x[i] / (1 - p.rate), uniforms >= vec4f(p.rate));
}

@compute @workgroup_size(256)
fn noise(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) local: u32,
) {
  let i = (group.x + group.y * groups.x) * 256u + local;
  if (i >= p.n) {
    return;
  }
  // In (0, 1], for the logarithm.
  let u = vec4f((pcg4d(vec4u(p.seed, p.stream, p.index, i)) >> vec4u(8)) + 1u) / 16777216;
  let radius = sqrt(-2.0 * log(u.xy));
  let angle = 6.2831853 * u.zw;
  y[i] = x[i] + p.rate * vec4f(radius * cos(angle), radius * sin(angle));
}

@compute @workgroup_size(256)
fn mask(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) local: u32,
) {
  let i = (group.x + group.y * groups.x) * 256u + local;
  if (i >= q.n) {
    return;
  }
  let pixel = i / q.channels;
  let column = (pixel % q.width) / q.side;
  let row = ((pixel / q.width) % q.height) / q.side;
  let image = pixel / (q.width * q.height);
  let across = (q.width + q.side - 1u) / q.side;
  let down = (q.height + q.side - 1u) / q.side;
  let place = (image * down + row) * across + column;
  let uniform_value = f32(pcg4d(vec4u(q.seed, q.stream, q.index, place)).w >> 8u) / 16777216;
  masked[i] = select(0.0, pixels[i], uniform_value >= q.rate);
}
