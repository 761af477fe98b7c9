/**
 * Winograd's convolution F(4×4, 3×3): 36 products of matrices in place of the nine taps of a 3×3 kernel at
 * stride 1, a quarter of the multiplications for more memory to read and write (see winograd.wgsl).
 *
 * Images and weights are transformed a block at a time: 512 tiles of the images, and 64 columns of the
 * weights. So what is transformed, more than twice as large as an image and four times as the weights,
 * takes little memory, and is read again while it is in the cache.
 */
import source from "../../shaders/winograd.wgsl" with { type: "text" };
import type { Gpu } from "../gpu/gpu.ts";
import { grid1d, Shader } from "../gpu/shader.ts";
import type { Tensor } from "../tensor.ts";
import { type ImageOptions, imageProduct, rowsOf, type Taps, weightsProduct } from "./gemm.ts";

const shader = new Shader("winograd", source);

/** Values of a tile: 6×6 points. */
const points = 36;
/** Pixels of the result along a side of a tile. */
const side = 4;
/** Tiles and columns of a block. */
const mostTiles = 512;
const mostColumns = 64;

/**
 * Whether the transforms cost less than they save, for a 3×3 kernel at stride 1: where tiles are many, well
 * filled, and have many channels. So it was measured on a software adapter; on no GPU yet, and there the
 * direct product stays.
 */
export function winogradPays(gpu: Gpu, taps: Taps, inner: number, columns: number): boolean {
  const { kernelHeight, kernelWidth, stride, images, resultHeight, resultWidth } = taps;
  const fits = kernelHeight === 3 && kernelWidth === 3 && stride === 1 &&
    inner % 4 === 0 && columns % 4 === 0 &&
    4 * points * mostTiles * Math.max(inner, columns) <= gpu.maxTensorBytes;
  const tiles = tileCount(taps);
  const filled = images * resultHeight * resultWidth / (side ** 2 * tiles);
  // In the time of the 36 products. Moving a value takes as long as 40 multiplications and additions.
  const winograd = 1 + 40 * (1 / inner + 1 / columns + 1 / tiles);
  return gpu.adapter.isFallback && fits && winograd < 3 * filled;
}

/** `imageProduct` for the taps of a 3×3 kernel at stride 1; it leaves no moments, as y is cheaper to read again. */
export function winogradImage(
  y: Tensor,
  x: Tensor,
  weight: Tensor,
  taps: Taps,
  inner: number,
  columns: number,
  { back = false, bias, coefficients }: Pick<ImageOptions, "back" | "bias" | "coefficients"> = {},
): null {
  const { gpu } = y;
  const result = resultTiles(taps);
  const transform = back ? "weight_values_back" : "weight_values";
  const padding = back ? 2 - taps.padding : taps.padding;
  const source = { x, coefficients, taps, padding };
  inBlocks(source, inner, columns, (a, { first: first_tile, size: count }, part) => {
    const b = gpu.empty([points, inner, part.size]);
    const weights = { x: weight, turned: weight, y: b };
    run(transform, weights, inner, columns, part, { tap: inner * columns });
    const products = gpu.empty([points, count, part.size]);
    imageProduct(products, a, b, rowsOf(count), inner, part.size, {
      batch: { count: points, a: count * inner, b: inner * part.size },
    });
    run("result", { x: products, bias: bias ?? gpu.one, y }, count, columns, part, {
      ...result,
      first_tile,
      has_bias: bias === undefined ? 0 : 1,
    });
  });
  return null;
}

/** `weightsProduct` for the taps of a 3×3 kernel at stride 1. */
export function winogradWeights(
  y: Tensor,
  x: Tensor,
  dy: Tensor,
  taps: Taps,
  inner: number,
  columns: number,
  { coefficients }: Pick<ImageOptions, "coefficients"> = {},
): void {
  const { gpu } = y;
  const result = resultTiles(taps);
  const source = { x, coefficients, taps, padding: taps.padding };
  inBlocks(source, inner, columns, (a, { first: first_tile, size: count }, part) => {
    const b = gpu.empty([points, count, part.size]);
    run("gradient_values", { x: dy, y: b }, count, columns, part, { ...result, first_tile });
    const products = gpu.empty([points, inner, part.size]);
    weightsProduct(products, a, b, rowsOf(count), inner, part.size, {
      batch: { count: points, a: count * inner, b: count * part.size },
    });
    run("weight_gradient", { x: products, y }, inner, columns, part, {
      tap: inner * columns,
      adds: first_tile > 0 ? 1 : 0,
    });
  });
}

/**
 * Calls `multiply` for each block of tiles and each of columns, in a scope of its own, with the values
 * [points, tiles, inner] of the source under the tiles.
 */
function inBlocks(
  { x, coefficients, taps, padding }: Source,
  inner: number,
  columns: number,
  multiply: (a: Tensor, tiles: Block, part: Block) => void,
): void {
  const { gpu } = x;
  const source = sourceTiles(taps, padding);
  for (const tiles of blocks(tileCount(taps), mostTiles)) {
    gpu.scope(() => {
      const a = gpu.empty([points, tiles.size, inner]);
      const params = { ...source, first_tile: tiles.first };
      const all = { first: 0, size: inner };
      run("source_values", { x, coefficients, y: a }, tiles.size, inner, all, params);
      for (const part of blocks(columns, mostColumns)) gpu.scope(() => multiply(a, tiles, part));
    });
  }
}

/** An image, the taps it is seen through, and how it is normalised as it is read, if it is. */
interface Source extends Pick<ImageOptions, "coefficients"> {
  readonly x: Tensor;
  readonly taps: Taps;
  readonly padding: number;
}

/** A part of tiles or channels; a multiple of four. */
interface Block {
  readonly first: number;
  readonly size: number;
}

/** About equal blocks of at most `most`. */
function blocks(total: number, most: number): Block[] {
  const size = Math.ceil(total / Math.ceil(total / most) / 4) * 4;
  return Array.from({ length: Math.ceil(total / size) }, (_, i) => ({
    first: i * size,
    size: Math.min(size, total - i * size),
  }));
}

/** Runs a transform of `count` tiles or lines of weights at a block of their channels. */
function run(
  entry: string,
  tensors: Readonly<Record<string, Tensor | undefined>>,
  count: number,
  channels: number,
  part: Block,
  params: Readonly<Record<string, number>>,
): void {
  const n = count * part.size / 4;
  const { coefficients } = tensors;
  tensors.y!.gpu.run(
    shader.kernel(entry, coefficients === undefined ? {} : { NORMALISED: 1 }),
    tensors,
    {
      lines: count,
      tap: 0,
      h: 0,
      w: 0,
      tiles_h: 0,
      tiles_w: 0,
      padding: 0,
      has_bias: 0,
      adds: 0,
      first_tile: 0,
      ...params,
      n,
      channels: part.size / 4,
      whole: channels / 4,
      first: part.first / 4,
      coefficients: (coefficients?.shape[1] ?? 0) / 4,
    },
    grid1d(n, 64),
  );
}

function tileCount({ images, resultHeight, resultWidth }: Taps): number {
  return images * Math.ceil(resultHeight / side) * Math.ceil(resultWidth / side);
}

function resultTiles({ resultHeight: h, resultWidth: w }: Taps) {
  return { h, w, tiles_h: Math.ceil(h / side), tiles_w: Math.ceil(w / side), padding: 0 };
}

/** The pixels of the source under the tiles of the result. */
function sourceTiles(taps: Taps, padding: number) {
  return { ...resultTiles(taps), h: taps.sourceHeight, w: taps.sourceWidth, padding };
}
