import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import { UserError } from "../src/errors.ts";
import {
  decodeSafetensors,
  encodeSafetensors,
  type SafeTensor,
  toFloat32,
} from "../src/formats/safetensors.ts";

/** A file with the given header text (not padded) and number of data bytes. */
function fileOf(header: string | Uint8Array, dataBytes = 0): Uint8Array {
  const json = typeof header === "string" ? new TextEncoder().encode(header) : header;
  const bytes = new Uint8Array(8 + json.length + dataBytes);
  new DataView(bytes.buffer).setBigUint64(0, BigInt(json.length), true);
  bytes.set(json, 8);
  return bytes;
}

function refuses(bytes: Uint8Array, message: RegExp): void {
  assert.throws(
    () => decodeSafetensors(bytes, "weights.safetensors"),
    (error: Error) =>
      error instanceof UserError && error.message.startsWith("weights.safetensors: ") &&
      message.test(error.message),
    `expected a UserError like ${message}`,
  );
}

const entry = (begin: number, end: number, shape = `[${(end - begin) / 4}]`, dtype = "F32") =>
  `{"dtype":"${dtype}","shape":${shape},"data_offsets":[${begin},${end}]}`;

Deno.test("encodeSafetensors() writes the documented bytes", () => {
  const bytes = encodeSafetensors(
    { b: { dtype: "U8", shape: [3], data: Uint8Array.of(7, 8, 9) }, a: scalar(1) },
    { format: "pt" },
  );
  const header = '{"__metadata__":{"format":"pt"},' +
    '"a":{"dtype":"F32","shape":[],"data_offsets":[0,4]},' +
    '"b":{"dtype":"U8","shape":[3],"data_offsets":[4,7]}}';
  const padded = header.padEnd(Math.ceil(header.length / 8) * 8);
  assert.equal(new DataView(bytes.buffer).getBigUint64(0, true), BigInt(padded.length));
  assert.equal(new TextDecoder().decode(bytes.subarray(8, 8 + padded.length)), padded);
  assert.deepEqual([...bytes.subarray(8 + padded.length)], [0, 0, 0x80, 0x3f, 7, 8, 9]);
});

Deno.test("decodeSafetensors() returns every dtype, shape and metadata entry written", () => {
  const tensors: Record<string, SafeTensor> = {
    f64: { dtype: "F64", shape: [2], data: Float64Array.of(Math.PI, -0) },
    f32: { dtype: "F32", shape: [1, 2], data: Float32Array.of(1.5, Infinity) },
    f16: { dtype: "F16", shape: [3], data: Float16Array.of(1.5, -65504, 0.1) },
    bf16: { dtype: "BF16", shape: [1], data: Uint16Array.of(0x3fc0) },
    i64: { dtype: "I64", shape: [2, 1], data: BigInt64Array.of(-1n, 2n ** 53n + 1n) },
    i32: { dtype: "I32", shape: [1], data: Int32Array.of(-5) },
    u32: { dtype: "U32", shape: [1], data: Uint32Array.of(0xffffffff) },
    i16: { dtype: "I16", shape: [1], data: Int16Array.of(-3) },
    u8: { dtype: "U8", shape: [1], data: Uint8Array.of(255) },
    i8: { dtype: "I8", shape: [1], data: Int8Array.of(-128) },
    bool: { dtype: "BOOL", shape: [1], data: Uint8Array.of(1) },
    empty: { dtype: "F32", shape: [3, 0, 2], data: new Float32Array() },
    '__proto__.weight "quoted" {é}': scalar(2),
    "10": scalar(10),
    "9": scalar(9),
  };
  const metadata = { seed: "0", note: "über" };
  const decoded = decodeSafetensors(encodeSafetensors(tensors, metadata));
  assert.deepEqual(Object.fromEntries(decoded.tensors), tensors);
  assert.deepEqual({ ...decoded.metadata }, metadata);
});

Deno.test("encodeSafetensors() does not depend on the order of insertion", () => {
  const names = ["fc.weight", "10", "9", "bn1.bias", "a"];
  const inOrder = new Map(names.map((name, i) => [name, scalar(i)]));
  const reversed = new Map([...inOrder].reverse());
  assert.deepEqual(
    encodeSafetensors(inOrder, { a: "1", b: "2" }),
    encodeSafetensors(reversed, { b: "2", a: "1" }),
  );
  assert.deepEqual(
    [...decodeSafetensors(encodeSafetensors(reversed)).tensors.keys()],
    names.toSorted(),
  );
});

Deno.test("encodeSafetensors() reads views that begin inside their buffer", () => {
  const data = Float32Array.of(0, 1, 2, 3).subarray(1, 3);
  const bytes = encodeSafetensors({ x: { dtype: "F32", shape: [2], data } });
  assert.deepEqual(decodeSafetensors(bytes).tensors.get("x")?.data, Float32Array.of(1, 2));
});

Deno.test("decodeSafetensors() reads tensors at odd offsets and files inside larger buffers", () => {
  const header = `{"flag":${entry(0, 1, "[1]", "BOOL")},"x":${entry(1, 9)}}`;
  const file = fileOf(header, 9);
  new DataView(file.buffer).setFloat32(file.length - 4, 2.5, true);
  const shifted = new Uint8Array(file.length + 3).subarray(3);
  shifted.set(file);
  for (const bytes of [file, shifted, Buffer.from(shifted.buffer, 3)]) {
    assert.deepEqual(decodeSafetensors(bytes).tensors.get("x")?.data, Float32Array.of(0, 2.5));
  }
});

Deno.test("decodeSafetensors() gives views of aligned data, not copies", () => {
  const bytes = encodeSafetensors({ x: { dtype: "F64", shape: [1], data: Float64Array.of(1) } });
  assert.equal(decodeSafetensors(bytes).tensors.get("x")?.data.buffer, bytes.buffer);
});

Deno.test("toFloat32() converts F16, BF16, integers and doubles", () => {
  const f32 = Float32Array.of(1, 2);
  assert.equal(toFloat32({ dtype: "F32", shape: [2], data: f32 }), f32);
  // 0x0001 is the smallest subnormal half, 0x7bff the largest number, 0xfc00 minus infinity.
  const half = new Float16Array(Uint16Array.of(0x3c00, 0x0001, 0x7bff, 0xfc00).buffer);
  assert.deepEqual(
    toFloat32({ dtype: "F16", shape: [4], data: half }),
    Float32Array.of(1, 2 ** -24, 65504, -Infinity),
  );
  const brain = Uint16Array.of(0x3f80, 0xc049, 0xff80, 0x0001, 0x7fc0);
  assert.deepEqual(
    toFloat32({ dtype: "BF16", shape: [5], data: brain }),
    Float32Array.of(1, -3.140625, -Infinity, 2 ** -133, NaN),
  );
  assert.deepEqual(
    toFloat32({ dtype: "I64", shape: [1], data: BigInt64Array.of(-7n) }),
    Float32Array.of(-7),
  );
  assert.deepEqual(
    toFloat32({ dtype: "F64", shape: [1], data: Float64Array.of(Math.PI) }),
    Float32Array.of(Math.PI),
  );
});

Deno.test("decodeSafetensors() refuses headers that are cut short, too long or no JSON object", () => {
  refuses(new Uint8Array(7), /7 bytes, expected at least 8/);
  refuses(fileOf("{}").subarray(0, 9), /header should be 2 bytes long, the file has 9/);
  refuses(new Uint8Array(8).fill(255), /header should be 18446744073709552000 bytes/);
  refuses(fileOf(""), /does not begin with "{"/);
  refuses(fileOf(" {}"), /does not begin with "{"/);
  refuses(fileOf("[]"), /does not begin with "{"/);
  refuses(fileOf("{}}"), /not valid JSON/);
  refuses(fileOf('{"a":'), /not valid JSON/);
  refuses(fileOf(Uint8Array.of(0x7b, 0x22, 0xff, 0x22, 0x3a, 0x31, 0x7d)), /not valid JSON/);
});

Deno.test("decodeSafetensors() refuses duplicate names, however they are spelt", () => {
  refuses(fileOf(`{"a":${entry(0, 4)},"a":${entry(0, 4)}}`, 4), /names "a" twice/);
  refuses(fileOf(`{"a":${entry(0, 4)}, "\\u0061" :${entry(4, 8)}}`, 8), /names "a" twice/);
  refuses(fileOf('{"__metadata__":{"k":"1","k":"2"}}'), /names "k" twice/);
  refuses(
    fileOf('{"a":{"dtype":"F32","shape":[1],"shape":[0],"data_offsets":[0,4]}}', 4),
    /names "shape" twice/,
  );
  // The same words as values, and in different objects, are no duplicates.
  const file = fileOf(`{"__metadata__":{"a":"a","b":"\\"a\\":{"},"a":${entry(0, 4)}}`, 4);
  assert.equal(decodeSafetensors(file).tensors.size, 1);
});

Deno.test("decodeSafetensors() refuses holes, overlaps and left-over bytes", () => {
  refuses(fileOf(`{"a":${entry(0, 4)},"b":${entry(8, 12)}}`, 12), /"b" leaves a hole .* byte 8/);
  refuses(fileOf(`{"a":${entry(4, 8)}}`, 8), /"a" leaves a hole/);
  refuses(
    fileOf(`{"a":${entry(0, 8)},"b":${entry(4, 8)}}`, 8),
    /"b" overlaps .* byte 4, expected 8/,
  );
  refuses(fileOf(`{"a":${entry(0, 4)},"b":${entry(0, 4)}}`, 4), /"b" overlaps/);
  refuses(fileOf(`{"a":${entry(0, 4)}}`, 5), /1 bytes after the last tensor/);
  refuses(fileOf("{}", 1), /1 bytes after the last tensor/);
  refuses(fileOf(`{"a":${entry(0, 8)}}`, 4), /"a" ends at byte 8 of the data, the file has 4/);
});

Deno.test("decodeSafetensors() refuses wrong fields and names tensor, field and value", () => {
  const a = (json: string) => fileOf(`{"a":${json}}`, 4);
  refuses(a("7"), /"a" is 7, expected an object/);
  refuses(a("[1]"), /"a" is \[1\], expected an object/);
  refuses(a(entry(0, 4, "[1]", "F8_E4M3")), /"a" has dtype "F8_E4M3", expected one of I64/);
  refuses(a('{"shape":[1],"data_offsets":[0,4]}'), /"a" has dtype missing/);
  refuses(a(entry(0, 4, "1")), /"a" has shape 1/);
  refuses(a(entry(0, 4, "[-1]")), /"a" has shape \[-1\]/);
  refuses(a(entry(0, 4, "[0.5]")), /"a" has shape \[0.5\]/);
  refuses(a('{"dtype":"F32","shape":[1],"data_offsets":[0]}'), /"a" has data_offsets \[0\]/);
  refuses(a('{"dtype":"F32","shape":[1],"data_offsets":[-4,0]}'), /"a" has data_offsets \[-4,0\]/);
  refuses(a(entry(4, 0, "[1]")), /\[4, 0\] hold -4/);
  refuses(a(entry(0, 4, "[2]")), /shape \[2\] needs 8 bytes, its data_offsets \[0, 4\] hold 4/);
  refuses(a(entry(0, 4, "[9007199254740991,9007199254740991]")), /needs NaN bytes/);
  refuses(fileOf('{"__metadata__":{"k":1}}'), /__metadata__ "k" is 1, expected a string/);
  refuses(fileOf('{"__metadata__":"x"}'), /__metadata__ is "x", expected an object/);
});

Deno.test("encodeSafetensors() refuses reserved names and data that do not fit", () => {
  const write = (name: string, tensor: SafeTensor) => () => encodeSafetensors({ [name]: tensor });
  assert.throws(write("__metadata__", scalar(1)), /"__metadata__" cannot be the name/);
  assert.throws(write("\ud800", scalar(1)), /cannot be the name/);
  assert.throws(
    write("a", { dtype: "F32", shape: [2], data: Float32Array.of(1) }),
    /"a" has 1 values, shape \[2\]/,
  );
  assert.throws(
    write("a", { dtype: "F16", shape: [1], data: Uint16Array.of(1) }),
    /dtype F16 holds a Uint16Array, expected Float16Array/,
  );
});

function scalar(value: number): SafeTensor {
  return { dtype: "F32", shape: [], data: Float32Array.of(value) };
}
