/**
 * Elementwise operations of two tensors with NumPy's broadcasting, or of a tensor and a number.
 *
 * Shapes are aligned at their last axes, and an axis of 1 is repeated. Neighbouring axes that both
 * operands run through alike count as one; at most four may remain.
 */
import source from "../../shaders/binary.wgsl" with { type: "text" };
import { gradFor, needsGrad, record } from "../autograd.ts";
import { grid1d, Shader } from "../gpu/shader.ts";
import { sameShape, type Shape, Tensor } from "../tensor.ts";
import { expectFloat, expectType } from "./check.ts";
import { gradientOf } from "./reduce.ts";
import { broadcastStrides, fourAxes, mergeAxes, type Region } from "./strides.ts";

const shader = new Shader("binary", source);

/** A tensor of floats, or a number; two tensors have the same type, and so has the result. */
export type Operand = Tensor | number;

/** In the order of OP in the shader. */
const operations = ["add", "sub", "mul", "div", "pow", "maximum", "minimum", "equal"] as const;
type Operation = typeof operations[number];

/** a + b. */
export function add(a: Operand, b: Operand): Tensor {
  return operate("add", a, b, ["", ""]);
}

/** a − b. */
export function sub(a: Operand, b: Operand): Tensor {
  return operate("sub", a, b, ["", ""]);
}

/** a · b, elementwise. */
export function mul(a: Operand, b: Operand): Tensor {
  return operate("mul", a, b, ["b", "a"]);
}

/** a / b. */
export function div(a: Operand, b: Operand): Tensor {
  return operate("div", a, b, ["b", "ab"]);
}

/** aᵇ; NaN for a < 0 unless b is whole. */
export function pow(a: Operand, b: Operand): Tensor {
  return operate("pow", a, b, ["ab", "ab"]);
}

/** The larger one; equal ones share the gradient. */
export function maximum(a: Operand, b: Operand): Tensor {
  return operate("maximum", a, b, ["ab", "ab"]);
}

/** The smaller one; equal ones share the gradient. */
export function minimum(a: Operand, b: Operand): Tensor {
  return operate("minimum", a, b, ["ab", "ab"]);
}

/** 1 where a = b, else 0; no gradient flows through it. */
export function equal(a: Operand, b: Operand): Tensor {
  return operate("equal", a, b, null);
}

/** x repeated to `shape`. */
export function broadcastTo(x: Tensor, shape: Shape): Tensor {
  expectType("broadcastTo", "f32", { x });
  if (!sameShape(broadcastShape("broadcastTo", x.shape, shape), shape)) {
    throw new RangeError(`broadcastTo: [${x.shape}] does not fit into [${shape}]`);
  }
  const y = expand(x, x.gpu.empty(shape), 1);
  return record("broadcastTo", [x], y, [], (dy) => [gradientOf(dy, x)]);
}

/** Fills `y` with x repeated, times `scale`. */
export function expand(x: Tensor, y: Tensor, scale: number): Tensor {
  run("apply", "mul", { a: x, b: scale, y });
  return y;
}

/** Adds `x` to `y` in place, both of one size: only for gradients that nobody else holds. */
export function accumulate(x: Tensor, y: Tensor): void {
  const n = Math.ceil(x.size / 4);
  x.gpu.run(shader.kernel("accumulate"), { a: x, y }, { n }, grid1d(n, 256));
}

/** @param reads the operands that the derivatives by a and by b read; null if there are none */
function operate(
  operation: Operation,
  a: Operand,
  b: Operand,
  reads: readonly [string, string] | null,
): Tensor {
  const tensors = tensorsOf(a, b);
  const [first, second = first] = tensors;
  if (first === undefined) throw new TypeError(`${operation}: ${a} and ${b} are both numbers`);
  expectFloat(operation, { first, second: second! });
  const shape = broadcastShape(operation, shapeOf(a), shapeOf(b));
  const y = first.gpu.empty(shape, first.dtype);
  run("apply", operation, { a, b, y });
  if (reads === null) return y;

  const isRead = (name: string) =>
    a instanceof Tensor && needsGrad(a) && reads[0].includes(name) ||
    b instanceof Tensor && needsGrad(b) && reads[1].includes(name);
  const saved = tensors.filter((tensor) =>
    tensor === a && isRead("a") || tensor === b && isRead("b")
  );
  return record(operation, tensors, y, saved, (dy, needs) =>
    tensors.map((input, i) => {
      if (!needs[i]) return null;
      const side = a instanceof Tensor ? i : 1;
      const passesOn = operation === "add" || operation === "sub" && side === 0;
      if (passesOn) return gradientOf(dy, input);
      const whole = sameShape(input.shape, shape)
        ? gradFor(input)
        : input.gpu.empty(shape, input.dtype);
      run("gradient", operation, {
        a: reads[side]!.includes("a") ? a : null,
        b: reads[side]!.includes("b") ? b : null,
        dy,
        y: whole,
      }, side);
      return gradientOf(whole, input);
    }));
}

interface Arguments {
  /** An operand, or null for one that the kernel does not read. */
  readonly a: Operand | null;
  readonly b: Operand | null;
  readonly y: Tensor;
  readonly dy?: Tensor;
}

function run(
  entry: "apply" | "gradient",
  operation: Operation,
  { a, b, y, dy }: Arguments,
  side = 0,
): void {
  const region = regionOf(y, a, b);
  if (region.sizes.length > 4) {
    throw new RangeError(
      `${operation}: [${shapeOf(a)}] and [${shapeOf(b)}] broadcast along ` +
        `${region.sizes.length} separate axes, more than 4`,
    );
  }
  const A = layoutOf(a, region.sizes, region.strides[0]!);
  const B = layoutOf(b, region.sizes, region.strides[1]!);
  const [, size1, size2, size3] = fourAxes(region.sizes, 1);
  const [a0, a1, a2, a3] = fourAxes(region.strides[0]!, 0);
  const [b0, b1, b2, b3] = fourAxes(region.strides[1]!, 0);
  const n = Math.ceil(y.size / 4);
  // For an operand that is not read any tensor will do.
  const bound = tensorsOf(a, b)[0] ?? dy!;
  const OP = operations.indexOf(operation);
  y.gpu.run(
    shader.kernel(entry, entry === "gradient" ? { OP, A, B, SIDE: side } : { OP, A, B }),
    {
      a: a instanceof Tensor ? a : bound,
      b: b instanceof Tensor ? b : bound,
      y,
      dy: dy ?? y,
    },
    {
      n,
      // With two axes or fewer the kernel saves itself the divisions by these.
      size1: region.sizes.length > 2 ? size1 : 0,
      size2,
      size3,
      a0,
      a1,
      a2,
      a3,
      b0,
      b1,
      b2,
      b3,
      number: typeof a === "number" ? a : typeof b === "number" ? b : 0,
    },
    grid1d(n, 256),
  );
}

/** The axes of y, and the strides of the operands along them. */
function regionOf(y: Tensor, a: Operand | null, b: Operand | null): Region {
  const isWhole = (operand: Operand | null) =>
    !(operand instanceof Tensor) || sameShape(operand.shape, y.shape);
  if (isWhole(a) && isWhole(b)) return { sizes: [y.size], strides: [[1], [1]] };
  const strides = [a, b].map((operand) => broadcastStrides(shapeOf(operand), y.shape));
  return mergeAxes(y.shape, strides);
}

/** How the kernel finds the elements of an operand: A and B in the shader. */
function layoutOf(
  operand: Operand | null,
  sizes: readonly number[],
  strides: readonly number[],
): number {
  if (!(operand instanceof Tensor)) return 1;
  if (sizes.length === 0 || sizes.length === 1 && strides[0] === 1) return 0;
  if (strides.every((stride) => stride === 0)) return 4;
  if (sizes.at(-1)! % 4 !== 0) return 2;
  return strides.at(-1) === 1 ? 3 : 4;
}

function tensorsOf(a: Operand | null, b: Operand | null): Tensor[] {
  return [a, b].filter((operand) => operand instanceof Tensor);
}

const scalar: Shape = [];

function shapeOf(operand: Operand | null): Shape {
  return operand instanceof Tensor ? operand.shape : scalar;
}

function broadcastShape(operation: string, a: Shape, b: Shape): Shape {
  if (b.length === 0 || sameShape(a, b)) return a;
  const rank = Math.max(a.length, b.length);
  return Array.from({ length: rank }, (_, axis) => {
    const p = a[axis - rank + a.length] ?? 1;
    const q = b[axis - rank + b.length] ?? 1;
    if (p !== q && p !== 1 && q !== 1) {
      throw new RangeError(`${operation}: [${a}] and [${b}] do not broadcast`);
    }
    return p === 1 ? q : p;
  });
}
