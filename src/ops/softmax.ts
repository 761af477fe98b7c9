/** Operations along the last axis: softmax, its logarithm, division by the Euclidean norm. */
import source from "../../shaders/softmax.wgsl" with { type: "text" };
import { gradFor, record } from "../autograd.ts";
import { grid1d, Shader } from "../gpu/shader.ts";
import type { Tensor } from "../tensor.ts";
import { expectType } from "./check.ts";

const shader = new Shader("softmax", source);

/** eˣ / Σ eˣ along the last axis. */
export function softmax(x: Tensor): Tensor {
  return softmaxOrLog("softmax", x);
}

/** log softmax(x), without computing softmax(x). */
export function logSoftmax(x: Tensor): Tensor {
  return softmaxOrLog("logSoftmax", x);
}

function softmaxOrLog(op: "softmax" | "logSoftmax", x: Tensor): Tensor {
  const { n, k, LANES } = rowsOf(op, x);
  const constants = { LANES, LOG: op === "softmax" ? 0 : 1 };
  const params = { n, k, eps: 0 };
  const grid = grid1d(n, 256 / LANES);
  const y = x.gpu.empty(x.shape);
  x.gpu.run(shader.kernel("softmax", constants), { x, y }, params, grid);
  return record(op, [x], y, [y], (dy) => {
    const dx = gradFor(x);
    const kernel = shader.kernel("softmax_gradient", constants);
    x.gpu.run(kernel, { saved_y: y, dy, dx }, params, grid);
    return [dx];
  });
}

/** x / max(‖x‖₂, eps) along the last axis, as torch.nn.functional.normalize (eps 1e-12 by default). */
export function l2Normalize(x: Tensor, options: { readonly eps?: number } = {}): Tensor {
  const { eps = 1e-12 } = options;
  const { n, k, LANES } = rowsOf("l2Normalize", x);
  const params = { n, k, eps };
  const grid = grid1d(n, 256 / LANES);
  const y = x.gpu.empty(x.shape);
  const norms = x.gpu.empty([n]);
  x.gpu.run(shader.kernel("normalize", { LANES }), { x, y, norms }, params, grid);
  return record("l2Normalize", [x], y, [y, norms], (dy) => {
    const dx = gradFor(x);
    const kernel = shader.kernel("normalize_gradient", { LANES });
    x.gpu.run(kernel, { saved_y: y, dy, dx, saved_norms: norms }, params, grid);
    return [dx];
  });
}

function rowsOf(op: string, x: Tensor): { n: number; k: number; LANES: number } {
  expectType(op, "f32", { x });
  const k = x.shape.at(-1) ?? 1;
  return { n: x.size / k, k, LANES: rowLanes(op, k) };
}

/**
 * How many invocations share a row of `k` values that each walks through twice.
 *
 * @throws {RangeError} for a row so long that one would make more steps than any driver counts
 */
export function rowLanes(op: string, k: number): number {
  const longest = 256 * 32000;
  if (k < 1 || k > longest) throw new RangeError(`${op}: rows of ${k} values, not 1…${longest}`);
  return k <= 64 ? 1 : k <= 2048 ? 32 : 256;
}
