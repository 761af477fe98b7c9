/** Batch normalisation, with ReLU and a residual or pooling fused in. */
import source from "../../shaders/batch_norm.wgsl" with { type: "text" };
import { type Backward, gradFor, record } from "../autograd.ts";
import { foldGroups, Shader } from "../gpu/shader.ts";
import type { Grid } from "../gpu/stream.ts";
import { sameShape, type Tensor } from "../tensor.ts";
import { type Extremes, extremes, type PoolOptions } from "./pool.ts";

const shader = new Shader("batch_norm", source);

/** What {@linkcode batchNorm} takes besides its input. */
export interface BatchNormOptions {
  /** Scale [c]. */
  weight: Tensor;
  /** Shift [c]. */
  bias: Tensor;
  /** Running mean [c]: updated in training, used in evaluation. */
  runningMean: Tensor;
  /** Running unbiased variance [c]. */
  runningVar: Tensor;
  /** Whether to normalise by the statistics of this batch, and to update the running ones. */
  training: boolean;
  /** Share of the batch in the running statistics (default 0.1). */
  momentum?: number;
  /** Added to the variance (default 1e-5). */
  eps?: number;
  /**
   * [parts, 3, c]: for parts of the rows of x their number, mean and sum of squared deviations from it, by
   * channel, where what made x left them (see `convolve`); else they are taken from x.
   */
  moments?: Tensor | null;
  /** ReLU at the end (default false). */
  relu?: boolean;
  /** Added before the ReLU; of the shape of x. */
  residual?: Tensor;
  /** Windows of which only the largest values are kept, as `maxPool2d` does; not beside a residual. */
  pool?: PoolOptions;
}

/**
 * relu((x − μ)/√(σ² + ε)·weight + bias + residual), by channel (Ioffe and Szegedy 2015): x [n, h, w, c] or
 * [n, c]. In training μ and σ² are mean and biased variance over all but the last axis, and the
 * running statistics move towards the mean and the unbiased variance, as in PyTorch. The result is of the
 * type of x, f32 or f16, as the residual must be.
 *
 * With `pool`, what is normalised is pooled already: scale, shift and ReLU keep the order of values, or with a
 * negative weight turn it round. The same values come out, and those of all pixels are never stored. (A weight
 * of 0 makes all pixels of a window alike: then another one than the first receives the gradient.)
 *
 * @throws {RangeError} if shapes disagree, or for a training batch of one value a channel.
 */
export function batchNorm(x: Tensor, options: BatchNormOptions): Tensor {
  const { weight, bias, relu = false, residual, pool } = options;
  const { gpu } = x;
  if (residual !== undefined && !sameShape(residual.shape, x.shape)) {
    throw new RangeError(`batchNorm: residual [${residual.shape}] for x [${x.shape}]`);
  }
  if (residual !== undefined && pool !== undefined) {
    throw new RangeError("batchNorm: pool beside a residual");
  }
  const coefficients = coefficientsOf(x, options);
  const pooled = pool === undefined ? null : extremes(x, weight, pool);
  const kept = pooled?.values ?? x;
  const y = gpu.empty(kept.shape, x.dtype);
  const { QUADS, elements } = planWalks(x, options, kept);
  gpu.run(
    shader.kernel(residual === undefined ? "apply" : "apply_residual", {
      RELU: Number(relu),
      QUADS,
    }),
    { x: kept, coefficients, y, residual },
    elements.params,
    elements.grid,
  );

  const inputs = residual === undefined ? [x, weight, bias] : [x, weight, bias, residual];
  // The ReLU's mask is recomputed from x; only with a residual in between it is read off the output.
  const masked = relu && residual !== undefined;
  const saved = [
    x,
    coefficients,
    ...(masked ? [y] : []),
    ...(pooled === null ? [] : [pooled.values, pooled.taps]),
  ];
  const backward: Backward = (dy, needs, more) =>
    gradients(x, options, { coefficients, pooled, output: y }, dy, needs, more)
      .slice(0, inputs.length);
  return record("batchNorm", inputs, y, saved, backward, { takesTwo: masked });
}

/** What a forward leaves for its way back. */
interface Saved {
  readonly coefficients: Tensor;
  /** What was pooled of x before it was normalised. */
  readonly pooled?: Extremes | null;
  /** Read only with a residual and a ReLU. */
  readonly output?: Tensor;
}

/** The gradients of x, weight, bias and residual from that of the result, dy or dy + more. */
function gradients(
  x: Tensor,
  options: BatchNormOptions,
  { coefficients, pooled = null, output }: Saved,
  dy: Tensor,
  needs: readonly boolean[],
  more?: Tensor,
): (Tensor | null)[] {
  const { gpu } = x;
  const { weight, bias, relu = false, residual } = options;
  const masked = relu && residual !== undefined;
  const kept = pooled?.values ?? x;
  const { QUADS, width, sums: { params, grid } } = planWalks(x, options, kept);
  const RELU = Number(relu && !masked);
  const partials = gpu.empty([params.spans, 2, width]);
  const slopes = gpu.empty([2, width]);
  let g = dy;
  if (masked) {
    g = gradFor(residual);
    gpu.run(
      shader.kernel("masked_sums", { QUADS, PARTS: more === undefined ? 1 : 2 }),
      { x, coefficients, dy, more, output, masked_dy: g, partial_sums: partials },
      params,
      grid,
    );
  } else {
    gpu.run(
      shader.kernel("sums", { RELU, QUADS }),
      { x: kept, coefficients, dy, partial_sums: partials },
      params,
      grid,
    );
  }
  const dweight = needs[1] ? gradFor(weight) : gpu.empty(weight.shape);
  const dbias = needs[2] ? gradFor(bias) : gpu.empty(bias.shape);
  gpu.run(
    shader.kernel("parameter_gradients"),
    {
      channel_partials: partials,
      saved_coefficients: coefficients,
      channel_slopes: slopes,
      dweight,
      dbias,
    },
    params,
    byChannel(weight),
  );
  const dx = needs[0] ? gradFor(x) : null;
  if (dx !== null && pooled !== null) {
    pooled.spread(dy, dx, { x, coefficients, slopes, relu });
  } else if (dx !== null) {
    const { elements } = planWalks(x, options);
    gpu.run(
      shader.kernel("apply_gradient", { RELU, QUADS }),
      { x, coefficients, dy: g, slopes, dx },
      elements.params,
      elements.grid,
    );
  }
  return [dx, dweight, dbias, g];
}

/** A tensor that is yet to be normalised, where it is read. */
export interface Unnormalised {
  /** [n, h, w, c] */
  readonly x: Tensor;
  /** Without residual and pooling. */
  readonly norm: Omit<BatchNormOptions, "residual" | "pool">;
}

/** {@linkcode batchNorm} for those who read x and normalise it themselves: see `convolve`. */
export interface Normalisation {
  /**
   * [4, width]: mean μ, 1/√(σ² + ε), weight/√(σ² + ε) and bias of the channels, one after another until the width is
   * that of several vec4.
   */
  readonly coefficients: Tensor;
  /** The gradients of x, weight and bias from that of what x became. */
  readonly backward: (dy: Tensor, needs: readonly boolean[]) => readonly (Tensor | null)[];
}

/**
 * What it takes to normalise x, which is left to the caller, and to go back; it is not recorded on the tape.
 *
 * @throws {RangeError} as `batchNorm` does
 */
export function normalisation(x: Tensor, norm: Unnormalised["norm"]): Normalisation {
  const coefficients = coefficientsOf(x, norm);
  return {
    coefficients,
    backward: (dy, needs) => gradients(x, norm, { coefficients }, dy, needs).slice(0, 3),
  };
}

/** The coefficients of a normalisation, [4, width]; in training it also updates the running statistics. */
function coefficientsOf(x: Tensor, options: BatchNormOptions): Tensor {
  const { weight, bias, runningMean, runningVar, training, moments = null } = options;
  const { gpu } = x;
  const c = x.shape.at(-1) ?? 1;
  for (const [name, tensor] of Object.entries({ weight, bias, runningMean, runningVar })) {
    if (!sameShape(tensor.shape, [c])) {
      throw new RangeError(`batchNorm: ${name} [${tensor.shape}] for x [${x.shape}]`);
    }
  }
  if (moments !== null && !sameShape(moments.shape.slice(1), [3, c])) {
    throw new RangeError(`batchNorm: moments [${moments.shape}] for x [${x.shape}]`);
  }
  if (training && x.size < 2 * c) {
    throw new RangeError(`batchNorm: one value a channel has no variance (x [${x.shape}])`);
  }
  const { QUADS, width, sums: { params, grid } } = planWalks(x, options);
  const coefficients = gpu.empty([4, width]);
  const shared = { channel_coefficients: coefficients, weight, bias };
  if (!training) {
    const fixed = { fixed_mean: runningMean, fixed_var: runningVar };
    gpu.run(
      shader.kernel("running_coefficients"),
      { ...shared, ...fixed },
      params,
      byChannel(weight),
    );
    return coefficients;
  }
  gpu.scope(() => {
    let partials = moments;
    if (partials === null) {
      partials = gpu.empty([params.spans, 3, width]);
      gpu.run(shader.kernel("moments", { QUADS }), { x, partial_sums: partials }, params, grid);
    }
    const parts = moments === null ? {} : { spans: moments.shape[0]!, part_fold: 1 };
    gpu.run(
      shader.kernel("batch_coefficients"),
      { ...shared, channel_partials: partials, running_mean: runningMean, running_var: runningVar },
      { ...params, ...parts },
      byChannel(weight),
    );
  });
  return coefficients;
}

/** Eight channels a workgroup. */
function byChannel({ size }: Tensor): Grid {
  return [Math.ceil(size / 8), 1, 1];
}

/**
 * How kernels walk over x, or over what was kept of it, [rows, c]: for sums and for elements, in lines of whole
 * vec4; see the shader.
 */
function planWalks(x: Tensor, options: BatchNormOptions, kept = x) {
  const { momentum = 0.1, eps: epsilon = 1e-5, training } = options;
  const c = options.weight.size;
  const rows = kept.size / c;
  const weight_of_sums = training ? c / x.size : 0;
  let fold = c % 4 === 0 ? 1 : 4;
  while (fold * c < 64) fold *= 2;
  const columns = fold * c / 4;
  const lines = Math.ceil(rows / fold);
  const QUADS = columns % 32 === 0 ? 4 : columns % 16 === 0 ? 2 : 1;
  // `run` lines an invocation, or as many as it takes not to have more than `maxSpans` workgroups.
  const share = (run: number, maxSpans: number) => {
    const longest = Math.max(run, Math.ceil(lines / (8 * maxSpans)));
    const spans = Math.ceil(lines / (8 * longest));
    const [y, z] = foldGroups(spans);
    return {
      params: {
        c,
        size: rows * c,
        fold,
        columns,
        lines,
        run: longest,
        spans,
        part_fold: fold,
        epsilon,
        momentum,
        weight_of_sums,
      },
      grid: [Math.ceil(columns / (8 * QUADS)), y, z] as Grid,
    };
  };
  // Software has few lanes to fill, and loads what is kept by channel for every run.
  const run = x.gpu.adapter.isFallback ? 32 : 8;
  return { width: 4 * columns, QUADS, sums: share(32, 512), elements: share(run, Infinity) };
}
