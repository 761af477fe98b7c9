// The transforms of Winograd's convolution F(4×4, 3×3) (Lavin & Gray 2016, arXiv 1509.09308): a convolution
// with a 3×3 kernel becomes 36 products of matrices, a quarter of the multiplications.
//
//   result = Aᵀ [ Σ k  (G weight Gᵀ) ⊙ (Bᵀ source B) ] A   for tiles of 4×4 pixels, of 6×6 of the source
//
// Along one axis that is a product of polynomials, by their values at six points: 0, ±5/8, ±3/2 and infinity.
// G evaluates the kernel, Bᵀ (transposed interpolation) the source, Aᵀ leads back. These points round half as
// much as the usual 0, ±1, ±2, ∞ (points near ±1 as in Barabasz et al. 2020, arXiv 1803.10986). The gradient
// by the weights is the transposed algorithm: Gᵀ [ Σ tile  (Bᵀ source B) ⊙ (A gradient Aᵀ) ] G.
//
//   source_values    y = Bᵀ x B    x [images, h, w, channels], y [36, tiles, channels]
//   gradient_values  y = A x Aᵀ    x [images, h, w, channels], y [36, tiles, channels]
//   result           y = Aᵀ x A    x [36, tiles, channels], y [images, h, w, channels], plus bias
//   weight_values    y = G x Gᵀ    x [3, 3, lines, channels], y [36, lines, channels]
//   weight_gradient  y = Gᵀ x G    x [36, lines, channels], y [3, 3, lines, channels]
//
// Of images and weights, which may have more channels, these are the `channels` from `first` on. Tiles
// [images, tiles_h, tiles_w] begin at −padding; over the edges of an image there are zeros. An invocation
// transforms one tile, or one line of weights, at four channels. Grid: ceil(n / 64), folded to 2-D.
//
// NORMALISED, the source is relu((x − μ)·γ/σ + β) by batch_norm.wgsl's coefficients [μ, 1/σ, γ/σ, β] of its channels.
//
// @compile source_values NORMALISED=1

// Squares and products of the points are exact.
const P = 0.625;
const Q = 1.5;
const PP = 0.390625;
const QQ = 2.25;
// What G divides by: the products of the differences of a point to the others.
const AT_ZERO = 0.87890625; // P²·Q²
const AT_P = -1.452636718750; // 2P²·(P² − Q²)
const AT_Q = 8.36718750; // 2Q²·(Q² − P²)

// Whether the source is normalised as it is read.
const NORMALISED = 0u;

struct Params {
  // Invocations.
  n: u32,
  // All in vec4: the channels, those of a pixel or a line of weights as a whole, and where they begin in it.
  channels: u32,
  whole: u32,
  first: u32,
  // Lines of weights, and elements from one tap to the next.
  lines: u32,
  tap: u32,
  h: u32,
  w: u32,
  first_tile: u32,
  tiles_h: u32,
  tiles_w: u32,
  padding: u32,
  has_bias: u32,
  // Whether the gradient is added to what is there.
  adds: u32,
  // vec4 of a line of coefficients.
  coefficients: u32,
}

@group(0) @binding(0) var<storage, read> x: array<vec4f>;
@group(0) @binding(0) var<storage, read> turned: array<f32>;
@group(0) @binding(1) var<storage, read> bias: array<vec4f>;
@group(0) @binding(1) var<storage, read> coefficients: array<vec4f>;
@group(0) @binding(2) var<storage, read_write> y: array<vec4f>;
@group(1) @binding(0) var<uniform> p: Params;

alias Three = array<vec4f, 3>;
alias Four = array<vec4f, 4>;
alias Six = array<vec4f, 6>;

// Bᵀ
fn interpolate(d: Six) -> Six {
  let even_p = d[4] - QQ * d[2];
  let odd_p = P * (d[3] - QQ * d[1]);
  let even_q = d[4] - PP * d[2];
  let odd_q = Q * (d[3] - PP * d[1]);
  return Six(
    PP * QQ * d[0] - (PP + QQ) * d[2] + d[4],
    even_p + odd_p,
    even_p - odd_p,
    even_q + odd_q,
    even_q - odd_q,
    PP * QQ * d[1] - (PP + QQ) * d[3] + d[5],
  );
}

// G
fn evaluate(g: Three) -> Six {
  let even_p = (g[0] + PP * g[2]) / AT_P;
  let odd_p = P / AT_P * g[1];
  let even_q = (g[0] + QQ * g[2]) / AT_Q;
  let odd_q = Q / AT_Q * g[1];
  return Six(
    g[0] / AT_ZERO,
    even_p + odd_p,
    even_p - odd_p,
    even_q + odd_q,
    even_q - odd_q,
    g[2],
  );
}

// Gᵀ
fn evaluate_back(m: Six) -> Three {
  let even_p = (m[1] + m[2]) / AT_P;
  let even_q = (m[3] + m[4]) / AT_Q;
  return Three(
    m[0] / AT_ZERO + even_p + even_q,
    P / AT_P * (m[1] - m[2]) + Q / AT_Q * (m[3] - m[4]),
    PP * even_p + QQ * even_q + m[5],
  );
}

// Aᵀ
fn combine(m: Six) -> Four {
  let even_p = m[1] + m[2];
  let odd_p = P * (m[1] - m[2]);
  let even_q = m[3] + m[4];
  let odd_q = Q * (m[3] - m[4]);
  return Four(
    m[0] + even_p + even_q,
    odd_p + odd_q,
    PP * even_p + QQ * even_q,
    PP * odd_p + QQ * odd_q + m[5],
  );
}

// A
fn combine_back(d: Four) -> Six {
  let even_p = d[0] + PP * d[2];
  let odd_p = P * (d[1] + PP * d[3]);
  let even_q = d[0] + QQ * d[2];
  let odd_q = Q * (d[1] + QQ * d[3]);
  return Six(
    d[0],
    even_p + odd_p,
    even_p - odd_p,
    even_q + odd_q,
    even_q - odd_q,
    d[3],
  );
}

// A tile at four of its channels: where it begins in the image, and the vec4 of the channels.
struct Tile {
  image: u32,
  row: u32,
  column: u32,
  channel: u32,
}

fn tile(i: u32) -> Tile {
  let t = p.first_tile + i / p.channels;
  let line = t / p.tiles_w;
  return Tile(
    line / p.tiles_h,
    line % p.tiles_h * 4u - p.padding,
    t % p.tiles_w * 4u - p.padding,
    p.first + i % p.channels,
  );
}

// Rows and columns before the first wrap round, and are then past the last.
fn is_inside(t: Tile, row: u32, column: u32) -> bool {
  return t.row + row < p.h && t.column + column < p.w;
}

fn pixel_index(t: Tile, row: u32, column: u32) -> u32 {
  return ((t.image * p.h + t.row + row) * p.w + t.column + column) * p.whole + t.channel;
}

fn pixel(t: Tile, row: u32, column: u32) -> vec4f {
  let inside = is_inside(t, row, column);
  return select(vec4f(), x[select(0u, pixel_index(t, row, column), inside)], inside);
}

// A batch normalisation at four channels.
struct Affine {
  mean: vec4f,
  scale: vec4f,
  shift: vec4f,
}

fn affine(channel: u32) -> Affine {
  return Affine(
    coefficients[channel],
    coefficients[channel + 2u * p.coefficients],
    coefficients[channel + 3u * p.coefficients],
  );
}

// A pixel, normalised where that is asked for; around the image there are zeros all the same.
fn source(t: Tile, row: u32, column: u32, by: Affine) -> vec4f {
  let four = pixel(t, row, column);
  if (NORMALISED == 1u) {
    let normalised = max((four - by.mean) * by.scale + by.shift, vec4f());
    return select(vec4f(), normalised, is_inside(t, row, column));
  }
  return four;
}

fn weight_index(i: u32) -> u32 {
  return i / p.channels * p.whole + p.first + i % p.channels;
}

fn invocation(group: vec3u, groups: vec3u, local: u32) -> u32 {
  return (group.x + group.y * groups.x) * 64u + local;
}

@compute @workgroup_size(64)
fn source_values(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) local: u32,
) {
  let i = invocation(group, groups, local);
  if (i >= p.n) {
    return;
  }
  let t = tile(i);
  var by = Affine();
  if (NORMALISED == 1u) {
    by = affine(t.channel);
  }
  var lines: array<Six, 6>;
  // @unroll
  for (var r = 0u; r < 6u; r++) {
    lines[r] = interpolate(Six(
      source(t, r, 0u, by),
      source(t, r, 1u, by),
      source(t, r, 2u, by),
      source(t, r, 3u, by),
      source(t, r, 4u, by),
      source(t, r, 5u, by),
    ));
  }
  // @unroll
  for (var c = 0u; c < 6u; c++) {
    let values = interpolate(Six(
      lines[0][c],
      lines[1][c],
      lines[2][c],
      lines[3][c],
      lines[4][c],
      lines[5][c],
    ));
    // @unroll
    for (var r = 0u; r < 6u; r++) {
      y[(r * 6u + c) * p.n + i] = values[r];
    }
  }
}

@compute @workgroup_size(64)
fn gradient_values(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) local: u32,
) {
  let i = invocation(group, groups, local);
  if (i >= p.n) {
    return;
  }
  let t = tile(i);
  var lines: array<Six, 4>;
  // @unroll
  for (var r = 0u; r < 4u; r++) {
    lines[r] = combine_back(Four(pixel(t, r, 0u), pixel(t, r, 1u), pixel(t, r, 2u), pixel(t, r, 3u)));
  }
  // @unroll
  for (var c = 0u; c < 6u; c++) {
    let values = combine_back(Four(lines[0][c], lines[1][c], lines[2][c], lines[3][c]));
    // @unroll
    for (var r = 0u; r < 6u; r++) {
      y[(r * 6u + c) * p.n + i] = values[r];
    }
  }
}

@compute @workgroup_size(64)
fn result(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) local: u32,
) {
  let i = invocation(group, groups, local);
  if (i >= p.n) {
    return;
  }
  let t = tile(i);
  var lines: array<Four, 6>;
  // @unroll
  for (var r = 0u; r < 6u; r++) {
    lines[r] = combine(Six(
      x[(r * 6u + 0u) * p.n + i],
      x[(r * 6u + 1u) * p.n + i],
      x[(r * 6u + 2u) * p.n + i],
      x[(r * 6u + 3u) * p.n + i],
      x[(r * 6u + 4u) * p.n + i],
      x[(r * 6u + 5u) * p.n + i],
    ));
  }
  var start = vec4f();
  if (p.has_bias == 1u) {
    start = bias[t.channel];
  }
  // @unroll
  for (var c = 0u; c < 4u; c++) {
    let pixels = combine(Six(
      lines[0][c],
      lines[1][c],
      lines[2][c],
      lines[3][c],
      lines[4][c],
      lines[5][c],
    ));
    // @unroll
    for (var r = 0u; r < 4u; r++) {
      if (is_inside(t, r, c)) {
        y[pixel_index(t, r, c)] = start + pixels[r];
      }
    }
  }
}

@compute @workgroup_size(64)
fn weight_values(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) local: u32,
) {
  let i = invocation(group, groups, local);
  if (i >= p.n) {
    return;
  }
  let start = weight_index(i);
  var lines: array<Six, 3>;
  // @unroll
  for (var r = 0u; r < 3u; r++) {
    lines[r] = evaluate(Three(
      x[start + (r * 3u + 0u) * (p.tap / 4u)],
      x[start + (r * 3u + 1u) * (p.tap / 4u)],
      x[start + (r * 3u + 2u) * (p.tap / 4u)],
    ));
  }
  // @unroll
  for (var c = 0u; c < 6u; c++) {
    let values = evaluate(Three(lines[0][c], lines[1][c], lines[2][c]));
    // @unroll
    for (var r = 0u; r < 6u; r++) {
      y[(r * 6u + c) * p.n + i] = values[r];
    }
  }
}

// The weights of the way back at a tap: rotated, and the channels are lines. They begin at element i.
fn turned_weight(tap: u32, i: u32) -> vec4f {
  let j = (8u - tap) * p.tap + i;
  return vec4f(turned[j], turned[j + p.lines], turned[j + 2u * p.lines], turned[j + 3u * p.lines]);
}

@compute @workgroup_size(64)
fn weight_values_back(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) local: u32,
) {
  let i = invocation(group, groups, local);
  if (i >= p.n) {
    return;
  }
  // Neighbours read along the lines of the weights in memory.
  let line = i % p.lines;
  let channel = i / p.lines;
  let start = (p.first + channel) * 4u * p.lines + line;
  var lines: array<Six, 3>;
  // @unroll
  for (var r = 0u; r < 3u; r++) {
    lines[r] = evaluate(Three(
      turned_weight(r * 3u + 0u, start),
      turned_weight(r * 3u + 1u, start),
      turned_weight(r * 3u + 2u, start),
    ));
  }
  // @unroll
  for (var c = 0u; c < 6u; c++) {
    let values = evaluate(Three(lines[0][c], lines[1][c], lines[2][c]));
    // @unroll
    for (var r = 0u; r < 6u; r++) {
      y[(r * 6u + c) * p.n + line * p.channels + channel] = values[r];
    }
  }
}

@compute @workgroup_size(64)
fn weight_gradient(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) local: u32,
) {
  let i = invocation(group, groups, local);
  if (i >= p.n) {
    return;
  }
  let start = weight_index(i);
  var lines: array<Three, 6>;
  // @unroll
  for (var r = 0u; r < 6u; r++) {
    lines[r] = evaluate_back(Six(
      x[(r * 6u + 0u) * p.n + i],
      x[(r * 6u + 1u) * p.n + i],
      x[(r * 6u + 2u) * p.n + i],
      x[(r * 6u + 3u) * p.n + i],
      x[(r * 6u + 4u) * p.n + i],
      x[(r * 6u + 5u) * p.n + i],
    ));
  }
  // @unroll
  for (var c = 0u; c < 3u; c++) {
    let taps = evaluate_back(Six(
      lines[0][c],
      lines[1][c],
      lines[2][c],
      lines[3][c],
      lines[4][c],
      lines[5][c],
    ));
    // @unroll
    for (var r = 0u; r < 3u; r++) {
      let j = start + (r * 3u + c) * (p.tap / 4u);
      if (p.adds == 1u) {
        y[j] += taps[r];
      } else {
        y[j] = taps[r];
      }
    }
  }
}
