/**
 * Random views of images on the GPU. What is random is drawn on the CPU by a counter-based
 * generator (a few numbers a view), the pixels are made in `shaders/augment.wgsl`.
 */
import source from "../../shaders/augment.wgsl" with { type: "text" };
import type { Gpu } from "../gpu/gpu.ts";
import { Shader } from "../gpu/shader.ts";
import { slice } from "../ops/shape.ts";
import type { Grid } from "../gpu/stream.ts";
import { Random } from "../random.ts";
import { sizeOf, Tensor } from "../tensor.ts";

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
  /** Largest change of the factor that pixels are multiplied by. */
  readonly brightness: number;
  /** Largest change of the factor that scales the distance to the mean of the image. */
  readonly contrast: number;
  /** Largest change of the factor that scales the distance to gray. */
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
  /** For fine-tuning: the whole image but for a border, turned and exposed a little; no flip. */
  light: {
    ...none,
    area: [0.8, 1],
    aspect: [0.9, 1.1],
    rotation: 10,
    jitter: 0.8,
    brightness: 0.2,
    contrast: 0.2,
  },
  none,
} as const satisfies Record<string, Augmentation>;

/** Name of a recipe. */
export type Preset = keyof typeof presets;

/** Mean and standard deviation of pixels in [0, 1], a channel. */
export interface Normalization {
  /** Subtracted. */
  readonly mean: readonly number[];
  /** Divided by. */
  readonly std: readonly number[];
}

/** The operations of torchvision's ColorJitter. */
export type ColourOperation = "brightness" | "contrast" | "saturation" | "hue";

/** Pixel (x, y) of a view shows its image at (xx·x + xy·y + x0, yx·x + yy·y + y0). */
export type Transform = readonly [
  xx: number,
  xy: number,
  x0: number,
  yx: number,
  yy: number,
  y0: number,
];

/** One view of an image: the numbers that were drawn for it. */
export interface View {
  /** Position of the image in the set. */
  readonly image: number;
  /** In pixels with centres at one half. What lies outside the image shows its edge. */
  readonly transform: Transform;
  /**
   * In the order of application: factors, and for hue the fraction of the colour circle to turn by, as
   * in torchvision's `adjust_…`. Images of one channel have no saturation and hue.
   */
  readonly jitter: ReadonlyMap<ColourOperation, number>;
  /** Exponent, applied after the jitter; 1 for none. */
  readonly gamma: number;
  /** Shades of gray, after gamma. */
  readonly gray: boolean;
  /** Standard deviation of the Gaussian blur in pixels; 0 for none. */
  readonly sigma: number;
}

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
  { recipe, normalization, seed, counter }: {
    recipe: Augmentation;
    normalization: Normalization;
    seed: number;
    counter: number;
  },
): Tensor<"f32"> {
  const batchSeed = new Random(seed, "views", counter).u32();
  const views = rows.map((image, i) =>
    drawView(recipe, new Random(batchSeed, "view", i), image, images.shape[1]!)
  );
  return renderViews(images, views, normalization);
}

/** Draws one view of an image of a size. */
export function drawView(
  recipe: Augmentation,
  random: Random,
  image: number,
  size: number,
): View {
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
  const adjustments: [ColourOperation, number][] = [
    ["brightness", factor(recipe.brightness)],
    ["contrast", factor(recipe.contrast)],
    ["saturation", factor(recipe.saturation)],
    ["hue", random.uniform(-hue, hue)],
  ];
  const gamma = logUniform(random, recipe.gamma);
  random.shuffle(adjustments);
  return {
    image,
    transform,
    jitter: new Map(jittered ? adjustments : []),
    gamma: jittered ? gamma : 1,
    gray: chance(gray),
    sigma: chance(blur) ? random.uniform(0.1, 2) : 0,
  };
}

/** Random resized crop, flip, rotation about the centre of the crop. */
function drawTransform(
  { area, aspect }: Augmentation,
  random: Random,
  size: number,
  flipped: boolean,
  degrees: number,
): Transform {
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

/** As torchvision's RandomResizedCrop, but not on whole pixels: ten tries, then the whole image. */
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

/** Pixels a side that a group makes, and steps of a column that an invocation blurs. */
const [tile, strip] = [32, 16];

/** Bytes of views that one kernel leaves to the next in the caches of a processor. */
const cached = 1 << 22;

/**
 * Makes views: transform, jitter, gamma, gray, blur, normalisation, in this order.
 *
 * @param images u8 [n, size, size, channels]
 * @returns f32 [views, size, size, channels]
 * @throws {RangeError} for images below 4×4 and for more than 65 535 views
 */
export function renderViews(
  images: Tensor<"u8">,
  views: readonly View[],
  normalization: Normalization,
): Tensor<"f32"> {
  const { gpu } = images;
  const { size, channels } = checkImages(images, views.length);
  const params = paramsOf(size, normalization);
  const shape = [size, 4 * params.quads, channels];
  const bytes = 4 * sizeOf(shape);
  const { isFallback } = gpu.adapter;
  const constants = {
    CHANNELS: channels,
    // Software has few lanes to fill, and a run begins with rows of its own.
    RUNS: isFallback ? 1 : 4,
    // A GPU has caches to load pixels from again.
    POSE: poseOf(views, isFallback && channels === 1 && size % 4 === 0),
    GAMMA: Number(views.some(({ gamma }) => gamma !== 1)),
  };
  return gpu.scope(() => {
    const result = gpu.empty([views.length, ...shape]);
    // A part begins at a multiple of 256 bytes, as 16 views do.
    const most = isFallback ? 16 * Math.ceil(cached / (16 * bytes)) : Math.max(1, views.length);
    const parts: Part[] = [];
    // All are uploaded first, because an upload submits what was recorded before.
    for (let first = 0; first < views.length; first += most) {
      parts.push(upload(gpu, views.slice(first, first + most)));
    }
    parts.forEach((part, i) => {
      const { storage } = result;
      const offset = i * most * bytes;
      const pixels = new Tensor(gpu, storage, [part.count, ...shape], "f32", offset);
      gpu.scope(() => fill(pixels, images, part, params, constants));
    });
    return 4 * params.quads === size
      ? result
      : slice(result, [0, 0, 0, 0], [views.length, size, size, channels]) as Tensor<"f32">;
  });
}

/** Views on the GPU, and those of them that more than one kernel makes. */
interface Part {
  readonly count: number;
  readonly table: Tensor;
  readonly coloured: Chosen;
  readonly blurred: Chosen;
}

function upload(gpu: Gpu, views: readonly View[]): Part {
  return {
    count: views.length,
    table: gpu.tensor(views.flatMap(pack)),
    coloured: choose(gpu, views, isColoured),
    blurred: choose(gpu, views, ({ sigma }) => sigma > 0),
  };
}

/** Makes views in `pixels` f32 [views, size, 4·quads, channels]. */
function fill(
  pixels: Tensor<"f32">,
  images: Tensor<"u8">,
  { count, table, coloured, blurred }: Part,
  params: ReturnType<typeof paramsOf>,
  { CHANNELS, RUNS, POSE, GAMMA }: Record<
    "CHANNELS" | "RUNS" | "POSE" | "GAMMA",
    number
  >,
): void {
  const { gpu } = images;
  const { size, quads } = params;
  const tiles = Math.ceil(size / tile);
  const buffers = { images, table, sums: gpu.empty([count, tiles, tiles]) };
  const run = (
    entry: string,
    constants: Record<string, number>,
    tensors: Record<string, Tensor>,
    grid: Grid,
  ) =>
    gpu.run(
      shader.kernel(entry, { CHANNELS, ...constants }),
      { ...buffers, ...tensors },
      params,
      grid,
    );
  run("sample", { RUNS, POSE }, { target_quads: pixels }, [tiles, tiles, count]);
  if (coloured.count > 0) {
    const { chosen, count } = coloured;
    run("contrast", { RUNS, GAMMA }, { chosen, target_quads: pixels }, [tiles, tiles, count]);
  }
  if (blurred.count > 0) {
    const { chosen, count } = blurred;
    const half = gpu.empty(pixels.shape);
    // The kernel spans a tenth of the image.
    const RADIUS = Math.max(1, Math.floor(size / 20));
    const SPAN = [4, 3, 2, 1].find((n) => quads % n === 0)!;
    const spans = size * quads / SPAN;
    const strips = quads * CHANNELS * Math.ceil(size / strip);
    run(
      "blur_rows",
      { RADIUS, SPAN, REST: 4 * quads - size },
      { chosen, source_quads: pixels, target_quads: half },
      [Math.ceil(spans / 64), count, 1],
    );
    run(
      "blur_columns",
      { RADIUS },
      { chosen, source_quads: half, target_quads: pixels },
      [Math.ceil(strips / 64), count, 1],
    );
  }
}

/** POSE of the shader for views, of which those turned a little may or may not be set apart. */
function poseOf(views: readonly View[], apart: boolean): number {
  if (views.every(isUpright)) return 0;
  return apart && views.every(isTurned) ? 1 : 2;
}

/** Whether the rows of a view are rows of its image, from top to bottom, and near enough to share what they show. */
function isUpright({ transform: [, xy, , yx, yy] }: View): boolean {
  return xy === 0 && yx === 0 && yy >= 0 && yy < 4;
}

/** Whether four pixels of a row move by a row of the image at most, and in a tile by 9 columns; and downwards. */
function isTurned({ transform: [xx, xy, , yx, yy] }: View): boolean {
  const [columns, rows] = [3 * Math.abs(xx) + (tile - 1) * Math.abs(xy), 3 * Math.abs(yx)];
  return columns < 8.9 && rows < 0.9 && yy >= 0 && yy < 4;
}

/** Positions of views, `count` of them; the tensor's size does not depend on how many these are. */
interface Chosen {
  readonly chosen: Tensor<"u32">;
  readonly count: number;
}

/** The views that match. */
function choose(gpu: Gpu, views: readonly View[], matches: (view: View) => boolean): Chosen {
  const positions = [...views.keys()].filter((i) => matches(views[i]!));
  const padded = new Uint32Array(views.length);
  padded.set(positions);
  return { chosen: gpu.tensor(padded), count: positions.length };
}

/** Images as f32 without any augmentation: [rows, size, size, channels], normalised. */
export function plainViews(
  images: Tensor<"u8">,
  rows: readonly number[],
  normalization: Normalization,
): Tensor<"f32"> {
  const { gpu } = images;
  const { size, channels } = checkImages(images, rows.length);
  const result = gpu.empty([rows.length, size, size, channels]);
  gpu.scope(() =>
    gpu.run(
      shader.kernel("plain", { CHANNELS: channels }),
      { images, rows: gpu.tensor(Uint32Array.from(rows)), target_pixels: result },
      paramsOf(size, normalization),
      [Math.ceil(size * size * channels / 256), rows.length, 1],
    )
  );
  return result;
}

function checkImages({ shape }: Tensor, views: number): { size: number; channels: number } {
  const [, size, , channels] = shape as [number, number, number, number];
  if (size < 4) throw new RangeError(`views: images [${shape}] are smaller than 4×4`);
  if (views > 65535) throw new RangeError(`views: ${views} at once, at most 65535`);
  return { size, channels };
}

function paramsOf(size: number, { mean, std }: Normalization) {
  return {
    size,
    quads: Math.ceil(size / 4),
    mean0: mean[0]!,
    mean1: mean[1] ?? 0,
    mean2: mean[2] ?? 0,
    scale0: 1 / std[0]!,
    scale1: 1 / (std[1] ?? 1),
    scale2: 1 / (std[2] ?? 1),
  };
}

/** Whether a view takes the second pass over its colours. */
function isColoured({ jitter, gamma, gray }: View): boolean {
  return jitter.has("contrast") || gamma !== 1 || gray;
}

/** `Changes` in the shader: any order of operations is a part of this one, in which hue comes but once. */
const places: readonly ColourOperation[] = [
  "brightness",
  "saturation",
  "brightness",
  "hue",
  "brightness",
  "saturation",
  "brightness",
];

/** Operations without contrast as `Changes`. */
function changesOf(operations: readonly [ColourOperation, number][]): number[] {
  const changes = places.map((operation): number => operation === "hue" ? 0 : 1);
  let place = 0;
  for (const [operation, by] of operations) {
    place = places.indexOf(operation, place);
    changes[place] = by;
  }
  return changes;
}

/** A view as `View` in the shader. */
function pack(view: View): number[] {
  const { image, transform, jitter, gamma, gray, sigma } = view;
  const operations = [...jitter];
  const contrast = operations.findIndex(([operation]) => operation === "contrast");
  const turn = contrast < 0 ? operations.length : contrast;
  return [
    ...transform,
    image,
    ...changesOf(operations.slice(0, turn)),
    jitter.get("contrast") ?? 1,
    ...changesOf(operations.slice(turn + 1)),
    gamma,
    gray ? 0 : 1,
    sigma,
    isColoured(view) ? 0 : 1,
  ];
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
