/**
 * Products of matrices on the GPU, one of whose sides may be an image seen through the taps of a
 * convolution: what `matmul` and `conv2d` and their gradients are made of (see gemm.wgsl).
 *
 * Which kernels run is a function of adapter and shape alone:
 *
 * - on software adapters with subgroups of 4, 8 or 16, tiles that a subgroup holds in registers, where
 *   loads cost more than arithmetic and barriers most of all; on all others 64×64 tiles in workgroup
 *   memory;
 * - reads of 16 bytes where the lines of an operand are a multiple of four elements long;
 * - the sum in one piece, or in parts that are added up in a fixed order: see `splitsOf`;
 * - the right operand as it is, held in registers where sums are short: see `holdsRight`; or turned first: see
 *   `turnsRight`; or the whole product turned: see `turnsProduct`.
 *
 * Operands and result may be of f16; sums are of 32-bit floats, and only the whole sum is rounded.
 */
import source from "../../shaders/gemm.wgsl" with { type: "text" };
import type { Gpu } from "../gpu/gpu.ts";
import { foldGroups, Shader } from "../gpu/shader.ts";
import { type Tensor, view } from "../tensor.ts";
import { castInto } from "./cast.ts";
import { reduceInto } from "./reduce.ts";
import { copySlice, permute } from "./shape.ts";

const shader = new Shader("gemm", source);

/** Pixels of a source image, the taps they are seen through, and the pixels that result. */
export interface Taps {
  readonly images: number;
  readonly sourceHeight: number;
  readonly sourceWidth: number;
  readonly resultHeight: number;
  readonly resultWidth: number;
  readonly kernelHeight: number;
  readonly kernelWidth: number;
  readonly stride: number;
  readonly padding: number;
}

/** The taps from the result back to the source. */
export function reversed(taps: Taps): Taps {
  return {
    ...taps,
    sourceHeight: taps.resultHeight,
    sourceWidth: taps.resultWidth,
    resultHeight: taps.sourceHeight,
    resultWidth: taps.sourceWidth,
  };
}

/** A line of pixels under a 1×1 kernel: the rows of a matrix. */
export function rowsOf(count: number): Taps {
  return {
    images: 1,
    sourceHeight: 1,
    sourceWidth: count,
    resultHeight: 1,
    resultWidth: count,
    kernelHeight: 1,
    kernelWidth: 1,
    stride: 1,
    padding: 0,
  };
}

/** Matrices of a batch, and the elements from one operand to the next; 0 repeats the same. */
export interface Batch {
  readonly count: number;
  readonly a: number;
  readonly b: number;
}

const single: Batch = { count: 1, a: 0, b: 0 };

/** How {@linkcode imageProduct} differs from the plain one. */
export interface ImageOptions {
  /** The taps lead back, from the result of a convolution to its source (default false). */
  readonly back?: boolean;
  /** `b` is [tap, column, k] (default false). */
  readonly transposed?: boolean;
  /** Added to every pixel: [column]. */
  readonly bias?: Tensor | undefined;
  readonly batch?: Batch;
  /** Whether to leave the moments of the columns behind (default false). */
  readonly moments?: boolean;
  /** Of a batch normalisation and a ReLU that `a` passes as it is read, [4, width]; see {@linkcode normalisesLeft}. */
  readonly coefficients?: Tensor | undefined;
}

/**
 * y[pixel, column] = bias[column] + Σ tap, k  a[pixel moved by tap, k] · b[tap, k, column].
 *
 * @param inner length of k: channels of `a`
 * @returns moments of the columns [parts, 3, columns], as `batchNorm` takes them, where asked for and worth their
 * while, else null: not of a sum in parts, of columns that are no multiple of four, or on a CPU of many columns,
 * whose few rows are in its cache
 */
export function imageProduct(
  y: Tensor,
  a: Tensor,
  b: Tensor,
  taps: Taps,
  inner: number,
  columns: number,
  options: ImageOptions = {},
): Tensor | null {
  const { back = false, transposed = false, bias, batch = single, moments = false } = options;
  const { coefficients } = options;
  const { gpu } = y;
  const { stride, kernelHeight, kernelWidth, images, resultHeight, resultWidth } = taps;
  const phases = back ? stride : 1;
  const rows = images * Math.ceil(resultHeight / phases) * Math.ceil(resultWidth / phases);
  const holds = isMatrix(taps) && holdsRight(gpu, rows * batch.count, inner, columns);
  if (!transposed && !holds && batch.count === 1 && turnsRight(gpu, rows, inner, columns)) {
    return gpu.scope(() => {
      const tapCount = kernelHeight * kernelWidth;
      const turned = gpu.empty([tapCount, columns, inner]);
      permute(view(b, [tapCount, inner, columns]), turned, [0, 2, 1]);
      return imageProduct(y, a, turned, taps, inner, columns, { ...options, transposed: true });
    });
  }
  const left = vector(inner);
  // Where lines are read element by element, one tap takes all that a line of the kernel covers.
  const long = left === 1 && !transposed && !back;
  const tapCount = Math.ceil(kernelHeight / phases) * Math.ceil(kernelWidth / phases);
  return product(y, a, b, {
    entry: "image",
    constants: {
      BACK: back ? 1 : 0,
      TRANSPOSED: transposed ? 1 : 0,
      LEFT: left,
      RIGHT: vector(transposed ? inner : columns),
    },
    taps: long ? { ...taps, kernelWidth: 1 } : taps,
    pixel: inner,
    inner: long ? inner * kernelWidth : inner,
    columns,
    rows,
    steps: long
      ? kernelHeight * Math.ceil(inner * kernelWidth / 4)
      : tapCount * Math.ceil(inner / 4),
    flops: 2 * images * resultHeight * resultWidth * inner * columns * kernelHeight * kernelWidth /
      phases ** 2,
    phases: phases ** 2,
    line: left === 4 && stride === 1 && resultWidth % 8 === 0 ? kernelWidth : 1,
    holds,
    bias,
    batch,
    moments,
    coefficients,
  });
}

/**
 * y[tap, row, column] = Σ pixel  a[pixel moved by tap, row] · b[pixel, column].
 *
 * @param inner number of rows a tap: channels of `a`
 * @param options.transposed `b` is [column, pixel]; for a 1×1 kernel aᵀ · bᵀ
 */
export function weightsProduct(
  y: Tensor,
  a: Tensor,
  b: Tensor,
  taps: Taps,
  inner: number,
  columns: number,
  options: Pick<ImageOptions, "transposed" | "batch" | "coefficients"> = {},
): void {
  const { transposed = false, batch = single, coefficients } = options;
  const { images, resultHeight, resultWidth, kernelHeight, kernelWidth, stride } = taps;
  const pixels = images * resultHeight * resultWidth;
  if (
    isMatrix(taps) && !transposed && batch.count === 1 && turnsProduct(y.gpu, b, inner, columns)
  ) {
    return y.gpu.scope(() => {
      const turned = y.gpu.empty([columns, inner], y.dtype);
      weightsProduct(turned, b, a, rowsOf(pixels), columns, inner);
      permute(turned, view(y, [inner, columns]), [1, 0]);
    });
  }
  const left = vector(inner);
  const rows = kernelHeight * kernelWidth * inner;
  product(y, a, b, {
    entry: "weights",
    constants: {
      TRANSPOSED: transposed ? 1 : 0,
      LEFT: left,
      RIGHT: vector(transposed ? pixels : columns),
      ...(isMatrix(taps) && asksAhead(y.gpu, a, columns) && { AHEAD: 1 }),
    },
    taps: left === 1 ? { ...taps, kernelWidth: 1 } : taps,
    pixel: inner,
    inner: left === 1 ? inner * kernelWidth : inner,
    columns,
    rows,
    steps: Math.ceil(pixels / 4),
    flops: 2 * pixels * rows * columns,
    phases: 1,
    line: left === 4 && stride === 1 && kernelWidth === 3 && resultWidth % 4 === 0 ? 3 : 1,
    batch,
    coefficients,
  });
}

/** Whether pixels of the source and of the result are rows of two matrices. */
function isMatrix({ kernelHeight, kernelWidth, stride, padding }: Taps): boolean {
  return kernelHeight * kernelWidth * stride === 1 && padding === 0;
}

interface Product {
  readonly entry: "image" | "weights";
  readonly constants: Readonly<Record<string, number>>;
  readonly taps: Taps;
  readonly pixel: number;
  readonly inner: number;
  readonly columns: number;
  readonly rows: number;
  readonly steps: number;
  readonly flops: number;
  readonly phases: number;
  /** Taps of a line of the kernel, if it may read the pixels under them once for all; else 1. */
  readonly line: number;
  /** Whether a subgroup holds all that it needs of the right: see `holdsRight`. */
  readonly holds?: boolean;
  readonly bias?: Tensor | undefined;
  readonly batch: Batch;
  readonly moments?: boolean;
  readonly coefficients?: Tensor | undefined;
}

function product(y: Tensor, a: Tensor, b: Tensor, of: Product): Tensor | null {
  const { gpu } = y;
  const { taps, batch } = of;
  const tile = tileOf(gpu, of);
  const rowTiles = Math.ceil(of.rows / tile.rows);
  const tiles = rowTiles * Math.ceil(of.columns / tile.columns);
  const read = (a.size + b.size) / batch.count;
  const splits = splitsOf(gpu, of, tiles * batch.count * of.phases, read, y.size / batch.count);
  const depth = batch.count * splits;
  if (depth > 65535) {
    throw new RangeError(
      `${of.entry}: [${a.shape}] by [${b.shape}] has ${depth} parts, over 65535`,
    );
  }
  // Where all of b stays in the cache, a is read once, and y written in whole rows.
  const sharesRows = of.entry === "image" && b.bytes <= 2 ** 18;
  const [gridX, gridY] = foldGroups(tiles * of.phases);
  // Kernels write whole vec4: where columns are no multiple of four, a padded result is cropped.
  const width = Math.ceil(of.columns / 4) * 4;
  const leaves = of.moments === true && !["", "_short"].includes(tile.family) && splits === 1 &&
    width === of.columns;
  const { coefficients } = of;
  const constants = {
    ...of.constants,
    ...tile.constants,
    ...(leaves && { MOMENTS: 1 }),
    ...(coefficients !== undefined && { NORMALISED: 1 }),
  };
  const kernel = shader.kernel(of.entry + tile.family, constants);
  if (y.dtype === "f16" && (splits > 1 || width > of.columns)) {
    return gpu.scope(() => {
      const wide = gpu.empty(y.shape);
      product(wide, a, b, of);
      castInto(wide, y);
      return null;
    });
  }
  return gpu.scope(() => {
    const moments = leaves ? gpu.empty([rowTiles, 3, width]) : null;
    const lines = y.size / of.columns;
    const padded = width === of.columns ? y : gpu.empty([lines, width]);
    const parts = splits === 1 ? padded : gpu.empty([splits, padded.size]);
    gpu.run(
      kernel,
      // Without a bias any f32 will do: it is not read.
      { a, b, bias: of.bias ?? (b.dtype === "f32" ? b : gpu.one), y: parts, moments, coefficients },
      {
        images: taps.images,
        source_h: taps.sourceHeight,
        source_w: taps.sourceWidth,
        result_h: taps.resultHeight,
        result_w: taps.resultWidth,
        kernel_h: taps.kernelHeight,
        kernel_w: taps.kernelWidth,
        stride: taps.stride,
        padding: taps.padding,
        pixel: of.pixel,
        inner: of.inner,
        columns: of.columns,
        tiles: sharesRows ? tiles / rowTiles : rowTiles,
        shares_rows: sharesRows ? 1 : 0,
        phases: of.phases,
        rows: tile.rows,
        splits,
        steps: Math.ceil(of.steps / splits / tile.taps),
        a_batch: batch.a,
        b_batch: batch.b,
        y_batch: padded.size / 4 / batch.count,
        y_split: padded.size / 4,
        has_bias: of.bias === undefined ? 0 : 1,
        coefficients: (coefficients?.shape[1] ?? 0) / 4,
      },
      [gridX, gridY, depth],
      of.flops * batch.count,
    );
    if (splits > 1) reduceInto("sum", parts, [1, padded.size], 1, padded);
    if (padded !== y) copySlice(padded, [0, 0], view(y, [lines, of.columns]));
    return moments;
  });
}

/** 4 where lines of this length can be read 16 bytes at a time, else 1. */
function vector(length: number): 1 | 4 {
  return length % 4 === 0 ? 4 : 1;
}

interface Tile {
  /** Suffix of the entry point. */
  readonly family: "" | "_short" | "_narrow" | "_line" | "_tile";
  readonly constants: Readonly<Record<string, number>>;
  readonly rows: number;
  readonly columns: number;
  /** Taps that count as one step of the sum. */
  readonly taps: number;
}

/** The part of a product that one workgroup computes. */
function tileOf(gpu: Gpu, { entry, rows, inner, columns, line, holds, batch }: Product): Tile {
  if (!sharesBySubgroup(gpu)) {
    return { family: "_tile", constants: {}, rows: 64, columns: 64, taps: 1 };
  }
  const LANES = gpu.subgroupSize;
  const BLOCKS = Math.min(columns <= 16 ? 4 : 8, LANES);
  if (holds) {
    const width = Math.max(inner <= 64 ? 64 : 32, 4 * LANES);
    const constants = { LANES, STEPS: inner / 4, COLUMNS: width / 4 / LANES };
    // What is held is read for many rows, but for no more than leave work for several cores.
    const most = Math.ceil(rows * Math.ceil(columns / width) * batch.count / 8);
    const height = Math.min(512, Math.max(128, most));
    return { family: "_short", constants, rows: height, columns: width, taps: 1 };
  }
  if (columns > 4 * BLOCKS) {
    return { family: "", constants: { LANES }, rows: 4 * LANES, columns: 64, taps: 1 };
  }
  if (entry === "weights" && line > 1) {
    const constants = { LANES, BLOCKS: 4, TAPS: line };
    return { family: "_line", constants, rows: 4 * line * LANES, columns: 16, taps: 1 };
  }
  const family = line > 1 ? "_line" : "_narrow";
  const constants = { LANES, BLOCKS };
  return { family, constants, rows: 8 * LANES, columns: 4 * BLOCKS, taps: line };
}

/**
 * Whether products normalise an image of `inner` channels as they read it: on a GPU, which that saves a pass over
 * memory. On a CPU the kernels would be twice as many to compile.
 */
export function normalisesLeft(gpu: Gpu, inner: number): boolean {
  return !sharesBySubgroup(gpu) && vector(inner) === 4;
}

/** Whether subgroups hold their tiles in registers: on a CPU. */
function sharesBySubgroup(gpu: Gpu): boolean {
  return gpu.adapter.isFallback && [4, 8, 16].includes(gpu.subgroupSize);
}

/**
 * Whether a subgroup holds what it needs of [k, column] while rows pass by, instead of reading it anew for every
 * few of them: on a CPU, where it fits into half of the first cache (16 KiB), and where rows, those of all
 * matrices of a batch, are so many that the kernel is worth its time to compile.
 */
function holdsRight(gpu: Gpu, rows: number, inner: number, columns: number): boolean {
  return sharesBySubgroup(gpu) && inner <= 128 && inner % (4 * gpu.subgroupSize) === 0 &&
    columns > 32 && rows * inner * columns >= 2 ** 26;
}

/**
 * Whether [k, column] is better turned into [column, k] first: on a CPU, where lines of many columns,
 * often a power of two long, neither stay in the cache nor can be fetched ahead, and where there are
 * rows enough to make up for the copy.
 */
function turnsRight(gpu: Gpu, rows: number, inner: number, columns: number): boolean {
  return sharesBySubgroup(gpu) && vector(inner) === 4 && vector(columns) === 4 &&
    columns >= 128 && rows >= 512;
}

/**
 * Whether aᵀ · b is better computed as (bᵀ · a)ᵀ: on a CPU, where b has to be fetched from memory, more of
 * its lines are asked for at once on the left, if all columns of a are one tile on the right.
 */
function turnsProduct(gpu: Gpu, b: Tensor, inner: number, columns: number): boolean {
  return sharesBySubgroup(gpu) && b.bytes >= 2 ** 22 && inner > 32 && inner <= 64 && columns > 64;
}

/**
 * Whether lines of the left operand are asked for before they are needed: on a CPU, where all of it comes from
 * memory, once, as all columns of b are one wide tile.
 */
function asksAhead(gpu: Gpu, a: Tensor, columns: number): boolean {
  return sharesBySubgroup(gpu) && a.bytes >= 2 ** 22 && columns > 32 && columns <= 64;
}

/**
 * Into how many parts a sum is cut. An invocation sums at most 2048 blocks of four, for the limit of
 * its loops and for accuracy. Beyond that, parts keep a GPU busy that has more room than there are
 * tiles, and keep what all tiles of a part read in the cache (1 MiB); but since the parts are written
 * and read once more, they must not outgrow the operands much, nor at all for the cache's sake.
 */
function splitsOf(gpu: Gpu, of: Product, groups: number, read: number, written: number): number {
  const longest = Math.ceil(of.steps / 2048);
  const busy = Math.ceil((gpu.adapter.isFallback ? 8 : 512) / groups);
  const cached = of.entry === "weights"
    ? Math.min(Math.ceil(read / 2 ** 18), Math.floor(read / (2 * written)))
    : 1;
  const most = Math.min(Math.floor(4 * read / written), Math.floor(of.steps / 64));
  return Math.max(longest, Math.min(most, Math.max(busy, cached)), 1);
}
