/**
 * PNG files (https://www.w3.org/TR/png-3/): every color type, bit depth and interlacing in; 8-bit gray
 * or RGB out. They are read here because pngjs fills up data that end too early, and holds all
 * pictures as RGBA; it writes them.
 */

import { Buffer } from "node:buffer";
import { crc32, inflateSync } from "node:zlib";
import { PNG } from "npm:pngjs@7.0.0";
import { UserError } from "../../errors.ts";
import { checkSize, type Picture } from "./picture.ts";

const SIGNATURE = [0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a];

/** Whether the bytes begin like a PNG. */
export function isPng(bytes: Uint8Array): boolean {
  return SIGNATURE.every((byte, i) => bytes[i] === byte);
}

/** Samples a pixel and the bit depths they may have, by color type. */
const TYPES: Readonly<Record<number, { readonly samples: number; readonly depths: number[] }>> = {
  0: { samples: 1, depths: [1, 2, 4, 8, 16] },
  2: { samples: 3, depths: [8, 16] },
  3: { samples: 1, depths: [1, 2, 4, 8] },
  4: { samples: 2, depths: [8, 16] },
  6: { samples: 4, depths: [8, 16] },
};
const PALETTE = 3;

/** Where the pixels of a pass lie: from column `x` and row `y` in steps of `dx` and `dy`. */
interface Pass {
  readonly x: number;
  readonly y: number;
  readonly dx: number;
  readonly dy: number;
}

const WHOLE: readonly Pass[] = [{ x: 0, y: 0, dx: 1, dy: 1 }];
const ADAM7: readonly Pass[] = [
  { x: 0, y: 0, dx: 8, dy: 8 },
  { x: 4, y: 0, dx: 8, dy: 8 },
  { x: 0, y: 4, dx: 4, dy: 8 },
  { x: 2, y: 0, dx: 4, dy: 4 },
  { x: 0, y: 2, dx: 2, dy: 4 },
  { x: 1, y: 0, dx: 2, dy: 2 },
  { x: 0, y: 1, dx: 1, dy: 2 },
];

/** What the chunks of a file say. */
interface Chunks {
  readonly width: number;
  readonly height: number;
  readonly depth: number;
  readonly type: number;
  readonly passes: readonly Pass[];
  readonly palette: Uint8Array;
  /** The content of tRNS: alpha of palette entries, or the samples of the color that is transparent. */
  readonly transparency: Uint8Array;
  readonly data: Uint8Array;
}

/** The most that the rows of a picture take; color with transparency and 16 bits reaches it first. */
const MAX_RAW_BYTES = 2 ** 29;
/** Deflate packs no tighter than this, so that a header that says more is wrong. */
const MAX_RATIO = 1032;

/**
 * Decodes a PNG, gray where its color type is gray, else RGB. 16-bit samples map 0…65 535 to
 * 0…255, rounded; transparency is composited on black.
 *
 * @throws UserError saying why it cannot be read; nothing of the size in a wrong header is allocated
 */
export function decodePng(bytes: Uint8Array): Picture {
  const chunks = readChunks(Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength));
  const { width, height, type } = chunks;
  const raw = inflate(chunks);
  const channels = type === 0 || type === 4 ? 1 : 3;
  const pixels = new Uint8Array(width * height * channels);
  const pixelBits = bitsOf(chunks);
  const write = writerOf(chunks, channels, pixels);
  let at = 0;
  for (const pass of chunks.passes) {
    const { columns, rows, rowBytes } = extentOf(pass, chunks);
    let above: Uint8Array = new Uint8Array(rowBytes);
    for (let row = 0; row < rows; row++) {
      const line = raw.subarray(at + 1, at + 1 + rowBytes);
      unfilter(raw[at]!, line, above, Math.max(1, pixelBits >> 3));
      write(line, columns, (pass.y + row * pass.dy) * width + pass.x, pass.dx);
      above = line;
      at += 1 + rowBytes;
    }
  }
  return { width, height, channels, pixels };
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

function readChunks(file: Buffer): Chunks {
  if (file.length < 33) throw new UserError("the PNG is truncated");
  if (file.toString("latin1", 12, 16) !== "IHDR" || file.readUInt32BE(8) !== 13) {
    throw new UserError("the PNG is damaged (it does not begin with a header)");
  }
  const [width, height] = [file.readUInt32BE(16), file.readUInt32BE(20)];
  checkSize("PNG", width, height);
  const [depth, type, compression, filter, interlacing] = file.subarray(24, 29) as unknown as [
    ...[number, number, number, number, number],
  ];
  const known = TYPES[type]?.depths.includes(depth) && compression === 0 && filter === 0;
  if (!known || interlacing > 1) {
    throw new UserError(
      `the PNG is damaged (its header says color type ${type} of ${depth} bits, ` +
        `methods ${compression}, ${filter}, ${interlacing})`,
    );
  }

  let palette: Uint8Array = new Uint8Array(0);
  let transparency: Uint8Array = palette;
  const data: Uint8Array[] = [];
  for (let at = 8;;) {
    if (at + 12 > file.length) throw new UserError("the PNG is truncated");
    const length = file.readUInt32BE(at);
    const name = file.toString("latin1", at + 4, at + 8);
    const end = at + 8 + length;
    if (end + 4 > file.length) throw new UserError("the PNG is truncated");
    if (crc32(file.subarray(at + 4, end)) !== file.readUInt32BE(end)) {
      throw new UserError(`the PNG is damaged (checksum of its chunk ${JSON.stringify(name)})`);
    }
    const content = file.subarray(at + 8, end);
    if (name === "PLTE") palette = content;
    else if (name === "tRNS") transparency = content;
    else if (name === "IDAT") data.push(content);
    else if (name === "IEND") break;
    // An upper-case letter marks what cannot be left out.
    else if (name !== "IHDR" && /^[A-Z]/.test(name)) {
      throw new UserError(`the PNG is damaged (unknown chunk ${JSON.stringify(name)})`);
    }
    at = end + 4;
  }
  if (type === PALETTE && palette.length < 3) throw new UserError("the PNG has no palette");
  const passes = interlacing === 1 ? ADAM7 : WHOLE;
  return { width, height, depth, type, passes, palette, transparency, data: Buffer.concat(data) };
}

const bitsOf = ({ type, depth }: Chunks) => TYPES[type]!.samples * depth;

/** How many pixels a pass has, and the bytes of a row without its filter; no row where no column is. */
function extentOf({ x, y, dx, dy }: Pass, chunks: Chunks) {
  const columns = Math.max(0, Math.ceil((chunks.width - x) / dx));
  const rows = columns === 0 ? 0 : Math.max(0, Math.ceil((chunks.height - y) / dy));
  return { columns, rows, rowBytes: Math.ceil((columns * bitsOf(chunks)) / 8) };
}

/** The filtered rows of all passes, of which none is missing. */
function inflate(chunks: Chunks): Uint8Array {
  const { passes, data } = chunks;
  const size = passes.reduce((sum, pass) => {
    const { rows, rowBytes } = extentOf(pass, chunks);
    return sum + rows * (1 + rowBytes);
  }, 0);
  if (size > MAX_RAW_BYTES) {
    throw new UserError(`the PNG unpacks to ${size} bytes, up to ${MAX_RAW_BYTES} are read`);
  }
  if (size > MAX_RATIO * (data.length + 1)) throw new UserError("the PNG is truncated");
  let raw: Uint8Array;
  try {
    // One byte more than there should be, to notice when there is more.
    raw = inflateSync(data, { chunkSize: Math.max(64, size + 1), maxOutputLength: size + 1 });
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException;
    if (code === "Z_BUF_ERROR") throw new UserError("the PNG is truncated");
    const reason = code === "ERR_BUFFER_TOO_LARGE" ? "it holds too much data" : message;
    throw new UserError(`the PNG is damaged (${reason})`);
  }
  if (raw.length < size) throw new UserError("the PNG is truncated");
  if (raw.length > size) throw new UserError("the PNG is damaged (it holds too much data)");
  return raw;
}

/** Undoes the filter of a row in place; `step` bytes to the left is the pixel before. */
function unfilter(filter: number, line: Uint8Array, above: Uint8Array, step: number): void {
  const { length } = line;
  switch (filter) {
    case 0:
      return;
    case 1:
      for (let i = step; i < length; i++) line[i] = line[i]! + line[i - step]!;
      return;
    case 2:
      for (let i = 0; i < length; i++) line[i] = line[i]! + above[i]!;
      return;
    case 3:
      for (let i = 0; i < step && i < length; i++) line[i] = line[i]! + (above[i]! >> 1);
      for (let i = step; i < length; i++) {
        line[i] = line[i]! + ((line[i - step]! + above[i]!) >> 1);
      }
      return;
    case 4:
      for (let i = 0; i < step && i < length; i++) line[i] = line[i]! + above[i]!;
      for (let i = step; i < length; i++) {
        line[i] = line[i]! + paeth(line[i - step]!, above[i]!, above[i - step]!);
      }
      return;
    default:
      throw new UserError(`the PNG is damaged (filter ${filter})`);
  }
}

/** Of left, above and the corner between them, the one nearest to left + above − corner. */
function paeth(left: number, above: number, corner: number): number {
  const a = Math.abs(above - corner);
  const b = Math.abs(left - corner);
  const c = Math.abs(left + above - 2 * corner);
  return a <= b && a <= c ? left : b <= c ? above : corner;
}

/** Writes the first `columns` pixels of a row to the pixels `first`, `first + step`, … of the picture. */
type RowWriter = (line: Uint8Array, columns: number, first: number, step: number) => void;

function writerOf(chunks: Chunks, channels: 1 | 3, pixels: Uint8Array): RowWriter {
  const { type, depth, palette, transparency } = chunks;
  const { samples } = TYPES[type]!;
  if (depth === 8 && samples === channels && type !== PALETTE && transparency.length === 0) {
    return (line, columns, first, step) => {
      if (step === 1) return pixels.set(line, first * channels);
      for (let i = 0; i < columns; i++) {
        for (let c = 0; c < channels; c++) {
          pixels[(first + i * step) * channels + c] = line[i * channels + c]!;
        }
      }
    };
  }

  const sampleAt = samplerOf(depth);
  const max = 2 ** depth - 1;
  const toByte = (sample: number) => Math.round((sample * 255) / max);
  if (type === PALETTE) {
    const colors = Math.floor(palette.length / 3);
    return (line, columns, first, step) => {
      for (let i = 0; i < columns; i++) {
        const index = sampleAt(line, i);
        if (index >= colors) {
          throw new UserError(`the PNG is damaged (color ${index} of a palette of ${colors})`);
        }
        const alpha = transparency[index] ?? 255;
        for (let c = 0; c < 3; c++) {
          const value = Math.round((palette[3 * index + c]! * alpha) / 255);
          pixels[(first + i * step) * 3 + c] = value;
        }
      }
    };
  }

  const hasAlpha = samples > channels;
  const keyed = !hasAlpha && transparency.length >= 2 * channels;
  const key = Array.from(
    { length: channels },
    (_, c) => 256 * transparency[2 * c]! + transparency[2 * c + 1]!,
  );
  return (line, columns, first, step) => {
    for (let i = 0; i < columns; i++) {
      let alpha = hasAlpha ? toByte(sampleAt(line, i * samples + channels)) : 255;
      if (keyed && key.every((sample, c) => sampleAt(line, i * samples + c) === sample)) alpha = 0;
      for (let c = 0; c < channels; c++) {
        const value = toByte(sampleAt(line, i * samples + c));
        pixels[(first + i * step) * channels + c] = Math.round((value * alpha) / 255);
      }
    }
  };
}

/** Reads sample `i` of a row of samples of 1, 2, 4, 8 or 16 bits. */
function samplerOf(depth: number): (line: Uint8Array, i: number) => number {
  if (depth === 8) return (line, i) => line[i]!;
  if (depth === 16) return (line, i) => 256 * line[2 * i]! + line[2 * i + 1]!;
  const perByte = 8 / depth;
  const mask = 2 ** depth - 1;
  return (line, i) => (line[Math.floor(i / perByte)]! >> (8 - depth * (1 + i % perByte))) & mask;
}
