/** An encoder on its own: written and read as a file that torchvision understands, applied to images. */
import { noGrad } from "./autograd.ts";
import { type Normalization, plainViews } from "./data/augment.ts";
import type { ImageSet } from "./data/image_set.ts";
import { UserError } from "./errors.ts";
import { writeAtomically } from "./files.ts";
import { encodeSafetensors, type SafeTensor } from "./formats/safetensors.ts";
import { readWeights } from "./formats/weights.ts";
import { BindingLimitError, type Gpu } from "./gpu/gpu.ts";
import { isImageFormat } from "./image_format.ts";
import { foldStem } from "./nn/convert.ts";
import { ModelState } from "./nn/model_state.ts";
import { type Arch, ResNet, type ResNetOptions } from "./nn/resnet.ts";
import { Tensor } from "./tensor.ts";

/** How the images must be made that an encoder was trained on. */
export interface ImageFormat {
  /** Side in pixels. */
  readonly size: number;
  /** What pixels in [0, 1] are shifted and scaled by. */
  readonly normalization: Normalization;
}

/** An encoder in GPU memory. */
export interface LoadedEncoder {
  /** The network. */
  readonly encoder: ResNet;
  /** Its parameters. */
  readonly state: ModelState;
  /** Null for a file of weights that wgrad did not write. */
  readonly format: ImageFormat | null;
}

/**
 * The bytes of `encoder.safetensors`: torchvision's names and layouts, so that width 64 loads there with
 * only `fc.*` missing; the image format stands in the metadata.
 */
export function encodeEncoder(
  arrays: ReadonlyMap<string, SafeTensor>,
  format: ImageFormat,
): Uint8Array<ArrayBuffer> {
  return encodeSafetensors(arrays, { wgrad: JSON.stringify(format) });
}

/** Writes {@linkcode encodeEncoder} to a file. */
export function saveEncoder(
  path: string,
  arrays: ReadonlyMap<string, SafeTensor>,
  format: ImageFormat,
): void {
  writeAtomically(path, encodeEncoder(arrays, format));
}

/** What torchvision's weights, and most others for colour images, were trained on. */
export const imageNet: ImageFormat = {
  size: 224,
  normalization: { mean: [0.485, 0.456, 0.406], std: [0.229, 0.224, 0.225] },
};

/** The content of a file of encoder weights. */
export interface EncoderFile {
  /** By torchvision's names, without the classifier `fc`. */
  readonly arrays: Map<string, SafeTensor>;
  /**
   * What the file says of its images; {@linkcode imageNet} where it says nothing and the stem takes three
   * channels, null where it takes one.
   */
  readonly format: ImageFormat | null;
}

/**
 * Reads the encoder weights of wgrad, or of torchvision's ResNets as a safetensors or PyTorch file.
 *
 * @throws {UserError} naming the file, if it is none
 */
export function readEncoderFile(path: string): EncoderFile {
  const { tensors, metadata } = readWeights(path);
  for (const name of [...tensors.keys()]) if (name.startsWith("fc.")) tensors.delete(name);
  if (metadata.wgrad !== undefined) {
    return { arrays: tensors, format: parseFormat(metadata.wgrad, path) };
  }
  const isColour = tensors.get("conv1.weight")?.shape[1] === 3;
  return { arrays: tensors, format: isColour ? imageNet : null };
}

function parseFormat(json: string, path: string): ImageFormat {
  try {
    const format: unknown = JSON.parse(json);
    if (isImageFormat(format)) return format;
  } catch {
    // Said below.
  }
  throw new UserError(`${path}: the image format is not readable: ${json}`);
}

/**
 * The weights of a file for a run: themselves, or, where it is for one channel and they are for three, with
 * the stem folded from their normalisation to the run's ({@linkcode foldStem} says how exact that is).
 */
export function weightsFor(
  { arrays, format }: EncoderFile,
  { channels, normalization }: { channels: 1 | 3; normalization: Normalization },
): Map<string, SafeTensor> {
  const fold = channels === 1 && arrays.get("conv1.weight")?.shape[1] === 3 && format !== null;
  return fold ? foldStem(arrays, format.normalization, normalization) : arrays;
}

/**
 * The architecture that a file of weights is for, from its names and shapes.
 *
 * @throws {UserError} if it is no ResNet-18, 34 or 50
 */
export function architectureOf(
  arrays: ReadonlyMap<string, SafeTensor>,
  path: string,
): ResNetOptions {
  const stem = arrays.get("conv1.weight")?.shape;
  const names = [...arrays.keys()];
  const blocks = (layer: number) =>
    new Set(names.flatMap((name) => RegExp(`^layer${layer}\\.\\d+\\.`).exec(name) ?? [])).size;
  const depth = [1, 2, 3, 4].map(blocks).join();
  const arch: Arch | undefined = arrays.has("layer1.0.conv3.weight")
    ? (depth === "3,4,6,3" ? "resnet50" : undefined)
    : ({ "2,2,2,2": "resnet18", "3,4,6,3": "resnet34" } as const)[depth];
  const [width, channels, kernel] = stem ?? [];
  if (
    arch === undefined || width === undefined || (channels !== 1 && channels !== 3) ||
    (kernel !== 3 && kernel !== 7)
  ) {
    throw new UserError(
      `${path}: no ResNet-18, 34 or 50 (conv1.weight ${stem ? `[${stem}]` : "missing"}, ` +
        `blocks ${depth})`,
    );
  }
  return { arch, width, channels, stem: kernel === 7 ? "7x7" : "3x3" };
}

/** Reads an encoder file into GPU memory. */
export async function loadEncoder(gpu: Gpu, path: string): Promise<LoadedEncoder> {
  const { arrays, format } = readEncoderFile(path);
  const encoder = new ResNet(architectureOf(arrays, path));
  const state = new ModelState(gpu, encoder);
  await state.load(arrays, path);
  return { encoder, state, format };
}

/**
 * The features of images, in evaluation mode.
 *
 * @param rows which images of the set
 * @param options.batch how many at a time (default 256); fewer where the adapter's limits ask for it
 * @returns [rows, features], row-major
 */
export async function embed(
  encoder: ResNet,
  images: ImageSet,
  rows: readonly number[],
  { normalization, batch = 256 }: { normalization: Normalization; batch?: number },
): Promise<Float32Array> {
  const { gpu } = images;
  const { features: width } = encoder;
  const features = new Float32Array(rows.length * width);
  const training = encoder.training;
  encoder.train(false);
  // Batches are collected on the GPU, because each read waits.
  const most = Math.floor(Math.min(gpu.maxTensorBytes, 2 ** 26) / (4 * width));
  for (let first = 0; first < rows.length; first += most) {
    const part = rows.slice(first, first + most);
    const collected = gpu.unscoped(() => gpu.empty([part.length, width]));
    for (let start = 0; start < part.length;) {
      const some = part.slice(start, start + batch);
      try {
        gpu.step(() =>
          noGrad(() => {
            const { images: source, rows } = images.batch(some);
            const h = encoder.forward(plainViews(source, rows, normalization));
            gpu.copy(h, rowsOf(collected, start, some.length));
          })
        );
        start += some.length;
      } catch (error) {
        if (!(error instanceof BindingLimitError) || batch === 1) throw error;
        gpu.discard();
        batch = Math.max(1, Math.floor(batch * error.largestFirst / error.shape[0]!));
      }
    }
    features.set(await collected.data(), first * width);
    collected.dispose();
  }
  encoder.train(training);
  return features;
}

/** Some rows of a matrix, in place. */
function rowsOf(matrix: Tensor<"f32">, start: number, count: number): Tensor<"f32"> {
  const width = matrix.shape[1]!;
  const { gpu, storage, offset } = matrix;
  return new Tensor(gpu, storage, [count, width], "f32", offset + 4 * start * width);
}
