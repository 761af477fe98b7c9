/**
 * Scores of classifiers, and how sure one can be of them.
 *
 * Everywhere `targets` are 1, 0 or NaN; a NaN is a missing label and is left out as if its cell did not
 * exist. Matrices are row-major [n, labels]. A metric that its input does not define is NaN.
 */

import { Random } from "./random.ts";

/** Numbers in an array of any kind. */
export type Numbers = ArrayLike<number>;

/**
 * Area under the ROC curve: the probability that a random positive scores above a random negative, a
 * tie counting one half (the Mann–Whitney statistic; Hanley & McNeil 1982). O(n log n).
 *
 * @returns NaN where a class is absent or a score is NaN.
 */
export function auroc(scores: Numbers, targets: Numbers): number {
  const { positive, negative } = sortedByClass(scores, targets);
  let [below, upTo, wins] = [0, 0, 0];
  for (const score of positive) {
    while (negative[below]! < score) below++;
    while (negative[upTo]! <= score) upTo++;
    wins += (below + upTo) / 2;
  }
  return wins / (positive.length * negative.length);
}

/**
 * Average precision: Σ (Rₙ − Rₙ₋₁) Pₙ over the distinct scores as thresholds, so that tied scores form
 * one threshold and nothing is interpolated. O(n log n).
 *
 * @returns NaN where there is no positive or a score is NaN.
 */
export function averagePrecision(scores: Numbers, targets: Numbers): number {
  const { positive, negative } = sortedByClass(scores, targets);
  let [hits, alarms, sum] = [0, 0, 0];
  while (hits < positive.length) {
    const threshold = positive.at(-1 - hits)!;
    const before = hits;
    while (positive.at(-1 - hits)! >= threshold) hits++;
    while (negative.at(-1 - alarms)! >= threshold) alarms++;
    sum += (hits - before) * hits / (hits + alarms);
  }
  return sum / positive.length;
}

/** The scores of each class in ascending order; empty where one of them is NaN and nothing has an order. */
function sortedByClass(scores: Numbers, targets: Numbers) {
  checkSize("scores", scores, "targets", targets);
  const sorted = (target: number) => {
    const side = new Float64Array(scores.length);
    let size = 0;
    for (let i = 0; i < scores.length; i++) {
      if (targets[i] === target) side[size++] = scores[i]!;
    }
    return side.subarray(0, size).sort();
  };
  const [positive, negative] = [sorted(1), sorted(0)];
  // Sorting puts NaN last.
  const ordered = ![positive, negative].some((side) => Number.isNaN(side.at(-1)));
  const none = new Float64Array();
  return ordered ? { positive, negative } : { positive: none, negative: none };
}

/** The share of cells predicted right: over a whole matrix, label-wise (Hamming) accuracy. */
export function accuracy(predictions: Numbers, targets: Numbers): number {
  checkSize("predictions", predictions, "targets", targets);
  let [right, known] = [0, 0];
  for (let i = 0; i < targets.length; i++) {
    if (Number.isNaN(targets[i])) continue;
    known++;
    if (predictions[i] === targets[i]) right++;
  }
  return right / known;
}

/** The share of rows whose known labels are all predicted right; rows without a known label do not count. */
export function subsetAccuracy(predictions: Numbers, targets: Numbers, labels: number): number {
  checkSize("predictions", predictions, "targets", targets);
  let [right, known] = [0, 0];
  for (let row = 0; row < targets.length; row += labels) {
    let [wrong, seen] = [false, false];
    for (let i = row; i < row + labels; i++) {
      if (Number.isNaN(targets[i])) continue;
      seen = true;
      wrong ||= predictions[i] !== targets[i];
    }
    if (seen) known++;
    if (seen && !wrong) right++;
  }
  return right / known;
}

/**
 * F1, the harmonic mean of precision and recall: 0 where nothing is positive or predicted so, NaN where no
 * label is known. Over a whole matrix it is the micro average; the macro average is
 * `macroMean(perLabel(f1, predictions, targets, labels))`.
 */
export function f1(predictions: Numbers, targets: Numbers): number {
  checkSize("predictions", predictions, "targets", targets);
  let [hits, errors, known] = [0, 0, 0];
  for (let i = 0; i < targets.length; i++) {
    if (Number.isNaN(targets[i])) continue;
    known++;
    if (predictions[i] !== targets[i]) errors++;
    else if (predictions[i] === 1) hits++;
  }
  if (known === 0) return NaN;
  return hits === 0 ? 0 : 2 * hits / (2 * hits + errors);
}

/**
 * The share of rows whose largest score is that of a label that is 1: for data with one label a row. Of
 * equal scores the first counts. Rows without a 1 are left out.
 */
export function topOneAccuracy(scores: Numbers, targets: Numbers, labels: number): number {
  checkSize("scores", scores, "targets", targets);
  let [right, known] = [0, 0];
  for (let row = 0; row < targets.length; row += labels) {
    let [best, labelled] = [row, false];
    for (let i = row; i < row + labels; i++) {
      if (scores[i]! > scores[best]!) best = i;
      labelled ||= targets[i] === 1;
    }
    if (!labelled) continue;
    known++;
    if (targets[best] === 1) right++;
  }
  return right / known;
}

/** Predictions, 1 where a score reaches the threshold of its label, else 0. */
export function atThresholds(scores: Numbers, thresholds: Numbers): Uint8Array {
  const labels = thresholds.length;
  return Uint8Array.from(scores, (score, i) => score >= thresholds[i % labels]! ? 1 : 0);
}

/**
 * The predictions of the best classifier that never looks at an image: for each label what most of its
 * training targets are (0 for a tie or without any), the same for all `rows` rows. Its accuracy is the
 * figure that every other accuracy must be read against.
 */
export function constantPredictions(
  trainTargets: Numbers,
  labels: number,
  rows: number,
): Uint8Array {
  const balance = new Float64Array(labels);
  for (let i = 0; i < trainTargets.length; i++) {
    if (trainTargets[i] === 1) balance[i % labels]!++;
    if (trainTargets[i] === 0) balance[i % labels]!--;
  }
  return Uint8Array.from({ length: rows * labels }, (_, i) => balance[i % labels]! > 0 ? 1 : 0);
}

/** A metric of each column of two matrices. */
export function perLabel(
  metric: (values: Numbers, targets: Numbers) => number,
  values: Numbers,
  targets: Numbers,
  labels: number,
): number[] {
  const column = (matrix: Numbers, label: number) =>
    Float64Array.from(
      { length: matrix.length / labels },
      (_, row) => matrix[row * labels + label]!,
    );
  return Array.from(
    { length: labels },
    (_, label) => metric(column(values, label), column(targets, label)),
  );
}

/** A mean over labels that tells how many it is of. */
export interface MacroMean {
  /** Mean of the defined values; NaN without any. */
  readonly mean: number;
  /** How many values were defined. */
  readonly defined: number;
  /** How many were NaN and are not part of the mean. */
  readonly absent: number;
}

/** The mean over the labels for which a metric is defined. */
export function macroMean(values: readonly number[]): MacroMean {
  const known = values.filter((value) => !Number.isNaN(value));
  return {
    mean: mean(known),
    defined: known.length,
    absent: values.length - known.length,
  };
}

/** Some rows of a matrix, in the order given: what a bootstrap statistic is computed on. */
export function takeRows(matrix: Numbers, labels: number, rows: Numbers): Float64Array {
  const taken = new Float64Array(rows.length * labels);
  for (let row = 0; row < rows.length; row++) {
    for (let label = 0; label < labels; label++) {
      taken[row * labels + label] = matrix[rows[row]! * labels + label]!;
    }
  }
  return taken;
}

/** An estimate with its percentile bootstrap interval. */
export interface Interval {
  /** The statistic on the sample itself. */
  readonly estimate: number;
  /** Lower end of the interval. */
  readonly low: number;
  /** Upper end of the interval. */
  readonly high: number;
  /** Resamples on which the statistic was NaN (a class was absent); the interval is over the others. */
  readonly undefinedResamples: number;
}

/** How an interval is drawn. */
export interface BootstrapOptions {
  /** Number of resamples; default 1000. */
  readonly resamples?: number;
  /** Seed of the resamples; default 0. */
  readonly seed?: number;
  /** Probability that the interval covers; default 0.95. */
  readonly level?: number;
}

/** A statistic of a sample of images given by their rows, which may occur more than once. */
export type Statistic = (rows: Uint32Array) => number;

/**
 * A percentile bootstrap interval that resamples patients, not images, because images of one patient are
 * not independent (Efron & Tibshirani 1993, chapters 8 and 13).
 *
 * @param patients the patient of each row; a null is a patient of its own.
 *
 * @example
 * ```ts
 * const scores = [0.9, 0.2, 0.4, 0.6, 0.8], targets = [1, 0, 1, 0, 1];
 * const { estimate, low, high } = bootstrap(["a", "a", "b", "c", null], (rows) =>
 *   auroc(takeRows(scores, 1, rows), takeRows(targets, 1, rows)));
 * ```
 */
export function bootstrap(
  patients: readonly (string | null)[],
  statistic: Statistic,
  options: BootstrapOptions = {},
): Interval {
  return resample(patients, (rows) => [statistic(rows)], options)[0]!;
}

/** Two statistics of one sample, and how they differ. */
export interface PairedInterval {
  /** The first statistic. */
  readonly a: Interval;
  /** The second statistic. */
  readonly b: Interval;
  /** The interval of a − b, both computed on the same resamples. */
  readonly difference: Interval;
}

/** Like {@link bootstrap} for two statistics and their difference, paired by patient. */
export function pairedBootstrap(
  patients: readonly (string | null)[],
  a: Statistic,
  b: Statistic,
  options: BootstrapOptions = {},
): PairedInterval {
  const both = (rows: Uint32Array) => {
    const [x, y] = [a(rows), b(rows)];
    return [x, y, x - y];
  };
  const [first, second, difference] = resample(patients, both, options);
  return { a: first!, b: second!, difference: difference! };
}

function resample(
  patients: readonly (string | null)[],
  statistics: (rows: Uint32Array) => number[],
  { resamples = 1000, seed = 0, level = 0.95 }: BootstrapOptions,
): Interval[] {
  const groups = [...Map.groupBy(patients.keys(), (row) => patients[row] ?? row).values()];
  const draws = Array.from({ length: resamples }, (_, index) => {
    const random = new Random(seed, "bootstrap", index);
    return statistics(
      Uint32Array.from(groups.flatMap(() => groups[random.integer(groups.length)]!)),
    );
  });
  return statistics(Uint32Array.from(patients.keys())).map((estimate, i) => {
    const values = draws.map((draw) => draw[i]!).filter((value) => !Number.isNaN(value)).sort(
      (x, y) => x - y,
    );
    return {
      estimate,
      low: quantile(values, (1 - level) / 2),
      high: quantile(values, (1 + level) / 2),
      undefinedResamples: resamples - values.length,
    };
  });
}

/** The p-quantile of ascending values, interpolated linearly (Hyndman & Fan 1996, type 7). */
function quantile(values: readonly number[], p: number): number {
  const position = p * (values.length - 1);
  const below = Math.floor(position);
  const lower = values[below] ?? NaN;
  const upper = values[below + 1] ?? lower;
  return lower + (upper - lower) * (position - below);
}

function mean(values: readonly number[]): number {
  return values.reduce((sum, value) => sum + value, 0) / values.length;
}

function checkSize(a: string, x: Numbers, b: string, y: Numbers): void {
  if (x.length !== y.length) throw new RangeError(`${x.length} ${a}, ${y.length} ${b}`);
}
