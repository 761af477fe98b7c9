/** Checks of arguments that the ops share; the errors name the op, the argument and its value. */
import type { DType, Shape, Tensor } from "../tensor.ts";

/** @throws {RangeError} unless all tensors, by their names in the op, have the element type. */
export function expectType(
  op: string,
  dtype: DType,
  tensors: Readonly<Record<string, Tensor>>,
): void {
  for (const [name, tensor] of Object.entries(tensors)) {
    if (tensor.dtype !== dtype) {
      throw new RangeError(`${op}: ${name} [${tensor.shape}] is ${tensor.dtype}, not ${dtype}`);
    }
  }
}

/**
 * Axes counted from the front, ascending; negative ones count from the end, none given means all.
 *
 * @throws {RangeError} for an axis that the shape does not have, or the same one twice.
 */
export function resolveAxes(op: string, shape: Shape, axes?: readonly number[]): number[] {
  if (axes === undefined) return shape.map((_, axis) => axis);
  const resolved = axes.map((axis) => {
    if (!Number.isInteger(axis) || axis < -shape.length || axis >= shape.length) {
      throw new RangeError(`${op}: axis ${axis} of a tensor [${shape}]`);
    }
    return axis < 0 ? axis + shape.length : axis;
  });
  if (new Set(resolved).size < resolved.length) {
    throw new RangeError(`${op}: axes [${axes}] of a tensor [${shape}] name one twice`);
  }
  return resolved.sort((a, b) => a - b);
}
