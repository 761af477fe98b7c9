// Products of matrices, one of whose sides is an image seen through the taps of a convolution.
//
//   image:    y[pixel, column] = bias[column] + Σ tap, k  a[pixel moved by tap, k] · b[tap, k, column]
//   weights:  y[tap, row, column] = Σ pixel  a[pixel moved by tap, row] · b[pixel, column]
//
// `image` is the forward of a convolution or, BACK, its gradient by the input; `weights` is its gradient by
// the weights. A plain matrix product is the 1×1 convolution of one line of pixels.
//
// Layout: images [images, h, w, pixel], weights [kernel_h, kernel_w, inner, columns], all row-major. With
// TRANSPOSED, b lies the other way round: [tap, columns, inner] in `image`, [columns, pixels] in `weights`.
// Columns of y are padded to a multiple of 4. A caller that takes the `kernel_w · pixel` elements under a line
// of the kernel as one long tap says so by inner, and kernel_w = 1.
//
// Invocations deal in blocks of 4×4: four rows by four steps of the sum on the left, four such steps by four
// columns on the right. Families of kernels put them together:
//
//   *          a subgroup owns ROWS × (LANES · COLUMNS · 4) elements of y. An invocation holds its own
//              columns of the right and hands round what it read of the left;
//   *_short    as *, of many rows one after another: all of the right that the sum takes is read once, and held;
//   *_narrow   a subgroup owns (LANES · 8) × (BLOCKS · 4) elements. An invocation holds its own eight rows
//              of the left and hands four columns of the right round;
//   *_line     as *_narrow for pixels that are neighbours in a line of the image: what they see of it at
//              one tap is what they saw at the last, but for one pixel;
//   *_tile     a workgroup owns 64 × 64 elements and shares its blocks in workgroup memory.
//
// Grid: (row tiles × column tiles, folded to 2-D; batches × splits × phases in z). The sum is cut into
// `splits` parts of `steps` blocks; y then holds one partial sum after another, for another kernel to add
// up. Tiles that are neighbours in the grid share columns, so that what they read of b stays in the cache, or
// rows where all of b does.
//
// With MOMENTS, `image_narrow`, `image_line` and `image_tile` leave behind of each row tile what batch_norm.wgsl needs
// of every column: how many rows there are, their mean, and the sum of squared deviations from it, as moments
// [row tiles, 3, columns]. There is one part and no batch then, and columns are a multiple of 4.
//
// NORMALISED, `image_tile` and `weights_tile` take relu((a − μ)·γ/σ + β) for a, by batch_norm.wgsl's coefficients
// [μ, 1/σ, γ/σ, β] of its channels, where LEFT is 4. Around an image there are zeros all the same.
//
// @compile image TRANSPOSED=1
// @compile image BACK=1 TRANSPOSED=1
// @compile image LEFT=1 RIGHT=1
// @compile image BACK=1 LEFT=1 RIGHT=1 TRANSPOSED=1
// @compile image_short BACK=1 TRANSPOSED=1
// @compile image_short RIGHT=1 STEPS=32 COLUMNS=1
// @compile image_narrow BACK=1 TRANSPOSED=1
// @compile image_narrow LEFT=1 RIGHT=1 BLOCKS=8
// @compile image_narrow MOMENTS=1
// @compile image_narrow BACK=1 LEFT=1 RIGHT=1 TRANSPOSED=1
// @compile image_line BLOCKS=8
// @compile image_line MOMENTS=1
// @compile image_line RIGHT=1
// @compile image_line BACK=1 TRANSPOSED=1
// @compile image_tile BACK=1 TRANSPOSED=1
// @compile image_tile LEFT=1 RIGHT=1
// @compile image_tile MOMENTS=1
// @compile image_tile MOMENTS=1 NORMALISED=1
// @compile image_tile BACK=1 LEFT=1 RIGHT=1 TRANSPOSED=1
// @compile weights AHEAD=1
// @compile weights LEFT=1 RIGHT=1
// @compile weights LEFT=1 RIGHT=1 TRANSPOSED=1
// @compile weights_narrow LEFT=1 RIGHT=1 BLOCKS=8
// @compile weights_line RIGHT=1
// @compile weights_tile LEFT=1 RIGHT=1
// @compile weights_tile LEFT=1 RIGHT=1 TRANSPOSED=1
// @compile weights_tile NORMALISED=1
//
// As a convolution of 16-bit images by 32-bit weights has them:
//
// @compile image A=16 B=32 Y=16
// @compile image LEFT=1 RIGHT=1 A=16 B=32 Y=16
// @compile image BACK=1 LEFT=1 RIGHT=1 TRANSPOSED=1 A=16 B=32 Y=32
// @compile image_short A=16 B=32 Y=16
// @compile image_narrow LEFT=1 RIGHT=1 A=16 B=32 Y=16
// @compile image_narrow BACK=1 TRANSPOSED=1 A=16 B=32 Y=16
// @compile image_line MOMENTS=1 A=16 B=32 Y=16
// @compile image_line BACK=1 TRANSPOSED=1 A=16 B=32 Y=32
// @compile image_tile LEFT=1 RIGHT=1 MOMENTS=1 A=16 B=32 Y=16
// @compile image_tile BACK=1 TRANSPOSED=1 A=16 B=32 Y=16
// @compile weights A=16 B=16 Y=32
// @compile weights LEFT=1 RIGHT=1 A=16 B=16 Y=32
// @compile weights_narrow LEFT=1 A=16 B=16 Y=32
// @compile weights_line A=16 B=16 Y=32
// @compile weights_tile LEFT=1 RIGHT=1 A=16 B=16 Y=32
// @compile weights_tile NORMALISED=1 A=16 B=16 Y=32

// Elements of the operands and of the product; all sums are of 32-bit floats.
alias A = vec4f;
alias B = vec4f;
alias Y = vec4f;

const BACK = 0u;
const TRANSPOSED = 0u;
// Whether kernels leave the moments of their rows behind.
const MOMENTS = 0u;
// Whether a is normalised as it is read.
const NORMALISED = 0u;
// 4 where the lines of a (of b) are a multiple of 4 elements long in memory, else 1.
const LEFT = 4u;
const RIGHT = 4u;
// Invocations of a subgroup.
const LANES = 8u;
// Rows of its tile, and vec4 of columns of an invocation: they lie in a line of the cache, so that the subgroup
// asks for as many lines at once as it can.
const ROWS = 4u * LANES;
const COLUMNS = 16u / LANES;
// Blocks of a short sum, a multiple of LANES.
const STEPS = 16u;
// Whether `weights` asks for lines of the cache ahead of the steps that read them, for two steps at once: of a
// matrix whose rows come from memory, where they would else be waited for at every step.
const AHEAD = 0u;
// Blocks of columns of a narrow tile, at most one an invocation.
const BLOCKS = 4u;
// Taps of a line of the kernel, in weights_line.
const TAPS = 3u;

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
  // Elements of a pixel of a, elements of a tap, and columns.
  pixel: u32,
  inner: u32,
  columns: u32,
  // Tiles that follow each other in the grid: those of a column or, shares_rows, of a row of tiles.
  tiles: u32,
  shares_rows: u32,
  phases: u32,
  // Rows of a tile, in image_short.
  rows: u32,
  splits: u32,
  // Blocks of the sum in a part; in image_line, those of all taps of a line count as one.
  steps: u32,
  // From one matrix of a batch to the next, in elements (y: in vec4), and from one part of y to the next.
  a_batch: u32,
  b_batch: u32,
  y_batch: u32,
  y_split: u32,
  has_bias: u32,
  // vec4 of a line of coefficients.
  coefficients: u32,
}

@group(0) @binding(0) var<storage, read> a: array<A>;
@group(0) @binding(1) var<storage, read> b: array<B>;
@group(0) @binding(2) var<storage, read> bias: array<f32>;
@group(0) @binding(3) var<storage, read_write> y: array<Y>;
@group(0) @binding(4) var<storage, read_write> moments: array<vec4f>;
@group(0) @binding(5) var<storage, read> coefficients: array<vec4f>;
@group(1) @binding(0) var<uniform> p: Params;

const nowhere = 0xffffffffu;

fn a_at(i: i32) -> f32 {
  return f32(a[i >> 2u][i & 3]);
}

fn b_at(i: u32) -> f32 {
  return f32(b[i >> 2u][i & 3u]);
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
      block[e] = vec4f(b[(line + inner.x) / 4u]);
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

// The right block that an invocation of a narrow kernel holds; none past the first BLOCKS.
fn held_block(lane: u32, start: u32, depth: u32, k: u32, n: u32) -> mat4x4f {
  if (BLOCKS < LANES && lane >= BLOCKS) {
    return mat4x4f();
  }
  return right_block(start, depth, k, n);
}

// Four elements of a, which are channels from 4·quad on.
fn normalised(four: vec4f, quad: u32) -> vec4f {
  let mean = coefficients[quad];
  let scale = coefficients[quad + 2u * p.coefficients];
  let shift = coefficients[quad + 3u * p.coefficients];
  return max((four - mean) * scale + shift, vec4f());
}

// Elements of a at four positions of four lines; zero where `inside` is false or the position is outside.
fn elements(line: vec4i, position: vec4i, inside: vec4<bool>) -> vec4f {
  let here = inside & (vec4u(position) < vec4u(p.source_w * p.pixel));
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
  // The taps first_tap, first_tap + tap_step, …, `taps` of them; with each the source moves by `direction`.
  first_tap: u32,
  tap_step: u32,
  taps: u32,
  direction: i32,
}

// Forward, every pixel meets every tap. Backward with stride s, an input pixel i meets only the taps t with
// i + padding ≡ t (mod s), so the pixels fall into s phases.
fn axis(result: u32, kernel: u32, phase: u32) -> Axis {
  if (BACK == 0u) {
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
  let live = row < vec4u(p.images * v.count * h.count);
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
  // Whether the line is in the image, and the pixel in the line; where it begins then, in vec4.
  in_image: vec4<bool>,
  in_line: vec4<bool>,
  start: vec4u,
  // Where the tap's matrix begins in b.
  right: u32,
}

fn reach(q: Pixels, tap: u32, v: Axis, h: Axis, batch: u32) -> Reach {
  let tap_y = tap / h.taps;
  let tap_x = tap % h.taps;
  let y = q.y + i32(tap_y) * v.direction;
  let x = q.x + i32(tap_x) * h.direction;
  let in_image = q.live & (vec4u(y) < vec4u(p.source_h));
  let in_line = in_image & (vec4u(x) < vec4u(p.source_w));
  let line = i32(batch * p.a_batch) + (q.top + y) * i32(p.source_w * p.pixel);
  let position = x * i32(p.pixel);
  let kernel_tap = (v.first_tap + tap_y * v.tap_step) * p.kernel_w + h.first_tap + tap_x * h.tap_step;
  return Reach(
    line,
    position,
    in_image,
    in_line,
    select(vec4u(0u), vec4u(line + position) / 4u, in_line),
    batch * p.b_batch + kernel_tap * p.inner * p.columns,
  );
}

// The left block of `image`: elements k … k+3 of four pixels.
fn image_block(r: Reach, k: u32) -> mat4x4f {
  var block: mat4x4f;
  // @unroll
  for (var e = 0u; e < 4u; e++) {
    if (LEFT == 4u) {
      var four = vec4f(a[r.start[e] + k / 4u]);
      if (NORMALISED == 1u) {
        four = normalised(four, k / 4u);
      }
      block[e] = select(vec4f(), four, r.in_line[e]);
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
  // How far they are from a pixel in a.
  offset: vec4i,
}

fn taps(row: vec4u) -> Taps {
  let tap = min(row, vec4u(p.kernel_h * p.kernel_w * p.inner - 1u)) / p.inner;
  let x = vec4i(tap % p.kernel_w) - i32(p.padding);
  let y = vec4i(tap / p.kernel_w) - i32(p.padding);
  let element = vec4i(row % p.inner);
  return Taps(x, y, element, (y * i32(p.source_w) + x) * i32(p.pixel) + element);
}

// A pixel of the result as a number of mixed radix: moving on needs no division.
struct Cursor {
  x: u32,
  y: u32,
  image: u32,
}

fn cursor(index: u32) -> Cursor {
  let row = index / p.result_w;
  return Cursor(index % p.result_w, row % p.result_h, row / p.result_h);
}

fn advance(c: Cursor, by: Cursor) -> Cursor {
  let x = c.x + by.x;
  let over_x = x >= p.result_w;
  let y = c.y + by.y + select(0u, 1u, over_x);
  let over_y = y >= p.result_h;
  return Cursor(
    select(x, x - p.result_w, over_x),
    select(y, y - p.result_h, over_y),
    c.image + by.image + select(0u, 1u, over_y),
  );
}

// The source pixel under a pixel of the result, and where it begins in a.
struct Spot {
  x: i32,
  y: i32,
  start: i32,
}

fn spot(c: Cursor, batch: u32) -> Spot {
  let x = c.x * p.stride;
  let y = c.y * p.stride;
  let start = batch * p.a_batch + ((c.image * p.source_h + y) * p.source_w + x) * p.pixel;
  return Spot(i32(x), i32(y), i32(start));
}

// One column of the left block of `weights`: four rows at one pixel.
fn weights_left(t: Taps, s: Spot, live: bool) -> vec4f {
  if (LEFT == 4u) {
    let inside = live & (u32(s.y + t.y.x) < p.source_h) & (u32(s.x + t.x.x) < p.source_w);
    var four = vec4f(a[select(0u, u32(s.start + t.offset.x) / 4u, inside)]);
    if (NORMALISED == 1u) {
      four = normalised(four, u32(t.element.x) / 4u);
    }
    return select(vec4f(), four, inside);
  }
  let inside = vec4<bool>(live) & (vec4u(s.y + t.y) < vec4u(p.source_h));
  let position = (s.x + t.x) * i32(p.pixel) + t.element;
  return elements(s.start + t.offset - position, position, inside);
}

// The start of four sums: their bias, in the first part of the sum.
fn bias_at(n: u32, split: u32) -> vec4f {
  if (p.has_bias == 0u || split > 0u) {
    return vec4f();
  }
  let i = min(four(n), vec4u(p.columns - 1u));
  return vec4f(bias[i.x], bias[i.y], bias[i.z], bias[i.w]);
}

// The block that an invocation of the subgroup holds.
fn block_of(block: mat4x4f, lane: u32) -> mat4x4f {
  return mat4x4f(
    subgroupShuffle(block[0], lane),
    subgroupShuffle(block[1], lane),
    subgroupShuffle(block[2], lane),
    subgroupShuffle(block[3], lane),
  );
}

// What the invocations of four pixels hold, from that of the first on.
fn of_pixels(value: f32, first: u32) -> vec4f {
  return vec4f(
    subgroupShuffle(value, first),
    subgroupShuffle(value, first + LANES / 4u),
    subgroupShuffle(value, first + LANES / 2u),
    subgroupShuffle(value, first + LANES / 4u * 3u),
  );
}

alias Eight = array<vec4f, 8>;

// The sum of what all invocations of the subgroup hold, in a fixed order.
fn all_of(value: vec4f) -> vec4f {
  var sum = subgroupShuffle(value, 0u);
  // @unroll
  for (var lane = 1u; lane < LANES; lane++) {
    sum += subgroupShuffle(value, lane);
  }
  return sum;
}

// sum + left · right: a row of four by a block.
fn multiply_add(left: vec4f, right: mat4x4f, sum: vec4f) -> vec4f {
  return fma(vec4f(left.w), right[3], fma(vec4f(left.z), right[2],
    fma(vec4f(left.y), right[1], fma(vec4f(left.x), right[0], sum))));
}

// Stores four columns of a row of y.
fn store(slice: u32, row: u32, n: u32, value: vec4f) {
  if (n < p.columns) {
    let width = (p.columns + 3u) / 4u;
    y[slice + row * width + n / 4u] = Y(value);
  }
}

// Stores the moments of `count` rows of a tile at four columns.
fn store_moments(row_tile: u32, n: u32, count: u32, mean: vec4f, m2: vec4f) {
  if (n < p.columns) {
    let width = p.columns / 4u;
    let to = row_tile * 3u * width + n / 4u;
    moments[to] = vec4f(f32(count));
    moments[to + width] = mean;
    moments[to + 2u * width] = m2;
  }
}

// How many of `most` rows from the first one on there are.
fn rows_from(first: u32, most: u32) -> u32 {
  let rows = p.images * p.result_h * p.result_w;
  return min(max(rows, first) - first, most);
}

// Stores the moments of a narrow tile, by the invocation `storer`; each holds eight of its rows.
fn narrow_moments(row_tile: u32, lane: u32, n: u32, storer: u32, rows: Eight) {
  let count = rows_from(row_tile * LANES * 8u, LANES * 8u);
  let own = rows_from((row_tile * LANES + lane) * 8u, 8u);
  var part = vec4f();
  // @unroll
  for (var r = 0u; r < 8u; r++) {
    part += select(vec4f(), rows[r], r < own);
  }
  let mean = all_of(part) / f32(count);
  var squares = vec4f();
  // @unroll
  for (var r = 0u; r < 8u; r++) {
    let deviation = select(vec4f(), rows[r] - mean, r < own);
    squares += deviation * deviation;
  }
  let m2 = all_of(squares);
  if (lane == storer) {
    store_moments(row_tile, n, count, mean, m2);
  }
}

// What a workgroup computes: which part of which product.
struct Work {
  row_tile: u32,
  column_tile: u32,
  phase: u32,
  split: u32,
  batch: u32,
  // Where its partial result begins in y, in vec4.
  slice: u32,
}

fn work(group: vec3u, groups: vec3u) -> Work {
  let place = group.x + group.y * groups.x;
  let tile = place / p.phases;
  let split = group.z % p.splits;
  let batch = group.z / p.splits;
  return Work(
    select(tile % p.tiles, tile / p.tiles, p.shares_rows == 1u),
    select(tile / p.tiles, tile % p.tiles, p.shares_rows == 1u),
    place % p.phases,
    split,
    batch,
    batch * p.y_batch + split * p.y_split,
  );
}

@compute @workgroup_size(LANES)
fn image(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) lane: u32,
) {
  let my = work(group, groups);
  let v = axis(p.result_h, p.kernel_h, my.phase / p.stride);
  let h = axis(p.result_w, p.kernel_w, my.phase % p.stride);
  let rows = pixels(four(my.row_tile * ROWS + lane * 4u), v, h);
  let column = (my.column_tile * LANES + lane) * COLUMNS * 4u;

  var sum: array<vec4f, ROWS * COLUMNS>;
  // @unroll
  for (var j = 0u; j < COLUMNS; j++) {
    let start = bias_at(column + j * 4u, my.split);
    // @unroll
    for (var r = 0u; r < ROWS; r++) {
      sum[r * COLUMNS + j] = start;
    }
  }

  let tap_steps = (p.inner + 3u) / 4u;
  let end = min((my.split + 1u) * p.steps, v.taps * h.taps * tap_steps);
  for (var step = my.split * p.steps; step < end; ) {
    let tap = step / tap_steps;
    let at = reach(rows, tap, v, h, my.batch);
    let tap_end = min(end - tap * tap_steps, tap_steps);
    for (var s = step - tap * tap_steps; s < tap_end; s++) {
      let left = image_block(at, s * 4u);
      // @unroll
      for (var j = 0u; j < COLUMNS; j++) {
        let right = right_block(at.right, p.inner, s * 4u, column + j * 4u);
        // @unroll
        for (var r = 0u; r < ROWS; r++) {
          let row = subgroupShuffle(left[r % 4u], r / 4u);
          sum[r * COLUMNS + j] = multiply_add(row, right, sum[r * COLUMNS + j]);
        }
      }
    }
    step = tap * tap_steps + tap_end;
  }

  // @unroll
  for (var r = 0u; r < ROWS; r++) {
    let pixel = subgroupShuffle(rows.index[r % 4u], r / 4u);
    if (pixel != nowhere) {
      // @unroll
      for (var j = 0u; j < COLUMNS; j++) {
        store(my.slice, pixel, column + j * 4u, sum[r * COLUMNS + j]);
      }
    }
  }
}

// Of a 1×1 kernel at stride 1: rows of a are rows of y.
@compute @workgroup_size(LANES)
fn image_short(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) lane: u32,
) {
  let my = work(group, groups);
  let column = (my.column_tile * LANES + lane) * COLUMNS * 4u;

  var start: array<vec4f, COLUMNS>;
  var right: array<mat4x4f, STEPS * COLUMNS>;
  // @unroll
  for (var j = 0u; j < COLUMNS; j++) {
    start[j] = bias_at(column + j * 4u, my.split);
    // @unroll
    for (var s = 0u; s < STEPS; s++) {
      right[s * COLUMNS + j] = right_block(my.batch * p.b_batch, p.inner, s * 4u, column + j * 4u);
    }
  }

  let end = min((my.row_tile + 1u) * p.rows, p.images * p.result_h * p.result_w);
  for (var row = my.row_tile * p.rows; row < end; row++) {
    var left: array<vec4f, STEPS / LANES>;
    // @unroll
    for (var e = 0u; e < STEPS / LANES; e++) {
      left[e] = vec4f(a[my.batch * p.a_batch / 4u + row * STEPS + e * LANES + lane]);
    }
    var sum: array<vec4f, COLUMNS>;
    // @unroll
    for (var j = 0u; j < COLUMNS; j++) {
      sum[j] = start[j];
    }
    // @unroll
    for (var s = 0u; s < STEPS; s++) {
      let four_steps = subgroupShuffle(left[s / LANES], s % LANES);
      // @unroll
      for (var j = 0u; j < COLUMNS; j++) {
        sum[j] = multiply_add(four_steps, right[s * COLUMNS + j], sum[j]);
      }
    }
    // @unroll
    for (var j = 0u; j < COLUMNS; j++) {
      store(my.slice, row, column + j * 4u, sum[j]);
    }
  }
}

@compute @workgroup_size(LANES)
fn weights(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) lane: u32,
) {
  let my = work(group, groups);
  let first_row = my.row_tile * ROWS;
  // An invocation reads 16 rows of one of four pixels, a line of the cache.
  let own_pixel = lane / (LANES / 4u);
  var rows: array<Taps, 4>;
  // @unroll
  for (var e = 0u; e < 4u; e++) {
    rows[e] = taps(four(first_row + lane % (LANES / 4u) * 16u + e * 4u));
  }
  let column = (my.column_tile * LANES + lane) * COLUMNS * 4u;

  var sum: array<vec4f, ROWS * COLUMNS>;
  let depth = p.images * p.result_h * p.result_w;
  let end = min((my.split + 1u) * p.steps * 4u, depth);
  var ahead = 0f;
  let by = cursor(4u);
  var at = cursor(my.split * p.steps * 4u + own_pixel);
  for (var k = my.split * p.steps * 4u; k < end; k += 4u) {
    let own = spot(at, my.batch);
    at = advance(at, by);
    if (AHEAD == 1u) {
      if (k % 8u == 0u) {
        let next = u32(own.start + rows[0].offset.x) / 4u + 2u * p.pixel;
        ahead += f32(a[next].x) + f32(a[next + p.pixel].x);
      }
    }
    var left: mat4x4f;
    // @unroll
    for (var e = 0u; e < 4u; e++) {
      left[e] = weights_left(rows[e], own, k + own_pixel < end);
    }
    // @unroll
    for (var j = 0u; j < COLUMNS; j++) {
      let right = right_block(my.batch * p.b_batch, depth, k, column + j * 4u);
      // @unroll
      for (var r = 0u; r < ROWS; r++) {
        let row = of_pixels(left[r % 16u / 4u][r % 4u], r / 16u);
        sum[r * COLUMNS + j] = multiply_add(row, right, sum[r * COLUMNS + j]);
      }
    }
  }

  var end_row = p.kernel_h * p.kernel_w * p.inner;
  if (AHEAD == 1u) {
    // Changes nothing, for there are images; but that is not known to the compiler.
    end_row = select(end_row, u32(ahead), p.images == 0u);
  }
  // @unroll
  for (var r = 0u; r < ROWS; r++) {
    if (first_row + r < end_row) {
      // @unroll
      for (var j = 0u; j < COLUMNS; j++) {
        store(my.slice, first_row + r, column + j * 4u, sum[r * COLUMNS + j]);
      }
    }
  }
}

@compute @workgroup_size(LANES)
fn image_narrow(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) lane: u32,
) {
  let my = work(group, groups);
  let v = axis(p.result_h, p.kernel_h, my.phase / p.stride);
  let h = axis(p.result_w, p.kernel_w, my.phase % p.stride);
  let row = (my.row_tile * LANES + lane) * 8u;
  let upper = pixels(four(row), v, h);
  let lower = pixels(four(row + 4u), v, h);
  let first_column = my.column_tile * BLOCKS * 4u;

  var sum: array<vec4f, 8 * BLOCKS>;
  // @unroll
  for (var j = 0u; j < BLOCKS; j++) {
    let start = bias_at(first_column + j * 4u, my.split);
    // @unroll
    for (var r = 0u; r < 8u; r++) {
      sum[r * BLOCKS + j] = start;
    }
  }

  let tap_steps = (p.inner + 3u) / 4u;
  let end = min((my.split + 1u) * p.steps, v.taps * h.taps * tap_steps);
  for (var step = my.split * p.steps; step < end; ) {
    let tap = step / tap_steps;
    let upper_at = reach(upper, tap, v, h, my.batch);
    let lower_at = reach(lower, tap, v, h, my.batch);
    let tap_end = min(end - tap * tap_steps, tap_steps);
    for (var s = step - tap * tap_steps; s < tap_end; s++) {
      let upper_left = image_block(upper_at, s * 4u);
      let lower_left = image_block(lower_at, s * 4u);
      let held = held_block(lane, upper_at.right, p.inner, s * 4u, first_column + lane * 4u);
      // @unroll
      for (var j = 0u; j < BLOCKS; j++) {
        let right = block_of(held, j);
        // @unroll
        for (var r = 0u; r < 4u; r++) {
          sum[r * BLOCKS + j] = multiply_add(upper_left[r], right, sum[r * BLOCKS + j]);
          sum[(r + 4u) * BLOCKS + j] = multiply_add(lower_left[r], right, sum[(r + 4u) * BLOCKS + j]);
        }
      }
    }
    step = tap * tap_steps + tap_end;
  }

  // @unroll
  for (var j = 0u; j < BLOCKS; j++) {
    // @unroll
    for (var r = 0u; r < 4u; r++) {
      if (upper.index[r] != nowhere) {
        store(my.slice, upper.index[r], first_column + j * 4u, sum[r * BLOCKS + j]);
      }
      if (lower.index[r] != nowhere) {
        store(my.slice, lower.index[r], first_column + j * 4u, sum[(r + 4u) * BLOCKS + j]);
      }
    }
  }
  if (MOMENTS == 1u) {
    // @unroll
    for (var j = 0u; j < BLOCKS; j++) {
      let own = Eight(
        sum[j],
        sum[BLOCKS + j],
        sum[2u * BLOCKS + j],
        sum[3u * BLOCKS + j],
        sum[4u * BLOCKS + j],
        sum[5u * BLOCKS + j],
        sum[6u * BLOCKS + j],
        sum[7u * BLOCKS + j],
      );
      narrow_moments(my.row_tile, lane, first_column + j * 4u, j, own);
    }
  }
}

// A line of the source: where it begins in a, in vec4, and whether there is one.
struct Line {
  start: u32,
  inside: bool,
}

fn source_line(image: u32, y: i32, live: bool, batch: u32) -> Line {
  let line = image * p.source_h + u32(y);
  return Line((batch * p.a_batch + line * p.source_w * p.inner) / 4u, live && u32(y) < p.source_h);
}

// The s-th four elements of a pixel in a line.
fn line_pixel(line: Line, x: i32, s: u32) -> vec4f {
  let inside = line.inside && u32(x) < p.source_w;
  let i = select(0u, line.start + u32(x) * (p.inner / 4u) + s, inside);
  return select(vec4f(), vec4f(a[i]), inside);
}

@compute @workgroup_size(LANES)
fn image_line(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) lane: u32,
) {
  let my = work(group, groups);
  let row = (my.row_tile * LANES + lane) * 8u;
  let first = cursor(row);
  let live = first.image < p.images;
  let first_column = my.column_tile * BLOCKS * 4u;

  var sum: array<vec4f, 8 * BLOCKS>;
  // @unroll
  for (var j = 0u; j < BLOCKS; j++) {
    let start = bias_at(first_column + j * 4u, my.split);
    // @unroll
    for (var r = 0u; r < 8u; r++) {
      sum[r * BLOCKS + j] = start;
    }
  }

  // The taps are met in the order of the pixels under them: backward, the last one first.
  let kernel_w = p.kernel_w;
  let last_tap = p.kernel_h * kernel_w - 1u;
  var x = i32(first.x) - i32(p.padding);
  var y = i32(first.y) - i32(p.padding);
  if (BACK == 1u) {
    x = i32(first.x + p.padding + 1u) - i32(kernel_w);
    y = i32(first.y + p.padding + 1u) - i32(p.kernel_h);
  }
  let tap_steps = p.inner / 4u;
  let end = min((my.split + 1u) * p.steps, p.kernel_h * tap_steps);
  for (var step = my.split * p.steps; step < end; ) {
    let tap_y = step / tap_steps;
    let line = source_line(first.image, y + i32(tap_y), live, my.batch);
    let tap_end = min(end - tap_y * tap_steps, tap_steps);
    for (var s = step - tap_y * tap_steps; s < tap_end; s++) {
      var left: array<vec4f, 8>;
      // @unroll
      for (var r = 1u; r < 8u; r++) {
        left[r] = line_pixel(line, x + i32(r) - 1, s);
      }
      for (var tap_x = 0u; tap_x < kernel_w; tap_x++) {
        // @unroll
        for (var r = 0u; r < 7u; r++) {
          left[r] = left[r + 1u];
        }
        left[7] = line_pixel(line, x + i32(tap_x) + 7, s);
        let met = tap_y * kernel_w + tap_x;
        let tap = select(met, last_tap - met, BACK == 1u);
        let start = my.batch * p.b_batch + tap * p.inner * p.columns;
        let held = held_block(lane, start, p.inner, s * 4u, first_column + lane * 4u);
        // @unroll
        for (var j = 0u; j < BLOCKS; j++) {
          let right = block_of(held, j);
          // @unroll
          for (var r = 0u; r < 8u; r++) {
            sum[r * BLOCKS + j] = multiply_add(left[r], right, sum[r * BLOCKS + j]);
          }
        }
      }
    }
    step = tap_y * tap_steps + tap_end;
  }

  if (live) {
    // @unroll
    for (var r = 0u; r < 8u; r++) {
      // @unroll
      for (var j = 0u; j < BLOCKS; j++) {
        store(my.slice, row + r, first_column + j * 4u, sum[r * BLOCKS + j]);
      }
    }
  }
  if (MOMENTS == 1u) {
    // @unroll
    for (var j = 0u; j < BLOCKS; j++) {
      let own = Eight(
        sum[j],
        sum[BLOCKS + j],
        sum[2u * BLOCKS + j],
        sum[3u * BLOCKS + j],
        sum[4u * BLOCKS + j],
        sum[5u * BLOCKS + j],
        sum[6u * BLOCKS + j],
        sum[7u * BLOCKS + j],
      );
      narrow_moments(my.row_tile, lane, first_column + j * 4u, j, own);
    }
  }
}

@compute @workgroup_size(LANES)
fn weights_narrow(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) lane: u32,
) {
  let my = work(group, groups);
  let first_row = (my.row_tile * LANES + lane) * 8u;
  let upper = taps(four(first_row));
  let lower = taps(four(first_row + 4u));
  let first_column = my.column_tile * BLOCKS * 4u;

  var sum: array<vec4f, 8 * BLOCKS>;
  let depth = p.images * p.result_h * p.result_w;
  let end = min((my.split + 1u) * p.steps * 4u, depth);
  let by = cursor(4u);
  var at = cursor(my.split * p.steps * 4u + lane % 4u);
  for (var k = my.split * p.steps * 4u; k < end; k += 4u) {
    let own = spot(at, my.batch);
    at = advance(at, by);
    var upper_left: mat4x4f;
    var lower_left: mat4x4f;
    // @unroll
    for (var e = 0u; e < 4u; e++) {
      let s = Spot(subgroupShuffle(own.x, e), subgroupShuffle(own.y, e), subgroupShuffle(own.start, e));
      upper_left[e] = weights_left(upper, s, k + e < end);
      lower_left[e] = weights_left(lower, s, k + e < end);
    }
    upper_left = transpose(upper_left);
    lower_left = transpose(lower_left);
    let held = held_block(lane, my.batch * p.b_batch, depth, k, first_column + lane * 4u);
    // @unroll
    for (var j = 0u; j < BLOCKS; j++) {
      let right = block_of(held, j);
      // @unroll
      for (var r = 0u; r < 4u; r++) {
        sum[r * BLOCKS + j] = multiply_add(upper_left[r], right, sum[r * BLOCKS + j]);
        sum[(r + 4u) * BLOCKS + j] = multiply_add(lower_left[r], right, sum[(r + 4u) * BLOCKS + j]);
      }
    }
  }

  let rows = p.kernel_h * p.kernel_w * p.inner;
  // @unroll
  for (var r = 0u; r < 8u; r++) {
    if (first_row + r < rows) {
      // @unroll
      for (var j = 0u; j < BLOCKS; j++) {
        store(my.slice, first_row + r, first_column + j * 4u, sum[r * BLOCKS + j]);
      }
    }
  }
}

@compute @workgroup_size(LANES)
fn weights_line(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) lane: u32,
) {
  let my = work(group, groups);
  // An invocation sums four elements at all taps of a line of the kernel.
  let fours = p.inner / 4u;
  let tap_y = (my.row_tile * LANES + lane) / fours;
  let s = (my.row_tile * LANES + lane) % fours;
  let live = tap_y < p.kernel_h;
  let first_column = my.column_tile * BLOCKS * 4u;

  var sum: array<vec4f, 4 * TAPS * BLOCKS>;
  let depth = p.images * p.result_h * p.result_w;
  let end = min((my.split + 1u) * p.steps * 4u, depth);
  let by = cursor(4u);
  var at = cursor(my.split * p.steps * 4u);
  for (var k = my.split * p.steps * 4u; k < end; k += 4u) {
    let line = source_line(at.image, i32(at.y + tap_y) - i32(p.padding), live, my.batch);
    let x = i32(at.x) - i32(p.padding);
    at = advance(at, by);
    var pixel: array<vec4f, TAPS + 3>;
    // @unroll
    for (var e = 0u; e < TAPS + 3u; e++) {
      pixel[e] = line_pixel(line, x + i32(e), s);
    }
    let held = held_block(lane, my.batch * p.b_batch, depth, k, first_column + lane * 4u);
    // @unroll
    for (var j = 0u; j < BLOCKS; j++) {
      let right = block_of(held, j);
      // @unroll
      for (var t = 0u; t < TAPS; t++) {
        let left = transpose(mat4x4f(pixel[t], pixel[t + 1u], pixel[t + 2u], pixel[t + 3u]));
        // @unroll
        for (var r = 0u; r < 4u; r++) {
          sum[(t * 4u + r) * BLOCKS + j] = multiply_add(left[r], right, sum[(t * 4u + r) * BLOCKS + j]);
        }
      }
    }
  }

  if (live) {
    // @unroll
    for (var t = 0u; t < TAPS; t++) {
      let row = (tap_y * TAPS + t) * p.inner + s * 4u;
      // @unroll
      for (var r = 0u; r < 4u; r++) {
        // @unroll
        for (var j = 0u; j < BLOCKS; j++) {
          store(my.slice, row + r, first_column + j * 4u, sum[(t * 4u + r) * BLOCKS + j]);
        }
      }
    }
  }
}

// Sixteen steps of the sum for the 64 rows and 64 columns of a workgroup: [step][row / 4], [step][column / 4].
var<workgroup> left_tile: array<vec4f, 256>;
var<workgroup> right_tile: array<vec4f, 256>;

// Where an invocation puts a block that it read: four steps of the sum by four rows or columns.
struct Place {
  steps: u32,
  lines: u32,
}

// Neighbours read on along the lines of a matrix in memory: its rows and columns if `across`, else its steps.
fn place(local: u32, across: bool) -> Place {
  if (across) {
    return Place(local / 16u * 4u, local % 16u);
  }
  return Place(local % 4u * 4u, local / 4u);
}

// The sum of what the invocations w, w + 8, … of a workgroup hold; they are `u`-th of those.
fn all_of_tile(value: vec4f, u: u32, w: u32) -> vec4f {
  workgroupBarrier();
  left_tile[u * 8u + w] = value;
  workgroupBarrier();
  var sum = vec4f();
  for (var i = w; i < 64u; i += 8u) {
    sum += left_tile[i];
  }
  return sum;
}

@compute @workgroup_size(64)
fn image_tile(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) local: u32,
) {
  let my = work(group, groups);
  let v = axis(p.result_h, p.kernel_h, my.phase / p.stride);
  let h = axis(p.result_w, p.kernel_w, my.phase % p.stride);
  let first_row = my.row_tile * 64u;
  let first_column = my.column_tile * 64u;

  let l = place(local, false);
  let r = place(local, TRANSPOSED == 0u);
  let rows = pixels(four(first_row + l.lines * 4u), v, h);
  // It sums the rows 4u … 4u+3 and those 32 further down, and columns alike.
  let u = local / 8u;
  let w = local % 8u;

  var sum: array<vec4f, 16>;
  // @unroll
  for (var j = 0u; j < 2u; j++) {
    let start = bias_at(first_column + (w + j * 8u) * 4u, my.split);
    // @unroll
    for (var e = 0u; e < 8u; e++) {
      sum[e * 2u + j] = start;
    }
  }

  let tap_steps = (p.inner + 3u) / 4u;
  let end = min((my.split + 1u) * p.steps, v.taps * h.taps * tap_steps);
  for (var first = my.split * p.steps; first < end; first += 4u) {
    var left = mat4x4f();
    var right = mat4x4f();
    let left_step = first + l.steps / 4u;
    if (left_step < end) {
      let at = reach(rows, left_step / tap_steps, v, h, my.batch);
      left = transpose(image_block(at, left_step % tap_steps * 4u));
    }
    let right_step = first + r.steps / 4u;
    if (right_step < end) {
      let at = reach(rows, right_step / tap_steps, v, h, my.batch);
      right = right_block(at.right, p.inner, right_step % tap_steps * 4u, first_column + r.lines * 4u);
    }
    workgroupBarrier();
    // @unroll
    for (var e = 0u; e < 4u; e++) {
      left_tile[(l.steps + e) * 16u + l.lines] = left[e];
      right_tile[(r.steps + e) * 16u + r.lines] = right[e];
    }
    workgroupBarrier();
    for (var k = 0u; k < 256u; k += 16u) {
      // @unroll
      for (var i = 0u; i < 2u; i++) {
        let four_rows = left_tile[k + u + i * 8u];
        // @unroll
        for (var j = 0u; j < 2u; j++) {
          let four_columns = right_tile[k + w + j * 8u];
          // @unroll
          for (var e = 0u; e < 4u; e++) {
            sum[(i * 4u + e) * 2u + j] = fma(vec4f(four_rows[e]), four_columns, sum[(i * 4u + e) * 2u + j]);
          }
        }
      }
    }
  }

  // @unroll
  for (var i = 0u; i < 2u; i++) {
    let index = pixels(four(first_row + (u + i * 8u) * 4u), v, h).index;
    // @unroll
    for (var e = 0u; e < 4u; e++) {
      if (index[e] != nowhere) {
        // @unroll
        for (var j = 0u; j < 2u; j++) {
          store(my.slice, index[e], first_column + (w + j * 8u) * 4u, sum[(i * 4u + e) * 2u + j]);
        }
      }
    }
  }
  if (MOMENTS == 1u) {
    let count = rows_from(first_row, 64u);
    // @unroll
    for (var j = 0u; j < 2u; j++) {
      var part = vec4f();
      // @unroll
      for (var e = 0u; e < 8u; e++) {
        let live = u * 4u + e % 4u + e / 4u * 32u < count;
        part += select(vec4f(), sum[e * 2u + j], live);
      }
      let mean = all_of_tile(part, u, w) / f32(count);
      var squares = vec4f();
      // @unroll
      for (var e = 0u; e < 8u; e++) {
        let live = u * 4u + e % 4u + e / 4u * 32u < count;
        let deviation = select(vec4f(), sum[e * 2u + j] - mean, live);
        squares += deviation * deviation;
      }
      let m2 = all_of_tile(squares, u, w);
      if (u == 0u) {
        store_moments(my.row_tile, first_column + (w + j * 8u) * 4u, count, mean, m2);
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
  let my = work(group, groups);
  let first_row = my.row_tile * 64u;
  let first_column = my.column_tile * 64u;

  let l = place(local, true);
  let r = place(local, TRANSPOSED == 0u);
  let rows = taps(four(first_row + l.lines * 4u));
  let u = local / 8u;
  let w = local % 8u;

  var sum: array<vec4f, 16>;
  let depth = p.images * p.result_h * p.result_w;
  let end = min((my.split + 1u) * p.steps * 4u, depth);
  let by = cursor(16u);
  var at: array<Cursor, 4>;
  // @unroll
  for (var e = 0u; e < 4u; e++) {
    at[e] = cursor(my.split * p.steps * 4u + l.steps + e);
  }
  for (var first = my.split * p.steps * 4u; first < end; first += 16u) {
    var left: mat4x4f;
    // @unroll
    for (var e = 0u; e < 4u; e++) {
      left[e] = weights_left(rows, spot(at[e], my.batch), first + l.steps + e < end);
      at[e] = advance(at[e], by);
    }
    let right = right_block(my.batch * p.b_batch, depth, first + r.steps, first_column + r.lines * 4u);
    workgroupBarrier();
    // @unroll
    for (var e = 0u; e < 4u; e++) {
      left_tile[(l.steps + e) * 16u + l.lines] = left[e];
      right_tile[(r.steps + e) * 16u + r.lines] = right[e];
    }
    workgroupBarrier();
    for (var k = 0u; k < 256u; k += 16u) {
      // @unroll
      for (var i = 0u; i < 2u; i++) {
        let four_rows = left_tile[k + u + i * 8u];
        // @unroll
        for (var j = 0u; j < 2u; j++) {
          let four_columns = right_tile[k + w + j * 8u];
          // @unroll
          for (var e = 0u; e < 4u; e++) {
            sum[(i * 4u + e) * 2u + j] = fma(vec4f(four_rows[e]), four_columns, sum[(i * 4u + e) * 2u + j]);
          }
        }
      }
    }
  }

  // @unroll
  for (var i = 0u; i < 2u; i++) {
    // @unroll
    for (var e = 0u; e < 4u; e++) {
      let row = first_row + (u + i * 8u) * 4u + e;
      if (row < p.kernel_h * p.kernel_w * p.inner) {
        // @unroll
        for (var j = 0u; j < 2u; j++) {
          store(my.slice, row, first_column + (w + j * 8u) * 4u, sum[(i * 4u + e) * 2u + j]);
        }
      }
    }
  }
}
