/**
 * What an encoder's features are worth without any training on top: kNN from the labelled training
 * images to held-out ones, beside the baselines that any encoder must beat.
 */
import { noGrad } from "./autograd.ts";
import { type Normalization, plainViews } from "./data/augment.ts";
import { type Dataset, indicesOf, isLabelled, type Split } from "./data/dataset.ts";
import type { ImageSet } from "./data/image_set.ts";
import { embed } from "./encoder.ts";
import { UserError } from "./errors.ts";
import { knn } from "./knn.ts";
import {
  accuracy,
  atThresholds,
  auroc,
  bootstrap,
  constantPredictions,
  type Interval,
  macroMean,
  pairedBootstrap,
  perLabel,
  type Statistic,
  takeRows,
} from "./metrics.ts";
import type { ResNet } from "./nn/resnet.ts";
import { Random } from "./random.ts";

/** The labelled images of a data set that a probe learns from and is tested on. */
export interface ProbeData {
  readonly dataset: Dataset;
  /** Labelled training images. */
  readonly train: readonly number[];
  /** Labelled images of the split that is scored. */
  readonly test: readonly number[];
}

/**
 * The images of a probe.
 *
 * @throws {UserError} if there is nothing to learn from or to score
 */
export function probeData(dataset: Dataset, split: Split): ProbeData {
  const labelled = (from: Split) =>
    indicesOf(dataset, [from]).filter((i) => isLabelled(dataset.examples[i]!));
  const data = { dataset, train: labelled("train"), test: labelled(split) };
  for (const [name, indices] of [["train", data.train], [split, data.test]] as const) {
    if (indices.length === 0) {
      throw new UserError(`${dataset.spec}: no labelled image in the ${name} split`);
    }
  }
  return data;
}

/** Features by the rows of `train`, then of `test`. */
export interface Features {
  readonly name: string;
  readonly dimensions: number;
  readonly train: Float32Array;
  readonly test: Float32Array;
}

/** Macro AUROC and label-wise accuracy with 95 % intervals over patients. */
export interface ProbeScore {
  readonly name: string;
  readonly auroc: Interval;
  readonly accuracy: Interval;
  /** Gain over the features that were given first, paired by patient; null for those. */
  readonly gain: { readonly auroc: Interval; readonly accuracy: Interval } | null;
}

/** Scores kNN on several kinds of features, the first being the baseline of the others. */
export function probeKnn(
  data: ProbeData,
  features: readonly Features[],
  { k = 20, resamples = 1000 } = {},
): ProbeScore[] {
  const { dataset, train, test } = data;
  const classes = dataset.labels.length;
  const labels = labelsOf(dataset, train);
  const targets = labelsOf(dataset, test);
  const patients = test.map((index) => dataset.examples[index]!.patient);
  const half = new Float32Array(classes).fill(0.5);
  const statistics = features.map(({ dimensions, train, test }) => {
    const scores = knn(
      { values: train, dimensions, labels, classes },
      { values: test, dimensions },
      {
        k,
      },
    );
    const on =
      (metric: (scores: Float64Array, targets: Float64Array) => number): Statistic => (rows) =>
        metric(takeRows(scores, classes, rows), takeRows(targets, classes, rows));
    return {
      auroc: on((s, t) => macroMean(perLabel(auroc, s, t, classes)).mean),
      accuracy: on((s, t) => accuracy(atThresholds(s, half), t)),
    };
  });
  const baseline = statistics[0]!;
  return statistics.map((statistic, i) => {
    const { name } = features[i]!;
    const score = (metric: "auroc" | "accuracy") =>
      pairedBootstrap(patients, statistic[metric], baseline[metric], { resamples });
    const [a, b] = [score("auroc"), score("accuracy")];
    const gain = i === 0 ? null : { auroc: a.difference, accuracy: b.difference };
    return { name, auroc: a.a, accuracy: b.a, gain };
  });
}

/** The label-wise accuracy of predicting each label's more frequent value, which has AUROC 0.5. */
export function constantAccuracy({ dataset, train, test }: ProbeData, resamples = 1000): Interval {
  const classes = dataset.labels.length;
  const predictions = constantPredictions(labelsOf(dataset, train), classes, test.length);
  const targets = labelsOf(dataset, test);
  return bootstrap(
    test.map((index) => dataset.examples[index]!.patient),
    (rows) => accuracy(takeRows(predictions, classes, rows), takeRows(targets, classes, rows)),
    { resamples },
  );
}

/** Normalised pixels as features. */
export function pixelFeatures(
  train: ImageSet,
  test: ImageSet,
  { mean, std }: Normalization,
): Features {
  const { size, channels } = train.images;
  const normalise = ({ images }: ImageSet) =>
    Float32Array.from(
      images.pixels,
      (v, i) => (v / 255 - mean[i % channels]!) / std[i % channels]!,
    );
  return {
    name: "raw pixels",
    dimensions: size * size * channels,
    train: normalise(train),
    test: normalise(test),
  };
}

/** The features of an encoder. */
export async function encoderFeatures(
  name: string,
  encoder: ResNet,
  train: ImageSet,
  test: ImageSet,
  normalization: Normalization,
): Promise<Features> {
  const all = ({ images }: ImageSet) => Array.from({ length: images.count }, (_, i) => i);
  return {
    name,
    dimensions: encoder.features,
    train: await embed(encoder, train, all(train), { normalization }),
    test: await embed(encoder, test, all(test), { normalization }),
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
