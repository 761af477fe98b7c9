/** How large images are as they are stored, without decoding them where their header tells. */

import { Buffer } from "node:buffer";
import { UserError } from "../../errors.ts";
import { fileSize, readRange } from "../../files.ts";
import type { PixelSize } from "../dataset.ts";
import { decodeImage, readImage } from "./decode.ts";
import { dicomSize, isDicom } from "./dicom.ts";
import { isJpeg, readJpegHeader } from "./jpeg.ts";
import { isPng } from "./png.ts";

/** The bytes in which nearly every header of a PNG or JPEG ends; before it may come a large thumbnail. */
const HEAD = 1 << 16;

/**
 * The size of an image file.
 *
 * @throws UserError with the path and the reason
 */
export async function pixelSizeOf(path: string): Promise<PixelSize> {
  const length = fileSize(path);
  const told = sizeInHeader(await readRange(path, 0, Math.min(length, HEAD)));
  if (told !== null) return told;
  const bytes = readImage(path);
  try {
    if (isDicom(bytes)) return await dicomSize(bytes);
    return sizeInHeader(bytes) ?? await decodeImage(bytes);
  } catch (error) {
    if (error instanceof UserError) throw new UserError(`${path}: ${error.message}`);
    throw error;
  }
}

/** The size, where these first bytes of a file tell it. */
function sizeInHeader(head: Uint8Array<ArrayBuffer>): PixelSize | null {
  // IHDR is the first chunk: 8 bytes of signature, 8 of length and type, width, height.
  if (isPng(head) && head.length >= 24) {
    const view = new DataView(head.buffer, head.byteOffset);
    return { width: view.getUint32(16), height: view.getUint32(20) };
  }
  if (!isJpeg(head)) return null;
  try {
    return readJpegHeader(Buffer.from(head.buffer, head.byteOffset, head.byteLength));
  } catch (error) {
    if (error instanceof UserError) return null;
    throw error;
  }
}
