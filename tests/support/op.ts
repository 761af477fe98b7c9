/** What every test of an op needs: one GPU, deterministic inputs, gradients, finite differences. */
import assert from "node:assert/strict";
import { backward, record } from "../../src/autograd.ts";
import { Gpu } from "../../src/gpu/gpu.ts";
import { Random } from "../../src/random.ts";
import { type Shape, sizeOf, type Tensor } from "../../src/tensor.ts";
import { assertClose } from "./assert.ts";
import type { Fixture } from "./fixture.ts";
import { guard } from "./guard.ts";

/** The GPU of this test file. */
export const gpu: Gpu = await Gpu.open();
Deno.test.afterAll(guard(gpu.device));

/** Normal numbers, the same for the same name. */
export function randomArray(shape: Shape, name: string, scale = 1): Float32Array {
  const random = new Random(1, name);
  return Float32Array.from({ length: sizeOf(shape) }, () => scale * random.normal());
}

/** A tensor of normal numbers, the same for the same name. */
export function randomTensor(shape: Shape, name: string, scale = 1): Tensor<"f32"> {
  return gpu.tensor(randomArray(shape, name, scale), shape);
}

/** The output of `fn` and the gradient of sum(y · dy) by each input, on the CPU. */
export async function outputAndGradients(
  fn: (...inputs: Tensor[]) => Tensor,
  inputs: readonly Tensor[],
  dy: Float32Array,
): Promise<{ y: Float32Array; gradients: Float32Array[] }> {
  const { gpu } = inputs[0]!;
  for (const input of inputs) input.requiresGrad = input.dtype === "f32";
  const y = gpu.step(() => {
    const output = fn(...inputs);
    const copy = gpu.empty(output.shape);
    gpu.copy(output, copy);
    const upstream = gpu.tensor(dy, output.shape);
    backward(record("upstream", [output], gpu.zeros([]), [], () => [upstream]));
    return copy;
  });
  const gradients: Float32Array[] = [];
  for (const input of inputs) {
    if (input.grad !== null) gradients.push(await input.grad.data() as Float32Array);
  }
  const values = await y.data() as Float32Array;
  y.dispose();
  return { y: values, gradients };
}

/**
 * Compares the gradients of `fn` with central differences of sum(y · dy) along random directions,
 * where f32 rounding matters less than coordinate by coordinate.
 */
export async function checkGradients(
  fn: (...inputs: Tensor[]) => Tensor,
  inputs: readonly { shape: Shape; data: Float32Array }[],
  { epsilon = 1e-2, tolerance = 2e-2, directions = 3 } = {},
): Promise<void> {
  const tensors = (arrays: readonly Float32Array[]) =>
    arrays.map((data, i) => gpu.tensor(data, inputs[i]!.shape));
  const arrays = inputs.map(({ data }) => data);
  const shape = gpu.step(() => fn(...tensors(arrays)).shape);
  const dy = randomArray(shape, "dy");
  const dot = (a: Float32Array, b: Float32Array) => a.reduce((sum, v, i) => sum + v * b[i]!, 0);
  const { gradients } = await outputAndGradients(fn, tensors(arrays), dy);
  for (let i = 0; i < inputs.length; i++) {
    for (let d = 0; d < directions; d++) {
      const direction = randomArray(inputs[i]!.shape, `direction ${i} ${d}`);
      const shifted = async (by: number) => {
        const moved = arrays.map((a, j) => j === i ? a.map((v, k) => v + by * direction[k]!) : a);
        const y = gpu.step(() => fn(...tensors(moved)));
        return dot(await y.data() as Float32Array, dy);
      };
      const numeric = (await shifted(epsilon) - await shifted(-epsilon)) / (2 * epsilon);
      const analytic = dot(gradients[i]!, direction);
      const scale = Math.sqrt(dot(gradients[i]!, gradients[i]!)) + 1e-3;
      assertClose(
        [analytic / scale],
        [numeric / scale],
        { atol: tolerance },
        `gradient of input ${i} along direction ${d}`,
      );
    }
  }
}

/**
 * Compares value and gradients of `fn` with case `name` of a fixture.
 *
 * @param inputs the names of what `fn` takes, all differentiable
 */
export async function assertFollows(
  fixture: Fixture,
  name: string,
  inputs: readonly string[],
  fn: (...inputs: Tensor[]) => Tensor,
  tolerance: { readonly rtol?: number; readonly atol?: number },
): Promise<void> {
  const get = (key: string) => fixture.tensor(`${name}.${key}`);
  const tensors = inputs.map((input) =>
    gpu.tensor(get(input).data as Float32Array, get(input).shape)
  );
  const shape = gpu.step(() => fn(...tensors).shape);
  assert.deepEqual(shape, get("y").shape, `${name}.y`);
  const { y, gradients } = await outputAndGradients(fn, tensors, get("dy").data as Float32Array);
  assertClose(y, get("y").data, tolerance, `${name}.y`);
  inputs.forEach((input, i) =>
    assertClose(gradients[i]!, get(`d${input}`).data, tolerance, `${name}.d${input}`)
  );
}

/** Fails unless a step with `fn` and its backward gives back all the memory that it takes. */
export function assertReleases(
  fn: (...inputs: Tensor[]) => Tensor,
  ...shapes: readonly Shape[]
): void {
  const inputs = shapes.map((shape, i) => randomTensor(shape, `releases ${i}`));
  for (const input of inputs) input.requiresGrad = true;
  const step = () =>
    gpu.step(() => {
      const y = fn(...inputs);
      backward(record("upstream", [y], gpu.empty([]), [], () => [gpu.empty(y.shape)]));
    });
  step();
  const { live } = gpu.memory;
  step();
  assert.equal(gpu.memory.live, live, "bytes in use after a step");
}
