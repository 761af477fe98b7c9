/**
 * PyTorch's files of weights (.pth, .pt, .th): the zip archives that `torch.save` has written since 1.6,
 * and the series of pickles of before. Nothing in a file is ever executed.
 * Format: `torch/serialization.py` and `torch/_utils.py`.
 */

import { UserError } from "../errors.ts";
import { type Callable, kind, quote, unpickle } from "./pickle.ts";
import {
  type SafeTensor,
  type Safetensors,
  type SafetensorsData,
  type SafetensorsDtype,
  typedView,
} from "./safetensors.ts";
import { isZip, readZip } from "./zip.ts";

/** What a legacy file begins with, as a pickle. */
const MAGIC = 0x1950a86a20f9469cfc6cn;
const PROTOCOL_VERSION = 1001;
/** PyTorch's own operations stop at this many. */
const MAX_AXES = 64;
/** How deep a checkpoint may hide its tensors. */
const MAX_DEPTH = 8;
/** What DataParallel puts before every name. */
const PARALLEL_PREFIX = "module.";

/** PyTorch's dtypes as safetensors names them, with the storage class of each that has one. */
const DTYPES: readonly (readonly [SafetensorsDtype, dtype: string, storage?: string])[] = [
  ["F32", "float32", "FloatStorage"],
  ["F64", "float64", "DoubleStorage"],
  ["F16", "float16", "HalfStorage"],
  ["BF16", "bfloat16", "BFloat16Storage"],
  ["I64", "int64", "LongStorage"],
  ["I32", "int32", "IntStorage"],
  ["I16", "int16", "ShortStorage"],
  ["I8", "int8", "CharStorage"],
  ["U8", "uint8", "ByteStorage"],
  ["BOOL", "bool", "BoolStorage"],
  ["U32", "uint32"],
];

/** Whether a file begins like one of PyTorch's, of either format. */
export function isPth(bytes: Uint8Array): boolean {
  return isZip(bytes) || (bytes[0] === 0x80 && bytes[1]! >= 2 && bytes[1]! <= 5);
}

/**
 * Reads the bytes of a PyTorch file. Of the dicts in it, the one that holds the most tensors is taken (of
 * equals the outermost, the first), and DataParallel's `module.` before all of its names is left out;
 * the metadata say so: `format`, `dict`, `stripped`. Tensors that share memory in the file share it here;
 * those that are not in row-major order are copied into it, up to four times the file's size in all.
 *
 * @param file name for messages
 * @throws UserError naming the file and what breaks the format or is not allowed: any opcode or global
 * that a state_dict does not need
 */
export function decodePth(bytes: Uint8Array, file = "pth"): Safetensors {
  try {
    const zip = isZip(bytes);
    const { path, tensors } = findStateDict(zip ? readArchive(bytes) : readLegacy(bytes));
    const parallel = [...tensors.keys()].every((name) => name.startsWith(PARALLEL_PREFIX));
    const budget = { bytes: 4 * bytes.length };
    return {
      tensors: new Map([...tensors].map(([name, tensor]) => {
        const short = parallel ? name.slice(PARALLEL_PREFIX.length) : name;
        return [short, rowMajor(short, tensor, budget)];
      })),
      metadata: {
        format: zip ? "PyTorch zip" : "PyTorch legacy",
        ...(path === "" ? {} : { dict: path }),
        ...(parallel ? { stripped: PARALLEL_PREFIX } : {}),
      },
    };
  } catch (error) {
    if (error instanceof UserError) throw new UserError(`${file}: ${error.message}`);
    throw error;
  }
}

/** The class of a storage; null for bytes of any dtype. */
class StorageType {
  readonly dtype: SafetensorsDtype | null;

  constructor(dtype: SafetensorsDtype | null) {
    this.dtype = dtype;
  }
}

/** A dtype as a value. */
class Dtype {
  readonly name: SafetensorsDtype;

  constructor(name: SafetensorsDtype) {
    this.name = name;
  }
}

/** Memory that tensors are views of. */
class Storage {
  readonly key: string;
  readonly type: StorageType;
  /** Elements, or bytes if untyped. */
  readonly count: number;
  readonly #views = new Map<SafetensorsDtype, SafetensorsData>();
  #bytes: Uint8Array | null = null;

  constructor(key: string, type: StorageType, count: number) {
    this.key = key;
    this.type = type;
    this.count = count;
  }

  /** Bytes an element. */
  get width(): number {
    const { dtype } = this.type;
    return dtype === null ? 1 : widthOf(dtype);
  }

  set bytes(bytes: Uint8Array) {
    const expected = this.count * this.width;
    if (bytes.length !== expected) {
      throw new UserError(
        `storage ${quote(this.key)} has ${bytes.length} bytes, expected ${expected}`,
      );
    }
    this.#bytes = bytes;
  }

  /** Its elements; the same array every time. */
  view(dtype: SafetensorsDtype): SafetensorsData {
    const known = this.#views.get(dtype);
    if (known !== undefined) return known;
    if (this.#bytes === null) throw new UserError(`storage ${quote(this.key)} is missing`);
    const whole = this.#bytes.length - this.#bytes.length % widthOf(dtype);
    const view = typedView(this.#bytes.subarray(0, whole), dtype);
    this.#views.set(dtype, view);
    return view;
  }
}

/** A tensor as the file describes it. */
class StridedTensor {
  readonly storage: Storage;
  readonly dtype: SafetensorsDtype;
  /** Of the first element, in elements. */
  readonly offset: number;
  readonly shape: readonly number[];
  /** Elements from one to the next along each axis. */
  readonly strides: readonly number[];

  constructor(
    [storage, offset, shape, strides]: readonly unknown[],
    dtype: SafetensorsDtype | null = storage instanceof Storage ? storage.type.dtype : null,
  ) {
    if (
      !(storage instanceof Storage) || dtype === null || !isCount(offset) || !isSizes(shape) ||
      !isSizes(strides) || shape.length !== strides.length
    ) {
      throw new UserError("a tensor without proper storage, offset, shape and strides");
    }
    this.storage = storage;
    this.dtype = dtype;
    this.offset = offset;
    // Copies: later opcodes could change the lists.
    this.shape = [...shape];
    this.strides = [...strides];
  }
}

/** Bytes an element. */
const widthOf = (dtype: SafetensorsDtype) => typedView(new Uint8Array(), dtype).BYTES_PER_ELEMENT;

const isCount = (value: unknown): value is number =>
  Number.isSafeInteger(value) && value as number >= 0;
const isSizes = (value: unknown): value is number[] =>
  Array.isArray(value) && value.length <= MAX_AXES && value.every(isCount);

/** The names that a file may use; whatever they stand for in Python, these functions run instead. */
function globals(fileBytes: number): Map<string, unknown> {
  let copied = 0;
  const orderedDict: Callable = ([pairs = []]) => {
    if (!Array.isArray(pairs)) throw new UserError(`an OrderedDict of ${kind(pairs)}`);
    // A list that is named often could be copied as often.
    copied += pairs.length;
    if (copied > fileBytes || !pairs.every((pair) => Array.isArray(pair) && pair.length === 2)) {
      throw new UserError("an OrderedDict of a list that is too long, or not of pairs");
    }
    return new Map(pairs);
  };
  const tensor: Callable = (args) => new StridedTensor(args);
  const withDtype: Callable = (args) =>
    new StridedTensor(args, args[6] instanceof Dtype ? args[6].name : null);
  const parameter: Callable = ([tensor]) => tensor;
  const size: Callable = ([sizes]) => sizes;
  const device: Callable = () => null;
  return new Map<string, unknown>([
    ["collections.OrderedDict", orderedDict],
    ["torch._utils._rebuild_tensor", tensor],
    ["torch._utils._rebuild_tensor_v2", tensor],
    ["torch._utils._rebuild_tensor_v3", withDtype],
    ["torch._utils._rebuild_parameter", parameter],
    ["torch.Size", size],
    ["torch.device", device],
    ["torch.storage.UntypedStorage", new StorageType(null)],
    ...DTYPES.map(([name, dtype]) => [`torch.${dtype}`, new Dtype(name)] as const),
    ...DTYPES.flatMap(([name, , storage]) =>
      storage === undefined ? [] : [[`torch.${storage}`, new StorageType(name)] as const]
    ),
  ]);
}

/** Unpickles, and collects the storages that persistent ids name. */
class Objects {
  readonly storages = new Map<string, Storage>();
  readonly #bytes: Uint8Array;
  readonly #globals: ReadonlyMap<string, unknown>;

  constructor(bytes: Uint8Array) {
    this.#bytes = bytes;
    this.#globals = globals(bytes.length);
  }

  read(begin: number): { value: unknown; end: number } {
    return unpickle(this.#bytes, begin, {
      globals: this.#globals,
      persistent: (id) => this.#storage(id),
    });
  }

  /** ("storage", class, key, device, count) and in legacy files a view, which PyTorch has not written since 0.4. */
  #storage(id: unknown): Storage {
    const [name, type, key, , count, view = null] = Array.isArray(id) ? id : [];
    if (
      name !== "storage" || !(type instanceof StorageType) || typeof key !== "string" ||
      !isCount(count) || view !== null
    ) {
      throw new UserError("the pickle refers to something other than a storage");
    }
    const known = this.storages.get(key);
    if (known === undefined) {
      const storage = new Storage(key, type, count);
      this.storages.set(key, storage);
      return storage;
    }
    if (known.type !== type || known.count !== count) {
      throw new UserError(`storage ${quote(key)} has two types or lengths`);
    }
    return known;
  }
}

/** `<name>/data.pkl`, and `<name>/data/<key>` for each storage. */
function readArchive(bytes: Uint8Array): unknown {
  // torch.save stores without compression.
  const entries = readZip(bytes, bytes.length);
  const pickles = [...entries.keys()].filter((name) => /^[^/]+\/data\.pkl$/.test(name));
  if (pickles.length !== 1) {
    throw new UserError(`a zip with ${pickles.length} data.pkl, expected one: not of PyTorch`);
  }
  const folder = pickles[0]!.slice(0, -"data.pkl".length);
  const order = entries.get(`${folder}byteorder`);
  if (order !== undefined && new TextDecoder().decode(order) !== "little") {
    throw new UserError("big-endian values are not read");
  }
  const objects = new Objects(entries.get(pickles[0]!)!);
  const { value } = objects.read(0);
  for (const [key, storage] of objects.storages) {
    const data = entries.get(`${folder}data/${key}`);
    if (data === undefined) throw new UserError(`storage ${quote(key)} is missing`);
    storage.bytes = data;
  }
  return value;
}

/** Pickles of magic number, version, system, object and keys; then each storage's count and elements. */
function readLegacy(bytes: Uint8Array): unknown {
  const objects = new Objects(bytes);
  let at = 0;
  const next = (): unknown => {
    const { value, end } = objects.read(at);
    at = end;
    return value;
  };
  if (next() !== MAGIC) throw new UserError("a pickle, but not of PyTorch: no magic number");
  const version = next();
  if (version !== PROTOCOL_VERSION) throw new UserError("another version of PyTorch's format");
  const system = next();
  if (system instanceof Map && system.get("little_endian") === false) {
    throw new UserError("big-endian values are not read");
  }
  const value = next();
  const keys = next();
  if (!Array.isArray(keys)) throw new UserError(`${kind(keys)} in place of the list of storages`);
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  for (const key of keys) {
    const storage = objects.storages.get(key);
    if (storage === undefined) throw new UserError("a storage that no tensor uses");
    const end = at + 8 + storage.count * storage.width;
    if (end > bytes.length) {
      throw new UserError(
        `cut short: storage ${quote(key)} ends at byte ${end}, the file has ${bytes.length}`,
      );
    }
    const count = view.getBigUint64(at, true);
    if (count !== BigInt(storage.count)) {
      throw new UserError(`storage ${quote(key)} has ${count} values, expected ${storage.count}`);
    }
    storage.bytes = bytes.subarray(at + 8, end);
    at = end;
  }
  return value;
}

/** The dict with the most tensors: a checkpoint holds several, and averages or scores beside them. */
function findStateDict(root: unknown): { path: string; tensors: Map<string, StridedTensor> } {
  const queue = [{ path: [] as readonly string[], value: root }];
  const seen = new Set<unknown>();
  let best = { path: "", tensors: new Map<string, StridedTensor>() };
  for (const { path, value } of queue) {
    if (!(value instanceof Map) || seen.has(value)) continue;
    seen.add(value);
    const tensors = new Map<string, StridedTensor>();
    for (const [key, inner] of value as Map<unknown, unknown>) {
      if (typeof key !== "string") continue;
      if (inner instanceof StridedTensor) tensors.set(key, inner);
      else if (path.length < MAX_DEPTH) queue.push({ path: [...path, key], value: inner });
    }
    if (tensors.size > best.tensors.size) best = { path: path.join("."), tensors };
  }
  if (best.tensors.size === 0) {
    const keys = root instanceof Map
      ? [...root.keys()].filter((key) => typeof key === "string")
      : [];
    throw new UserError(
      "no dict of tensors: the file holds " +
        (keys.length === 0 ? kind(root) : `a dict of ${keys.slice(0, 10).map(quote).join(", ")}`),
    );
  }
  return best;
}

/**
 * The elements in row-major order: a view where they are already, else a copy.
 *
 * @param budget bytes that copies may still take; tensors can repeat elements, or overlap
 */
function rowMajor(
  name: string,
  { storage, dtype, offset, shape, strides }: StridedTensor,
  budget: { bytes: number },
): SafeTensor {
  const values = storage.view(dtype);
  const count = shape.includes(0) ? 0 : shape.reduce((n, side) => n * side, 1);
  const end = count === 0
    ? offset
    : shape.reduce((last, side, axis) => last + (side - 1) * strides[axis]!, offset + 1);
  if (end > values.length) {
    throw new UserError(
      `tensor ${quote(name)} of shape [${shape}] and strides [${strides}] ends at element ${end} ` +
        `of its storage, which has ${values.length}`,
    );
  }
  if (isRowMajor(shape, strides) || count === 0) {
    return { dtype, shape, data: values.subarray(offset, offset + count) };
  }
  budget.bytes -= count * values.BYTES_PER_ELEMENT;
  // Written so that NaN is refused: a count may be past all numbers.
  if (!(budget.bytes >= 0)) {
    throw new UserError(
      `tensor ${quote(name)} of shape [${shape}] and strides [${strides}]: copies of strided ` +
        "tensors take more than four times the size of the file",
    );
  }
  return { dtype, shape, data: gather(values, count, { offset, shape, strides }) };
}

/** Strides along axes of one element say nothing. */
function isRowMajor(shape: readonly number[], strides: readonly number[]): boolean {
  let step = 1;
  for (let axis = shape.length - 1; axis >= 0; axis--) {
    if (shape[axis] !== 1 && strides[axis] !== step) return false;
    step *= shape[axis]!;
  }
  return true;
}

/** Copies elements like an odometer: the last axis turns fastest. */
function gather(
  values: SafetensorsData,
  count: number,
  { offset, shape, strides }: Pick<StridedTensor, "offset" | "shape" | "strides">,
): SafetensorsData {
  const Data = values.constructor as new (length: number) => SafetensorsData;
  const copy = new Data(count);
  // Both are of one type, whichever it is.
  const [from, to] = [values, copy] as [Float32Array, Float32Array];
  const index = shape.map(() => 0);
  let at = offset;
  for (let i = 0; i < count; i++) {
    to[i] = from[at]!;
    for (let axis = shape.length - 1; axis >= 0; axis--) {
      at += strides[axis]!;
      if (++index[axis]! < shape[axis]!) break;
      at -= strides[axis]! * shape[axis]!;
      index[axis] = 0;
    }
  }
  return copy;
}
