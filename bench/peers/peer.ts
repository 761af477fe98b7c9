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

/** How often something is done between two waits, and how many such times the median is of. */
export interface Effort {
  readonly times: number;
  readonly runs: number;
}

/** For the work of one kernel. */
export const KERNEL: Effort = { times: 10, runs: 3 };
/** For a training step, which some take minutes for. */
export const STEP: Effort = { times: 1, runs: 1 };

/** The median of the seconds that the work takes once, after warming up. */
export async function medianOf(run: Run, { times, runs }: Effort): Promise<number> {
  await run(1);
  const seconds: number[] = [];
  for (let i = 0; i < runs; i++) {
    const start = performance.now();
    await run(times);
    seconds.push((performance.now() - start) / 1000 / times);
  }
  return seconds.sort((a, b) => a - b)[seconds.length >> 1]!;
}

/** Uniform-looking numbers in [−1, 1]. */
export function waves(size: number): Float32Array<ArrayBuffer> {
  return Float32Array.from({ length: size }, (_, i) => Math.sin(1.7 * i + size));
}
