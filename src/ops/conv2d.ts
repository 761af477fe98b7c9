/** Convolution of images. */
import { gradFor, record } from "../autograd.ts";
import type { Shape, Tensor } from "../tensor.ts";
import { cast } from "./cast.ts";
import { expectFloat, expectType } from "./check.ts";
import { batchNorm, normalisation, type Unnormalised } from "./batch_norm.ts";
import { imageProduct, normalisesLeft, reversed, type Taps, weightsProduct } from "./gemm.ts";
import { gradientOf } from "./reduce.ts";
import {
  stemBack,
  stemBackPays,
  stemImage,
  stemImagePays,
  stemWeights,
  stemWeightsPays,
} from "./stem.ts";
import { winogradImage, winogradPays, winogradWeights } from "./winograd.ts";

/** How a kernel moves over an image. */
export interface Conv2dOptions {
  /** Pixels from one position of the kernel to the next, in both directions (default 1). */
  readonly stride?: number;
  /** Zeros around the image on all sides (default 0). */
  readonly padding?: number;
  /** Added to every pixel: [out]. */
  readonly bias?: Tensor | undefined;
}

/**
 * Convolves images with a kernel (a cross-correlation, as in every network library):
 * y[n,i,j,o] = bias[o] + Σ u,v,c  x[n, i·stride+u−padding, j·stride+v−padding, c] · weight[u,v,c,o].
 *
 * @param x [n, h, w, in]; the result is of its type, f32 or f16
 * @param weight [kh, kw, in, out]
 * @returns [n, ⌊(h+2·padding−kh)/stride⌋+1, ⌊(w+2·padding−kw)/stride⌋+1, out]
 * @throws {RangeError} if the shapes do not fit.
 */
export function conv2d(x: Tensor, weight: Tensor, options: Conv2dOptions = {}): Tensor {
  return convolve(x, weight, options).y;
}

/** The result of {@linkcode conv2d}, and what `batchNorm` needs of it. */
export interface Convolved {
  /** [n, h', w', out] */
  readonly y: Tensor;
  /** [parts, 3, out], as `batchNorm` takes them; null where not asked for, or cheaper to take from y. */
  readonly moments: Tensor | null;
}

/**
 * {@linkcode conv2d}, which can leave the moments of its result behind: taken as it is computed, it need not be
 * read again for them. And it can be given what `batchNorm` would make of x, to be computed as x is read: so that
 * is neither written nor kept for the backward, where the kernels do so. Where they do not, it comes to the same.
 *
 * @param options.moments whether to leave them (default false)
 * @returns y as of `conv2d`, and moments [parts, 3, out] or null
 * @throws {RangeError} if the shapes do not fit.
 */
export function convolve(
  source: Tensor | Unnormalised,
  weight: Tensor,
  options: Conv2dOptions & { readonly moments?: boolean } = {},
): Convolved {
  const { stride = 1, padding = 0, bias, moments: leaves = false } = options;
  const { x, norm } = "norm" in source ? source : { x: source, norm: null };
  const taps = tapsOf(x, weight, stride, padding, bias);
  const [inner, columns] = [weight.shape[2]!, weight.shape[3]!];
  const { images, resultHeight, resultWidth } = taps;
  const { forward, back, weights, normalises } = productsOf(x, taps, inner, columns);
  if (norm !== null && !(normalises && norm.relu)) {
    return convolve(batchNorm(x, norm), weight, options);
  }
  const normalised = norm && normalisation(x, norm);
  const coefficients = normalised?.coefficients;
  const y = x.gpu.empty([images, resultHeight, resultWidth, columns], x.dtype);
  const moments = forward(y, x, weight, taps, inner, columns, {
    bias,
    moments: leaves,
    coefficients,
  });

  const sources = norm === null ? [x] : [x, norm.weight, norm.bias];
  const inputs = [...sources, weight, ...(bias === undefined ? [] : [bias])];
  const saved = coefficients === undefined ? [x, weight] : [x, weight, coefficients];
  record("conv2d", inputs, y, saved, (dy, needs) => {
    const [needsWeight, needsBias] = needs.slice(sources.length);
    const dweight = needsWeight ? gradFor(weight) : null;
    if (dweight !== null) weights(dweight, x, dy, taps, inner, columns, { coefficients });
    const dbias = bias !== undefined && needsBias ? gradientOf(cast(dy, "f32"), bias) : null;
    let gradients: readonly (Tensor | null)[] = sources.map(() => null);
    if (needs.slice(0, sources.length).includes(true)) {
      const options = { back: true, transposed: true };
      const dread = normalised === null ? gradFor(x) : x.gpu.empty(x.shape, x.dtype);
      back(dread, dy, weight, reversed(taps), columns, inner, options);
      gradients = normalised === null ? [dread] : normalised.backward(dread, needs);
    }
    return [...gradients, dweight, dbias].slice(0, inputs.length);
  });
  return { y, moments };
}

/**
 * The functions that compute a convolution and its gradients by the input and by the weights, and whether they
 * can normalise the input as they read it.
 */
function productsOf(x: Tensor, taps: Taps, inner: number, columns: number) {
  const { gpu, dtype } = x;
  if (dtype === "f32" && winogradPays(gpu, taps, inner, columns)) {
    const both = winogradImage;
    return { forward: both, back: both, weights: winogradWeights, normalises: true };
  }
  return {
    forward: stemImagePays(gpu, taps, inner, columns) ? stemImage : imageProduct,
    back: stemBackPays(gpu, taps, inner, columns) ? stemBack : imageProduct,
    weights: stemWeightsPays(x, taps, inner, columns) ? stemWeights : weightsProduct,
    normalises: normalisesLeft(gpu, inner),
  };
}

function tapsOf(
  x: Tensor,
  weight: Tensor,
  stride: number,
  padding: number,
  bias: Tensor | undefined,
): Taps {
  expectFloat("conv2d", { x });
  expectType("conv2d", "f32", bias === undefined ? { weight } : { weight, bias });
  const shapes = `(x [${x.shape}], weight [${weight.shape}])`;
  if (x.shape.length !== 4 || weight.shape.length !== 4) {
    throw new RangeError(`conv2d: x is [n,h,w,in] and weight [kh,kw,in,out] ${shapes}`);
  }
  const [images, sourceHeight, sourceWidth, channels] = x.shape as Shape4;
  const [kernelHeight, kernelWidth, inner, columns] = weight.shape as Shape4;
  if (channels !== inner) {
    throw new RangeError(
      `conv2d: input has ${channels} channels, weight expects ${inner} ${shapes}`,
    );
  }
  if (bias !== undefined && (bias.shape.length !== 1 || bias.shape[0] !== columns)) {
    throw new RangeError(`conv2d: bias is [${bias.shape}], not [${columns}] ${shapes}`);
  }
  if (!Number.isInteger(stride) || stride < 1) {
    throw new RangeError(`conv2d: stride ${stride} is no positive integer ${shapes}`);
  }
  if (!Number.isInteger(padding) || padding < 0) {
    throw new RangeError(`conv2d: padding ${padding} is no integer of at least 0 ${shapes}`);
  }
  const length = (source: number, kernel: number) =>
    Math.floor((source + 2 * padding - kernel) / stride) + 1;
  const resultHeight = length(sourceHeight, kernelHeight);
  const resultWidth = length(sourceWidth, kernelWidth);
  if (x.size === 0 || weight.size === 0 || resultHeight < 1 || resultWidth < 1) {
    throw new RangeError(
      `conv2d: nothing remains with stride ${stride} and padding ${padding} ${shapes}`,
    );
  }
  return {
    images,
    sourceHeight,
    sourceWidth,
    resultHeight,
    resultWidth,
    kernelHeight,
    kernelWidth,
    stride,
    padding,
  };
}

type Shape4 = Shape & readonly [number, number, number, number];
