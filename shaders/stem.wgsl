// Convolutions of images of few channels, whose lines are read as what they are in memory: rows of numbers.
//
//   image:       y[pixel, column] = bias[column] + Σ tap  x[pixel moved by tap] · b[tap, column]
//   weights:     y[tap, column] = Σ pixel  x[pixel moved by tap] · b[pixel, column]
//   image_back:  dx[pixel moved by tap] = Σ tap, column  dy[pixel, column] · w[tap, column]
//
// In `image` and `weights` a subgroup takes PIXELS neighbours of a line of the result at a time. Of each line of
// the source under them it loads the window that they see, a vec4 an invocation, and hands every number of it
// round; an invocation multiplies it by its own columns, which it holds in registers: all weights, or all their
// sums. In `image_back` SHARERS invocations take a strip of PIXELS lines of the image, and move with the pixels of dy
// from left to right. Each holds the weights of its own vec4 of columns, and what these add to the pixels of the strip
// under those of dy; when a pixel has met all its taps, they add up what they have. Where there are more columns
// than they hold weights of, they come again, and add to what they have left in dx.
//
// Layout: images [images, h, w, CHANNELS] whose lines are a multiple of 4 elements long, weights
// [KERNEL_H, KERNEL_W, CHANNELS, columns], all row-major, columns a multiple of what a `Columns` holds, or of 4.
// Grid: column tiles × line tiles × parts, folded to 2-D. A part is `share` lines of the result. `weights` takes
// LINES lines of the kernel and all columns, so that b is read as it lies in memory; y then holds the sums of one
// part after another, for another kernel to add up.
// `image_back` takes a workgroup for `share` strips, or `share` times as many as its invocations take side by side.
//
// With MOMENTS, `image` leaves behind of each part what batch_norm.wgsl needs of every column: how many pixels
// there are, their mean, and the sum of squared deviations from it, as moments [parts, 3, columns].
//
// @compile image CHANNELS=3 KERNEL_H=3 KERNEL_W=3 STRIDE=1 PADDING=1
// @compile image CHANNELS=3 KERNEL_H=3 KERNEL_W=3 STRIDE=1 PADDING=1 B=4 Columns=4 Y=4
// @compile image MOMENTS=1
// @compile image CHANNELS=3 KERNEL_H=3 KERNEL_W=3 STRIDE=1 PADDING=1 PIXELS=4 BLOCKS=2 MOMENTS=1 B=4 Columns=4 Y=4
// @compile image CHANNELS=3 PIXELS=2
// @compile image CHANNELS=3 PIXELS=2 B=4 Columns=4 Y=4
// @compile image A=16 B=32 Columns=32 Y=16
// @compile weights CHANNELS=3 LINES=2
// @compile weights CHANNELS=3 LINES=1 B=4 Columns=4 Y=4
// @compile weights CHANNELS=3 LINES=1 PIXELS=4 BLOCKS=2 B=4 Columns=4 Y=4
// @compile weights A=16 B=16 Y=32
// @compile image_back CHANNELS=3 PIXELS=4
// @compile image_back CHANNELS=3 KERNEL_H=3 KERNEL_W=3 STRIDE=1 PADDING=1 PIXELS=4 BLOCKS=2
// @compile image_back FOLDS=2 A=16 D=16

// Elements of the operands and of the result, and what an invocation computes of them: its columns.
alias A = vec4f;
alias B = vec2f;
alias Y = vec2f;
alias D = f32;
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
// `Columns` of an invocation, LANES apart; in weights, all there are; in image_back, vec4 at a time, SHARERS apart.
const BLOCKS = 1u;

// Elements under a line of the kernel, and from one pixel of the result to the next.
const TAPS = KERNEL_W * CHANNELS;
const STEP = STRIDE * CHANNELS;
// The window begins with a whole vec4, LEAD of them before the pixel itself and SHIFT elements before its taps.
const LEAD = (PADDING * CHANNELS + 3u) / 4u;
const SHIFT = LEAD * 4u - PADDING * CHANNELS;
const WINDOW = (SHIFT + (PIXELS - 1u) * STEP + TAPS + 3u) / 4u;
const LOADS = (WINDOW + LANES - 1u) / LANES;
// In image_back: invocations that add up their sums, in FOLDS steps; elements of a column of a strip; and what it
// sees of a column of dy: from ABOVE lines above, SEEN pixels.
const FOLDS = 3u;
const SHARERS = 1u << FOLDS;
const ACROSS = PIXELS * CHANNELS;
const ABOVE = (KERNEL_H - 1u - PADDING) / STRIDE;
const SEEN = ABOVE + 1u + (PIXELS - 1u + PADDING) / STRIDE;

struct Params {
  // Lines of the result in all images; those of a part, or strips in image_back.
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
@group(0) @binding(3) var<storage, read_write> dx: array<D>;
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
  // @unroll
  for (var j = 0u; j < BLOCKS; j++) {
    let held = min(my.first_column + j * LANES + lane, p.columns - 1u);
    start[j] = select(Columns(), bias[select(0u, held, p.has_bias == 1u)], p.has_bias == 1u);
  }
  // Line by line, each of which moves the others up, so that there is the code of one to compile.
  var weight: array<Columns, KERNEL_H * TAPS * BLOCKS>;
  for (var t = 0u; t < KERNEL_H * TAPS * p.columns; t += TAPS * p.columns) {
    // @unroll
    for (var k = 0u; k < (KERNEL_H - 1u) * TAPS * BLOCKS; k++) {
      weight[k] = weight[k + TAPS * BLOCKS];
    }
    // @unroll
    for (var k = 0u; k < TAPS * BLOCKS; k++) {
      let column = min(my.first_column + k % BLOCKS * LANES + lane, p.columns - 1u);
      weight[(KERNEL_H - 1u) * TAPS * BLOCKS + k] = Columns(b[t + k / BLOCKS * p.columns + column]);
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

// The sums of two values over an invocation and the one whose number differs in `bit`: the first for the lower of
// them, the second for the upper.
fn fold(first: f32, second: f32, lane: u32, bit: u32) -> f32 {
  let upper = (lane & bit) != 0u;
  return select(first, second, upper) + subgroupShuffleXor(select(second, first, upper), bit);
}

@compute @workgroup_size(LANES)
fn image_back(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) lane: u32,
) {
  let width = p.line * 4u / CHANNELS;
  let strips = (p.source_h + PIXELS - 1u) / PIXELS;
  let first_strip = (group.x + group.y * groups.x) * p.share;
  for (var block = 0u; block < p.columns; block += SHARERS * BLOCKS) {
    let own = block + lane % SHARERS;
    var weight: array<vec4f, KERNEL_H * TAPS * BLOCKS>;
    for (var t = 0u; t < KERNEL_H * TAPS * p.columns; t += TAPS * p.columns) {
      // @unroll
      for (var k = 0u; k < (KERNEL_H - 1u) * TAPS * BLOCKS; k++) {
        weight[k] = weight[k + TAPS * BLOCKS];
      }
      // @unroll
      for (var k = 0u; k < TAPS * BLOCKS; k++) {
        let column = min(own + k % BLOCKS * SHARERS, p.columns - 1u);
        weight[(KERNEL_H - 1u) * TAPS * BLOCKS + k] = w[t + k / BLOCKS * p.columns + column];
      }
    }
    for (var s = 0u; s < p.share; s++) {
      let strip = (first_strip + s) * (LANES / SHARERS) + lane / SHARERS;
      let i = strip / strips;
      let live = i * p.result_h < p.rows;
      let top = strip % strips * PIXELS;
      let seen = top / STRIDE - ABOVE;

      // To the right of the columns under the taps lie as many of zeros as move to the left.
      var sum: array<f32, (KERNEL_W + STRIDE) * ACROSS>;
      for (var at = 0u; at <= (width - 1u + PADDING) / STRIDE; at++) {
        var pixel: array<vec4f, SEEN * BLOCKS>;
        // @unroll
        for (var k = 0u; k < SEEN * BLOCKS; k++) {
          let row = seen + k / BLOCKS;
          let column = own + k % BLOCKS * SHARERS;
          let inside = live & (row < p.result_h) & (at < p.result_w) & (column < p.columns);
          let source = ((i * p.result_h + row) * p.result_w + at) * p.columns + column;
          pixel[k] = select(vec4f(), vec4f(dy[select(0u, source, inside)]), inside);
        }
        // @unroll
        for (var v = 0u; v < KERNEL_W; v++) {
          // @unroll
          for (var e = 0u; e < PIXELS; e++) {
            // @unroll
            for (var u = (e + PADDING) % STRIDE; u < KERNEL_H; u += STRIDE) {
              // @unroll
              for (var c = 0u; c < CHANNELS; c++) {
                // @unroll
                for (var j = 0u; j < BLOCKS; j++) {
                  sum[v * ACROSS + e * CHANNELS + c] = multiply_add(
                    pixel[(e + PADDING + ABOVE * STRIDE - u) / STRIDE * BLOCKS + j],
                    weight[(u * TAPS + v * CHANNELS + c) * BLOCKS + j],
                    sum[v * ACROSS + e * CHANNELS + c],
                  );
                }
              }
            }
          }
        }
        // The columns on the left have met all their taps.
        // @unroll
        for (var k = 0u; k < STRIDE * ACROSS; k += SHARERS) {
          var met: array<f32, SHARERS>;
          // @unroll
          for (var m = 0u; m < SHARERS; m++) {
            met[m] = sum[k + m];
          }
          // @unroll
          for (var f = 0u; f < FOLDS; f++) {
            // @unroll
            for (var m = 0u; m < (SHARERS >> (f + 1u)); m++) {
              met[m] = fold(met[2u * m], met[2u * m + 1u], lane, 1u << f);
            }
          }
          let element = k + lane % SHARERS;
          let to_x = at * STRIDE + element / ACROSS - PADDING;
          let line = top + element % ACROSS / CHANNELS;
          if (live & (element < STRIDE * ACROSS) & (to_x < width) & (line < p.source_h)) {
            let to = ((i * p.source_h + line) * width + to_x) * CHANNELS + element % CHANNELS;
            if (block > 0u) {
              met[0] += f32(dx[to]);
            }
            dx[to] = D(met[0]);
          }
        }
        // @unroll
        for (var k = 0u; k < KERNEL_W * ACROSS; k++) {
          sum[k] = sum[k + STRIDE * ACROSS];
        }
      }
    }
  }
}
