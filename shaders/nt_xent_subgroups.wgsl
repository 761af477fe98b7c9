// @subgroups
// The passes of NT-Xent over all pairs of rows, for subgroups of 8: see nt_xent.wgsl, which has the
// same entry points for any GPU.
//
// A workgroup is one subgroup. It owns a tile of ROWS rows and walks along all columns, 64 at a time: of
// the similarities each lane holds 4·QUADS columns. Rows are loaded once by a lane and broadcast.
//
// Grid: (ceil(rows / ROWS) folded to x and y, z: ceil(quads / (LANES·DEPTH)) in gradient).
//
// @compile gradient DEPTH=1
// @compile gradient DEPTH=2
// @compile gradient DEPTH=3

const LANES = 8u;
const FRAGMENTS = 4u; // loads by which a lane holds its share of the rows
const ROWS = FRAGMENTS * LANES;
const QUADS = 2u; // vec4 of columns of a lane
const COLUMNS = 4u * QUADS * LANES;
const DEPTH = 4u; // vec4 of a result row of a lane
const LOWEST = -3.0e38;

struct Params {
  rows: u32,
  quads: u32, // vec4 in a row of z
  first: u32, // columns of this dispatch
  end: u32,
  sharpness: f32, // 1 / temperature
}

@group(0) @binding(0) var<storage, read> z: array<vec4f>;
@group(0) @binding(1) var<storage, read_write> log_sum: array<vec2f>;
@group(0) @binding(1) var<storage, read> lse: array<f32>;
@group(0) @binding(2) var<storage, read> lse4: array<vec4f>;
@group(0) @binding(3) var<storage, read_write> dz: array<vec4f>;
@group(1) @binding(0) var<uniform> p: Params;

var<private> s: array<vec4f, ROWS * QUADS>;

fn similarities(row: u32, column: u32, lane: u32) {
  // @unroll
  for (var i = 0u; i < ROWS * QUADS; i++) {
    s[i] = vec4f();
  }
  let last = p.rows - 1u;
  for (var k = 0u; k < p.quads; k++) {
    var a: array<vec4f, FRAGMENTS>;
    // @unroll
    for (var f = 0u; f < FRAGMENTS; f++) {
      a[f] = z[min(row + f * LANES + lane, last) * p.quads + k];
    }
    // @unroll
    for (var q = 0u; q < QUADS; q++) {
      let j = column + 4u * (q * LANES + lane);
      let b0 = z[min(j, last) * p.quads + k];
      let b1 = z[min(j + 1u, last) * p.quads + k];
      let b2 = z[min(j + 2u, last) * p.quads + k];
      let b3 = z[min(j + 3u, last) * p.quads + k];
      // @unroll
      for (var r = 0u; r < ROWS; r++) {
        let v = subgroupBroadcast(a[r / LANES], r % LANES);
        s[r * QUADS + q] = fma(vec4f(v.w), vec4f(b0.w, b1.w, b2.w, b3.w),
          fma(vec4f(v.z), vec4f(b0.z, b1.z, b2.z, b3.z),
          fma(vec4f(v.y), vec4f(b0.y, b1.y, b2.y, b3.y),
          fma(vec4f(v.x), vec4f(b0.x, b1.x, b2.x, b3.x), s[r * QUADS + q]))));
      }
    }
  }
}

fn columns_of(column: u32, q: u32, lane: u32) -> vec4u {
  return column + 4u * (q * LANES + lane) + vec4u(0u, 1u, 2u, 3u);
}

@compute @workgroup_size(LANES)
fn log_sums(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(subgroup_invocation_id) lane: u32,
) {
  let row = (group.x + group.y * groups.x) * ROWS;
  if (row >= p.rows) {
    return;
  }
  var top: array<f32, ROWS>;
  var sum: array<f32, ROWS>;
  // @unroll
  for (var r = 0u; r < ROWS; r++) {
    let before = log_sum[min(row + r, p.rows - 1u)];
    let resumed = p.first > 0u && lane == 0u;
    top[r] = select(LOWEST, before.x, resumed);
    sum[r] = select(0.0, before.y, resumed);
  }
  for (var column = p.first; column < p.end; column += COLUMNS) {
    similarities(row, column, lane);
    // @unroll
    for (var r = 0u; r < ROWS; r++) {
      var highest = vec4f(LOWEST);
      // @unroll
      for (var q = 0u; q < QUADS; q++) {
        let j = columns_of(column, q, lane);
        let left_out = (j == vec4u(row + r)) | (j >= vec4u(p.rows));
        s[r * QUADS + q] = select(s[r * QUADS + q] * p.sharpness, vec4f(LOWEST), left_out);
        highest = max(highest, s[r * QUADS + q]);
      }
      let next = max(top[r], max(max(highest.x, highest.y), max(highest.z, highest.w)));
      var e = vec4f();
      // @unroll
      for (var q = 0u; q < QUADS; q++) {
        e += exp(s[r * QUADS + q] - next);
      }
      sum[r] = sum[r] * exp(top[r] - next) + dot(e, vec4f(1.0));
      top[r] = next;
    }
  }
  // @unroll
  for (var r = 0u; r < ROWS; r++) {
    let next = subgroupMax(top[r]);
    let total = subgroupAdd(sum[r] * exp(top[r] - next));
    if (lane == 0u && row + r < p.rows) {
      log_sum[row + r] = vec2f(next, total);
    }
  }
}

var<workgroup> weights: array<vec4f, ROWS * LANES * QUADS>;

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
  let last = p.rows - 1u;
  let depth = group.z * LANES * DEPTH + lane;
  var o: array<vec4f, ROWS * DEPTH>;
  // @unroll
  for (var i = 0u; i < ROWS * DEPTH; i++) {
    o[i] = vec4f();
  }
  var own: array<f32, FRAGMENTS>;
  // @unroll
  for (var f = 0u; f < FRAGMENTS; f++) {
    own[f] = lse[min(row + f * LANES + lane, last)];
  }
  for (var column = p.first; column < p.end; column += COLUMNS) {
    similarities(row, column, lane);
    // @unroll
    for (var q = 0u; q < QUADS; q++) {
      let j = columns_of(column, q, lane);
      let others = lse4[min(j.x, last) / 4u];
      // @unroll
      for (var r = 0u; r < ROWS; r++) {
        let i = row + r;
        let partner = select(i - p.rows / 2u, i + p.rows / 2u, i < p.rows / 2u);
        let left_out = (j == vec4u(i)) | (j >= vec4u(p.rows));
        let similarity = s[r * QUADS + q] * p.sharpness;
        let both = exp(similarity - subgroupBroadcast(own[r / LANES], r % LANES)) +
          exp(similarity - others);
        weights[r * LANES * QUADS + q * LANES + lane] = select(both, vec4f(), left_out) -
          select(vec4f(), vec4f(2.0), j == vec4u(partner));
      }
    }
    workgroupBarrier();
    for (var n = 0u; n < LANES * QUADS; n++) {
      var a: array<vec4f, FRAGMENTS>;
      // @unroll
      for (var f = 0u; f < FRAGMENTS; f++) {
        a[f] = weights[(f * LANES + lane) * LANES * QUADS + n];
      }
      let j = column + 4u * n;
      // @unroll
      for (var c = 0u; c < DEPTH; c++) {
        let at = min(depth + c * LANES, p.quads - 1u);
        let b0 = z[min(j, last) * p.quads + at];
        let b1 = z[min(j + 1u, last) * p.quads + at];
        let b2 = z[min(j + 2u, last) * p.quads + at];
        let b3 = z[min(j + 3u, last) * p.quads + at];
        // @unroll
        for (var r = 0u; r < ROWS; r++) {
          let v = subgroupBroadcast(a[r / LANES], r % LANES);
          o[r * DEPTH + c] = fma(vec4f(v.w), b3,
            fma(vec4f(v.z), b2, fma(vec4f(v.y), b1, fma(vec4f(v.x), b0, o[r * DEPTH + c]))));
        }
      }
    }
    workgroupBarrier();
  }
  // @unroll
  for (var r = 0u; r < ROWS; r++) {
    // @unroll
    for (var c = 0u; c < DEPTH; c++) {
      let at = depth + c * LANES;
      if (row + r < p.rows && at < p.quads) {
        let to = (row + r) * p.quads + at;
        if (p.first == 0u) {
          dz[to] = o[r * DEPTH + c];
        } else {
          dz[to] += o[r * DEPTH + c];
        }
      }
    }
  }
}
