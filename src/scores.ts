/**
 * All figures of a classifier on one split, each with its interval and beside what a predictor reaches
 * that never looks at an image; as data and as a table.
 */
import {
  accuracy,
  atThresholds,
  bootstrap,
  type BootstrapOptions,
  brierScore,
  columnOf,
  confusionMatrix,
  constantPredictions,
  expectedCalibrationError,
  f1,
  type Interval,
  macroMean,
  type Numbers,
  Ranking,
  subsetAccuracy,
  takeRows,
  topOneAccuracy,
} from "./metrics.ts";
import { tableLines } from "./table.ts";

/** What a classifier said of some images, and what is true of them. */
export interface Predictions {
  /** The names of the k labels. */
  readonly labels: readonly string[];
  /** Probabilities [n, k], row-major. */
  readonly scores: Numbers;
  /** 1, 0 or NaN where a label is missing, [n, k]. */
  readonly targets: Numbers;
  /** The patient of each image; a null is a patient of its own. */
  readonly patients: readonly (string | null)[];
  /** The collection that each image is from, null where it is unknown. */
  readonly sources?: readonly (string | null)[];
  /** Targets of the training images, [m, k], from which the constant predictor is made. */
  readonly trainTargets: Numbers;
}

/** {@linkcode Predictions} where any number of labels may hold. */
export interface MultiLabelPredictions extends Predictions {
  /** The probability from which on each label is predicted, chosen on the validation split. */
  readonly thresholds: Numbers;
  /** Labels to leave out of all means; by default those that {@linkcode negations} finds. */
  readonly apart?: readonly string[];
}

/** A figure of the model, and of the constant predictor on the same resamples. */
export interface Compared {
  /** The model. */
  readonly model: Interval;
  /** For each label what most of its training targets are. */
  readonly constant: Interval;
}

/** The figures of one label. */
export interface LabelScores {
  /** Its name. */
  readonly label: string;
  /** Images that it is known of. */
  readonly known: number;
  /** Images that have it. */
  readonly positives: number;
  /** The probability from which on it is predicted. */
  readonly threshold: number;
  /** Whether it is left out of all means. */
  readonly apart: boolean;
  /** Area under the ROC curve. */
  readonly auroc: Interval;
  /** Average precision. */
  readonly averagePrecision: Interval;
  /** The share of positives found while at most 5 % of the negatives raise an alarm. */
  readonly sensitivity: Interval;
  /** F1 at the threshold. */
  readonly f1: Compared;
  /** The share of images predicted right at the threshold. */
  readonly accuracy: Compared;
  /** Mean squared error of the probability. */
  readonly brier: Interval;
  /** Expected calibration error. */
  readonly ece: Interval;
}

/**
 * Figures over the labels that are not apart. A mean is of the labels for which the figure is defined: for
 * AUROC, average precision and sensitivity of those that have both classes.
 */
export interface OverallScores {
  /** Mean AUROC of the labels. */
  readonly auroc: Interval;
  /** Mean average precision of the labels. */
  readonly averagePrecision: Interval;
  /** Mean sensitivity at 95 % specificity of the labels. */
  readonly sensitivity: Interval;
  /** Mean F1 of the labels; 0 for one that is neither present nor predicted. */
  readonly f1Macro: Compared;
  /** F1 over all cells. */
  readonly f1Micro: Compared;
  /** The share of cells predicted right. */
  readonly labelAccuracy: Compared;
  /** The share of images with every known label predicted right. */
  readonly subsetAccuracy: Compared;
  /** Mean Brier score of the labels. */
  readonly brier: Interval;
  /** Mean calibration error of the labels. */
  readonly ece: Interval;
}

/** The figures of some images. */
export interface MultiLabelFigures {
  /** How many images. */
  readonly images: number;
  /** How many patients; an image without one counts as one. */
  readonly patients: number;
  /** The labels, in their order. */
  readonly labels: readonly LabelScores[];
  /** Labels of which a class is absent, so that they are not part of the means of AUROC, AP and sensitivity. */
  readonly absent: readonly string[];
  /** Over the labels. */
  readonly overall: OverallScores;
}

/** What {@linkcode scoreMultiLabel} finds. */
export interface MultiLabelScores extends MultiLabelFigures {
  /** Tells these from {@linkcode SingleLabelScores}. */
  readonly kind: "multi-label";
  /** Labels that are left out of all means, with the label that each is the negation of. */
  readonly apart: readonly Negation[];
  /** The same within each source, where there are several. */
  readonly sources: readonly (MultiLabelFigures & { readonly source: string })[];
}

/** A label that says nothing that another does not say. */
export interface Negation {
  /** The name of the label. */
  readonly label: string;
  /** The label whose negation it is; null where it was not looked for. */
  readonly of: string | null;
}

/**
 * The labels that are exactly the negation of another on every row: 1 where it is 0, 0 where it is 1
 * and missing where it is missing, both values occurring. In a mean such a pair would count one
 * question twice. Of a pair the one called "No Finding" is returned, or else the later.
 *
 * @param targets 1, 0 or NaN, [n, labels]
 */
export function negations(labels: readonly string[], targets: Numbers): Negation[] {
  const columns = labels.map((_, label) => columnOf(targets, labels.length, label));
  const isNegated = (a: Float64Array, b: Float64Array) =>
    a.includes(0) && a.includes(1) && a.every((value, row) => Object.is(1 - value, b[row]));
  const found: Negation[] = [];
  labels.forEach((second, j) => {
    labels.slice(0, j).forEach((first, i) => {
      if (found.some(({ label }) => label === first || label === second)) return;
      if (!isNegated(columns[i]!, columns[j]!)) return;
      found.push(isNoFinding(first) ? { label: first, of: second } : { label: second, of: first });
    });
  });
  return found;
}

/** Targets in which the labels called `apart` are missing everywhere, so that they count in no figure. */
export function withoutLabels(
  targets: Numbers,
  labels: readonly string[],
  apart: ReadonlySet<string>,
): Float64Array {
  return Float64Array.from(
    targets,
    (target, i) => apart.has(labels[i % labels.length]!) ? NaN : target,
  );
}

function isNoFinding(label: string): boolean {
  return label.toLowerCase().replace(/[^a-z]/g, "") === "nofinding";
}

/**
 * Scores a classifier of independent labels: per label, over all labels that are not apart, and within each
 * source, because a label scored within one source cannot be guessed from the source. Intervals are
 * bootstrapped over patients, all from the same resamples.
 *
 * @throws RangeError if sizes do not fit or a label in `apart` does not exist.
 */
export function scoreMultiLabel(
  predictions: MultiLabelPredictions,
  options: BootstrapOptions = {},
): MultiLabelScores {
  const { labels, targets, trainTargets, thresholds } = predictions;
  checkSizes("scoreMultiLabel", predictions);
  if (thresholds.length !== labels.length) {
    throw new RangeError(
      `scoreMultiLabel: ${thresholds.length} thresholds for ${labels.length} labels`,
    );
  }
  const unknown = predictions.apart?.find((label) => !labels.includes(label));
  if (unknown !== undefined) {
    throw new RangeError(`scoreMultiLabel: no label ${unknown} among ${labels.join(", ")}`);
  }
  const apart = predictions.apart?.map((label) => ({ label, of: null })) ??
    negations(labels, [...Array.from(trainTargets), ...Array.from(targets)]);
  const isApart = new Set(apart.map(({ label }) => label));
  return {
    kind: "multi-label",
    ...figuresOf(predictions, isApart, options),
    apart,
    sources: bySource(predictions).map(({ source, ...part }) => ({
      source,
      ...figuresOf({ ...part, thresholds }, isApart, options),
    })),
  };
}

function figuresOf(
  { labels, scores, targets, patients, trainTargets, thresholds }: MultiLabelPredictions,
  isApart: ReadonlySet<string>,
  options: BootstrapOptions,
): MultiLabelFigures {
  const k = labels.length;
  const predictions = atThresholds(scores, thresholds);
  const constant = constantPredictions(trainTargets, k, patients.length);
  const compare = (metric: (predictions: Numbers) => number) => ({
    model: metric(predictions),
    constant: metric(constant),
  });
  const columns = labels.map((name, label) => {
    const column = (matrix: Numbers) => columnOf(matrix, k, label);
    const [probabilities, truth] = [column(scores), column(targets)];
    const [predicted, always] = [column(predictions), column(constant)];
    const ranking = new Ranking(probabilities, truth);
    return {
      label: name,
      known: truth.filter((target) => !Number.isNaN(target)).length,
      positives: truth.filter((target) => target === 1).length,
      threshold: thresholds[label]!,
      apart: isApart.has(name),
      measure: (counts: Uint32Array) => ({
        auroc: ranking.auroc(counts),
        averagePrecision: ranking.averagePrecision(counts),
        sensitivity: ranking.sensitivityAtSpecificity(0.95, counts),
        f1: { model: f1(predicted, truth, counts), constant: f1(always, truth, counts) },
        accuracy: {
          model: accuracy(predicted, truth, counts),
          constant: accuracy(always, truth, counts),
        },
        brier: brierScore(probabilities, truth, counts),
        ece: expectedCalibrationError(probabilities, truth, counts),
      }),
    };
  });
  const counted = withoutLabels(targets, labels, isApart);
  const intervals = bootstrap(patients, (counts) => {
    const each = columns.map(({ measure }) => measure(counts));
    type Figures = typeof each[number];
    const inMeans = each.filter((_, label) => !columns[label]!.apart);
    const macro = (figure: (figures: Figures) => number) => macroMean(inMeans.map(figure)).mean;
    return {
      labels: each,
      overall: {
        auroc: macro(({ auroc }) => auroc),
        averagePrecision: macro(({ averagePrecision }) => averagePrecision),
        sensitivity: macro(({ sensitivity }) => sensitivity),
        f1Macro: {
          model: macro(({ f1 }) => f1.model),
          constant: macro(({ f1 }) => f1.constant),
        },
        f1Micro: compare((values) => f1(values, counted, counts)),
        labelAccuracy: compare((values) => accuracy(values, counted, counts)),
        subsetAccuracy: compare((values) => subsetAccuracy(values, counted, k, counts)),
        brier: macro(({ brier }) => brier),
        ece: macro(({ ece }) => ece),
      },
    };
  }, options);
  return {
    images: patients.length,
    patients: countPatients(patients),
    labels: columns.map(({ measure: _, ...facts }, i) => ({ ...facts, ...intervals.labels[i]! })),
    absent: columns.filter(({ known, positives, apart }) =>
      !apart && (positives === 0 || positives === known)
    ).map(({ label }) => label),
    overall: intervals.overall,
  };
}

/** The figures of some images with one label each. */
export interface SingleLabelFigures {
  /** How many images. */
  readonly images: number;
  /** How many patients; an image without one counts as one. */
  readonly patients: number;
  /** The share of labelled images whose most probable class is right; the constant one is the most frequent. */
  readonly topOne: Compared;
}

/** What {@linkcode scoreSingleLabel} finds. */
export interface SingleLabelScores extends SingleLabelFigures {
  /** Tells these from {@linkcode MultiLabelScores}. */
  readonly kind: "single-label";
  /** The names of the classes. */
  readonly labels: readonly string[];
  /** confusion[i][j]: how many images of class i were taken for class j. */
  readonly confusion: readonly (readonly number[])[];
  /** The same within each source, where there are several. */
  readonly sources: readonly (SingleLabelFigures & { readonly source: string })[];
}

/**
 * Scores a classifier of exclusive labels, of which each row has at most one that is 1; rows without one are
 * left out.
 *
 * @throws RangeError if sizes do not fit or a row has two labels.
 */
export function scoreSingleLabel(
  predictions: Predictions,
  options: BootstrapOptions = {},
): SingleLabelScores {
  checkSizes("scoreSingleLabel", predictions);
  const { labels, scores, targets, trainTargets } = predictions;
  const k = labels.length;
  const confusion = confusionMatrix(scores, targets, k);
  const frequencies = labels.map((_, label) =>
    columnOf(trainTargets, k, label).filter((target) => target === 1).length
  );
  const figures = ({ scores, targets, patients }: Predictions) => {
    const constant = patients.flatMap(() => frequencies);
    return {
      images: patients.length,
      patients: countPatients(patients),
      topOne: bootstrap(patients, (counts) => ({
        model: topOneAccuracy(scores, targets, k, counts),
        constant: topOneAccuracy(constant, targets, k, counts),
      }), options),
    };
  };
  return {
    kind: "single-label",
    ...figures(predictions),
    labels,
    confusion: labels.map((_, label) => [...confusion.subarray(label * k, (label + 1) * k)]),
    sources: bySource(predictions).map((part) => ({ source: part.source, ...figures(part) })),
  };
}

/** The rows of each source by its name, without those of an unknown one; none where there are not several. */
function bySource(predictions: Predictions): (Predictions & { readonly source: string })[] {
  const { labels, scores, targets, patients, sources, trainTargets } = predictions;
  if (sources === undefined) return [];
  const rowsOf = Map.groupBy(sources.keys(), (row) => sources[row]);
  const names = [...rowsOf.keys()].filter((source) => typeof source === "string").sort();
  if (names.length < 2) return [];
  return names.map((source) => {
    const rows = rowsOf.get(source)!;
    const take = (matrix: Numbers) => takeRows(matrix, labels.length, rows);
    return {
      source,
      labels,
      scores: take(scores),
      targets: take(targets),
      patients: rows.map((row) => patients[row]!),
      trainTargets,
    };
  });
}

function countPatients(patients: readonly (string | null)[]): number {
  return new Set(patients.map((patient, row) => patient ?? row)).size;
}

function checkSizes(
  name: string,
  { labels, scores, targets, patients, sources, trainTargets }: Predictions,
): void {
  const [n, k] = [patients.length, labels.length];
  const wrong = [
    scores.length !== n * k && `${scores.length} scores`,
    targets.length !== n * k && `${targets.length} targets`,
    sources !== undefined && sources.length !== n && `${sources.length} sources`,
    trainTargets.length % k !== 0 && `${trainTargets.length} trainTargets`,
  ].filter((text) => text !== false);
  if (wrong.length > 0) {
    throw new RangeError(`${name}: ${wrong.join(", ")} for ${n} patients and ${k} labels`);
  }
}

/** Says that a label is not part of any mean, and why. */
export function apartNote({ label, of }: Negation): string {
  return `${label} ${of === null ? "is apart" : `is the negation of ${of}`}: not part of any mean.`;
}

/** `0.912 [0.881, 0.939]`, or a dash where the figure is not defined. */
export function formatInterval({ estimate, low, high }: Interval): string {
  if (Number.isNaN(estimate)) return "–";
  return `${estimate.toFixed(3)} [${low.toFixed(3)}, ${high.toFixed(3)}]`;
}

/** The scores as text tables. */
export function formatScores(scores: MultiLabelScores | SingleLabelScores): string {
  const lines = scores.kind === "multi-label" ? multiLabelLines(scores) : singleLabelLines(scores);
  return [
    `${scores.images} images of ${scores.patients} patients; ` +
    "95 % intervals by resampling patients",
    "",
    ...lines,
  ].join("\n");
}

function multiLabelLines({ labels, overall, apart, absent, sources }: MultiLabelScores): string[] {
  const point = ({ estimate }: Interval) => Number.isNaN(estimate) ? "–" : estimate.toFixed(3);
  const inMeans = labels.filter((label) => !label.apart);
  const rows = <T>(of: (label: LabelScores) => T, mean: T) => [
    ...inMeans.map(of),
    mean,
    ...labels.filter((label) => label.apart).map(of),
  ];
  const ranked = (of: Pick<LabelScores, "auroc" | "averagePrecision" | "sensitivity">) =>
    [of.auroc, of.averagePrecision, of.sensitivity].map(formatInterval);
  const notes = [
    ...apart.map(apartNote),
    ...(absent.length === 0 ? [] : [
      `These means are of ${inMeans.length - absent.length} of ${inMeans.length} labels: ` +
      `a class is absent of ${absent.join(", ")}.`,
    ]),
  ];
  const title = "macro mean";
  return [
    ...tableLines([
      ["", "positive", "AUROC", "average precision", "sensitivity at 95 % spec."],
      ...rows(
        (label) => [label.label, `${label.positives}/${label.known}`, ...ranked(label)],
        [title, "", ...ranked(overall)],
      ),
    ]),
    ...notes,
    "",
    ...tableLines([
      ["", "threshold", "F1", "accuracy", "constant", "Brier", "ECE"],
      ...rows(
        ({ label, threshold, f1, accuracy, brier, ece }) => [
          label,
          threshold.toFixed(3),
          ...[f1.model, accuracy.model, accuracy.constant, brier, ece].map(point),
        ],
        [
          title,
          "",
          point(overall.f1Macro.model),
          "",
          "",
          ...[overall.brier, overall.ece].map(point),
        ],
      ),
    ]),
    "",
    ...comparisonLines([
      ["F1, macro", overall.f1Macro],
      ["F1, micro", overall.f1Micro],
      ["label-wise accuracy", overall.labelAccuracy],
      ["subset accuracy", overall.subsetAccuracy],
    ]),
    ...(sources.length === 0 ? [] : [
      "",
      ...tableLines([
        [
          "AUROC within one source",
          ...sources.map(({ source, images }) => `${source} (${images})`),
        ],
        ...labels.map(({ label }, i) => [
          label,
          ...sources.map((part) => formatInterval(part.labels[i]!.auroc)),
        ]),
        [title, ...sources.map((part) => formatInterval(part.overall.auroc))],
      ]),
    ]),
  ];
}

function singleLabelLines({ labels, topOne, confusion, sources }: SingleLabelScores): string[] {
  return [
    ...comparisonLines([
      ["top-1 accuracy", topOne],
      ...sources.map(({ source, images, topOne }) =>
        [`  within ${source} (${images})`, topOne] as const
      ),
    ]),
    "",
    ...tableLines([
      ["true \\ predicted", ...labels],
      ...confusion.map((row, label) => [labels[label]!, ...row.map(String)]),
    ]),
  ];
}

function comparisonLines(rows: readonly (readonly [string, Compared])[]): string[] {
  return tableLines([
    ["", "model", "constant predictor"],
    ...rows.map(([name, { model, constant }]) => [
      name,
      formatInterval(model),
      formatInterval(constant),
    ]),
  ]);
}
