import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import { UserError } from "../src/errors.ts";
import { decodeNpy, encodeNpy, type NpyArray } from "../src/formats/npy.ts";

/** `numpy.save` of the array [[1, 2, 3]] as float32, by NumPy 1.24. */
const BY_NUMPY = Uint8Array.of(
  ...[0x93, ...new TextEncoder().encode("NUMPY"), 1, 0, 0x76, 0],
  ...new TextEncoder().encode("{'descr': '<f4', 'fortran_order': False, 'shape': (1, 3), }"),
  ...new Array(58).fill(0x20),
  0x0a,
  ...[0, 0, 0x80, 0x3f, 0, 0, 0, 0x40, 0, 0, 0x40, 0x40],
);

/** The same file with one part of its header replaced by another of the same length. */
function edited(from: string, to: string): Uint8Array {
  assert.equal(from.length, to.length);
  const text = new TextDecoder("latin1").decode(BY_NUMPY);
  assert.ok(text.includes(from));
  return Uint8Array.from(BY_NUMPY, (byte, i) => {
    const at = i - text.indexOf(from);
    return at >= 0 && at < to.length ? to.charCodeAt(at) : byte;
  });
}

Deno.test("encodeNpy() writes a small array as numpy.save does", () => {
  assert.deepEqual(encodeNpy({ shape: [1, 3], data: Float32Array.of(1, 2, 3) }), BY_NUMPY);
});

Deno.test("decodeNpy() reads a Node Buffer, which lies somewhere in a larger one", () => {
  const bytes = Buffer.concat([Buffer.alloc(3), BY_NUMPY]).subarray(3);
  assert.deepEqual(decodeNpy(bytes), { shape: [1, 3], data: Float32Array.of(1, 2, 3) });
});

Deno.test("decodeNpy() returns every dtype and shape written", () => {
  const arrays: NpyArray[] = [
    { shape: [], data: Float64Array.of(Math.PI) },
    { shape: [2], data: BigInt64Array.of(-1n, 2n ** 62n) },
    { shape: [2, 1, 2], data: Uint8Array.of(0, 1, 254, 255) },
    { shape: [2], data: Int8Array.of(-128, 127) },
    { shape: [2], data: Uint16Array.of(1, 65535) },
    { shape: [2], data: Int16Array.of(-2, 32767) },
    { shape: [1, 2], data: Uint32Array.of(1, 2 ** 32 - 1) },
    { shape: [2, 1], data: Int32Array.of(-(2 ** 31), 1) },
    { shape: [2], data: BigUint64Array.of(1n, 2n ** 64n - 1n) },
    { shape: [0, 5], data: new Float32Array() },
  ];
  for (const array of arrays) {
    const bytes = encodeNpy(array);
    assert.equal((bytes.length - array.data.byteLength) % 64, 0);
    const shifted = new Uint8Array(bytes.length + 1).subarray(1);
    shifted.set(bytes);
    assert.deepEqual(decodeNpy(shifted), array);
  }
});

Deno.test("decodeNpy() refuses what it does not read, and says what it found", () => {
  const refuses = (bytes: Uint8Array, message: RegExp) =>
    assert.throws(
      () => decodeNpy(bytes, "x.npy"),
      (error: Error) => error instanceof UserError && message.test(error.message),
    );
  refuses(new Uint8Array(5), /^x.npy: not a .npy file$/);
  refuses(new Uint8Array(128), /^x.npy: not a .npy file$/);
  refuses(edited("\x01\x00", "\x02\x00"), /version 2.0, expected 1.0/);
  refuses(edited("<f4", ">f4"), /dtype >f4, expected one of <f4, <f8, <i8, \|u1/);
  refuses(edited("False", " True"), /column-major/);
  refuses(edited("'shape'", "'shave'"), /no shape in the header/);
  refuses(edited("(1, 3)", "(2, 3)"), /12 bytes of values, .* shape \[2,3\] need 24/);
  refuses(BY_NUMPY.subarray(0, -1), /11 bytes of values/);
});

Deno.test("encodeNpy() refuses a shape that does not fit", () => {
  assert.throws(
    () => encodeNpy({ shape: [2, 2], data: new Uint8Array(3) }),
    /3 values, shape \[2,2\]/,
  );
});
