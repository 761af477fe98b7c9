// K-means: the nearest centroid of every point without a matrix of distances, and the means of clusters
// without atomics, so that every sum is added up in one order. Only lists of which any order will do are put
// together by them.
//
//   nearest(i) = argmax_j  z_i·c_j − ‖c_j‖²/2,  the first of equal ones
//
// Layout: points z [rows, quads] and centroids c [k, quads] of vec4, the last one filled up with zeros. Points
// may lie in several buffers, of which each has its own dispatches; `start` is then the first point's number.
// What is kept of every point, as its label, lies in one buffer.
//
// Iterations are recorded ahead. What belongs to one does nothing unless the status is RUNNING: `finish` ends
// the run, and `rank_clusters` interrupts it where a cluster has lost all its points.
//
// prepare, shift and distances go along rows: 8 rows a workgroup, 8 invocations a row. Grid: ceil(rows / 8)
// groups, folded to 2-D, as all grids here are.
//
// assign: a workgroup owns some points and walks along centroids, COLUMNS at a time. Grid: ceil(rows / its
// points). Two families, as in nt_xent.wgsl:
//
//   *        a workgroup is a subgroup of 8: an invocation holds six points, centroids are handed round;
//   *_tile   64 invocations own 32 points, for any adapter: these and 64 centroids go through workgroup memory.
//
// What meets ALL centroids from `first` to before `end` goes on from the dispatch before. After an iteration there
// is less to do, for the same labels: a score is the same bits wherever in a tile it is computed, and is another
// one only where the centroid has MOVED. These are met by all points. The REST is met, too, by a point whose own
// centroid has moved, if none of them is nearer than that one was; `collect` lists such points.
//
// count, rank_blocks, rank_clusters, place: points in the order of their clusters, by counting. An invocation
// goes through a block of points, or the blocks of a cluster.
//
// piece_sums, means: every cluster is cut into pieces of one length, so that its mean depends on nothing but its
// points. An invocation sums some vec4 of a piece, then a vec4 of the pieces of a cluster.
//
// draw, choose, pick: k-means++. With E_i of an exponential distribution, the least E_i / w_i is at i with a
// probability proportional to w_i, here the squared distance to the nearest centroid so far. A workgroup draws
// among 64 points: 8 invocations go along 8 of them, and then each has one of its own.
//
// @compile prepare SPHERICAL=1
// @compile shift SPHERICAL=1
// @compile assign COLUMNS=8
const SPHERICAL = 0u; // 1: points and centroids have length 1
const LOWEST = -3.0e38;
const HIGHEST = 3.0e38;
const TINY = 1.0e-37;

// The status, of which the second number counts iterations.
const RUNNING = 0u;
const CONVERGED = 1u;
const EMPTY = 2u; // a cluster is

// Which centroids an assignment meets.
const ALL = 0u;
const MOVED = 1u;
const REST = 2u;

struct Params {
  n: u32, // points in all buffers
  rows: u32,
  d: u32,
  quads: u32,
  k: u32,
  first: u32,
  end: u32,
  start: u32,
  base: u32,
  seed: u32,
  block: u32, // points in a block
  piece: u32, // and in a piece of a cluster
  splits: u32, // 1: what is empty is taken care of
  meet: u32,
  tolerance: f32,
  from_cluster: u32,
  to_cluster: u32,
}

@group(0) @binding(0) var<storage, read> x: array<vec4f>; // [rows, d] of f32
@group(0) @binding(1) var<storage, read> center: array<vec4f>; // [d] of f32
@group(0) @binding(2) var<storage, read_write> new_z: array<vec4f>;
@group(0) @binding(3) var<storage, read_write> squares: array<f32>; // [n] ‖z‖²

@group(0) @binding(0) var<storage, read> z: array<vec4f>;
@group(0) @binding(1) var<storage, read> c: array<vec4f>;
@group(0) @binding(2) var<storage, read> norms: array<vec2f>; // [k] ‖c‖²/2, ‖c − last c‖²
@group(0) @binding(3) var<storage, read_write> best: array<f32>; // [n] score of the nearest so far
@group(0) @binding(4) var<storage, read_write> labels: array<u32>; // [n] and its number
@group(0) @binding(5) var<storage, read> sequence: array<u32>; // [2 + k] how many moved, how many not; these, those
@group(0) @binding(6) var<storage, read> open: array<u32>; // [1 + rows] how many points meet the rest, and which
@group(0) @binding(8) var<storage, read> status: array<u32>; // [2]

@group(0) @binding(4) var<storage, read> nearest: array<u32>; // [n]
@group(0) @binding(3) var<storage, read_write> squared_distances: array<f32>; // [n]

@group(0) @binding(1) var<storage, read_write> tally: array<u32>; // [blocks, k] points, then those in earlier blocks
@group(0) @binding(2) var<storage, read_write> new_counts: array<u32>; // [k]
@group(0) @binding(2) var<storage, read> counts: array<u32>;
@group(0) @binding(3) var<storage, read_write> new_offsets: array<u32>; // [k + 1] where clusters begin in the order
@group(0) @binding(3) var<storage, read> offsets: array<u32>;
@group(0) @binding(5) var<storage, read_write> new_order: array<u32>; // [n] points by cluster
@group(0) @binding(5) var<storage, read> order: array<u32>;
@group(0) @binding(8) var<storage, read_write> new_status: array<u32>;

@group(0) @binding(6) var<storage, read_write> new_sums: array<vec4f>; // [pieces, quads]
@group(0) @binding(6) var<storage, read> sums: array<vec4f>;
@group(0) @binding(2) var<storage, read_write> new_means: array<vec4f>; // [k, quads]

@group(0) @binding(0) var<storage, read> mean: array<vec4f>;
@group(0) @binding(1) var<storage, read_write> new_c: array<vec4f>;
@group(0) @binding(2) var<storage, read_write> new_norms: array<vec2f>;
@group(0) @binding(3) var<storage, read_write> new_sequence: array<atomic<u32>>;
@group(0) @binding(6) var<storage, read_write> new_open: array<atomic<u32>>;
@group(0) @binding(0) var<storage, read> mean_square: array<f32>; // [1] of the lengths of points

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

/// A vec4 of a point, from the center, filled up with zeros.
fn centered(row: u32, q: u32, d: u32) -> vec4f {
  if (d % 4u == 0u) {
    return x[row * (d / 4u) + q] - center[q];
  }
  let four = 4u * q + vec4u(0u, 1u, 2u, 3u);
  let k = min(four, vec4u(d - 1u));
  let i = row * d + k;
  let value = vec4f(x[i.x / 4u][i.x % 4u], x[i.y / 4u][i.y % 4u], x[i.z / 4u][i.z % 4u], x[i.w / 4u][i.w % 4u]);
  let middle = center[q];
  return select(vec4f(), value - middle, four < vec4u(d));
}

@compute @workgroup_size(64)
fn prepare(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) local: u32,
) {
  let row = row_of(group, groups, local);
  let d = p.d;
  let quads = p.quads;
  let end = select(0u, quads, row < p.rows);
  var mine = 0.0;
  for (var q = local % 8u; q < end; q += 8u) {
    let value = centered(row, q, d);
    mine += dot(value, value);
    if (SPHERICAL == 0u) {
      new_z[row * quads + q] = value;
    }
  }
  let total = sum_of_row(mine, local);
  let scale = select(1.0, 1.0 / max(sqrt(total), 1e-12), SPHERICAL == 1u);
  if (row < p.rows) {
    squares[p.start + row] = total * scale * scale;
  }
  if (SPHERICAL == 1u) {
    for (var q = local % 8u; q < end; q += 8u) {
      new_z[row * quads + q] = centered(row, q, d) * scale;
    }
  }
}

/// Moves every centroid to the mean of its points.
@compute @workgroup_size(64)
fn shift(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) local: u32,
) {
  if (status[0] != RUNNING) {
    return;
  }
  let row = row_of(group, groups, local);
  let quads = p.quads;
  let end = select(0u, quads, row < p.k);
  var mine = 0.0;
  for (var q = local % 8u; q < end; q += 8u) {
    let value = mean[row * quads + q];
    mine += dot(value, value);
  }
  let norm = sum_of_row(mine, local);
  var scale = 1.0;
  if (SPHERICAL == 1u) {
    scale = 1.0 / max(sqrt(norm), 1e-12);
  }
  var squares_moved = 0.0;
  for (var q = local % 8u; q < end; q += 8u) {
    let value = mean[row * quads + q] * scale;
    let last = new_c[row * quads + q];
    let by = value - last;
    // However little it is, it is not nothing.
    squares_moved += dot(by, by) + select(0.0, TINY, any(value != last));
    new_c[row * quads + q] = value;
  }
  let total = sum_of_row(squares_moved, local);
  if (local % 8u == 0u && row < p.k) {
    new_norms[row] = vec2f(select(0.5 * norm, 0.0, SPHERICAL == 1u), total);
    var at = 0u;
    if (total == 0.0) {
      at = p.k - 1u - atomicAdd(&new_sequence[1], 1u);
    } else {
      at = atomicAdd(&new_sequence[0], 1u);
    }
    atomicStore(&new_sequence[2u + at], row);
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
  let cluster = nearest[p.start + own];
  let quads = p.quads;
  var mine = 0.0;
  for (var q = local % 8u; q < quads; q += 8u) {
    let by = z[own * quads + q] - c[cluster * quads + q];
    mine += dot(by, by);
  }
  let total = sum_of_row(mine, local);
  if (row < p.rows && local % 8u == 0u) {
    squared_distances[p.start + row] = total;
  }
}

// ---- assignment

const OPEN = 0x80000000u; // in a label: it has to meet the rest

/// How many points meet which centroids in a dispatch.
struct Work {
  points: u32,
  first: u32,
  end: u32,
  is_listed: bool, // these are places in `sequence`
}

fn work(columns: u32) -> Work {
  let moved = sequence[0];
  // Where it takes as many tiles, all are met in place of those that have moved.
  if (p.meet == ALL || (moved + columns - 1u) / columns == (p.k + columns - 1u) / columns) {
    return Work(select(p.rows, 0u, p.meet == REST), p.first, p.end, false);
  }
  if (p.meet == MOVED) {
    return Work(p.rows, 0u, moved, true);
  }
  return Work(open[0], moved, p.k, true);
}

/// The tile of points of a workgroup. Few meet the rest, and some drivers give each thread one piece of the grid, so
/// that the first tiles are scattered over it: its size is a power of 2 then.
fn tile_of(group: vec3u, groups: vec3u) -> u32 {
  let i = group.x + group.y * groups.x;
  return select(i, reverseBits(i) >> (32u - countTrailingZeros(groups.x * groups.y)), p.meet == REST);
}

/// The i-th of the points; past the end, the last.
fn point(i: u32, my: Work) -> u32 {
  let inside = min(i, my.points - 1u);
  if (p.meet == REST) {
    return open[1u + inside];
  }
  return inside;
}

/// The i-th of the centroids; past the end, the last.
fn centroid(i: u32, my: Work) -> u32 {
  let inside = min(i, my.end - 1u);
  if (my.is_listed) {
    return sequence[2u + inside];
  }
  return inside;
}

/// ‖c‖²/2 of the i-th of the centroids, which has this number; past the end, what nothing is near to.
fn half_norm_of(i: u32, number: u32, my: Work) -> f32 {
  return select(norms[number].x, HIGHEST, i >= my.end);
}

/// The nearest centroid that a point has met.
struct Found {
  score: f32,
  label: u32,
}

/// What a point has found before, as far as it holds: not where its centroid has moved.
fn found_before(i: u32, my: Work) -> Found {
  let label = labels[p.start + i] & ~OPEN;
  if (select(p.first == 0u, has_moved(label), my.is_listed)) {
    return Found(LOWEST, 0u);
  }
  return Found(best[p.start + i], label);
}

fn has_moved(centroid: u32) -> bool {
  return p.meet == MOVED && norms[centroid].y != 0.0;
}

/// Whether a centroid is nearer, or as near and the first: in whichever order they are met.
fn is_nearer(score: f32, number: u32, than: f32, label: u32) -> bool {
  return (score > than) | ((score == than) & (number < label));
}

/// Keeps what a point has found. The rest was no nearer to it than its own centroid was.
fn settle(i: u32, found: Found, my: Work) {
  let own = labels[p.start + i] & ~OPEN;
  let is_open = my.is_listed && has_moved(own) && found.score <= best[p.start + i];
  best[p.start + i] = found.score;
  labels[p.start + i] = select(found.label, found.label | OPEN, is_open);
}

/// Lists the points that are to meet the rest.
@compute @workgroup_size(64)
fn collect(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) local: u32,
) {
  let i = invocation(group, groups, local);
  if (status[0] == RUNNING && i < p.rows && nearest[p.start + i] >= OPEN) {
    let at = atomicAdd(&new_open[0], 1u);
    atomicStore(&new_open[1u + at], i);
  }
}

// ---- assignment by subgroups

const LANES = 8u;
const FRAGMENTS = 6u; // points of a lane: every eighth
const ROWS = FRAGMENTS * LANES;
const COLUMNS = 48u; // centroids in a tile, a multiple of LANES

@compute @workgroup_size(LANES)
fn assign(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(subgroup_invocation_id) lane: u32,
) {
  let row = tile_of(group, groups) * ROWS;
  let my = work(COLUMNS);
  if (row >= my.points || status[0] != RUNNING) {
    return;
  }
  // Parameters are loaded once: in the loop below every load counts.
  let quads = p.quads;
  var row_start: array<u32, FRAGMENTS>;
  var top: array<f32, FRAGMENTS>;
  var at: array<u32, FRAGMENTS>;
  // @unroll
  for (var f = 0u; f < FRAGMENTS; f++) {
    let i = point(row + f * LANES + lane, my);
    let before = found_before(i, my);
    row_start[f] = i * quads;
    top[f] = before.score;
    at[f] = before.label;
  }
  for (var column = my.first; column < my.end; column += COLUMNS) {
    var products: array<f32, FRAGMENTS * COLUMNS>;
    // @unroll
    for (var i = 0u; i < FRAGMENTS * COLUMNS; i++) {
      products[i] = 0.0;
    }
    var number: array<u32, COLUMNS / LANES>;
    var column_start: array<u32, COLUMNS / LANES>;
    // @unroll
    for (var e = 0u; e < COLUMNS / LANES; e++) {
      number[e] = centroid(column + e * LANES + lane, my);
      column_start[e] = number[e] * quads;
    }
    for (var q = 0u; q < quads; q++) {
      var a: array<vec4f, FRAGMENTS>;
      // @unroll
      for (var f = 0u; f < FRAGMENTS; f++) {
        a[f] = z[row_start[f] + q];
      }
      // @unroll
      for (var e = 0u; e < COLUMNS; e += LANES) {
        let held = c[column_start[e / LANES] + q];
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
    for (var e = 0u; e < COLUMNS; e += LANES) {
      let held = half_norm_of(column + e + lane, number[e / LANES], my);
      // @unroll
      for (var l = 0u; l < LANES; l++) {
        let half_norm = subgroupShuffle(held, l);
        let label = subgroupShuffle(number[e / LANES], l);
        // @unroll
        for (var f = 0u; f < FRAGMENTS; f++) {
          let score = products[f * COLUMNS + e + l] - half_norm;
          let nearer = is_nearer(score, label, top[f], at[f]);
          top[f] = select(top[f], score, nearer);
          at[f] = select(at[f], label, nearer);
        }
      }
    }
  }
  // @unroll
  for (var f = 0u; f < FRAGMENTS; f++) {
    if (row + f * LANES + lane < my.points) {
      settle(point(row + f * LANES + lane, my), Found(top[f], at[f]), my);
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
  let row = tile_of(group, groups) * 32u;
  let my = work(64u);
  if (row >= my.points || status[0] != RUNNING) {
    return;
  }
  let quads = p.quads;
  var found: array<Found, HEIGHT>;
  // @unroll
  for (var r = 0u; r < HEIGHT; r++) {
    found[r] = found_before(point(row + local / WIDTH * HEIGHT + r, my), my);
  }
  var row_start: array<u32, 4>;
  // @unroll
  for (var i = 0u; i < 4u; i++) {
    row_start[i] = point(row + i * 8u + local / CHUNK, my) * quads;
  }
  for (var column = my.first; column < my.end; column += 64u) {
    var column_start: array<u32, 8>;
    // @unroll
    for (var i = 0u; i < 8u; i++) {
      column_start[i] = centroid(column + i * 8u + local / CHUNK, my) * quads;
    }
    var tile: array<vec4f, HEIGHT>;
    // @unroll
    for (var r = 0u; r < HEIGHT; r++) {
      tile[r] = vec4f();
    }
    for (var start = 0u; start < quads; start += CHUNK) {
      let q = start + local % CHUNK;
      let outside = q >= quads;
      let from_q = min(q, quads - 1u);
      workgroupBarrier();
      // @unroll
      for (var i = 0u; i < 4u; i++) {
        let value = z[row_start[i] + from_q];
        tile_points[(i * 8u + local / CHUNK) * STRIDE + local % CHUNK] = select(value, vec4f(), outside);
      }
      // @unroll
      for (var i = 0u; i < 8u; i++) {
        let value = c[column_start[i] + from_q];
        tile_centroids[(i * 8u + local / CHUNK) * STRIDE + local % CHUNK] = select(value, vec4f(), outside);
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
      let i = column + local % WIDTH + e * WIDTH;
      let label = centroid(i, my);
      let half_norm = half_norm_of(i, label, my);
      // @unroll
      for (var r = 0u; r < HEIGHT; r++) {
        let score = tile[r][e] - half_norm;
        let nearer = is_nearer(score, label, found[r].score, found[r].label);
        found[r].score = select(found[r].score, score, nearer);
        found[r].label = select(found[r].label, label, nearer);
      }
    }
  }
  workgroupBarrier();
  // @unroll
  for (var r = 0u; r < HEIGHT; r++) {
    let to = (local / WIDTH * HEIGHT + r) * WIDTH + local % WIDTH;
    // Exact in f32: so many centroids that it were not would fit no buffer.
    tile_centroids[to] = vec4f(found[r].score, f32(found[r].label), 0.0, 0.0);
  }
  workgroupBarrier();
  if (local < 32u && row + local < my.points) {
    let own = point(row + local, my);
    var all = found_before(own, my);
    for (var i = local * WIDTH; i < (local + 1u) * WIDTH; i++) {
      let other = tile_centroids[i];
      if (is_nearer(other.x, u32(other.y), all.score, all.label)) {
        all = Found(other.x, u32(other.y));
      }
    }
    settle(own, all, my);
  }
}

// ---- means

fn invocation(group: vec3u, groups: vec3u, local: u32) -> u32 {
  return (group.x + group.y * groups.x) * 64u + local;
}

/// Counts the points of each cluster in a block.
@compute @workgroup_size(64)
fn count(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) local: u32,
) {
  if (status[0] != RUNNING) {
    return;
  }
  let block = invocation(group, groups, local);
  for (var i = block * p.block; i < min((block + 1u) * p.block, p.n); i++) {
    tally[block * p.k + nearest[i]]++;
  }
}

/// Counts the points of a cluster, and those in the blocks before each.
@compute @workgroup_size(64)
fn rank_blocks(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) local: u32,
) {
  let cluster = invocation(group, groups, local);
  if (status[0] != RUNNING || cluster >= p.k) {
    return;
  }
  var before = 0u;
  for (var i = cluster; i < p.rows * p.k; i += p.k) {
    let own = tally[i];
    tally[i] = before;
    before += own;
  }
  new_counts[cluster] = before;
}

var<workgroup> totals: array<u32, 256>;
var<workgroup> smallest: array<u32, 256>;

/// Counts the points in the clusters before each.
@compute @workgroup_size(256)
fn rank_clusters(@builtin(local_invocation_index) local: u32) {
  let length = (p.k + 255u) / 256u;
  let begin = local * length;
  let end = min(begin + length, p.k);
  var own = 0u;
  var least = p.n;
  for (var i = begin; i < end; i++) {
    own += counts[i];
    least = min(least, counts[i]);
  }
  totals[local] = own;
  smallest[local] = least;
  workgroupBarrier();
  var before = 0u;
  for (var i = 0u; i < local; i++) {
    before += totals[i];
  }
  for (var i = begin; i < end; i++) {
    new_offsets[i] = before;
    before += counts[i];
  }
  if (local == 255u) {
    new_offsets[p.k] = before;
    for (var i = 0u; i < 255u; i++) {
      least = min(least, smallest[i]);
    }
    if (least == 0u && p.splits == 0u && new_status[0] == RUNNING) {
      new_status[0] = EMPTY;
    }
  }
}

/// Puts the points of a block in their places.
@compute @workgroup_size(64)
fn place(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) local: u32,
) {
  if (status[0] != RUNNING) {
    return;
  }
  let block = invocation(group, groups, local);
  for (var i = block * p.block; i < min((block + 1u) * p.block, p.n); i++) {
    let cluster = nearest[i];
    let before = tally[block * p.k + cluster];
    new_order[offsets[cluster] + before] = i;
    tally[block * p.k + cluster] = before + 1u;
  }
}

const SPREAD = 4u; // vec4 of a point that an invocation of piece_sums reads: a line of the cache

/// The number of a cluster's first piece: there are never more before it.
fn first_piece(cluster: u32) -> u32 {
  return offsets[cluster] / p.piece + cluster;
}

@compute @workgroup_size(64)
fn piece_sums(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) local: u32,
) {
  let quads = p.quads;
  let width = (quads + SPREAD - 1u) / SPREAD;
  let piece = invocation(group, groups, local) / width;
  if (status[0] != RUNNING) {
    return;
  }
  var cluster = 0u;
  for (var beyond = p.k; beyond - cluster > 1u;) {
    let middle = (cluster + beyond) / 2u;
    if (first_piece(middle) <= piece) {
      cluster = middle;
    } else {
      beyond = middle;
    }
  }
  let begin = offsets[cluster] + (piece - first_piece(cluster)) * p.piece;
  let end = min(begin + p.piece, offsets[cluster + 1u]);
  if (begin >= end) {
    return;
  }
  var q: array<u32, SPREAD>;
  var sum: array<vec4f, SPREAD>;
  let rows = p.rows;
  let start = p.start;
  // @unroll
  for (var s = 0u; s < SPREAD; s++) {
    q[s] = min(invocation(group, groups, local) % width * SPREAD + s, quads - 1u);
    sum[s] = vec4f();
    if (start > 0u) {
      sum[s] = new_sums[piece * quads + q[s]];
    }
  }
  for (var j = begin; j < end; j++) {
    let row = order[j] - start;
    if (row < rows) {
      // @unroll
      for (var s = 0u; s < SPREAD; s++) {
        sum[s] += z[row * quads + q[s]];
      }
    }
  }
  // @unroll
  for (var s = 0u; s < SPREAD; s++) {
    new_sums[piece * quads + q[s]] = sum[s];
  }
}

@compute @workgroup_size(64)
fn means(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) local: u32,
) {
  let i = invocation(group, groups, local);
  let cluster = i / p.quads;
  if (status[0] != RUNNING || cluster >= p.k) {
    return;
  }
  let size = offsets[cluster + 1u] - offsets[cluster];
  let first = first_piece(cluster);
  var sum = vec4f();
  for (var s = 0u; s * p.piece < size; s++) {
    sum += sums[(first + s) * p.quads + i % p.quads];
  }
  new_means[i] = sum / f32(max(size, 1u));
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
  let value = new_means[p.from_cluster * p.quads + q];
  new_means[p.to_cluster * p.quads + q] = value * (1.0 + by);
  new_means[p.from_cluster * p.quads + q] = value * (1.0 - by);
}

var<workgroup> shift_parts: array<f32, 256>;

/// Ends an iteration, and the run where the centroids moved little.
@compute @workgroup_size(256)
fn finish(@builtin(local_invocation_index) local: u32) {
  var sum = 0.0;
  for (var i = local; i < p.k; i += 256u) {
    sum += norms[i].y;
  }
  shift_parts[local] = sum;
  workgroupBarrier();
  if (local > 0u || new_status[0] != RUNNING) {
    return;
  }
  for (var i = 1u; i < 256u; i++) {
    sum += shift_parts[i];
  }
  new_status[1]++;
  if (!(sum > p.tolerance * mean_square[0])) {
    new_status[0] = CONVERGED;
  }
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

const TEAM = 8u; // invocations that go along as many points

var<workgroup> shares: array<f32, 576>; // 64 · STRIDE: of the 8 in the sum of a point
var<workgroup> times: array<f32, 64>;

/// Draws the next centroid, number `first`, among the 64 points of a group.
@compute @workgroup_size(64)
fn draw(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) local: u32,
) {
  let row = invocation(group, groups, local);
  let of_team = local / TEAM * TEAM;
  let rows = p.rows;
  let quads = p.quads;
  let latest = max(p.first, 1u) - 1u;
  var start: array<u32, TEAM>;
  var share: array<f32, TEAM>;
  // @unroll
  for (var r = 0u; r < TEAM; r++) {
    start[r] = min(row - local + of_team + r, rows - 1u) * quads;
    share[r] = 0.0;
  }
  for (var q = local % TEAM; q < quads; q += TEAM) {
    let value = c[latest * quads + q];
    // @unroll
    for (var r = 0u; r < TEAM; r++) {
      let by = z[start[r] + q] - value;
      share[r] += dot(by, by);
    }
  }
  // @unroll
  for (var r = 0u; r < TEAM; r++) {
    shares[(of_team + r) * STRIDE + local % TEAM] = share[r];
  }
  workgroupBarrier();
  var weight = 0.0;
  for (var i = 0u; i < TEAM; i++) {
    weight += shares[local * STRIDE + i];
  }
  var time = HIGHEST;
  if (row < rows) {
    if (p.first > 1u) {
      weight = min(weight, weights[row]);
    }
    // The first is any.
    if (p.first == 0u) {
      weight = 1.0;
    }
    weights[row] = weight;
    let bits = pcg4d(vec4u(p.seed, 0x6b6d2b2bu, p.first, p.start + row)).x;
    let exponential = -log((f32(bits >> 8u) + 0.5) / 16777216.0);
    if (weight > 0.0) {
      time = min(exponential / weight, 0.5 * HIGHEST);
    }
  }
  times[local] = time;
  workgroupBarrier();
  if (local == 0u && row < rows) {
    var least = 0u;
    for (var i = 1u; i < 64u; i++) {
      if (times[i] < times[least]) {
        least = i;
      }
    }
    new_drawn[p.base + row / 64u] = times[least];
    new_drawn_at[p.base + row / 64u] = p.start + row + least;
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
    new_means[i] = z[row * p.quads + i % p.quads];
  }
}
