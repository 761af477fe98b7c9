/**
 * Reads Python pickles without running them: the opcodes that `torch.save` writes, for protocols 2 to 5,
 * and names of a whitelist, which stand for functions of the caller. All else is refused by its name.
 * Format: CPython's `Lib/pickletools.py`.
 */

import { UserError } from "../errors.ts";

/** What a callable name of the whitelist stands for. */
export type Callable = (args: readonly unknown[]) => unknown;

/** What a pickle may name. */
export interface PickleRules {
  /** By full name, such as `collections.OrderedDict`: a {@link Callable}, or a value that cannot be called. */
  readonly globals: ReadonlyMap<string, unknown>;
  /** The object outside the pickle that a persistent id stands for. */
  persistent(id: unknown): unknown;
}

/** pickletools' names; those of protocol 0 and 1 by their letters. */
const OPCODES = new Map([
  ...Object.entries({
    "(": "MARK",
    ".": "STOP",
    "0": "POP",
    "1": "POP_MARK",
    "2": "DUP",
    "B": "BINBYTES",
    "C": "SHORT_BINBYTES",
    "F": "FLOAT",
    "G": "BINFLOAT",
    "I": "INT",
    "J": "BININT",
    "K": "BININT1",
    "L": "LONG",
    "M": "BININT2",
    "N": "NONE",
    "P": "PERSID",
    "Q": "BINPERSID",
    "R": "REDUCE",
    "S": "STRING",
    "T": "BINSTRING",
    "U": "SHORT_BINSTRING",
    "V": "UNICODE",
    "X": "BINUNICODE",
    "]": "EMPTY_LIST",
    "a": "APPEND",
    "b": "BUILD",
    "c": "GLOBAL",
    "d": "DICT",
    "e": "APPENDS",
    "g": "GET",
    "h": "BINGET",
    "i": "INST",
    "j": "LONG_BINGET",
    "l": "LIST",
    "o": "OBJ",
    "p": "PUT",
    "q": "BINPUT",
    "r": "LONG_BINPUT",
    "s": "SETITEM",
    "t": "TUPLE",
    "u": "SETITEMS",
    "}": "EMPTY_DICT",
    ")": "EMPTY_TUPLE",
  }).map(([letter, name]) => [letter.charCodeAt(0), name] as const),
  ...[
    "PROTO",
    "NEWOBJ",
    "EXT1",
    "EXT2",
    "EXT4",
    "TUPLE1",
    "TUPLE2",
    "TUPLE3",
    "NEWTRUE",
    "NEWFALSE",
    "LONG1",
    "LONG4",
    "SHORT_BINUNICODE",
    "BINUNICODE8",
    "BINBYTES8",
    "EMPTY_SET",
    "ADDITEMS",
    "FROZENSET",
    "NEWOBJ_EX",
    "STACK_GLOBAL",
    "MEMOIZE",
    "FRAME",
    "BYTEARRAY8",
    "NEXT_BUFFER",
    "READONLY_BUFFER",
  ].map((name, i) => [0x80 + i, name] as const),
]);

const MAX_PROTOCOL = 5;
/** A tensor takes about 45: more than 20 000 tensors fit. Objects are larger than the byte that makes one. */
const MAX_OPCODES = 2 ** 20;

/**
 * Reads one pickle: dicts become Maps, lists and tuples arrays, None null, whole numbers numbers, or
 * bigints beyond what these hold exactly.
 *
 * @param begin where in `bytes` it begins
 * @returns the value, and where the pickle ends
 * @throws UserError naming the opcode or global that is not allowed, or the place where it breaks off
 */
export function unpickle(
  bytes: Uint8Array,
  begin: number,
  rules: PickleRules,
): { value: unknown; end: number } {
  const reader = new Reader(bytes, begin);
  const stack = new Stack();
  const memo = new Map<number, unknown>();
  for (let count = 0; count < MAX_OPCODES; count++) {
    const at = reader.at;
    const code = reader.u8();
    const opcode = OPCODES.get(code) ?? `0x${code.toString(16)}`;
    switch (opcode) {
      case "PROTO": {
        const protocol = reader.u8();
        if (protocol > MAX_PROTOCOL) throw new UserError(`pickle protocol ${protocol}`);
        break;
      }
      case "FRAME":
        reader.skip(8);
        break;
      case "STOP":
        return { value: stack.pop(), end: reader.at };
      case "MARK":
        stack.mark();
        break;

      case "NONE":
        stack.push(null);
        break;
      case "NEWTRUE":
        stack.push(true);
        break;
      case "NEWFALSE":
        stack.push(false);
        break;
      case "BININT":
        stack.push(reader.i32());
        break;
      case "BININT1":
        stack.push(reader.u8());
        break;
      case "BININT2":
        stack.push(reader.u16());
        break;
      case "LONG1":
        stack.push(reader.integer(reader.u8()));
        break;
      case "BINFLOAT":
        stack.push(reader.f64());
        break;
      case "SHORT_BINSTRING":
      case "SHORT_BINUNICODE":
        stack.push(reader.text(reader.u8()));
        break;
      case "BINSTRING":
      case "BINUNICODE":
        stack.push(reader.text(reader.u32()));
        break;

      case "EMPTY_TUPLE":
      case "EMPTY_LIST":
        stack.push([]);
        break;
      case "EMPTY_DICT":
        stack.push(new Map());
        break;
      case "TUPLE1":
      case "TUPLE2":
      case "TUPLE3":
        stack.push(stack.popLast(Number(opcode.at(-1))));
        break;
      case "TUPLE":
        stack.push(stack.popToMark());
        break;
      case "APPEND":
        append(stack.popLast(1), stack.top(), opcode);
        break;
      case "APPENDS":
        append(stack.popToMark(), stack.top(), opcode);
        break;
      case "SETITEM":
        setItems(stack.popLast(2), stack.top(), opcode);
        break;
      case "SETITEMS":
        setItems(stack.popToMark(), stack.top(), opcode);
        break;

      case "BINPUT":
        memo.set(reader.u8(), stack.top());
        break;
      case "LONG_BINPUT":
        memo.set(reader.u32(), stack.top());
        break;
      case "MEMOIZE":
        memo.set(memo.size, stack.top());
        break;
      case "BINGET":
        stack.push(recall(memo, reader.u8()));
        break;
      case "LONG_BINGET":
        stack.push(recall(memo, reader.u32()));
        break;

      case "GLOBAL":
        stack.push(lookUp(`${reader.line()}.${reader.line()}`, rules));
        break;
      case "STACK_GLOBAL": {
        const names = stack.popLast(2);
        if (!names.every((name) => typeof name === "string")) {
          throw new UserError(`the pickle names a global by ${names.map(kind).join(" and ")}`);
        }
        stack.push(lookUp(names.join("."), rules));
        break;
      }
      case "REDUCE": {
        const [callable, args] = stack.popLast(2);
        if (typeof callable !== "function" || !Array.isArray(args)) {
          throw new UserError(`the pickle calls ${kind(callable)} with ${kind(args)}`);
        }
        stack.push((callable as Callable)(args));
        break;
      }
      case "BUILD": {
        // Attributes of a dict, such as a state_dict's _metadata.
        stack.pop();
        const target = stack.top();
        if (!(target instanceof Map)) {
          throw new UserError(`pickle opcode BUILD on ${kind(target)} is not allowed`);
        }
        break;
      }
      case "BINPERSID":
        stack.push(rules.persistent(stack.pop()));
        break;

      default:
        throw new UserError(`pickle opcode ${opcode} at byte ${at} is not allowed`);
    }
  }
  throw new UserError(`the pickle has more than ${MAX_OPCODES} opcodes`);
}

/** A value's kind, for messages. */
export function kind(value: unknown): string {
  if (value === null || value === undefined) return "None";
  if (Array.isArray(value)) return "a list";
  if (value instanceof Map) return "a dict";
  if (typeof value === "object") return "an object";
  return `a ${typeof value}`;
}

/** A name out of a file, for messages. */
export function quote(name: string): string {
  return JSON.stringify(name.length > 100 ? `${name.slice(0, 100)}…` : name);
}

function lookUp(name: string, { globals }: PickleRules): unknown {
  if (globals.has(name)) return globals.get(name);
  // Python's names are shown bare.
  const shown = /^[\w.]{1,100}$/.test(name) ? name : quote(name);
  throw new UserError(`pickle global ${shown} is not allowed: no state_dict needs it`);
}

function recall(memo: ReadonlyMap<number, unknown>, key: number): unknown {
  if (!memo.has(key)) {
    throw new UserError(`the pickle refers to its value ${key}, which is not there`);
  }
  return memo.get(key);
}

function append(items: readonly unknown[], target: unknown, opcode: string): void {
  if (!Array.isArray(target)) throw new UserError(`pickle opcode ${opcode} on ${kind(target)}`);
  for (const item of items) target.push(item);
}

function setItems(items: readonly unknown[], target: unknown, opcode: string): void {
  if (!(target instanceof Map)) throw new UserError(`pickle opcode ${opcode} on ${kind(target)}`);
  if (items.length % 2 !== 0) throw new UserError(`pickle opcode ${opcode}: a key without a value`);
  for (let i = 0; i < items.length; i += 2) target.set(items[i], items[i + 1]);
}

/** The values being built; MARK begins a new pile above them. */
class Stack {
  #items: unknown[] = [];
  readonly #below: unknown[][] = [];

  push(value: unknown): void {
    this.#items.push(value);
  }

  top(): unknown {
    return this.#items.length > 0 ? this.#items.at(-1) : underflow();
  }

  pop(): unknown {
    return this.#items.length > 0 ? this.#items.pop() : underflow();
  }

  /** The last values, in the order they were pushed. */
  popLast(count: number): unknown[] {
    return this.#items.length >= count ? this.#items.splice(-count) : underflow();
  }

  mark(): void {
    this.#below.push(this.#items);
    this.#items = [];
  }

  popToMark(): unknown[] {
    const items = this.#items;
    this.#items = this.#below.pop() ?? underflow();
    return items;
  }
}

function underflow(): never {
  throw new UserError("the pickle takes a value where there is none");
}

const utf8 = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

/** Little-endian numbers and text, one after the other. */
class Reader {
  at: number;
  readonly #bytes: Uint8Array;
  readonly #view: DataView;

  constructor(bytes: Uint8Array, at: number) {
    this.#bytes = bytes;
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    this.at = at;
  }

  /** Goes past so many bytes; returns where they begin. */
  skip(count: number): number {
    const begin = this.at;
    if (begin + count > this.#bytes.length) {
      throw new UserError(`cut short: the pickle goes on after byte ${this.#bytes.length}`);
    }
    this.at = begin + count;
    return begin;
  }

  u8(): number {
    return this.#view.getUint8(this.skip(1));
  }

  u16(): number {
    return this.#view.getUint16(this.skip(2), true);
  }

  u32(): number {
    return this.#view.getUint32(this.skip(4), true);
  }

  i32(): number {
    return this.#view.getInt32(this.skip(4), true);
  }

  /** The only number that is big-endian. */
  f64(): number {
    return this.#view.getFloat64(this.skip(8));
  }

  /** Two's complement of so many bytes; a bigint beyond what numbers hold exactly. */
  integer(bytes: number): number | bigint {
    const begin = this.skip(bytes);
    const value = this.#bytes.subarray(begin, this.at)
      .reduceRight((n, byte) => (n << 8n) | BigInt(byte), 0n);
    const signed = BigInt.asIntN(8 * bytes, value);
    return Number.isSafeInteger(Number(signed)) ? Number(signed) : signed;
  }

  text(bytes: number): string {
    const begin = this.skip(bytes);
    try {
      return utf8.decode(this.#bytes.subarray(begin, this.at));
    } catch {
      throw new UserError(`the text at byte ${begin} of the pickle is not UTF-8`);
    }
  }

  /** Up to the next line feed, which is left out. */
  line(): string {
    const end = this.#bytes.indexOf(0x0a, this.at);
    const text = this.text((end < 0 ? this.#bytes.length + 1 : end) - this.at);
    this.at = end + 1;
    return text;
  }
}
