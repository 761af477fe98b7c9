/** Values of an operation and its gradients as PyTorch computed them; written by `tests/reference`. */

import { decodeSafetensors, type SafeTensor } from "../../src/formats/safetensors.ts";

/** A tensor of a fixture, row-major, already in the layout of the operation under test. */
export interface FixtureTensor {
  readonly shape: readonly number[];
  readonly data: Float32Array;
}

/** The tensors of one fixture file, named `case.tensor`. */
export class Fixture {
  readonly name: string;
  readonly metadata: Readonly<Record<string, string>>;
  readonly #tensors: Map<string, SafeTensor>;

  /** @param bytes A whole safetensors file. */
  constructor(name: string, bytes: Uint8Array) {
    const { tensors, metadata } = decodeSafetensors(bytes, `fixture ${name}`);
    this.name = name;
    this.metadata = metadata;
    this.#tensors = tensors;
  }

  /** The names of all tensors, or of those that begin with `prefix`, in the order of the file. */
  names(prefix = ""): string[] {
    return [...this.#tensors.keys()].filter((name) => name.startsWith(prefix));
  }

  /** The cases (what stands before the first dot of the names), each once. */
  cases(): string[] {
    return [...new Set(this.names().map((name) => name.split(".")[0]!))];
  }

  /** Whether there is a tensor of this name. */
  has(name: string): boolean {
    return this.#tensors.has(name);
  }

  /** A float32 tensor. */
  tensor(name: string): FixtureTensor {
    const { shape, dtype, data } = this.#get(name);
    if (!(data instanceof Float32Array)) throw this.#error(`${name} is ${dtype}, not F32`);
    return { shape, data };
  }

  /** A tensor of bytes, such as an image. */
  bytes(name: string): { readonly shape: readonly number[]; readonly data: Uint8Array } {
    const { shape, dtype, data } = this.#get(name);
    if (!(data instanceof Uint8Array)) throw this.#error(`${name} is ${dtype}, not U8`);
    return { shape, data };
  }

  /** The value of a float32 tensor of one element. */
  scalar(name: string): number {
    return this.#only(name, [...this.tensor(name).data]);
  }

  /** The values of an int64 tensor. */
  integers(name: string): number[] {
    const { dtype, data } = this.#get(name);
    if (!(data instanceof BigInt64Array)) throw this.#error(`${name} is ${dtype}, not I64`);
    return Array.from(data, Number);
  }

  /** The value of an int64 tensor of one element: an option such as `k3.stride`. */
  integer(name: string): number {
    return this.#only(name, this.integers(name));
  }

  #get(name: string): SafeTensor {
    const tensor = this.#tensors.get(name);
    if (!tensor) throw this.#error(`there is no ${name}`);
    return tensor;
  }

  #only(name: string, values: number[]): number {
    if (values.length !== 1) throw this.#error(`${name} has ${values.length} elements, not 1`);
    return values[0]!;
  }

  #error(problem: string): Error {
    return new Error(`fixture ${this.name}: ${problem}`);
  }
}

/** The folder of the committed fixtures. */
export const FIXTURES: URL = new URL("../fixtures/", import.meta.url);

/** Reads `tests/fixtures/<name>.safetensors`. */
export async function readFixture(name: string): Promise<Fixture> {
  return new Fixture(name, await Deno.readFile(new URL(`${name}.safetensors`, FIXTURES)));
}
