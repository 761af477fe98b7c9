/**
 * Counter-based random numbers: a value is a pure function of (seed, stream, counters), so any
 * sample of any step can be drawn alone, in any order, on the CPU or in a shader, with the same bits.
 *
 * The generator is pcg4d of M. Jarzynski and M. Olano, "Hash Functions for GPU Rendering",
 * JCGT 9(3), 2020; the same function stands in `shaders/dropout.wgsl`.
 */

/** Four random u32 words for four u32 counters. */
export function pcg4d(
  a: number,
  b: number,
  c: number,
  d: number,
): [number, number, number, number] {
  let x = (Math.imul(a, 1664525) + 1013904223) >>> 0;
  let y = (Math.imul(b, 1664525) + 1013904223) >>> 0;
  let z = (Math.imul(c, 1664525) + 1013904223) >>> 0;
  let w = (Math.imul(d, 1664525) + 1013904223) >>> 0;
  const mix = () => {
    x = (x + Math.imul(y, w)) >>> 0;
    y = (y + Math.imul(z, x)) >>> 0;
    z = (z + Math.imul(x, y)) >>> 0;
    w = (w + Math.imul(y, z)) >>> 0;
  };
  mix();
  x ^= x >>> 16;
  y ^= y >>> 16;
  z ^= z >>> 16;
  w ^= w >>> 16;
  mix();
  return [x, y, z, w];
}

/** A 32-bit stream number for a name (FNV-1a), so that streams are told apart by what they are for. */
export function streamId(name: string): number {
  let hash = 0x811c9dc5;
  for (let i = 0; i < name.length; i++) hash = Math.imul(hash ^ name.charCodeAt(i), 0x01000193);
  return hash >>> 0;
}

/**
 * A sequence of random numbers at a fixed (seed, stream, index): the state is only a counter.
 *
 * @example
 * ```ts
 * import { Random } from "./random.ts";
 * const random = new Random(0, "augment", 17);
 * random.uniform(0.08, 1);
 * ```
 */
export class Random {
  readonly #seed: number;
  readonly #stream: number;
  readonly #index: number;
  #counter = 0;
  #words: readonly number[] = [];
  #unused = 0;

  /** Starts at the first number of (seed, stream, index). */
  constructor(seed: number, stream: string, index = 0) {
    this.#seed = seed >>> 0;
    this.#stream = streamId(stream);
    this.#index = index >>> 0;
  }

  /** The next 32 random bits. */
  u32(): number {
    if (this.#unused === 0) {
      this.#words = pcg4d(this.#seed, this.#stream, this.#index, this.#counter++);
      this.#unused = 4;
    }
    return this.#words[--this.#unused]!;
  }

  /** Uniform in [low, high), 24 bits of resolution, exact in f32 for [0, 1). */
  uniform(low = 0, high = 1): number {
    return low + (high - low) * ((this.u32() >>> 8) / 0x1000000);
  }

  /** A uniform integer in [0, n). */
  integer(n: number): number {
    return Math.floor((this.u32() / 0x100000000) * n);
  }

  /** A standard normal number (Box–Muller). */
  normal(): number {
    const radius = Math.sqrt(-2 * Math.log(1 - this.uniform()));
    return radius * Math.cos(2 * Math.PI * this.uniform());
  }

  /** Shuffles in place (Fisher–Yates) and returns the array. */
  shuffle<T>(items: T[]): T[] {
    for (let i = items.length - 1; i > 0; i--) {
      const j = this.integer(i + 1);
      [items[i], items[j]] = [items[j]!, items[i]!];
    }
    return items;
  }
}
