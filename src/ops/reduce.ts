/**
 * Sums, means and maxima along axes.
 *
 * A long axis is folded in several passes, each of a fixed tree: results do not depend on the device,
 * nor on the order in which anything runs.
 */
import source from "../../shaders/reduce.wgsl" with { type: "text" };
import { gradFor, record } from "../autograd.ts";
import { grid1d, Shader } from "../gpu/shader.ts";
import { sameShape, type Shape, sizeOf, type Tensor, view } from "../tensor.ts";
import { div, equal, expand, mul } from "./binary.ts";
import { expectType, resolveAxes } from "./check.ts";

const shader = new Shader("reduce", source);

/** What to reduce. */
export interface ReduceOptions {
  /** The axes to reduce, negative ones counted from the end; all by default. */
  readonly axes?: readonly number[];
  /** Whether the reduced axes stay, with size 1 (default false). */
  readonly keepDims?: boolean;
}

/** The sum over axes. */
export function sum(x: Tensor, options: ReduceOptions = {}): Tensor {
  const { kept, shape } = resultShapes("sum", x, options);
  const y = reduce("sum", x, kept, 1, shape);
  return record("sum", [x], y, [], (dy) => [expand(view(dy, kept), gradFor(x), 1)]);
}

/** The mean over axes. */
export function mean(x: Tensor, options: ReduceOptions = {}): Tensor {
  const { kept, shape } = resultShapes("mean", x, options);
  const scale = sizeOf(shape) / x.size;
  const y = reduce("sum", x, kept, scale, shape);
  return record("mean", [x], y, [], (dy) => [expand(view(dy, kept), gradFor(x), scale)]);
}

/** The largest value over axes; equal ones share the gradient, as PyTorch's amax. */
export function max(x: Tensor, options: ReduceOptions = {}): Tensor {
  const { kept, shape } = resultShapes("max", x, options);
  const y = reduce("max", x, kept, 1, shape);
  return record("max", [x], y, [x, y], (dy) => {
    const isLargest = equal(x, view(y, kept));
    const share = div(view(dy, kept), reduce("sum", isLargest, kept, 1, kept));
    return [mul(isLargest, share)];
  });
}

/** x summed to a shape that broadcasts to its own: the inverse of broadcasting. */
export function sumTo(x: Tensor, shape: Shape): Tensor {
  expectType("sumTo", "f32", { x });
  const kept = alignedShape(x.shape, shape);
  const y = reduce("sum", x, kept, 1, shape);
  return record("sumTo", [x], y, [], (dy) => [expand(view(dy, kept), gradFor(x), 1)]);
}

/** The gradient of `input` from `g`, its gradient in a shape to which it was broadcast. */
export function gradientOf(g: Tensor, input: Tensor): Tensor {
  if (sameShape(g.shape, input.shape)) return g;
  if (g.size === input.size) return view(g, input.shape);
  const dx = gradFor(input);
  reduceInto("sum", g, alignedShape(g.shape, input.shape), 1, dx);
  return dx;
}

function alignedShape(from: Shape, to: Shape): number[] {
  const aligned = from.map((_, axis) => to[axis - from.length + to.length] ?? 1);
  if (to.length > from.length || aligned.some((size, axis) => size !== from[axis] && size !== 1)) {
    throw new RangeError(`sumTo: [${from}] to [${to}]`);
  }
  return aligned;
}

function resultShapes(
  op: string,
  x: Tensor,
  { axes, keepDims = false }: ReduceOptions,
): { kept: number[]; shape: Shape } {
  expectType(op, "f32", { x });
  if (x.size === 0) throw new RangeError(`${op}: x [${x.shape}] is empty`);
  const reduced = new Set(resolveAxes(op, x.shape, axes));
  const kept = x.shape.map((size, axis) => reduced.has(axis) ? 1 : size);
  return { kept, shape: keepDims ? kept : x.shape.filter((_, axis) => !reduced.has(axis)) };
}

type Operation = "sum" | "max";

/** Reduces x to `kept`, its shape with reduced axes of 1, times `scale`; the result has `shape`. */
function reduce(
  operation: Operation,
  x: Tensor,
  kept: Shape,
  scale: number,
  shape: Shape,
): Tensor {
  if (x.size === sizeOf(kept)) return view(x, shape);
  const y = x.gpu.empty(shape);
  reduceInto(operation, x, kept, scale, y);
  return y;
}

/** The most values that one pass folds into one: of a row, shared by many invocations; of a column. */
const rowLength = 16384;
const columnLength = 128;

/** Reduces x to `kept`, its shape with reduced axes of 1, times `scale`, into y. */
export function reduceInto(
  operation: Operation,
  x: Tensor,
  kept: Shape,
  scale: number,
  y: Tensor,
): void {
  const { gpu } = x;
  const axes = joinAxes(x.shape, kept);
  gpu.scope(() => {
    let from = x;
    for (let axis = axes.length - 1; axis >= 0; axis--) {
      if (!axes[axis]!.reduced) continue;
      const outer = sizeOf(axes.slice(0, axis).map(({ size }) => size));
      const inner = sizeOf(axes.slice(axis + 1).map(({ size, reduced }) => reduced ? 1 : size));
      for (let r = axes[axis]!.size; r > 1;) {
        const chunks = Math.ceil(r / (inner === 1 ? rowLength : columnLength));
        const isLast = chunks * outer * inner === y.size;
        const to = isLast ? y : gpu.empty([outer * chunks * inner]);
        pass(operation, from, to, { outer, r, inner, chunks }, isLast ? scale : 1);
        from = to;
        r = chunks;
      }
    }
  });
}

function pass(
  operation: Operation,
  x: Tensor,
  y: Tensor,
  { outer, r, inner, chunks }: { outer: number; r: number; inner: number; chunks: number },
  scale: number,
): void {
  const OP = operation === "sum" ? 0 : 1;
  const length = Math.ceil(r / chunks);
  if (inner > 1) {
    const vector = inner % 4 === 0 ? 4 : 1;
    const n = outer * chunks * inner / vector;
    x.gpu.run(
      shader.kernel(vector === 4 ? "columns4" : "columns", { OP }),
      vector === 4 ? { x4: x, y4: y } : { x, y },
      { n, r, inner: inner / vector, chunks, length, scale },
      grid1d(n, 256),
    );
    return;
  }
  const vector = r % 4 === 0 ? 4 : 1;
  const vectors = Math.ceil(length / vector);
  // Few invocations for a short row; they read it at once, so neighbours read neighbours.
  const LANES = vectors <= 16 ? 1 : vectors <= 1024 ? 32 : 256;
  const n = outer * chunks;
  x.gpu.run(
    shader.kernel(vector === 4 ? "rows4" : "rows", { OP, LANES }),
    vector === 4 ? { x4: x, y } : { x, y },
    { n, r: r / vector, inner, chunks, length: vectors, scale },
    grid1d(n, 256 / LANES),
  );
}

/** Axes of size 1 dropped and neighbours joined that are both reduced or both kept. */
function joinAxes(shape: Shape, kept: Shape): { size: number; reduced: boolean }[] {
  const axes: { size: number; reduced: boolean }[] = [];
  shape.forEach((size, axis) => {
    if (size === 1) return;
    const reduced = kept[axis] === 1;
    const last = axes.at(-1);
    if (last?.reduced === reduced) last.size *= size;
    else axes.push({ size, reduced });
  });
  return axes;
}
