/**
 * Optimisers over the flat buffers of a model: one dispatch updates every parameter (two more measure
 * norms, where LARS or clipping want them). Schedules of the learning rate.
 *
 * Segments with `decay` false (biases, normalisations) are excluded from weight decay and from the
 * trust ratio of LARS.
 */
import source from "../shaders/optim.wgsl" with { type: "text" };
import { UserError } from "./errors.ts";
import type { Gpu } from "./gpu/gpu.ts";
import { foldGroups, grid1d, Shader } from "./gpu/shader.ts";
import { Tensor } from "./tensor.ts";

const shader = new Shader("optim", source);

/** Elements to which the segments are aligned. */
const blockSize = 64;

/** The parameters of a model in one buffer, and their gradients in another. */
export interface FlatParameters {
  /** Where they lie. */
  readonly gpu: Gpu;
  /** [total] */
  readonly values: Tensor;
  /** [total] */
  readonly gradients: Tensor;
  /** The parameters in order; each begins at the next multiple of 64 elements. */
  readonly segments: readonly {
    readonly offset: number;
    readonly size: number;
    /** Whether weight decay applies. */
    readonly decay: boolean;
  }[];
}

/** What all optimisers share. */
export interface OptimizerOptions {
  /** Weight decay λ (default 0). */
  weightDecay?: number;
  /** Largest global norm of the gradient, which is scaled down to it; 0 (default) for none. */
  clip?: number;
}

/** What every kernel's parameters are made of; a kernel reads those of its formula. */
const noParameters = {
  lr: 0,
  decay: 0,
  momentum: 0,
  rate1: 0,
  rate2: 0,
  correction1: 1,
  correction2: 1,
  epsilon: 0,
  eta: 0,
  limit: 0,
};

/** Updates the parameters of a model from their gradients. */
export abstract class Optimizer {
  /** What it updates. */
  protected readonly parameters: FlatParameters;
  /** λ. */
  protected readonly weightDecay: number;
  /** Updates done so far. */
  protected steps = 0;
  /** See the shader. */
  protected readonly blocks: Tensor<"u32">;
  readonly #moments: ReadonlyMap<string, Tensor<"f32">>;
  readonly #clip: number;

  /**
   * For a rule's own constructor.
   *
   * @param moments names of the buffers that the rule keeps, zero at first
   */
  protected constructor(
    parameters: FlatParameters,
    { weightDecay = 0, clip = 0 }: OptimizerOptions,
    moments: readonly string[],
  ) {
    const { gpu, values, segments } = parameters;
    this.parameters = parameters;
    this.weightDecay = weightDecay;
    this.#clip = clip;
    this.blocks = gpu.unscoped(() => gpu.tensor(describeBlocks(segments)));
    this.#moments = new Map(
      moments.map((name) => [name, gpu.unscoped(() => gpu.zeros(values.shape))]),
    );
  }

  /**
   * Records one update at a learning rate.
   *
   * @param scale [1], what the gradients are multiplied by (default 1); nothing changes where it is below 0,
   * but for the count of updates that Adam's correction goes by
   */
  step(lr: number, scale: Tensor = this.parameters.gpu.one): void {
    this.steps++;
    const { gpu } = this.parameters;
    gpu.scope(() => this.update(lr, this.#clip > 0 ? this.#clipScale(scale) : scale));
  }

  /**
   * Records setting the moments of a parameter to 0, as for a new one. (Adam's correction of young moments still
   * counts all updates, so that its first steps for this parameter are up to about six times as long.)
   */
  forget({ offset, size }: { offset: number; size: number }): void {
    for (const moment of this.#moments.values()) {
      this.parameters.gpu.clear(new Tensor(moment.gpu, moment.storage, [size], "f32", 4 * offset));
    }
  }

  /** Copies the moments to the CPU, each over the flat parameters. */
  async arrays(): Promise<Map<string, Float32Array>> {
    const arrays = new Map<string, Float32Array>();
    for (const [name, moment] of this.#moments) arrays.set(name, await moment.data());
    return arrays;
  }

  /**
   * Goes on from what {@linkcode arrays} gave after `steps` updates.
   *
   * @throws {UserError} if a moment is missing or of another size
   */
  load(arrays: ReadonlyMap<string, Float32Array>, steps: number): void {
    for (const [name, { size }] of this.#moments) {
      if (arrays.get(name)?.length !== size) {
        throw new UserError(
          `optimizer: ${name} has ${arrays.get(name)?.length ?? "no"} values, the model ${size}`,
        );
      }
    }
    for (const [name, moment] of this.#moments) {
      this.parameters.gpu.write(moment, arrays.get(name)!);
    }
    this.steps = steps;
  }

  /** Records the rule itself; gradients count `scale[0]` times. */
  protected abstract update(lr: number, scale: Tensor): void;

  /** One of the buffers that the rule keeps. */
  protected moment(name: string): Tensor<"f32"> {
    return this.#moments.get(name)!;
  }

  /** Runs an update kernel over all parameters. */
  protected run(
    entry: string,
    constants: Record<string, number>,
    tensors: Record<string, Tensor>,
    params: Readonly<Record<string, number>>,
  ): void {
    const { gpu, values, gradients } = this.parameters;
    const count = values.size / 4;
    gpu.run(
      shader.kernel(entry, constants),
      { w: values, dw: gradients, blocks: this.blocks, ...tensors },
      { ...noParameters, decay: this.weightDecay, ...params, count },
      grid1d(count, 64),
    );
  }

  /** [Σ w², Σ (scale·dw + decay·w)²] of each block. */
  protected blockNorms(scale: Tensor, decay: number): Tensor {
    return blockNorms(this.parameters, this.blocks, scale, decay);
  }

  /** scale·min(1, clip / ‖scale·gradients‖), as `torch.nn.utils.clip_grad_norm_`. */
  #clipScale(scale: Tensor): Tensor {
    const { gpu } = this.parameters;
    const result = gpu.empty([1]);
    gpu.run(
      shader.kernel("clip_scale"),
      { block_squares: this.blockNorms(scale, 0), given_scale: scale, result },
      { ...noParameters, limit: this.#clip, count: this.blocks.size },
      [1, 1, 1],
    );
    return result;
  }
}

/** Stochastic gradient descent with momentum, as `torch.optim.SGD` (no dampening). */
export class SGD extends Optimizer {
  readonly #momentum: number;
  readonly #nesterov: boolean;

  /** Momentum is 0.9 by default, and not Nesterov's. */
  constructor(
    parameters: FlatParameters,
    options: OptimizerOptions & { momentum?: number; nesterov?: boolean } = {},
  ) {
    super(parameters, options, ["momentum"]);
    this.#momentum = options.momentum ?? 0.9;
    this.#nesterov = options.nesterov ?? false;
  }

  /** Records the rule. */
  protected override update(lr: number, scale: Tensor): void {
    this.run(
      "sgd",
      { NESTEROV: Number(this.#nesterov) },
      { scale, v: this.moment("momentum") },
      { lr, momentum: this.#momentum },
    );
  }
}

/** What Adam leaves open besides decay and clipping. */
export interface AdamOptions extends OptimizerOptions {
  /** Decay rates of the two moments (default [0.9, 0.999]). */
  betas?: readonly [number, number];
  /** Added to the square root of the second moment (default 1e-8). */
  epsilon?: number;
}

/** Adam (Kingma and Ba 2015), as `torch.optim.Adam`: weight decay is part of the gradient. */
export class Adam extends Optimizer {
  readonly #betas: readonly [number, number];
  readonly #epsilon: number;
  /** Whether weight decay shrinks the weights directly. */
  protected readonly decoupled: boolean = false;

  /** An optimiser whose moments are 0. */
  constructor(parameters: FlatParameters, options: AdamOptions = {}) {
    super(parameters, options, ["mean", "square"]);
    this.#betas = options.betas ?? [0.9, 0.999];
    this.#epsilon = options.epsilon ?? 1e-8;
  }

  /** Records the rule. */
  protected override update(lr: number, scale: Tensor): void {
    const [beta1, beta2] = this.#betas;
    this.run(
      "adam",
      { DECOUPLED: Number(this.decoupled) },
      { scale, m: this.moment("mean"), v: this.moment("square") },
      {
        lr,
        rate1: 1 - beta1,
        rate2: 1 - beta2,
        correction1: 1 - beta1 ** this.steps,
        correction2: 1 - beta2 ** this.steps,
        epsilon: this.#epsilon,
      },
    );
  }
}

/** Adam with decoupled weight decay (Loshchilov and Hutter 2019), as `torch.optim.AdamW`. */
export class AdamW extends Adam {
  /** It does. */
  protected override readonly decoupled = true;
}

/**
 * Layer-wise adaptive rates (You et al. 2017, arXiv 1708.03888) as in SimCLR: the step of a tensor is scaled
 * by trust = eta·‖w‖/‖g‖ of its gradient with decay (1 where either norm is 0), inside the momentum.
 */
export class LARS extends Optimizer {
  readonly #momentum: number;
  readonly #eta: number;
  readonly #ranges: Tensor<"u32">;

  /** Momentum is 0.9 and eta 0.001 by default. */
  constructor(
    parameters: FlatParameters,
    options: OptimizerOptions & { momentum?: number; eta?: number } = {},
  ) {
    super(parameters, options, ["momentum"]);
    this.#momentum = options.momentum ?? 0.9;
    this.#eta = options.eta ?? 0.001;
    const { gpu, segments } = parameters;
    const ranges = segments.flatMap(({ offset, size }) => [
      offset / blockSize,
      Math.ceil(size / blockSize),
    ]);
    this.#ranges = gpu.unscoped(() => gpu.tensor(Uint32Array.from(ranges)));
  }

  /** Records the rule. */
  protected override update(lr: number, scale: Tensor): void {
    const { gpu, segments } = this.parameters;
    const trust = gpu.empty([segments.length]);
    gpu.run(
      shader.kernel("trust_ratios"),
      {
        block_squares: this.blockNorms(scale, this.weightDecay),
        ranges: this.#ranges,
        blocks: this.blocks,
        result: trust,
      },
      { ...noParameters, eta: this.#eta, count: segments.length },
      foldGroups(segments.length),
    );
    this.run(
      "lars",
      {},
      { scale, trust, v: this.moment("momentum") },
      { lr, momentum: this.#momentum },
    );
  }
}

/** The names by which {@linkcode createOptimizer} knows the optimisers. */
export type OptimizerName = "sgd" | "adam" | "adamw" | "lars";

/** An optimiser by name, with its defaults. */
export function createOptimizer(
  name: OptimizerName,
  parameters: FlatParameters,
  options: OptimizerOptions = {},
): Optimizer {
  const types = { sgd: SGD, adam: Adam, adamw: AdamW, lars: LARS };
  return new types[name](parameters, options);
}

/** An exponential moving average of a model's parameters: w̄ += (1 − decay)·(w − w̄). */
export class Ema {
  /** The average, laid out as the model's values; starts as their copy. */
  readonly values: Tensor<"f32">;
  readonly #parameters: FlatParameters;
  readonly #rate: number;

  /**
   * Starts with the parameters as they are.
   *
   * @param decay how much of the average a step keeps, in [0, 1)
   */
  constructor(parameters: FlatParameters, decay: number) {
    const { gpu, values } = parameters;
    this.#parameters = parameters;
    this.#rate = 1 - decay;
    this.values = gpu.unscoped(() => gpu.empty(values.shape));
    this.restart();
  }

  /** Starts anew with the parameters as they are. */
  restart(): void {
    const { gpu, values } = this.#parameters;
    gpu.copy(values, this.values);
  }

  /** Records starting again with a parameter as it is. */
  forget({ offset, size }: { offset: number; size: number }): void {
    const part = ({ gpu, storage }: Tensor) => new Tensor(gpu, storage, [size], "f32", 4 * offset);
    this.#parameters.gpu.copy(part(this.#parameters.values), part(this.values));
  }

  /** Records moving the average towards the parameters as they are now. */
  update(): void {
    const { gpu, values } = this.#parameters;
    const count = values.size / 4;
    gpu.run(
      shader.kernel("average"),
      { values, m: this.values },
      { ...noParameters, rate1: this.#rate, count },
      grid1d(count, 64),
    );
  }
}

/** How a {@linkcode LossScale} moves. */
export interface LossScaleOptions {
  /** The factor at first (default 2¹⁵). */
  initial?: number;
  /** Finite steps in a row after which the factor doubles (default 2000, as PyTorch's `GradScaler`). */
  interval?: number;
}

/**
 * Dynamic loss scaling (Micikevicius et al. 2018, arXiv 1710.03740): the loss is multiplied by a power of two,
 * so that gradients on their way are not too small for 16-bit floats, and the gradients of the parameters are
 * divided by it. Where one of these is not finite, the update is left out and the factor halved.
 *
 * All of it is decided on the GPU, so that no step waits for the one before.
 */
export class LossScale {
  /** What to multiply a loss by before `backward()`, a scalar. */
  readonly factor: Tensor<"f32">;
  readonly #parameters: FlatParameters;
  readonly #interval: number;
  readonly #blocks: Tensor<"u32">;
  /** [factor, finite steps since it changed] */
  readonly #state: Tensor<"f32">;

  /** For all gradients of a model. */
  constructor(
    parameters: FlatParameters,
    { initial = 2 ** 15, interval = 2000 }: LossScaleOptions = {},
  ) {
    const { gpu, segments } = parameters;
    this.#parameters = parameters;
    this.#interval = interval;
    this.#blocks = gpu.unscoped(() => gpu.tensor(describeBlocks(segments)));
    this.#state = gpu.unscoped(() => gpu.tensor([initial, 0]));
    this.factor = new Tensor(gpu, this.#state.storage, [], "f32");
  }

  /**
   * Records what follows `backward()`: looks at the gradients and moves the factor.
   *
   * @returns [1], for {@linkcode Optimizer.step}: what the gradients are to be multiplied by, or −1
   */
  settle(): Tensor {
    const { gpu } = this.#parameters;
    return gpu.scope(() => {
      const result = gpu.empty([1]);
      gpu.run(
        shader.kernel("settle"),
        {
          block_squares: blockNorms(this.#parameters, this.#blocks, gpu.one, 0),
          result,
          loss_scale: this.#state,
        },
        { ...noParameters, limit: this.#interval, count: this.#blocks.size },
        [1, 1, 1],
      );
      return result;
    });
  }

  /** Copies what the next step depends on to the CPU. */
  async arrays(): Promise<Map<string, Float32Array>> {
    return new Map([["loss_scale", await this.#state.data()]]);
  }

  /**
   * Goes on from what {@linkcode arrays} gave.
   *
   * @throws {UserError} if it is missing
   */
  load(arrays: ReadonlyMap<string, Float32Array>): void {
    const state = arrays.get("loss_scale");
    if (state?.length !== 2) throw new UserError("optimizer: loss_scale is missing");
    this.#parameters.gpu.write(this.#state, state);
  }
}

/** Where a schedule warms up and ends, in steps. */
export interface WarmupCosine {
  /** The rate at the end of the warm-up. */
  readonly lr: number;
  /** Steps of linear warm-up. */
  readonly warmup: number;
  /** The step at which the schedule ends. */
  readonly steps: number;
  /** The rate at step `steps` (default 0). */
  readonly minimum?: number;
}

/** Linear warm-up to `lr` in the first `warmup` steps (the first of them is not 0), then half a cosine. */
export function warmupCosine(
  step: number,
  { lr, warmup, steps, minimum = 0 }: WarmupCosine,
): number {
  if (step < warmup) return lr * Math.min(1, (step + 1) / warmup);
  const progress = (step - warmup) / (steps - warmup);
  return minimum + (lr - minimum) * (1 + Math.cos(Math.PI * progress)) / 2;
}

/** `lr` times `gamma` after every `every` steps. */
export function stepDecay(
  step: number,
  { lr, every, gamma }: { lr: number; every: number; gamma: number },
): number {
  return lr * gamma ** Math.floor(step / every);
}

/** The same rate at every step. */
export function constant(_step: number, { lr }: { lr: number }): number {
  return lr;
}

/** [Σ w², Σ (scale·dw + decay·w)²] of each block. */
function blockNorms(
  { gpu, values, gradients }: FlatParameters,
  blocks: Tensor,
  scale: Tensor,
  decay: number,
): Tensor {
  const count = blocks.size;
  const squares = gpu.empty([count, 2]);
  gpu.run(
    shader.kernel("norms"),
    { values, dw: gradients, blocks, scale, squares },
    { ...noParameters, decay, count },
    grid1d(count, 64),
  );
  return squares;
}

/** One word for every 64 elements; see the shader. */
function describeBlocks(segments: FlatParameters["segments"]): Uint32Array {
  return Uint32Array.from(
    segments.flatMap(({ size, decay }, segment) =>
      Array.from({ length: Math.ceil(size / blockSize) }, (_, i) => {
        const inside = Math.min(blockSize, size - i * blockSize);
        return segment << 8 | Number(decay) << 7 | inside - 1;
      })
    ),
  );
}
