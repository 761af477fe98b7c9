// Dropout, the same kernel forward and backward: the mask is computed again from its counters.
//
//   y[i] = x[i] / (1 − rate) where uniform i of the sequence (seed, stream, index) is ≥ rate, else 0
//
// The sequence is that of `Random` in src/random.ts: four words a counter, the last one first.
// Layout: f32, one vec4 an invocation. Grid: ceil(n / 256) groups of n vec4, folded to 2-D.

struct Params {
  n: u32,
  seed: u32,
  stream: u32,
  index: u32,
  rate: f32,
}

@group(0) @binding(0) var<storage, read> x: array<vec4f>;
@group(0) @binding(1) var<storage, read_write> y: array<vec4f>;
@group(1) @binding(0) var<uniform> p: Params;

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
