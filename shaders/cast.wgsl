// The same numbers with elements of another type, rounded to the nearest.
//
// Layout: one vec4 an invocation. Grid: ceil(n / 256) groups of n vec4, folded to 2-D.
//
// @compile convert From=32 To=16
// @compile convert From=16 To=32

alias From = vec4f;
alias To = vec4f;

struct Params {
  n: u32,
}

@group(0) @binding(0) var<storage, read> x: array<From>;
@group(0) @binding(1) var<storage, read_write> y: array<To>;
@group(1) @binding(0) var<uniform> p: Params;

@compute @workgroup_size(256)
fn convert(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) local: u32,
) {
  let i = (group.x + group.y * groups.x) * 256u + local;
  if (i < p.n) {
    y[i] = To(vec4f(x[i]));
  }
}
