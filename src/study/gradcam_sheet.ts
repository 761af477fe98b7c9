/** Where a fine-tuned classifier looks. */
import { loadClassifier } from "../classifier.ts";
import { plainViews } from "../data/augment.ts";
import { contactSheet } from "../data/contact_sheet.ts";
import { evenlySpaced } from "../data/operations.ts";
import { repeatGray } from "../data/decode/picture.ts";
import { ImageSet } from "../data/image_set.ts";
import { gradCam, overlay } from "../gradcam.ts";
import type { Gpu } from "../gpu/gpu.ts";
import type { StudyTarget } from "./target.ts";

/** Test images on a sheet. */
const columns = 8;

/**
 * Test images that hold a label, the same for every classifier, and below each the Grad-CAM of its first
 * such label.
 *
 * @param file of the classifier
 * @returns a PNG
 */
export async function gradCamSheet(
  gpu: Gpu,
  file: string,
  target: StudyTarget,
): Promise<Uint8Array> {
  const { model, state, format } = await loadClassifier(gpu, file);
  const { channels } = model.encoder.options;
  const { test } = await target.images(channels);
  const left = new Set(target.apart.map(({ label }) => label));
  const held = target.parts.test.map((index) => {
    const { labels } = target.dataset.examples[index]!;
    return target.dataset.labels.findIndex((label, i) => labels[i] === 1 && !left.has(label));
  });
  const positive = [...held.keys()].filter((row) => held[row]! >= 0);
  const shown = evenlySpaced(positive.length, columns).map((i) => positive[i]!);

  const { size } = test;
  const stride = size * size * channels;
  const images = new ImageSet(gpu, test);
  const lines: Uint8Array[][] = [[], []];
  for (const row of shown) {
    const pixels = test.pixels.subarray(row * stride, (row + 1) * stride);
    const view = gpu.step(() => {
      const part = images.batch([row]);
      return plainViews(part.images, part.rows, format.normalization);
    });
    const heats = await gradCam(model, state, view);
    view.dispose();
    lines[0]!.push(channels === 1 ? repeatGray(pixels) : pixels);
    lines[1]!.push(
      overlay({ width: size, height: size, channels, pixels }, heats[held[row]!]!).pixels,
    );
  }
  images.dispose();
  const cells = lines.flat();
  const sheet = new Uint8Array(cells.length * size * size * 3);
  cells.forEach((cell, i) => sheet.set(cell, i * size * size * 3));
  return contactSheet({ count: cells.length, size, channels: 3, pixels: sheet }, {
    columns: Math.max(1, shown.length),
  });
}
