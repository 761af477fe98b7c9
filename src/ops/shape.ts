/** Operations that move elements and compute nothing. */
import { record } from "../autograd.ts";
import { type Shape, sizeOf, type Tensor, view } from "../tensor.ts";

/**
 * The same elements under another shape, without a copy. One size may be −1: what is left.
 *
 * @throws {RangeError} where the number of elements differs.
 */
export function reshape(x: Tensor, shape: Shape): Tensor {
  const rest = x.size / sizeOf(shape.filter((size) => size !== -1));
  const resolved = shape.map((size) => size === -1 ? rest : size);
  if (!resolved.every(Number.isInteger) || sizeOf(resolved) !== x.size) {
    throw new RangeError(`reshape: [${x.shape}] to [${shape}]`);
  }
  return record("reshape", [x], view(x, resolved), [], (dy) => [view(dy, x.shape)]);
}
