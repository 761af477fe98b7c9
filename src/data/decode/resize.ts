/**
 * Antialiased resizing. Shrinking averages over everything a new pixel covers (a triangle filter as
 * wide as the scale), so that fine structure fades instead of turning into patterns; enlarging is
 * plain bilinear interpolation. Weights, rounding and order are those of Pillow's
 * `Image.resize(…, BILINEAR)`, that torchvision uses on images too, so the bytes agree with theirs.
 */

import type { Picture } from "./picture.ts";

/** Weights are 22-bit fixed point, as in Pillow: 255 of them still fit a signed 32-bit sum. */
const BITS = 22;

/** For each output position the first input position, how many there are, and their weights. */
interface Taps {
  readonly first: Int32Array;
  readonly count: Int32Array;
  /** `width` weights for each output position. */
  readonly weights: Int32Array;
  readonly width: number;
}

/** Taps of outputs `from`, …, `from + length − 1` when `inputs` samples become `outputs`. */
function tapsOf(inputs: number, outputs: number, from: number, length: number): Taps {
  const scale = inputs / outputs;
  const support = Math.max(scale, 1);
  const width = Math.ceil(support) * 2 + 1;
  const first = new Int32Array(length);
  const count = new Int32Array(length);
  const weights = new Int32Array(length * width);
  const exact = new Float64Array(width);
  for (let i = 0; i < length; i++) {
    const center = (from + i + 0.5) * scale;
    const begin = Math.max(0, Math.trunc(center - support + 0.5));
    const end = Math.min(inputs, Math.trunc(center + support + 0.5));
    let sum = 0;
    for (let k = 0; k < end - begin; k++) {
      exact[k] = Math.max(0, 1 - Math.abs((begin + k - center + 0.5) / support));
      sum += exact[k]!;
    }
    for (let k = 0; k < end - begin; k++) {
      weights[i * width + k] = Math.trunc(0.5 + (exact[k]! / sum) * (1 << BITS));
    }
    first[i] = begin;
    count[i] = end - begin;
  }
  return { first, count, weights, width };
}

/** Resizes a picture to `width` × `height`. */
export function resize(picture: Picture, width: number, height: number): Picture {
  return resizeCrop(picture, width, height, 0, 0, width, height);
}

/**
 * Resizes the shorter side to `size` (the longer in proportion, rounded down) and cuts the middle
 * out: u8 [size, size, channels]. An odd pixel too many is cut at the right or bottom. A picture that
 * is as wanted gives its own pixels.
 */
export function fit(picture: Picture, size: number): Uint8Array {
  if (picture.width === size && picture.height === size) return picture.pixels;
  const shorter = Math.min(picture.width, picture.height);
  const width = Math.floor((size * picture.width) / shorter);
  const height = Math.floor((size * picture.height) / shorter);
  const left = (width - size) >> 1;
  const top = (height - size) >> 1;
  return resizeCrop(picture, width, height, left, top, size, size).pixels;
}

/** The window at (left, top) of the picture resized to `width` × `height`; the rest is not computed. */
function resizeCrop(
  picture: Picture,
  width: number,
  height: number,
  left: number,
  top: number,
  windowWidth: number,
  windowHeight: number,
): Picture {
  const { channels } = picture;
  const columns = tapsOf(picture.width, width, left, windowWidth);
  const rows = tapsOf(picture.height, height, top, windowHeight);

  // Across first, and only the input rows that the window needs.
  const firstRow = rows.first[0]!;
  const lastRow = rows.first[windowHeight - 1]! + rows.count[windowHeight - 1]!;
  const across = new Uint8Array((lastRow - firstRow) * windowWidth * channels);
  let out = 0;
  for (let y = firstRow; y < lastRow; y++) {
    for (let x = 0; x < windowWidth; x++) {
      const start = (y * picture.width + columns.first[x]!) * channels;
      for (let c = 0; c < channels; c++) {
        across[out++] = dot(picture.pixels, start + c, channels, columns, x);
      }
    }
  }

  const stride = windowWidth * channels;
  const pixels = new Uint8Array(windowHeight * stride);
  out = 0;
  for (let y = 0; y < windowHeight; y++) {
    const start = (rows.first[y]! - firstRow) * stride;
    for (let x = 0; x < stride; x++) pixels[out++] = dot(across, start + x, stride, rows, y);
  }
  return { width: windowWidth, height: windowHeight, channels, pixels };
}

/** The weighted mean for output `i` of the samples at `start`, `start + step`, …, rounded. */
function dot(samples: Uint8Array, start: number, step: number, taps: Taps, i: number): number {
  const { weights } = taps;
  const end = i * taps.width + taps.count[i]!;
  let sum = 1 << (BITS - 1);
  for (let k = i * taps.width, at = start; k < end; k++, at += step) {
    sum += samples[at]! * weights[k]!;
  }
  return Math.min(255, sum >> BITS);
}
