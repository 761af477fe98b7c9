/** Reads Protocol Buffers without knowing the messages: https://protobuf.dev/programming-guides/encoding. */
import assert from "node:assert/strict";

/** The values of the fields of a message by their numbers, in the order of the bytes. */
export class Message {
  readonly #fields = new Map<number, (bigint | Uint8Array)[]>();

  /** Fails on bytes that are no message. */
  constructor(bytes: Uint8Array) {
    let at = 0;
    const take = (count: number) => {
      assert.ok(at + count <= bytes.length, "a field ends after its message");
      return bytes.subarray(at, at += count);
    };
    const varint = () => {
      let [value, shift] = [0n, 0n];
      for (let more = true; more; shift += 7n) {
        const byte = take(1)[0]!;
        value |= BigInt(byte & 127) << shift;
        more = byte >= 128;
      }
      return value;
    };
    const value = (wireType: number) => {
      switch (wireType) {
        case 0:
          return varint();
        case 1:
          return take(8);
        case 2:
          return take(Number(varint()));
        case 5:
          return take(4);
        default:
          throw new Error(`wire type ${wireType}`);
      }
    };
    while (at < bytes.length) {
      const tag = Number(varint());
      const values = this.#fields.get(tag >> 3) ?? [];
      values.push(value(tag & 7));
      this.#fields.set(tag >> 3, values);
    }
  }

  /** The numbers of its fields, ascending. */
  get fields(): number[] {
    return [...this.#fields.keys()].sort((a, b) => a - b);
  }

  /** The values of a varint field. */
  integers(field: number): number[] {
    return this.#values(field).map((value) => {
      assert.equal(typeof value, "bigint", `field ${field}`);
      return Number(value);
    });
  }

  /** The values of a field of bytes, fixed-width numbers included. */
  bytes(field: number): Uint8Array[] {
    return this.#values(field).map((value) => {
      assert.ok(value instanceof Uint8Array, `field ${field}`);
      return value;
    });
  }

  /** The values of a field of strings. */
  strings(field: number): string[] {
    return this.bytes(field).map((bytes) =>
      new TextDecoder("utf-8", { fatal: true }).decode(bytes)
    );
  }

  /** The values of a float field. */
  floats(field: number): number[] {
    return this.bytes(field).map((bytes) => view(bytes, 4).getFloat32(0, true));
  }

  /** The values of a double field. */
  doubles(field: number): number[] {
    return this.bytes(field).map((bytes) => view(bytes, 8).getFloat64(0, true));
  }

  /** The values of a field of messages. */
  messages(field: number): Message[] {
    return this.bytes(field).map((bytes) => new Message(bytes));
  }

  #values(field: number): (bigint | Uint8Array)[] {
    return this.#fields.get(field) ?? [];
  }
}

function view(bytes: Uint8Array, width: number): DataView {
  assert.equal(bytes.length, width);
  return new DataView(bytes.buffer, bytes.byteOffset, width);
}
