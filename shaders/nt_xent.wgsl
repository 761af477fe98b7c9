// NT-Xent of SimCLR over rows h [rows, d] of which i and i ± rows/2 are a pair, without ever holding the
// matrix of similarities:
//
//   z_i = h_i / ‖h_i‖,  s_ij = z_i·z_j / temperature,  lse_i = log Σ_{j≠i} exp(s_ij)
//   loss = mean over i of lse_i − s_i,partner(i)
//   dz_i = Σ_j w_ij z_j / (rows · temperature),  w_ij = exp(s_ij − lse_i) + exp(s_ij − lse_j) − 2·[j = partner(i)]
//   dh_i = (dz_i − z_i (z_i·dz_i)) / ‖h_i‖
//
// normalize, join_sums, pair_losses and input_gradient go along rows, one an invocation: nothing is shared,
// and nobody waits. Grid: ceil(rows / 64) groups, folded to 2-D.
//
// log_sums and gradient go over all pairs. A workgroup owns 32 rows and walks along the columns, 64 at a
// time: it computes a tile of similarities, and in gradient the weights w of the tile are then the left
// factor of a second product, with rows of z. A dispatch covers the columns from `first` to before `end`;
// log_sums goes on from the dispatch before. Grid: (ceil(rows / 32) folded to x and y, in gradient width / span in z),
// span = LANES·DEPTH or WIDTH·DEPTH vec4. There are two families:
//
//   *        a workgroup is a subgroup of 8, which holds the rows and hands them round. Similarities are at
//            most 1 / temperature, which all exponentials are relative to: so exp(s_ij) = exp(s_ji), and each
//            is summed for row i and for row j at once. For temperatures at which none vanishes;
//   *_tile   64 invocations, for any adapter and temperature: chunks of rows and columns go through workgroup
//            memory, and exponentials are relative to the largest of the row so far.
//
// join_sums adds to the sums of a row what the workgroups of log_sums before its own found for it.
//
// Layout: h [rows, d]; z [rows, quads] of vec4, the last one filled up with zeros; dz in whole tiles, [32 ·
// ceil(rows / 32), width], so that it is written without branches.
//
// @compile gradient DEPTH=1
// @compile gradient DEPTH=4
// @compile gradient_tile DEPTH=1
const DEPTH = 2u; // vec4 of a row of dz of an invocation: 1, 2 or 4
const PASS = (DEPTH + 1u) / 2u; // and how many of them at a time: compilers choke on more
const LOWEST = -3.0e38;

struct Params {
  rows: u32,
  d: u32,
  quads: u32, // vec4 in a row of z
  width: u32, // vec4 in a row of dz
  first: u32,
  end: u32,
  span: u32, // columns of a dispatch, at most
  sharpness: f32, // 1 / temperature
}

@group(0) @binding(0) var<storage, read> h: array<vec4f>;
@group(0) @binding(1) var<storage, read_write> new_z: array<vec4f>;
@group(0) @binding(2) var<storage, read_write> inverse_norms: array<f32>;

@group(0) @binding(0) var<storage, read> z: array<vec4f>;
@group(0) @binding(1) var<storage, read_write> log_sum: array<vec2f>; // maximum m, Σ exp(s − m)
@group(0) @binding(2) var<storage, read_write> new_shares: array<vec4f>; // of the columns of a dispatch, by workgroup
@group(0) @binding(2) var<storage, read> shares: array<f32>;
@group(0) @binding(2) var<storage, read_write> new_lse: array<f32>;
@group(0) @binding(3) var<storage, read_write> losses: array<f32>;

@group(0) @binding(1) var<storage, read> lse: array<f32>;
@group(0) @binding(2) var<storage, read> lse4: array<vec4f>;
@group(0) @binding(3) var<storage, read_write> dz: array<vec4f>;

@group(0) @binding(1) var<storage, read> saved_inverse_norms: array<f32>;
@group(0) @binding(2) var<storage, read> saved_dz: array<vec4f>;
@group(0) @binding(3) var<storage, read> dy: array<f32>;
@group(0) @binding(4) var<storage, read_write> dh: array<vec4f>;

@group(1) @binding(0) var<uniform> p: Params;

// ---- along rows

fn row_of(group: vec3u, groups: vec3u, local: u32) -> u32 {
  return (group.x + group.y * groups.x) * 64u + local;
}

fn four(k: u32) -> vec4u {
  return 4u * k + vec4u(0u, 1u, 2u, 3u);
}

/// A vec4 of a row of h, filled up with zeros.
fn h_at(row: u32, k: u32, d: u32) -> vec4f {
  if (d % 4u == 0u) {
    return h[row * (d / 4u) + k];
  }
  let i = row * d + min(four(k), vec4u(d - 1u));
  let value = vec4f(h[i.x / 4u][i.x % 4u], h[i.y / 4u][i.y % 4u], h[i.z / 4u][i.z % 4u], h[i.w / 4u][i.w % 4u]);
  return select(vec4f(), value, four(k) < vec4u(d));
}

@compute @workgroup_size(64)
fn normalize(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) local: u32,
) {
  let row = row_of(group, groups, local);
  if (row >= p.rows) {
    return;
  }
  let quads = p.quads;
  let d = p.d;
  var squares = 0.0;
  for (var k = 0u; k < quads; k++) {
    let value = h_at(row, k, d);
    squares += dot(value, value);
  }
  let inverse = 1.0 / max(sqrt(squares), 1e-12);
  inverse_norms[row] = inverse;
  for (var k = 0u; k < quads; k++) {
    new_z[row * quads + k] = h_at(row, k, d) * inverse;
  }
}

fn partner_of(row: vec4u) -> vec4u {
  let half = p.rows / 2u;
  return select(row - half, row + half, row < vec4u(half));
}

@compute @workgroup_size(64)
fn pair_losses(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) local: u32,
) {
  let row = row_of(group, groups, local);
  if (row >= p.rows) {
    return;
  }
  let quads = p.quads;
  let start = row * quads;
  let partner_start = partner_of(vec4u(row)).x * quads;
  var product = 0.0;
  for (var k = 0u; k < quads; k++) {
    product += dot(z[start + k], z[partner_start + k]);
  }
  let value = log_sum[row].x + log(log_sum[row].y);
  new_lse[row] = value;
  losses[row] = value - product * p.sharpness;
}

@compute @workgroup_size(64)
fn input_gradient(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) local: u32,
) {
  let row = row_of(group, groups, local);
  if (row >= p.rows) {
    return;
  }
  let quads = p.quads;
  let start = row * quads;
  let dz_start = row * p.width;
  var along = 0.0;
  for (var k = 0u; k < quads; k++) {
    along += dot(z[start + k], saved_dz[dz_start + k]);
  }
  let scale = dy[0] * p.sharpness / f32(p.rows) * saved_inverse_norms[row];
  let d = p.d;
  for (var k = 0u; k < quads; k++) {
    let value = (saved_dz[dz_start + k] - z[start + k] * along) * scale;
    if (d % 4u == 0u) {
      dh[start + k] = value;
    } else {
      for (var e = 0u; e < min(4u, d - 4u * k); e++) {
        let i = row * d + 4u * k + e;
        dh[i / 4u][i % 4u] = value[e];
      }
    }
  }
}

// ---- over all pairs

/// The weights w of four pairs of a row and a column j, from the sums of their two exponentials.
fn weight(both: vec4f, row: vec4u, partner: vec4u, j: vec4u, rows: u32) -> vec4f {
  let left_out = (j == row) | (j >= vec4u(rows));
  return select(both, vec4f(), left_out) - select(vec4f(), vec4f(2.0), j == partner);
}

// ---- by subgroups

const LANES = 8u;
const FRAGMENTS = 4u; // rows of a lane, every eighth: the components of a vec4
const ROWS = FRAGMENTS * LANES;
const COLUMNS = 64u;
const QUADS = COLUMNS / 4u;

/// sum + a v, a column of a after the other.
fn add_product(sum: vec4f, a: mat4x4f, v: vec4f) -> vec4f {
  return fma(vec4f(v.w), a[3], fma(vec4f(v.z), a[2], fma(vec4f(v.y), a[1], fma(vec4f(v.x), a[0], sum))));
}

/// The rows of a lane, among those of its workgroup.
fn rows_of(row: u32, lane: u32) -> vec4u {
  return row + vec4u(0u, 1u, 2u, 3u) * LANES + lane;
}

var<private> products: array<vec4f, COLUMNS>; // of the rows of a lane with each column

/// The products of the rows of a lane with all columns of the tile, whose loading the lanes share.
fn subgroup_products(row: u32, column: u32, lane: u32) {
  // @unroll
  for (var i = 0u; i < COLUMNS; i++) {
    products[i] = vec4f();
  }
  // Parameters are loaded once: in the loop below every load counts.
  let quads = p.quads;
  let last = p.rows - 1u;
  let row_start = min(rows_of(row, lane), vec4u(last)) * quads;
  var column_start: array<u32, COLUMNS / LANES>;
  // @unroll
  for (var e = 0u; e < COLUMNS / LANES; e++) {
    column_start[e] = min(column + e * LANES + lane, last) * quads;
  }
  for (var k = 0u; k < quads; k++) {
    let at = row_start + k;
    let a = transpose(mat4x4f(z[at.x], z[at.y], z[at.z], z[at.w]));
    // @unroll
    for (var e = 0u; e < COLUMNS; e += LANES) {
      let held = z[column_start[e / LANES] + k];
      // @unroll
      for (var l = 0u; l < LANES; l++) {
        let v = subgroupShuffle(held, l);
        products[e + l] = add_product(products[e + l], a, v);
      }
    }
  }
}

@compute @workgroup_size(LANES)
fn log_sums(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(subgroup_invocation_id) lane: u32,
) {
  let rows = p.rows;
  let sharpness = p.sharpness;
  let index = group.x + group.y * groups.x;
  let tiles = (rows + ROWS - 1u) / ROWS;
  // The first have the most to do, the last the least: in turn, so that any half of them has half of it.
  let tile = select(index / 2u, tiles - 1u - index / 2u, index % 2u == 1u);
  let row = tile * ROWS;
  let own_columns = row / COLUMNS * COLUMNS;
  if (index >= tiles || own_columns >= p.end) {
    return;
  }
  var sum: array<f32, FRAGMENTS>;
  // @unroll
  for (var f = 0u; f < FRAGMENTS; f++) {
    sum[f] = select(0.0, log_sum[min(row + f * LANES + lane, rows - 1u)].y, own_columns < p.first);
  }
  for (var column = max(own_columns, p.first); column < p.end; column += COLUMNS) {
    subgroup_products(row, column, lane);
    // A lane keeps the sums of every eighth four columns.
    var share: array<vec4f, QUADS / LANES>;
    // @unroll
    for (var n = 0u; n < QUADS; n++) {
      let j = column + four(n);
      var of_lane = vec4f();
      // @unroll
      for (var f = 0u; f < FRAGMENTS; f++) {
        let product = vec4f(
          products[4u * n][f],
          products[4u * n + 1u][f],
          products[4u * n + 2u][f],
          products[4u * n + 3u][f],
        );
        let i = row + f * LANES + lane;
        let left_out = (j == vec4u(i)) | (max(j, vec4u(i)) >= vec4u(rows));
        let e = select(exp((product - 1.0) * sharpness), vec4f(), left_out);
        sum[f] += dot(e, vec4f(1.0));
        of_lane += e;
      }
      var total = vec4f();
      // @unroll
      for (var l = 0u; l < LANES; l++) {
        total += subgroupShuffle(of_lane, l);
      }
      share[n / LANES] = select(share[n / LANES], total, lane == n % LANES);
    }
    // Of its own columns a workgroup has all rows, or another one has.
    if (column > own_columns) {
      // @unroll
      for (var i = 0u; i < QUADS / LANES; i++) {
        new_shares[(tile * p.span + column - p.first) / 4u + i * LANES + lane] = share[i];
      }
    }
  }
  // @unroll
  for (var f = 0u; f < FRAGMENTS; f++) {
    let r = row + f * LANES + lane;
    if (r < rows) {
      log_sum[r] = vec2f(sharpness, sum[f]);
    }
  }
}

@compute @workgroup_size(64)
fn join_sums(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) local: u32,
) {
  let row = p.first + row_of(group, groups, local);
  if (row >= p.end) {
    return;
  }
  var sum = 0.0;
  for (var tile = 0u; tile < row / COLUMNS * (COLUMNS / ROWS); tile++) {
    sum += shares[tile * p.span + row - p.first];
  }
  log_sum[row].y += sum;
}

// Every lane reads only what it wrote, so no barrier is needed; a private array would be slower, because
// its index is no constant.
var<workgroup> weights: array<vec4f, COLUMNS * LANES>;

@compute @workgroup_size(LANES)
fn gradient(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(subgroup_invocation_id) lane: u32,
) {
  let row = (group.x + group.y * groups.x) * ROWS;
  if (row >= p.rows) {
    return;
  }
  let quads = p.quads;
  let rows = p.rows;
  let last = rows - 1u;
  let sharpness = p.sharpness;
  let depth = group.z * LANES * DEPTH + lane;
  var o: array<vec4f, ROWS * DEPTH>;
  // @unroll
  for (var i = 0u; i < ROWS * DEPTH; i++) {
    o[i] = vec4f();
  }
  let i = rows_of(row, lane);
  let at = min(i, vec4u(last));
  let own = exp(sharpness - vec4f(lse[at.x], lse[at.y], lse[at.z], lse[at.w]));
  let partner = partner_of(i);
  for (var column = p.first; column < p.end; column += COLUMNS) {
    subgroup_products(row, column, lane);
    // Four columns at a time, the next ones moved to their place: written out, stores take long to compile.
    for (var n = 0u; n < QUADS; n++) {
      let j = column + 4u * n;
      let others = exp(sharpness - lse4[min(j, last) / 4u]);
      // @unroll
      for (var e = 0u; e < 4u; e++) {
        let both = exp((products[e] - 1.0) * sharpness) * (own + others[e]);
        weights[(4u * n + e) * LANES + lane] = weight(both, i, partner, vec4u(j + e), rows);
      }
      // @unroll
      for (var e = 0u; e < COLUMNS - 4u; e++) {
        products[e] = products[e + 4u];
      }
    }
    // @unroll
    for (var first = 0u; first < DEPTH; first += PASS) {
      for (var n = 0u; n < QUADS; n++) {
        let j = column + 4u * n;
        let at = 4u * n * LANES + lane;
        let w = transpose(mat4x4f(
          weights[at],
          weights[at + LANES],
          weights[at + 2u * LANES],
          weights[at + 3u * LANES],
        ));
        // @unroll
        for (var c = first; c < first + PASS; c++) {
          let k = min(depth + c * LANES, quads - 1u);
          let b = mat4x4f(
            z[min(j, last) * quads + k],
            z[min(j + 1u, last) * quads + k],
            z[min(j + 2u, last) * quads + k],
            z[min(j + 3u, last) * quads + k],
          );
          // @unroll
          for (var r = 0u; r < ROWS; r++) {
            let v = subgroupShuffle(w[r / LANES], r % LANES);
            o[r * DEPTH + c] = add_product(o[r * DEPTH + c], b, v);
          }
        }
      }
    }
  }
  for (var first = 0u; first < ROWS; first += 8u) {
    // @unroll
    for (var r = 0u; r < 8u; r++) {
      // @unroll
      for (var c = 0u; c < DEPTH; c++) {
        dz[(row + first + r) * p.width + depth + c * LANES] = o[r * DEPTH + c];
      }
    }
    // @unroll
    for (var i = 0u; i < (ROWS - 8u) * DEPTH; i++) {
      o[i] = o[i + 8u * DEPTH];
    }
  }
}

// ---- through workgroup memory

const WIDTH = 16u; // invocations along the columns: one holds columns x, x + 16, x + 32 and x + 48
const HEIGHT = 8u; // rows of an invocation
const CHUNK = 8u; // vec4 of z in workgroup memory
const STRIDE = 9u; // CHUNK + 1: keeps the columns in different banks

var<workgroup> tile_rows: array<vec4f, 288>; // 32 · STRIDE
var<workgroup> tile_columns: array<vec4f, 576>; // 64 · STRIDE; later the weights [32, 16]

var<private> tile: array<vec4f, HEIGHT>;

/// The products of the rows of an invocation with its columns.
fn tile_products(row: u32, column: u32, local: u32) {
  // @unroll
  for (var r = 0u; r < HEIGHT; r++) {
    tile[r] = vec4f();
  }
  let last = p.rows - 1u;
  for (var start = 0u; start < p.quads; start += CHUNK) {
    let k = start + local % CHUNK;
    let outside = k >= p.quads;
    let from_k = min(k, p.quads - 1u);
    workgroupBarrier();
    // @unroll
    for (var i = 0u; i < 32u; i += 8u) {
      let r = i + local / CHUNK;
      let value = z[min(row + r, last) * p.quads + from_k];
      tile_rows[r * STRIDE + local % CHUNK] = select(value, vec4f(), outside);
    }
    // @unroll
    for (var i = 0u; i < 64u; i += 8u) {
      let c = i + local / CHUNK;
      let value = z[min(column + c, last) * p.quads + from_k];
      tile_columns[c * STRIDE + local % CHUNK] = select(value, vec4f(), outside);
    }
    workgroupBarrier();
    for (var at = 0u; at < CHUNK; at++) {
      let b0 = tile_columns[(local % WIDTH) * STRIDE + at];
      let b1 = tile_columns[(local % WIDTH + 16u) * STRIDE + at];
      let b2 = tile_columns[(local % WIDTH + 32u) * STRIDE + at];
      let b3 = tile_columns[(local % WIDTH + 48u) * STRIDE + at];
      // @unroll
      for (var r = 0u; r < HEIGHT; r++) {
        let v = tile_rows[(local / WIDTH * HEIGHT + r) * STRIDE + at];
        tile[r] += vec4f(dot(v, b0), dot(v, b1), dot(v, b2), dot(v, b3));
      }
    }
  }
  workgroupBarrier();
}

@compute @workgroup_size(64)
fn log_sums_tile(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) local: u32,
) {
  let row = (group.x + group.y * groups.x) * 32u;
  if (row >= p.rows) {
    return;
  }
  let own = row + local / WIDTH * HEIGHT;
  var top: array<f32, HEIGHT>;
  var sum: array<f32, HEIGHT>;
  // @unroll
  for (var r = 0u; r < HEIGHT; r++) {
    let before = log_sum[min(own + r, p.rows - 1u)];
    let resumed = p.first > 0u && local % WIDTH == 0u;
    top[r] = select(LOWEST, before.x, resumed);
    sum[r] = select(0.0, before.y, resumed);
  }
  for (var column = p.first; column < p.end; column += 64u) {
    tile_products(row, column, local);
    let j = column + local % WIDTH + vec4u(0u, 16u, 32u, 48u);
    // @unroll
    for (var r = 0u; r < HEIGHT; r++) {
      let left_out = (j == vec4u(own + r)) | (j >= vec4u(p.rows));
      let v = select(tile[r] * p.sharpness, vec4f(LOWEST), left_out);
      let next = max(top[r], max(max(v.x, v.y), max(v.z, v.w)));
      sum[r] = sum[r] * exp(top[r] - next) + dot(exp(v - next), vec4f(1.0));
      top[r] = next;
    }
  }
  // @unroll
  for (var r = 0u; r < HEIGHT; r++) {
    let to = (local / WIDTH * HEIGHT + r) * WIDTH + local % WIDTH;
    tile_columns[to] = vec4f(top[r], sum[r], 0.0, 0.0);
  }
  workgroupBarrier();
  if (local < 32u && row + local < p.rows) {
    var next = LOWEST;
    for (var i = 0u; i < WIDTH; i++) {
      next = max(next, tile_columns[local * WIDTH + i].x);
    }
    var total = 0.0;
    for (var i = 0u; i < WIDTH; i++) {
      total += tile_columns[local * WIDTH + i].y * exp(tile_columns[local * WIDTH + i].x - next);
    }
    log_sum[row + local] = vec2f(next, total);
  }
}

@compute @workgroup_size(64)
fn gradient_tile(
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
  let depth = group.z * WIDTH * DEPTH + local % WIDTH;
  var o: array<vec4f, HEIGHT * DEPTH>;
  // @unroll
  for (var i = 0u; i < HEIGHT * DEPTH; i++) {
    o[i] = vec4f();
  }
  for (var column = p.first; column < p.end; column += 64u) {
    tile_products(row, column, local);
    let j = column + local % WIDTH + vec4u(0u, 16u, 32u, 48u);
    let at = min(j, vec4u(last));
    let others = vec4f(lse[at.x], lse[at.y], lse[at.z], lse[at.w]);
    // @unroll
    for (var r = 0u; r < HEIGHT; r++) {
      let s = tile[r] * p.sharpness;
      let both = exp(s - lse[min(own + r, last)]) + exp(s - others);
      tile_columns[(local / WIDTH * HEIGHT + r) * WIDTH + local % WIDTH] =
        weight(both, vec4u(own + r), partner_of(vec4u(own + r)), j, p.rows);
    }
    workgroupBarrier();
    for (var n = 0u; n < WIDTH; n++) {
      // @unroll
      for (var c = 0u; c < DEPTH; c++) {
        let k = min(depth + c * WIDTH, p.quads - 1u);
        let b0 = z[min(column + n, last) * p.quads + k];
        let b1 = z[min(column + n + 16u, last) * p.quads + k];
        let b2 = z[min(column + n + 32u, last) * p.quads + k];
        let b3 = z[min(column + n + 48u, last) * p.quads + k];
        // @unroll
        for (var r = 0u; r < HEIGHT; r++) {
          let v = tile_columns[(local / WIDTH * HEIGHT + r) * WIDTH + n];
          o[r * DEPTH + c] += v.x * b0 + v.y * b1 + v.z * b2 + v.w * b3;
        }
      }
    }
  }
  // @unroll
  for (var r = 0u; r < HEIGHT; r++) {
    // @unroll
    for (var c = 0u; c < DEPTH; c++) {
      dz[(own + r) * p.width + depth + c * WIDTH] = o[r * DEPTH + c];
    }
  }
}
