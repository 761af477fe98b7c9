/** Damages files as disks, networks and enemies do; every result is a function of the random numbers. */

import type { Random } from "../../src/random.ts";

/** What a damaged file is made from. */
export interface Material {
  /** Whole files, of which parts are put into one another. */
  readonly corpus: readonly Uint8Array[];
  /** Short sequences that mean something in the format. */
  readonly tokens?: readonly string[];
}

/** No mutant is longer: what is inserted again and again would grow without end. */
const MAX_BYTES = 1 << 16;

const BYTES = [0, 1, 0x20, 0x7f, 0x80, 0xfe, 0xff];
const LENGTHS = [0, 1, 0x7f, 0xff, 0x7fff, 0xffff, 0x7fffffff, 0x80000000, 0xffffffff];

type Operator = (bytes: Uint8Array, random: Random, material: Material) => Uint8Array;

const flipBits: Operator = (bytes, random) => {
  const copy = bytes.slice();
  for (let n = 1 + random.integer(8); n > 0; n--) {
    copy[random.integer(copy.length)]! ^= 1 << random.integer(8);
  }
  return copy;
};

const setBytes: Operator = (bytes, random) => {
  const copy = bytes.slice();
  const begin = random.integer(copy.length);
  const value = random.integer(3) === 0 ? random.integer(256) : pick(BYTES, random);
  return copy.fill(value, begin, begin + 1 + random.integer(random.integer(4) === 0 ? 64 : 4));
};

const truncate: Operator = (bytes, random) => bytes.slice(0, random.integer(bytes.length));

const insert: Operator = (bytes, random, { tokens = [] }) => {
  const noise = Uint8Array.from({ length: 1 + random.integer(16) }, () => random.integer(256));
  const word = tokens.length > 0 && random.integer(4) > 0
    ? new TextEncoder().encode(pick(tokens, random))
    : noise;
  return replace(bytes, random.integer(bytes.length + 1), 0, word);
};

const remove: Operator = (bytes, random) =>
  replace(bytes, random.integer(bytes.length), 1 + random.integer(16), new Uint8Array(0));

const repeat: Operator = (bytes, random) => {
  const [begin, part] = partOf(bytes, random);
  return replace(bytes, begin, 0, part);
};

const splice: Operator = (bytes, random, { corpus }) => {
  const [, part] = partOf(pick(corpus, random), random);
  const begin = random.integer(bytes.length);
  return replace(bytes, begin, random.integer(2) === 0 ? 0 : part.length, part);
};

/** Writes a number that a length could be over 1 to 8 bytes, of either order. */
const tamperLength: Operator = (bytes, random) => {
  const width = 1 << random.integer(4);
  if (bytes.length < width) return bytes;
  const copy = bytes.slice();
  const view = new DataView(copy.buffer);
  const at = random.integer(bytes.length - width + 1);
  const little = random.integer(2) === 0;
  const near = bytes.length - at + random.integer(17) - 8;
  const value = [pick(LENGTHS, random), near, random.u32()][random.integer(3)]!;
  if (width === 8) {
    const high = random.integer(4) === 0 ? random.u32() : 0;
    view.setBigUint64(at, (BigInt(high) << 32n) + BigInt(Math.max(0, value)), little);
  } else if (width === 4) view.setUint32(at, value, little);
  else if (width === 2) view.setUint16(at, value, little);
  else view.setUint8(at, value);
  return copy;
};

/** Another number in place of one that is written in digits. */
const tamperDigits: Operator = (bytes, random) => {
  const digits = bytes.keys().filter((i) => bytes[i]! >= 0x30 && bytes[i]! <= 0x39).toArray();
  if (digits.length === 0) return bytes;
  const begin = pick(digits, random);
  const number = pick(
    ["0", "-1", "1.5", "9", "65536", "4294967296", "9007199254740993", "1e999", "00"],
    random,
  );
  return replace(bytes, begin, 1 + random.integer(3), new TextEncoder().encode(number));
};

const OPERATORS: readonly Operator[] = [
  ...[flipBits, setBytes, truncate, insert, remove],
  ...[repeat, splice, tamperLength, tamperDigits],
];

/** A file of the corpus, damaged once, or up to five times. */
export function mutate(material: Material, random: Random): Uint8Array {
  let bytes = pick(material.corpus, random);
  for (
    let n = random.integer(2) === 0 ? 1 : 2 + random.integer(4);
    n > 0 && bytes.length > 0;
    n--
  ) {
    bytes = pick(OPERATORS, random)(bytes, random, material).slice(0, MAX_BYTES);
  }
  return bytes;
}

function pick<T>(items: readonly T[], random: Random): T {
  return items[random.integer(items.length)]!;
}

/** A part of a file, often short, and where it begins. */
function partOf(bytes: Uint8Array, random: Random): [begin: number, part: Uint8Array] {
  const begin = random.integer(bytes.length);
  const longest = random.integer(2) === 0 ? 32 : bytes.length;
  return [begin, bytes.slice(begin, begin + 1 + random.integer(longest))];
}

function replace(bytes: Uint8Array, begin: number, length: number, by: Uint8Array): Uint8Array {
  const rest = bytes.subarray(begin + length);
  const result = new Uint8Array(begin + by.length + rest.length);
  result.set(bytes.subarray(0, begin));
  result.set(by, begin);
  result.set(rest, begin + by.length);
  return result;
}
