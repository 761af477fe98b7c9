/**
 * The safetensors file format: a u64 header length, a JSON header, then raw little-endian values.
 * Format: https://github.com/huggingface/safetensors#format. Written files equal those of the
 * reference implementation byte for byte (with at most one metadata entry, whose order it leaves
 * to chance).
 */

import { UserError } from "../errors.ts";

/** The type of a tensor's elements. */
export type SafetensorsDtype =
  | "I64"
  | "F64"
  | "F32"
  | "U32"
  | "I32"
  | "BF16"
  | "F16"
  | "I16"
  | "I8"
  | "U8"
  | "BOOL";

/** The values of a tensor, in row-major order. BF16 values are raw bits, BOOL values bytes 0 or 1. */
export type SafetensorsData =
  | BigInt64Array
  | Float64Array
  | Float32Array
  | Float16Array
  | Uint32Array
  | Int32Array
  | Uint16Array
  | Int16Array
  | Uint8Array
  | Int8Array;

/**
 * How each dtype is held in memory, from the widest to the narrowest. The order is that of the
 * reference implementation, which stores wide types first so that every tensor is aligned.
 * BF16 has no typed array: its bits are kept, and {@link toFloat32} widens them.
 */
const ARRAYS = {
  I64: BigInt64Array,
  F64: Float64Array,
  F32: Float32Array,
  U32: Uint32Array,
  I32: Int32Array,
  BF16: Uint16Array,
  F16: Float16Array,
  I16: Int16Array,
  I8: Int8Array,
  U8: Uint8Array,
  BOOL: Uint8Array,
} as const satisfies Record<SafetensorsDtype, unknown>;

/** One array of a file. */
export interface SafeTensor {
  /** Type of the elements. */
  readonly dtype: SafetensorsDtype;
  /** Sizes of the axes, outermost first; [] for a scalar. */
  readonly shape: readonly number[];
  /** As many elements as the product of `shape`. */
  readonly data: SafetensorsData;
}

/** The content of a file. */
export interface Safetensors {
  /** Tensors by name, in the order they are stored. */
  readonly tensors: Map<string, SafeTensor>;
  /** Free-form text by name. */
  readonly metadata: Record<string, string>;
}

/** The reference implementation refuses longer headers, so that a hostile file cannot exhaust memory. */
const MAX_HEADER_BYTES = 100_000_000;
const LENGTH_BYTES = 8;
const METADATA = "__metadata__";

/**
 * Writes tensors to the bytes of a safetensors file. The order is by element width, then by name, so
 * equal content gives equal bytes whatever the order of insertion.
 *
 * @throws RangeError if a name is reserved or not valid Unicode, or data do not fit dtype and shape.
 */
export function encodeSafetensors(
  tensors: ReadonlyMap<string, SafeTensor> | Readonly<Record<string, SafeTensor>>,
  metadata: Readonly<Record<string, string>> = {},
): Uint8Array<ArrayBuffer> {
  const named = tensors instanceof Map ? [...tensors] : Object.entries(tensors);
  for (const [name, tensor] of named) checkWritable(name, tensor);
  named.sort(([a, x], [b, y]) => rank(x.dtype) - rank(y.dtype) || (a < b ? -1 : 1));

  // Written by hand because an object would move names such as "10" to the front.
  const fields: string[] = [];
  const notes = Object.entries(metadata).sort(([a], [b]) => a < b ? -1 : 1);
  if (notes.length > 0) {
    const pairs = notes.map(([key, value]) => `${JSON.stringify(key)}:${JSON.stringify(value)}`);
    fields.push(`"${METADATA}":{${pairs.join(",")}}`);
  }
  let end = 0;
  for (const [name, { dtype, shape, data }] of named) {
    const begin = end;
    end += data.byteLength;
    fields.push(
      `${JSON.stringify(name)}:${JSON.stringify({ dtype, shape, data_offsets: [begin, end] })}`,
    );
  }
  const json = new TextEncoder().encode(`{${fields.join(",")}}`);

  const headerBytes = Math.ceil(json.length / LENGTH_BYTES) * LENGTH_BYTES;
  const bytes = new Uint8Array(LENGTH_BYTES + headerBytes + end);
  new DataView(bytes.buffer).setBigUint64(0, BigInt(headerBytes), true);
  bytes.set(json, LENGTH_BYTES);
  bytes.fill(0x20, LENGTH_BYTES + json.length, LENGTH_BYTES + headerBytes);
  let offset = LENGTH_BYTES + headerBytes;
  for (const [, { data }] of named) {
    bytes.set(new Uint8Array(data.buffer, data.byteOffset, data.byteLength), offset);
    offset += data.byteLength;
  }
  return bytes;
}

/**
 * Reads the bytes of a safetensors file. Tensors are views of `bytes` where alignment permits and copies
 * otherwise; the map keeps the order in which they are stored.
 *
 * @param file name for messages
 * @throws UserError naming the file, the tensor and the value if the file breaks the format.
 */
export function decodeSafetensors(bytes: Uint8Array, file = "safetensors"): Safetensors {
  const fail = (problem: string): never => {
    throw new UserError(`${file}: ${problem}`);
  };
  if (bytes.length < LENGTH_BYTES) {
    fail(`not a safetensors file: ${bytes.length} bytes, expected at least ${LENGTH_BYTES}`);
  }
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const headerBytes = Number(view.getBigUint64(0, true));
  if (headerBytes > MAX_HEADER_BYTES || headerBytes > bytes.length - LENGTH_BYTES) {
    fail(
      `not a safetensors file, or cut short: the header should be ${headerBytes} bytes long, ` +
        `the file has ${bytes.length}`,
    );
  }
  const header = readHeader(bytes.subarray(LENGTH_BYTES, LENGTH_BYTES + headerBytes), fail);
  const { [METADATA]: notes = {}, ...described } = header;
  const metadata = readMetadata(notes, fail);
  const stored = Object.entries(described)
    .map(([name, entry]) => readEntry(name, entry, fail))
    .sort((a, b) => a.begin - b.begin || a.end - b.end);

  const data = bytes.subarray(LENGTH_BYTES + headerBytes);
  const tensors = new Map<string, SafeTensor>();
  let end = 0;
  for (const tensor of stored) {
    if (tensor.begin !== end) {
      const kind = tensor.begin < end ? "overlaps the tensor before it" : "leaves a hole before it";
      fail(`tensor "${tensor.name}" ${kind}: it begins at byte ${tensor.begin}, expected ${end}`);
    }
    end = tensor.end;
    if (end > data.length) {
      fail(
        `cut short: tensor "${tensor.name}" ends at byte ${end} of the data, ` +
          `the file has ${data.length}`,
      );
    }
    const { dtype, shape } = tensor;
    const values = typedView(data.subarray(tensor.begin, tensor.end), dtype);
    tensors.set(tensor.name, { dtype, shape, data: values });
  }
  if (end !== data.length) {
    fail(`${data.length - end} bytes after the last tensor, expected none`);
  }
  return { tensors, metadata };
}

/**
 * The values of a tensor as float32: F32 data are returned themselves, every other dtype is converted
 * (exactly for F16, BF16 and the 8- and 16-bit integers, rounded to nearest for the wider ones).
 */
export function toFloat32({ dtype, data }: SafeTensor): Float32Array {
  if (data instanceof Float32Array) return data;
  if (data instanceof BigInt64Array) return Float32Array.from(data, Number);
  if (dtype !== "BF16") return new Float32Array(data);
  // A bfloat16 is the upper half of a float32.
  const bits = Uint32Array.from(data as Uint16Array, (half) => half << 16);
  return new Float32Array(bits.buffer);
}

/** A JSON value that is an object, as far as it has been looked at. */
type JsonObject = Record<string, unknown>;
type Fail = (problem: string) => never;

interface Entry {
  readonly name: string;
  readonly dtype: SafetensorsDtype;
  readonly shape: readonly number[];
  readonly begin: number;
  readonly end: number;
}

const DTYPES = Object.keys(ARRAYS) as SafetensorsDtype[];
const rank = (dtype: SafetensorsDtype) => DTYPES.indexOf(dtype);
const isObject = (value: unknown): value is JsonObject =>
  typeof value === "object" && value !== null && !Array.isArray(value);
const isCount = (value: unknown): value is number =>
  Number.isSafeInteger(value) && value as number >= 0;
const show = (value: unknown) => JSON.stringify(value) ?? "missing";

/** The number of elements in a shape: NaN where it is past what a number holds exactly. */
function elements(shape: readonly number[]): number {
  return shape.reduce((n, side) => Number.isSafeInteger(n * side) ? n * side : NaN, 1);
}

function checkWritable(name: string, { dtype, shape, data }: SafeTensor): void {
  if (name === METADATA || !name.isWellFormed()) {
    throw new RangeError(`encodeSafetensors: ${show(name)} cannot be the name of a tensor`);
  }
  if (!(data instanceof ARRAYS[dtype])) {
    throw new RangeError(
      `encodeSafetensors: tensor "${name}" of dtype ${dtype} holds a ${data.constructor.name}, ` +
        `expected ${ARRAYS[dtype].name}`,
    );
  }
  if (!shape.every(isCount) || elements(shape) !== data.length) {
    throw new RangeError(
      `encodeSafetensors: tensor "${name}" has ${data.length} values, shape [${shape}]`,
    );
  }
}

function readHeader(bytes: Uint8Array, fail: Fail): JsonObject {
  if (bytes[0] !== 0x7b) fail(`not a safetensors file: the header does not begin with "{"`);
  let header: unknown;
  try {
    const text = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);
    header = JSON.parse(text);
    const twice = duplicateKey(text);
    if (twice !== undefined) fail(`the header names ${show(twice)} twice`);
  } catch (error) {
    if (error instanceof UserError) throw error;
    fail(`the header is not valid JSON: ${(error as Error).message}`);
  }
  return isObject(header) ? header : fail("the header is not a JSON object");
}

/** The first key that occurs twice in one object of a valid JSON text: `JSON.parse` keeps silent about it. */
function duplicateKey(json: string): string | undefined {
  const open: Set<string>[] = [];
  for (const [token, colon] of json.matchAll(/[{}]|"[^"\\]*(?:\\.[^"\\]*)*"(\s*:)?/g)) {
    if (token === "{") open.push(new Set());
    else if (token === "}") open.pop();
    else if (colon !== undefined) {
      const key: string = JSON.parse(token.slice(0, -colon.length));
      const seen = open.at(-1)!;
      if (seen.has(key)) return key;
      seen.add(key);
    }
  }
  return undefined;
}

function readMetadata(notes: unknown, fail: Fail): Record<string, string> {
  if (!isObject(notes)) fail(`${METADATA} is ${show(notes)}, expected an object`);
  for (const [key, value] of Object.entries(notes as JsonObject)) {
    if (typeof value !== "string") {
      fail(`${METADATA} "${key}" is ${show(value)}, expected a string`);
    }
  }
  return notes as Record<string, string>;
}

function readEntry(name: string, entry: unknown, fail: Fail): Entry {
  const { dtype, shape, data_offsets: offsets }: JsonObject = isObject(entry)
    ? entry
    : fail(`tensor "${name}" is ${show(entry)}, expected an object`);
  if (!DTYPES.includes(dtype as SafetensorsDtype)) {
    fail(`tensor "${name}" has dtype ${show(dtype)}, expected one of ${DTYPES.join(", ")}`);
  }
  if (!Array.isArray(shape) || !shape.every(isCount)) {
    fail(`tensor "${name}" has shape ${show(shape)}, expected a list of sizes`);
  }
  if (!Array.isArray(offsets) || offsets.length !== 2 || !offsets.every(isCount)) {
    fail(`tensor "${name}" has data_offsets ${show(offsets)}, expected [begin, end]`);
  }
  const known = { name, dtype: dtype as SafetensorsDtype, shape: shape as number[] };
  const [begin, end] = offsets as [number, number];
  const size = elements(known.shape) * ARRAYS[known.dtype].BYTES_PER_ELEMENT;
  if (end - begin !== size) {
    fail(
      `tensor "${name}" of dtype ${dtype} and shape [${shape}] needs ${size} bytes, ` +
        `its data_offsets [${begin}, ${end}] hold ${end - begin}`,
    );
  }
  return { ...known, begin, end };
}

/** Little-endian bytes as values: a view where alignment permits, else a copy. */
export function typedView(bytes: Uint8Array, dtype: SafetensorsDtype): SafetensorsData {
  const Data: {
    new (buffer: ArrayBufferLike, byteOffset: number, length: number): SafetensorsData;
    readonly BYTES_PER_ELEMENT: number;
  } = ARRAYS[dtype];
  const isAligned = bytes.byteOffset % Data.BYTES_PER_ELEMENT === 0;
  // Not bytes.slice(): that of a Node Buffer, which is a Uint8Array too, shares memory.
  const aligned = isAligned ? bytes : Uint8Array.from(bytes);
  return new Data(aligned.buffer, aligned.byteOffset, bytes.length / Data.BYTES_PER_ELEMENT);
}
