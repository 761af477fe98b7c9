/** Views of images as their definitions read, in float64 on the CPU, a pixel at a time. */

import type { ColourOperation, Normalization, View } from "../../src/data/augment.ts";
import type { Images } from "../../src/data/dataset.ts";

type Colour = number[];
/** [y][x] colours in [0, 1]. */
type Picture = Colour[][];

/** One view, [size, size, channels] row-major, normalised. */
export function naiveView(
  images: Images,
  view: View,
  normalization: Normalization,
): number[] {
  const { jitter, gamma, gray, sigma } = view;
  let picture = resample(images, view);
  for (const [operation, by] of jitter) picture = adjust(picture, operation, by);
  picture = map(picture, (colour) => colour.map((value) => value ** gamma));
  if (gray) picture = map(picture, (colour) => colour.map(() => luma(colour)));
  if (sigma > 0) picture = transpose(blurRows(transpose(blurRows(picture, sigma)), sigma));
  const { mean, std } = normalization;
  return picture.flat(2).map((value, i) => {
    const c = i % images.channels;
    return (value - mean[c]!) / std[c]!;
  });
}

function map(picture: Picture, fn: (colour: Colour) => Colour): Picture {
  return picture.map((row) => row.map(fn));
}

function transpose(picture: Picture): Picture {
  return picture.map((row, i) => row.map((_, j) => picture[j]![i]!));
}

function clamp(value: number, low: number, high: number): number {
  return Math.min(Math.max(value, low), high);
}

/** The cubic of Catmull and Rom by distance: Keys, "Cubic convolution interpolation" (1981), a = −1/2. */
function kernel(distance: number): number {
  const d = Math.abs(distance);
  if (d < 1) return 1.5 * d ** 3 - 2.5 * d ** 2 + 1;
  return d < 2 ? -0.5 * d ** 3 + 2.5 * d ** 2 - 4 * d + 2 : 0;
}

function resample({ size, channels, pixels }: Images, { image, transform }: View): Picture {
  const [xx, xy, x0, yx, yy, y0] = transform;
  const pixel = (row: number, column: number, c: number) => {
    const [y, x] = [clamp(row, 0, size - 1), clamp(column, 0, size - 1)];
    return pixels[((image * size + y) * size + x) * channels + c]! / 255;
  };
  const places = Array.from({ length: size }, (_, i) => i);
  return places.map((row) =>
    places.map((column) => {
      const x = xx * (column + 0.5) + xy * (row + 0.5) + x0 - 0.5;
      const y = yx * (column + 0.5) + yy * (row + 0.5) + y0 - 0.5;
      return Array.from({ length: channels }, (_, c) => {
        let sum = 0;
        for (let i = Math.floor(y) - 1; i <= Math.floor(y) + 2; i++) {
          for (let j = Math.floor(x) - 1; j <= Math.floor(x) + 2; j++) {
            sum += kernel(y - i) * kernel(x - j) * pixel(i, j, c);
          }
        }
        return clamp(sum, 0, 1);
      });
    })
  );
}

/** ITU-R BT.601. */
function luma(colour: Colour): number {
  const [r, g, b] = colour;
  return colour.length === 1 ? r! : 0.299 * r! + 0.587 * g! + 0.114 * b!;
}

function adjust(picture: Picture, operation: ColourOperation, by: number): Picture {
  const colours = picture.flat();
  const mean = colours.reduce((sum, colour) => sum + luma(colour), 0) / colours.length;
  const awayFrom = (from: number, colour: Colour) =>
    colour.map((value) => clamp(from + by * (value - from), 0, 1));
  switch (operation) {
    case "brightness":
      return map(picture, (colour) => awayFrom(0, colour));
    case "contrast":
      return map(picture, (colour) => awayFrom(mean, colour));
    case "saturation":
      return map(picture, (colour) => awayFrom(luma(colour), colour));
    case "hue":
      return map(picture, (colour) => colour.length === 1 ? colour : turnHue(colour, by));
  }
}

/** By the six sectors of HSV, the textbook's way. */
function turnHue(colour: Colour, by: number): Colour {
  const [r, g, b] = colour as [number, number, number];
  const [high, low] = [Math.max(r, g, b), Math.min(r, g, b)];
  const range = high - low;
  if (range === 0) return colour;
  const sixths = high === r
    ? (g - b) / range
    : high === g
    ? (b - r) / range + 2
    : (r - g) / range + 4;
  const turned = (((sixths / 6 + by) % 1) + 1) % 1 * 6;
  const sector = Math.floor(turned) % 6;
  const rising = low + range * (turned - Math.floor(turned));
  const falling = high + low - rising;
  return [
    [high, rising, low],
    [falling, high, low],
    [low, high, rising],
    [low, falling, high],
    [rising, low, high],
    [high, low, falling],
  ][sector]!;
}

/** A Gaussian over a tenth of the row, reflected at its ends without repeating them. */
function blurRows(picture: Picture, sigma: number): Picture {
  const last = picture.length - 1;
  const radius = Math.max(1, Math.floor(picture.length / 20));
  const taps = Array.from({ length: 2 * radius + 1 }, (_, i) => i - radius);
  const weights = taps.map((d) => Math.exp(-0.5 * (d / sigma) ** 2));
  const total = weights.reduce((sum, weight) => sum + weight);
  const reflect = (i: number) => i < 0 ? -i : i > last ? 2 * last - i : i;
  return picture.map((row) =>
    row.map((colour, x) =>
      colour.map((_, c) =>
        taps.reduce((sum, d, k) => sum + weights[k]! * row[reflect(x + d)]![c]!, 0) / total
      )
    )
  );
}
