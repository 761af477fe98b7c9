/**
 * From the cells of a study to its figures. Every figure is a mean over seeds; its interval resamples the
 * patients of the test images, each resample averaging over the same seeds, so that it tells what other
 * patients would change and not what another training would: the spread over seeds is given beside it, point
 * by point. All figures come from the same resamples, so that differences are paired by patient and by seed.
 */
import { type Interval, intervalOf } from "../metrics.ts";
import type { Arm, Protocol, ScoreCell, Scored, Target } from "./cell.ts";
import { armsOf, type StudyConfig } from "./config.ts";
import type { Study } from "./read.ts";
import {
  bootstrapP,
  type Draws,
  holm,
  LabelScorer,
  meanDraws,
  type Metric,
  METRIC_NAMES,
  METRICS,
  samplesOf,
} from "./statistics.ts";

/** A figure with its interval over patients and its value with every seed. */
export interface Figure extends Interval {
  /** What each seed gives, in order. */
  readonly seeds: readonly { readonly seed: number; readonly value: number }[];
}

/** Which of the two classifiers of a fine-tuning: the epoch chosen on validation, or the last. */
export type Epoch = "best" | "last";

/** What an arm reaches with a protocol and a part of the labels. */
export interface Entry {
  readonly arm: Arm;
  readonly protocol: Protocol;
  readonly fraction: number;
  /** "best" for frozen features, which have one classifier only. */
  readonly epoch: Epoch;
  /** Labelled images trained on, the mean over seeds. */
  readonly images: number;
  readonly figures: Readonly<Record<Metric, Figure>>;
}

/** What an arm is compared with. */
export type Baseline = "scratch" | "untrained" | "pixels";

/** How a comparison comes out at a corrected p below {@linkcode ALPHA}. */
export type Verdict = "better" | "worse" | "not discernible";

/** An arm against a baseline, paired by patient and seed. */
export interface Comparison {
  readonly arm: Arm;
  readonly protocol: Protocol;
  readonly fraction: number;
  readonly epoch: Epoch;
  readonly metric: Metric;
  readonly baseline: Baseline;
  /** The arm that stands for the baseline: scratch of the same width. */
  readonly against: Arm;
  /** Arm − baseline. */
  readonly difference: Figure;
  /** Two-sided, by bootstrap. */
  readonly p: number;
  /** Holm's, within the comparisons of one protocol, fraction, epoch, metric and baseline. */
  readonly corrected: number;
  /** How many comparisons it was corrected for. */
  readonly family: number;
  readonly verdict: Verdict;
}

/** AUROC of every label in all test images, or in those of one source. */
export interface LabelFigures {
  readonly arm: Arm;
  readonly protocol: Protocol;
  readonly fraction: number;
  /** Null for all images. */
  readonly source: string | null;
  /** In the order of the target; estimates are NaN where the images hold only one class. */
  readonly labels: readonly Figure[];
  /** Mean over the labels that are not apart and have both classes. */
  readonly macro: Figure;
}

/** A predictor that sees no image. */
export type BlindFigures = Readonly<Record<Metric, Interval>>;

/** All figures of a study. */
export interface Results {
  readonly config: StudyConfig;
  readonly target: Target;
  /** The arms of the configuration in its order, then arms of cells that it does not name any more. */
  readonly arms: readonly Arm[];
  /** Fractions from the largest to the smallest. */
  readonly fractions: readonly number[];
  readonly entries: readonly Entry[];
  readonly comparisons: readonly Comparison[];
  /** With the largest fraction. */
  readonly labels: readonly LabelFigures[];
  /** What predicts the training prevalence always. */
  readonly constant: BlindFigures;
  /** What predicts the training prevalence of an image's source; null where that is unknown or there is one only. */
  readonly sourceOnly: BlindFigures | null;
  /** The sources of the test images, by number of images. */
  readonly sources: readonly { readonly name: string; readonly images: number }[];
  /** Test patients; an image without one counts as one. */
  readonly patients: number;
  readonly resamples: number;
}

/** From which corrected p on a difference is called discernible. */
export const ALPHA = 0.05;

/**
 * Computes the figures of a study; deterministic.
 *
 * @returns null before the first cell
 */
export function resultsOf(study: Study, { resamples = 2000 } = {}): Results | null {
  const { config, target, cells } = study;
  if (target === null) return null;
  const scores = cells.filter((cell) => cell.kind !== "pretrain");
  const planned = armsOf(config);
  const arms = [
    ...planned,
    ...new Map(
      cells.map(({ arm }) => arm)
        .filter(({ name }) => !planned.some((arm) => arm.name === name))
        .map((arm) => [arm.name, arm]),
    ).values(),
  ];
  const fractions = [
    ...new Set([
      ...config.fractions.map(({ fraction }) => fraction),
      ...scores.map(({ fraction }) => fraction),
    ]),
  ].sort((a, b) => b - a);
  const samples = samplesOf(target.test.patients, resamples);
  const targets = Float64Array.from(target.test.targets, (value) => value ?? NaN);
  const groups = groupsOf(arms, config.protocols, fractions, scores);

  const drawn = groups.flatMap((group) =>
    (["best", "last"] as const).flatMap((epoch) => {
      const cells = group.cells.flatMap((cell) => {
        const scored = cell[epoch];
        return scored === null
          ? []
          : [{ seed: cell.seed, scored, ...draw(scored, targets, target, samples) }];
      });
      return cells.length === 0 ? [] : [{ ...group, epoch, drawn: cells }];
    })
  );
  const largest = fractions[0];
  const sources = sourcesOf(target);
  return {
    config,
    target,
    arms,
    fractions,
    entries: drawn.map(({ arm, protocol, fraction, epoch, cells, drawn }) => ({
      ...{ arm, protocol, fraction, epoch },
      images: cells.reduce((sum, cell) => sum + cell.images, 0) / cells.length,
      figures: perMetric((metric) =>
        figureOf(drawn.map(({ seed, overall }) => ({ seed, draws: overall[metric] })))
      ),
    })),
    comparisons: compare(drawn),
    labels: drawn.filter(({ fraction, epoch }) => fraction === largest && epoch === "best")
      .flatMap((group) => labelFigures(group, target, targets, sources, samples)),
    constant: blind(
      target.test.ids.flatMap(() => target.prevalence),
      targets,
      target,
      samples,
    ),
    sourceOnly: sourceOnly(target, targets, samples),
    sources,
    patients: new Set(target.test.patients.map((patient, row) => patient ?? `row ${row}`)).size,
    resamples,
  };
}

/** The cells of an arm that differ by their seed alone. */
interface Group {
  readonly arm: Arm;
  readonly protocol: Protocol;
  readonly fraction: number;
  /** By seed. */
  readonly cells: readonly ScoreCell[];
}

function groupsOf(
  arms: readonly Arm[],
  protocols: readonly Protocol[],
  fractions: readonly number[],
  cells: readonly ScoreCell[],
): Group[] {
  const found = Map.groupBy(
    cells,
    ({ arm, kind, fraction }) => JSON.stringify([arm.name, kind, fraction]),
  );
  return protocols.flatMap((protocol) =>
    fractions.flatMap((fraction) =>
      arms.flatMap((arm) => {
        const cells = found.get(JSON.stringify([arm.name, protocol, fraction]));
        return cells === undefined
          ? []
          : [{ arm, protocol, fraction, cells: cells.toSorted((a, b) => a.seed - b.seed) }];
      })
    )
  );
}

function draw(
  { probabilities, thresholds }: Pick<Scored, "probabilities" | "thresholds">,
  targets: Float64Array,
  { labels, apart }: Target,
  samples: readonly Uint32Array[],
): AllDraws {
  const k = labels.length;
  const column = (matrix: ArrayLike<number>, label: number) =>
    Float64Array.from({ length: matrix.length / k }, (_, row) => matrix[row * k + label]!);
  const scorers = labels.map((_, label) =>
    new LabelScorer(column(probabilities, label), column(targets, label), thresholds[label]!)
  );
  const counted = scorers.filter((_, label) => !apart.includes(labels[label]!));
  const macro = (field: "auroc" | "ap" | "f1" | "brier" | "ece") => {
    let [sum, defined] = [0, 0];
    for (const scorer of counted) {
      if (Number.isNaN(scorer[field])) continue;
      sum += scorer[field];
      defined++;
    }
    return sum / defined;
  };
  const overall = perMetric(() => new Float64Array(samples.length));
  const each = labels.map(() => new Float64Array(samples.length));
  samples.forEach((counts, i) => {
    scorers.forEach((scorer, label) => {
      scorer.score(counts);
      each[label]![i] = scorer.auroc;
    });
    let [right, known] = [0, 0];
    for (const scorer of counted) {
      right += scorer.right;
      known += scorer.known;
    }
    overall.accuracy[i] = right / known;
    for (const metric of ["auroc", "ap", "f1", "brier", "ece"] as const) {
      overall[metric][i] = macro(metric);
    }
  });
  return { overall, labels: each };
}

function figureOf(cells: readonly { readonly seed: number; readonly draws: Draws }[]): Figure {
  const mean = meanDraws(cells.map(({ draws }) => draws));
  return {
    ...intervalOf(mean[0]!, mean.subarray(1)),
    seeds: cells.map(({ seed, draws }) => ({ seed, value: draws[0]! })),
  };
}

type Drawn = Group & {
  readonly epoch: Epoch;
  readonly drawn: readonly (AllDraws & { readonly seed: number; readonly scored: Scored })[];
};

/** Every metric of a classifier, and the AUROC of every label. */
interface AllDraws {
  readonly overall: Readonly<Record<Metric, Draws>>;
  readonly labels: readonly Draws[];
}

function compare(groups: readonly Drawn[]): Comparison[] {
  const tests = groups.filter(({ arm }) => arm.method !== "scratch" && arm.method !== "pixels")
    .flatMap((group) => {
      const alike = groups.filter(({ protocol, fraction, epoch }) =>
        protocol === group.protocol && fraction === group.fraction && epoch === group.epoch
      );
      const scratch = alike.find(({ arm }) =>
        arm.method === "scratch" && arm.width === group.arm.width
      );
      const pixels = alike.find(({ arm }) => arm.method === "pixels");
      const baselines: [Baseline, Drawn | undefined][] = group.protocol === "finetune"
        ? [["scratch", scratch]]
        : [["untrained", scratch], ["pixels", pixels]];
      return baselines.flatMap(([baseline, other]) =>
        other === undefined
          ? []
          : METRIC_NAMES.flatMap((metric) => difference(group, other, baseline, metric))
      );
    });
  const families = Map.groupBy(
    tests,
    ({ protocol, fraction, epoch, metric, baseline }) =>
      [protocol, fraction, epoch, metric, baseline].join(),
  );
  return [...families.values()].flatMap((family) => {
    const corrected = holm(family.map(({ p }) => p));
    const count = corrected.filter((p) => !Number.isNaN(p)).length;
    return family.map((test, i): Comparison => {
      const rises = test.difference.estimate > 0;
      const verdict = !(corrected[i]! < ALPHA)
        ? "not discernible"
        : rises === METRICS[test.metric].higher
        ? "better"
        : "worse";
      return { ...test, corrected: corrected[i]!, family: count, verdict };
    });
  });
}

/** The test of one metric; nothing where the two have no seed in common. */
function difference(
  { arm, protocol, fraction, epoch, drawn }: Drawn,
  other: Drawn,
  baseline: Baseline,
  metric: Metric,
): Omit<Comparison, "corrected" | "family" | "verdict">[] {
  const pairs = drawn.flatMap(({ seed, overall }) => {
    // Pixels have no weights to draw: computed once, they are the partner of every seed.
    const partner = baseline === "pixels" && other.drawn.length === 1
      ? other.drawn[0]
      : other.drawn.find((cell) => cell.seed === seed);
    if (partner === undefined) return [];
    return [{
      seed,
      draws: overall[metric].map((value, i) => value - partner.overall[metric][i]!),
    }];
  });
  if (pairs.length === 0) return [];
  return [{
    ...{ arm, protocol, fraction, epoch, metric, baseline, against: other.arm },
    difference: figureOf(pairs),
    p: bootstrapP(meanDraws(pairs.map(({ draws }) => draws)).subarray(1)),
  }];
}

function labelFigures(
  { arm, protocol, fraction, drawn }: Drawn,
  target: Target,
  targets: Float64Array,
  sources: Results["sources"],
  samples: readonly Uint32Array[],
): LabelFigures[] {
  const k = target.labels.length;
  return [null, ...sources.length > 1 ? sources.map(({ name }) => name) : []].map((source) => {
    const within = targets.map((value, i) =>
      target.test.sources[Math.floor(i / k)] === source ? value : NaN
    );
    const parts = source === null
      ? drawn
      : drawn.map(({ seed, scored }) => ({ seed, ...draw(scored, within, target, samples) }));
    return {
      ...{ arm, protocol, fraction, source },
      labels: target.labels.map((_, label) =>
        figureOf(parts.map(({ seed, labels }) => ({ seed, draws: labels[label]! })))
      ),
      macro: figureOf(parts.map(({ seed, overall }) => ({ seed, draws: overall.auroc }))),
    };
  });
}

/** A predictor that sees no image; it finds a label where that is more likely than not. */
function blind(
  probabilities: readonly number[],
  targets: Float64Array,
  target: Target,
  samples: readonly Uint32Array[],
): BlindFigures {
  const thresholds = target.labels.map(() => 0.5 + Number.EPSILON);
  const { overall } = draw({ probabilities, thresholds }, targets, target, samples);
  return perMetric((metric) => intervalOf(overall[metric][0]!, overall[metric].subarray(1)));
}

function sourceOnly(
  target: Target,
  targets: Float64Array,
  samples: readonly Uint32Array[],
): BlindFigures | null {
  const { prevalence, sourcePrevalence, test } = target;
  if (sourcePrevalence === undefined || new Set(test.sources).size < 2) return null;
  const probabilities = test.sources.flatMap((source) =>
    prevalence.map((share, label) => {
      const known = source !== null && Object.hasOwn(sourcePrevalence, source);
      return (known ? sourcePrevalence[source]![label] : null) ?? share;
    })
  );
  return blind(probabilities, targets, target, samples);
}

function sourcesOf({ test }: Target): Results["sources"] {
  const counts = new Map<string, number>();
  for (const source of test.sources) {
    if (source !== null) counts.set(source, (counts.get(source) ?? 0) + 1);
  }
  return [...counts].map(([name, images]) => ({ name, images }))
    .sort((a, b) => b.images - a.images || (a.name < b.name ? -1 : 1));
}

function perMetric<T>(value: (metric: Metric) => T): Record<Metric, T> {
  return Object.fromEntries(METRIC_NAMES.map((metric) => [metric, value(metric)])) as Record<
    Metric,
    T
  >;
}
