// Random views of images: crop, flip and rotation in one resampling, colours, blur, normalisation.
//
// Images: u8 [n, size, size, CHANNELS], packed four to a word. Views: f32 [views, size, 4·quads, CHANNELS], where
// four pixels of a row, a quad, are CHANNELS vec4; pixels past the end of a row are made, and not used. Colours
// are in [0, 1] until the last change of theirs normalises them; a blur of normalised pixels comes to the same.
// What is random is drawn on the CPU: one `View` a view.
//
//   plain     view [size, size, CHANNELS] = image, normalised
//             one invocation a number: (⌈size² · CHANNELS / 256⌉, views) groups
//   sample    view(y, x) = image(M · (x, y, 1)), bicubic (Catmull-Rom), edges repeated;
//             colours up to contrast, and the luma of each tile for it
//             a group a TILE × TILE pixels of a view: (⌈size / TILE⌉, ⌈size / TILE⌉, views) groups
//   contrast  contrast, which turns about the mean luma of the view, and what follows it
//             the same for the views in `chosen`: where a software adapter masks lanes, an early return
//             of the others would save nothing
//   blur_rows, then blur_columns
//             separable Gaussian, edges reflected, for the views in `chosen`
//             an invocation SPAN quads of a row: (⌈size · quads / SPAN / 64⌉, chosen views) groups,
//             or STRIP rows of a vec4: (⌈quads · CHANNELS · ⌈size / STRIP⌉ / 64⌉, chosen views) groups
//
// @compile plain CHANNELS=3
// @compile sample CHANNELS=3
// @compile sample POSE=0
// @compile sample POSE=1 RUNS=1
// @compile sample CHANNELS=3 POSE=0
// @compile sample CHANNELS=3 POSE=0 RUNS=1
// @compile contrast CHANNELS=3
// @compile contrast GAMMA=1
// @compile blur_rows RADIUS=3 SPAN=4
// @compile blur_rows CHANNELS=3 RADIUS=3 SPAN=4
// @compile blur_columns RADIUS=3
// @compile blur_columns CHANNELS=3 RADIUS=3

const CHANNELS = 1u;
const TILE = 32u;
// Parts of a tile; an invocation makes a quad of each row of one.
const RUNS = 4u;

// Whether there are views with an exponent.
override GAMMA: u32 = 0u;
// How views lie in their images. UPRIGHT: their rows are rows of these, from top to bottom. TURNED a little, in one
// channel: what a quad shows lies in five rows, and with those below it in its tile in 16 columns, four whole
// words. Else anyhow.
override POSE: u32 = 2u;
const UPRIGHT = 0u;
const TURNED = 1u;
// Taps of the blur on either side.
const RADIUS = 1u;
const STRIP = 16u;
// A divisor of the quads in a row. An invocation loads the MARGIN quads on either side too.
const SPAN = 1u;
const MARGIN = (RADIUS + 3u) / 4u;
// Pixels past the end of a row.
const REST = 0u;
// Where a row begins in what its first invocation loads, and its last pixel in what the last one loads.
const FIRST = 4u * MARGIN;
const LAST = 4u * (MARGIN + SPAN) - 1u - REST;

// Changes of colour, one after another, with any order of brightness, saturation and hue among them; of what
// does not occur, factors are 1 and turns 0.
struct Changes {
  brightness0: f32,
  saturation0: f32,
  brightness1: f32,
  // Fraction of the colour circle.
  hue: f32,
  brightness2: f32,
  saturation1: f32,
  brightness3: f32,
}

struct View {
  // Source coordinates of a view's pixel (x, y), in pixels with centres at one half.
  xx: f32,
  xy: f32,
  x0: f32,
  yx: f32,
  yy: f32,
  y0: f32,
  // Position of the image in the set.
  image: f32,
  before: Changes,
  contrast: f32,
  after: Changes,
  gamma: f32,
  // How much colour is left: 0 for shades of gray.
  chroma: f32,
  // Standard deviation of the blur in pixels; 0 for none.
  sigma: f32,
  // 1 where sampling makes the last change of colours.
  is_sampled: f32,
}

struct Params {
  size: u32,
  quads: u32, // in a row
  mean0: f32,
  mean1: f32,
  mean2: f32,
  scale0: f32,
  scale1: f32,
  scale2: f32,
}

@group(0) @binding(0) var<storage, read> images: array<u32>;
@group(0) @binding(0) var<storage, read> source_quads: array<vec4f>;
@group(0) @binding(1) var<storage, read> table: array<View>;
@group(0) @binding(1) var<storage, read> rows: array<u32>;
@group(0) @binding(2) var<storage, read_write> target_pixels: array<f32>;
@group(0) @binding(2) var<storage, read_write> target_quads: array<vec4f>;
@group(0) @binding(3) var<storage, read_write> sums: array<f32>;
@group(0) @binding(4) var<storage, read> chosen: array<u32>;
@group(1) @binding(0) var<uniform> p: Params;

@compute @workgroup_size(256)
fn plain(@builtin(global_invocation_id) id: vec3u) {
  let numbers = p.size * p.size * CHANNELS;
  if (id.x >= numbers) {
    return;
  }
  let at = rows[id.y] * numbers + id.x;
  let value = f32((images[at / 4u] >> (at % 4u * 8u)) & 255u) / 255.0;
  target_pixels[id.y * numbers + id.x] = normalize_pixel(vec3f(value))[id.x % CHANNELS];
}

fn normalize_pixel(colour: vec3f) -> vec3f {
  return (colour - vec3f(p.mean0, p.mean1, p.mean2)) * vec3f(p.scale0, p.scale1, p.scale2);
}

// Where a pixel of an image begins.
fn place(image: u32, x: u32, y: u32) -> u32 {
  return ((image * p.size + y) * p.size + x) * CHANNELS;
}

struct Quad {
  a: vec3f,
  b: vec3f,
  c: vec3f,
  d: vec3f,
}

fn quad_place(view: u32, quad: u32, y: u32) -> u32 {
  return ((view * p.size + y) * p.quads + quad) * CHANNELS;
}

fn load(at: u32) -> Quad {
  let first = target_quads[at];
  if (CHANNELS == 1u) {
    return Quad(first.xxx, first.yyy, first.zzz, first.www);
  }
  let second = target_quads[at + 1u];
  let third = target_quads[at + 2u];
  return Quad(first.xyz, vec3f(first.w, second.xy), vec3f(second.zw, third.x), third.yzw);
}

fn store(at: u32, q: Quad) {
  if (CHANNELS == 1u) {
    target_quads[at] = vec4f(q.a.r, q.b.r, q.c.r, q.d.r);
  } else {
    target_quads[at] = vec4f(q.a, q.b.r);
    target_quads[at + 1u] = vec4f(q.b.gb, q.c.rg);
    target_quads[at + 2u] = vec4f(q.c.b, q.d);
  }
}

// Catmull-Rom weights of the four neighbours at a fraction t past the second (Keys 1981, a = −1/2).
fn cubic(t: f32) -> vec4f {
  let t2 = t * t;
  let t3 = t2 * t;
  return 0.5 * vec4f(-t3 + 2.0 * t2 - t, 3.0 * t3 - 5.0 * t2 + 2.0, -3.0 * t3 + 4.0 * t2 + t, t3 - t2);
}

// The weights of pixels begin … begin + 3 for those of first … first + 3, of which the ones outside the
// image stand for its edge.
fn fold(weights: vec4f, first: i32, begin: i32) -> vec4f {
  var folded = vec4f(0);
  // @unroll
  for (var k = 0; k < 4; k++) {
    let inside = clamp(first + k, 0, i32(p.size) - 1) - begin;
    folded += select(vec4f(0), vec4f(weights[k]), vec4i(0, 1, 2, 3) == vec4i(inside));
  }
  return folded;
}

// Four of the eight bytes of two words, as fractions of 255.
fn bytes(low: u32, high: u32, shift: u32) -> vec4f {
  // In two steps, as a shift by 32 is none.
  return unpack4x8unorm((low >> shift) | ((high << 1u) << (31u - shift)));
}

// The weighted sum of four pixels of a row of images, from byte `at` on.
fn blend(at: u32, w: vec4f) -> vec3f {
  let word = at / 4u;
  let shift = at % 4u * 8u;
  let second = images[word + 1u];
  let a = bytes(images[word], second, shift);
  if (CHANNELS == 1u) {
    return vec3f(dot(w, a));
  }
  let third = images[word + 2u];
  let b = bytes(second, third, shift);
  let c = bytes(third, images[word + 3u], shift);
  return w.x * a.xyz + w.y * vec3f(a.w, b.xy) + w.z * vec3f(b.zw, c.x) + w.w * c.yzw;
}

// Where a pixel of a view lies in its image: the first of the 4 × 4 pixels around it, and how far past the second.
struct Spot {
  first: vec2i,
  past: vec2f,
}

fn spot_of(view: View, x: u32, y: u32) -> Spot {
  let at = vec2f(f32(x), f32(y)) + 0.5;
  let source = vec2f(
    view.xx * at.x + view.xy * at.y + view.x0,
    view.yx * at.x + view.yy * at.y + view.y0,
  ) - 0.5;
  let whole = floor(source);
  return Spot(vec2i(whole) - 1, source - whole);
}

// Four columns of an image and their weights.
struct Columns {
  begin: u32,
  weights: vec4f,
}

fn columns_of(spot: Spot) -> Columns {
  let begin = clamp(spot.first.x, 0, i32(p.size) - 4);
  return Columns(u32(begin), fold(cubic(spot.past.x), spot.first.x, begin));
}

fn blend_row(view: View, columns: Columns, row: i32) -> vec3f {
  let y = u32(clamp(row, 0, i32(p.size) - 1));
  return blend(place(u32(view.image), columns.begin, y), columns.weights);
}

fn resample(view: View, x: u32, y: u32) -> vec3f {
  let spot = spot_of(view, x, y);
  let columns = columns_of(spot);
  let weights = cubic(spot.past.y);
  var sum = vec3f(0);
  // @unroll
  for (var k = 0; k < 4; k++) {
    sum += weights[k] * blend_row(view, columns, spot.first.y + k);
  }
  return sum;
}

// The first column and row of an image that a quad shows anything of.
fn first_of(view: View, quad: u32, y: u32) -> vec2i {
  return min(spot_of(view, 4u * quad, y).first, spot_of(view, 4u * quad + 3u, y).first);
}

// The first column of the words that hold what a quad and those below it in its tile show.
fn window_left(view: View, quad: u32, top: u32) -> u32 {
  let first = min(
    first_of(view, quad, top).x,
    first_of(view, quad, top + TILE / RUNS - 1u).x,
  );
  return u32(clamp(first, 0, i32(p.size) - 4)) / 4u * 4u;
}

// 16 pixels of a row of an image of one channel.
fn load_words(view: View, left: u32, row: i32) -> vec4u {
  let y = u32(clamp(row, 0, i32(p.size) - 1));
  let word = place(u32(view.image), left, y) / 4u;
  return vec4u(images[word], images[word + 1u], images[word + 2u], images[word + 3u]);
}

// Luma of ITU-R BT.601, as PIL's grayscale.
fn luma(colour: vec3f) -> f32 {
  if (CHANNELS == 1u) {
    return colour.r;
  }
  return dot(colour, vec3f(0.299, 0.587, 0.114));
}

// Turns the colour circle: RGB to hue in sixths of it, and back.
fn shift_hue(colour: vec3f, by: f32) -> vec3f {
  let high = max(colour.r, max(colour.g, colour.b));
  let low = min(colour.r, min(colour.g, colour.b));
  var offset = vec2f(colour.r - colour.g, 4.0);
  offset = select(offset, vec2f(colour.b - colour.r, 2.0), colour.g == high);
  offset = select(offset, vec2f(colour.g - colour.b, 0.0), colour.r == high);
  // Gray has no hue, and range 0 whatever comes out.
  let range = high - low;
  let hue = offset.x / max(range, 1e-6) + offset.y;
  let turned = fract(hue / 6.0 + by + vec3f(0.0, 2.0 / 3.0, 1.0 / 3.0));
  return low + range * clamp(abs(turned * 6.0 - 3.0) - 1.0, vec3f(0), vec3f(1));
}

fn brighten(colour: vec3f, factor: f32) -> vec3f {
  return min(colour * factor, vec3f(1));
}

// Contrast moves a colour from the mean of the view, saturation from the colour's gray.
fn move_from(gray: f32, colour: vec3f, factor: f32) -> vec3f {
  return clamp(mix(vec3f(gray), colour, factor), vec3f(0), vec3f(1));
}

fn saturate_by(colour: vec3f, factor: f32) -> vec3f {
  return move_from(luma(colour), colour, factor);
}

fn change(colour: vec3f, by: Changes) -> vec3f {
  if (CHANNELS == 1u) {
    // One of them at most is not 1.
    return brighten(
      colour,
      by.brightness0 * by.brightness1 * by.brightness2 * by.brightness3,
    );
  }
  var changed = brighten(colour, by.brightness0);
  changed = brighten(saturate_by(changed, by.saturation0), by.brightness1);
  if (by.hue != 0.0) {
    changed = shift_hue(changed, by.hue);
  }
  changed = brighten(changed, by.brightness2);
  return brighten(saturate_by(changed, by.saturation1), by.brightness3);
}

var<workgroup> partial: array<f32, TILE / 4u * RUNS>;

@compute @workgroup_size(TILE / 4u, RUNS)
fn sample(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(global_invocation_id) id: vec3u,
  @builtin(local_invocation_index) lane: u32,
) {
  let view = table[group.z];
  let top = id.y * (TILE / RUNS);
  let end = select(0u, min(top + TILE / RUNS, p.size), id.x < p.quads);
  // Upright, columns stay the same from row to row, and of four blended rows of the image some remain.
  var columns: array<Columns, 4>;
  var blended: array<vec3f, 16>;
  // @unroll
  for (var k = 0u; k < 4u; k++) {
    columns[k] = columns_of(spot_of(view, 4u * id.x + k, top));
  }
  // Turned a little, the window on the image stays in its columns, and of its five rows some remain.
  var window: array<vec4u, 5>;
  let left = window_left(view, id.x, top);
  // The first of these rows, all of which are yet to come.
  var row = first_of(view, id.x, top).y - select(5, 4, POSE == UPRIGHT);
  var sum = 0.0;
  for (var y = top; y < end; y++) {
    var colours: array<vec3f, 4>;
    if (POSE == UPRIGHT) {
      let spot = spot_of(view, 0u, y);
      // As a software adapter masks lanes, the newest row is blended again where none is new.
      loop {
        let steps = row < spot.first.y;
        row += i32(steps);
        // @unroll
        for (var k = 0u; k < 4u; k++) {
          // @unroll
          for (var i = 0u; i < 3u; i++) {
            blended[4u * k + i] = select(blended[4u * k + i], blended[4u * k + i + 1u], steps);
          }
          blended[4u * k + 3u] = blend_row(view, columns[k], row + 3);
        }
        continuing {
          break if row >= spot.first.y;
        }
      }
      let weights = cubic(spot.past.y);
      // @unroll
      for (var k = 0u; k < 4u; k++) {
        colours[k] = vec3f(0);
        // @unroll
        for (var i = 0u; i < 4u; i++) {
          colours[k] += weights[i] * blended[4u * k + i];
        }
      }
    } else if (POSE == TURNED) {
      let first = first_of(view, id.x, y).y;
      loop {
        let steps = row < first;
        row += i32(steps);
        // @unroll
        for (var i = 0u; i < 4u; i++) {
          window[i] = select(window[i], window[i + 1u], steps);
        }
        window[4] = load_words(view, left, row + 4);
        continuing {
          break if row >= first;
        }
      }
      // @unroll
      for (var k = 0u; k < 4u; k++) {
        let spot = spot_of(view, 4u * id.x + k, y);
        let columns = columns_of(spot);
        let weights = cubic(spot.past.y);
        let word = (columns.begin - left) / 4u;
        colours[k] = vec3f(0);
        // @unroll
        for (var i = 0u; i < 4u; i++) {
          let four = select(window[i], window[i + 1u], spot.first.y > first);
          let pixels = bytes(four[word], four[min(word + 1u, 3u)], columns.begin % 4u * 8u);
          colours[k] += weights[i] * vec3f(dot(columns.weights, pixels));
        }
      }
    } else {
      // @unroll
      for (var k = 0u; k < 4u; k++) {
        colours[k] = resample(view, 4u * id.x + k, y);
      }
    }
    // @unroll
    for (var k = 0u; k < 4u; k++) {
      let sampled = clamp(colours[k], vec3f(0), vec3f(1));
      let changed = change(sampled, view.before);
      sum += select(0.0, luma(changed), 4u * id.x + k < p.size);
      colours[k] = select(changed, normalize_pixel(changed), view.is_sampled == 1.0);
    }
    store(quad_place(group.z, id.x, y), Quad(colours[0], colours[1], colours[2], colours[3]));
  }
  partial[lane] = sum;
  for (var half = TILE / 8u * RUNS; half > 0u; half /= 2u) {
    workgroupBarrier();
    if (lane < half) {
      partial[lane] += partial[lane + half];
    }
  }
  if (lane == 0u) {
    sums[(group.z * groups.y + group.y) * groups.x + group.x] = partial[0];
  }
}

fn finish(colour: vec3f, mean: f32, view: View) -> vec3f {
  var changed = change(move_from(mean, colour, view.contrast), view.after);
  if (GAMMA == 1u) {
    // So that a view is the same beside others with an exponent.
    changed = select(pow(changed, vec3f(view.gamma)), changed, view.gamma == 1.0);
  }
  return normalize_pixel(mix(vec3f(luma(changed)), changed, view.chroma));
}

@compute @workgroup_size(TILE / 4u, RUNS)
fn contrast(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(global_invocation_id) id: vec3u,
) {
  let index = chosen[group.z];
  let view = table[index];
  let tiles = groups.x * groups.y;
  var sum = 0.0;
  for (var i = 0u; i < tiles; i++) {
    sum += sums[index * tiles + i];
  }
  let mean = sum / f32(p.size * p.size);
  let top = id.y * (TILE / RUNS);
  let end = select(0u, min(top + TILE / RUNS, p.size), id.x < p.quads);
  for (var y = top; y < end; y++) {
    let at = quad_place(index, id.x, y);
    let q = load(at);
    store(
      at,
      Quad(
        finish(q.a, mean, view),
        finish(q.b, mean, view),
        finish(q.c, mean, view),
        finish(q.d, mean, view),
      ),
    );
  }
}

// The weight of a tap of the blur, for a weight of 1 in the middle.
fn gaussian(distance: u32, sigma: f32) -> f32 {
  return exp(f32(distance * distance) * -0.5 / (sigma * sigma));
}

@compute @workgroup_size(64)
fn blur_rows(@builtin(global_invocation_id) id: vec3u) {
  let index = chosen[id.y];
  let sigma = table[index].sigma;
  let spans = p.quads / SPAN;
  let span = id.x % spans;
  let y = id.x / spans;
  if (y >= p.size) {
    return;
  }
  var taps: array<f32, (SPAN + 2u * MARGIN) * 4u * CHANNELS>;
  // @unroll
  for (var q = 0u; q < SPAN + 2u * MARGIN; q++) {
    let quad = clamp(i32(span * SPAN + q) - i32(MARGIN), 0, i32(p.quads) - 1);
    // @unroll
    for (var k = 0u; k < CHANNELS; k++) {
      let four = source_quads[quad_place(index, u32(quad), y) + k];
      // @unroll
      for (var i = 0u; i < 4u; i++) {
        taps[(q * CHANNELS + k) * 4u + i] = four[i];
      }
    }
  }
  // @unroll
  for (var d = 1u; d < RADIUS + 1u; d++) {
    // @unroll
    for (var c = 0u; c < CHANNELS; c++) {
      if (span == 0u) {
        taps[(FIRST - d) * CHANNELS + c] = taps[(FIRST + d) * CHANNELS + c];
      }
      if (span == spans - 1u) {
        taps[(LAST + d) * CHANNELS + c] = taps[(LAST - d) * CHANNELS + c];
      }
    }
  }
  var weights: array<f32, RADIUS + 1u>;
  var total = -1.0;
  // @unroll
  for (var d = 0u; d < RADIUS + 1u; d++) {
    weights[d] = gaussian(d, sigma);
    total += 2.0 * weights[d];
  }
  // @unroll
  for (var k = 0u; k < SPAN * CHANNELS; k++) {
    var sums: array<f32, 4>;
    // @unroll
    for (var i = 0u; i < 4u; i++) {
      sums[i] = weights[0] * taps[FIRST * CHANNELS + 4u * k + i];
      // @unroll
      for (var d = 1u; d < RADIUS + 1u; d++) {
        sums[i] += weights[d] * (
          taps[(FIRST - d) * CHANNELS + 4u * k + i] + taps[(FIRST + d) * CHANNELS + 4u * k + i]
        );
      }
    }
    target_quads[quad_place(index, span * SPAN, y) + k] =
      vec4f(sums[0], sums[1], sums[2], sums[3]) / total;
  }
}

@compute @workgroup_size(64)
fn blur_columns(@builtin(global_invocation_id) id: vec3u) {
  let index = chosen[id.y];
  let sigma = table[index].sigma;
  let width = p.quads * CHANNELS;
  let first = id.x / width * STRIP;
  if (first >= p.size) {
    return;
  }
  let begin = quad_place(index, 0u, 0u) + id.x % width;
  let last = i32(p.size) - 1;

  var taps: array<vec4f, STRIP + 2u * RADIUS>;
  // @unroll
  for (var k = 0u; k < STRIP + 2u * RADIUS; k++) {
    let reflected = last - abs(last - abs(i32(first + k) - i32(RADIUS)));
    // Past the reflection lie only taps of numbers that are not stored.
    taps[k] = source_quads[begin + u32(max(reflected, 0)) * width];
  }
  var weights: array<f32, RADIUS + 1u>;
  var total = -1.0;
  // @unroll
  for (var d = 0u; d < RADIUS + 1u; d++) {
    weights[d] = gaussian(d, sigma);
    total += 2.0 * weights[d];
  }
  // @unroll
  for (var k = 0u; k < STRIP; k++) {
    var sum = weights[0] * taps[k + RADIUS];
    // @unroll
    for (var d = 1u; d < RADIUS + 1u; d++) {
      sum += weights[d] * (taps[k + RADIUS - d] + taps[k + RADIUS + d]);
    }
    if (first + k < p.size) {
      target_quads[begin + (first + k) * width] = sum / total;
    }
  }
}
