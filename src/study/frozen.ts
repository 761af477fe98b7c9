/** Frozen features of an encoder: kNN and logistic regression on them, and maps of them. */
import type * as Umap from "umap-js";
import { measureNormalization } from "../data/augment.ts";
import { ImageSet } from "../data/image_set.ts";
import { loadEncoder } from "../encoder.ts";
import type { Gpu } from "../gpu/gpu.ts";
import { knn, type LabelledEmbeddings } from "../knn.ts";
import { fitLinearProbe, L2_GRID, type LinearProbe, predictLinear } from "../linear_probe.ts";
import { bestThreshold, type Numbers, perLabel } from "../metrics.ts";
import { ModelState } from "../nn/model_state.ts";
import { ResNet, type ResNetOptions } from "../nn/resnet.ts";
import { whiten } from "../pca.ts";
import { adaptStatistics, encoderFeatures, type Features, pixelFeatures } from "../probe.ts";
import { Random } from "../random.ts";
import type { ScoreCell, Scored } from "./cell.ts";
import type { StudyTarget } from "./target.ts";

/** Where features come from: a file of weights, an untrained encoder, or the pixels themselves. */
export type FeatureSource =
  | { readonly file: string }
  | { readonly untrained: ResNetOptions }
  | "pixels";

/** Side that pixels are shrunk to before they are mapped, as no one needs a map of thousands of axes. */
const mappedSide = 16;

/** Features of the target's images, with those that are mapped. */
export interface StudyFeatures {
  readonly features: Features;
  /** Of the test images, [n, dimensions]. */
  readonly mapped: { readonly values: Float32Array; readonly dimensions: number };
}

/**
 * Computes the features of all labelled images of the target. Running statistics are those of the target's
 * training images, whatever the encoder.
 */
export async function studyFeatures(
  gpu: Gpu,
  source: FeatureSource,
  target: StudyTarget,
  { channels, seed }: { readonly channels: 1 | 3; readonly seed: number },
): Promise<StudyFeatures> {
  const loaded = source !== "pixels" && "file" in source
    ? await loadEncoder(gpu, source.file)
    : null;
  const decoded = await target.images(loaded?.encoder.options.channels ?? channels);
  const images = {
    train: new ImageSet(gpu, decoded.train),
    val: new ImageSet(gpu, decoded.val),
    test: new ImageSet(gpu, decoded.test),
  };
  const normalization = loaded?.format?.normalization ??
    measureNormalization(decoded.train.pixels, decoded.train.channels);
  if (source === "pixels") {
    const small = pixelFeatures(images, normalization, { size: mappedSide });
    return {
      features: pixelFeatures(images, normalization),
      mapped: { values: small.test, dimensions: small.dimensions },
    };
  }
  let encoder = loaded?.encoder;
  if (encoder === undefined) {
    encoder = new ResNet((source as { untrained: ResNetOptions }).untrained);
    new ModelState(gpu, encoder, { seed });
  }
  adaptStatistics(encoder, images.train, normalization, { seed });
  const features = await encoderFeatures("", encoder, images, normalization);
  return { features, mapped: { values: features.test, dimensions: features.dimensions } };
}

/** What a score cell says of a classifier on frozen features. */
export type FrozenScore = Pick<ScoreCell, "images" | "search" | "setting" | "best">;

/** Neighbours that vote. */
const neighbours = 20;

/** Scores kNN on features. */
export function scoreKnn(
  target: StudyTarget,
  { train, val, test, dimensions }: Features,
  rows: readonly number[],
): FrozenScore {
  const known = trainingRows(target, { train, dimensions }, rows);
  const predict = (values: Float32Array) => knn(known, { values, dimensions }, { k: neighbours });
  const best = score(target, predict(val), predict(test));
  return { images: rows.length, search: [], setting: neighbours, best };
}

/** Scores logistic regression on features, its penalty chosen by the macro AUROC of the validation images. */
export function scoreLinear(
  target: StudyTarget,
  { train, val, test, dimensions }: Features,
  rows: readonly number[],
): FrozenScore {
  const known = trainingRows(target, { train, dimensions }, rows);
  const tried: { probe: LinearProbe; scores: Float64Array; validation: number }[] = [];
  for (const l2 of L2_GRID) {
    const start = tried.at(-1)?.probe;
    const probe = fitLinearProbe(known, { l2, tolerance: 1e-4, ...(start && { start }) });
    const scores = predictLinear(probe, { values: val, dimensions });
    tried.push({ probe, scores, validation: target.validationAuroc(scores) });
  }
  const { probe, scores } = tried.reduce((a, b) => b.validation > a.validation ? b : a);
  return {
    images: rows.length,
    search: tried.map(({ probe, validation }) => ({ setting: probe.l2, validation })),
    setting: probe.l2,
    best: score(target, scores, predictLinear(probe, { values: test, dimensions })),
  };
}

function trainingRows(
  target: StudyTarget,
  { train, dimensions }: Pick<Features, "train" | "dimensions">,
  rows: readonly number[],
): LabelledEmbeddings {
  const classes = target.dataset.labels.length;
  const take = (matrix: Float32Array, width: number) => {
    const taken = new Float32Array(rows.length * width);
    rows.forEach((row, i) => taken.set(matrix.subarray(row * width, (row + 1) * width), i * width));
    return taken;
  };
  return {
    values: take(train, dimensions),
    dimensions,
    labels: take(target.labels("train"), classes),
    classes,
  };
}

function score(target: StudyTarget, validation: Numbers, test: Numbers): Scored {
  const classes = target.dataset.labels.length;
  return {
    probabilities: rounded(test),
    thresholds: rounded(perLabel(bestThreshold, validation, target.labels("val"), classes)),
    validation: target.validationAuroc(validation),
    epoch: null,
  };
}

/** Five significant digits, which no figure tells from more; 0 for a label that nothing is known of. */
export function rounded(values: Numbers, digits = 5): number[] {
  return Array.from(values, (value) => Number.isNaN(value) ? 0 : Number(value.toPrecision(digits)));
}

/** Held in a variable so that the package stays out of the module graph until it is needed. */
const UMAP_JS = "npm:umap-js@1.4.0";

/** Maps of features in the plane: whitened principal components, and UMAP by cosine. */
export async function featureMaps(
  { mapped: { values, dimensions } }: StudyFeatures,
  seed: number,
): Promise<{ pca: number[]; umap: number[] }> {
  const count = values.length / dimensions;
  const rows = Array.from(
    { length: count },
    (_, row) => Array.from(values.subarray(row * dimensions, (row + 1) * dimensions)),
  );
  const { values: components, dimensions: found } = whiten(values, dimensions, { dimensions: 2 });
  const pca = rows.flatMap((_, row) => [0, 1].map((j) => components[row * found + j] ?? 0));
  const { UMAP }: typeof Umap = await import(UMAP_JS);
  const random = new Random(seed, "umap");
  const umap = new UMAP({
    nComponents: 2,
    nNeighbors: Math.min(15, count - 1),
    distanceFn: cosineDistance,
    random: () => random.uniform(),
  });
  return { pca: rounded(pca, 4), umap: rounded(umap.fit(rows).flat(), 4) };
}

function cosineDistance(a: readonly number[], b: readonly number[]): number {
  let [dot, aa, bb] = [0, 0, 0];
  for (let i = 0; i < a.length; i++) {
    dot += a[i]! * b[i]!;
    aa += a[i]! ** 2;
    bb += b[i]! ** 2;
  }
  return aa === 0 || bb === 0 ? 1 : 1 - dot / Math.sqrt(aa * bb);
}
