/** Steps of several batches, for more images than fit at a time. */
import { backward, keep, noGrad } from "./autograd.ts";
import { add, mul } from "./ops/binary.ts";
import type { Tensor } from "./tensor.ts";

/**
 * Adds a part of a batch's gradients to those of the model.
 *
 * @param weight of the loss
 * @param factor of a `LossScale`, for gradients that are scaled
 * @returns the loss, alive until the scope of the caller ends
 */
export function backwardOf(loss: Tensor, weight: number, factor?: Tensor): Tensor {
  keep(loss);
  const part = weight === 1 ? loss : mul(loss, weight);
  backward(factor === undefined ? part : mul(part, factor));
  return loss;
}

/** The mean of scalars, without their history. */
export function meanOf(scalars: readonly Tensor[]): Tensor {
  if (scalars.length === 1) return scalars[0]!;
  return noGrad(() => mul(scalars.reduce(add), 1 / scalars.length));
}
