/** Checks of arguments that the ops share; the errors name the op, the argument and its value. */
import type { DType, Shape, Tensor } from "../tensor.ts";

/** @throws {RangeError} unless all tensors, by their names in the op, have the element type. */
export function expectType(
  op: string,
  dtype: DType,
  tensors: Readonly<Record<string, Tensor>>,
): void {
  for (const name in tensors) {
    const tensor = tensors[name]!;
    if (tensor.dtype !== dtype) {
      throw new RangeError(`${op}: ${name} [${tensor.shape}] is ${tensor.dtype}, not ${dtype}`);
    }
  }
}

/**
 * For ops that keep their values as 16-bit floats if they are given so.
 *
 * @throws {RangeError} unless all tensors, by their names in the op, are of f32, or all of f16
 */
export function expectFloat(op: string, tensors: Readonly<Record<string, Tensor>>): void {
  const isHalf = Object.values(tensors)[0]?.dtype === "f16";
  expectType(op, isHalf ? "f16" : "f32", tensors);
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
