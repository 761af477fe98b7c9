/** Dropout with a mask that is a pure function of its counters. */
import source from "../../shaders/dropout.wgsl" with { type: "text" };
import { gradFor, record } from "../autograd.ts";
import { grid1d, Shader } from "../gpu/shader.ts";
import { streamId } from "../random.ts";
import type { Tensor } from "../tensor.ts";
import { expectType } from "./check.ts";

const shader = new Shader("dropout", source);

/** Which mask: element i is decided by uniform number i of `new Random(seed, stream, index)`. */
export interface DropoutOptions {
  /** The part of the elements to drop, 0 ≤ rate < 1. */
  readonly rate: number;
  /** The seed of the run. */
  readonly seed: number;
  /** What the mask is for: the name of the layer. */
  readonly stream: string;
  /** Different in every step. */
  readonly index: number;
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
