// NT-Xent of SimCLR over rows h [rows, d] of which i and i ± rows/2 are a pair, without ever holding the
// matrix of similarities:
//
//   z_i = h_i / ‖h_i‖,  s_ij = z_i·z_j / temperature,  lse_i = log Σ_{j≠i} exp(s_ij)
//   loss = mean over i of lse_i − s_i,partner(i)
//   dz_i = Σ_j w_ij z_j / (rows · temperature),  w_ij = exp(s_ij − lse_i) + exp(s_ij − lse_j) − 2·[j = partner(i)]
//   dh_i = (dz_i − z_i (z_i·dz_i)) / ‖h_i‖
//
// normalize, pair_losses and input_gradient go along rows: 8 rows a workgroup, 8 invocations a row. Grid:
// ceil(rows / 8) groups, folded to 2-D.
//
// log_sums and gradient go over all pairs. A workgroup owns 32 rows and walks along all columns, 64 at a
// time: an invocation holds ROWS similarities of the columns x, x + 16, x + 32 and x + 48 as a vec4. In
// gradient the weights w of a tile are then the left factor of a second product, with the rows of z. A
// dispatch covers the columns from `first` to before `end`, and goes on from the one before.
// Grid: (ceil(rows / 32) folded to x and y, z: ceil(quads / (16 · DEPTH)) in gradient).
//
// Layout: h [rows, d]; z and dz [rows, quads] of vec4, the last one filled up with zeros.
//
// @compile gradient DEPTH=1

const ROWS = 8u; // of an invocation
const DEPTH = 2u; // vec4 of a row of dz of an invocation
const CHUNK = 8u; // vec4 of z that are in workgroup memory at a time
const STRIDE = 9u; // CHUNK + 1: keeps the columns in different banks
const LOWEST = -3.0e38;

struct Params {
  rows: u32,
  d: u32,
  quads: u32, // vec4 in a row of z
  first: u32,
  end: u32,
  sharpness: f32, // 1 / temperature
}

@group(0) @binding(0) var<storage, read> h: array<f32>;
@group(0) @binding(1) var<storage, read_write> z_elements: array<f32>;
@group(0) @binding(2) var<storage, read_write> inverse_norms: array<f32>;

@group(0) @binding(0) var<storage, read> z: array<vec4f>;
@group(0) @binding(1) var<storage, read_write> log_sum: array<vec2f>; // maximum m, Σ exp(s − m)
@group(0) @binding(2) var<storage, read_write> new_lse: array<f32>;
@group(0) @binding(3) var<storage, read_write> loss: array<f32>;

@group(0) @binding(1) var<storage, read> lse: array<f32>;
@group(0) @binding(3) var<storage, read_write> dz: array<vec4f>;

@group(0) @binding(1) var<storage, read> saved_z: array<f32>;
@group(0) @binding(2) var<storage, read> saved_inverse_norms: array<f32>;
@group(0) @binding(3) var<storage, read> saved_dz: array<f32>;
@group(0) @binding(4) var<storage, read> dy: array<f32>;
@group(0) @binding(5) var<storage, read_write> dh: array<f32>;

@group(1) @binding(0) var<uniform> p: Params;

// ---- along rows

var<workgroup> parts: array<f32, 64>;

/// The sum over the 8 invocations of a row.
fn sum_of_row(mine: f32, local: u32) -> f32 {
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
fn normalize(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) local: u32,
) {
  let row = row_of(group, groups, local);
  let end = select(0u, p.d, row < p.rows);
  var squares = 0.0;
  for (var k = local % 8u; k < end; k += 8u) {
    squares += h[row * p.d + k] * h[row * p.d + k];
  }
  let inverse = 1.0 / max(sqrt(sum_of_row(squares, local)), 1e-12);
  if (row >= p.rows) {
    return;
  }
  inverse_norms[row] = inverse;
  for (var k = local % 8u; k < 4u * p.quads; k += 8u) {
    var value = 0.0;
    if (k < p.d) {
      value = h[row * p.d + k] * inverse;
    }
    z_elements[row * 4u * p.quads + k] = value;
  }
}

fn partner_of(row: u32) -> u32 {
  return select(row - p.rows / 2u, row + p.rows / 2u, row < p.rows / 2u);
}

@compute @workgroup_size(64)
fn pair_losses(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) local: u32,
) {
  let row = row_of(group, groups, local);
  let end = select(0u, p.quads, row < p.rows);
  var product = 0.0;
  for (var k = local % 8u; k < end; k += 8u) {
    product += dot(z[row * p.quads + k], z[partner_of(row) * p.quads + k]);
  }
  let similarity = sum_of_row(product, local) * p.sharpness;
  if (row < p.rows && local % 8u == 0u) {
    let value = log_sum[row].x + log(log_sum[row].y);
    new_lse[row] = value;
    loss[row] = value - similarity;
  }
}

@compute @workgroup_size(64)
fn input_gradient(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) local: u32,
) {
  let row = row_of(group, groups, local);
  let start = row * 4u * p.quads;
  let end = select(0u, p.d, row < p.rows);
  var product = 0.0;
  for (var k = local % 8u; k < end; k += 8u) {
    product += saved_z[start + k] * saved_dz[start + k];
  }
  let along = sum_of_row(product, local);
  if (row >= p.rows) {
    return;
  }
  let scale = dy[0] * p.sharpness / f32(p.rows) * saved_inverse_norms[row];
  for (var k = local % 8u; k < end; k += 8u) {
    dh[row * p.d + k] = (saved_dz[start + k] - saved_z[start + k] * along) * scale;
  }
}

// ---- over all pairs

var<workgroup> tile_rows: array<vec4f, 288>; // 32 · STRIDE
var<workgroup> tile_columns: array<vec4f, 576>; // 64 · STRIDE; later the weights [32, 16]

var<private> s: array<vec4f, ROWS>;

/// The products of the rows of an invocation with its columns.
fn similarities(row: u32, column: u32, local: u32) {
  // @unroll
  for (var r = 0u; r < ROWS; r++) {
    s[r] = vec4f();
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
      let b0 = tile_columns[(local % 16u) * STRIDE + at];
      let b1 = tile_columns[(local % 16u + 16u) * STRIDE + at];
      let b2 = tile_columns[(local % 16u + 32u) * STRIDE + at];
      let b3 = tile_columns[(local % 16u + 48u) * STRIDE + at];
      // @unroll
      for (var r = 0u; r < ROWS; r++) {
        let v = tile_rows[(local / 16u * ROWS + r) * STRIDE + at];
        s[r] += vec4f(dot(v, b0), dot(v, b1), dot(v, b2), dot(v, b3));
      }
    }
  }
  workgroupBarrier();
}

@compute @workgroup_size(64)
fn log_sums(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) local: u32,
) {
  let row = (group.x + group.y * groups.x) * 32u;
  if (row >= p.rows) {
    return;
  }
  let own = row + local / 16u * ROWS;
  var top: array<f32, ROWS>;
  var sum: array<f32, ROWS>;
  // @unroll
  for (var r = 0u; r < ROWS; r++) {
    let before = log_sum[min(own + r, p.rows - 1u)];
    let resumed = p.first > 0u && local % 16u == 0u;
    top[r] = select(LOWEST, before.x, resumed);
    sum[r] = select(0.0, before.y, resumed);
  }
  for (var column = p.first; column < p.end; column += 64u) {
    similarities(row, column, local);
    let j = column + local % 16u + vec4u(0u, 16u, 32u, 48u);
    // @unroll
    for (var r = 0u; r < ROWS; r++) {
      let left_out = (j == vec4u(own + r)) | (j >= vec4u(p.rows));
      let v = select(s[r] * p.sharpness, vec4f(LOWEST), left_out);
      let next = max(top[r], max(max(v.x, v.y), max(v.z, v.w)));
      sum[r] = sum[r] * exp(top[r] - next) + dot(exp(v - next), vec4f(1.0));
      top[r] = next;
    }
  }
  // @unroll
  for (var r = 0u; r < ROWS; r++) {
    let to = (local / 16u * ROWS + r) * 16u + local % 16u;
    tile_columns[to] = vec4f(top[r], sum[r], 0.0, 0.0);
  }
  workgroupBarrier();
  if (local < 32u && row + local < p.rows) {
    var next = LOWEST;
    for (var i = 0u; i < 16u; i++) {
      next = max(next, tile_columns[local * 16u + i].x);
    }
    var total = 0.0;
    for (var i = 0u; i < 16u; i++) {
      total += tile_columns[local * 16u + i].y * exp(tile_columns[local * 16u + i].x - next);
    }
    log_sum[row + local] = vec2f(next, total);
  }
}

@compute @workgroup_size(64)
fn gradient(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) local: u32,
) {
  let row = (group.x + group.y * groups.x) * 32u;
  if (row >= p.rows) {
    return;
  }
  let last = p.rows - 1u;
  let own = row + local / 16u * ROWS;
  let depth = group.z * 16u * DEPTH + local % 16u;
  var o: array<vec4f, ROWS * DEPTH>;
  // @unroll
  for (var i = 0u; i < ROWS * DEPTH; i++) {
    o[i] = vec4f();
  }
  for (var column = p.first; column < p.end; column += 64u) {
    similarities(row, column, local);
    let j = column + local % 16u + vec4u(0u, 16u, 32u, 48u);
    let at = min(j, vec4u(last));
    let others = vec4f(lse[at.x], lse[at.y], lse[at.z], lse[at.w]);
    // @unroll
    for (var r = 0u; r < ROWS; r++) {
      let left_out = (j == vec4u(own + r)) | (j >= vec4u(p.rows));
      let v = s[r] * p.sharpness;
      let both = exp(v - lse[min(own + r, last)]) + exp(v - others);
      tile_columns[(local / 16u * ROWS + r) * 16u + local % 16u] =
        select(both, vec4f(), left_out) -
        select(vec4f(), vec4f(2.0), j == vec4u(partner_of(own + r)));
    }
    workgroupBarrier();
    for (var n = 0u; n < 16u; n++) {
      // @unroll
      for (var c = 0u; c < DEPTH; c++) {
        let k = min(depth + c * 16u, p.quads - 1u);
        let b0 = z[min(column + n, last) * p.quads + k];
        let b1 = z[min(column + n + 16u, last) * p.quads + k];
        let b2 = z[min(column + n + 32u, last) * p.quads + k];
        let b3 = z[min(column + n + 48u, last) * p.quads + k];
        // @unroll
        for (var r = 0u; r < ROWS; r++) {
          let v = tile_columns[(local / 16u * ROWS + r) * 16u + n];
          o[r * DEPTH + c] += v.x * b0 + v.y * b1 + v.z * b2 + v.w * b3;
        }
      }
    }
  }
  // @unroll
  for (var r = 0u; r < ROWS; r++) {
    // @unroll
    for (var c = 0u; c < DEPTH; c++) {
      let k = depth + c * 16u;
      if (own + r < p.rows && k < p.quads) {
        let to = (own + r) * p.quads + k;
        if (p.first == 0u) {
          dz[to] = o[r * DEPTH + c];
        } else {
          dz[to] += o[r * DEPTH + c];
        }
      }
    }
  }
}
