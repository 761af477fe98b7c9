/** Writes PNGs of any color type, depth and interlacing: the reader's tests do not rest on its library. */

import { Buffer } from "node:buffer";
import { crc32, deflateSync } from "node:zlib";

/** What to write; samples are whole numbers below 2^depth, [height, width, channels]. */
export interface PngImage {
  readonly width: number;
  readonly height: number;
  /** 0 gray, 2 RGB, 3 palette, 4 gray and alpha, 6 RGBA. */
  readonly colorType: 0 | 2 | 3 | 4 | 6;
  readonly depth: 1 | 2 | 4 | 8 | 16;
  readonly samples: ArrayLike<number>;
  /** RGB bytes of a palette image. */
  readonly palette?: readonly number[];
  /** Contents of the tRNS chunk. */
  readonly transparency?: readonly number[];
  readonly interlaced?: boolean;
}

/** Samples a pixel, by color type. */
export const PNG_CHANNELS = { 0: 1, 2: 3, 3: 1, 4: 2, 6: 4 } as const;

/** Adam7: first column and row, and the steps, of each pass. */
const ADAM7 = [
  [0, 0, 8, 8],
  [4, 0, 8, 8],
  [0, 4, 4, 8],
  [2, 0, 4, 4],
  [0, 2, 2, 4],
  [1, 0, 2, 2],
  [0, 1, 1, 2],
] as const;

/** Encodes a PNG whose rows cycle through all five filters. */
export function writePng(image: PngImage): Uint8Array<ArrayBuffer> {
  const { width, height, colorType, depth, palette, transparency, interlaced = false } = image;
  const header = Buffer.alloc(13);
  header.writeUInt32BE(width, 0);
  header.writeUInt32BE(height, 4);
  header.set([depth, colorType, 0, 0, interlaced ? 1 : 0], 8);
  const passes = interlaced ? ADAM7 : [[0, 0, 1, 1] as const];
  const data = Buffer.concat(passes.map(([x, y, dx, dy]) => filteredRows(image, x, y, dx, dy)));
  return Uint8Array.from(Buffer.concat([
    Buffer.from([0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a]),
    chunk("IHDR", header),
    ...(palette ? [chunk("PLTE", palette)] : []),
    ...(transparency ? [chunk("tRNS", transparency)] : []),
    chunk("IDAT", deflateSync(data)),
    chunk("IEND", []),
  ]));
}

function filteredRows(image: PngImage, x0: number, y0: number, dx: number, dy: number): Buffer {
  const { width, height, depth, samples } = image;
  const channels = PNG_CHANNELS[image.colorType];
  const pixelBytes = Math.max(1, (channels * depth) >> 3);
  const rows: Buffer[] = [];
  let above: Buffer | null = null;
  if (x0 >= width) return Buffer.alloc(0);
  for (let y = y0; y < height; y += dy) {
    let bits = "";
    for (let x = x0; x < width; x += dx) {
      for (let c = 0; c < channels; c++) {
        bits += samples[(y * width + x) * channels + c]!.toString(2).padStart(depth, "0");
      }
    }
    const raw = Buffer.from(bits.match(/.{1,8}/g)!.map((byte) => parseInt(byte.padEnd(8, "0"), 2)));
    const type = rows.length % 5;
    const row = Buffer.alloc(raw.length + 1);
    row[0] = type;
    raw.forEach((value, i) => {
      const left = i < pixelBytes ? 0 : raw[i - pixelBytes]!;
      const up = above?.[i] ?? 0;
      const corner = i < pixelBytes ? 0 : above?.[i - pixelBytes] ?? 0;
      const predicted = [0, left, up, (left + up) >> 1, paeth(left, up, corner)][type]!;
      row[i + 1] = (value - predicted) & 255;
    });
    rows.push(row);
    above = raw;
  }
  return Buffer.concat(rows);
}

function paeth(left: number, up: number, corner: number): number {
  const guess = left + up - corner;
  const [a, b, c] = [Math.abs(guess - left), Math.abs(guess - up), Math.abs(guess - corner)];
  return a <= b && a <= c ? left : b <= c ? up : corner;
}

function chunk(type: string, data: Uint8Array | readonly number[]): Buffer {
  const body = Buffer.concat([Buffer.from(type, "latin1"), Buffer.from(data)]);
  const framed = Buffer.alloc(body.length + 8);
  framed.writeUInt32BE(data.length, 0);
  framed.set(body, 4);
  framed.writeUInt32BE(crc32(body), body.length + 4);
  return framed;
}
