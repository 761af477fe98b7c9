/** Pooling of images over windows, and over the whole image. */
import source from "../../shaders/pool.wgsl" with { type: "text" };
import { gradFor, record } from "../autograd.ts";
import { foldGroups, Shader } from "../gpu/shader.ts";
import type { Grid } from "../gpu/stream.ts";
import type { Shape, Tensor } from "../tensor.ts";
import { mean } from "./reduce.ts";

const shader = new Shader("pool", source);

/** A square window. */
export interface PoolOptions {
  /** Length of a side in pixels. */
  kernel: number;
  /** Pixels from one window to the next (default `kernel`). */
  stride?: number;
  /** Pixels around the image, at most half of `kernel` (default 0). */
  padding?: number;
}

/**
 * The largest value of each window: x [n, h, w, c] → [n, h', w', c], h' = ⌊(h + 2·padding − kernel) / stride⌋ + 1.
 * Of equal ones the first in row-major order receives the gradient, as in PyTorch.
 *
 * @throws {RangeError} if no window fits, or for a kernel over 16.
 */
export function maxPool2d(x: Tensor, options: PoolOptions): Tensor {
  const { values, taps, spread } = extremes(x, null, options);
  return record("maxPool2d", [x], values, [taps], (dy) => {
    const dx = gradFor(x);
    spread(dy, dx);
    return [dx];
  });
}

/** What {@linkcode extremes} finds. */
export interface Extremes {
  /** [n, h', w', c] */
  readonly values: Tensor;
  /** Where they were. */
  readonly taps: Tensor<"u32">;
  /** Records the gradient dx of x for that of the values, or of what came of them by a normalisation of x. */
  spread(dy: Tensor, dx: Tensor, by?: Normalised): void;
}

/** A batch normalisation on its way back; see its shader. */
export interface Normalised {
  /** What was pooled and normalised. */
  readonly x: Tensor;
  /** [4, width] */
  readonly coefficients: Tensor;
  /** [2, width] */
  readonly slopes: Tensor;
  /** Whether a ReLU followed. */
  readonly relu: boolean;
}

/**
 * The largest value of each window, the smallest in channels whose weight is negative: the one that is the
 * largest after a multiplication by the weight. It is not recorded on the tape.
 *
 * @param weight [c], or null for the largest in all channels
 * @throws {RangeError} if no window fits, or for a kernel over 16.
 */
export function extremes(x: Tensor, weight: Tensor | null, options: PoolOptions): Extremes {
  const { shape, params, constants, blocks } = windows("maxPool2d", x, options);
  if (options.kernel > 16) throw new RangeError(`maxPool2d: kernel ${options.kernel} is over 16`);
  const { gpu } = x;
  const values = gpu.empty(shape, x.dtype);
  const c = shape.at(-1)!;
  const [lanes, four] = c % 4 === 0 ? [4, "4"] : [1, ""];
  const channels = c / lanes;
  const taps = gpu.empty([values.size / lanes], "u32");
  // Software has few lanes to fill.
  const run = gpu.adapter.isFallback ? 32 : 4;
  const shared = { ...params, channels, run };
  const grid = (shape: Shape) =>
    lanes === 4 ? gridOfRuns(shape, channels, run) : gridOf(shape, channels);
  gpu.run(
    shader.kernel(`max_pool${four}`, { ...constants, SIGNED: weight === null ? 0 : 1 }),
    { [`x${four}`]: x, [`y${four}`]: values, taps, [`weight${four}`]: weight },
    shared,
    grid(shape),
  );
  return {
    values,
    taps,
    spread: (dy, dx, by) =>
      gpu.run(
        shader.kernel(`max_pool_gradient${four}`, {
          ...constants,
          NORMALISED: Number(by !== undefined),
          RELU: Number(by?.relu ?? false),
        }),
        {
          [`dy${four}`]: dy,
          saved_taps: taps,
          [`dx${four}`]: dx,
          [`pooled${four}`]: by?.x,
          [`coefficients${four}`]: by?.coefficients,
          [`slopes${four}`]: by?.slopes,
        },
        { ...shared, columns: (by?.slopes.shape[1] ?? 0) / 4 },
        grid(blocks),
      ),
  };
}

/**
 * The mean of each window: x [n, h, w, c] → [n, h', w', c], sizes as in {@linkcode maxPool2d}; padding counts
 * as zeros, as is PyTorch's default.
 *
 * @throws {RangeError} if no window fits.
 */
export function avgPool2d(x: Tensor, options: PoolOptions): Tensor {
  const { shape, params, constants, blocks } = windows("avgPool2d", x, options);
  const { gpu } = x;
  const channels = shape.at(-1)!;
  const y = gpu.empty(shape, x.dtype);
  const shared = { ...params, channels };
  gpu.run(shader.kernel("avg_pool", constants), { x, y }, shared, gridOf(shape, channels));
  return record("avgPool2d", [x], y, [], (dy) => {
    const dx = gradFor(x);
    gpu.run(
      shader.kernel("avg_pool_gradient", constants),
      { dy, dx },
      shared,
      gridOf(blocks, channels),
    );
    return [dx];
  });
}

/** The mean of each channel over the image: x [n, h, w, c] → [n, c]. */
export function globalAvgPool(x: Tensor): Tensor {
  if (x.shape.length !== 4) throw new RangeError(`globalAvgPool: x [${x.shape}] has not four axes`);
  return mean(x, { axes: [1, 2] });
}

/** The shape of the result, and what all kernels take. */
function windows(op: string, x: Tensor, { kernel, stride = kernel, padding = 0 }: PoolOptions) {
  const [n, h, w, c] = x.shape as [number, number, number, number];
  const oh = Math.floor((h + 2 * padding - kernel) / stride) + 1;
  const ow = Math.floor((w + 2 * padding - kernel) / stride) + 1;
  if (x.shape.length !== 4 || !(oh > 0 && ow > 0) || 2 * padding > kernel) {
    throw new RangeError(
      `${op}: kernel ${kernel}, stride ${stride}, padding ${padding} over x [${x.shape}]`,
    );
  }
  const shape: Shape = [n, oh, ow, c];
  const blocksOf = (length: number) => Math.ceil((length + padding) / stride);
  return {
    shape,
    params: { n, h, w, oh, ow, padding, run: 1, columns: 0 },
    constants: { KERNEL: kernel, STRIDE: stride, COVER: Math.ceil(kernel / stride) },
    /** What gradients are made by; see the shader. */
    blocks: [n, blocksOf(h), blocksOf(w), c] as const,
  };
}

/** An invocation for each `run` pixels, or blocks of pixels, along a row of a result and each of its `channels`. */
function gridOfRuns([n, h, w]: Shape, channels: number, run: number): Grid {
  const [y, z] = foldGroups(Math.ceil(n! * h! * channels / 64));
  return [Math.ceil(w! / run), y, z];
}

/** An invocation for each pixel, or block of pixels, of a result and each of its `channels`. */
function gridOf([n, h, w]: Shape, channels: number): Grid {
  const [y, z] = foldGroups(n! * h!);
  return [Math.ceil(w! * channels / 64), y, z];
}
