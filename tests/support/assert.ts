/** Comparisons of arrays of numbers that say where and by how much they differ. */

import { AssertionError } from "node:assert/strict";

/**
 * Fails unless |actual − expected| ≤ atol + rtol·|expected| for every element. Two NaN at the same
 * place are equal, and so are two infinities of one sign.
 *
 * @param tolerance Both 0 by default: exact equality.
 * @param label What is compared, for the message.
 */
export function assertClose(
  actual: ArrayLike<number>,
  expected: ArrayLike<number>,
  tolerance: { readonly rtol?: number; readonly atol?: number },
  label: string,
): void {
  const { rtol = 0, atol = 0 } = tolerance;
  if (actual.length !== expected.length) {
    throw new AssertionError({
      message: `${label}: ${actual.length} elements, expected ${expected.length}`,
    });
  }
  let count = 0;
  let worst = { index: 0, excess: 0 };
  for (let index = 0; index < expected.length; index++) {
    const a = actual[index]!;
    const e = expected[index]!;
    if (Object.is(a, e)) continue;
    const excess = Math.abs(a - e) / (atol + rtol * Math.abs(e));
    // Written so that NaN fails: every comparison with it is false.
    if (excess <= 1 || a === e) continue;
    count++;
    const rank = Number.isNaN(excess) ? Infinity : excess;
    if (count === 1 || rank > worst.excess) worst = { index, excess: rank };
  }
  if (count === 0) return;
  const { index } = worst;
  throw new AssertionError({
    message: `${label}: ${count} of ${expected.length} elements differ (rtol ${rtol}, ` +
      `atol ${atol}); worst at ${index}: ${actual[index]}, expected ${expected[index]}`,
  });
}

/** ‖actual − reference‖ / ‖reference‖ in the Euclidean norm; ‖actual‖ where the reference is 0. */
export function relativeError(actual: ArrayLike<number>, reference: ArrayLike<number>): number {
  if (actual.length !== reference.length) {
    throw new AssertionError({
      message: `relativeError: ${actual.length} elements, reference has ${reference.length}`,
    });
  }
  let difference = 0;
  let norm = 0;
  for (let i = 0; i < reference.length; i++) {
    difference += (actual[i]! - reference[i]!) ** 2;
    norm += reference[i]! ** 2;
  }
  return Math.sqrt(norm === 0 ? difference : difference / norm);
}

/** Fails unless {@linkcode relativeError} is at most `limit`. */
export function assertRelative(
  actual: ArrayLike<number>,
  reference: ArrayLike<number>,
  limit: number,
  label: string,
): void {
  const error = relativeError(actual, reference);
  // NaN fails too: every comparison with it is false.
  if (error <= limit) return;
  throw new AssertionError({ message: `${label}: relative error ${error}, at most ${limit}` });
}
