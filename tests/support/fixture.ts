/** Values of an operation and its gradients as PyTorch computed them; written by `tests/reference`. */

/** A tensor of a fixture, row-major, already in the layout of the operation under test. */
export interface FixtureTensor {
  readonly shape: number[];
  readonly data: Float32Array<ArrayBuffer>;
}

interface Entry {
  readonly dtype: string;
  readonly shape: number[];
  readonly data_offsets: [number, number];
}

/** The tensors of one fixture file, named `case.tensor`. */
export class Fixture {
  readonly name: string;
  readonly metadata: Readonly<Record<string, string>>;
  readonly #entries: Map<string, Entry>;
  readonly #bytes: Uint8Array<ArrayBuffer>;

  /** @param bytes A whole safetensors file. */
  constructor(name: string, bytes: Uint8Array<ArrayBuffer>) {
    const length = Number(new DataView(bytes.buffer).getBigUint64(0, true));
    const header = JSON.parse(new TextDecoder().decode(bytes.subarray(8, 8 + length)));
    const { __metadata__, ...entries } = header;
    this.name = name;
    this.metadata = __metadata__;
    this.#entries = new Map(Object.entries(entries as Record<string, Entry>));
    this.#bytes = bytes.slice(8 + length);
  }

  /** The names of all tensors, or of those that begin with `prefix`, in the order of the file. */
  names(prefix = ""): string[] {
    return [...this.#entries.keys()].filter((name) => name.startsWith(prefix));
  }

  /** The cases (what stands before the first dot of the names), each once. */
  cases(): string[] {
    return [...new Set(this.names().map((name) => name.split(".")[0]!))];
  }

  /** Whether there is a tensor of this name. */
  has(name: string): boolean {
    return this.#entries.has(name);
  }

  /** A float32 tensor. */
  tensor(name: string): FixtureTensor {
    return {
      shape: this.#entry(name, "F32").shape,
      data: new Float32Array(this.#slice(name, "F32")),
    };
  }

  /** A tensor of bytes, such as an image. */
  bytes(name: string): { readonly shape: number[]; readonly data: Uint8Array<ArrayBuffer> } {
    return { shape: this.#entry(name, "U8").shape, data: new Uint8Array(this.#slice(name, "U8")) };
  }

  /** The value of a float32 tensor of one element. */
  scalar(name: string): number {
    return this.#only(name, [...this.tensor(name).data]);
  }

  /** The values of an int64 tensor. */
  integers(name: string): number[] {
    return Array.from(new BigInt64Array(this.#slice(name, "I64")), Number);
  }

  /** The value of an int64 tensor of one element: an option such as `k3.stride`. */
  integer(name: string): number {
    return this.#only(name, this.integers(name));
  }

  #entry(name: string, dtype: string): Entry {
    const entry = this.#entries.get(name);
    if (!entry) throw new Error(`fixture ${this.name} has no ${name}`);
    if (entry.dtype !== dtype) {
      throw new Error(`fixture ${this.name}: ${name} is ${entry.dtype}, not ${dtype}`);
    }
    return entry;
  }

  #slice(name: string, dtype: string): ArrayBuffer {
    return this.#bytes.buffer.slice(...this.#entry(name, dtype).data_offsets);
  }

  #only(name: string, values: number[]): number {
    if (values.length !== 1) {
      throw new Error(`fixture ${this.name}: ${name} has ${values.length} elements, not 1`);
    }
    return values[0]!;
  }
}

/** Reads `tests/fixtures/<name>.safetensors`. */
export async function readFixture(name: string): Promise<Fixture> {
  const url = new URL(`../fixtures/${name}.safetensors`, import.meta.url);
  return new Fixture(name, await Deno.readFile(url));
}
