/** Losses: scalars, means over the batch. */
import source from "../../shaders/losses.wgsl" with { type: "text" };
import { gradFor, record } from "../autograd.ts";
import type { Gpu } from "../gpu/gpu.ts";
import { foldGroups, grid1d, Shader } from "../gpu/shader.ts";
import { sameShape, type Tensor } from "../tensor.ts";
import { expectType } from "./check.ts";
import { mean } from "./reduce.ts";
import { rowLanes } from "./softmax.ts";

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
  expectWithin("crossEntropy", { labelSmoothing: smoothing }, 0, 1);
  const { gpu } = logits;
  const SOFT = isSoft ? 1 : 0;
  const LANES = rowLanes("crossEntropy", k);
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
      { x4: logits, labels: targets, saved_stats: stats, dy, dx },
      params,
      grid1d(Math.ceil(logits.size / 4), 256),
    );
    return [dx, null];
  });
}

/**
 * The mean binary cross-entropy of σ(logits) over the labels that are present; 0, with a gradient of
 * 0, where none is.
 *
 * @param logits f32 [..., k]
 * @param targets f32 of the same shape: probabilities, or NaN where the label is missing; no gradient
 * flows into them
 * @param options.posWeight f32 [k]: how much more a positive of each column counts (default 1)
 */
export function bceWithLogits(
  logits: Tensor,
  targets: Tensor,
  options: { readonly posWeight?: Tensor } = {},
): Tensor {
  const { posWeight } = options;
  expectType("bceWithLogits", "f32", { logits, targets, ...(posWeight ? { posWeight } : {}) });
  expectSameShape("bceWithLogits", { logits, targets });
  const k = logits.shape.at(-1) ?? 1;
  if (posWeight !== undefined && !sameShape(posWeight.shape, [k])) {
    throw new RangeError(
      `bceWithLogits: posWeight [${posWeight.shape}] for logits [${logits.shape}], not [${k}]`,
    );
  }
  const { gpu } = logits;
  const constants = { WEIGHTED: posWeight ? 1 : 0 };
  const params = { n: logits.size, k };
  const data = { x4: logits, targets, weight: posWeight ?? logits };
  const { loss, present } = average(gpu, logits.size, (partials, grid) => {
    gpu.run(shader.kernel("bce", constants), { ...data, partials }, params, grid);
  });
  const inputs = [logits, targets, ...(posWeight ? [posWeight] : [])];
  return record("bceWithLogits", inputs, loss, [...inputs, present], (dy) => {
    const dx = gradFor(logits);
    gpu.run(
      shader.kernel("bce_gradient", constants),
      { ...data, present, dy, dx },
      params,
      grid1d(Math.ceil(logits.size / 4), 256),
    );
    return [dx, ...inputs.slice(1).map(() => null)];
  });
}

/**
 * The mean focal loss of σ(logits) over the labels that are present, −α (1 − p)^γ log p for a positive and
 * −(1 − α) p^γ log(1 − p) for a negative one, so that what is learnt already counts for little (Lin et
 * al. 2017; torchvision's sigmoid_focal_loss). 0, with a gradient of 0, where no label is present.
 *
 * @param logits f32 [..., k]
 * @param targets f32 of the same shape: probabilities, which mix the two terms, or NaN where the label is
 * missing; no gradient flows into them
 * @param options.gamma how strongly the learnt is discounted; 0 is cross-entropy (default 2)
 * @param options.alpha weight of the positives, in 0…1 (default 0.25); null weighs both classes 1
 */
export function focalLoss(
  logits: Tensor,
  targets: Tensor,
  options: { readonly gamma?: number; readonly alpha?: number | null } = {},
): Tensor {
  const { gamma = 2, alpha = 0.25 } = options;
  expectWithin("focalLoss", { gamma }, 0, Infinity);
  if (alpha !== null) expectWithin("focalLoss", { alpha }, 0, 1);
  return focused("focalLoss", logits, targets, {
    gamma_positive: gamma,
    gamma_negative: gamma,
    weight_positive: alpha ?? 1,
    weight_negative: alpha === null ? 1 : 1 - alpha,
    shift: 0,
  });
}

/**
 * The mean asymmetric loss of σ(logits) over the labels that are present, −(1 − p)^γ₊ log p for a positive
 * and −s^γ₋ log(1 − s), s = max(p − shift, 0), for a negative one: easy negatives, of which most labels
 * have many, count for little and the easiest not at all (Ridnik et al. 2021, equations 5 to 7). 0, with
 * a gradient of 0, where no label is present.
 *
 * @param logits f32 [..., k]
 * @param targets f32 of the same shape: probabilities, which mix the two terms, or NaN where the label is
 * missing; no gradient flows into them
 * @param options.gammaNegative γ₋ (default 4)
 * @param options.gammaPositive γ₊ (default 0, as in the paper; its code has 1)
 * @param options.shift the probability up to which negatives are ignored (default 0.05)
 */
export function asymmetricLoss(
  logits: Tensor,
  targets: Tensor,
  options: {
    readonly gammaNegative?: number;
    readonly gammaPositive?: number;
    readonly shift?: number;
  } = {},
): Tensor {
  const { gammaNegative = 4, gammaPositive = 0, shift = 0.05 } = options;
  expectWithin("asymmetricLoss", { gammaNegative, gammaPositive }, 0, Infinity);
  expectWithin("asymmetricLoss", { shift }, 0, 1);
  return focused("asymmetricLoss", logits, targets, {
    gamma_positive: gammaPositive,
    gamma_negative: gammaNegative,
    weight_positive: 1,
    weight_negative: 1,
    shift,
  });
}

/** What focal and asymmetric loss have in common; the formula stands in the shader. */
function focused(
  op: string,
  logits: Tensor,
  targets: Tensor,
  focus: Readonly<Record<string, number>>,
): Tensor {
  expectType(op, "f32", { logits, targets });
  expectSameShape(op, { logits, targets });
  const { gpu } = logits;
  const params = { n: logits.size, ...focus };
  const data = { x4: logits, targets };
  const { loss, present } = average(gpu, logits.size, (partials, grid) => {
    gpu.run(shader.kernel("focal"), { ...data, partials }, params, grid);
  });
  return record(op, [logits, targets], loss, [logits, targets, present], (dy) => {
    const dx = gradFor(logits);
    gpu.run(
      shader.kernel("focal_gradient"),
      { ...data, present, dy, dx },
      params,
      grid1d(Math.ceil(logits.size / 4), 256),
    );
    return [dx, null];
  });
}

/** The mean of (x − target)² over all elements of two tensors of one shape. */
export function mse(x: Tensor, target: Tensor): Tensor {
  expectType("mse", "f32", { x, target });
  expectSameShape("mse", { x, target });
  const { gpu } = x;
  const params = { n: x.size, k: 1 };
  const { loss, present } = average(gpu, x.size, (partials, grid) => {
    gpu.run(shader.kernel("mse"), { x4: x, targets: target, partials }, params, grid);
  });
  return record(
    "mse",
    [x, target],
    loss,
    [x, target, present],
    (dy, needs) =>
      [x, target].map((input, SIDE) => {
        if (!needs[SIDE]) return null;
        const dx = gradFor(input);
        gpu.run(
          shader.kernel("mse_gradient", { SIDE }),
          { x4: x, targets: target, present, dy, dx },
          params,
          grid1d(Math.ceil(x.size / 4), 256),
        );
        return dx;
      }),
  );
}

/** The mean from sums and counts of 4096 elements each, which `fill` computes. */
function average(
  gpu: Gpu,
  n: number,
  fill: (partials: Tensor, grid: [number, number, number]) => void,
): { loss: Tensor; present: Tensor } {
  const groups = Math.ceil(n / 4096);
  return gpu.scope(() => {
    const partials = gpu.empty([groups, 2]);
    fill(partials, foldGroups(groups));
    const loss = gpu.empty([]);
    const present = gpu.empty([]);
    gpu.run(shader.kernel("average"), { parts: partials, y: loss, found: present }, { groups }, [
      1,
      1,
      1,
    ]);
    return { loss, present };
  });
}

function expectWithin(
  op: string,
  options: Readonly<Record<string, number>>,
  low: number,
  high: number,
): void {
  for (const [name, value] of Object.entries(options)) {
    if (value >= low && value <= high && Number.isFinite(value)) continue;
    const range = high === Infinity ? `a number ≥ ${low}` : `in ${low}…${high}`;
    throw new RangeError(`${op}: ${name} ${value} is not ${range}`);
  }
}

function expectSameShape(op: string, tensors: Readonly<Record<string, Tensor>>): void {
  const [[a, x], [b, y]] = Object.entries(tensors) as [[string, Tensor], [string, Tensor]];
  if (!sameShape(x.shape, y.shape)) {
    throw new RangeError(`${op}: ${a} [${x.shape}] and ${b} [${y.shape}]`);
  }
  if (x.size === 0) throw new RangeError(`${op}: ${a} [${x.shape}] is empty`);
}
