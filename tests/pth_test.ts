import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import { type Zippable, zipSync } from "npm:fflate@0.8.2";
import { UserError } from "../src/errors.ts";
import { decodePth } from "../src/formats/pth.ts";
import { type Safetensors, toFloat32 } from "../src/formats/safetensors.ts";
import { decodeWeights } from "../src/formats/weights.ts";
import { Random } from "../src/random.ts";
import { FIXTURES, readFixture } from "./support/fixture.ts";

const fixture = (name: string) => Deno.readFileSync(new URL(`weights_${name}.pth`, FIXTURES));
const expected = await readFixture("weights");

const DTYPES: Readonly<Record<string, string>> = {
  f64: "F64",
  f16: "F16",
  bf16: "BF16",
  i64: "I64",
  i32: "I32",
  i16: "I16",
  i8: "I8",
  u8: "U8",
  bool: "BOOL",
};

/** Opcodes as Latin-1 text. */
const latin1 = (text: string) => Buffer.from(text, "latin1");
/** PROTO 2, opcodes, STOP. */
const pickle = (opcodes: string) => latin1(`\x80\x02${opcodes}.`);
const text = (value: string) => `U${String.fromCharCode(value.length)}${value}`;
const list = (...values: string[]) => `](${values.join("")}e`;
const tuple = (...values: (string | number)[]) =>
  `(${values.map((v) => typeof v === "string" ? v : `K${String.fromCharCode(v)}`).join("")}t`;
const dict = (entries: Readonly<Record<string, string>>) =>
  `}(${Object.entries(entries).map(([key, value]) => text(key) + value).join("")}u`;
const storage = (key: string, type: string, count: number) =>
  tuple(text("storage"), `c${type.replace(/\.(\w+)$/, "\n$1")}\n`, text(key), text("cpu"), count) +
  "Q";
const floats = (key: string, count: number) => storage(key, "torch.FloatStorage", count);
const tensor = (storage: string, offset: string | number, shape: string, strides: string) =>
  `ctorch._utils\n_rebuild_tensor_v2\n${
    tuple(storage, offset, shape, strides, "\x89", "ccollections\nOrderedDict\n)R")
  }R`;

/** A file of the format before 1.6, with an object and float32 storages by their keys. */
function legacy(object: string, storages: Readonly<Record<string, readonly number[]>> = {}) {
  const parts = [
    pickle("\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19"),
    pickle("M\xe9\x03"),
    pickle(dict({ little_endian: "\x88" })),
    pickle(object),
    pickle(list(...Object.keys(storages).map(text))),
  ];
  for (const values of Object.values(storages)) {
    const count = Buffer.alloc(8);
    count.writeBigUInt64LE(BigInt(values.length));
    parts.push(count, Buffer.from(new Float32Array(values).buffer));
  }
  return Uint8Array.from(Buffer.concat(parts));
}

/** A file of the format since 1.6. */
function zip(
  object: string,
  storages: Readonly<Record<string, Uint8Array>> = {},
  more: Zippable = {},
) {
  const data = Object.entries(storages).map(([key, bytes]) => [`x/data/${key}`, bytes]);
  const entries = {
    "x/data.pkl": Uint8Array.from(pickle(object)),
    ...Object.fromEntries(data),
    ...more,
  };
  return zipSync(entries, { level: 0 });
}

function refuses(bytes: Uint8Array, message: RegExp): void {
  assert.throws(() => decodePth(bytes, "weights.pth"), (error: Error) => {
    assert.ok(error instanceof UserError, error.stack);
    assert.ok(error.message.startsWith("weights.pth: "), error.message);
    assert.match(error.message.slice("weights.pth: ".length), message);
    return true;
  });
}

function assertHolds({ tensors }: Safetensors, group: string): void {
  const names = expected.names(`${group}.`).map((name) => name.slice(group.length + 1));
  assert.deepEqual([...tensors.keys()].sort(), names.sort());
  for (const [name, actual] of tensors) {
    const { shape, data } = expected.tensor(`${group}.${name}`);
    assert.deepEqual(actual.shape, shape, name);
    assert.equal(actual.dtype, name.endsWith("tracked") ? "I64" : DTYPES[name] ?? "F32", name);
    assert.deepEqual(toFloat32(actual), data, name);
  }
}

Deno.test("decodePth() reads every dtype and layout that PyTorch saves, in both formats", () => {
  const inZip = decodePth(fixture("zip"));
  assertHolds(inZip, "values");
  assert.deepEqual(inZip.metadata, { format: "PyTorch zip" });
  const inLegacy = decodePth(fixture("legacy"));
  assertHolds(inLegacy, "values");
  assert.deepEqual(inLegacy.metadata, { format: "PyTorch legacy" });
  assert.deepEqual([...inZip.tensors.keys()], [...inLegacy.tensors.keys()]);
});

Deno.test("decodePth() keeps shared memory shared, and reads files inside larger buffers", () => {
  for (const name of ["zip", "legacy"]) {
    const bytes = fixture(name);
    const odd = new Uint8Array(bytes.length + 3).subarray(3);
    odd.set(bytes);
    for (const content of [bytes, Buffer.from(bytes), odd]) {
      const { tensors } = decodePth(content);
      const [base, tied, row] = ["base", "tied", "row"].map((name) => tensors.get(name)!.data);
      assert.equal(tied!.buffer, base!.buffer);
      assert.equal(tied!.byteOffset, base!.byteOffset);
      assert.equal(row!.buffer, base!.buffer);
      assertHolds({ tensors, metadata: {} }, "values");
    }
  }
});

Deno.test("decodePth() finds the state_dict of a checkpoint and strips DataParallel's prefix", () => {
  for (const name of ["zip", "legacy"]) {
    const read = decodePth(fixture(`checkpoint_${name}`));
    assertHolds(read, "checkpoint");
    assert.equal(read.metadata.dict, "nested.state_dict");
    assert.equal(read.metadata.stripped, "module.");
  }
});

Deno.test("decodePth() takes the larger dict, of equals the first, and strips no single prefix", () => {
  const one = tensor(floats("0", 1), 0, tuple(1), tuple(1));
  const model = dict({ "module.a": one, b: one });
  const values = { "0": [7] };
  const read = (object: string) => decodePth(legacy(object, values));
  const names = (object: string) => [...read(object).tensors.keys()];
  assert.deepEqual(names(dict({ best: one, model, ema: dict({ c: one, d: one }) })), [
    "module.a",
    "b",
  ]);
  assert.equal(read(dict({ best: one, model })).metadata.dict, "model");
  assert.deepEqual(read(model).metadata, { format: "PyTorch legacy" });
  const deep = [..."abcdefgh"].reduceRight((inner, key) => dict({ [key]: inner }), model);
  assert.equal(read(deep).metadata.dict, "a.b.c.d.e.f.g.h");
  refuses(legacy(dict({ z: deep }), values), /^no dict of tensors: the file holds a dict of "z"$/);
  refuses(legacy(one, values), /^no dict of tensors: the file holds an object$/);
  refuses(legacy("K\x01"), /^no dict of tensors: the file holds a number$/);
  // A dict that holds itself.
  refuses(legacy("}q\x00U\x01ah\x00s"), /^no dict of tensors: the file holds a dict of "a"$/);
});

Deno.test("decodePth() reads what other versions write: untyped storages, Python 2, parameters", () => {
  const untyped = storage("k", "torch.storage.UntypedStorage", 8);
  const rebuild = (more: string) =>
    `ctorch._utils\n_rebuild_tensor_v3\n${
      tuple(untyped, 1, tuple(1), tuple(1), "\x89", "}", ...(more === "" ? [] : [more]))
    }R`;
  const bytes = Uint8Array.of(1, 0, 0, 0, 0xff, 0xff, 0xff, 0xff);
  const { tensors } = decodePth(zip(dict({ u: rebuild("ctorch\nuint32\n") }), { k: bytes }));
  assert.deepEqual(tensors.get("u"), {
    dtype: "U32",
    shape: [1],
    data: Uint32Array.of(2 ** 32 - 1),
  });
  refuses(zip(dict({ u: rebuild("") }), { k: bytes }), /^a tensor without proper storage/);

  const old = `ctorch._utils\n_rebuild_tensor\n${tuple(floats("0", 2), 0, tuple(2), tuple(1))}R`;
  const parameter = `ctorch._utils\n_rebuild_parameter\n${tuple(old, "\x88", "}")}R`;
  const pairs = list(list(text("a"), parameter));
  const read = decodePth(legacy(`ccollections\nOrderedDict\n${pairs}\x85R`, { "0": [1, 2] }));
  assert.deepEqual(toFloat32(read.tensors.get("a")!), Float32Array.of(1, 2));
  refuses(legacy("ccollections\nOrderedDict\n](K\x01e\x85R"), /^an OrderedDict of a list/);
  refuses(legacy("ccollections\nOrderedDict\nK\x01\x85R"), /^an OrderedDict of a number$/);
});

Deno.test("decodePth() refuses programs by name, in both formats", () => {
  const system = `cposix\nsystem\n${text("id")}\x85R`;
  for (const file of [legacy(system), zip(system), legacy(dict({ args: system }))]) {
    refuses(file, /^pickle global posix\.system is not allowed/);
  }
  refuses(legacy("cargparse\nNamespace\n)\x81"), /^pickle global argparse\.Namespace is not/);
  refuses(legacy("ctorch\ndevice\n)\x81"), /^pickle opcode NEWOBJ /);
  refuses(legacy(`(${text("id")}ios\nsystem\n`), /^pickle opcode INST /);
  refuses(legacy("ctorch\nFloatStorage\n)R"), /^the pickle calls an object with a list$/);
  refuses(legacy("K\x01Q"), /^the pickle refers to something other than a storage$/);
  refuses(
    legacy(tuple(text("module"), "ctorch\nSize\n", text("x.py"), text("")) + "Q"),
    /^the pickle refers to something other than a storage$/,
  );
});

Deno.test("decodePth() refuses tensors that do not fit their storage", () => {
  const file = (offset: string | number, shape: string, strides: string) =>
    legacy(dict({ a: tensor(floats("0", 6), offset, shape, strides) }), {
      "0": [0, 1, 2, 3, 4, 5],
    });
  assert.deepEqual(
    [...toFloat32(decodePth(file(1, tuple(2, 2), tuple(3, 1))).tensors.get("a")!)],
    [1, 2, 4, 5],
  );
  const outside =
    /^tensor "a" of shape \[[\d,]+\] and strides .* ends at element \S+ of its storage/;
  refuses(file(0, tuple(7), tuple(1)), outside);
  refuses(file(6, tuple(1), tuple(1)), outside);
  refuses(file(7, tuple(0), tuple(1)), outside);
  refuses(file(0, tuple(3, 2), tuple(1, 4)), outside);
  const most = "\x8a\x07\xff\xff\xff\xff\xff\xff\x1f";
  refuses(file(0, tuple(most, most), tuple(most, 1)), outside);
  const improper = /^a tensor without proper storage, offset, shape and strides$/;
  refuses(file(0, tuple("J\xff\xff\xff\xff"), tuple(1)), improper);
  refuses(file(0, tuple(2), tuple("J\xff\xff\xff\xff")), improper);
  refuses(file("N", tuple(2), tuple(1)), improper);
  refuses(file(0, tuple(2, 1), tuple(1)), improper);
  refuses(file(0, tuple("\x8a\x08\xff\xff\xff\xff\xff\xff\xff\x7f"), tuple(1)), improper);
  const ones = tuple(...Array(65).fill(1));
  refuses(file(0, ones, ones), improper);
});

Deno.test("decodePth() copies strided tensors up to four times the file, and no more", () => {
  const repeated = (count: string) =>
    legacy(dict({ a: tensor(floats("0", 1), 0, tuple(count, 1), tuple(0, 1)) }), { "0": [9] });
  const { data } = decodePth(repeated("K\x64")).tensors.get("a")!;
  assert.deepEqual(data, new Float32Array(100).fill(9));
  const tooMany = /^tensor "a" of shape \[\d+,1\] .* more than four times the size of the file$/;
  refuses(repeated("M\xe8\x03"), tooMany);
  refuses(repeated("J\xff\xff\xff\x7f"), tooMany);
  const most = "\x8a\x07\xff\xff\xff\xff\xff\xff\x1f";
  const zeros = tuple(...Array(64).fill(0));
  const huge = tensor(floats("0", 1), 0, tuple(...Array(64).fill(most)), zeros);
  refuses(legacy(dict({ a: huge }), { "0": [9] }), /more than four times/);
  const none = tensor(floats("0", 1), 0, tuple(...Array(63).fill(most), 0), zeros);
  assert.equal(decodePth(legacy(dict({ a: none }), { "0": [9] })).tensors.get("a")!.data.length, 0);
});

Deno.test("decodePth() refuses storages that are missing or of another length", () => {
  const object = dict({ a: tensor(floats("s", 2), 0, tuple(2), tuple(1)) });
  refuses(legacy(object), /^storage "s" is missing$/);
  refuses(zip(object), /^storage "s" is missing$/);
  refuses(zip(object, { s: new Uint8Array(7) }), /^storage "s" has 7 bytes, expected 8$/);
  refuses(legacy(object, { s: [1, 2, 3] }), /^storage "s" has 3 values, expected 2$/);
  refuses(legacy(object, { s: [1] }), /^cut short: storage "s" ends at byte/);
  refuses(legacy(object, { s: [1, 2], t: [1] }), /^a storage that no tensor uses$/);
  const twice = dict({
    a: tensor(floats("s", 2), 0, tuple(2), tuple(1)),
    b: tensor(floats("s", 3), 0, tuple(2), tuple(1)),
  });
  refuses(legacy(twice, { s: [1, 2] }), /^storage "s" has two types or lengths$/);
});

Deno.test("decodePth() refuses other pickles and zips, big-endian values and archives that explode", () => {
  refuses(pickle("K\x01"), /^a pickle, but not of PyTorch: no magic number$/);
  const magic = pickle("\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19");
  refuses(Buffer.concat([magic, pickle("K\x01")]), /^another version of PyTorch's format$/);
  const big = [magic, pickle("M\xe9\x03"), pickle(dict({ little_endian: "\x89" }))];
  refuses(Buffer.concat(big), /^big-endian values are not read$/);
  refuses(zip("N", {}, { "x/byteorder": latin1("big") }), /^big-endian values are not read$/);

  refuses(zipSync({ "a.npy": Uint8Array.of(1) }), /^a zip with 0 data\.pkl, expected one/);
  refuses(zip("N", {}, { "y/data.pkl": Uint8Array.of(1) }), /^a zip with 2 data\.pkl/);
  const bomb = zipSync({ "x/data.pkl": new Uint8Array(1e6) });
  assert.ok(bomb.length < 2e3);
  refuses(bomb, /^the zip unpacks to more than \d+ bytes$/);

  const bytes = zip("N");
  const end = bytes.length - 22;
  const changed = (at: number, ...values: number[]) => {
    const copy = bytes.slice();
    copy.set(values, at);
    return copy;
  };
  refuses(changed(end, 0), /^cut short: the zip has no directory at its end$/);
  refuses(changed(end + 8, 0xff, 0xff), /^a zip of more than 65 534 entries or 4 GB is not read$/);
  refuses(changed(end + 16, 0xff, 0xff, 0xff, 0xff), /^a zip of more than 65 534 entries/);
  refuses(changed(end + 8, 0xfe, 0xff), /^a zip with 0 data|^the zip|^a zip/);
  const directory = new DataView(bytes.buffer).getUint32(end + 16, true);
  refuses(changed(directory + 10, 99), /^the zip cannot be unpacked: unknown compression type 99$/);
  refuses(changed(directory + 20, 0xff, 0xff), /^entries of the zip overlap$/);
});

Deno.test("a PyTorch file that is cut short anywhere is refused", () => {
  for (const name of ["zip", "legacy", "checkpoint_zip", "checkpoint_legacy"]) {
    const bytes = fixture(name);
    for (let length = 2; length < bytes.length; length += length < 400 ? 1 : 37) {
      assert.throws(() => decodePth(bytes.subarray(0, length)), UserError, `${name} at ${length}`);
    }
  }
});

Deno.test("decodeWeights() of a mutated file gives tensors or a UserError, within its bound", () => {
  const files = ["zip", "legacy", "checkpoint_zip", "checkpoint_legacy"].map(fixture);
  files.push(Deno.readFileSync(new URL("weights.safetensors", FIXTURES)));
  const random = new Random(0, "mutations");
  let read = 0;
  for (let i = 0; i < 3000; i++) {
    const bytes = mutate(files, random);
    let tensors;
    try {
      ({ tensors } = decodeWeights(bytes, "mutated"));
    } catch (error) {
      if (error instanceof UserError && error.message.startsWith("mutated: ")) continue;
      throw new Error(`mutation ${i}`, { cause: error });
    }
    read++;
    const buffers = new Set([...tensors.values()].map(({ data }) => data.buffer));
    const size = [...buffers].reduce((sum, { byteLength }) => sum + byteLength, 0);
    assert.ok(size <= 6 * bytes.length + 64, `mutation ${i}: ${size} bytes of ${bytes.length}`);
    for (const [name, { shape, data }] of tensors) {
      assert.equal(data.length, shape.reduce((n, side) => n * side, 1), `mutation ${i}: ${name}`);
    }
  }
  assert.ok(read > 300 && read < 2700, `${read} of 3000 mutations can be read`);
});

/** A file with a few bytes changed, removed, doubled or moved in from another file. */
function mutate(files: readonly Uint8Array[], random: Random): Uint8Array {
  const pick = () => files[random.integer(files.length)]!;
  let bytes = Uint8Array.from(pick());
  const rounds = 1 + random.integer(3);
  for (let round = 0; round < rounds; round++) {
    const at = random.integer(bytes.length);
    const length = 1 + random.integer(16);
    const splice = (...middle: Uint8Array[]) =>
      Uint8Array.from(
        Buffer.concat([bytes.subarray(0, at), ...middle, bytes.subarray(at + length)]),
      );
    switch (random.integer(6)) {
      case 0:
        bytes[at]! ^= 1 << random.integer(8);
        break;
      case 1:
        bytes[at] = [0, 1, 0x7f, 0x80, 0xff][random.integer(5)]!;
        break;
      case 2:
        bytes.fill(0xff, at, at + length);
        break;
      case 3:
        bytes = splice();
        break;
      case 4:
        bytes = splice(bytes.subarray(at, at + length), bytes.subarray(at, at + length));
        break;
      default: {
        const other = pick();
        const from = random.integer(other.length);
        bytes = splice(other.subarray(from, from + length));
      }
    }
  }
  return bytes;
}
