/** Decoded images where training reads them: on the GPU if they fit, else uploaded batch by batch. */
import type { Gpu } from "../gpu/gpu.ts";
import type { Tensor } from "../tensor.ts";
import type { Images } from "./dataset.ts";

/** Images of one size, drawn in batches. */
export class ImageSet {
  /** Where training runs. */
  readonly gpu: Gpu;
  /** The decoded pixels. */
  readonly images: Images;
  readonly #resident: Tensor<"u8"> | null;
  #uploadSeconds = 0;

  /** Uploads sets of up to `residentBytes`, if the GPU can bind them. */
  constructor(
    gpu: Gpu,
    images: Images,
    { residentBytes = 512 * 2 ** 20 }: { readonly residentBytes?: number } = {},
  ) {
    this.gpu = gpu;
    this.images = images;
    const fits = images.pixels.length <= Math.min(residentBytes, gpu.maxTensorBytes);
    this.#resident = fits
      ? this.#timed(() => gpu.unscoped(() => this.#upload(images.pixels)))
      : null;
  }

  /**
   * A u8 tensor [n, size, size, channels] with the wanted images, and where in it they are. Call it
   * first in a step: an upload submits what was recorded before.
   */
  batch(rows: readonly number[]): { images: Tensor<"u8">; rows: readonly number[] } {
    if (this.#resident !== null) return { images: this.#resident, rows };
    const { size, channels, pixels } = this.images;
    const bytes = size * size * channels;
    const images = this.#timed(() => {
      const part = new Uint8Array(rows.length * bytes);
      rows.forEach((row, i) =>
        part.set(pixels.subarray(row * bytes, (row + 1) * bytes), i * bytes)
      );
      return this.#upload(part);
    });
    return { images, rows: rows.map((_, i) => i) };
  }

  /** Seconds that whoever asked for images has waited for uploads: once, or in every batch. */
  get uploadSeconds(): number {
    return this.#uploadSeconds;
  }

  /** Gives the GPU memory back. */
  dispose(): void {
    this.#resident?.dispose();
  }

  #timed<T>(work: () => T): T {
    const started = performance.now();
    const result = work();
    this.#uploadSeconds += (performance.now() - started) / 1000;
    return result;
  }

  #upload(pixels: Uint8Array): Tensor<"u8"> {
    const { size, channels } = this.images;
    const count = pixels.length / (size * size * channels);
    return this.gpu.tensor(pixels, [count, size, size, channels]);
  }
}
