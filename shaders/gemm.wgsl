// Products of matrices, one of whose sides is an image seen through the taps of a convolution.
//
//   image:    y[pixel, column] = bias[column] + Σ tap, k  a[pixel moved by tap, k] · b[tap, k, column]
//   weights:  y[tap, row, column] = Σ pixel  a[pixel moved by tap, row] · b[pixel, column]
//
// `image` is the forward of a convolution or, TRANSPOSED, its gradient by the input; `weights` is its
// gradient by the weights. A plain matrix product is the 1×1 convolution of one line of pixels.
//
// Layout: images [images, h, w, pixel], weights [kernel_h, kernel_w, inner, columns], all row-major. With
// TRANSPOSED, b lies the other way round: [tap, columns, inner] in `image`, [columns, pixels] in `weights`.
// A reader that takes `inner` = kernel_w · pixel elements of a line as one tap sets kernel_w to 1.
//
// Every invocation deals in blocks of 4×4: four rows times four steps of the sum on the left, four of those
// steps times four columns on the right. There are two families of kernels over the same blocks:
//
//   image, weights            a subgroup owns ROWS × (4 · COLUMNS · LANES) elements of y: each invocation reads
//                             its own columns on the right and broadcasts its rows of the left to the others;
//   image_tile, weights_tile  a workgroup of 64 owns 64 × 64 elements and shares blocks in its memory.
//
// Grid: (row tiles × column tiles, folded to 2-D; batches × splits × phases in z). The sum is cut into `splits`
// of `steps` blocks each: y then holds one partial sum after another, for another kernel to add up.
//
// @compile image TRANSPOSED=1
// @compile image LEFT=1 RIGHT=1
// @compile image LEFT=1 RIGHT=1 TRANSPOSED=1
// @compile image LANES=32 COLUMNS=1
// @compile image_tile TRANSPOSED=1
// @compile image_tile LEFT=1 RIGHT=1
// @compile image_tile LEFT=1 RIGHT=1 TRANSPOSED=1
// @compile weights LEFT=1 RIGHT=1
// @compile weights LANES=32 COLUMNS=1
// @compile weights_tile LEFT=1 RIGHT=1

const TRANSPOSED = 0u;
// 4 where the lines of a (of b) are a multiple of 4 elements long in memory, else 1.
const LEFT = 4u;
const RIGHT = 4u;
// Invocations of a subgroup; rows of its tile, at most four an invocation; vec4 of columns of an invocation.
const LANES = 8u;
const ROWS = 32u;
const COLUMNS = 2u;

struct Params {
  images: u32,
  source_h: u32,
  source_w: u32,
  result_h: u32,
  result_w: u32,
  kernel_h: u32,
  kernel_w: u32,
  stride: u32,
  padding: u32,
  pixel: u32,
  inner: u32,
  columns: u32,
  row_tiles: u32,
  phases: u32,
  splits: u32,
  steps: u32,
  a_batch: u32,
  b_batch: u32,
  y_batch: u32,
  y_split: u32,
  has_bias: u32,
}

@group(0) @binding(0) var<storage, read> a: array<vec4f>;
@group(0) @binding(1) var<storage, read> b: array<vec4f>;
@group(0) @binding(2) var<storage, read> bias: array<f32>;
@group(0) @binding(3) var<storage, read_write> y: array<f32>;
@group(1) @binding(0) var<uniform> p: Params;

const nowhere = 0xffffffffu;

fn a_at(i: i32) -> f32 {
  return a[i >> 2u][i & 3];
}

fn b_at(i: u32) -> f32 {
  return b[i >> 2u][i & 3u];
}

fn four(first: u32) -> vec4u {
  return first + vec4u(0u, 1u, 2u, 3u);
}

// The right block: rows k … k+3 and columns n … n+3 of the matrix [depth, columns] (or [columns, depth]) that
// begins at element `start` of b. Past its edges it repeats the last row and column.
fn right_block(start: u32, depth: u32, k: u32, n: u32) -> mat4x4f {
  var outer = min(four(k), vec4u(depth - 1u));
  var inner = min(four(n), vec4u(p.columns - 1u));
  var length = p.columns;
  if (TRANSPOSED == 1u) {
    let swap = outer;
    outer = inner;
    inner = swap;
    length = depth;
  }
  var block: mat4x4f;
  // @unroll
  for (var e = 0u; e < 4u; e++) {
    let line = start + outer[e] * length;
    if (RIGHT == 4u) {
      block[e] = b[(line + inner.x) / 4u];
    } else {
      let i = line + inner;
      block[e] = vec4f(b_at(i.x), b_at(i.y), b_at(i.z), b_at(i.w));
    }
  }
  if (TRANSPOSED == 1u) {
    return transpose(block);
  }
  return block;
}

// Elements of a at four positions of four lines; zero where `inside` is false or the position is outside.
fn elements(line: vec4i, position: vec4i, inside: vec4<bool>) -> vec4f {
  let length = vec4i(i32(p.source_w * p.pixel));
  let here = inside & (position >= vec4i(0)) & (position < length);
  let i = select(vec4i(0), line + position, here);
  return select(vec4f(), vec4f(a_at(i.x), a_at(i.y), a_at(i.z), a_at(i.w)), here);
}

// How the pixels of the result lie to those of the source, along one axis.
struct Axis {
  // The pixels first, first + step, … of the result, `count` of them, meet the same taps.
  first: u32,
  step: u32,
  count: u32,
  // Source pixel under the first of them at the first tap, and how far the source moves from one to the next.
  origin: i32,
  stride: i32,
  // The taps first_tap, first_tap + tap_step, …, `taps` of them; `direction`: the source moves with them or back.
  first_tap: u32,
  tap_step: u32,
  taps: u32,
  direction: i32,
}

// Forward, every pixel meets every tap. Backward with stride s, an input pixel i meets only the taps t with
// i + padding ≡ t (mod s), so the pixels fall into s phases.
fn axis(result: u32, kernel: u32, phase: u32) -> Axis {
  if (TRANSPOSED == 0u) {
    return Axis(0u, 1u, result, -i32(p.padding), i32(p.stride), 0u, 1u, kernel, 1);
  }
  let s = p.stride;
  let count = (max(result, phase) - phase + s - 1u) / s;
  let tap = (phase + p.padding) % s;
  let taps = (max(kernel, tap) - tap + s - 1u) / s;
  return Axis(phase, s, count, i32((phase + p.padding) / s), 1, tap, s, taps, -1);
}

// Four rows of the product `image`: pixels of the result.
struct Pixels {
  // Source coordinates at the first tap, and the first line of the source image.
  x: vec4i,
  y: vec4i,
  top: vec4i,
  live: vec4<bool>,
  // Index of the pixel in the result, or `nowhere`.
  index: vec4u,
}

fn pixels(row: vec4u, v: Axis, h: Axis) -> Pixels {
  let x = row % h.count;
  let y = row / h.count % v.count;
  let i = row / h.count / v.count;
  let live = i < vec4u(p.images);
  let index = (i * p.result_h + v.first + y * v.step) * p.result_w + h.first + x * h.step;
  return Pixels(
    h.origin + vec4i(x) * h.stride,
    v.origin + vec4i(y) * v.stride,
    vec4i(i * p.source_h),
    live,
    select(vec4u(nowhere), index, live),
  );
}

// Where four pixels lie in a at one tap.
struct Reach {
  line: vec4i,
  position: vec4i,
  // Whether the line is in the image, and the pixel in the line.
  in_image: vec4<bool>,
  in_line: vec4<bool>,
  // Where the tap's matrix begins in b.
  right: u32,
}

fn reach(q: Pixels, tap: u32, v: Axis, h: Axis, batch: u32) -> Reach {
  let tap_y = tap / h.taps;
  let tap_x = tap % h.taps;
  let y = q.y + i32(tap_y) * v.direction;
  let x = q.x + i32(tap_x) * h.direction;
  let in_image = q.live & (y >= vec4i(0)) & (y < vec4i(i32(p.source_h)));
  let in_line = in_image & (x >= vec4i(0)) & (x < vec4i(i32(p.source_w)));
  let kernel_tap = (v.first_tap + tap_y * v.tap_step) * p.kernel_w + h.first_tap + tap_x * h.tap_step;
  return Reach(
    i32(batch * p.a_batch) + (q.top + y) * i32(p.source_w * p.pixel),
    x * i32(p.pixel),
    in_image,
    in_line,
    batch * p.b_batch + kernel_tap * p.inner * p.columns,
  );
}

// The left block of `image`: elements k … k+3 of four pixels.
fn image_block(r: Reach, k: u32) -> mat4x4f {
  var block: mat4x4f;
  // @unroll
  for (var e = 0u; e < 4u; e++) {
    if (LEFT == 4u) {
      let i = select(0, r.line[e] + r.position[e], r.in_line[e]);
      block[e] = select(vec4f(), a[u32(i) / 4u + k / 4u], r.in_line[e]);
    } else {
      let at = vec4i(four(k));
      let inside = vec4<bool>(r.in_image[e]) & (at < vec4i(i32(p.inner)));
      block[e] = elements(vec4i(r.line[e]), r.position[e] + at, inside);
    }
  }
  return block;
}

// Four rows of the product `weights`: a tap and one of its elements each.
struct Taps {
  x: vec4i,
  y: vec4i,
  element: vec4i,
}

fn taps(row: vec4u) -> Taps {
  let tap = min(row, vec4u(p.kernel_h * p.kernel_w * p.inner - 1u)) / p.inner;
  return Taps(
    vec4i(tap % p.kernel_w) - i32(p.padding),
    vec4i(tap / p.kernel_w) - i32(p.padding),
    vec4i(row % p.inner),
  );
}

// Four pixels of the result that `weights` sums over, as numbers of mixed radix: moving on needs no division.
struct Cursor {
  x: vec4u,
  y: vec4u,
  image: vec4u,
}

fn cursor(index: vec4u) -> Cursor {
  let row = index / p.result_w;
  return Cursor(index % p.result_w, row % p.result_h, row / p.result_h);
}

fn advance(c: Cursor, by: Cursor) -> Cursor {
  let x = c.x + by.x;
  let over_x = x >= vec4u(p.result_w);
  let y = c.y + by.y + select(vec4u(0u), vec4u(1u), over_x);
  let over_y = y >= vec4u(p.result_h);
  return Cursor(
    select(x, x - p.result_w, over_x),
    select(y, y - p.result_h, over_y),
    c.image + by.image + select(vec4u(0u), vec4u(1u), over_y),
  );
}

// The left block of `weights`: four rows at the four pixels of the cursor, as far as they are live.
fn weights_block(t: Taps, c: Cursor, live: vec4<bool>, batch: u32) -> mat4x4f {
  var block: mat4x4f;
  let length = i32(p.source_w * p.pixel);
  // @unroll
  for (var e = 0u; e < 4u; e++) {
    let top = i32(batch * p.a_batch) + i32(c.image[e] * p.source_h) * length;
    if (LEFT == 4u) {
      let y = i32(c.y[e] * p.stride) + t.y.x;
      let x = i32(c.x[e] * p.stride) + t.x.x;
      let inside = live[e] & (y >= 0) & (y < i32(p.source_h)) & (x >= 0) & (x < i32(p.source_w));
      let i = select(0, top + y * length + x * i32(p.pixel) + t.element.x, inside);
      block[e] = select(vec4f(), a[u32(i) / 4u], inside);
    } else {
      let y = i32(c.y[e] * p.stride) + t.y;
      let x = i32(c.x[e] * p.stride) + t.x;
      let inside = vec4<bool>(live[e]) & (y >= vec4i(0)) & (y < vec4i(i32(p.source_h)));
      block[e] = elements(top + y * length, x * i32(p.pixel) + t.element, inside);
    }
  }
  return transpose(block);
}

fn bias_at(n: u32, split: u32) -> vec4f {
  if (p.has_bias == 0u || split > 0u) {
    return vec4f();
  }
  let i = min(four(n), vec4u(p.columns - 1u));
  return vec4f(bias[i.x], bias[i.y], bias[i.z], bias[i.w]);
}

// Stores four columns, as far as there are, of a row of the product.
fn store(slice: u32, row: u32, n: u32, value: vec4f) {
  // @unroll
  for (var e = 0u; e < 4u; e++) {
    if (n + e < p.columns) {
      y[slice + row * p.columns + n + e] = value[e];
    }
  }
}

@compute @workgroup_size(LANES)
fn image(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) lane: u32,
) {
  let tile = group.x + group.y * groups.x;
  let phase = group.z % p.phases;
  let split = group.z / p.phases % p.splits;
  let batch = group.z / p.phases / p.splits;
  let v = axis(p.result_h, p.kernel_h, phase / p.stride);
  let h = axis(p.result_w, p.kernel_w, phase % p.stride);
  let rows = pixels(four(tile % p.row_tiles * ROWS + lane * 4u % ROWS), v, h);
  let column = (tile / p.row_tiles * COLUMNS * LANES + lane) * 4u;

  var sum: array<vec4f, ROWS * COLUMNS>;
  // @unroll
  for (var j = 0u; j < COLUMNS; j++) {
    let start = bias_at(column + j * LANES * 4u, split);
    // @unroll
    for (var r = 0u; r < ROWS; r++) {
      sum[r * COLUMNS + j] = start;
    }
  }

  let tap_steps = (p.inner + 3u) / 4u;
  let end = min((split + 1u) * p.steps, v.taps * h.taps * tap_steps);
  for (var step = split * p.steps; step < end; ) {
    let tap = step / tap_steps;
    let at = reach(rows, tap, v, h, batch);
    let tap_end = min(end - tap * tap_steps, tap_steps);
    for (var s = step - tap * tap_steps; s < tap_end; s++) {
      let left = image_block(at, s * 4u);
      // @unroll
      for (var j = 0u; j < COLUMNS; j++) {
        let right = right_block(at.right, p.inner, s * 4u, column + j * LANES * 4u);
        // @unroll
        for (var r = 0u; r < ROWS; r++) {
          let l = subgroupBroadcast(left[r % 4u], r / 4u);
          sum[r * COLUMNS + j] = fma(vec4f(l.w), right[3], fma(vec4f(l.z), right[2],
            fma(vec4f(l.y), right[1], fma(vec4f(l.x), right[0], sum[r * COLUMNS + j]))));
        }
      }
    }
    step = tap * tap_steps + tap_end;
  }

  let slice = batch * p.y_batch + split * p.y_split;
  // @unroll
  for (var r = 0u; r < ROWS; r++) {
    let pixel = subgroupBroadcast(rows.index[r % 4u], r / 4u);
    if (pixel != nowhere) {
      // @unroll
      for (var j = 0u; j < COLUMNS; j++) {
        store(slice, pixel, column + j * LANES * 4u, sum[r * COLUMNS + j]);
      }
    }
  }
}

@compute @workgroup_size(LANES)
fn weights(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) lane: u32,
) {
  let tile = group.x + group.y * groups.x;
  let split = group.z % p.splits;
  let batch = group.z / p.splits;
  let first_row = tile % p.row_tiles * ROWS;
  let rows = taps(four(first_row + lane * 4u % ROWS));
  let column = (tile / p.row_tiles * COLUMNS * LANES + lane) * 4u;

  var sum: array<vec4f, ROWS * COLUMNS>;
  let depth = p.images * p.result_h * p.result_w;
  let end = min((split + 1u) * p.steps * 4u, depth);
  let by = cursor(vec4u(4u));
  var at = cursor(four(split * p.steps * 4u));
  for (var k = split * p.steps * 4u; k < end; k += 4u) {
    let left = weights_block(rows, at, four(k) < vec4u(end), batch);
    at = advance(at, by);
    // @unroll
    for (var j = 0u; j < COLUMNS; j++) {
      let right = right_block(batch * p.b_batch, depth, k, column + j * LANES * 4u);
      // @unroll
      for (var r = 0u; r < ROWS; r++) {
        let l = subgroupBroadcast(left[r % 4u], r / 4u);
        sum[r * COLUMNS + j] = fma(vec4f(l.w), right[3], fma(vec4f(l.z), right[2],
          fma(vec4f(l.y), right[1], fma(vec4f(l.x), right[0], sum[r * COLUMNS + j]))));
      }
    }
  }

  let slice = batch * p.y_batch + split * p.y_split;
  // @unroll
  for (var r = 0u; r < ROWS; r++) {
    if (first_row + r < p.kernel_h * p.kernel_w * p.inner) {
      // @unroll
      for (var j = 0u; j < COLUMNS; j++) {
        store(slice, first_row + r, column + j * LANES * 4u, sum[r * COLUMNS + j]);
      }
    }
  }
}

// Sixteen steps of the sum for the 64 rows and 64 columns of a workgroup: [step][row / 4], [step][column / 4].
var<workgroup> left_tile: array<vec4f, 256>;
var<workgroup> right_tile: array<vec4f, 256>;

@compute @workgroup_size(64)
fn image_tile(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) local: u32,
) {
  let tile = group.x + group.y * groups.x;
  let phase = group.z % p.phases;
  let split = group.z / p.phases % p.splits;
  let batch = group.z / p.phases / p.splits;
  let v = axis(p.result_h, p.kernel_h, phase / p.stride);
  let h = axis(p.result_w, p.kernel_w, phase % p.stride);
  let first_row = tile % p.row_tiles * 64u;
  let first_column = tile / p.row_tiles * 64u;

  // What it reads: a block of the left and one of the right, at one of the four steps taken together.
  let group_of_four = local % 16u;
  let offset = local / 16u;
  let rows = pixels(four(first_row + group_of_four * 4u), v, h);
  // What it sums: rows 4u … 4u+3 and 32 further down, columns alike.
  let u = local / 8u;
  let w = local % 8u;

  var sum: array<vec4f, 16>;
  // @unroll
  for (var j = 0u; j < 2u; j++) {
    let start = bias_at(first_column + (w + j * 8u) * 4u, split);
    // @unroll
    for (var r = 0u; r < 8u; r++) {
      sum[r * 2u + j] = start;
    }
  }

  let tap_steps = (p.inner + 3u) / 4u;
  let end = min((split + 1u) * p.steps, v.taps * h.taps * tap_steps);
  for (var first = split * p.steps; first < end; first += 4u) {
    let step = first + offset;
    var left = mat4x4f();
    var right = mat4x4f();
    if (step < end) {
      let at = reach(rows, step / tap_steps, v, h, batch);
      let k = step % tap_steps * 4u;
      left = transpose(image_block(at, k));
      right = right_block(at.right, p.inner, k, first_column + group_of_four * 4u);
    }
    workgroupBarrier();
    // @unroll
    for (var e = 0u; e < 4u; e++) {
      left_tile[(offset * 4u + e) * 16u + group_of_four] = left[e];
      right_tile[(offset * 4u + e) * 16u + group_of_four] = right[e];
    }
    workgroupBarrier();
    for (var k = 0u; k < 256u; k += 16u) {
      // @unroll
      for (var i = 0u; i < 2u; i++) {
        let l = left_tile[k + u + i * 8u];
        // @unroll
        for (var j = 0u; j < 2u; j++) {
          let r = right_tile[k + w + j * 8u];
          // @unroll
          for (var e = 0u; e < 4u; e++) {
            sum[(i * 4u + e) * 2u + j] = fma(vec4f(l[e]), r, sum[(i * 4u + e) * 2u + j]);
          }
        }
      }
    }
  }

  let slice = batch * p.y_batch + split * p.y_split;
  // @unroll
  for (var i = 0u; i < 2u; i++) {
    let index = pixels(four(first_row + (u + i * 8u) * 4u), v, h).index;
    // @unroll
    for (var e = 0u; e < 4u; e++) {
      if (index[e] != nowhere) {
        // @unroll
        for (var j = 0u; j < 2u; j++) {
          store(slice, index[e], first_column + (w + j * 8u) * 4u, sum[(i * 4u + e) * 2u + j]);
        }
      }
    }
  }
}

@compute @workgroup_size(64)
fn weights_tile(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) local: u32,
) {
  let tile = group.x + group.y * groups.x;
  let split = group.z % p.splits;
  let batch = group.z / p.splits;
  let first_row = tile % p.row_tiles * 64u;
  let first_column = tile / p.row_tiles * 64u;

  let group_of_four = local % 16u;
  let offset = local / 16u;
  let rows = taps(four(first_row + group_of_four * 4u));
  let u = local / 8u;
  let w = local % 8u;

  var sum: array<vec4f, 16>;
  let depth = p.images * p.result_h * p.result_w;
  let end = min((split + 1u) * p.steps * 4u, depth);
  let by = cursor(vec4u(16u));
  var at = cursor(four(split * p.steps * 4u + offset * 4u));
  for (var first = split * p.steps * 4u; first < end; first += 16u) {
    let k = first + offset * 4u;
    let left = transpose(weights_block(rows, at, four(k) < vec4u(end), batch));
    let right = right_block(batch * p.b_batch, depth, k, first_column + group_of_four * 4u);
    at = advance(at, by);
    workgroupBarrier();
    // @unroll
    for (var e = 0u; e < 4u; e++) {
      left_tile[(offset * 4u + e) * 16u + group_of_four] = left[e];
      right_tile[(offset * 4u + e) * 16u + group_of_four] = right[e];
    }
    workgroupBarrier();
    for (var s = 0u; s < 256u; s += 16u) {
      // @unroll
      for (var i = 0u; i < 2u; i++) {
        let l = left_tile[s + u + i * 8u];
        // @unroll
        for (var j = 0u; j < 2u; j++) {
          let r = right_tile[s + w + j * 8u];
          // @unroll
          for (var e = 0u; e < 4u; e++) {
            sum[(i * 4u + e) * 2u + j] = fma(vec4f(l[e]), r, sum[(i * 4u + e) * 2u + j]);
          }
        }
      }
    }
  }

  let slice = batch * p.y_batch + split * p.y_split;
  // @unroll
  for (var i = 0u; i < 2u; i++) {
    // @unroll
    for (var e = 0u; e < 4u; e++) {
      let row = first_row + (u + i * 8u) * 4u + e;
      if (row < p.kernel_h * p.kernel_w * p.inner) {
        // @unroll
        for (var j = 0u; j < 2u; j++) {
          store(slice, row, first_column + (w + j * 8u) * 4u, sum[(i * 4u + e) * 2u + j]);
        }
      }
    }
  }
}
