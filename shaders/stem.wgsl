// Convolutions of images of few channels, whose lines are read as what they are in memory: rows of numbers.
//
//   image:       y[pixel, column] = bias[column] + Σ tap  x[pixel moved by tap] · b[tap, column]
//   weights:     y[tap, column] = Σ pixel  x[pixel moved by tap] · b[pixel, column]
//   image_back:  dx[pixel moved by tap] = Σ tap, column  dy[pixel, column] · w[tap, column]
//
// In `image` and `weights` a subgroup takes PIXELS neighbours of a line of the result at a time. Of each line of
// the source under them it loads the window that they see, a vec4 an invocation, and hands every number of it
// round; an invocation multiplies it by its own columns, which it holds in registers: all weights, or all their
// sums. In `image_back` an invocation takes PIXELS neighbours of a line of the image, and moves down with the lines
// of dy. It holds the sums of all lines of the image under one of dy, and reads that once; what goes round are the
// weights.
//
// Layout: images [images, h, w, CHANNELS] whose lines are a multiple of 4 elements long, weights
// [KERNEL_H, KERNEL_W, CHANNELS, columns], all row-major, columns a multiple of what a `Columns` holds, or of 4.
// Grid: column tiles × line tiles × parts, folded to 2-D. A part is `share` lines of the result. `weights` takes
// LINES lines of the kernel and all columns, so that b is read as it lies in memory; y then holds the sums of one
// part after another, for another kernel to add up.
// `image_back` takes an invocation for PIXELS of a line × parts of an image × images.
//
// With MOMENTS, `image` leaves behind of each part what batch_norm.wgsl needs of every column: how many pixels
// there are, their mean, and the sum of squared deviations from it, as moments [parts, 3, columns].
//
// @compile image CHANNELS=3 KERNEL_H=3 KERNEL_W=3 STRIDE=1 PADDING=1
// @compile image CHANNELS=3 KERNEL_H=3 KERNEL_W=3 STRIDE=1 PADDING=1 B=4 Columns=4 Y=4
// @compile image MOMENTS=1
// @compile image CHANNELS=3 KERNEL_H=3 KERNEL_W=3 STRIDE=1 PADDING=1 PIXELS=4 BLOCKS=2 MOMENTS=1 B=4 Columns=4 Y=4
// @compile image CHANNELS=3 PIXELS=2
// @compile image A=16 B=32 Columns=32 Y=16
// @compile weights CHANNELS=3 LINES=2
// @compile weights CHANNELS=3 LINES=1 B=4 Columns=4 Y=4
// @compile weights CHANNELS=3 LINES=1 PIXELS=4 BLOCKS=2 B=4 Columns=4 Y=4
// @compile weights A=16 B=16 Y=32
// @compile image_back CHANNELS=3 KERNEL_H=3 KERNEL_W=3 STRIDE=1 PADDING=1
// @compile image_back PIXELS=16 A=16

// Elements of the operands and of the result, and what an invocation computes of them: its columns.
alias A = vec4f;
alias B = vec2f;
alias Y = vec2f;
alias Columns = vec2f;

const CHANNELS = 1u;
const KERNEL_H = 7u;
const KERNEL_W = 7u;
const STRIDE = 2u;
const PADDING = 3u;
const LINES = KERNEL_H;
const MOMENTS = 0u;
const LANES = 8u;
const PIXELS = 8u;
// `Columns` of an invocation in image and weights, LANES apart; in weights, all there are.
const BLOCKS = 1u;

// Elements under a line of the kernel, and from one pixel of the result to the next.
const TAPS = KERNEL_W * CHANNELS;
const STEP = STRIDE * CHANNELS;
// The window begins with a whole vec4, LEAD of them before the pixel itself and SHIFT elements before its taps.
const LEAD = (PADDING * CHANNELS + 3u) / 4u;
const SHIFT = LEAD * 4u - PADDING * CHANNELS;
const WINDOW = (SHIFT + (PIXELS - 1u) * STEP + TAPS + 3u) / 4u;
const LOADS = (WINDOW + LANES - 1u) / LANES;
// In image_back: sums of a line, loads of the weights of a vec4 of columns, and what an invocation sees of dy: from
// ABOVE lines above and AHEAD pixels before the first, SEEN pixels of a line.
const LINE = PIXELS * CHANNELS;
const HELD = (KERNEL_H * TAPS + LANES - 1u) / LANES;
const ABOVE = (KERNEL_H - 1u - PADDING) / STRIDE;
const AHEAD = (KERNEL_W - 1u - PADDING) / STRIDE;
const SEEN = AHEAD + 1u + (PIXELS - 1u + PADDING) / STRIDE;

struct Params {
  // Lines of the result in all images, and in a part.
  rows: u32,
  share: u32,
  source_h: u32,
  // vec4 of a line of the source.
  line: u32,
  result_h: u32,
  result_w: u32,
  // In `Columns`, or in vec4 in image_back.
  columns: u32,
  column_tiles: u32,
  has_bias: u32,
}

@group(0) @binding(0) var<storage, read> x: array<A>;
@group(0) @binding(1) var<storage, read> b: array<B>;
@group(0) @binding(2) var<storage, read> bias: array<Columns>;
@group(0) @binding(3) var<storage, read_write> y: array<Y>;
@group(0) @binding(4) var<storage, read_write> moments: array<Columns>;
@group(0) @binding(0) var<storage, read> dy: array<A>;
@group(0) @binding(1) var<storage, read> w: array<vec4f>;
@group(0) @binding(3) var<storage, read_write> dx: array<A>;
@group(1) @binding(0) var<uniform> p: Params;

// What a workgroup computes: the lines of the result from `row` to `end` at LANES · BLOCKS columns.
struct Work {
  row: u32,
  end: u32,
  first_line: u32,
  part: u32,
  first_column: u32,
}

fn work(group: vec3u, groups: vec3u) -> Work {
  let line_tiles = (KERNEL_H + LINES - 1u) / LINES;
  let tile = group.x + group.y * groups.x;
  let part = tile / p.column_tiles / line_tiles;
  let row = part * p.share;
  return Work(
    row,
    min(row + p.share, p.rows),
    tile / p.column_tiles % line_tiles * LINES,
    part,
    tile % p.column_tiles * LANES * BLOCKS,
  );
}

// Where in the source a line of the result begins: the first line of its image, and from there on the first
// under its taps; modulo 2³² where that is above the image.
struct Place {
  source: u32,
  top: u32,
}

fn place(row: u32) -> Place {
  let i = row / p.result_h;
  return Place(i * p.source_h, (row - i * p.result_h) * STRIDE - PADDING);
}

// The vec4 at `position` of a line of the image that begins with line `source`: zero outside, and beyond the
// window, where nothing is loaded.
fn load(source: u32, line: u32, position: u32, index: u32) -> vec4f {
  var four = vec4f();
  if ((line < p.source_h) & (position < p.line) & (index < WINDOW)) {
    four = vec4f(x[(source + line) * p.line + position]);
  }
  return four;
}

@compute @workgroup_size(LANES)
fn image(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) lane: u32,
) {
  let my = work(group, groups);
  var start: array<Columns, BLOCKS>;
  var weight: array<Columns, KERNEL_H * TAPS * BLOCKS>;
  // @unroll
  for (var j = 0u; j < BLOCKS; j++) {
    let held = min(my.first_column + j * LANES + lane, p.columns - 1u);
    start[j] = select(Columns(), bias[select(0u, held, p.has_bias == 1u)], p.has_bias == 1u);
    // @unroll
    for (var t = 0u; t < KERNEL_H * TAPS; t++) {
      weight[t * BLOCKS + j] = Columns(b[t * p.columns + held]);
    }
  }
  // Sums of a part are taken about its first value, so that little is lost where the mean is large.
  var origin: array<Columns, BLOCKS>;
  var total: array<Columns, BLOCKS>;
  var squares: array<Columns, BLOCKS>;
  for (var row = my.row; row < my.end; row++) {
    let at = place(row);
    for (var first = 0u; first < p.result_w; first += PIXELS) {
      var sum: array<Columns, BLOCKS * PIXELS>;
      // @unroll
      for (var e = 0u; e < BLOCKS * PIXELS; e++) {
        sum[e] = start[e % BLOCKS];
      }
      // @unroll
      for (var u = 0u; u < KERNEL_H; u++) {
        var window: array<f32, LOADS * LANES * 4>;
        // @unroll
        for (var k = 0u; k < LOADS; k++) {
          let index = k * LANES + lane;
          let four = load(at.source, at.top + u, first * STEP / 4u - LEAD + index, index);
          // @unroll
          for (var i = 0u; i < LANES * 4u; i++) {
            window[k * LANES * 4u + i] = subgroupShuffle(four[i % 4u], i / 4u);
          }
        }
        // @unroll
        for (var e = 0u; e < PIXELS; e++) {
          // @unroll
          for (var t = 0u; t < TAPS; t++) {
            let left = Columns(window[SHIFT + e * STEP + t]);
            // @unroll
            for (var j = 0u; j < BLOCKS; j++) {
              sum[e * BLOCKS + j] = fma(left, weight[(u * TAPS + t) * BLOCKS + j], sum[e * BLOCKS + j]);
            }
          }
        }
      }
      let to = (row * p.result_w + first) * p.columns + my.first_column + lane;
      // @unroll
      for (var e = 0u; e < PIXELS; e++) {
        // @unroll
        for (var j = 0u; j < BLOCKS; j++) {
          if ((first + e < p.result_w) & (my.first_column + j * LANES + lane < p.columns)) {
            y[to + e * p.columns + j * LANES] = Y(sum[e * BLOCKS + j]);
          }
        }
      }
      if (MOMENTS == 1u) {
        // @unroll
        for (var j = 0u; j < BLOCKS; j++) {
          if ((row == my.row) & (first == 0u)) {
            origin[j] = sum[j];
          }
          // @unroll
          for (var e = 0u; e < PIXELS; e++) {
            let deviation = select(Columns(), sum[e * BLOCKS + j] - origin[j], first + e < p.result_w);
            total[j] += deviation;
            squares[j] = fma(deviation, deviation, squares[j]);
          }
        }
      }
    }
  }
  if (MOMENTS == 1u) {
    let count = f32((my.end - my.row) * p.result_w);
    // @unroll
    for (var j = 0u; j < BLOCKS; j++) {
      let column = my.first_column + j * LANES + lane;
      let mean = total[j] / count;
      let to = my.part * 3u * p.columns + column;
      if (column < p.columns) {
        moments[to] = Columns(count);
        moments[to + p.columns] = origin[j] + mean;
        moments[to + 2u * p.columns] = max(squares[j] - total[j] * mean, Columns());
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
  let my = work(group, groups);
  var sum: array<Columns, BLOCKS * LINES * TAPS>;
  for (var row = my.row; row < my.end; row++) {
    let at = place(row);
    for (var first = 0u; first < p.result_w; first += PIXELS) {
      let origin = (row * p.result_w + first) * p.columns;
      var right: array<Columns, BLOCKS * PIXELS>;
      // @unroll
      for (var e = 0u; e < PIXELS; e++) {
        // @unroll
        for (var j = 0u; j < BLOCKS; j++) {
          let column = j * LANES + lane;
          right[e * BLOCKS + j] = Columns();
          if ((first + e < p.result_w) & (column < p.columns)) {
            right[e * BLOCKS + j] = Columns(b[origin + e * p.columns + column]);
          }
        }
      }
      // @unroll
      for (var u = 0u; u < LINES; u++) {
        var window: array<f32, LOADS * LANES * 4>;
        // @unroll
        for (var k = 0u; k < LOADS; k++) {
          let index = k * LANES + lane;
          let four = load(at.source, at.top + my.first_line + u, first * STEP / 4u - LEAD + index, index);
          // @unroll
          for (var i = 0u; i < LANES * 4u; i++) {
            window[k * LANES * 4u + i] = subgroupShuffle(four[i % 4u], i / 4u);
          }
        }
        // @unroll
        for (var t = 0u; t < TAPS; t++) {
          // @unroll
          for (var e = 0u; e < PIXELS; e++) {
            let left = Columns(window[SHIFT + e * STEP + t]);
            // @unroll
            for (var j = 0u; j < BLOCKS; j++) {
              sum[(u * TAPS + t) * BLOCKS + j] =
                fma(left, right[e * BLOCKS + j], sum[(u * TAPS + t) * BLOCKS + j]);
            }
          }
        }
      }
    }
  }
  // @unroll
  for (var j = 0u; j < BLOCKS; j++) {
    let column = j * LANES + lane;
    // @unroll
    for (var u = 0u; u < LINES; u++) {
      if ((column < p.columns) & (my.first_line + u < KERNEL_H)) {
        // @unroll
        for (var t = 0u; t < TAPS; t++) {
          let tap = (my.part * KERNEL_H + my.first_line + u) * TAPS + t;
          y[tap * p.columns + column] = Y(sum[(u * TAPS + t) * BLOCKS + j]);
        }
      }
    }
  }
}

// sum + left · right.
fn multiply_add(left: vec4f, right: vec4f, sum: f32) -> f32 {
  return fma(left.w, right.w, fma(left.z, right.z, fma(left.y, right.y, fma(left.x, right.x, sum))));
}

@compute @workgroup_size(LANES)
fn image_back(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) lane: u32,
) {
  let lines = p.share * STRIDE;
  let parts = (p.source_h + lines - 1u) / lines;
  let tiles = (p.line * 4u + LINE - 1u) / LINE;
  let tile = (group.x + group.y * groups.x) * LANES + lane;
  let i = tile / tiles / parts;
  let live = i * p.result_h < p.rows;
  let part = tile / tiles % parts;
  let first = tile % tiles * PIXELS;
  let left = first / STRIDE - AHEAD;

  // Below the lines under the taps lie as many of zeros as move up.
  var sum: array<f32, (KERNEL_H + STRIDE) * LINE>;
  let steps = ABOVE + 1u + (lines - 1u + PADDING) / STRIDE;
  for (var step = 0u; step < steps; step++) {
    let row = part * p.share + step - ABOVE;
    let start = (i * p.result_h + row) * p.result_w + left;
    for (var column = 0u; column < p.columns; column++) {
      var held: array<vec4f, HELD>;
      // @unroll
      for (var k = 0u; k < HELD; k++) {
        held[k] = w[min(k * LANES + lane, KERNEL_H * TAPS - 1u) * p.columns + column];
      }
      var weight: array<vec4f, KERNEL_H * TAPS>;
      // @unroll
      for (var t = 0u; t < KERNEL_H * TAPS; t++) {
        weight[t] = subgroupShuffle(held[t / LANES], t % LANES);
      }
      var pixel: array<vec4f, SEEN>;
      // @unroll
      for (var e = 0u; e < SEEN; e++) {
        let inside = live & (row < p.result_h) & (left + e < p.result_w);
        pixel[e] = select(vec4f(), vec4f(dy[select(0u, (start + e) * p.columns + column, inside)]), inside);
      }
      // @unroll
      for (var u = 0u; u < KERNEL_H; u++) {
        // @unroll
        for (var e = 0u; e < PIXELS; e++) {
          // @unroll
          for (var v = (e + PADDING) % STRIDE; v < KERNEL_W; v += STRIDE) {
            let four = pixel[(e + PADDING + AHEAD * STRIDE - v) / STRIDE];
            // @unroll
            for (var c = 0u; c < CHANNELS; c++) {
              sum[u * LINE + e * CHANNELS + c] =
                multiply_add(four, weight[u * TAPS + v * CHANNELS + c], sum[u * LINE + e * CHANNELS + c]);
            }
          }
        }
      }
    }
    // The topmost lines have met all their taps.
    // @unroll
    for (var u = 0u; u < STRIDE; u++) {
      let to = row * STRIDE + u - PADDING;
      let met = live & (to - part * lines < lines) & (to < p.source_h);
      // @unroll
      for (var k = 0u; k < LINE; k += 4u) {
        let position = (first * CHANNELS + k) / 4u;
        if (met & (position < p.line)) {
          dx[(i * p.source_h + to) * p.line + position] =
            A(vec4f(sum[u * LINE + k], sum[u * LINE + k + 1u], sum[u * LINE + k + 2u], sum[u * LINE + k + 3u]));
        }
      }
    }
    // @unroll
    for (var k = 0u; k < KERNEL_H * LINE; k++) {
      sum[k] = sum[k + STRIDE * LINE];
    }
  }
}
