/**
 * Operations that move elements and compute nothing: reshape, transpose, slice, concat, pad.
 *
 * All but reshape copy a region from one tensor to another. They take f32 and u32, and let gradients
 * through where they are f32.
 */
import source from "../../shaders/shape.wgsl" with { type: "text" };
import { gradFor, record } from "../autograd.ts";
import { grid1d, Shader } from "../gpu/shader.ts";
import { type Shape, sizeOf, type Tensor, view } from "../tensor.ts";
import { expectType, resolveAxes } from "./check.ts";
import { contiguousStrides, fourAxes, mergeAxes } from "./strides.ts";

const shader = new Shader("shape", source);

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

/** Axis `i` of the result is axis `axes[i]` of x; all axes in reverse order by default. */
export function transpose(x: Tensor, axes?: readonly number[]): Tensor {
  const order = axes ?? x.shape.map((_, axis) => axis).reverse();
  if (resolveAxes("transpose", x.shape, order).length !== x.shape.length) {
    throw new RangeError(`transpose: axes [${order}] of a tensor [${x.shape}]`);
  }
  const from = order.map((axis) => axis < 0 ? axis + x.shape.length : axis);
  const y = x.gpu.empty(from.map((axis) => x.shape[axis]!), x.dtype);
  permute(x, y, from);
  const back = from.map((_, axis) => from.indexOf(axis));
  return record("transpose", [x], y, [], (dy) => {
    const dx = gradFor(x);
    permute(dy, dx, back);
    return [dx];
  });
}

/** Copies x, its axes in another order, into y. */
export function permute(x: Tensor, y: Tensor, order: readonly number[]): void {
  const swapsLast = order.length > 1 && order.at(-1) === order.length - 2 &&
    order.slice(0, -2).every((axis, i) => axis === i);
  const [rows, columns] = x.shape.slice(-2) as [number, number];
  if (swapsLast && x.dtype !== "u8" && rows % 4 === 0 && columns % 4 === 0) {
    const n = x.size / 16;
    const params = { n, rows: rows / 4, columns: columns / 4 };
    x.gpu.run(shader.kernel("transpose4"), { x4: x, y4: y }, params, grid1d(n, 256));
    return;
  }
  const strides = contiguousStrides(x.shape);
  copyRegion("transpose", y.shape, {
    tensor: x,
    strides: order.map((axis) => strides[axis]!),
    start: 0,
  }, whole(y));
}

/** The elements from `begin` up to, not including, `end`: a position an axis, as many as x has axes. */
export function slice(x: Tensor, begin: readonly number[], end: readonly number[]): Tensor {
  const fits = begin.length === x.shape.length && end.length === x.shape.length &&
    x.shape.every((size, axis) =>
      begin[axis]! >= 0 && begin[axis]! < end[axis]! && end[axis]! <= size
    );
  if (!fits) throw new RangeError(`slice: [${begin}] to [${end}] of a tensor [${x.shape}]`);
  const y = x.gpu.empty(begin.map((b, axis) => end[axis]! - b), x.dtype);
  copySlice(x, begin, y);
  return record("slice", [x], y, [], (dy) => {
    const dx = gradFor(x);
    fill(dx, 0);
    copyRegion("slice", dy.shape, whole(dy), part(dx, begin));
    return [dx];
  });
}

/** Tensors joined along an axis; their other axes are the same. */
export function concat(parts: readonly Tensor[], axis: number): Tensor {
  const [first] = parts;
  if (first === undefined) throw new RangeError("concat: no tensors");
  const [along] = resolveAxes("concat", first.shape, [axis]) as [number];
  const fits = parts.every(({ shape, dtype }) =>
    dtype === first.dtype && shape.length === first.shape.length &&
    shape.every((size, a) => a === along || size === first.shape[a])
  );
  if (!fits) {
    const shapes = parts.map(({ shape, dtype }) => `${dtype} [${shape}]`).join(", ");
    throw new RangeError(`concat: ${shapes} along axis ${axis}`);
  }
  let total = 0;
  const begins = parts.map(({ shape }) => {
    const begin = first.shape.map((_, a) => a === along ? total : 0);
    total += shape[along]!;
    return begin;
  });
  const y = first.gpu.empty(first.shape.map((n, a) => a === along ? total : n), first.dtype);
  parts.forEach((x, i) => copyRegion("concat", x.shape, whole(x), part(y, begins[i]!)));
  return record("concat", parts, y, [], (dy, needs) =>
    parts.map((x, i) => {
      if (!needs[i]) return null;
      const dx = gradFor(x);
      copyRegion("concat", x.shape, part(dy, begins[i]!), whole(dx));
      return dx;
    }));
}

/** x with `before` and `after` elements of `value` around it, a number an axis. */
export function pad(
  x: Tensor,
  before: readonly number[],
  after: readonly number[],
  value = 0,
): Tensor {
  expectType("pad", "f32", { x });
  const isWidths = (widths: readonly number[]) =>
    widths.length === x.shape.length && widths.every((n) => Number.isInteger(n) && n >= 0);
  if (!isWidths(before) || !isWidths(after)) {
    throw new RangeError(`pad: [${before}] before and [${after}] after a tensor [${x.shape}]`);
  }
  const y = x.gpu.empty(x.shape.map((size, axis) => before[axis]! + size + after[axis]!));
  fill(y, value);
  copyRegion("pad", x.shape, whole(x), part(y, before));
  return record("pad", [x], y, [], (dy) => {
    const dx = gradFor(x);
    copyRegion("pad", x.shape, part(dy, before), whole(dx));
    return [dx];
  });
}

/** Copies the region of x that begins at `begin` and has the shape of y into y. */
export function copySlice(x: Tensor, begin: readonly number[], y: Tensor): void {
  copyRegion("slice", y.shape, part(x, begin), whole(y));
}

/** Sets every element of a tensor of f32, within the open pass. */
export function fill(x: Tensor, value: number): void {
  const n = Math.ceil(x.size / 4);
  x.gpu.run(shader.kernel("fill"), { y4: x }, { n, value }, grid1d(n, 256));
}

/** Where a region lies in a tensor: its first element and its strides, in elements. */
interface Place {
  readonly tensor: Tensor;
  readonly strides: readonly number[];
  readonly start: number;
}

function whole(tensor: Tensor): Place {
  return { tensor, strides: contiguousStrides(tensor.shape), start: 0 };
}

function part(tensor: Tensor, begin: readonly number[]): Place {
  const strides = contiguousStrides(tensor.shape);
  return { tensor, strides, start: begin.reduce((sum, b, axis) => sum + b * strides[axis]!, 0) };
}

function copyRegion(op: string, shape: Shape, from: Place, to: Place): void {
  if (from.tensor.dtype === "u8") {
    throw new RangeError(`${op}: a tensor [${from.tensor.shape}] of u8, not f32 or u32`);
  }
  const { sizes, strides } = mergeAxes(shape, [from.strides, to.strides]);
  if (sizes.length > 4) {
    throw new RangeError(
      `${op}: [${from.tensor.shape}] to [${to.tensor.shape}] has ${sizes.length} separate axes, ` +
        "more than 4",
    );
  }
  const ends = strides.map((s) => s.at(-1) ?? 1);
  const jumps = [
    sizes.at(-1) ?? 1,
    from.start,
    to.start,
    ...strides.flatMap((s) => s.slice(0, -1)),
  ];
  const isVector = ends.every((stride) => stride === 1) && jumps.every((jump) => jump % 4 === 0);
  const unit = isVector ? 4 : 1;
  const [, size1, size2, size3] = fourAxes(sizes, 1);
  const inUnits = (s: readonly number[]) =>
    fourAxes(s.map((stride, axis) => axis === s.length - 1 ? stride : stride / unit), 0);
  const [x0, x1, x2, x3] = inUnits(strides[0]!);
  const [y0, y1, y2, y3] = inUnits(strides[1]!);
  const n = sizeOf(shape) / unit;
  const tensors = isVector ? { x4: from.tensor, y4: to.tensor } : { x: from.tensor, y: to.tensor };
  from.tensor.gpu.run(
    shader.kernel(isVector ? "copy4" : "copy"),
    tensors,
    {
      n,
      // With two axes or fewer the kernel saves itself the divisions by these.
      size1: sizes.length > 2 ? size1 : 0,
      size2,
      size3: size3 / unit,
      x0,
      x1,
      x2,
      x3,
      y0,
      y1,
      y2,
      y3,
      x_start: from.start / unit,
      y_start: to.start / unit,
    },
    grid1d(n, 256),
  );
}
