/**
 * Random views of images on the GPU. What is random is drawn on the CPU by a counter-based
 * generator (a few numbers a view), the pixels are made in `shaders/augment.wgsl`.
 */
import source from "../../shaders/augment.wgsl" with { type: "text" };
import type { Gpu } from "../gpu/gpu.ts";
import { foldGroups, grid1d, Shader } from "../gpu/shader.ts";
import { Random } from "../random.ts";
import type { Tensor } from "../tensor.ts";

const shader = new Shader("augment", source);

/** A closed interval to draw from uniformly. */
export type Range = readonly [low: number, high: number];

/** A recipe for views. Factors of colour operations are drawn from [1 − x, 1 + x]. */
export interface Augmentation {
  /** Part of the image's area that the crop covers. */
  readonly area: Range;
  /** Width over height of the crop, drawn log-uniformly. */
  readonly aspect: Range;
  /** Probability of mirroring left and right. */
  readonly flip: number;
  /** Largest rotation either way, in degrees. */
  readonly rotation: number;
  /** Probability of the colour operations. */
  readonly jitter: number;
  readonly brightness: number;
  readonly contrast: number;
  readonly saturation: number;
  /** Largest turn of the colour circle either way, as a fraction of it. */
  readonly hue: number;
  /** Exponent, drawn log-uniformly. */
  readonly gamma: Range;
  /** Probability of shades of gray. */
  readonly gray: number;
  /** Probability of a Gaussian blur of a tenth of the image, σ ~ U(0.1, 2) pixels. */
  readonly blur: number;
}

/** Views that only scale and normalise. */
const none: Augmentation = {
  area: [1, 1],
  aspect: [1, 1],
  flip: 0,
  rotation: 0,
  jitter: 0,
  brightness: 0,
  contrast: 0,
  saturation: 0,
  hue: 0,
  gamma: [1, 1],
  gray: 0,
  blur: 0,
};

/** Chen et al. 2020 (arXiv 2002.05709), appendix A, colour strength 1. */
const simclr: Augmentation = {
  ...none,
  area: [0.08, 1],
  aspect: [3 / 4, 4 / 3],
  flip: 0.5,
  jitter: 0.8,
  brightness: 0.8,
  contrast: 0.8,
  saturation: 0.8,
  hue: 0.2,
  gray: 0.2,
  blur: 0.5,
};

/** The recipes by name. */
export const presets = {
  simclr,
  /** The paper's CIFAR-10 recipe: strength 0.5, no blur. */
  "simclr-cifar": {
    ...simclr,
    brightness: 0.4,
    contrast: 0.4,
    saturation: 0.4,
    hue: 0.1,
    blur: 0,
  },
  /**
   * For radiographs, which have one channel and a left and a right: no flip (it mirrors the heart), no
   * colours, small rotations and changes of exposure, larger crops.
   */
  medical: {
    ...none,
    area: [0.25, 1],
    aspect: [3 / 4, 4 / 3],
    rotation: 10,
    jitter: 0.8,
    brightness: 0.4,
    contrast: 0.4,
    gamma: [0.8, 1.25],
    blur: 0.5,
  },
  none,
} as const satisfies Record<string, Augmentation>;

/** Name of a recipe. */
export type Preset = keyof typeof presets;

/** Subtracted and divided by, a channel: pixels are in [0, 1]. */
export interface Normalization {
  readonly mean: readonly number[];
  readonly std: readonly number[];
}

const fieldsPerView = 16;

/**
 * Draws views of images that lie on the GPU.
 *
 * @param images u8 [n, size, size, channels]
 * @param rows the image of each view, in the order of the result; a row may come up several times
 * @param seed of all draws; a view depends on it, on `counter` and on its position in `rows` alone
 * @param counter which batch this is: the training step
 * @returns f32 [rows, size, size, channels], normalised
 */
export function drawViews(
  images: Tensor<"u8">,
  rows: readonly number[],
  { preset, normalization, seed, counter }: {
    preset: Preset;
    normalization: Normalization;
    seed: number;
    counter: number;
  },
): Tensor<"f32"> {
  const [, size, , channels] = images.shape as [number, number, number, number];
  const table = new Float32Array(rows.length * fieldsPerView);
  rows.forEach((row, i) => {
    const random = new Random(seed, "views", counter * rows.length + i);
    table.set(drawView(presets[preset], random, row, size), i * fieldsPerView);
  });
  return render(images, images.gpu.tensor(table), rows.length, normalization, channels);
}

/** The numbers of one view, in the order of `View` in the shader. */
function drawView(recipe: Augmentation, random: Random, image: number, size: number): number[] {
  const { flip, rotation, jitter, hue, gray, blur } = recipe;
  const chance = (probability: number) => random.uniform() < probability;
  const factor = (strength: number) => random.uniform(Math.max(0, 1 - strength), 1 + strength);
  const transform = drawTransform(
    recipe,
    random,
    size,
    chance(flip),
    random.uniform(-rotation, rotation),
  );
  const jittered = chance(jitter);
  const colours = [
    factor(recipe.brightness),
    factor(recipe.contrast),
    factor(recipe.saturation),
    random.uniform(-hue, hue),
    logUniform(random, recipe.gamma),
  ];
  const order = random.shuffle([0, 1, 2, 3]).reduce((bits, op, i) => bits | (op << (2 * i)), 0);
  const isGray = chance(gray) ? 1 : 0;
  const sigma = chance(blur) ? random.uniform(0.1, 2) : 0;
  return [...transform, image, ...(jittered ? colours : [1, 1, 1, 0, 1]), isGray, sigma, order, 0];
}

/** Source coordinates as an affine map of the view's: random resized crop, flip, rotation. */
function drawTransform(
  { area, aspect }: Augmentation,
  random: Random,
  size: number,
  flipped: boolean,
  degrees: number,
): number[] {
  const { width, height, x, y } = drawCrop(area, aspect, random, size);
  const mirror = flipped ? -1 : 1;
  const angle = degrees * Math.PI / 180;
  const [cos, sin] = [Math.cos(angle), Math.sin(angle)];
  const [sx, sy] = [mirror * width / size, height / size];
  const [xx, xy, yx, yy] = [cos * sx, -sin * sy, sin * sx, cos * sy];
  // The centre of the view is the centre of the crop.
  const half = size / 2;
  const [cx, cy] = [x + width / 2, y + height / 2];
  return [xx, xy, cx - half * (xx + xy), yx, yy, cy - half * (yx + yy)];
}

/** As torchvision's RandomResizedCrop: ten tries, then the largest central crop of a legal aspect. */
function drawCrop(area: Range, aspect: Range, random: Random, size: number) {
  for (let attempt = 0; attempt < 10; attempt++) {
    const pixels = size * size * random.uniform(area[0], area[1]);
    const ratio = logUniform(random, aspect);
    const [width, height] = [Math.sqrt(pixels * ratio), Math.sqrt(pixels / ratio)];
    if (width <= size && height <= size) {
      const [x, y] = [random.uniform(0, size - width), random.uniform(0, size - height)];
      return { width, height, x, y };
    }
  }
  return { width: size, height: size, x: 0, y: 0 };
}

function logUniform(random: Random, [low, high]: Range): number {
  return Math.exp(random.uniform(Math.log(low), Math.log(high)));
}

function render(
  images: Tensor<"u8">,
  table: Tensor,
  views: number,
  { mean, std }: Normalization,
  channels: number,
): Tensor<"f32"> {
  const { gpu, shape } = images;
  const size = shape[1]!;
  const constants = { CHANNELS: channels };
  const params = {
    views,
    size,
    radius: Math.max(1, Math.floor(size / 20)),
    mean0: mean[0]!,
    mean1: mean[1] ?? 0,
    mean2: mean[2] ?? 0,
    scale0: 1 / std[0]!,
    scale1: 1 / (std[1] ?? 1),
    scale2: 1 / (std[2] ?? 1),
  };
  const result = gpu.empty([views, size, size, channels]);
  gpu.scope(() => {
    const blurred = gpu.empty(result.shape);
    const pixels = grid1d(views * size * size, 64);
    const pass = (entry: string, more: Record<string, number>, from: Tensor, to: Tensor) =>
      gpu.run(
        shader.kernel(entry, { ...constants, ...more }),
        { images: from, source_pixels: from, table, target_pixels: to },
        params,
        entry === "colour" ? foldGroups(views) : pixels,
      );
    pass("sample", {}, images, result);
    pass("colour", {}, images, result);
    pass("blur", { AXIS: 0 }, result, blurred);
    pass("blur", { AXIS: 1 }, blurred, result);
  });
  return result;
}

/** Images as f32 without any augmentation: [rows, size, size, channels], normalised. */
export function plainViews(
  images: Tensor<"u8">,
  rows: readonly number[],
  normalization: Normalization,
): Tensor<"f32"> {
  return drawViews(images, rows, { preset: "none", normalization, seed: 0, counter: 0 });
}

/** Mean and standard deviation of pixels in [0, 1], a channel: those of the training images. */
export function measureNormalization(pixels: Uint8Array, channels: number): Normalization {
  const sum = new Array<number>(channels).fill(0);
  const squares = new Array<number>(channels).fill(0);
  for (let i = 0; i < pixels.length; i++) {
    const value = pixels[i]! / 255;
    sum[i % channels]! += value;
    squares[i % channels]! += value * value;
  }
  const count = Math.max(1, pixels.length / channels);
  const mean = sum.map((s) => s / count);
  const std = squares.map((s, c) =>
    Math.max(Math.sqrt(Math.max(0, s / count - mean[c]! ** 2)), 1e-3)
  );
  return { mean, std };
}
