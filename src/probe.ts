/**
 * What an encoder's features are worth as they are: kNN and logistic regression from the labelled training
 * images to held-out ones, beside the baselines that any encoder must beat.
 */
import { noGrad } from "./autograd.ts";
import { type Normalization, plainViews } from "./data/augment.ts";
import { type Dataset, type Images, indicesOf, isLabelled, type Split } from "./data/dataset.ts";
import type { ImageSet } from "./data/image_set.ts";
import { resize } from "./data/decode/resize.ts";
import { embed } from "./encoder.ts";
import { UserError } from "./errors.ts";
import { knn, type LabelledEmbeddings } from "./knn.ts";
import { chooseLinearProbe, fitLinearProbe, predictLinear } from "./linear_probe.ts";
import {
  accuracy,
  atThresholds,
  bootstrap,
  columnOf,
  constantPredictions,
  type Interval,
  macroMean,
  type Numbers,
  Ranking,
} from "./metrics.ts";
import type { ResNet } from "./nn/resnet.ts";
import { Random } from "./random.ts";
import { type Negation, negations, withoutLabels } from "./scores.ts";

/** The parts of a probe's images, each with something of its own. */
export interface Parts<T> {
  /** To learn from. */
  readonly train: T;
  /** To choose settings on. */
  readonly val: T;
  /** To be scored on. */
  readonly test: T;
}

/** The labelled images of a data set that a probe learns from and is tested on. */
export interface ProbeData extends Parts<readonly number[]> {
  /** Whose images they are. */
  readonly dataset: Dataset;
  /** Labels that are left out of all figures, being the negations of others. */
  readonly apart: readonly Negation[];
}

/**
 * The images of a probe. `val` is empty where the data has no such split or it is the one that is scored.
 *
 * @throws {UserError} if there is nothing to learn from or to score
 */
export function probeData(dataset: Dataset, split: Split): ProbeData {
  const labelled = (from: Split) =>
    indicesOf(dataset, [from]).filter((i) => isLabelled(dataset.examples[i]!));
  const [train, test] = [labelled("train"), labelled(split)];
  const val = split === "val" ? [] : labelled("val");
  for (const [name, indices] of [["train", train], [split, test]] as const) {
    if (indices.length === 0) {
      throw new UserError(`${dataset.spec}: no labelled image in the ${name} split`);
    }
  }
  const apart = negations(dataset.labels, labelsOf(dataset, [...train, ...test]));
  return { dataset, train, val, test, apart };
}

/** Features of all images of a probe, [n, dimensions] for each part. */
export interface Features extends Parts<Float32Array> {
  /** What they are. */
  readonly name: string;
  /** Length of a feature vector. */
  readonly dimensions: number;
}

/** Macro AUROC and label-wise accuracy with 95 % intervals over patients. */
export interface ProbeScore {
  /** The name of the features. */
  readonly name: string;
  /** Mean AUROC of the labels that have both classes. */
  readonly auroc: Interval;
  /** The share of cells predicted right at 0.5. */
  readonly accuracy: Interval;
  /** AUROC above that of the features that were given first, paired by patient. */
  readonly gain: Interval;
}

/** Scores kNN on several kinds of features, the first being the baseline of the others. */
export function probeKnn(
  data: ProbeData,
  features: readonly Features[],
  { k = 20, resamples = 1000 } = {},
): ProbeScore[] {
  const predictions = features.map(({ dimensions, train, test }) =>
    knn(embeddings(data, train, dimensions), { values: test, dimensions }, { k })
  );
  return score(data, features, predictions, resamples);
}

/** {@linkcode ProbeScore} of a logistic regression. */
export interface LinearProbeScore extends ProbeScore {
  /** The penalty that was chosen. */
  readonly l2: number;
}

/**
 * Scores logistic regression on several kinds of features, the first being the baseline of the others. The
 * penalty of each is chosen on `val`; where that is empty on the images of every fifth training patient,
 * after which all of them train.
 *
 * @throws {UserError} if there is neither a `val` part nor a second training patient
 */
export function probeLinear(
  data: ProbeData,
  features: readonly Features[],
  { resamples = 1000 } = {},
): LinearProbeScore[] {
  const probes = features.map(({ dimensions, train, val }) => {
    const all = embeddings(data, train, dimensions);
    if (data.val.length > 0) {
      const labels = labelsOf(data.dataset, data.val);
      return chooseLinearProbe(all, { ...all, values: val, labels });
    }
    const { fit, heldOut } = holdOut(data);
    const { l2 } = chooseLinearProbe(rowsOf(all, fit), rowsOf(all, heldOut));
    return fitLinearProbe(all, { l2 });
  });
  const predictions = features.map(({ dimensions, test }, i) =>
    predictLinear(probes[i]!, { values: test, dimensions })
  );
  return score(data, features, predictions, resamples).map((scores, i) => ({
    ...scores,
    l2: probes[i]!.l2,
  }));
}

function embeddings(
  { dataset, train }: ProbeData,
  values: Float32Array,
  dimensions: number,
): LabelledEmbeddings {
  return { values, dimensions, labels: labelsOf(dataset, train), classes: dataset.labels.length };
}

/** Rows of the training part without and with every fifth patient. */
function holdOut({ dataset, train }: ProbeData): { fit: number[]; heldOut: number[] } {
  const rows = train.keys();
  const patients = [
    ...Map.groupBy(rows, (row) => dataset.examples[train[row]!]!.patient ?? row).values(),
  ];
  if (patients.length < 2) {
    throw new UserError(
      `${dataset.spec}: a linear probe needs a val split or training images of two patients`,
    );
  }
  return {
    fit: patients.filter((_, i) => i % 5 !== 0).flat(),
    heldOut: patients.filter((_, i) => i % 5 === 0).flat(),
  };
}

function rowsOf(
  { values, dimensions, labels, classes }: LabelledEmbeddings,
  rows: readonly number[],
): LabelledEmbeddings {
  const take = (matrix: Float32Array, width: number) => {
    const taken = new Float32Array(rows.length * width);
    rows.forEach((row, i) => taken.set(matrix.subarray(row * width, (row + 1) * width), i * width));
    return taken;
  };
  return { values: take(values, dimensions), dimensions, labels: take(labels, classes), classes };
}

function score(
  data: ProbeData,
  features: readonly Features[],
  predictions: readonly Numbers[],
  resamples: number,
): ProbeScore[] {
  const k = data.dataset.labels.length;
  const { targets, patients } = truth(data);
  const half = new Float32Array(k).fill(0.5);
  const probes = predictions.map((probabilities) => ({
    rankings: data.dataset.labels.map((_, label) =>
      new Ranking(columnOf(probabilities, k, label), columnOf(targets, k, label))
    ),
    predicted: atThresholds(probabilities, half),
  }));
  const intervals = bootstrap(patients, (counts) => {
    const aurocs = probes.map(({ rankings }) =>
      macroMean(rankings.map((ranking) => ranking.auroc(counts))).mean
    );
    return probes.map(({ predicted }, i) => ({
      auroc: aurocs[i]!,
      accuracy: accuracy(predicted, targets, counts),
      gain: aurocs[i]! - aurocs[0]!,
    }));
  }, { resamples });
  return features.map(({ name }, i) => ({ name, ...intervals[i]! }));
}

/** The label-wise accuracy of predicting each label's more frequent value, which has AUROC 0.5. */
export function constantAccuracy(data: ProbeData, resamples = 1000): Interval {
  const { dataset, train, test } = data;
  const { targets, patients } = truth(data);
  const predictions = constantPredictions(
    labelsOf(dataset, train),
    dataset.labels.length,
    test.length,
  );
  return bootstrap(patients, (counts) => accuracy(predictions, targets, counts), { resamples });
}

/** What is scored: the targets that count, and whose they are. */
function truth({ dataset, test, apart }: ProbeData) {
  const left = new Set(apart.map(({ label }) => label));
  return {
    targets: withoutLabels(labelsOf(dataset, test), dataset.labels, left),
    patients: test.map((index) => dataset.examples[index]!.patient),
  };
}

/**
 * Normalised pixels as features.
 *
 * @param size the side that the images are shrunk to if they are larger
 */
export function pixelFeatures(
  images: Parts<ImageSet>,
  { mean, std }: Normalization,
  { size = Infinity }: { readonly size?: number } = {},
): Features {
  const { size: full, channels } = images.train.images;
  const side = Math.min(size, full);
  const normalise = ({ images }: ImageSet) =>
    Float32Array.from(
      shrink(images, side),
      (v, i) => (v / 255 - mean[i % channels]!) / std[i % channels]!,
    );
  return {
    name: side === full ? "raw pixels" : `raw pixels, ${side}²`,
    dimensions: side * side * channels,
    train: normalise(images.train),
    val: normalise(images.val),
    test: normalise(images.test),
  };
}

function shrink({ count, size, channels, pixels }: Images, side: number): Uint8Array {
  if (side === size) return pixels;
  const [from, to] = [size * size * channels, side * side * channels];
  const small = new Uint8Array(count * to);
  for (let i = 0; i < count; i++) {
    const picture = {
      width: size,
      height: size,
      channels,
      pixels: pixels.subarray(i * from, (i + 1) * from),
    };
    small.set(resize(picture, side, side).pixels, i * to);
  }
  return small;
}

/** The features of an encoder. */
export async function encoderFeatures(
  name: string,
  encoder: ResNet,
  images: Parts<ImageSet>,
  normalization: Normalization,
): Promise<Features> {
  const all = (set: ImageSet) =>
    embed(encoder, set, Array.from({ length: set.images.count }, (_, i) => i), { normalization });
  return {
    name,
    dimensions: encoder.features,
    train: await all(images.train),
    val: await all(images.val),
    test: await all(images.test),
  };
}

/**
 * Fits an encoder's running statistics to images, without training it: 100 random batches in
 * training mode. An untrained encoder is judged fairly only so.
 */
export function adaptStatistics(
  encoder: ResNet,
  images: ImageSet,
  normalization: Normalization,
  { batch = 64, batches = 100, seed = 0 } = {},
): void {
  encoder.train(true);
  for (let i = 0; i < batches; i++) {
    const random = new Random(seed, "adapt", i);
    const rows = Array.from({ length: batch }, () => random.integer(images.images.count));
    images.gpu.step(() => {
      const part = images.batch(rows);
      noGrad(() => encoder.forward(plainViews(part.images, part.rows, normalization)));
    });
  }
  encoder.train(false);
}

/** The labels of examples, [n, labels] row-major. */
export function labelsOf(dataset: Dataset, indices: readonly number[]): Float32Array {
  const labels = new Float32Array(indices.length * dataset.labels.length);
  indices.forEach((index, row) => {
    labels.set(dataset.examples[index]!.labels, row * dataset.labels.length);
  });
  return labels;
}
