/** Elementwise functions of one tensor of f32. */
import source from "../../shaders/unary.wgsl" with { type: "text" };
import { gradFor, record } from "../autograd.ts";
import { grid1d, Shader } from "../gpu/shader.ts";
import type { Tensor } from "../tensor.ts";
import { expectType } from "./check.ts";

const shader = new Shader("unary", source);

/** In the order of OP in the shader, with what the derivative is computed from. */
const operations = {
  neg: "nothing",
  abs: "input",
  square: "input",
  sqrt: "output",
  rsqrt: "output",
  exp: "output",
  log: "input",
  relu: "output",
  sigmoid: "output",
  tanh: "output",
  softplus: "input",
  gelu: "input",
  clamp: "input",
} as const;
type Operation = keyof typeof operations;

/** −x. */
export function neg(x: Tensor): Tensor {
  return apply("neg", x);
}

/** |x|; the gradient at 0 is 0. */
export function abs(x: Tensor): Tensor {
  return apply("abs", x);
}

/** x². */
export function square(x: Tensor): Tensor {
  return apply("square", x);
}

/** √x. */
export function sqrt(x: Tensor): Tensor {
  return apply("sqrt", x);
}

/** 1 / √x. */
export function rsqrt(x: Tensor): Tensor {
  return apply("rsqrt", x);
}

/** eˣ. */
export function exp(x: Tensor): Tensor {
  return apply("exp", x);
}

/** The natural logarithm. */
export function log(x: Tensor): Tensor {
  return apply("log", x);
}

/** max(x, 0); the gradient at 0 is 0. */
export function relu(x: Tensor): Tensor {
  return apply("relu", x);
}

/** 1 / (1 + e⁻ˣ). */
export function sigmoid(x: Tensor): Tensor {
  return apply("sigmoid", x);
}

/** The hyperbolic tangent. */
export function tanh(x: Tensor): Tensor {
  return apply("tanh", x);
}

/** log(1 + eˣ). */
export function softplus(x: Tensor): Tensor {
  return apply("softplus", x);
}

/** x · Φ(x) with the standard normal distribution function Φ (PyTorch's default, not the tanh form). */
export function gelu(x: Tensor): Tensor {
  return apply("gelu", x);
}

/** x, but at least `low` and at most `high`; the gradient passes inside, bounds included. */
export function clamp(x: Tensor, low: number, high: number): Tensor {
  if (!(low <= high)) throw new RangeError(`clamp: bounds ${low} and ${high}`);
  return apply("clamp", x, low, high);
}

function apply(operation: Operation, x: Tensor, low = 0, high = 0): Tensor {
  expectType(operation, "f32", { x });
  const OP = Object.keys(operations).indexOf(operation);
  const n = Math.ceil(x.size / 4);
  const params = { n, low, high };
  const grid = grid1d(n, 256);
  const y = x.gpu.empty(x.shape);
  x.gpu.run(shader.kernel("forward", { OP }), { x, y }, params, grid);
  const source = operations[operation];
  const saved = source === "nothing" ? null : source === "input" ? x : y;
  return record(operation, [x], y, saved === null ? [] : [saved], (dy) => {
    const dx = gradFor(x);
    x.gpu.run(shader.kernel("gradient", { OP }), { v: saved ?? dy, dy, dx }, params, grid);
    return [dx];
  });
}
