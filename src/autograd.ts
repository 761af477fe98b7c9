/**
 * The tape: every op records its inputs and how to go back, `backward()` walks it once.
 *
 * An op is a function that computes its output and hands {@linkcode record} the closure of its
 * backward, which stands right under the forward. Only what an op lists as saved is kept alive for
 * it, and given back as soon as the walk has passed.
 */
import { add } from "./ops/binary.ts";
import { type Storage, Tensor } from "./tensor.ts";

/**
 * Computes the gradient of each input from the output's; null for an input that needs none. A
 * gradient is `dy` itself, a view of it, or a new tensor; `dy` must not be written to. Runs in a
 * scope of its own, so what it makes and does not return is given back at once.
 */
export type Backward = (dy: Tensor, needs: readonly boolean[]) => readonly (Tensor | null)[];

/** A recorded op. */
export interface Node {
  readonly name: string;
  /** Position on the tape: inputs have lower numbers. */
  readonly sequence: number;
  readonly inputs: readonly Tensor[];
  readonly held: readonly Storage[];
  readonly backward: Backward;
  done: boolean;
}

let sequence = 0;
let recording = true;

/**
 * Records how to differentiate `output` with respect to `inputs`.
 *
 * @param saved every tensor that `backward` reads: inputs, the output, auxiliaries
 * @returns the output
 */
export function record<D extends Tensor>(
  name: string,
  inputs: readonly Tensor[],
  output: D,
  saved: readonly Tensor[],
  backward: Backward,
): D {
  if (!recording || !inputs.some(needsGrad)) return output;
  const given = new Set(inputs.map((input) => input.storage));
  const held = new Set([output, ...saved].map((tensor) => tensor.storage));
  for (const storage of held) {
    storage.holds++;
    if (!given.has(storage)) storage.taped = true;
  }
  output.node = { name, sequence: sequence++, inputs, held: [...held], backward, done: false };
  return output;
}

/** Runs `fn` without recording: evaluation, updates of parameters. */
export function noGrad<T>(fn: () => T): T {
  const before = recording;
  recording = false;
  try {
    return fn();
  } finally {
    recording = before;
  }
}

/** Whether ops on it are recorded. */
export function isRecording(): boolean {
  return recording;
}

/** Whether a gradient flows into a tensor. */
export function needsGrad(tensor: Tensor): boolean {
  return tensor.requiresGrad || tensor.node !== null;
}

/** Keeps a tensor of the tape alive past `backward()`, until its scope ends. */
export function keep<T extends Tensor>(tensor: T): T {
  tensor.storage.holds++;
  return tensor;
}

/** The same values without their history. */
export function detach<T extends Tensor>(tensor: T): T {
  return new Tensor(tensor.gpu, tensor.storage, tensor.shape, tensor.dtype, tensor.offset) as T;
}

/** A parameter's place in the flat gradient buffer, and whether this step has written to it. */
export interface GradientSlot {
  readonly tensor: Tensor;
  written: boolean;
}

const slots = new WeakMap<Tensor, GradientSlot>();

/** Gives a leaf a fixed place for its gradient, to be overwritten by the first contribution. */
export function setGradientSlot(leaf: Tensor, slot: GradientSlot): void {
  slots.set(leaf, slot);
  leaf.grad = slot.tensor;
}

/**
 * The tensor that an op's backward writes the gradient of `input` into, every element of it: for a
 * parameter that has none yet its slot in the flat buffer, else a fresh tensor.
 */
export function gradFor(input: Tensor): Tensor {
  const slot = slots.get(input);
  return slot !== undefined && !slot.written ? slot.tensor : input.gpu.empty(input.shape);
}

/**
 * Computes the gradient of a scalar with respect to every leaf that requires one, into `leaf.grad`,
 * which lives as long as its leaf. Parameters of a model add to what they hold since their gradients
 * were last zeroed. The tape behind the loss is used up.
 *
 * @throws {RangeError} if `loss` is no scalar or has no history.
 */
export function backward(loss: Tensor): void {
  if (loss.size !== 1) {
    throw new RangeError(`backward: the loss has shape [${loss.shape}], not one value`);
  }
  if (loss.node === null) {
    throw new RangeError("backward: nothing that requires a gradient leads to the loss");
  }
  const { gpu } = loss;
  const nodes = new Map<Node, Tensor[]>();
  const collect = (tensor: Tensor) => {
    if (tensor.node === null || nodes.has(tensor.node)) return;
    if (tensor.node.done) throw new RangeError(`backward: ${tensor.node.name} was already walked`);
    nodes.set(tensor.node, []);
    tensor.node.inputs.forEach(collect);
  };
  collect(loss);
  keep(loss);

  const hold = (tensor: Tensor) => (tensor.storage.holds++, tensor);
  const drop = (storage: Storage) => {
    if (--storage.holds === 0 && storage.taped) gpu.release(storage);
  };
  /** Sums contributions in the order they came; a single one is passed on as it is. */
  const total = (gradients: readonly Tensor[]) => gradients.reduce((sum, g) => add(sum, g));

  const leaves = new Map<Tensor, Tensor[]>();
  nodes.get(loss.node)!.push(hold(gpu.one));
  noGrad(() => {
    for (const node of [...nodes.keys()].sort((a, b) => b.sequence - a.sequence)) {
      const parts = nodes.get(node)!;
      nodes.delete(node);
      node.done = true;
      if (parts.length > 0) {
        const dy = total(parts);
        if (parts.length > 1) {
          dy.storage.taped = true;
          hold(dy);
        }
        const gradients = gpu.scope(() => node.backward(dy, node.inputs.map(needsGrad)));
        gradients.forEach((gradient, i) => {
          const input = node.inputs[i]!;
          if (gradient === null || !needsGrad(input)) return;
          const slot = slots.get(input);
          if (slot !== undefined && gradient === slot.tensor) {
            slot.written = true;
          } else {
            if (gradient.storage !== gpu.one.storage) gradient.storage.taped = true;
            hold(gradient);
            if (input.node !== null) nodes.get(input.node)!.push(gradient);
            else if (slot !== undefined) accumulate(slot, gradient, drop);
            else leaves.set(input, [...leaves.get(input) ?? [], gradient]);
          }
        });
        (parts.length > 1 ? [...parts, dy] : parts).forEach((part) => drop(part.storage));
      }
      node.held.forEach(drop);
    }
    for (const [leaf, parts] of leaves) {
      leaf.grad?.dispose();
      leaf.grad = total(parts);
      gpu.attach(leaf.grad.storage, leaf.storage);
    }
  });
}

/** Adds a gradient to a parameter's slot. */
function accumulate(slot: GradientSlot, gradient: Tensor, drop: (storage: Storage) => void): void {
  const { gpu } = gradient;
  if (slot.written) {
    const sum = add(slot.tensor, gradient);
    gpu.copy(sum, slot.tensor);
    gpu.release(sum.storage);
  } else {
    gpu.copy(gradient, slot.tensor);
    slot.written = true;
  }
  drop(gradient.storage);
}
