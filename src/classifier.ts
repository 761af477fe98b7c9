/** A trained classifier as a file that needs nothing else, and what it says of images. */
import { noGrad } from "./autograd.ts";
import type { Normalization } from "./data/augment.ts";
import type { ImageSet } from "./data/image_set.ts";
import { architectureOf, embed, type ImageFormat } from "./encoder.ts";
import { UserError } from "./errors.ts";
import { readBytes } from "./files.ts";
import { decodeSafetensors, encodeSafetensors, type SafeTensor } from "./formats/safetensors.ts";
import type { Gpu } from "./gpu/gpu.ts";
import { isImageFormat, isNumbers } from "./image_format.ts";
import { Classifier } from "./methods/supervised.ts";
import { ModelState } from "./nn/model_state.ts";
import type { Negation } from "./scores.ts";

/** Whether labels are independent, or exclusive classes. */
export type LabelKind = "multi-label" | "single-label";

/** What a classifier's file says beside the weights. */
export interface ClassifierFormat extends ImageFormat {
  /** The names of the labels, in the order of the rows of `fc`. */
  readonly labels: readonly string[];
  /** How logits become probabilities. */
  readonly kind: LabelKind;
  /** The probability from which on each label is predicted, chosen on the validation images. */
  readonly thresholds: readonly number[];
  /** What never looking at an image predicts: for each label what most training images are. */
  readonly constant: readonly number[];
  /** Labels that are part of no mean, being negations of others. */
  readonly apart: readonly Negation[];
  /** Epochs of training behind it. */
  readonly epoch: number;
}

/** A classifier in GPU memory. */
export interface LoadedClassifier {
  /** The network, in evaluation mode. */
  readonly model: Classifier;
  /** Its parameters. */
  readonly state: ModelState;
  /** How to use it. */
  readonly format: ClassifierFormat;
}

const encoderPrefix = "encoder.";

/**
 * The bytes of `model.safetensors`: torchvision's names, `fc.weight` and `fc.bias` among them.
 *
 * @param arrays of a {@linkcode Classifier}
 */
export function encodeClassifier(
  arrays: ReadonlyMap<string, SafeTensor>,
  format: ClassifierFormat,
): Uint8Array<ArrayBuffer> {
  const named = [...arrays].map(([name, array]) =>
    [name.startsWith(encoderPrefix) ? name.slice(encoderPrefix.length) : name, array] as const
  );
  return encodeSafetensors(new Map(named), { wgrad: JSON.stringify(format) });
}

/** The content of a classifier's file. */
export interface ClassifierFile {
  /** By torchvision's names. */
  readonly arrays: Map<string, SafeTensor>;
  /** What the file says beside them. */
  readonly format: ClassifierFormat;
}

/**
 * Reads a classifier.
 *
 * @throws {UserError} naming the file, if it is none
 */
export function readClassifierFile(path: string): ClassifierFile {
  const { tensors, metadata } = decodeSafetensors(readBytes(path), path);
  return { arrays: tensors, format: parseFormat(metadata.wgrad, path) };
}

/**
 * Reads a classifier into GPU memory.
 *
 * @throws {UserError} naming the file, if it is none
 */
export async function loadClassifier(gpu: Gpu, path: string): Promise<LoadedClassifier> {
  const { arrays, format } = readClassifierFile(path);
  const head = (name: string) => name.startsWith("fc.");
  const encoder = new Map([...arrays].filter(([name]) => !head(name)));
  const model = new Classifier(architectureOf(encoder, path), format.labels.length);
  const state = new ModelState(gpu, model);
  const named = [...arrays].map(([name, array]) =>
    [head(name) ? name : encoderPrefix + name, array] as const
  );
  await state.load(new Map(named), path);
  model.train(false);
  return { model, state, format };
}

const isText = (value: unknown) => typeof value === "string";

function parseFormat(json: string | undefined, path: string): ClassifierFormat {
  try {
    const format = JSON.parse(json ?? "") as ClassifierFormat;
    const { labels, kind, apart } = format;
    const isPerLabel = (values: unknown) => isNumbers(values) && values.length === labels.length;
    if (
      isImageFormat(format) && labels.length > 0 && labels.every(isText) &&
      ["multi-label", "single-label"].includes(kind) && isPerLabel(format.thresholds) &&
      isPerLabel(format.constant) && apart.every(({ label }) => isText(label))
    ) return format;
  } catch {
    // Said below.
  }
  throw new UserError(`${path}: no classifier of wgrad (its metadata name no labels)`);
}

/**
 * The logits of images in evaluation mode, [rows, labels] row-major.
 *
 * @param rows which images of the set
 */
export async function classify(
  model: Classifier,
  images: ImageSet,
  rows: readonly number[],
  options: { readonly normalization: Normalization; readonly batch?: number },
): Promise<Float32Array> {
  return await applyHead(model, images.gpu, await embed(model.encoder, images, rows, options));
}

/** The logits of features [n, d], both row-major. */
export async function applyHead(
  { encoder, fc }: Classifier,
  gpu: Gpu,
  features: Float32Array,
): Promise<Float32Array> {
  const logits = gpu.step(() =>
    noGrad(() =>
      fc.forward(gpu.tensor(features, [features.length / encoder.features, encoder.features]))
    )
  );
  const values = await logits.data() as Float32Array;
  logits.dispose();
  return values;
}

/** Logits as probabilities: of each label by itself, or of the classes of a row. */
export function probabilities(
  logits: Float32Array,
  { labels, kind }: { readonly labels: readonly string[]; readonly kind: LabelKind },
): Float64Array {
  if (kind === "multi-label") return Float64Array.from(logits, (x) => 1 / (1 + Math.exp(-x)));
  const result = Float64Array.from(logits);
  for (let start = 0; start < result.length; start += labels.length) {
    const row = result.subarray(start, start + labels.length);
    const top = Math.max(...row);
    row.forEach((x, i) => row[i] = Math.exp(x - top));
    const sum = row.reduce((a, b) => a + b);
    row.forEach((x, i) => row[i] = x / sum);
  }
  return result;
}
