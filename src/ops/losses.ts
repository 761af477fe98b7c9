/** Losses: scalars, means over the batch. */
import source from "../../shaders/losses.wgsl" with { type: "text" };
import { gradFor, record } from "../autograd.ts";
import { grid1d, Shader } from "../gpu/shader.ts";
import { sameShape, type Tensor } from "../tensor.ts";
import { expectType } from "./check.ts";
import { mean } from "./reduce.ts";

const shader = new Shader("losses", source);

/**
 * The mean of −Σ q · log softmax(x) over the rows of `logits`.
 *
 * @param logits [n, k]
 * @param targets class numbers, u32 [n], of which one ≥ k makes the loss NaN; or probabilities, f32
 * [n, k], into which no gradient flows
 * @param options.labelSmoothing ε: q = (1 − ε) · target + ε / k (default 0)
 */
export function crossEntropy(
  logits: Tensor,
  targets: Tensor,
  options: { readonly labelSmoothing?: number } = {},
): Tensor {
  const { labelSmoothing: smoothing = 0 } = options;
  expectType("crossEntropy", "f32", { logits });
  const [n = 0, k = 0] = logits.shape;
  const isSoft = targets.dtype === "f32";
  const wanted = isSoft ? [n, k] : [n];
  if (logits.shape.length !== 2 || targets.dtype === "u8" || !sameShape(targets.shape, wanted)) {
    throw new RangeError(
      `crossEntropy: logits [${logits.shape}] want targets u32 [n] or f32 [n,k], ` +
        `not ${targets.dtype} [${targets.shape}]`,
    );
  }
  if (!(smoothing >= 0 && smoothing <= 1)) {
    throw new RangeError(`crossEntropy: labelSmoothing ${smoothing} is not in 0…1`);
  }
  const { gpu } = logits;
  const SOFT = isSoft ? 1 : 0;
  const LANES = k <= 64 ? 1 : k <= 2048 ? 32 : 256;
  const params = { n, k, smoothing };
  const stats = gpu.empty([n, 2]);
  const loss = gpu.scope(() => {
    const losses = gpu.empty([n]);
    gpu.run(
      shader.kernel("cross_entropy", { LANES, SOFT }),
      { x: logits, labels: targets, losses, stats },
      params,
      grid1d(n, 256 / LANES),
    );
    return mean(losses);
  });
  return record("crossEntropy", [logits, targets], loss, [logits, targets, stats], (dy) => {
    const dx = gradFor(logits);
    gpu.run(
      shader.kernel("cross_entropy_gradient", { SOFT }),
      { x4: logits, labels: targets, saved_stats: stats, dy, dx4: dx },
      params,
      grid1d(Math.ceil(logits.size / 4), 256),
    );
    return [dx, null];
  });
}
