/**
 * Scores of classifiers, and how sure one can be of them.
 *
 * Everywhere `targets` are 1, 0 or NaN; a NaN is a missing label and is left out as if its cell did not
 * exist. Matrices are row-major [n, labels]. A metric that its input does not define is NaN. `counts`
 * tells how often each row occurs, once by default: a resample of the rows is described by it.
 */

import { Random } from "./random.ts";

/** Numbers in an array of any kind. */
export type Numbers = ArrayLike<number>;

/**
 * The scores of one label from the highest to the lowest, sorted once for any number of resamples, each of
 * which then takes O(n). A threshold accepts all scores that reach it, so tied scores stand or fall
 * together and count as one threshold.
 */
export class Ranking {
  /** The rows whose target is known, by falling score; none where such a score is NaN. */
  readonly #rows: Uint32Array;
  readonly #scores: Float64Array;
  readonly #isPositive: Uint8Array;

  /** O(n log n). */
  constructor(scores: Numbers, targets: Numbers) {
    checkSize("scores", scores, "targets", targets);
    const known = Uint32Array.from({ length: scores.length }, (_, row) => row).filter((row) =>
      !Number.isNaN(targets[row])
    );
    this.#rows = known.some((row) => Number.isNaN(scores[row]))
      ? new Uint32Array()
      : known.sort((a, b) => scores[b]! - scores[a]!);
    this.#scores = Float64Array.from(this.#rows, (row) => scores[row]!);
    this.#isPositive = Uint8Array.from(this.#rows, (row) => targets[row]!);
  }

  /** See {@linkcode auroc}. */
  auroc(counts?: Numbers): number {
    let [wins, above, passed] = [0, 0, 0];
    const { positives, negatives } = this.#descend(counts, (hits, alarms) => {
      wins += (alarms - passed) * (above + hits) / 2;
      [above, passed] = [hits, alarms];
    });
    return wins / (positives * negatives);
  }

  /** See {@linkcode averagePrecision}. */
  averagePrecision(counts?: Numbers): number {
    let [sum, above] = [0, 0];
    const { positives, negatives } = this.#descend(counts, (hits, alarms) => {
      if (hits > above) sum += (hits - above) * hits / (hits + alarms);
      above = hits;
    });
    return negatives === 0 ? NaN : sum / positives;
  }

  /** See {@linkcode sensitivityAtSpecificity}. */
  sensitivityAtSpecificity(specificity: number, counts?: Numbers): number {
    const { positives, negatives } = this.#descend(counts, () => {});
    if (negatives === 0) return NaN;
    let reached = 0;
    this.#descend(counts, (hits, alarms) => {
      if ((negatives - alarms) / negatives >= specificity) reached = hits;
    });
    return reached / positives;
  }

  /** See {@linkcode bestThreshold}. */
  bestThreshold(): number {
    let [best, threshold] = [0, 0.5];
    const { positives } = this.#descend(undefined, () => {});
    this.#descend(undefined, (hits, alarms, last) => {
      const value = 2 * hits / (positives + hits + alarms);
      if (value <= best) return;
      best = value;
      threshold = between(this.#scores[last + 1] ?? 0, this.#scores[last]!);
    });
    return threshold;
  }

  /**
   * Visits every threshold from the highest to the lowest with the positives (hits) and negatives
   * (alarms) that it accepts and the last place that it accepts; returns the number of each.
   */
  #descend(
    counts: Numbers | undefined,
    visit: (hits: number, alarms: number, last: number) => void,
  ): { positives: number; negatives: number } {
    let [hits, alarms] = [0, 0];
    for (let i = 0; i < this.#rows.length; i++) {
      const times = counts === undefined ? 1 : counts[this.#rows[i]!]!;
      if (this.#isPositive[i] === 1) hits += times;
      else alarms += times;
      if (this.#scores[i] !== this.#scores[i + 1]) visit(hits, alarms, i);
    }
    return { positives: hits, negatives: alarms };
  }
}

/**
 * Area under the ROC curve: the probability that a random positive scores above a random negative, a
 * tie counting one half (the Mann–Whitney statistic; Hanley & McNeil 1982).
 *
 * @returns NaN where a class is absent or a score is NaN.
 */
export function auroc(scores: Numbers, targets: Numbers, counts?: Numbers): number {
  return new Ranking(scores, targets).auroc(counts);
}

/**
 * Average precision: Σ (Rₙ − Rₙ₋₁) Pₙ over the distinct scores as thresholds, so that tied scores form
 * one threshold and nothing is interpolated.
 *
 * @returns NaN where a class is absent or a score is NaN. Without a negative any scores reach 1, which
 * is what scikit-learn returns; as a part of a mean it would reward nothing.
 */
export function averagePrecision(scores: Numbers, targets: Numbers, counts?: Numbers): number {
  return new Ranking(scores, targets).averagePrecision(counts);
}

/**
 * The largest share of positives that a threshold finds while at least `specificity` of the negatives stay
 * below it. Only what a threshold can do counts: tied scores are accepted together or not at all,
 * nothing is interpolated, and where even the highest score is too much it is 0.
 *
 * @returns NaN where a class is absent or a score is NaN.
 */
export function sensitivityAtSpecificity(
  scores: Numbers,
  targets: Numbers,
  specificity = 0.95,
  counts?: Numbers,
): number {
  return new Ranking(scores, targets).sensitivityAtSpecificity(specificity, counts);
}

/**
 * The threshold of the greatest F1, to be chosen on the validation split and then left alone: F1 because,
 * unlike Youden's index, it does not buy hits of a rare label with a flood of alarms. It lies half way
 * between the lowest probability accepted and the next one below (or 0), where a new image is least
 * likely to fall on the wrong side by chance. Of equally good ones the highest; 0.5 where there is no
 * positive to find or a probability is NaN.
 */
export function bestThreshold(probabilities: Numbers, targets: Numbers): number {
  return new Ranking(probabilities, targets).bestThreshold();
}

/** A number in (low, high], half way where floats allow it. */
function between(low: number, high: number): number {
  const middle = low + (high - low) / 2;
  return middle > low ? middle : high;
}

/** The Brier score: the mean of (probability − target)², 0 at best, NaN where no label is known. */
export function brierScore(probabilities: Numbers, targets: Numbers, counts?: Numbers): number {
  checkSize("probabilities", probabilities, "targets", targets);
  const times = occurrences(counts, targets);
  let [sum, known] = [0, 0];
  for (let i = 0; i < targets.length; i++) {
    if (Number.isNaN(targets[i])) continue;
    known += times(i);
    sum += times(i) * (probabilities[i]! - targets[i]!) ** 2;
  }
  return sum / known;
}

/** Bins of the calibration error. */
const BINS = 15;

/**
 * The expected calibration error of the probability of being positive: the known cells fall into 15 bins
 * (b / 15, (b + 1) / 15] by their probability, 0 into the first; the error is the mean, over the
 * cells, of the distance in their bin between the mean probability and the share of positives (Naeini,
 * Cooper & Hauskrecht 2015; the bins of Guo et al. 2017). NaN where no label is known or a
 * probability is NaN.
 *
 * @throws RangeError if a probability is not in 0…1.
 */
export function expectedCalibrationError(
  probabilities: Numbers,
  targets: Numbers,
  counts?: Numbers,
): number {
  checkSize("probabilities", probabilities, "targets", targets);
  const times = occurrences(counts, targets);
  // Σ (probability − target) of a bin is its distance times its cells.
  const surplus = new Float64Array(BINS);
  let known = 0;
  for (let i = 0; i < targets.length; i++) {
    if (Number.isNaN(targets[i])) continue;
    const probability = probabilities[i]!;
    if (Number.isNaN(probability)) return NaN;
    if (!(probability >= 0 && probability <= 1)) {
      throw new RangeError(`expectedCalibrationError: probability ${probability} is not in 0…1`);
    }
    known += times(i);
    const bin = Math.max(0, Math.ceil(probability * BINS) - 1);
    surplus[bin]! += times(i) * (probability - targets[i]!);
  }
  return surplus.reduce((sum, value) => sum + Math.abs(value), 0) / known;
}

/** The share of cells predicted right: over a whole matrix, label-wise (Hamming) accuracy. */
export function accuracy(predictions: Numbers, targets: Numbers, counts?: Numbers): number {
  checkSize("predictions", predictions, "targets", targets);
  const times = occurrences(counts, targets);
  let [right, known] = [0, 0];
  for (let i = 0; i < targets.length; i++) {
    if (Number.isNaN(targets[i])) continue;
    known += times(i);
    if (predictions[i] === targets[i]) right += times(i);
  }
  return right / known;
}

/** The share of rows whose known labels are all predicted right; rows without a known label do not count. */
export function subsetAccuracy(
  predictions: Numbers,
  targets: Numbers,
  labels: number,
  counts?: Numbers,
): number {
  checkSize("predictions", predictions, "targets", targets);
  const times = occurrences(counts, targets);
  let [right, known] = [0, 0];
  for (let row = 0; row < targets.length; row += labels) {
    let [wrong, seen] = [false, false];
    for (let i = row; i < row + labels; i++) {
      if (Number.isNaN(targets[i])) continue;
      seen = true;
      wrong ||= predictions[i] !== targets[i];
    }
    if (seen) known += times(row);
    if (seen && !wrong) right += times(row);
  }
  return right / known;
}

/**
 * F1, the harmonic mean of precision and recall: 0 where nothing is positive or predicted so, NaN where no
 * label is known. Over a whole matrix it is the micro average; the macro average is
 * `macroMean(perLabel(f1, predictions, targets, labels))`.
 */
export function f1(predictions: Numbers, targets: Numbers, counts?: Numbers): number {
  checkSize("predictions", predictions, "targets", targets);
  const times = occurrences(counts, targets);
  let [hits, errors, known] = [0, 0, 0];
  for (let i = 0; i < targets.length; i++) {
    if (Number.isNaN(targets[i])) continue;
    known += times(i);
    if (predictions[i] !== targets[i]) errors += times(i);
    else if (predictions[i] === 1) hits += times(i);
  }
  if (known === 0) return NaN;
  return hits === 0 ? 0 : 2 * hits / (2 * hits + errors);
}

/**
 * The share of rows whose largest score is that of a label that is 1: for data with one label a row. Of
 * equal scores the first counts. Rows without a 1 are left out.
 */
export function topOneAccuracy(
  scores: Numbers,
  targets: Numbers,
  labels: number,
  counts?: Numbers,
): number {
  const times = occurrences(counts, targets);
  let [right, known] = [0, 0];
  forEachLabelled(scores, targets, labels, (row, best) => {
    known += times(row * labels);
    if (targets[row * labels + best] === 1) right += times(row * labels);
  });
  return right / known;
}

/**
 * How often class i (row) is taken for class j (column): for data with one label a row, of which the label
 * with the largest score, of equal ones the first, is the prediction. Rows without a 1 are left out.
 *
 * @returns counts [labels, labels]
 * @throws RangeError if a row has two labels that are 1.
 */
export function confusionMatrix(scores: Numbers, targets: Numbers, labels: number): Uint32Array {
  const confusion = new Uint32Array(labels * labels);
  forEachLabelled(scores, targets, labels, (row, best) => {
    const classes = Array.from({ length: labels }, (_, label) => label)
      .filter((label) => targets[row * labels + label] === 1);
    if (classes.length > 1) {
      throw new RangeError(`confusionMatrix: row ${row} has ${classes.length} labels, not one`);
    }
    confusion[classes[0]! * labels + best]!++;
  });
  return confusion;
}

/** Visits the rows that have a 1, with the label of their largest score. */
function forEachLabelled(
  scores: Numbers,
  targets: Numbers,
  labels: number,
  visit: (row: number, best: number) => void,
): void {
  checkSize("scores", scores, "targets", targets);
  for (let row = 0; row < targets.length / labels; row++) {
    let [best, labelled] = [0, false];
    for (let label = 0; label < labels; label++) {
      if (scores[row * labels + label]! > scores[row * labels + best]!) best = label;
      labelled ||= targets[row * labels + label] === 1;
    }
    if (labelled) visit(row, best);
  }
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

/** Column `label` of a matrix with so many `labels`. */
export function columnOf(matrix: Numbers, labels: number, label: number): Float64Array {
  return Float64Array.from(
    { length: matrix.length / labels },
    (_, row) => matrix[row * labels + label]!,
  );
}

/** A metric of each column of two matrices. */
export function perLabel(
  metric: (values: Numbers, targets: Numbers) => number,
  values: Numbers,
  targets: Numbers,
  labels: number,
): number[] {
  return Array.from(
    { length: labels },
    (_, label) => metric(columnOf(values, labels, label), columnOf(targets, labels, label)),
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

/** Some rows of a matrix, in the order given: those of one source, for scores within it. */
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

/** What a statistic returned, with an {@linkcode Interval} for every number in it. */
export type Intervals<T> = T extends number ? Interval
  : { readonly [K in keyof T]: Intervals<T[K]> };

/** How an interval is drawn. */
export interface BootstrapOptions {
  /** Number of resamples; default 1000. */
  readonly resamples?: number;
  /** Seed of the resamples; default 0. */
  readonly seed?: number;
  /** Probability that the interval covers; default 0.95. */
  readonly level?: number;
}

/**
 * A statistic of a sample of images in which row i occurs counts[i] times: a number, or objects and arrays
 * of numbers, of the same form every time.
 */
export type Statistic<T = number> = (counts: Uint32Array) => T;

/**
 * Percentile bootstrap intervals that resample patients, not images, because images of one patient are
 * not independent (Efron & Tibshirani 1993, chapters 8 and 13). All numbers of one statistic come from
 * the same resamples, so that a difference among them is paired by patient.
 *
 * @param patients the patient of each row; a null is a patient of its own.
 *
 * @example
 * ```ts
 * const targets = [1, 0, 1, 0, 1];
 * const a = new Ranking([0.9, 0.2, 0.4, 0.6, 0.8], targets);
 * const b = new Ranking([0.7, 0.2, 0.5, 0.1, 0.8], targets);
 * const { difference } = bootstrap(["p1", "p1", "p2", "p3", null], (counts) => ({
 *   difference: a.auroc(counts) - b.auroc(counts),
 * }));
 * console.log(difference.estimate, difference.low, difference.high);
 * ```
 */
export function bootstrap<T>(
  patients: readonly (string | null)[],
  statistic: Statistic<T>,
  options: BootstrapOptions = {},
): Intervals<T> {
  const draws = Array.from(
    resamplesOf(patients, options),
    (counts) => numbersIn(statistic(counts)),
  );
  let place = 0;
  return mapNumbers(statistic(new Uint32Array(patients.length).fill(1)), (estimate): Interval => {
    const at = place++;
    return intervalOf(estimate, draws.map((draw) => draw[at]!), options);
  }) as Intervals<T>;
}

/**
 * The resamples of {@linkcode bootstrap}: as many patients as there are, drawn with replacement, as how often
 * each row occurs.
 */
export function* resamplesOf(
  patients: readonly (string | null)[],
  { resamples = 1000, seed = 0 }: BootstrapOptions = {},
): Generator<Uint32Array> {
  const groups = [...Map.groupBy(patients.keys(), (row) => patients[row] ?? row).values()];
  for (let index = 0; index < resamples; index++) {
    const random = new Random(seed, "bootstrap", index);
    const counts = new Uint32Array(patients.length);
    for (let i = 0; i < groups.length; i++) {
      for (const row of groups[random.integer(groups.length)]!) counts[row]!++;
    }
    yield counts;
  }
}

/** The percentile interval of a statistic from its values on resamples, of which NaN are left out. */
export function intervalOf(
  estimate: number,
  draws: Numbers,
  { level = 0.95 }: Pick<BootstrapOptions, "level"> = {},
): Interval {
  const values = Float64Array.from(draws).filter((value) => !Number.isNaN(value)).sort();
  return {
    estimate,
    low: quantile(values, (1 - level) / 2),
    high: quantile(values, (1 + level) / 2),
    undefinedResamples: draws.length - values.length,
  };
}

/** The numbers of a tree in the order in which {@linkcode mapNumbers} visits them. */
function numbersIn(tree: unknown): number[] {
  const numbers: number[] = [];
  mapNumbers(tree, (value) => numbers.push(value));
  return numbers;
}

/** A tree of objects and arrays with its numbers replaced. */
function mapNumbers(tree: unknown, replace: (value: number) => unknown): unknown {
  if (typeof tree === "number") return replace(tree);
  if (Array.isArray(tree)) return tree.map((branch) => mapNumbers(branch, replace));
  return Object.fromEntries(
    Object.entries(tree as object).map(([key, branch]) => [key, mapNumbers(branch, replace)]),
  );
}

/** The p-quantile of ascending values, interpolated linearly (Hyndman & Fan 1996, type 7). */
function quantile(values: Numbers, p: number): number {
  const position = p * (values.length - 1);
  const below = Math.floor(position);
  const lower = values[below] ?? NaN;
  const upper = values[below + 1] ?? lower;
  return lower + (upper - lower) * (position - below);
}

function mean(values: readonly number[]): number {
  return values.reduce((sum, value) => sum + value, 0) / values.length;
}

/** How often the row of a cell occurs. */
function occurrences(counts: Numbers | undefined, cells: Numbers): (cell: number) => number {
  if (counts === undefined) return () => 1;
  const labels = cells.length / counts.length;
  if (labels === 1) return (cell) => counts[cell]!;
  return (cell) => counts[Math.floor(cell / labels)]!;
}

function checkSize(a: string, x: Numbers, b: string, y: Numbers): void {
  if (x.length !== y.length) throw new RangeError(`${x.length} ${a}, ${y.length} ${b}`);
}

/**
 * Normalised mutual information of two labellings of the same things: I(a; b) over the mean of their
 * entropies, as scikit-learn's. 1 where one is the other renamed, about 0 where they know nothing of each
 * other; 1 also where both are constant.
 *
 * @throws {RangeError} for labellings of different lengths
 */
export function normalizedMutualInformation(
  a: ArrayLike<number>,
  b: ArrayLike<number>,
): number {
  const n = a.length;
  if (b.length !== n) {
    throw new RangeError(`normalizedMutualInformation: ${n} labels and ${b.length}`);
  }
  const entropy = (keys: Iterable<number | string>) => {
    const counts = new Map<number | string, number>();
    for (const key of keys) counts.set(key, (counts.get(key) ?? 0) + 1);
    let sum = 0;
    for (const count of counts.values()) sum -= count / n * Math.log(count / n);
    return sum;
  };
  const [ha, hb] = [entropy(Array.from(a)), entropy(Array.from(b))];
  if (ha + hb === 0) return 1;
  const joint = entropy(Array.from(a, (label, i) => `${label} ${b[i]}`));
  return Math.max(0, ha + hb - joint) / ((ha + hb) / 2);
}
