/** An encoder on its own: written and read as a file that torchvision understands, applied to images. */
import { noGrad } from "./autograd.ts";
import { type Normalization, plainViews } from "./data/augment.ts";
import type { ImageSet } from "./data/image_set.ts";
import { UserError } from "./errors.ts";
import { readBytes, writeAtomically } from "./files.ts";
import { decodeSafetensors, encodeSafetensors, type SafeTensor } from "./formats/safetensors.ts";
import { BindingLimitError, type Gpu } from "./gpu/gpu.ts";
import { ModelState } from "./nn/model_state.ts";
import { type Arch, ResNet, type ResNetOptions } from "./nn/resnet.ts";

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

/** The arrays of a file of encoder weights, without `fc`, and what it says of its images. */
export function readEncoderFile(path: string): {
  arrays: Map<string, SafeTensor>;
  format: ImageFormat | null;
} {
  const { tensors, metadata } = decodeSafetensors(readBytes(path), path);
  for (const name of [...tensors.keys()]) if (name.startsWith("fc.")) tensors.delete(name);
  const format = metadata.wgrad === undefined ? null : JSON.parse(metadata.wgrad) as ImageFormat;
  return { arrays: tensors, format };
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
  const features = new Float32Array(rows.length * encoder.features);
  const training = encoder.training;
  encoder.train(false);
  for (let start = 0; start < rows.length;) {
    const some = rows.slice(start, start + batch);
    try {
      const h = gpu.step(() =>
        noGrad(() => {
          const part = images.batch(some);
          return encoder.forward(plainViews(part.images, part.rows, normalization));
        })
      );
      features.set(await h.data() as Float32Array, start * encoder.features);
      h.dispose();
      start += some.length;
    } catch (error) {
      if (!(error instanceof BindingLimitError) || batch === 1) throw error;
      gpu.discard();
      batch = Math.max(1, Math.floor(batch * error.largestFirst / error.shape[0]!));
    }
  }
  encoder.train(training);
  return features;
}
