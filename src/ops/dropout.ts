/** Dropout and other noise: pure functions of counters. */
import source from "../../shaders/dropout.wgsl" with { type: "text" };
import { gradFor, record } from "../autograd.ts";
import { grid1d, Shader } from "../gpu/shader.ts";
import { streamId } from "../random.ts";
import type { Tensor } from "../tensor.ts";
import { expectType } from "./check.ts";

const shader = new Shader("dropout", source);

/** Which random numbers: those of `new Random(seed, stream, index)`. */
export interface NoiseCounters {
  /** The seed of the run. */
  readonly seed: number;
  /** What they are for: the name of the layer. */
  readonly stream: string;
  /** Different in every step. */
  readonly index: number;
}

/** Which mask: element i is decided by uniform number i. */
export interface DropoutOptions extends NoiseCounters {
  /** The part of the elements to drop, 0 ≤ rate < 1. */
  readonly rate: number;
}

/** Sets a random part of the elements to 0 and divides the others by 1 − rate. Saves nothing. */
export function dropout(x: Tensor, { rate, seed, stream, index }: DropoutOptions): Tensor {
  expectType("dropout", "f32", { x });
  if (!(rate >= 0 && rate < 1)) {
    throw new RangeError(`dropout: rate ${rate} is not in 0 ≤ rate < 1`);
  }
  const n = Math.ceil(x.size / 4);
  const apply = (from: Tensor, to: Tensor) => {
    const params = { n, seed, stream: streamId(stream), index, rate };
    x.gpu.run(shader.kernel("dropout"), { x: from, y: to }, params, grid1d(n, 256));
    return to;
  };
  const y = apply(x, x.gpu.empty(x.shape));
  return record("dropout", [x], y, [], (dy) => [apply(dy, gradFor(x))]);
}

/**
 * x plus normal noise of a standard deviation. Its gradient is the identity.
 *
 * The same bits on one adapter; another's logarithm and cosine may differ in the last.
 */
export function addNoise(
  x: Tensor,
  { deviation, seed, stream, index }: NoiseCounters & { readonly deviation: number },
): Tensor {
  expectType("addNoise", "f32", { x });
  const n = Math.ceil(x.size / 4);
  const y = x.gpu.empty(x.shape);
  const params = { n, seed, stream: streamId(stream), index, rate: deviation };
  x.gpu.run(shader.kernel("noise"), { x, y }, params, grid1d(n, 256));
  return record("addNoise", [x], y, [], (dy) => [dy]);
}

/** Sets a random part of the patches of size × size pixels to 0, through all channels. Not differentiated. */
export function maskPatches(
  x: Tensor,
  { rate, size, seed, stream, index }: NoiseCounters & {
    readonly rate: number;
    readonly size: number;
  },
): Tensor {
  expectType("maskPatches", "f32", { x });
  const [, height, width, channels] = x.shape as [number, number, number, number];
  if (x.shape.length !== 4) throw new RangeError(`maskPatches: x [${x.shape}] is not [n,h,w,c]`);
  const y = x.gpu.empty(x.shape);
  const params = { n: x.size, seed, stream: streamId(stream), index, rate };
  x.gpu.run(
    shader.kernel("mask"),
    { pixels: x, masked: y },
    { ...params, height, width, channels, side: size },
    grid1d(x.size, 256),
  );
  return y;
}
