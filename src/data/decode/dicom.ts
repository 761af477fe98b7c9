/**
 * DICOM files (PS3.10) of one gray or RGB frame, parsed by npm:dicom-parser, loaded when the first
 * one comes. Pixel data are read uncompressed (little and big endian, deflated), RLE lossless or JPEG
 * baseline.
 *
 * Gray samples go the way to a display (PS3.3, C.11): rescale slope and intercept, then the first
 * window, or from the least to the greatest value where there is none, to 0…255; MONOCHROME1, whose
 * least value is white, is inverted. Lookup tables in place of slope or window are not applied:
 * a modality LUT is refused, a VOI LUT passed over. Colors of a JPEG are what its own markers say,
 * not the Photometric Interpretation around it.
 */

import { Buffer } from "node:buffer";
import { inflateRawSync } from "node:zlib";
import { UserError } from "../../errors.ts";
import type { PixelSize } from "../dataset.ts";
import { decodeJpeg } from "./jpeg.ts";
import { checkSize, type Picture } from "./picture.ts";

/** Held in a variable so that the package stays out of the module graph until it is needed. */
const PACKAGE = "npm:dicom-parser@1.8.21";

/** Bytes that a deflated data set may take. */
const MAX_INFLATED = 2 ** 29;

/** What is used of dicom-parser. */
interface Parser {
  parseDicom(bytes: Uint8Array, options: {
    vrCallback(tag: string): string | undefined;
    inflater(bytes: Uint8Array, position: number): Uint8Array;
  }): DataSet;
}

/** A parsed data set; tags are x, group and element. */
interface DataSet {
  readonly byteArray: Uint8Array;
  readonly elements: Readonly<Record<string, Element>>;
  uint16(tag: string): number | undefined;
  string(tag: string, index: number): string | undefined;
}

interface Element {
  readonly vr?: string;
  readonly dataOffset: number;
  readonly length: number;
  /** The pieces of encapsulated pixel data. */
  readonly fragments?: readonly { readonly position: number; readonly length: number }[];
}

const PIXEL_DATA = "x7fe00010";

const SYNTAXES: Readonly<Record<string, string>> = {
  "1.2.840.10008.1.2": "Implicit VR Little Endian",
  "1.2.840.10008.1.2.1": "Explicit VR Little Endian",
  "1.2.840.10008.1.2.1.99": "Deflated Explicit VR Little Endian",
  "1.2.840.10008.1.2.2": "Explicit VR Big Endian",
  "1.2.840.10008.1.2.4.50": "JPEG Baseline",
  "1.2.840.10008.1.2.4.51": "JPEG Extended",
  "1.2.840.10008.1.2.4.57": "JPEG Lossless",
  "1.2.840.10008.1.2.4.70": "JPEG Lossless, First-Order Prediction",
  "1.2.840.10008.1.2.4.80": "JPEG-LS Lossless",
  "1.2.840.10008.1.2.4.81": "JPEG-LS Near-Lossless",
  "1.2.840.10008.1.2.4.90": "JPEG 2000 Lossless",
  "1.2.840.10008.1.2.4.91": "JPEG 2000",
  "1.2.840.10008.1.2.4.201": "High-Throughput JPEG 2000 Lossless",
  "1.2.840.10008.1.2.4.202": "High-Throughput JPEG 2000 Lossless with RPCL",
  "1.2.840.10008.1.2.4.203": "High-Throughput JPEG 2000",
  "1.2.840.10008.1.2.5": "RLE Lossless",
};
const NATIVE: readonly string[] = Object.keys(SYNTAXES).slice(0, 4);
const BIG_ENDIAN = "1.2.840.10008.1.2.2";
const JPEG_BASELINE = "1.2.840.10008.1.2.4.50";
const RLE = "1.2.840.10008.1.2.5";

let parser: Promise<Parser> | null = null;

async function loadParser(): Promise<Parser> {
  try {
    const module: { default: Parser } = await import(PACKAGE);
    return module.default;
  } catch (error) {
    const reason = error instanceof Error ? error.message : error;
    throw new UserError(`the DICOM parser (${PACKAGE}) does not load: ${reason}`);
  }
}

/** Whether the bytes are a DICOM file: 128 of any value, then DICM. */
export function isDicom(bytes: Uint8Array): boolean {
  return [..."DICM"].every((letter, i) => bytes[128 + i] === letter.charCodeAt(0));
}

/**
 * Decodes a DICOM file, gray where it has one sample a pixel, else RGB.
 *
 * @throws UserError saying why it cannot be read, with the attribute or the transfer syntax
 */
export async function decodeDicom(bytes: Uint8Array): Promise<Picture> {
  const { data, header } = parse(await (parser ??= loadParser()), bytes);
  const { syntax, width, height, channels } = header;
  const element = data.elements[PIXEL_DATA];
  if (element === undefined) throw new UserError("the DICOM has no Pixel Data (7fe0,0010)");

  let samples: Uint16Array;
  if (NATIVE.includes(syntax)) samples = readNative(data.byteArray, element, header);
  else if (syntax === RLE) samples = readRle(joinFragments(data, element), header);
  else {
    const picture = await decodeJpeg(joinFragments(data, element));
    const same = picture.width === width && picture.height === height;
    if (!same || picture.channels !== channels || header.allocated !== 8) {
      throw new UserError(
        `the DICOM header says ${width} × ${height} × ${channels} of ${header.allocated} bits, ` +
          `its JPEG ${picture.width} × ${picture.height} × ${picture.channels} of 8`,
      );
    }
    if (channels === 3) return picture;
    samples = new Uint16Array(picture.pixels);
  }
  const levels = channels === 1 ? grayLevels(header, samples) : colorLevels(header);
  const pixels = new Uint8Array(samples.length);
  for (let i = 0; i < pixels.length; i++) pixels[i] = levels[samples[i]!]!;
  return { width, height, channels, pixels };
}

/**
 * The size that the header of a DICOM file tells.
 *
 * @throws UserError as {@linkcode decodeDicom} does for a header
 */
export async function dicomSize(bytes: Uint8Array): Promise<PixelSize> {
  const { width, height } = parse(await (parser ??= loadParser()), bytes).header;
  return { width, height };
}

/** What of a header the pixels depend on. */
interface Header {
  readonly syntax: string;
  readonly width: number;
  readonly height: number;
  readonly channels: 1 | 3;
  /** Whether colors come one after the other, not pixels. */
  readonly planar: boolean;
  /** Whether the least value is white. */
  readonly inverted: boolean;
  /** Bits that a sample takes. */
  readonly allocated: 8 | 16;
  /** Bits of them that hold it, and the highest of these. */
  readonly stored: number;
  readonly highBit: number;
  readonly signed: boolean;
  readonly slope: number;
  readonly intercept: number;
  readonly window: Window | null;
}

/** The values that are told apart, `width` of them around `center`, by a VOI LUT Function. */
interface Window {
  readonly center: number;
  readonly width: number;
  readonly shape: "LINEAR" | "LINEAR_EXACT" | "SIGMOID";
}

/** The data set, and its header where that describes an image that can be read. */
function parse(parser: Parser, bytes: Uint8Array): { data: DataSet; header: Header } {
  try {
    const data = parser.parseDicom(bytes, {
      // In the implicit syntax the parser takes pixels that look like an item for a sequence.
      vrCallback: (tag) => tag === PIXEL_DATA ? "OW" : undefined,
      inflater: (bytes, position) =>
        Buffer.concat([
          bytes.subarray(0, position),
          inflateRawSync(bytes.subarray(position), { maxOutputLength: MAX_INFLATED }),
        ]),
    });
    return { data, header: readHeader(data) };
  } catch (error) {
    if (error instanceof UserError) throw error;
    // The parser throws strings, and objects that hold one.
    const { exception: cause = error } = error as { exception?: unknown };
    const reason = cause instanceof Error ? cause.message : cause;
    throw new UserError(`the DICOM is truncated or damaged (${reason})`);
  }
}

/** Attributes by their name in PS3.6. */
const TAGS = {
  "Transfer Syntax UID": "x00020010",
  "Samples per Pixel": "x00280002",
  "Photometric Interpretation": "x00280004",
  "Planar Configuration": "x00280006",
  "Number of Frames": "x00280008",
  "Rows": "x00280010",
  "Columns": "x00280011",
  "Bits Allocated": "x00280100",
  "Bits Stored": "x00280101",
  "High Bit": "x00280102",
  "Pixel Representation": "x00280103",
  "Window Center": "x00281050",
  "Window Width": "x00281051",
  "Rescale Intercept": "x00281052",
  "Rescale Slope": "x00281053",
  "VOI LUT Function": "x00281056",
  "Modality LUT Sequence": "x00283000",
} as const;
type Name = keyof typeof TAGS;

/** Reads and checks the attributes; sizes are bounded here, before anything is allocated. */
function readHeader(data: DataSet): Header {
  const fail = (name: Name, why: string): never => {
    const tag = `${TAGS[name].slice(1, 5)},${TAGS[name].slice(5)}`;
    throw new UserError(`the DICOM's ${name} (${tag}) ${why}`);
  };
  const text = (name: Name) => data.string(TAGS[name], 0) || null;
  const whole = (name: Name, fallback?: number) =>
    data.uint16(TAGS[name]) ?? fallback ?? fail(name, "is missing");
  const number = (name: Name) => {
    const word = text(name);
    if (word !== null && !Number.isFinite(Number(word))) fail(name, `is "${word}", no number`);
    return word === null ? null : Number(word);
  };
  const oneOf = <T>(name: Name, value: unknown, ...values: T[]) =>
    values.find((other) => other === value) ??
      fail(name, `is ${JSON.stringify(value)}; read are ${values.join(", ")}`);

  const syntax = text("Transfer Syntax UID") ?? fail("Transfer Syntax UID", "is missing");
  if (!NATIVE.includes(syntax) && syntax !== RLE && syntax !== JPEG_BASELINE) {
    const name = SYNTAXES[syntax] ?? "of no images that are known here";
    fail("Transfer Syntax UID", `is ${syntax}, ${name}; decompress it, as with gdcmconv --raw`);
  }
  const frames = number("Number of Frames") ?? 1;
  if (frames !== 1) fail("Number of Frames", `is ${frames}; files of one frame are read`);
  if (data.elements[TAGS["Modality LUT Sequence"]] !== undefined) {
    fail("Modality LUT Sequence", "is there; linear rescaling alone is read");
  }

  const channels = oneOf("Samples per Pixel", whole("Samples per Pixel", 1), 1, 3);
  const photometric = text("Photometric Interpretation");
  if (channels === 1) {
    oneOf("Photometric Interpretation", photometric, "MONOCHROME1", "MONOCHROME2");
  } else if (syntax !== JPEG_BASELINE) oneOf("Photometric Interpretation", photometric, "RGB");
  const [width, height] = [whole("Columns"), whole("Rows")];
  checkSize("DICOM", width, height);

  const allocated = oneOf("Bits Allocated", whole("Bits Allocated"), 8, 16);
  const stored = whole("Bits Stored", allocated);
  if (stored < 1 || stored > allocated) fail("Bits Stored", `is ${stored} of ${allocated}`);
  const highBit = whole("High Bit", stored - 1);
  if (highBit < stored - 1 || highBit >= allocated) {
    fail("High Bit", `is ${highBit}, with ${stored} bits stored in ${allocated}`);
  }

  const slope = number("Rescale Slope") ?? 1;
  if (slope === 0) fail("Rescale Slope", "is 0");
  const [center, breadth] = [number("Window Center"), number("Window Width")];
  let window: Window | null = null;
  if (center !== null && breadth !== null) {
    const shape = oneOf(
      "VOI LUT Function",
      text("VOI LUT Function") ?? "LINEAR",
      ...["LINEAR", "LINEAR_EXACT", "SIGMOID"] as const,
    );
    if (breadth < (shape === "LINEAR" ? 1 : Number.MIN_VALUE)) {
      fail("Window Width", `is ${breadth}, too narrow for ${shape}`);
    }
    window = { center, width: breadth, shape };
  }
  return {
    ...{ syntax, width, height, channels, allocated, stored, highBit, slope, window },
    planar: oneOf("Planar Configuration", whole("Planar Configuration", 0), 0, 1) === 1,
    inverted: photometric === "MONOCHROME1",
    signed: oneOf("Pixel Representation", whole("Pixel Representation", 0), 0, 1) === 1,
    intercept: number("Rescale Intercept") ?? 0,
  };
}

/** Uncompressed samples as they are stored, [height, width, channels]. */
function readNative(file: Uint8Array, element: Element, header: Header): Uint16Array {
  const { width, height, channels, planar, allocated } = header;
  const pixels = width * height;
  const count = pixels * channels;
  const bytes = file.subarray(element.dataOffset, element.dataOffset + element.length);
  if (element.fragments !== undefined || bytes.length < (count * allocated) / 8) {
    throw new UserError(
      `the DICOM's Pixel Data (7fe0,0010) are ${bytes.length} bytes, too few for ` +
        `${width} × ${height} × ${channels} of ${allocated} bits`,
    );
  }
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  const littleEndian = header.syntax !== BIG_ENDIAN;
  // Bytes in big endian words change places; an odd last one has none to change with.
  const swap = !littleEndian && element.vr === "OW" && allocated === 8 && bytes.length % 2 === 0;
  const samples = new Uint16Array(count);
  for (let i = 0; i < count; i++) {
    const at = planar ? (i % channels) * pixels + Math.floor(i / channels) : i;
    samples[i] = allocated === 16
      ? view.getUint16(2 * at, littleEndian)
      : bytes[swap ? at ^ 1 : at]!;
  }
  return samples;
}

/** The bytes of the only frame of encapsulated pixel data. */
function joinFragments({ byteArray }: DataSet, { fragments }: Element): Uint8Array {
  if (fragments === undefined) {
    throw new UserError("the DICOM's Pixel Data (7fe0,0010) are not encapsulated");
  }
  return Buffer.concat(
    fragments.map(({ position, length }) => byteArray.subarray(position, position + length)),
  );
}

/** Samples of an RLE frame (PS3.5, Annex G): for each color and byte, the highest first, a segment. */
function readRle(frame: Uint8Array, header: Header): Uint16Array {
  const { width, height, channels, allocated } = header;
  const [pixels, depth] = [width * height, allocated / 8];
  const count = channels * depth;
  if (frame.length < 64) throw new UserError("the DICOM's RLE header is truncated");
  const view = new DataView(frame.buffer, frame.byteOffset, frame.length);
  const given = view.getUint32(0, true);
  if (given !== count) {
    throw new UserError(`the DICOM's RLE header has ${given} segments, expected ${count}`);
  }
  const samples = new Uint16Array(pixels * channels);
  for (let segment = 0; segment < count; segment++) {
    const start = view.getUint32(4 + 4 * segment, true);
    const end = segment + 1 < count ? view.getUint32(8 + 4 * segment, true) : frame.length;
    const plane = unpackBits(frame.subarray(start, end), pixels);
    const [channel, byte] = [Math.floor(segment / depth), segment % depth];
    for (let i = 0; i < pixels; i++) {
      samples[i * channels + channel]! |= plane[i]! << (8 * (depth - 1 - byte));
    }
  }
  return samples;
}

/** Undoes the run-length coding of a segment (PS3.5, G.3); `length` bytes are wanted. */
function unpackBits(packed: Uint8Array, length: number): Uint8Array {
  const bytes = new Uint8Array(length);
  for (let at = 0, filled = 0; filled < length;) {
    const control = packed[at++];
    if (control === 128) continue;
    const literal = control !== undefined && control < 128;
    const run = literal ? control + 1 : 257 - (control ?? 0);
    const taken = literal ? run : 1;
    if (at + taken > packed.length || filled + run > length) {
      throw new UserError("an RLE segment of the DICOM does not hold as many bytes as pixels");
    }
    if (literal) bytes.set(packed.subarray(at, at + run), filled);
    else bytes.fill(packed[at]!, filled, filled + run);
    at += taken;
    filled += run;
  }
  return bytes;
}

/** The gray level of every word that a sample may be. */
function grayLevels(header: Header, samples: Uint16Array): Uint8Array {
  const { allocated, stored, highBit, signed, slope, intercept, inverted } = header;
  const range = 2 ** stored;
  const valueOf = (word: number) => {
    const bits = (word >> (highBit + 1 - stored)) & (range - 1);
    return (signed && bits >= range / 2 ? bits - range : bits) * slope + intercept;
  };
  const shown = header.window === null ? stretch(samples, valueOf) : applyWindow(header.window);
  return Uint8Array.from({ length: 2 ** allocated }, (_, word) => {
    const level = Math.round(255 * shown(valueOf(word)));
    return inverted ? 255 - level : level;
  });
}

/** From values to [0, 1]: PS3.3, C.11.2.1.2 and C.11.2.1.3. */
function applyWindow({ center, width, shape }: Window): (value: number) => number {
  if (shape === "SIGMOID") return (x) => 1 / (1 + Math.exp((-4 * (x - center)) / width));
  const [middle, span] = shape === "LINEAR" ? [center - 0.5, width - 1] : [center, width];
  return (x) => {
    if (x <= middle - span / 2) return 0;
    return x > middle + span / 2 ? 1 : (x - middle) / span + 0.5;
  };
}

/** From the values between the least and the greatest to [0, 1]; 0 where they are all the same. */
function stretch(samples: Uint16Array, valueOf: (word: number) => number) {
  const seen = new Set<number>();
  for (let i = 0; i < samples.length; i++) seen.add(samples[i]!);
  let [low, high] = [Infinity, -Infinity];
  for (const word of seen) {
    low = Math.min(low, valueOf(word));
    high = Math.max(high, valueOf(word));
  }
  const span = high - low || 1;
  return (x: number) => Math.min(Math.max((x - low) / span, 0), 1);
}

/** The 8-bit level of every word that a color may be. */
function colorLevels({ allocated, stored, highBit }: Header): Uint8Array {
  const most = 2 ** stored - 1;
  return Uint8Array.from(
    { length: 2 ** allocated },
    (_, word) => Math.round((((word >> (highBit + 1 - stored)) & most) * 255) / most),
  );
}
