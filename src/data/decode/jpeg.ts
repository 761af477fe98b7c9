/**
 * JPEG files, through MozJPEG in WebAssembly (npm:@jsquash/jpeg), loaded when the first one comes.
 * It reads its .wasm file from Deno's npm cache, so `--allow-read` must cover that folder too.
 */

import { Buffer } from "node:buffer";
import { UserError } from "../../errors.ts";
import { checkSize, fromRgba, type Picture } from "./picture.ts";

/** Held in a variable so that the package stays out of the module graph until it is needed. */
const PACKAGE = "npm:@jsquash/jpeg@1.6.0/decode.js";

interface Decoder {
  init(options: { printErr(line: string): void }): Promise<void>;
  default(bytes: ArrayBuffer): Promise<ImageData>;
}

/**
 * The Huffman codes of a JPEG take at least a bit for every 8 × 8 pixels, or 16 × 8 where no component
 * is sampled fully both ways: a header that says more is wrong.
 */
const MAX_PIXELS_PER_BYTE = 1024;

let decoder: Promise<Decoder> | null = null;
/** The last decoding: one at a time, so that none is in a decoder that another has broken. */
let turn: Promise<unknown> = Promise.resolve();
/** What MozJPEG complained of last: its exceptions carry no text. */
let complaint = "";

async function loadDecoder(): Promise<Decoder> {
  try {
    const module: Decoder = await import(PACKAGE);
    await module.init({ printErr: (line) => complaint = line });
    return module;
  } catch (error) {
    const reason = error instanceof Error ? error.message : error;
    throw new UserError(`the JPEG decoder (${PACKAGE}) does not load: ${reason}`);
  }
}

/** Whether the bytes begin like a JPEG. */
export function isJpeg(bytes: Uint8Array): boolean {
  return bytes[0] === 0xff && bytes[1] === 0xd8 && bytes[2] === 0xff;
}

/**
 * Decodes a JPEG, baseline or progressive, gray where it has one component, else RGB.
 *
 * @throws UserError saying why it cannot be read; CMYK is refused
 */
export async function decodeJpeg(bytes: Uint8Array): Promise<Picture> {
  const file = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const { width, height, components, scan } = readJpegHeader(file);
  checkSize("JPEG", width, height);
  if (components === 4) throw new UserError("a CMYK JPEG; save it as gray or RGB");
  // MozJPEG fills what is missing with gray. Scan data cannot hold the end marker by chance.
  const isWhole = file.indexOf("\xff\xd9", scan, "latin1") >= 0;
  if (!isWhole || width * height > MAX_PIXELS_PER_BYTE * file.length) {
    throw new UserError("the JPEG is truncated");
  }

  const image = turn.then(() => decode(bytes));
  turn = image.catch(() => {});
  const { width: columns, height: rows, data } = await image;
  return fromRgba(columns, rows, components === 1 ? 1 : 3, data);
}

async function decode(bytes: Uint8Array): Promise<ImageData> {
  const module = await (decoder ??= loadDecoder());
  try {
    return await module.default(Uint8Array.from(bytes).buffer);
  } catch (error) {
    // MozJPEG leaves its memory as it was when it gave up, and may run in circles there later.
    decoder = null;
    // Bad data makes it exit, which is no Error; not to find its .wasm file is one.
    const reason = error instanceof Error ? error.message : complaint;
    throw new UserError(`the JPEG cannot be decoded (${reason})`);
  }
}

/**
 * Walks the segments up to the first scan (ITU-T T.81, B.1): size, components, offset of the scan.
 *
 * @throws UserError if the bytes end before, or are none of a JPEG
 */
export function readJpegHeader(file: Buffer) {
  let frame: { width: number; height: number; components: number } | null = null;
  let at = 2;
  while (at + 10 <= file.length) {
    if (file[at] !== 0xff) throw new UserError(`the JPEG is damaged (no marker at byte ${at})`);
    const marker = file[at + 1]!;
    if (marker === 0xff) { // padding
      at++;
      continue;
    }
    // Frame headers are SOF0…SOF15 but for DHT, JPG and DAC, which lie in the same range.
    if (marker >= 0xc0 && marker <= 0xcf && ![0xc4, 0xc8, 0xcc].includes(marker)) {
      const height = file.readUInt16BE(at + 5);
      frame = { height, width: file.readUInt16BE(at + 7), components: file[at + 9]! };
    }
    if (marker === 0xda && frame !== null) return { ...frame, scan: at };
    at += 2 + file.readUInt16BE(at + 2);
  }
  throw new UserError("the JPEG is truncated");
}
