/** Many small images on one picture, to see at a glance what a data set or an augmentation holds. */

import type { Images } from "./dataset.ts";
import { encodePng } from "./decode/png.ts";

/** How to lay a sheet out. */
export interface SheetOptions {
  /** Images in a row; by default about as many as there are rows. */
  readonly columns?: number;
  /** Pixels between and around images. */
  readonly gap?: number;
  /** Gray level of the gaps. */
  readonly background?: number;
}

/** Lays images out in rows, in their order, and encodes the sheet as a PNG. */
export function contactSheet(
  { count, size, channels, pixels }: Images,
  { columns = Math.ceil(Math.sqrt(count)), gap = 2, background = 255 }: SheetOptions = {},
): Uint8Array<ArrayBuffer> {
  const cell = size + gap;
  const width = gap + columns * cell;
  const height = gap + Math.ceil(count / columns) * cell;
  const sheet = new Uint8Array(width * height * channels).fill(background);
  const row = size * channels;
  for (let i = 0; i < count; i++) {
    const left = gap + (i % columns) * cell;
    const top = gap + Math.floor(i / columns) * cell;
    for (let y = 0; y < size; y++) {
      const from = (i * size + y) * row;
      sheet.set(pixels.subarray(from, from + row), ((top + y) * width + left) * channels);
    }
  }
  return encodePng({ width, height, channels, pixels: sheet });
}
