/** The module tree: parameters and running statistics, named as torchvision names them. */
import type { Random } from "../random.ts";
import { type Shape, sizeOf, type Tensor } from "../tensor.ts";

/** Draws the initial value of one element. */
export type Init = (random: Random) => number;

/** How a tensor is turned for a file: PyTorch keeps OIHW and [out, in], kernels here HWIO and [in, out]. */
export type Layout = "conv" | "linear" | "vector";

/** A named array of a module: a trainable parameter, or a statistic that is kept beside. */
export class Parameter {
  /** Its shape here; files may hold it turned. */
  readonly shape: Shape;
  /** How it is turned for a file. */
  readonly layout: Layout;
  /** How it starts. */
  readonly init: Init;
  /** Gets gradients; running statistics do not. */
  readonly trainable: boolean;
  /** Takes part in weight decay and LARS's trust ratio; BN and biases do not. */
  readonly decay: boolean;
  #tensor: Tensor | null = null;

  /** Declares it; a `ModelState` makes it. */
  constructor(
    shape: Shape,
    layout: Layout,
    init: Init,
    { trainable = true, decay = layout !== "vector" } = {},
  ) {
    this.shape = shape;
    this.layout = layout;
    this.init = init;
    this.trainable = trainable;
    this.decay = decay;
  }

  /** Number of elements. */
  get size(): number {
    return sizeOf(this.shape);
  }

  /** Its view of the flat buffer; throws before `new ModelState(gpu, module)` has placed it. */
  get tensor(): Tensor {
    if (this.#tensor === null) {
      throw new Error(
        `parameter [${this.shape}] is on no GPU yet: make a ModelState of the model first`,
      );
    }
    return this.#tensor;
  }

  /** Gives the parameter its place in GPU memory. */
  place(tensor: Tensor): void {
    this.#tensor = tensor;
  }
}

/**
 * A part of a network. Its properties that are modules, arrays of modules or parameters make up the
 * tree, and the path of properties is the name: `layer1.0.conv1.weight`.
 */
export abstract class Module {
  /** Batch statistics and dropout (true), or running statistics (false). */
  training = true;

  /** All parameters and statistics below, in the order of definition. */
  *parameters(prefix = ""): IterableIterator<[name: string, parameter: Parameter]> {
    for (const [name, child] of children(this)) {
      if (child instanceof Parameter) yield [prefix + name, child];
      else yield* child.parameters(`${prefix}${name}.`);
    }
  }

  /** All modules below and this one. */
  *modules(prefix = ""): IterableIterator<[name: string, module: Module]> {
    yield [prefix.slice(0, -1), this];
    for (const [name, child] of children(this)) {
      if (child instanceof Module) yield* child.modules(`${prefix}${name}.`);
    }
  }

  /** Switches the tree between training and evaluation. */
  train(training = true): this {
    for (const [, module] of this.modules()) module.training = training;
    return this;
  }
}

function* children(module: Module): IterableIterator<[string, Module | Parameter]> {
  for (const [name, value] of Object.entries(module)) {
    if (value instanceof Module || value instanceof Parameter) yield [name, value];
    else if (Array.isArray(value)) {
      for (const [i, item] of value.entries()) {
        if (item instanceof Module) yield [`${name}.${i}`, item];
      }
    }
  }
}
