/** Between 32-bit and 16-bit floats. */
import source from "../../shaders/cast.wgsl" with { type: "text" };
import { gradFor, record } from "../autograd.ts";
import { grid1d, Shader } from "../gpu/shader.ts";
import type { Tensor } from "../tensor.ts";
import { expectFloat } from "./check.ts";

const shader = new Shader("cast", source);

/** Types of floats. */
export type Float = "f32" | "f16";

/**
 * The values of x as floats of another type, each rounded to the nearest, beyond 65 504 to infinity; x itself
 * if it has the type already. The gradient is cast back.
 *
 * @throws {RangeError} if x holds no floats
 */
export function cast(x: Tensor, dtype: Float): Tensor {
  expectFloat("cast", { x });
  if (x.dtype === dtype) return x;
  const y = castInto(x, x.gpu.empty(x.shape, dtype));
  return record("cast", [x], y, [], (dy) => [castInto(dy, gradFor(x))]);
}

/** Fills y, of the same size, with the values of x. */
export function castInto(x: Tensor, y: Tensor): Tensor {
  const n = Math.ceil(x.size / 4);
  x.gpu.run(shader.kernel("convert"), { x, y }, { n }, grid1d(n, 256));
  return y;
}
