/**
 * Image files to pixels: PNG (8 and 16 bit, gray, palette, alpha, interlaced), JPEG and DICOM.
 *
 * - 16-bit samples map 0…65 535 to 0…255. A 12-bit radiograph in a 16-bit PNG therefore comes out
 *   dark: stretch it when exporting, or keep it as DICOM, which says what is white.
 * - Transparency is composited on black, the background of a radiograph.
 * - Color becomes gray by Rec. 601 luma; gray stays exactly as it is.
 * - Rotation tags (EXIF) and color profiles are not applied, as in Pillow and torchvision.
 */

import { UserError } from "../../errors.ts";
import { infoOf, readBytes } from "../../files.ts";
import { decodeDicom, isDicom } from "./dicom.ts";
import { decodeJpeg, isJpeg } from "./jpeg.ts";
import { type Picture, repeatGray, toGray } from "./picture.ts";
import { decodePng, isPng } from "./png.ts";
import { fit } from "./resize.ts";

/**
 * Decodes a PNG, JPEG or DICOM file, told apart by its first bytes.
 *
 * @throws UserError that says why the bytes are no image; it does not know the name of the file
 */
export async function decodeImage(bytes: Uint8Array): Promise<Picture> {
  if (bytes.length === 0) throw new UserError("the file is empty");
  if (isPng(bytes)) return decodePng(bytes);
  if (isJpeg(bytes)) return await decodeJpeg(bytes);
  if (isDicom(bytes)) return await decodeDicom(bytes);
  const start = Array.from(bytes.subarray(0, 4), (byte) => byte.toString(16).padStart(2, "0"));
  throw new UserError(`neither PNG, JPEG nor DICOM (it begins with bytes ${start.join(" ")})`);
}

/**
 * Reads an image file to u8 [size, size, channels]: antialiased resize of the shorter side to
 * `size`, centre crop.
 *
 * @throws UserError with the path and the reason
 */
export async function loadImage(path: string, size: number, channels: 1 | 3): Promise<Uint8Array> {
  return await decodeFile(path, readImage(path), size, channels);
}

/** No image that is decoded needs more, and a longer file is not read into memory to find out. */
const MAX_FILE_BYTES = 2 ** 30;

/**
 * The bytes of an image file.
 *
 * @throws UserError naming the file if it cannot be read, is no plain file, or is larger than 1 GiB
 */
export function readImage(path: string): Uint8Array<ArrayBuffer> {
  const info = infoOf(path);
  if (info && !info.isFile() && !info.isDirectory()) {
    throw new UserError(`${path}: is a device or a pipe, expected a file`);
  }
  if (info && info.size > MAX_FILE_BYTES) {
    throw new UserError(`${path}: ${info.size} bytes; images of up to ${MAX_FILE_BYTES} are read`);
  }
  return readBytes(path);
}

/** {@linkcode loadImage} of a file whose bytes are there already; the path is for errors. */
export async function decodeFile(
  path: string,
  bytes: Uint8Array,
  size: number,
  channels: 1 | 3,
): Promise<Uint8Array> {
  try {
    return square(await decodeImage(bytes), size, channels);
  } catch (error) {
    if (error instanceof UserError) throw new UserError(`${path}: ${error.message}`);
    throw error;
  }
}

/**
 * A picture as u8 [size, size, channels]: gray or RGB, antialiased resize of the shorter side to
 * `size`, centre crop.
 */
export function square(picture: Picture, size: number, channels: 1 | 3): Uint8Array {
  if (channels === 1) return fit(toGray(picture), size);
  const pixels = fit(picture, size);
  return picture.channels === 3 ? pixels : repeatGray(pixels);
}
