/** How sure a study can be of its figures: resamples of patients, tests of differences, many tests at once. */
import { type Numbers, resamplesOf } from "../metrics.ts";

/** What a study reports of a classifier: means over labels, but for the accuracy, which is of all known labels. */
export const METRICS = {
  auroc: { title: "macro AUROC", higher: true },
  ap: { title: "macro average precision", higher: true },
  accuracy: { title: "label-wise accuracy", higher: true },
  f1: { title: "macro F1", higher: true },
  brier: { title: "Brier score", higher: false },
  ece: { title: "calibration error", higher: false },
} as const;

/** Name of a metric. */
export type Metric = keyof typeof METRICS;

/** The metrics in the order of the report. */
export const METRIC_NAMES = Object.keys(METRICS) as Metric[];

/** Bins of the calibration error, as in `expectedCalibrationError`. */
const BINS = 15;

/**
 * One label of one classifier, sorted once: a single pass of a resample then gives every figure. They equal
 * those of metrics.ts, which a study of some hundred classifiers, labels and thousands of resamples would
 * wait for too long.
 */
export class LabelScorer {
  /** Rows with a known target by falling probability. */
  readonly #rows: Uint32Array;
  readonly #isPositive: Uint8Array;
  /** Whether the next row has a lower probability. */
  readonly #isLast: Uint8Array;
  readonly #probabilities: Float64Array;
  readonly #bins: Uint8Array;
  /** Rows that reach the threshold. */
  readonly #found: number;
  readonly #surplus = new Float64Array(BINS);
  /** Of the last pass: [right, known]. */
  right = 0;
  known = 0;
  /** Of the last pass; NaN where a class is absent. */
  auroc = NaN;
  ap = NaN;
  /** Of the last pass; NaN without a known target. */
  f1 = NaN;
  brier = NaN;
  ece = NaN;

  /** Sorts; `targets` are 1, 0 or NaN. */
  constructor(probabilities: Numbers, targets: Numbers, threshold: number) {
    const rows = Uint32Array.from({ length: targets.length }, (_, row) => row)
      .filter((row) => !Number.isNaN(targets[row]))
      .sort((a, b) => probabilities[b]! - probabilities[a]!);
    this.#rows = rows;
    this.#isPositive = Uint8Array.from(rows, (row) => targets[row]!);
    this.#probabilities = Float64Array.from(rows, (row) => probabilities[row]!);
    this.#isLast = Uint8Array.from(
      rows,
      (row, i) => probabilities[row] === probabilities[rows[i + 1] ?? -1] ? 0 : 1,
    );
    this.#bins = Uint8Array.from(
      this.#probabilities,
      (probability) => Math.max(0, Math.ceil(probability * BINS) - 1),
    );
    this.#found = this.#probabilities.filter((probability) => probability >= threshold).length;
  }

  /** Scores a resample in which row i occurs counts[i] times. */
  score(counts: Uint32Array): void {
    const [rows, isPositive, isLast] = [this.#rows, this.#isPositive, this.#isLast];
    const [probabilities, bins, surplus] = [this.#probabilities, this.#bins, this.#surplus];
    surplus.fill(0);
    let [hits, alarms, wins, precision, above, passed, squares] = [0, 0, 0, 0, 0, 0, 0];
    let [foundHits, foundAlarms] = [0, 0];
    for (let i = 0; i < rows.length; i++) {
      const times = counts[rows[i]!]!;
      const error = probabilities[i]! - isPositive[i]!;
      if (isPositive[i] === 1) hits += times;
      else alarms += times;
      squares += times * error * error;
      surplus[bins[i]!]! += times * error;
      if (isLast[i] === 1) {
        wins += (alarms - passed) * (above + hits) / 2;
        if (hits > above) precision += (hits - above) * hits / (hits + alarms);
        above = hits;
        passed = alarms;
      }
      if (i + 1 === this.#found) [foundHits, foundAlarms] = [hits, alarms];
    }
    const defined = hits > 0 && alarms > 0;
    const known = this.known = hits + alarms;
    this.auroc = defined ? wins / (hits * alarms) : NaN;
    this.ap = defined ? precision / hits : NaN;
    this.right = foundHits + alarms - foundAlarms;
    this.f1 = known === 0
      ? NaN
      : foundHits === 0
      ? 0
      : 2 * foundHits / (hits + foundHits + foundAlarms);
    this.brier = squares / known;
    let distance = 0;
    for (let bin = 0; bin < BINS; bin++) distance += Math.abs(surplus[bin]!);
    this.ece = distance / known;
  }
}

/**
 * Values of statistics on the sample itself, at place 0, and on each of its resamples after it: what
 * intervals and tests are made of. A mean or difference of such arrays is paired by patient.
 */
export type Draws = Float64Array;

/** The sample itself and its resamples of patients. */
export function samplesOf(
  patients: readonly (number | null)[],
  resamples: number,
): readonly Uint32Array[] {
  const names = patients.map((patient) => patient === null ? null : String(patient));
  return [new Uint32Array(patients.length).fill(1), ...resamplesOf(names, { resamples })];
}

/** The elementwise mean of draws; of one it is that one. */
export function meanDraws(draws: readonly Draws[]): Draws {
  return Float64Array.from(
    draws[0]!,
    (_, i) => draws.reduce((sum, values) => sum + values[i]!, 0) / draws.length,
  );
}

/**
 * The two-sided p-value that belongs to a percentile interval of a difference: twice the smaller share of
 * resamples on either side of 0, those at 0 on both, the sample itself counted as one more on its own side
 * (Davison & Hinkley 1997, section 4.4; the one more keeps it above 0). NaN draws are left out.
 *
 * @param draws the differences on the resamples
 */
export function bootstrapP(draws: Numbers): number {
  let [low, high, known] = [0, 0, 0];
  for (let i = 0; i < draws.length; i++) {
    const draw = draws[i]!;
    if (Number.isNaN(draw)) continue;
    known++;
    if (draw <= 0) low++;
    if (draw >= 0) high++;
  }
  return known === 0 ? NaN : Math.min(1, 2 * (Math.min(low, high) + 1) / (known + 1));
}

/**
 * Holm's correction: adjusted p-values of which those below α may be called discernible with a probability
 * of at most α that any of them is not (Holm 1979). A NaN is no test: it stays and does not count.
 */
export function holm(pValues: readonly number[]): number[] {
  const order = [...pValues.keys()].filter((i) => !Number.isNaN(pValues[i]))
    .sort((a, b) => pValues[a]! - pValues[b]!);
  const adjusted = pValues.map(() => NaN);
  let most = 0;
  order.forEach((i, rank) => {
    most = Math.max(most, Math.min(1, (order.length - rank) * pValues[i]!));
    adjusted[i] = most;
  });
  return adjusted;
}
