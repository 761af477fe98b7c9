/** A model in GPU memory: values, gradients and running statistics, each one flat buffer. */
import { type GradientSlot, setGradientSlot } from "../autograd.ts";
import { UserError } from "../errors.ts";
import { type SafeTensor, toFloat32 } from "../formats/safetensors.ts";
import type { Gpu } from "../gpu/gpu.ts";
import { Random } from "../random.ts";
import { type Shape, Tensor } from "../tensor.ts";
import { BatchNorm } from "./layers.ts";
import type { Layout, Module, Parameter } from "./module.ts";

/** A parameter's place in the flat buffers, in elements. */
export interface Segment {
  /** Its path in the module tree. */
  readonly name: string;
  /** Where it begins. */
  readonly offset: number;
  /** Number of elements. */
  readonly size: number;
  /** Whether weight decay applies. */
  readonly decay: boolean;
}

/** Segments begin at multiples of 64 elements (256 bytes), which every device can bind. */
const alignment = 64;

/**
 * Places the parameters of a model. Zeroing gradients, an optimiser step and a checkpoint are then one
 * command each over the whole model.
 *
 * Initial values are drawn by (seed, name), so that a layer starts the same in any model.
 */
export class ModelState {
  /** Where it lies. */
  readonly gpu: Gpu;
  /** The model. */
  readonly module: Module;
  /** Parameters in order; [total] with zeros between segments. */
  readonly values: Tensor<"f32">;
  /** Gradients in the same places. */
  readonly gradients: Tensor<"f32">;
  /** Running means and variances. */
  readonly statistics: Tensor<"f32">;
  /** The places of the parameters. */
  readonly segments: readonly Segment[];
  readonly #statisticSegments: readonly Segment[];
  readonly #slots: readonly GradientSlot[];
  readonly #parameters: ReadonlyMap<string, Parameter>;

  /** Allocates, draws and uploads. */
  constructor(gpu: Gpu, module: Module, { seed = 0 } = {}) {
    this.gpu = gpu;
    this.module = module;
    this.#parameters = new Map(module.parameters());
    const trainable = [...this.#parameters].filter(([, p]) => p.trainable);
    const statistics = [...this.#parameters].filter(([, p]) => !p.trainable);
    this.segments = layOut(trainable);
    this.#statisticSegments = layOut(statistics);
    [this.values, this.gradients, this.statistics] = gpu.unscoped(() => [
      gpu.tensor(initialise(trainable, this.segments, seed)),
      gpu.zeros([total(this.segments)]),
      gpu.tensor(initialise(statistics, this.#statisticSegments, seed)),
    ]);
    this.#slots = trainable.map(([, parameter], i) => {
      const { offset } = this.segments[i]!;
      const view = viewOf(this.values, parameter.shape, offset);
      const slot = { tensor: viewOf(this.gradients, parameter.shape, offset), written: false };
      view.requiresGrad = true;
      setGradientSlot(view, slot);
      parameter.place(view);
      return slot;
    });
    statistics.forEach(([, parameter], i) =>
      parameter.place(viewOf(this.statistics, parameter.shape, this.#statisticSegments[i]!.offset))
    );
  }

  /**
   * Draws the parameters whose names begin with `prefix` again, from other random numbers for every `index`.
   *
   * @returns where they are
   */
  redraw(prefix: string, { seed, index }: { seed: number; index: number }): readonly Segment[] {
    const drawn = this.segments.filter(({ name }) => name.startsWith(prefix));
    for (const { name, offset, size } of drawn) {
      const { init } = this.#parameters.get(name)!;
      const random = new Random(seed, `init ${name}`, index);
      const values = Float32Array.from({ length: size }, () => init(random));
      this.gpu.write(viewOf(this.values, [size], offset), values);
    }
    return drawn;
  }

  /** Number of trainable values. */
  get count(): number {
    return this.segments.reduce((sum, { size }) => sum + size, 0);
  }

  /** Records setting all gradients to zero. */
  zeroGrad(): void {
    this.gpu.clear(this.gradients);
    for (const slot of this.#slots) slot.written = false;
  }

  /**
   * All arrays by torchvision's names, in PyTorch's layouts, `num_batches_tracked` included.
   *
   * @param values another flat buffer of the same layout, such as an average of the parameters
   */
  async arrays(values: Tensor<"f32"> = this.values): Promise<Map<string, SafeTensor>> {
    const flat = await values.data();
    const statistics = await this.statistics.data();
    const places = new Map([
      ...this.segments.map((segment) => [segment.name, { flat, segment }] as const),
      ...this.#statisticSegments.map((segment) =>
        [segment.name, { flat: statistics, segment }] as const
      ),
    ]);
    const arrays = new Map<string, SafeTensor>();
    for (const [name, { shape, layout }] of this.#parameters) {
      const { flat, segment: { offset, size } } = places.get(name)!;
      arrays.set(name, toTorch(flat.subarray(offset, offset + size), shape, layout));
      // PyTorch's order: the count of batches follows the running variance.
      if (name.endsWith("running_var")) {
        const norm = this.#norms().get(name.slice(0, -".running_var".length))!;
        arrays.set(name.replace(/running_var$/, "num_batches_tracked"), {
          dtype: "I64",
          shape: [],
          data: BigInt64Array.of(BigInt(norm.batches)),
        });
      }
    }
    return arrays;
  }

  /**
   * Replaces the arrays of the model by those of a file. Names that are missing, unknown or of another
   * shape are listed together, of many the first five; nothing is changed then.
   *
   * @param prefix of the names to load, for a part of the model (`encoder.`)
   * @param ignore names in the file that need no place, such as `fc.weight`
   * @throws {UserError} naming the source and all that does not fit
   */
  async load(
    arrays: ReadonlyMap<string, SafeTensor>,
    source: string,
    { prefix = "", ignore = (_name: string): boolean => false } = {},
  ): Promise<void> {
    const wanted = [...this.#parameters].filter(([name]) => name.startsWith(prefix));
    const names = new Set(wanted.map(([name]) => name.slice(prefix.length)));
    const problems: string[] = [];
    for (const [name, parameter] of wanted) {
      const short = name.slice(prefix.length);
      const array = arrays.get(short);
      const shape = torchShape(parameter.shape, parameter.layout);
      if (array === undefined) problems.push(`missing ${short} [${shape}]`);
      else if (`${array.shape}` !== `${shape}`) {
        problems.push(`${short} is [${array.shape}], the model has [${shape}]`);
      }
    }
    for (const name of arrays.keys()) {
      if (!names.has(name) && !name.endsWith("num_batches_tracked") && !ignore(name)) {
        problems.push(`unknown ${name} [${arrays.get(name)!.shape}]`);
      }
    }
    if (problems.length > 0) {
      const more = problems.length > 5 ? `; and ${problems.length - 5} more` : "";
      throw new UserError(
        `${source} does not fit the model: ${problems.slice(0, 5).join("; ")}${more}`,
      );
    }
    const values = await this.values.data();
    const statistics = await this.statistics.data();
    const places = new Map([...this.segments, ...this.#statisticSegments].map((s) => [s.name, s]));
    for (const [name, { shape, layout, trainable }] of wanted) {
      const array = arrays.get(name.slice(prefix.length))!;
      const flat = trainable ? values : statistics;
      flat.set(fromTorch(toFloat32(array), shape, layout), places.get(name)!.offset);
    }
    this.gpu.write(this.values, values);
    this.gpu.write(this.statistics, statistics);
    for (const [name, norm] of this.#norms()) {
      if (!`${name}.`.startsWith(prefix)) continue;
      const batches = arrays.get(`${name}.num_batches_tracked`.slice(prefix.length));
      if (batches !== undefined) norm.batches = Number(batches.data[0]);
    }
  }

  #norms(): Map<string, BatchNorm> {
    return new Map(
      [...this.module.modules()].filter((entry): entry is [string, BatchNorm] =>
        entry[1] instanceof BatchNorm
      ),
    );
  }
}

function layOut(parameters: readonly (readonly [string, Parameter])[]): Segment[] {
  let offset = 0;
  return parameters.map(([name, { size, decay }]) => {
    const segment = { name, offset, size, decay };
    offset += Math.ceil(size / alignment) * alignment;
    return segment;
  });
}

function total(segments: readonly Segment[]): number {
  const last = segments.at(-1);
  return last === undefined ? 0 : Math.ceil((last.offset + last.size) / alignment) * alignment;
}

function initialise(
  parameters: readonly (readonly [string, Parameter])[],
  segments: readonly Segment[],
  seed: number,
): Float32Array {
  const flat = new Float32Array(total(segments));
  parameters.forEach(([name, { size, init }], i) => {
    const random = new Random(seed, `init ${name}`);
    const { offset } = segments[i]!;
    for (let j = 0; j < size; j++) flat[offset + j] = init(random);
  });
  return flat;
}

function viewOf(flat: Tensor<"f32">, shape: Shape, offset: number): Tensor<"f32"> {
  return new Tensor(flat.gpu, flat.storage, shape, "f32", 4 * offset);
}

/** The shape a parameter has in a PyTorch file. */
function torchShape(shape: Shape, layout: Layout): Shape {
  const [a, b, c, d] = shape as [number, number, number, number];
  if (layout === "conv") return [d, c, a, b];
  return layout === "linear" ? [b, a] : shape;
}

/** HWIO → OIHW and [in, out] → [out, in]: the last axis comes first. */
function toTorch(data: Float32Array, shape: Shape, layout: Layout): SafeTensor {
  const out = new Float32Array(data.length);
  if (layout === "conv") {
    const [h, w, inputs, outputs] = shape as [number, number, number, number];
    permute(h * w, inputs, outputs, (hwio, oihw) => out[oihw] = data[hwio]!);
  } else if (layout === "linear") {
    permute(1, shape[0]!, shape[1]!, (here, there) => out[there] = data[here]!);
  } else {
    out.set(data);
  }
  return { dtype: "F32", shape: torchShape(shape, layout), data: out };
}

/** The inverse of {@linkcode toTorch}. */
function fromTorch(data: Float32Array, shape: Shape, layout: Layout): Float32Array {
  if (layout === "vector") return data;
  const out = new Float32Array(data.length);
  const [taps, inputs, outputs] = layout === "conv"
    ? [shape[0]! * shape[1]!, shape[2]!, shape[3]!]
    : [1, shape[0]!, shape[1]!];
  permute(taps, inputs, outputs, (here, there) => out[here] = data[there]!);
  return out;
}

/** Visits the positions of each weight as [taps, in, out] and as [out, in, taps]. */
function permute(
  taps: number,
  inputs: number,
  outputs: number,
  visit: (here: number, there: number) => void,
): void {
  for (let t = 0; t < taps; t++) {
    for (let i = 0; i < inputs; i++) {
      for (let o = 0; o < outputs; o++) {
        visit((t * inputs + i) * outputs + o, (o * inputs + i) * taps + t);
      }
    }
  }
}
