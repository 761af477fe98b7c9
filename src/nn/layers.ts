/** Layers with PyTorch's and torchvision's initialisation. */
import { isRecomputing } from "../autograd.ts";
import { batchNorm, type BatchNormOptions, type Unnormalised } from "../ops/batch_norm.ts";
import { convolve, type Convolved } from "../ops/conv2d.ts";
import { linear } from "../ops/matmul.ts";
import type { Random } from "../random.ts";
import type { Tensor } from "../tensor.ts";
import { type Init, Module, Parameter } from "./module.ts";

const zero: Init = () => 0;
const one: Init = () => 1;

/** `torch.nn.init.kaiming_normal_(mode="fan_out", nonlinearity="relu")` (He et al. 2015). */
function kaimingNormal(fanOut: number): Init {
  const deviation = Math.sqrt(2 / fanOut);
  return (random) => deviation * random.normal();
}

/** The default of `torch.nn.Linear`: U(−1/√fan_in, 1/√fan_in) for weight and bias. */
function uniformFanIn(fanIn: number): Init {
  const bound = 1 / Math.sqrt(fanIn);
  return (random) => random.uniform(-bound, bound);
}

/** A 2-D convolution without bias: x [n, h, w, in] → [n, h', w', out]. */
export class Conv2d extends Module {
  /** [kernel, kernel, in, out] */
  readonly weight: Parameter;
  readonly #stride: number;
  readonly #padding: number;

  /** Channels in and out, side of the square kernel. */
  constructor(
    inputs: number,
    outputs: number,
    kernel: number,
    { stride = 1, padding = 0, isLast = false } = {},
  ) {
    super();
    const taps = kernel * kernel;
    // Before a ReLU as torchvision's ResNet, else as the default of `torch.nn.Conv2d`.
    const init = isLast ? uniformFanIn(inputs * taps) : kaimingNormal(outputs * taps);
    this.weight = new Parameter([kernel, kernel, inputs, outputs], "conv", init);
    this.#stride = stride;
    this.#padding = padding;
  }

  /** Convolves. */
  forward(x: Tensor): Tensor {
    return this.convolve(x).y;
  }

  /**
   * The same, also of an x that is yet to be normalised, with the moments of the result where asked for; see
   * `convolve` of the operations.
   */
  convolve(x: Tensor | Unnormalised, { moments = false } = {}): Convolved {
    const [stride, padding] = [this.#stride, this.#padding];
    return convolve(x, this.weight.tensor, { stride, padding, moments });
  }
}

/** An affine map: x [n, in] → [n, out]. */
export class Linear extends Module {
  /** [in, out] */
  readonly weight: Parameter;
  /** [out], or null without one. */
  readonly bias: Parameter | null;

  /**
   * Features in and out.
   *
   * @param options.deviation of normal weights, which start with a bias of 0 (default: as PyTorch)
   */
  constructor(
    inputs: number,
    outputs: number,
    { bias = true, deviation }: { bias?: boolean; deviation?: number } = {},
  ) {
    super();
    const [weights, biases] = deviation === undefined
      ? [uniformFanIn(inputs), uniformFanIn(inputs)]
      : [(random: Random) => deviation * random.normal(), zero];
    this.weight = new Parameter([inputs, outputs], "linear", weights);
    this.bias = bias ? new Parameter([outputs], "vector", biases) : null;
  }

  /** x · weight + bias. */
  forward(x: Tensor): Tensor {
    return linear(x, this.weight.tensor, this.bias?.tensor);
  }
}

/** What {@linkcode BatchNorm} does besides. */
export type NormOptions = Pick<BatchNormOptions, "relu" | "residual" | "pool">;

/**
 * Batch normalisation over all axes but the last, with ReLU and a residual or pooling fused in where asked:
 * relu(bn(x) + residual), maxPool2d(relu(bn(x))). Momentum 0.1, ε 1e-5, unbiased running variance, as in PyTorch.
 */
export class BatchNorm extends Module {
  /** γ, [channels] */
  readonly weight: Parameter;
  /** β, [channels] */
  readonly bias: Parameter;
  /** [channels] */
  readonly running_mean: Parameter;
  /** [channels] */
  readonly running_var: Parameter;
  /** Training batches seen: PyTorch's `num_batches_tracked`. */
  batches = 0;

  /** γ 1, β 0, running mean 0 and variance 1. */
  constructor(channels: number) {
    super();
    this.weight = new Parameter([channels], "vector", one);
    this.bias = new Parameter([channels], "vector", zero);
    this.running_mean = new Parameter([channels], "vector", zero, { trainable: false });
    this.running_var = new Parameter([channels], "vector", one, { trainable: false });
  }

  /** Normalises by the batch in training, which also updates the running statistics; else by these. */
  forward(x: Tensor, options: NormOptions = {}): Tensor {
    const { norm } = this.#normalised({ y: x, moments: null });
    return batchNorm(x, { ...norm, ...options });
  }

  /**
   * {@linkcode forward} of what a convolution makes of x [n, h, w, in]: [n, h', w', channels]. In training the
   * convolution leaves its moments behind.
   */
  after(conv: Conv2d, input: Tensor | Unnormalised, options: NormOptions = {}): Tensor {
    const { x, norm } = this.#normalised(conv.convolve(input, { moments: this.training }));
    return batchNorm(x, { ...norm, ...options });
  }

  /** {@linkcode after} with a ReLU, which is left to the next convolution: it normalises what it reads. */
  between(conv: Conv2d, input: Tensor | Unnormalised): Unnormalised {
    const { x, norm } = this.#normalised(conv.convolve(input, { moments: this.training }));
    return { x, norm: { ...norm, relu: true } };
  }

  #normalised({ y: x, moments }: Convolved): Unnormalised {
    // A forward that is repeated for the backward has counted already.
    const first = !isRecomputing();
    if (this.training && first) this.batches++;
    const norm = {
      weight: this.weight.tensor,
      bias: this.bias.tensor,
      runningMean: this.running_mean.tensor,
      runningVar: this.running_var.tensor,
      training: this.training,
      momentum: first ? 0.1 : 0,
      moments,
    };
    return { x, norm };
  }
}
