/** Whether an adapter's 16-bit floats are what training takes them for. */
import { noGrad } from "./autograd.ts";
import { UserError } from "./errors.ts";
import type { Gpu } from "./gpu/gpu.ts";
import { cast } from "./ops/cast.ts";

/**
 * Numbers in all the ranges of 16-bit floats and beyond: subnormal ones down to 2⁻²⁴, ties of rounding on
 * both sides, the largest, and those that must become infinite for an overflow to be noticed.
 */
const samples = [1, -1].flatMap((sign) =>
  [
    [0, 1, 1 / 3, Math.PI, 1 + 2 ** -11, 1 + 3 * 2 ** -11, 1 + 2 ** -11 + 2 ** -20],
    [2 ** -14, 2 ** -14 - 2 ** -24, 2 ** -14 - 2 ** -25, 1e-5, 2 ** -24, 3 * 2 ** -25],
    [2 ** -25, 2 ** -25 * (1 + 2 ** -20), 1e-10],
    [65504, 65519, 65520, 1e9, Infinity, NaN],
  ].flat().map((value) => sign * value)
);

/**
 * Makes sure that an adapter stores 16-bit floats, keeps subnormal ones, and rounds to the nearest, ties to
 * even, as IEEE 754 has it: WGSL leaves the latter two to the adapter.
 *
 * @throws {UserError} naming the adapter, and what it does otherwise
 */
export async function checkHalves(gpu: Gpu): Promise<void> {
  const refuse = (what: string) =>
    new UserError(`--precision f16: ${gpu.adapter.description} ${what}; train with f32`);
  if (!gpu.hasHalves) throw refuse("has no 16-bit floats (the feature shader-f16)");
  const stored = gpu.step(() => noGrad(() => cast(gpu.tensor(samples), "f16")));
  const loaded = gpu.step(() => noGrad(() => cast(stored, "f32")));
  const expected = new Float16Array(samples);
  for (const tensor of [stored, loaded]) {
    const values = await tensor.data();
    tensor.dispose();
    const wrong = samples.findIndex((_, i) => !Object.is(values[i], expected[i]));
    if (wrong >= 0) {
      throw refuse(`makes ${values[wrong]} of ${samples[wrong]}, not ${expected[wrong]}`);
    }
  }
}

/** @throws {UserError} if the gradients were not finite however little the loss was scaled */
export function checkLossScale(lossScale: number | null, step: number): void {
  if (lossScale === null || lossScale >= 1) return;
  throw new UserError(
    `--precision f16: at step ${step} the gradients were not finite for many steps; train with f32`,
  );
}
