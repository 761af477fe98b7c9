// Updates of all parameters of a model at once, over flat buffers.
//
//   g = scale·dw (+ decay·w)                      scale: of clipping and of the loss; below 0, nothing changes
//   sgd    v = momentum·v + g;  w −= lr·v         or lr·(g + momentum·v) with NESTEROV
//   lars   v = momentum·v + lr·trust·g;  w −= v   trust = eta·‖w‖/‖g‖ of each tensor
//   adam   m += rate1·(g − m);  v += rate2·(g² − v);  w −= lr·(m / (1 − β1^t)) / (√(v / (1 − β2^t)) + epsilon)
//          with DECOUPLED, decay is not in g but in w: w −= lr·decay·w
//   average  w̄ += rate1·(w − w̄)
//   settle   scale = 1 / loss_scale, which doubles after `limit` finite steps in a row; or −1 where the
//            gradient is not finite, and loss_scale is halved
//
// Layout: tensors begin at multiples of 64 elements; `blocks` holds for every 64 elements the index of
// their tensor · 256 + 128 if it decays and adapts + the number of elements before padding − 1.
// `ranges` holds the first block and the number of blocks of each tensor.
// Grid: updates ceil(count / 64) groups, count in vec4; norms ceil(blocks / 64); trust_ratios one
// group a tensor; clip_scale and settle one group.
//
// @compile sgd NESTEROV=1
// @compile adam DECOUPLED=1

override NESTEROV: u32 = 0u;
override DECOUPLED: u32 = 0u;

struct Params {
  count: u32, // vec4, blocks or tensors
  lr: f32,
  decay: f32,
  momentum: f32,
  rate1: f32, // 1 − β1
  rate2: f32, // 1 − β2
  correction1: f32, // 1 − β1^t
  correction2: f32, // 1 − β2^t
  epsilon: f32,
  eta: f32,
  limit: f32, // largest global norm, or steps
}

@group(0) @binding(0) var<storage, read_write> w: array<vec4f>;
@group(0) @binding(1) var<storage, read> dw: array<vec4f>;
@group(0) @binding(2) var<storage, read> blocks: array<u32>;
@group(0) @binding(3) var<storage, read> scale: array<f32>;
@group(0) @binding(4) var<storage, read_write> m: array<vec4f>;
@group(0) @binding(5) var<storage, read_write> v: array<vec4f>;
@group(0) @binding(6) var<storage, read> trust: array<f32>;

@group(0) @binding(0) var<storage, read> values: array<vec4f>;
@group(0) @binding(4) var<storage, read_write> squares: array<vec2f>;

@group(0) @binding(0) var<storage, read> block_squares: array<vec2f>;
@group(0) @binding(1) var<storage, read> ranges: array<vec2u>;
@group(0) @binding(2) var<storage, read> given_scale: array<f32>;
@group(0) @binding(3) var<storage, read_write> result: array<f32>;
// [scale, finite steps since it changed]
@group(0) @binding(4) var<storage, read_write> loss_scale: array<f32>;

@group(1) @binding(0) var<uniform> p: Params;

fn index(group: vec3u, groups: vec3u, local: u32) -> u32 {
  return (group.x + group.y * groups.x) * 64u + local;
}

fn decay_of(block: u32) -> f32 {
  return select(0.0, p.decay, (blocks[block] & 128u) != 0u);
}

@compute @workgroup_size(64)
fn sgd(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) local: u32,
) {
  let i = index(group, groups, local);
  if (i >= p.count || scale[0] < 0.0) {
    return;
  }
  let g = scale[0] * dw[i] + decay_of(i / 16u) * w[i];
  let next = p.momentum * v[i] + g;
  v[i] = next;
  if (NESTEROV == 1u) {
    w[i] -= p.lr * (g + p.momentum * next);
  } else {
    w[i] -= p.lr * next;
  }
}

@compute @workgroup_size(64)
fn lars(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) local: u32,
) {
  let i = index(group, groups, local);
  if (i >= p.count || scale[0] < 0.0) {
    return;
  }
  let g = scale[0] * dw[i] + decay_of(i / 16u) * w[i];
  let next = p.momentum * v[i] + p.lr * trust[blocks[i / 16u] >> 8u] * g;
  v[i] = next;
  w[i] -= next;
}

@compute @workgroup_size(64)
fn adam(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) local: u32,
) {
  let i = index(group, groups, local);
  if (i >= p.count || scale[0] < 0.0) {
    return;
  }
  var before = w[i];
  var g = scale[0] * dw[i];
  let decay = decay_of(i / 16u);
  if (DECOUPLED == 1u) {
    before -= p.lr * decay * before;
  } else {
    g += decay * before;
  }
  let first = m[i] + p.rate1 * (g - m[i]);
  let second = v[i] + p.rate2 * (g * g - v[i]);
  m[i] = first;
  v[i] = second;
  let deviation = sqrt(second / p.correction2) + p.epsilon;
  w[i] = before - p.lr / p.correction1 * first / deviation;
}

@compute @workgroup_size(64)
fn average(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) local: u32,
) {
  let i = index(group, groups, local);
  if (i < p.count) {
    m[i] += p.rate1 * (values[i] - m[i]);
  }
}

// [Σ w², Σ g²] of each block. Padding is left out: it is not always zero.
@compute @workgroup_size(64)
fn norms(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) local: u32,
) {
  let block = index(group, groups, local);
  if (block >= p.count) {
    return;
  }
  let size = (blocks[block] & 63u) + 1u;
  let decay = decay_of(block);
  var sum_w = vec4f();
  var sum_g = vec4f();
  for (var i = 0u; 4u * i < size; i++) {
    let inside = 4u * i + vec4u(0u, 1u, 2u, 3u) < vec4u(size);
    let value = select(vec4f(), values[16u * block + i], inside);
    let g = scale[0] * select(vec4f(), dw[16u * block + i], inside) + decay * value;
    sum_w += value * value;
    sum_g += g * g;
  }
  squares[block] = vec2f(dot(sum_w, vec4f(1.0)), dot(sum_g, vec4f(1.0)));
}

var<workgroup> parts: array<vec2f, 64>;

/// The sum of a range of blocks, by a whole workgroup.
fn sum_blocks(first: u32, count: u32, local: u32) -> vec2f {
  var sum = vec2f();
  for (var i = local; i < count; i += 64u) {
    sum += block_squares[first + i];
  }
  parts[local] = sum;
  for (var half = 32u; half > 0u; half >>= 1u) {
    workgroupBarrier();
    if (local < half) {
      parts[local] += parts[local + half];
    }
  }
  return parts[local];
}

@compute @workgroup_size(64)
fn clip_scale(@builtin(local_invocation_index) local: u32) {
  let sum = sum_blocks(0u, p.count, local);
  if (local == 0u) {
    let given = given_scale[0];
    result[0] = select(given * min(1.0, p.limit / (sqrt(sum.y) + 1e-6)), given, given < 0.0);
  }
}

const largest_loss_scale = 16777216.0;

@compute @workgroup_size(64)
fn settle(@builtin(local_invocation_index) local: u32) {
  let sum = sum_blocks(0u, p.count, local);
  if (local == 0u) {
    let factor = loss_scale[0];
    // By the bits, because compilers may take for granted that there is neither infinity nor NaN.
    if ((bitcast<u32>(sum.y) & 0x7f800000u) == 0x7f800000u) {
      result[0] = -1.0;
      loss_scale[0] = factor / 2.0;
      loss_scale[1] = 0.0;
    } else {
      result[0] = 1.0 / factor;
      let steps = loss_scale[1] + 1.0;
      let grows = steps >= p.limit;
      loss_scale[0] = select(factor, min(2.0 * factor, largest_loss_scale), grows);
      loss_scale[1] = select(steps, 0.0, grows);
    }
  }
}

@compute @workgroup_size(64)
fn trust_ratios(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) local: u32,
) {
  let segment = group.x + group.y * groups.x;
  if (segment >= p.count) {
    return;
  }
  let range = ranges[segment];
  let sum = sum_blocks(range.x, range.y, local);
  if (local == 0u) {
    let adapts = (blocks[range.x] & 128u) != 0u && sum.x > 0.0 && sum.y > 0.0;
    result[segment] = select(1.0, p.eta * sqrt(sum.x) / sqrt(sum.y), adapts);
  }
}
