/** Checking what files of weights say of their images. */
import type { ImageFormat } from "./encoder.ts";

/** Larger images are not read. */
const maxSize = 16_384;

/** Whether a JSON value is a size and a normalisation that images can be made by. */
export function isImageFormat(value: unknown): value is ImageFormat {
  const { size, normalization } = (value ?? {}) as Partial<ImageFormat>;
  const { mean, std } = normalization ?? {};
  return isCount(size) && size <= maxSize && isNumbers(mean) && isNumbers(std) &&
    (mean.length === 1 || mean.length === 3) && mean.length === std.length &&
    std.every((scale) => scale > 0);
}

/** Whether a JSON value is a list of numbers. */
export function isNumbers(value: unknown): value is number[] {
  return Array.isArray(value) && value.every((number) => Number.isFinite(number));
}

function isCount(value: unknown): value is number {
  return Number.isInteger(value) && value as number >= 1;
}
