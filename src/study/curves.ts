/** Curves of a classifier, means over its labels and seeds at fixed places so that arms can be compared. */
import { columnOf } from "../metrics.ts";
import type { ScoreCell, Target } from "./cell.ts";

/** Points of a curve from 0 to 1. */
export type Curve = readonly (readonly [x: number, y: number])[];

const STEPS = 50;
const PLACES = Array.from({ length: STEPS + 1 }, (_, i) => i / STEPS);

/** How predictions fall on either side of every threshold. */
interface Operating {
  readonly hits: number;
  readonly alarms: number;
}

/** Sensitivity by 1 − specificity: the best that a threshold reaches, averaged vertically (Fawcett 2006). */
export function rocCurve(cells: readonly ScoreCell[], target: Target): Curve {
  return averaged(cells, target, (points, positives, negatives) =>
    PLACES.map((place) =>
      Math.max(
        ...points.filter(({ alarms }) => alarms <= place * negatives + 1e-9)
          .map(({ hits }) => hits / positives),
      )
    ));
}

/** Precision by recall: that of the highest threshold which finds so much; at 0 that of the first find. */
export function precisionCurve(cells: readonly ScoreCell[], target: Target): Curve {
  return averaged(cells, target, (points, positives) =>
    PLACES.map((place) => {
      const { hits, alarms } = points.find(({ hits }) =>
        hits > 0 && hits >= place * positives - 1e-9
      )!;
      return hits / (hits + alarms);
    }));
}

/** A bin of a reliability diagram. */
export interface Bin {
  /** Mean probability. */
  readonly predicted: number;
  /** Share of positives. */
  readonly observed: number;
  /** Known cells, over all labels and seeds. */
  readonly count: number;
}

/** How often what is given a probability is true: in ten bins over all labels and seeds, empty ones left out. */
export function reliability(cells: readonly ScoreCell[], target: Target): Bin[] {
  const bins = Array.from({ length: 10 }, () => ({ predicted: 0, observed: 0, count: 0 }));
  for (const { probabilities, truth } of columns(cells, target)) {
    truth.forEach((value, row) => {
      if (Number.isNaN(value)) return;
      const bin = bins[Math.min(9, Math.floor(10 * probabilities[row]!))]!;
      bin.predicted += probabilities[row]!;
      bin.observed += value;
      bin.count++;
    });
  }
  return bins.filter(({ count }) => count > 0).map(({ predicted, observed, count }) => ({
    ...{ predicted: predicted / count, observed: observed / count, count },
  }));
}

function averaged(
  cells: readonly ScoreCell[],
  target: Target,
  values: (points: readonly Operating[], positives: number, negatives: number) => number[],
): Curve {
  const curves = columns(cells, target).flatMap(({ probabilities, truth }) => {
    const points = operating(probabilities, truth);
    const { hits, alarms } = points.at(-1)!;
    return hits > 0 && alarms > 0 ? [values(points, hits, alarms)] : [];
  });
  if (curves.length === 0) return [];
  return PLACES.map((
    place,
    i,
  ) => [place, curves.reduce((sum, curve) => sum + curve[i]!, 0) / curves.length]);
}

/** What each threshold accepts, from none to all; tied scores together. */
function operating(probabilities: Float64Array, truth: Float64Array): Operating[] {
  const rows = [...truth.keys()].filter((row) => !Number.isNaN(truth[row]))
    .sort((a, b) => probabilities[b]! - probabilities[a]!);
  const points = [{ hits: 0, alarms: 0 }];
  let [hits, alarms] = [0, 0];
  rows.forEach((row, i) => {
    if (truth[row] === 1) hits++;
    else alarms++;
    if (probabilities[row] !== probabilities[rows[i + 1] ?? -1]) points.push({ hits, alarms });
  });
  return points;
}

/** The labels that count, of every seed. */
function columns(cells: readonly ScoreCell[], { labels, apart, test }: Target) {
  const targets = Float64Array.from(test.targets, (value) => value ?? NaN);
  return cells.flatMap((cell) =>
    labels.flatMap((label, i) =>
      apart.includes(label) ? [] : [{
        probabilities: columnOf(cell.best.probabilities, labels.length, i),
        truth: columnOf(targets, labels.length, i),
      }]
    )
  );
}
