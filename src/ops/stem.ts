/**
 * Convolutions of images of one to three channels, as the first of every encoder, on software adapters
 * (see stem.wgsl). What gemm.ts does there is mostly to load: it reads such images number by number, and for
 * the few columns of their gradient all weights anew.
 */
import source from "../../shaders/stem.wgsl" with { type: "text" };
import type { Gpu } from "../gpu/gpu.ts";
import { foldGroups, Shader } from "../gpu/shader.ts";
import type { Tensor } from "../tensor.ts";
import { castInto } from "./cast.ts";
import { type ImageOptions, reversed, type Taps } from "./gemm.ts";
import { reduceInto } from "./reduce.ts";

const shader = new Shader("stem", source);

/** LANES and PIXELS of stem.wgsl. */
const lanes = 8;
const pixels = 8;

/**
 * Weights of a column that an invocation holds, or of pairs of columns the sums: what the driver compiles in a
 * quarter of a second, or in half of one where there are two blocks of sums, and what then fits in the
 * processor's cache of instructions.
 */
const held = 56;

/**
 * Weights of its columns that an invocation of image holds, or of image_back where steps are of two pixels: what
 * compiles in half a second.
 */
const most = 150;

/** Multiply-adds of a tile in image, unless it has the fewest pixels: more outgrow the cache of instructions. */
const code = 900;

/** Multiply-adds of vec4 of a step in image_back, unless its strip has the fewest lines: more outgrow that cache. */
const tall = 200;

/** Pixels of the result that an invocation takes one after another, for accuracy and the limit of its loops. */
const longest = 8192;

/** Whether {@linkcode stemImage} computes a convolution, and faster than `imageProduct`. */
export function stemImagePays(gpu: Gpu, taps: Taps, channels: number, columns: number): boolean {
  return isStem(gpu, taps, channels, columns) && taps.kernelHeight * lineOf(taps, channels) <= most;
}

/** Whether {@linkcode stemWeights} computes a gradient by weights, and faster than `weightsProduct`. */
export function stemWeightsPays(
  x: Tensor,
  taps: Taps,
  channels: number,
  columns: number,
): boolean {
  return isStem(x.gpu, taps, channels, columns) && lineOf(taps, channels) <= held &&
    columns <= 2 * lanes * vectorOf(x, columns);
}

/** Whether {@linkcode stemBack} computes a gradient by the input, and faster than `imageProduct`. */
export function stemBackPays(gpu: Gpu, taps: Taps, channels: number, columns: number): boolean {
  const { kernelHeight, kernelWidth, stride, padding } = taps;
  return isStem(gpu, taps, channels, columns) && columns % 4 === 0 &&
    // Every strip begins at the same taps, and sees no less of dy than lies over it.
    pixels % stride === 0 && padding < Math.min(kernelHeight, kernelWidth) &&
    // For the time to compile, and the limit of loops.
    kernelHeight * lineOf(taps, channels) <= 2 * held * Math.min(4, stride) &&
    stepsOf(taps, columns) <= longest;
}

function isStem(gpu: Gpu, taps: Taps, channels: number, columns: number): boolean {
  return gpu.adapter.isFallback && gpu.subgroupSize === lanes && channels <= 3 &&
    taps.sourceWidth * channels % 4 === 0 && columns % 2 === 0 && taps.resultWidth <= longest;
}

/** Elements that a line of the kernel covers. */
function lineOf(taps: Taps, channels: number): number {
  return taps.kernelWidth * channels;
}

/** `imageProduct` where {@linkcode stemImagePays}. */
export function stemImage(
  y: Tensor,
  x: Tensor,
  weight: Tensor,
  taps: Taps,
  channels: number,
  columns: number,
  { bias, moments: leaves = false }: Pick<ImageOptions, "bias" | "moments"> = {},
): Tensor | null {
  const { gpu } = y;
  const weights = taps.kernelHeight * lineOf(taps, channels);
  const vector = vectorOf(y, columns);
  const params = paramsOf(taps, channels, columns / vector);
  // Two blocks of columns share what they see, and write it as it lies in memory.
  const BLOCKS = params.column_tiles > 1 && 2 * weights <= held ? 2 : 1;
  const column_tiles = Math.ceil(params.column_tiles / BLOCKS);
  // Each tile of pixels begins where a vec4 does.
  const fewest = taps.stride * channels % 2 === 0 ? 2 : 4;
  const PIXELS = [pixels, pixels / 2].find((count) => count * weights * vector * BLOCKS <= code) ??
    fewest;
  const share = Math.min(16, params.share);
  const parts = Math.ceil(params.rows / share);
  const constants = {
    ...constantsOf(taps, channels, vector),
    PIXELS,
    BLOCKS,
    ...(leaves && { MOMENTS: 1 }),
  };
  return gpu.scope(() => {
    const moments = leaves ? gpu.empty([parts, 3, columns]) : null;
    gpu.run(
      shader.kernel("image", constants),
      { x, b: weight, bias: bias ?? gpu.one, y, moments },
      { ...params, column_tiles, share, has_bias: bias === undefined ? 0 : 1 },
      foldGroups(parts * column_tiles),
      2 * y.size * weights,
    );
    return moments;
  });
}

/** `weightsProduct` where {@linkcode stemWeightsPays}. */
export function stemWeights(
  dw: Tensor,
  x: Tensor,
  dy: Tensor,
  taps: Taps,
  channels: number,
  columns: number,
): void {
  const { gpu } = dw;
  const { kernelHeight } = taps;
  const line = lineOf(taps, channels);
  const vector = vectorOf(dy, columns);
  const LINES = Math.min(kernelHeight, Math.max(1, Math.floor(2 * held / vector / line)));
  const params = paramsOf(taps, channels, columns / vector);
  const BLOCKS = params.column_tiles;
  const PIXELS = pixels / BLOCKS;
  const share = Math.min(Math.ceil(params.rows / 32), params.share);
  const parts = Math.ceil(params.rows / share);
  gpu.scope(() => {
    const y = gpu.empty([parts, dw.size]);
    gpu.run(
      shader.kernel("weights", { ...constantsOf(taps, channels, vector), LINES, PIXELS, BLOCKS }),
      { x, b: dy, y },
      { ...params, column_tiles: 1, share, has_bias: 0 },
      foldGroups(parts * Math.ceil(kernelHeight / LINES)),
      2 * dy.size * kernelHeight * line,
    );
    reduceInto("sum", y, [1, dw.size], 1, dw);
  });
}

/** `imageProduct` for taps that lead back, where {@linkcode stemBackPays}. */
export function stemBack(
  dx: Tensor,
  dy: Tensor,
  weight: Tensor,
  taps: Taps,
  columns: number,
  channels: number,
): void {
  const { gpu } = dx;
  const forth = reversed(taps);
  const { images, kernelHeight, stride, sourceHeight } = forth;
  const weights = kernelHeight * lineOf(taps, channels);
  const vectors = columns / 4;
  const FOLDS = Math.ceil(Math.log2(Math.min(lanes, vectors)));
  // Blocks of columns: all, and what an invocation takes at a time.
  const blocks = Math.ceil(vectors / lanes);
  const room = Math.max(1, Math.floor(most * Math.min(1, stride / 2) / weights));
  const BLOCKS = Math.ceil(blocks / Math.ceil(blocks / room));
  if (dx.dtype === "f16" && BLOCKS < blocks) {
    // Sums over some of the blocks lie in dx meanwhile.
    return gpu.scope(() => {
      const wide = gpu.empty(dx.shape);
      stemBack(wide, dy, weight, taps, columns, channels);
      castInto(wide, dx);
    });
  }
  const PIXELS = [2 * pixels, pixels].find((count) => count * weights * BLOCKS <= tall * stride) ??
    Math.max(stride, pixels / 2);
  const strips = images * Math.ceil(sourceHeight / PIXELS) * 2 ** FOLDS / lanes;
  const share = Math.ceil(Math.min(strips / 16, 16, longest / stepsOf(forth, columns)));
  gpu.run(
    shader.kernel("image_back", { ...constantsOf(taps, channels, 2), PIXELS, BLOCKS, FOLDS }),
    { dy, w: weight, dx },
    { ...paramsOf(forth, channels, vectors), share, has_bias: 0 },
    foldGroups(Math.ceil(strips / share)),
    2 * dy.size * weights,
  );
}

/** Steps of an invocation of image_back along a line, once for every block of columns. */
function stepsOf({ sourceWidth, stride, padding }: Taps, columns: number): number {
  return Math.ceil((sourceWidth + padding) / stride) * Math.ceil(columns / 4 / lanes);
}

/** Columns of an invocation: pairs, but where there are many and of 32-bit floats, fours. */
function vectorOf(pixels: Tensor, columns: number): 2 | 4 {
  return columns > 2 * lanes && columns % 4 === 0 && pixels.dtype === "f32" ? 4 : 2;
}

function constantsOf(taps: Taps, channels: number, vector: 2 | 4): Record<string, number> {
  return {
    CHANNELS: channels,
    KERNEL_H: taps.kernelHeight,
    KERNEL_W: taps.kernelWidth,
    STRIDE: taps.stride,
    PADDING: taps.padding,
    ...(vector === 4 ? { B: 4, Y: 4, Columns: 4 } : {}),
  };
}

function paramsOf(taps: Taps, channels: number, columns: number) {
  return {
    rows: taps.images * taps.resultHeight,
    // Rows of the result in a part, at most.
    share: Math.floor(longest / (Math.ceil(taps.resultWidth / pixels) * pixels)),
    source_h: taps.sourceHeight,
    line: taps.sourceWidth * channels / 4,
    result_h: taps.resultHeight,
    result_w: taps.resultWidth,
    columns,
    column_tiles: Math.ceil(columns / lanes),
  };
}
