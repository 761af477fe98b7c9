/** Pictures in memory, and what decoders share. */

import { UserError } from "../../errors.ts";
import type { PixelSize } from "../dataset.ts";

/** An image in memory: u8 [height, width, channels]. */
export interface Picture extends PixelSize {
  /** 1 for gray, 3 for RGB. */
  readonly channels: 1 | 3;
  /** Row-major values. */
  readonly pixels: Uint8Array;
}

/** The largest accepted side, and count of pixels: more is a broken header, or nothing to train on. */
const MAX_SIDE = 16_384;
const MAX_PIXELS = 1 << 27;

/**
 * Refuses the size in a file's header before anything of that size is allocated.
 *
 * @throws UserError naming the size and the bounds
 */
export function checkSize(format: string, width: number, height: number): void {
  const sides = Math.min(width, height) >= 1 && Math.max(width, height) <= MAX_SIDE;
  if (sides && width * height <= MAX_PIXELS) return;
  throw new UserError(
    `the ${format} header says ${width} × ${height} pixels; ` +
      `from 1 to ${MAX_SIDE} a side and up to ${MAX_PIXELS} in all are read`,
  );
}

/** Composites RGBA pixels on black and keeps the first channel, for gray ones, or all three. */
export function fromRgba(
  width: number,
  height: number,
  channels: 1 | 3,
  rgba: ArrayLike<number>,
): Picture {
  const pixels = new Uint8Array(width * height * channels);
  for (let i = 0, out = 0; i < width * height; i++) {
    const alpha = rgba[4 * i + 3]!;
    for (let c = 0; c < channels; c++) {
      pixels[out++] = Math.round((rgba[4 * i + c]! * alpha) / 255);
    }
  }
  return { width, height, channels, pixels };
}

/**
 * Pixels of planes: all values of the first channel, then those of the next.
 *
 * @param order whether a plane holds one row after the other, or one column after the other
 */
export function fromPlanes(
  width: number,
  height: number,
  planes: Uint8Array,
  order: "rows" | "columns",
): Picture {
  const area = width * height;
  const pixels = new Uint8Array(3 * area);
  for (let y = 0, out = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      const at = order === "rows" ? y * width + x : x * height + y;
      pixels[out++] = planes[at]!;
      pixels[out++] = planes[at + area]!;
      pixels[out++] = planes[at + 2 * area]!;
    }
  }
  return { width, height, channels: 3, pixels };
}

/** Rec. 601 luma of a color picture, in Pillow's 16-bit fixed point. */
export function toGray(picture: Picture): Picture {
  if (picture.channels === 1) return picture;
  const { width, height, pixels: rgb } = picture;
  const pixels = new Uint8Array(width * height);
  for (let i = 0, j = 0; i < pixels.length; i++, j += 3) {
    pixels[i] = (rgb[j]! * 19595 + rgb[j + 1]! * 38470 + rgb[j + 2]! * 7471 + 0x8000) >> 16;
  }
  return { width, height, channels: 1, pixels };
}

/** Gray pixels as RGB. */
export function repeatGray(gray: Uint8Array): Uint8Array {
  const rgb = new Uint8Array(3 * gray.length);
  for (let i = 0; i < gray.length; i++) rgb.fill(gray[i]!, 3 * i, 3 * i + 3);
  return rgb;
}
