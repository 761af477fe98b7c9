// Random views of images: crop, flip and rotation in one resampling, then colours, then blur.
//
// Images: u8 [n, size, size, CHANNELS], packed four to a word. Views: f32 [views, size, size, CHANNELS]
// in [0, 1] until the last blur pass normalises them. What is random is drawn on the CPU: one `View`
// a view.
//
//   sample    view(y, x) = image(M · (x, y, 1)), bicubic (Catmull-Rom), edges repeated
//             one invocation a pixel: ceil(pixels / 64) groups, folded to 2-D
//   colour    brightness, contrast, saturation and hue in the view's order, then gamma and gray
//             one workgroup a view, for the mean that contrast needs
//   blur      separable Gaussian, along x (AXIS 0), then along y (AXIS 1) with normalisation
//             one invocation a pixel
//
// @compile sample CHANNELS=3
// @compile colour CHANNELS=3
// @compile blur CHANNELS=3
// @compile blur CHANNELS=1 AXIS=1
// @compile blur CHANNELS=3 AXIS=1

const CHANNELS = 1u;
override AXIS: u32 = 0u;
const WIDTH = 256u;

const BRIGHTNESS = 0u;
const CONTRAST = 1u;
const SATURATION = 2u;
const HUE = 3u;

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
  brightness: f32,
  contrast: f32,
  saturation: f32,
  // Fraction of the colour circle.
  hue: f32,
  gamma: f32,
  // 1 for a view in shades of gray.
  gray: f32,
  // Standard deviation of the blur in pixels; 0 for none.
  sigma: f32,
  // The four colour operations, two bits each, first in the lowest bits.
  order: f32,
  unused: f32,
}

struct Params {
  views: u32,
  size: u32,
  radius: u32,
  mean0: f32,
  mean1: f32,
  mean2: f32,
  scale0: f32,
  scale1: f32,
  scale2: f32,
}

@group(0) @binding(0) var<storage, read> images: array<u32>;
@group(0) @binding(1) var<storage, read> table: array<View>;
@group(0) @binding(2) var<storage, read_write> target_pixels: array<f32>;
@group(0) @binding(0) var<storage, read> source_pixels: array<f32>;
@group(1) @binding(0) var<uniform> p: Params;

fn fetch(image: u32, y: i32, x: i32, channel: u32) -> f32 {
  let last = i32(p.size) - 1;
  let row = u32(clamp(y, 0, last));
  let column = u32(clamp(x, 0, last));
  let at = ((image * p.size + row) * p.size + column) * CHANNELS + channel;
  return f32((images[at >> 2u] >> ((at & 3u) * 8u)) & 255u);
}

// Catmull-Rom weights of the four neighbours at a fraction t past the second (Keys 1981, a = −1/2).
fn cubic(t: f32) -> vec4f {
  let t2 = t * t;
  let t3 = t2 * t;
  return 0.5 * vec4f(-t3 + 2.0 * t2 - t, 3.0 * t3 - 5.0 * t2 + 2.0, -3.0 * t3 + 4.0 * t2 + t, t3 - t2);
}

@compute @workgroup_size(64)
fn sample(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) local: u32,
) {
  let i = (group.x + group.y * groups.x) * 64u + local;
  if (i >= p.views * p.size * p.size) {
    return;
  }
  let column = f32(i % p.size) + 0.5;
  let row = f32((i / p.size) % p.size) + 0.5;
  let view = table[i / (p.size * p.size)];
  let sx = view.xx * column + view.xy * row + view.x0 - 0.5;
  let sy = view.yx * column + view.yy * row + view.y0 - 0.5;
  let x = i32(floor(sx));
  let y = i32(floor(sy));
  let wx = cubic(sx - floor(sx));
  let wy = cubic(sy - floor(sy));
  let image = u32(view.image);
  for (var c = 0u; c < CHANNELS; c++) {
    var sum = 0.0;
    // @unroll
    for (var dy = 0; dy < 4; dy++) {
      let line = vec4f(
        fetch(image, y + dy - 1, x - 1, c),
        fetch(image, y + dy - 1, x, c),
        fetch(image, y + dy - 1, x + 1, c),
        fetch(image, y + dy - 1, x + 2, c),
      );
      sum += wy[dy] * dot(wx, line);
    }
    target_pixels[i * CHANNELS + c] = clamp(sum / 255.0, 0.0, 1.0);
  }
}

// Luma of ITU-R BT.601, as PIL's and torchvision's grayscale.
fn luma(colour: vec3f) -> f32 {
  return dot(colour, vec3f(0.299, 0.587, 0.114));
}

fn load_pixel(at: u32) -> vec3f {
  if (CHANNELS == 1u) {
    return vec3f(target_pixels[at]);
  }
  return vec3f(
    target_pixels[at * CHANNELS],
    target_pixels[at * CHANNELS + 1u],
    target_pixels[at * CHANNELS + 2u],
  );
}

// Turns the colour circle: RGB to HSV and back.
fn shift_hue(colour: vec3f, by: f32) -> vec3f {
  let high = max(colour.r, max(colour.g, colour.b));
  let low = min(colour.r, min(colour.g, colour.b));
  let range = high - low;
  if (range == 0.0) {
    return colour;
  }
  var hue = (colour.r - colour.g) / range + 4.0;
  if (high == colour.r) {
    hue = (colour.g - colour.b) / range;
  } else if (high == colour.g) {
    hue = (colour.b - colour.r) / range + 2.0;
  }
  let turned = fract(hue / 6.0 + by) * 6.0;
  let ramp = clamp(abs(fract((vec3f(turned) + vec3f(0.0, 4.0, 2.0)) / 6.0) * 6.0 - 3.0) - 1.0, vec3f(0), vec3f(1));
  return low + range * ramp;
}

// One colour operation; `mean` is the mean luma that contrast turns about.
fn change(colour: vec3f, operation: u32, view: View, mean: f32) -> vec3f {
  if (operation == BRIGHTNESS) {
    return clamp(colour * view.brightness, vec3f(0), vec3f(1));
  }
  if (operation == CONTRAST) {
    return clamp(mix(vec3f(mean), colour, view.contrast), vec3f(0), vec3f(1));
  }
  if (CHANNELS == 1u) {
    return colour;
  }
  if (operation == SATURATION) {
    return clamp(mix(vec3f(luma(colour)), colour, view.saturation), vec3f(0), vec3f(1));
  }
  return shift_hue(colour, view.hue);
}

var<workgroup> sums: array<f32, WIDTH>;

@compute @workgroup_size(WIDTH)
fn colour(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) local: u32,
) {
  // A workgroup past the last view repeats the last one's arithmetic and stores nothing.
  let index = group.x + group.y * groups.x;
  let view = table[min(index, p.views - 1u)];
  let order = u32(view.order);
  let pixels = p.size * p.size;
  let start = min(index, p.views - 1u) * pixels;
  var turn = 0u;
  while (((order >> (2u * turn)) & 3u) != CONTRAST) {
    turn++;
  }

  // What comes before contrast, to know the mean that it turns about.
  var sum = 0.0;
  for (var i = local; i < pixels; i += WIDTH) {
    var colour = load_pixel(start + i);
    for (var k = 0u; k < turn; k++) {
      colour = change(colour, (order >> (2u * k)) & 3u, view, 0.0);
    }
    sum += luma(colour);
  }
  sums[local] = sum;
  for (var half = WIDTH / 2u; half > 0u; half /= 2u) {
    workgroupBarrier();
    if (local < half) {
      sums[local] += sums[local + half];
    }
  }
  workgroupBarrier();
  let mean = sums[0] / f32(pixels);

  if (index >= p.views) {
    return;
  }
  for (var i = local; i < pixels; i += WIDTH) {
    var colour = load_pixel(start + i);
    for (var k = 0u; k < 4u; k++) {
      colour = change(colour, (order >> (2u * k)) & 3u, view, mean);
    }
    colour = pow(colour, vec3f(view.gamma));
    if (view.gray > 0.0) {
      colour = vec3f(luma(colour));
    }
    for (var c = 0u; c < CHANNELS; c++) {
      target_pixels[(start + i) * CHANNELS + c] = colour[c];
    }
  }
}

@compute @workgroup_size(64)
fn blur(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) local: u32,
) {
  let i = (group.x + group.y * groups.x) * 64u + local;
  if (i >= p.views * p.size * p.size) {
    return;
  }
  let sigma = table[i / (p.size * p.size)].sigma;
  let radius = select(0, i32(p.radius), sigma > 0.0);
  let place = select(i32(i % p.size), i32((i / p.size) % p.size), AXIS == 1u);
  let stride = select(1, i32(p.size), AXIS == 1u);
  var total = 0.0;
  var sum = vec3f(0);
  for (var d = -radius; d <= radius; d++) {
    let weight = select(1.0, exp(-0.5 * f32(d * d) / (sigma * sigma)), sigma > 0.0);
    let step = clamp(place + d, 0, i32(p.size) - 1) - place;
    let at = u32(i32(i) + step * stride) * CHANNELS;
    total += weight;
    for (var c = 0u; c < CHANNELS; c++) {
      sum[c] += weight * source_pixels[at + c];
    }
  }
  var value = sum / total;
  if (AXIS == 1u) {
    value = (value - vec3f(p.mean0, p.mean1, p.mean2)) * vec3f(p.scale0, p.scale1, p.scale2);
  }
  for (var c = 0u; c < CHANNELS; c++) {
    target_pixels[i * CHANNELS + c] = value[c];
  }
}
