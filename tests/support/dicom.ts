/** Writes DICOM files: the reader's tests do not rest on its library. */

import { Buffer } from "node:buffer";
import { deflateRawSync } from "node:zlib";

/** Transfer syntaxes that are written. */
export const SYNTAX = {
  implicit: "1.2.840.10008.1.2",
  explicit: "1.2.840.10008.1.2.1",
  deflated: "1.2.840.10008.1.2.1.99",
  bigEndian: "1.2.840.10008.1.2.2",
  jpeg: "1.2.840.10008.1.2.4.50",
  rle: "1.2.840.10008.1.2.5",
} as const;

/** A tag (0xGGGGEEEE), its VR, and its value: text, 16-bit numbers, bytes, or fragments of pixel data. */
export type DicomElement = readonly [
  tag: number,
  vr: string,
  value: string | readonly number[] | Uint8Array | { readonly fragments: readonly Uint8Array[] },
];

/** What to write; what is absent is left out of the file, or follows from the rest. */
export interface DicomImage {
  readonly syntax?: string;
  readonly width: number;
  readonly height: number;
  readonly channels?: 1 | 3;
  readonly photometric?: string;
  /** 0 for pixels one after the other, 1 for colors. */
  readonly planar?: 0 | 1;
  readonly allocated?: 8 | 16;
  readonly stored?: number;
  readonly highBit?: number;
  readonly signed?: boolean;
  /** The words as they are stored, [height, width, channels]. */
  readonly words: ArrayLike<number>;
  /** More elements, or others in place of those above; an empty value takes one away. */
  readonly elements?: readonly DicomElement[];
}

/** A file of one image, encoded as its syntax says; JPEG comes as an element of its own. */
export function writeDicomImage(image: DicomImage): Uint8Array<ArrayBuffer> {
  const { syntax = SYNTAX.explicit, width, height, channels = 1, allocated = 16 } = image;
  const { stored = allocated, highBit = stored - 1, signed = false, planar = 0 } = image;
  const elements: DicomElement[] = [
    [0x00280002, "US", [channels]],
    [0x00280004, "CS", image.photometric ?? (channels === 1 ? "MONOCHROME2" : "RGB")],
    ...(channels === 3 ? [[0x00280006, "US", [planar]] as const] : []),
    [0x00280010, "US", [height]],
    [0x00280011, "US", [width]],
    [0x00280100, "US", [allocated]],
    [0x00280101, "US", [stored]],
    [0x00280102, "US", [highBit]],
    [0x00280103, "US", [signed ? 1 : 0]],
    [
      0x7fe00010,
      "OW",
      syntax === SYNTAX.rle ? { fragments: [writeRle(image)] } : nativeWords(image),
    ],
  ];
  const others = image.elements ?? [];
  const replaced = new Set(others.map(([tag]) => tag));
  return writeDicom(syntax, [
    ...elements.filter(([tag]) => !replaced.has(tag)),
    ...others.filter(([, , value]) => !(typeof value === "string" && value === "")),
  ]);
}

/** Words for the writer, two bytes in each where 8 bits are allocated, as OW has it. */
function nativeWords({ width, height, channels = 1, allocated = 16, planar, words }: DicomImage) {
  const pixels = width * height;
  const ordered = Array.from(
    { length: pixels * channels },
    (_, at) =>
      planar === 1 ? words[(at % pixels) * channels + Math.floor(at / pixels)]! : words[at]!,
  );
  if (allocated === 16) return ordered;
  return Array.from(
    { length: Math.ceil(ordered.length / 2) },
    (_, i) => ordered[2 * i]! + 256 * (ordered[2 * i + 1] ?? 0),
  );
}

/** An RLE frame: 16 words of header, then a segment for each color and byte. */
export function writeRle({ channels = 1, allocated = 16, words }: DicomImage): Uint8Array {
  const segments: Buffer[] = [];
  for (let channel = 0; channel < channels; channel++) {
    for (let shift = allocated - 8; shift >= 0; shift -= 8) {
      const plane = Array.from(words).filter((_, i) => i % channels === channel);
      segments.push(packBits(plane.map((word) => (word >> shift) & 255)));
    }
  }
  const header = Buffer.alloc(64);
  header.writeUInt32LE(segments.length, 0);
  let offset = 64;
  segments.forEach((segment, i) => {
    header.writeUInt32LE(offset, 4 + 4 * i);
    offset += segment.length;
  });
  return Buffer.concat([header, ...segments]);
}

/** Runs of two and more as a count and a byte, other bytes as they are; a no-op before each run. */
function packBits(bytes: readonly number[]): Buffer {
  const packed: number[] = [];
  let literal: number[] = [];
  const flush = () => {
    if (literal.length > 0) packed.push(literal.length - 1, ...literal);
    literal = [];
  };
  for (let at = 0; at < bytes.length;) {
    let run = 1;
    while (run < 128 && bytes[at + run] === bytes[at]) run++;
    if (run > 1) {
      flush();
      packed.push(0x80, 257 - run, bytes[at]!);
    } else {
      literal.push(bytes[at]!);
      if (literal.length === 128) flush();
    }
    at += run;
  }
  flush();
  if (packed.length % 2 === 1) packed.push(0);
  return Buffer.from(packed);
}

/** A file of these elements. */
export function writeDicom(
  syntax: string,
  elements: readonly DicomElement[],
): Uint8Array<ArrayBuffer> {
  const implicit = syntax === SYNTAX.implicit;
  const bigEndian = syntax === SYNTAX.bigEndian;
  const sorted = elements.toSorted((a, b) => a[0] - b[0]);
  const data = Buffer.concat(sorted.map((element) => encode(element, implicit, bigEndian)));
  const meta = Buffer.concat([
    encode([0x00020001, "OB", Uint8Array.of(0, 1)], false, false),
    encode([0x00020010, "UI", syntax], false, false),
  ]);
  const length = Buffer.alloc(4);
  length.writeUInt32LE(meta.length);
  return Uint8Array.from(Buffer.concat([
    Buffer.alloc(128),
    Buffer.from("DICM"),
    encode([0x00020000, "UL", length], false, false),
    meta,
    syntax === SYNTAX.deflated ? deflateRawSync(data) : data,
  ]));
}

function encode([tag, vr, value]: DicomElement, implicit: boolean, bigEndian: boolean): Buffer {
  const uint16 = (number: number) => {
    const bytes = Buffer.alloc(2);
    return bigEndian ? (bytes.writeUInt16BE(number), bytes) : (bytes.writeUInt16LE(number), bytes);
  };
  const uint32 = (number: number) => {
    const bytes = Buffer.alloc(4);
    return bigEndian ? (bytes.writeUInt32BE(number), bytes) : (bytes.writeUInt32LE(number), bytes);
  };
  const tagOf = (tag: number) => Buffer.concat([uint16(tag >>> 16), uint16(tag & 0xffff)]);
  const even = (bytes: Uint8Array, fill: number) =>
    Buffer.concat([bytes, Buffer.alloc(bytes.length % 2, fill)]);

  let body: Buffer;
  let length: number | null = null;
  if (typeof value === "string") body = even(Buffer.from(value, "latin1"), vr === "UI" ? 0 : 0x20);
  else if (value instanceof Uint8Array) body = even(value, 0);
  else if ("fragments" in value) {
    const items = [new Uint8Array(), ...value.fragments].map((fragment) => even(fragment, 0));
    body = Buffer.concat([
      ...items.flatMap((item) => [tagOf(0xfffee000), uint32(item.length), item]),
      ...[tagOf(0xfffee0dd), uint32(0)],
    ]);
    length = 0xffffffff;
  } else body = Buffer.concat(value.map(uint16));
  length ??= body.length;

  if (implicit) return Buffer.concat([tagOf(tag), uint32(length), body]);
  const long = ["OB", "OW", "SQ", "UN"].includes(vr);
  const size = long ? Buffer.concat([Buffer.alloc(2), uint32(length)]) : uint16(length);
  return Buffer.concat([tagOf(tag), Buffer.from(vr, "latin1"), size, body]);
}
