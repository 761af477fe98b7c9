/**
 * The tape: every op records its inputs and how to go back, `backward()` walks it once.
 *
 * An op is a function that computes its output and hands {@linkcode record} the closure of its
 * backward, which stands right under the forward. Only what an op lists as saved is kept alive for
 * it, and given back as soon as the walk has passed.
 */
import { accumulate, add, expand } from "./ops/binary.ts";
import { sameShape, type Tensor, view } from "./tensor.ts";

/**
 * Computes the gradient of each input from the output's; null for an input that needs none. A
 * gradient is `dy` itself, a view of it, or a new tensor of its own; `dy` must not be written to.
 * Runs in a scope of its own, so what it makes and does not return is given back at once.
 *
 * Where the op was recorded so, the output's gradient may come in two parts: it is `dy` + `more` then.
 */
export type Backward = (
  dy: Tensor,
  needs: readonly boolean[],
  more?: Tensor,
) => readonly (Tensor | null)[];

/** A recorded op. */
export interface Node {
  /** Name of the op, in errors. */
  readonly name: string;
  /** Position on the tape: inputs have lower numbers. */
  readonly sequence: number;
  /** What it was made of, differentiable or not. */
  readonly inputs: readonly Tensor[];
  /** What it made. */
  readonly output: Tensor;
  /** What `backward` reads; each holds its storage once. */
  readonly saved: readonly Tensor[];
  /** How to go back. */
  readonly backward: Backward;
  /** Whether `backward` takes two parts. */
  readonly takesTwo: boolean;
  /** Whether the walk has passed it. */
  done: boolean;
}

let sequence = 0;
let recording = true;
let recomputing = false;

/**
 * Records how to differentiate `output` with respect to `inputs`.
 *
 * @param inputs every tensor of the caller's that the op reads, differentiable or not
 * @param saved every tensor that `backward` reads: inputs, the output, auxiliaries made by the op
 * @param options.takesTwo whether `backward` adds the gradient's two parts as it reads them, which saves a
 * pass over memory that adds them (default false)
 * @returns the output
 */
export function record<D extends Tensor>(
  name: string,
  inputs: readonly Tensor[],
  output: D,
  saved: readonly Tensor[],
  backward: Backward,
  { takesTwo = false } = {},
): D {
  if (!recording || !inputs.some(needsGrad)) return output;
  const own = ({ storage }: Tensor) => !inputs.some((input) => input.storage === storage);
  if (own(output)) output.storage.taped = true;
  for (const tensor of saved) {
    if (own(tensor)) tensor.storage.taped = true;
    tensor.storage.holds++;
  }
  output.node = {
    name,
    sequence: sequence++,
    inputs,
    output,
    saved,
    backward,
    takesTwo,
    done: false,
  };
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

/**
 * fn(x), of which nothing but x is kept for the backward, which computes the rest again: less memory for
 * more time (Chen et al. 2016, arXiv 1604.06174). Value and gradients have the same bits as without.
 *
 * `fn` runs twice and must compute the same both times; what it changes on its way, such as running
 * statistics, it changes only where {@linkcode isRecomputing} is false.
 *
 * @param leaves the parameters that `fn` reads
 */
export function recompute(
  fn: (x: Tensor) => Tensor,
  x: Tensor,
  leaves: readonly Tensor[] = [],
): Tensor {
  if (!recording) return x.gpu.scope(() => fn(x));
  const y = x.gpu.scope(() => noGrad(() => fn(x)));
  return record("recompute", [x, ...leaves], y, [x], (dy, [needsX]) => {
    const start = detach(x);
    start.requiresGrad = needsX!;
    const root = again(() => fn(start));
    const gradients = root.node === null ? new Map<Tensor, Tensor>() : walk(root, dy);
    return [start, ...leaves].map((leaf) => {
      const gradient = gradients.get(leaf);
      // The outer walk holds it from here on.
      if (gradient !== undefined) gradient.storage.holds--;
      return gradient ?? null;
    });
  });
}

/** Whether a forward is repeated for the backward of {@linkcode recompute}. */
export function isRecomputing(): boolean {
  return recomputing;
}

/** Records a forward for the second time. */
function again<T>(fn: () => T): T {
  const before = { recording, recomputing };
  [recording, recomputing] = [true, true];
  try {
    return fn();
  } finally {
    ({ recording, recomputing } = before);
  }
}

/** Whether a gradient flows into a tensor. */
export function needsGrad(tensor: Tensor): boolean {
  return tensor.requiresGrad || tensor.node !== null;
}

/** Keeps a tensor of the tape alive past `backward()`, until the outermost scope ends. */
export function keep<T extends Tensor>(tensor: T): T {
  tensor.storage.holds++;
  return tensor;
}

/** The same values without their history. */
export function detach<T extends Tensor>(tensor: T): T {
  return view(tensor, tensor.shape) as T;
}

/** A parameter's place in the flat gradient buffer, and whether this step has written to it. */
export interface GradientSlot {
  /** A view of the flat gradient buffer. */
  readonly tensor: Tensor;
  /** Whether it holds a gradient already, to which others are added. */
  written: boolean;
}

const slots = new WeakMap<Tensor, GradientSlot>();

/** Gives a leaf a fixed place for its gradient, to be overwritten by the first contribution. */
export function setGradientSlot(leaf: Tensor, slot: GradientSlot): void {
  slots.set(leaf, slot);
  leaf.grad = slot.tensor;
}

/** The slot of a parameter; what an op made has none. */
function slotOf(input: Tensor): GradientSlot | undefined {
  return input.node === null ? slots.get(input) : undefined;
}

/**
 * The tensor that an op's backward writes the gradient of `input` into, every element of it, and
 * returns: for a parameter that has none yet its slot in the flat buffer, else a fresh tensor.
 */
export function gradFor(input: Tensor): Tensor {
  const slot = slotOf(input);
  if (slot === undefined || slot.written) return input.gpu.empty(input.shape, input.dtype);
  slot.written = true;
  return slot.tensor;
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
  keep(loss);
  for (const [leaf, gradient] of walk(loss, view(loss.gpu.one, loss.shape))) {
    noGrad(() => setLeafGradient(leaf, gradient));
  }
}

/**
 * Walks the tape behind `root` with its gradient `dy`: into the slots of parameters, and for other leaves
 * into what is returned, each held once.
 */
function walk(root: Tensor, dy: Tensor): Map<Tensor, Tensor> {
  const gradients = new Map<Node, Tensor[]>();
  for (const pending = [root.node!]; pending.length > 0;) {
    const node = pending.pop()!;
    if (gradients.has(node)) continue;
    if (node.done) throw new RangeError(`backward: ${node.name} was already walked`);
    gradients.set(node, []);
    for (const input of node.inputs) if (input.node !== null) pending.push(input.node);
  }

  const leaves = new Map<Tensor, Tensor[]>();
  gradients.get(root.node!)!.push(hold(dy));
  return noGrad(() => {
    for (const node of [...gradients.keys()].sort((a, b) => b.sequence - a.sequence)) {
      const parts = gradients.get(node)!;
      gradients.delete(node);
      node.done = true;
      if (parts.length > 0) {
        const held = node.takesTwo && parts.length === 2 ? parts : [total(parts)];
        const [dy, more] = held as [Tensor, Tensor?];
        const needs = node.inputs.map(needsGrad);
        const results = root.gpu.scope(() => node.backward(dy, needs, more));
        results.forEach((gradient, i) => {
          const input = node.inputs[i]!;
          if (gradient === null || !needsGrad(input)) return;
          if (!sameShape(gradient.shape, input.shape)) {
            throw new RangeError(
              `backward: ${node.name} gives input ${i} [${input.shape}] ` +
                `a gradient [${gradient.shape}]`,
            );
          }
          if (gradient.dtype !== input.dtype) {
            throw new RangeError(
              `backward: ${node.name} gives input ${i}, which is ${input.dtype}, ` +
                `a gradient of ${gradient.dtype}`,
            );
          }
          const slot = slotOf(input);
          if (slot?.tensor === gradient) return;
          hold(gradient);
          if (slot !== undefined) addToSlot(slot, gradient);
          else if (input.node !== null) gradients.get(input.node)!.push(gradient);
          else leaves.set(input, [...leaves.get(input) ?? [], gradient]);
        });
        held.forEach(drop);
      }
      node.saved.forEach(drop);
      releaseUnheld(node.output);
    }
    return new Map([...leaves].map(([leaf, parts]) => [leaf, total(parts)]));
  });
}

/** Keeps a gradient until it is dropped as often as it was held. */
function hold(gradient: Tensor): Tensor {
  if (gradient.storage !== gradient.gpu.one.storage) gradient.storage.taped = true;
  gradient.storage.holds++;
  return gradient;
}

function drop(tensor: Tensor): void {
  tensor.storage.holds--;
  releaseUnheld(tensor);
}

function releaseUnheld({ gpu, storage }: Tensor): void {
  if (storage.holds === 0 && storage.taped) gpu.release(storage);
}

/** The sum of held contributions in the order they came, held in their place; a single one is passed on. */
function total(parts: readonly Tensor[]): Tensor {
  const [first, second, ...rest] = parts;
  if (second === undefined) return first!;
  const sum = hold(add(first!, second));
  for (const part of rest) accumulate(part, sum);
  parts.forEach(drop);
  return sum;
}

/** Adds a held gradient to a parameter's slot. */
function addToSlot(slot: GradientSlot, gradient: Tensor): void {
  if (slot.written) accumulate(gradient, slot.tensor);
  else expand(gradient, slot.tensor, 1);
  slot.written = true;
  drop(gradient);
}

/** Makes a held gradient the leaf's, in memory that lives as long as the leaf. */
function setLeafGradient(leaf: Tensor, gradient: Tensor): void {
  const { gpu } = leaf;
  // A copy, because the gradient of a sum is shared by its terms.
  const own = gpu.unscoped(() => gpu.empty(leaf.shape, leaf.dtype));
  expand(gradient, own, 1);
  drop(gradient);
  leaf.grad?.dispose();
  leaf.grad = own;
  gpu.attach(own.storage, leaf.storage);
}
