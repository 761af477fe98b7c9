/**
 * NumPy's .npy format, version 1.0, for row-major little-endian arrays.
 * Format: https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html.
 */

import { UserError } from "../errors.ts";

/** Values of an array: floats of 32 or 64 bits, integers of 8 to 64. */
export type NpyData =
  | Float32Array
  | Float64Array
  | BigInt64Array
  | BigUint64Array
  | Int32Array
  | Uint32Array
  | Int16Array
  | Uint16Array
  | Int8Array
  | Uint8Array;

/** An array. */
export interface NpyArray {
  /** Sizes of the axes, outermost first; [] for a scalar. */
  readonly shape: readonly number[];
  /** The values in row-major order. */
  readonly data: NpyData;
}

/** NumPy's names of the dtypes and how they are held. */
const ARRAYS = {
  "<f4": Float32Array,
  "<f8": Float64Array,
  "<i8": BigInt64Array,
  "|u1": Uint8Array,
  "|i1": Int8Array,
  "<u2": Uint16Array,
  "<i2": Int16Array,
  "<u4": Uint32Array,
  "<i4": Int32Array,
  "<u8": BigUint64Array,
} as const;

type Descr = keyof typeof ARRAYS;

/** "\x93NUMPY", then major and minor version. */
const MAGIC = Uint8Array.of(0x93, 0x4e, 0x55, 0x4d, 0x50, 0x59, 1, 0);
const PREFIX_BYTES = MAGIC.length + 2;
/** NumPy pads the header so that the values begin at a multiple of this. */
const ALIGNMENT = 64;

/**
 * Writes an array to the bytes of a .npy file.
 *
 * @throws RangeError if the shape does not fit the number of values.
 */
export function encodeNpy({ shape, data }: NpyArray): Uint8Array<ArrayBuffer> {
  if (elements(shape) !== data.length) {
    throw new RangeError(`encodeNpy: ${data.length} values, shape [${shape}]`);
  }
  const [descr] = Object.entries(ARRAYS).find(([, Data]) => data instanceof Data)!;
  const tuple = shape.length === 1 ? `${shape[0]},` : shape.join(", ");
  const dict = `{'descr': '${descr}', 'fortran_order': False, 'shape': (${tuple}), }`;
  const begin = Math.ceil((PREFIX_BYTES + dict.length + 1) / ALIGNMENT) * ALIGNMENT;
  const header = dict.padEnd(begin - PREFIX_BYTES - 1) + "\n";

  const bytes = new Uint8Array(begin + data.byteLength);
  bytes.set(MAGIC);
  new DataView(bytes.buffer).setUint16(MAGIC.length, header.length, true);
  bytes.set(new TextEncoder().encode(header), PREFIX_BYTES);
  bytes.set(new Uint8Array(data.buffer, data.byteOffset, data.byteLength), begin);
  return bytes;
}

/**
 * Reads the bytes of a .npy file; the values are a copy.
 *
 * @param file name for messages
 * @throws UserError naming the file and the value if it is no .npy file or of a kind not read here
 * (another version or dtype, column-major order) or its length does not fit its shape.
 */
export function decodeNpy(bytes: Uint8Array, file = "npy"): NpyArray {
  const fail = (problem: string): never => {
    throw new UserError(`${file}: ${problem}`);
  };
  const [magic, version] = [MAGIC.subarray(0, 6), MAGIC.subarray(6)];
  if (bytes.length < PREFIX_BYTES || !magic.every((byte, i) => bytes[i] === byte)) {
    fail("not a .npy file");
  }
  if (!version.every((byte, i) => bytes[magic.length + i] === byte)) {
    fail(`.npy version ${bytes[6]}.${bytes[7]}, expected 1.0`);
  }
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const begin = PREFIX_BYTES + view.getUint16(MAGIC.length, true);
  const header = new TextDecoder("latin1").decode(bytes.subarray(PREFIX_BYTES, begin));
  const field = (name: string, pattern: string): string =>
    new RegExp(`'${name}': *${pattern}`).exec(header)?.[1] ??
      fail(`no ${name} in the header ${JSON.stringify(header.trim())}`);

  const descr = field("descr", "('[^']*'|\\[.*\\])").replaceAll("'", "");
  if (!Object.hasOwn(ARRAYS, descr)) {
    fail(`dtype ${descr}, expected one of ${Object.keys(ARRAYS).join(", ")}`);
  }
  if (field("fortran_order", "(True|False)") === "True") {
    fail("column-major (Fortran) order, expected row-major");
  }
  const shape = field("shape", "\\(([\\d, ]*)\\)").split(",").filter((side) => side.trim() !== "")
    .map(Number);
  const Data = ARRAYS[descr as Descr];
  const size = elements(shape) * Data.BYTES_PER_ELEMENT;
  if (bytes.length - begin !== size) {
    fail(
      `${bytes.length - begin} bytes of values, dtype ${descr} and shape [${shape}] need ${size}`,
    );
  }
  // Not bytes.slice(): that of a Node Buffer, which is a Uint8Array too, shares memory.
  return { shape, data: new Data(Uint8Array.from(bytes.subarray(begin)).buffer) };
}

function elements(shape: readonly number[]): number {
  return shape.reduce((n, side) => n * side, 1);
}
