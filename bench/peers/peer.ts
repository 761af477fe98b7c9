/** The other libraries that do the same work on the same machine, in the same run. */

/** What a case asks of a peer: one run of it, from arrays in memory to the result. */
export type Work =
  | { readonly op: "step"; readonly width: number; readonly batch: number }
  | {
    readonly op: "conv2d";
    readonly direction: "forward" | "input gradient" | "weight gradient";
    readonly n: number;
    readonly size: number;
    readonly inputs: number;
    readonly outputs: number;
    readonly kernel: number;
    readonly stride: number;
  }
  | {
    readonly op: "matmul";
    readonly m: number;
    readonly k: number;
    readonly n: number;
    readonly transposeA: boolean;
    readonly transposeB: boolean;
  }
  | {
    readonly op: "ntXent";
    readonly rows: number;
    readonly d: number;
    readonly temperature: number;
  }
  /** One iteration of Lloyd's algorithm. */
  | { readonly op: "kmeans"; readonly n: number; readonly d: number; readonly k: number };

/** A library to compare with. */
export interface Peer {
  readonly name: string;
  /** The median time of one run in seconds, warm; null for what it cannot do. */
  seconds(work: Work): Promise<number | null>;
}

/** Does the work so many times and waits once: a wait alone costs Deno more than 10 ms. */
export type Run = (times: number) => Promise<unknown>;

/** Seconds between two waits, about, where the work is short enough to be done more than once. */
const steady = 0.5;
/** Seconds after which no further measurement begins: some peers take minutes for a training step. */
const patience = 5;

/** The median of the seconds that the work takes once, after warming up: of five, or of those that time allows. */
export async function medianOf(run: Run): Promise<number> {
  const timed = async (times: number) => {
    const start = performance.now();
    await run(times);
    return (performance.now() - start) / 1000 / times;
  };
  await timed(1);
  const begin = performance.now();
  const once = await timed(1);
  const times = Math.max(1, Math.min(10, Math.floor(steady / once)));
  const seconds = times > 1 ? [await timed(times)] : [once];
  while (seconds.length < 5 && performance.now() - begin < patience * 1000) {
    seconds.push(await timed(times));
  }
  return seconds.sort((a, b) => a - b)[seconds.length >> 1]!;
}

/** Uniform-looking numbers in [−1, 1]. */
export function waves(size: number): Float32Array<ArrayBuffer> {
  return Float32Array.from({ length: size }, (_, i) => Math.sin(1.7 * i + size));
}
