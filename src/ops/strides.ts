/** How elements lie in memory: strides in elements, for the ops that do not run straight through. */
import type { Shape } from "../tensor.ts";

/** Row-major strides; those of axes of size 1 are as if it were larger. */
export function contiguousStrides(shape: Shape): number[] {
  const strides = new Array<number>(shape.length);
  let stride = 1;
  for (let axis = shape.length - 1; axis >= 0; axis--) {
    strides[axis] = stride;
    stride *= shape[axis]!;
  }
  return strides;
}

/** The strides with which a contiguous tensor of `shape` is repeated to fill `to`: 0 along new axes. */
export function broadcastStrides(shape: Shape, to: Shape): number[] {
  const own = contiguousStrides(shape);
  const missing = to.length - shape.length;
  return to.map((_, axis) =>
    axis < missing || shape[axis - missing] === 1 ? 0 : own[axis - missing]!
  );
}

/** Axes of a region, outermost first, with the strides of each operand along them. */
export interface Region {
  readonly sizes: readonly number[];
  readonly strides: readonly (readonly number[])[];
}

/** Drops axes of size 1 and joins neighbours that every operand runs through without a gap. */
export function mergeAxes(shape: Shape, strides: readonly (readonly number[])[]): Region {
  const sizes: number[] = [];
  const merged: number[][] = strides.map(() => []);
  for (let axis = shape.length - 1; axis >= 0; axis--) {
    const size = shape[axis]!;
    if (size === 1) continue;
    const inner = sizes[0];
    if (inner !== undefined && strides.every((s, k) => s[axis] === merged[k]![0]! * inner)) {
      sizes[0] = inner * size;
    } else {
      sizes.unshift(size);
      strides.forEach((s, k) => merged[k]!.unshift(s[axis]!));
    }
  }
  return { sizes, strides: merged };
}

/** `values` with `fill` in front, four in all: the axes of a kernel. */
export function fourAxes(
  values: readonly number[],
  fill: number,
): [number, number, number, number] {
  const axes: [number, number, number, number] = [fill, fill, fill, fill];
  for (let i = 4 - values.length, axis = 0; i < 4; i++, axis++) axes[i] = values[axis]!;
  return axes;
}
