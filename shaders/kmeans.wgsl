// K-means: the nearest centroid of every point without a matrix of distances, and the means of clusters
// without atomics, so that every sum is added up in one order.
//
//   nearest(i) = argmax_j  z_i·c_j − ‖c_j‖²/2,  the first of equal ones
//
// Layout: points z [rows, quads] and centroids c [k, quads] of vec4, the last one filled up with zeros. Points
// may lie in several buffers, of which each has its own dispatches; `start` is then the first point's number.
//
// prepare, measure and distances go along rows: 8 rows a workgroup, 8 invocations a row. Grid: ceil(rows / 8)
// groups, folded to 2-D, as all grids here are.
//
// assign: a workgroup owns 32 points and walks along the centroids from `first` to before `end`, 64 at a time;
// it goes on from the dispatch before. Grid: ceil(rows / 32). Two families, as in nt_xent.wgsl:
//
//   *        a workgroup is a subgroup of 8: an invocation holds four points, centroids are handed round;
//   *_tile   64 invocations, for any adapter: points and centroids go through workgroup memory.
//
// segment_sums, means: the points of a cluster, in their order, are cut into segments of bounded length. An
// invocation sums a vec4 of a segment, then a vec4 of the segments of a cluster.
//
// draw, choose, pick: k-means++. With E_i of an exponential distribution, the least E_i / w_i is at i with a
// probability proportional to w_i, here the squared distance to the nearest centroid so far.
//
// @compile prepare SPHERICAL=1
// @compile measure SPHERICAL=1
const SPHERICAL = 0u; // 1: points and centroids have length 1
const LOWEST = -3.0e38;
const HIGHEST = 3.0e38;

struct Params {
  rows: u32,
  d: u32,
  quads: u32,
  k: u32,
  first: u32,
  end: u32,
  start: u32,
  base: u32,
  seed: u32,
  from_cluster: u32,
  to_cluster: u32,
}

@group(0) @binding(0) var<storage, read> x: array<f32>; // [rows, d]
@group(0) @binding(1) var<storage, read> center: array<f32>; // [d]
@group(0) @binding(2) var<storage, read_write> z_elements: array<f32>;
@group(0) @binding(3) var<storage, read_write> squares: array<f32>; // [rows] ‖z‖²

@group(0) @binding(0) var<storage, read> z: array<vec4f>;
@group(0) @binding(1) var<storage, read> c: array<vec4f>;
@group(0) @binding(2) var<storage, read> half_norms: array<f32>; // [k, filled up to whole tiles of 64]
@group(0) @binding(3) var<storage, read_write> best: array<f32>; // [rows] score of the nearest so far
@group(0) @binding(4) var<storage, read_write> labels: array<u32>; // [rows] and its number

@group(0) @binding(2) var<storage, read> nearest: array<u32>; // [rows]
@group(0) @binding(3) var<storage, read_write> squared_distances: array<f32>; // [rows]

@group(0) @binding(1) var<storage, read> order: array<u32>; // points by cluster
@group(0) @binding(2) var<storage, read> segments: array<u32>; // begin, end, place of the sum
@group(0) @binding(3) var<storage, read_write> new_sums: array<vec4f>;

@group(0) @binding(0) var<storage, read> sums: array<vec4f>;
@group(0) @binding(1) var<storage, read> offsets: array<u32>; // [k + 1] first segment of a cluster
@group(0) @binding(2) var<storage, read> counts: array<u32>; // [k]
@group(0) @binding(3) var<storage, read_write> new_c: array<vec4f>;

@group(0) @binding(0) var<storage, read> old_c: array<vec4f>;
@group(0) @binding(1) var<storage, read_write> new_half_norms: array<f32>;
@group(0) @binding(2) var<storage, read_write> shifts: array<f32>; // [k] ‖new − old‖²

@group(0) @binding(2) var<storage, read_write> weights: array<f32>; // [rows]
@group(0) @binding(3) var<storage, read_write> new_drawn: array<f32>; // [groups]
@group(0) @binding(4) var<storage, read_write> new_drawn_at: array<u32>; // [groups]
@group(0) @binding(0) var<storage, read> drawn: array<f32>;
@group(0) @binding(1) var<storage, read> drawn_at: array<u32>;
@group(0) @binding(2) var<storage, read_write> new_chosen: array<u32>; // [k]
@group(0) @binding(1) var<storage, read> chosen: array<u32>;

@group(1) @binding(0) var<uniform> p: Params;

// ---- along rows

var<workgroup> parts: array<f32, 64>;

/// The sum over the 8 invocations of a row.
fn sum_of_row(mine: f32, local: u32) -> f32 {
  workgroupBarrier();
  parts[local] = mine;
  workgroupBarrier();
  var sum = 0.0;
  for (var i = 0u; i < 8u; i++) {
    sum += parts[local / 8u * 8u + i];
  }
  return sum;
}

fn row_of(group: vec3u, groups: vec3u, local: u32) -> u32 {
  return (group.x + group.y * groups.x) * 8u + local / 8u;
}

@compute @workgroup_size(64)
fn prepare(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) local: u32,
) {
  let row = row_of(group, groups, local);
  let end = select(0u, p.d, row < p.rows);
  var mine = 0.0;
  for (var i = local % 8u; i < end; i += 8u) {
    let value = x[row * p.d + i] - center[i];
    mine += value * value;
  }
  let total = sum_of_row(mine, local);
  if (row >= p.rows) {
    return;
  }
  var scale = 1.0;
  if (SPHERICAL == 1u) {
    scale = 1.0 / max(sqrt(total), 1e-12);
  }
  squares[row] = total * scale * scale;
  for (var i = local % 8u; i < 4u * p.quads; i += 8u) {
    var value = 0.0;
    if (i < p.d) {
      value = (x[row * p.d + i] - center[i]) * scale;
    }
    z_elements[row * 4u * p.quads + i] = value;
  }
}

@compute @workgroup_size(64)
fn measure(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) local: u32,
) {
  let row = row_of(group, groups, local);
  let end = select(0u, p.quads, row < p.k);
  var mine = 0.0;
  for (var i = local % 8u; i < end; i += 8u) {
    let value = new_c[row * p.quads + i];
    mine += dot(value, value);
  }
  let norm = sum_of_row(mine, local);
  var scale = 1.0;
  if (SPHERICAL == 1u) {
    scale = 1.0 / max(sqrt(norm), 1e-12);
  }
  var shift = 0.0;
  for (var i = local % 8u; i < end; i += 8u) {
    let value = new_c[row * p.quads + i] * scale;
    let by = value - old_c[row * p.quads + i];
    shift += dot(by, by);
    if (SPHERICAL == 1u) {
      new_c[row * p.quads + i] = value;
    }
  }
  let total = sum_of_row(shift, local);
  if (local % 8u == 0u) {
    if (row < p.k) {
      new_half_norms[row] = select(0.5 * norm, 0.0, SPHERICAL == 1u);
      shifts[row] = total;
    } else if (row < p.rows) {
      new_half_norms[row] = HIGHEST;
    }
  }
}

@compute @workgroup_size(64)
fn distances(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) local: u32,
) {
  let row = row_of(group, groups, local);
  let own = min(row, p.rows - 1u);
  let total = distance(own, nearest[own], local);
  if (row < p.rows && local % 8u == 0u) {
    squared_distances[row] = total;
  }
}

/// ‖z_row − c_cluster‖², of the 8 invocations of a row together.
fn distance(row: u32, cluster: u32, local: u32) -> f32 {
  var mine = 0.0;
  for (var i = local % 8u; i < p.quads; i += 8u) {
    let by = z[row * p.quads + i] - c[cluster * p.quads + i];
    mine += dot(by, by);
  }
  return sum_of_row(mine, local);
}

// ---- assignment by subgroups

const LANES = 8u;
const FRAGMENTS = 4u; // points of a lane: every eighth
const ROWS = FRAGMENTS * LANES;
const COLUMNS = 64u;

@compute @workgroup_size(LANES)
fn assign(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(subgroup_invocation_id) lane: u32,
) {
  let row = (group.x + group.y * groups.x) * ROWS;
  if (row >= p.rows) {
    return;
  }
  let last = p.rows - 1u;
  var top: array<f32, FRAGMENTS>;
  var at: array<u32, FRAGMENTS>;
  // @unroll
  for (var f = 0u; f < FRAGMENTS; f++) {
    let i = min(row + f * LANES + lane, last);
    top[f] = select(LOWEST, best[i], p.first > 0u);
    at[f] = select(0u, labels[i], p.first > 0u);
  }
  for (var column = p.first; column < p.end; column += COLUMNS) {
    var products: array<f32, FRAGMENTS * COLUMNS>;
    // @unroll
    for (var i = 0u; i < FRAGMENTS * COLUMNS; i++) {
      products[i] = 0.0;
    }
    for (var q = 0u; q < p.quads; q++) {
      var a: array<vec4f, FRAGMENTS>;
      // @unroll
      for (var f = 0u; f < FRAGMENTS; f++) {
        a[f] = z[min(row + f * LANES + lane, last) * p.quads + q];
      }
      // @unroll
      for (var e = 0u; e < COLUMNS; e += LANES) {
        let held = c[min(column + e + lane, p.k - 1u) * p.quads + q];
        // @unroll
        for (var l = 0u; l < LANES; l++) {
          let v = subgroupShuffle(held, l);
          // @unroll
          for (var f = 0u; f < FRAGMENTS; f++) {
            products[f * COLUMNS + e + l] = fma(a[f].w, v.w,
              fma(a[f].z, v.z, fma(a[f].y, v.y, fma(a[f].x, v.x, products[f * COLUMNS + e + l]))));
          }
        }
      }
    }
    // @unroll
    for (var j = 0u; j < COLUMNS; j++) {
      let half_norm = half_norms[column + j];
      // @unroll
      for (var f = 0u; f < FRAGMENTS; f++) {
        let score = products[f * COLUMNS + j] - half_norm;
        at[f] = select(at[f], column + j, score > top[f]);
        top[f] = max(score, top[f]);
      }
    }
  }
  // @unroll
  for (var f = 0u; f < FRAGMENTS; f++) {
    let i = row + f * LANES + lane;
    if (i < p.rows) {
      best[i] = top[f];
      labels[i] = at[f];
    }
  }
}

// ---- assignment through workgroup memory

const WIDTH = 16u; // invocations along the centroids: one holds x, x + 16, x + 32 and x + 48
const HEIGHT = 8u; // points of an invocation
const CHUNK = 8u; // vec4 of a row in workgroup memory
const STRIDE = 9u; // CHUNK + 1: keeps the rows in different banks

var<workgroup> tile_points: array<vec4f, 288>; // 32 · STRIDE
var<workgroup> tile_centroids: array<vec4f, 576>; // 64 · STRIDE; later score and label [32, WIDTH]

@compute @workgroup_size(64)
fn assign_tile(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) local: u32,
) {
  let row = (group.x + group.y * groups.x) * 32u;
  if (row >= p.rows) {
    return;
  }
  let last = p.rows - 1u;
  let own = row + local / WIDTH * HEIGHT;
  var top: array<f32, HEIGHT>;
  var at: array<u32, HEIGHT>;
  // @unroll
  for (var r = 0u; r < HEIGHT; r++) {
    let i = min(own + r, last);
    top[r] = select(LOWEST, best[i], p.first > 0u);
    at[r] = select(0u, labels[i], p.first > 0u);
  }
  for (var column = p.first; column < p.end; column += 64u) {
    var tile: array<vec4f, HEIGHT>;
    // @unroll
    for (var r = 0u; r < HEIGHT; r++) {
      tile[r] = vec4f();
    }
    for (var start = 0u; start < p.quads; start += CHUNK) {
      let q = start + local % CHUNK;
      let outside = q >= p.quads;
      let from_q = min(q, p.quads - 1u);
      workgroupBarrier();
      // @unroll
      for (var i = 0u; i < 32u; i += 8u) {
        let r = i + local / CHUNK;
        let value = z[min(row + r, last) * p.quads + from_q];
        tile_points[r * STRIDE + local % CHUNK] = select(value, vec4f(), outside);
      }
      // @unroll
      for (var i = 0u; i < 64u; i += 8u) {
        let r = i + local / CHUNK;
        let value = c[min(column + r, p.k - 1u) * p.quads + from_q];
        tile_centroids[r * STRIDE + local % CHUNK] = select(value, vec4f(), outside);
      }
      workgroupBarrier();
      for (var i = 0u; i < CHUNK; i++) {
        let b0 = tile_centroids[(local % WIDTH) * STRIDE + i];
        let b1 = tile_centroids[(local % WIDTH + 16u) * STRIDE + i];
        let b2 = tile_centroids[(local % WIDTH + 32u) * STRIDE + i];
        let b3 = tile_centroids[(local % WIDTH + 48u) * STRIDE + i];
        // @unroll
        for (var r = 0u; r < HEIGHT; r++) {
          let v = tile_points[(local / WIDTH * HEIGHT + r) * STRIDE + i];
          tile[r] += vec4f(dot(v, b0), dot(v, b1), dot(v, b2), dot(v, b3));
        }
      }
    }
    // @unroll
    for (var e = 0u; e < 4u; e++) {
      let j = column + local % WIDTH + e * WIDTH;
      let half_norm = half_norms[j];
      // @unroll
      for (var r = 0u; r < HEIGHT; r++) {
        let score = tile[r][e] - half_norm;
        at[r] = select(at[r], j, score > top[r]);
        top[r] = max(score, top[r]);
      }
    }
  }
  workgroupBarrier();
  // @unroll
  for (var r = 0u; r < HEIGHT; r++) {
    let to = (local / WIDTH * HEIGHT + r) * WIDTH + local % WIDTH;
    // Exact in f32: so many centroids that it were not would fit no buffer.
    tile_centroids[to] = vec4f(top[r], f32(at[r]), 0.0, 0.0);
  }
  workgroupBarrier();
  if (local < 32u && row + local < p.rows) {
    var found = tile_centroids[local * WIDTH].xy;
    for (var i = local * WIDTH + 1u; i < (local + 1u) * WIDTH; i++) {
      let other = tile_centroids[i].xy;
      if (other.x > found.x || (other.x == found.x && other.y < found.y)) {
        found = other;
      }
    }
    best[row + local] = found.x;
    labels[row + local] = u32(found.y);
  }
}

// ---- means

@compute @workgroup_size(64)
fn segment_sums(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) local: u32,
) {
  let i = (group.x + group.y * groups.x) * 64u + local;
  let segment = i / p.quads;
  if (segment >= p.rows) {
    return;
  }
  let q = i % p.quads;
  var sum = vec4f();
  for (var j = segments[3u * segment]; j < segments[3u * segment + 1u]; j++) {
    sum += z[(order[j] - p.start) * p.quads + q];
  }
  new_sums[segments[3u * segment + 2u] * p.quads + q] = sum;
}

@compute @workgroup_size(64)
fn means(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) local: u32,
) {
  let i = (group.x + group.y * groups.x) * 64u + local;
  let cluster = i / p.quads;
  if (cluster >= p.k) {
    return;
  }
  var sum = vec4f();
  for (var s = offsets[cluster]; s < offsets[cluster + 1u]; s++) {
    sum += sums[s * p.quads + i % p.quads];
  }
  new_c[i] = sum / f32(max(counts[cluster], 1u));
}

/// Puts an empty cluster beside a large one: both move by 1/1024, with another sign in every dimension.
@compute @workgroup_size(64)
fn split(
  @builtin(workgroup_id) group: vec3u,
  @builtin(local_invocation_index) local: u32,
) {
  let q = group.x * 64u + local;
  if (q >= p.quads) {
    return;
  }
  let by = vec4f(1.0, -1.0, 1.0, -1.0) / 1024.0;
  let value = new_c[p.from_cluster * p.quads + q];
  new_c[p.to_cluster * p.quads + q] = value * (1.0 + by);
  new_c[p.from_cluster * p.quads + q] = value * (1.0 - by);
}

// ---- k-means++

fn pcg4d(counters: vec4u) -> vec4u {
  var v = counters * 1664525u + 1013904223u;
  v.x += v.y * v.w;
  v.y += v.z * v.x;
  v.z += v.x * v.y;
  v.w += v.y * v.z;
  v ^= v >> vec4u(16u);
  v.x += v.y * v.w;
  v.y += v.z * v.x;
  v.z += v.x * v.y;
  v.w += v.y * v.z;
  return v;
}

/// Draws the next centroid, number `first`, among the 8 points of a group.
@compute @workgroup_size(64)
fn draw(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) local: u32,
) {
  let row = row_of(group, groups, local);
  let own = min(row, p.rows - 1u);
  var weight = distance(own, max(p.first, 1u) - 1u, local);
  if (p.first > 1u) {
    weight = min(weight, weights[own]);
  }
  // The first is any.
  if (p.first == 0u) {
    weight = 1.0;
  }
  workgroupBarrier();
  if (local % 8u == 0u) {
    var time = HIGHEST;
    if (row < p.rows) {
      weights[row] = weight;
      let bits = pcg4d(vec4u(p.seed, 0x6b6d2b2bu, p.first, p.start + row)).x;
      let exponential = -log((f32(bits >> 8u) + 0.5) / 16777216.0);
      if (weight > 0.0) {
        time = min(exponential / weight, 0.5 * HIGHEST);
      }
    }
    parts[local / 8u] = time;
  }
  workgroupBarrier();
  let index = group.x + group.y * groups.x;
  if (local == 0u && index * 8u < p.rows) {
    var least = 0u;
    for (var i = 1u; i < 8u; i++) {
      if (parts[i] < parts[least]) {
        least = i;
      }
    }
    new_drawn[p.base + index] = parts[least];
    new_drawn_at[p.base + index] = p.start + index * 8u + least;
  }
}

var<workgroup> least_time: array<f32, 256>;
var<workgroup> least_at: array<u32, 256>;

/// The first of the least among what the groups drew.
@compute @workgroup_size(256)
fn choose(@builtin(local_invocation_index) local: u32) {
  var time = HIGHEST;
  var at = 0u;
  for (var i = local; i < p.rows; i += 256u) {
    if (drawn[i] < time) {
      time = drawn[i];
      at = drawn_at[i];
    }
  }
  least_time[local] = time;
  least_at[local] = at;
  workgroupBarrier();
  if (local == 0u) {
    for (var i = 1u; i < 256u; i++) {
      if (least_time[i] < time || (least_time[i] == time && least_at[i] < at)) {
        time = least_time[i];
        at = least_at[i];
      }
    }
    new_chosen[p.first] = at;
  }
}

/// The centroids `first` … `end` − 1 are the chosen points, as far as they are in this buffer.
@compute @workgroup_size(64)
fn pick(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) local: u32,
) {
  let i = p.first * p.quads + (group.x + group.y * groups.x) * 64u + local;
  if (i >= p.end * p.quads) {
    return;
  }
  let row = chosen[i / p.quads] - p.start;
  if (row < p.rows) {
    new_c[i] = z[row * p.quads + i % p.quads];
  }
}
