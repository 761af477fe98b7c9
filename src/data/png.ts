/**
 * PNG files, through pngjs: every color type, bit depth and interlacing in; 8-bit gray or RGB out.
 */

import { Buffer } from "node:buffer";
import { PNG } from "npm:pngjs@7.0.0";
import { UserError } from "../errors.ts";
import { checkSize, fromRgba, type Picture } from "./picture.ts";

const SIGNATURE = [0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a];

/** Whether the bytes begin like a PNG. */
export function isPng(bytes: Uint8Array): boolean {
  return SIGNATURE.every((byte, i) => bytes[i] === byte);
}

/**
 * Decodes a PNG, gray where its color type is gray, else RGB. 16-bit samples map 0…65 535 to
 * 0…255, rounded; transparency is composited on black.
 *
 * @throws UserError saying why it cannot be read
 */
export function decodePng(bytes: Uint8Array): Picture {
  const file = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (file.length < 33) throw new UserError("the PNG is truncated");
  checkSize("PNG", file.readUInt32BE(16), file.readUInt32BE(20));
  let image: { width: number; height: number; color: boolean; data: Uint8Array };
  try {
    image = PNG.sync.read(file);
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    // pngjs's ways of saying that the bytes end before the image does.
    throw new UserError(
      /finished stream|Ran out of data|unexpected end/.test(reason)
        ? "the PNG is truncated"
        : `the PNG is damaged (${reason})`,
    );
  }
  return fromRgba(image.width, image.height, image.color ? 3 : 1, image.data);
}

/** Encodes a picture as an 8-bit gray or RGB PNG. */
export function encodePng(picture: Picture): Uint8Array<ArrayBuffer> {
  const { width, height, channels, pixels } = picture;
  const colorType = channels === 1 ? 0 : 2;
  return Uint8Array.from(PNG.sync.write(
    { width, height, data: Buffer.from(pixels.buffer, pixels.byteOffset, pixels.byteLength) },
    { colorType, inputColorType: colorType, inputHasAlpha: false, bitDepth: 8 },
  ));
}
