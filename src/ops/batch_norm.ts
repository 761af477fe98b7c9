/** Batch normalisation, with ReLU and a residual fused in. */
import source from "../../shaders/batch_norm.wgsl" with { type: "text" };
import { gradFor, record } from "../autograd.ts";
import { foldGroups, Shader } from "../gpu/shader.ts";
import type { Grid } from "../gpu/stream.ts";
import { sameShape, type Tensor } from "../tensor.ts";

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
  /** ReLU at the end (default false). */
  relu?: boolean;
  /** Added before the ReLU; of the shape of x. */
  residual?: Tensor;
}

/**
 * relu((x − μ)/√(σ² + ε)·weight + bias + residual), by channel (Ioffe and Szegedy 2015): x [n, h, w, c] or
 * [n, c]. In training μ and σ² are mean and biased variance over all but the last axis, and the
 * running statistics move towards the mean and the unbiased variance, as in PyTorch. The result is of the
 * type of x, f32 or f16, as the residual must be.
 *
 * @throws {RangeError} if shapes disagree, or for a training batch of one value a channel.
 */
export function batchNorm(x: Tensor, options: BatchNormOptions): Tensor {
  const { weight, bias, runningMean, runningVar, training, residual } = options;
  const { momentum = 0.1, eps = 1e-5, relu = false } = options;
  const { gpu } = x;
  const c = x.shape.at(-1) ?? 1;
  const rows = x.size / c;
  for (const [name, tensor] of Object.entries({ weight, bias, runningMean, runningVar })) {
    if (!sameShape(tensor.shape, [c])) {
      throw new RangeError(`batchNorm: ${name} [${tensor.shape}] for x [${x.shape}]`);
    }
  }
  if (residual !== undefined && !sameShape(residual.shape, x.shape)) {
    throw new RangeError(`batchNorm: residual [${residual.shape}] for x [${x.shape}]`);
  }
  if (training && rows < 2) {
    throw new RangeError(`batchNorm: one value a channel has no variance (x [${x.shape}])`);
  }

  const RELU = Number(relu);
  const lines = foldRows(rows, c);
  const width = 4 * lines.columns;
  const scalars = { epsilon: eps, momentum, weight_of_sums: training ? 1 / rows : 0 };
  const QUADS = lines.columns % 32 === 0 ? 4 : lines.columns % 16 === 0 ? 2 : 1;
  const summing = share(lines, QUADS, 32, 512);
  const applying = share(lines, QUADS, 8, Infinity);
  const sumParams = { ...lines, ...summing.params, ...scalars };
  const applyParams = { ...lines, ...applying.params, ...scalars };
  const byChannel: Grid = [Math.ceil(c / 8), 1, 1];

  const coefficients = gpu.empty([4, width]);
  const y = gpu.empty(x.shape, x.dtype);
  gpu.scope(() => {
    const shared = { channel_coefficients: coefficients, weight, bias };
    if (training) {
      const partials = gpu.empty([summing.params.spans, 3, width]);
      gpu.run(
        shader.kernel("moments", { QUADS }),
        { x, partial_sums: partials },
        sumParams,
        summing.grid,
      );
      gpu.run(
        shader.kernel("batch_coefficients"),
        {
          ...shared,
          channel_partials: partials,
          running_mean: runningMean,
          running_var: runningVar,
        },
        sumParams,
        byChannel,
      );
    } else {
      const fixed = { fixed_mean: runningMean, fixed_var: runningVar };
      gpu.run(shader.kernel("running_coefficients"), { ...shared, ...fixed }, sumParams, byChannel);
    }
  });
  if (residual === undefined) {
    gpu.run(
      shader.kernel("apply", { RELU, QUADS }),
      { x, coefficients, y },
      applyParams,
      applying.grid,
    );
  } else {
    const tensors = { x, coefficients, y, residual };
    gpu.run(shader.kernel("apply_residual", { RELU, QUADS }), tensors, applyParams, applying.grid);
  }

  const inputs = residual === undefined ? [x, weight, bias] : [x, weight, bias, residual];
  // The ReLU's mask is recomputed from x; only with a residual in between it is read off the output.
  const masked = relu && residual !== undefined;
  const saved = masked ? [x, coefficients, y] : [x, coefficients];
  return record("batchNorm", inputs, y, saved, (dy, needs) => {
    const partials = gpu.empty([summing.params.spans, 2, width]);
    const slopes = gpu.empty([2, width]);
    let g = dy;
    if (masked) {
      g = gradFor(residual);
      gpu.run(
        shader.kernel("masked_sums", { QUADS }),
        { x, coefficients, dy, output: y, masked_dy: g, partial_sums: partials },
        sumParams,
        summing.grid,
      );
    } else {
      gpu.run(
        shader.kernel("sums", { RELU, QUADS }),
        { x, coefficients, dy, partial_sums: partials },
        sumParams,
        summing.grid,
      );
    }
    const dweight = needs[1] ? gradFor(weight) : gpu.empty([c]);
    const dbias = needs[2] ? gradFor(bias) : gpu.empty([c]);
    gpu.run(
      shader.kernel("parameter_gradients"),
      {
        channel_partials: partials,
        saved_coefficients: coefficients,
        channel_slopes: slopes,
        dweight,
        dbias,
      },
      sumParams,
      byChannel,
    );
    const dx = needs[0] ? gradFor(x) : null;
    if (dx !== null) {
      gpu.run(
        shader.kernel("apply_gradient", { RELU: masked ? 0 : RELU, QUADS }),
        { x, coefficients, dy: g, slopes, dx },
        applyParams,
        applying.grid,
      );
    }
    return residual === undefined ? [dx, dweight, dbias] : [dx, dweight, dbias, g];
  });
}

/** The rows [rows, c] as lines of whole vec4, 16 of them or more; see the shader. */
function foldRows(rows: number, c: number) {
  let fold = c % 4 === 0 ? 1 : 4;
  while (fold * c < 64) fold *= 2;
  return { c, size: rows * c, fold, columns: fold * c / 4, lines: Math.ceil(rows / fold) };
}

/** Gives each invocation `run` lines, or as many as it takes not to have more than `maxSpans` workgroups. */
function share(
  { lines, columns }: ReturnType<typeof foldRows>,
  quads: number,
  run: number,
  maxSpans: number,
): { params: { run: number; spans: number }; grid: Grid } {
  const longest = Math.max(run, Math.ceil(lines / (8 * maxSpans)));
  const spans = Math.ceil(lines / (8 * longest));
  const [y, z] = foldGroups(spans);
  return { params: { run: longest, spans }, grid: [Math.ceil(columns / (8 * quads)), y, z] };
}
