/** The worker of `tests/fuzz.ts`. */

import { UserError } from "../../src/errors.ts";
import { Random } from "../../src/random.ts";
import type { FuzzResult } from "../fuzz.ts";
import { fuzzTargets, sizeOfValue, type Target } from "./fuzz_targets.ts";
import { mutate } from "./mutate.ts";

/** What to run; `target` null is every reader. */
export interface FuzzRequest {
  readonly cases: number;
  readonly seed: number;
  readonly from: number;
  readonly target: string | null;
}

/** What is about to run after how many cases, or the end. */
export type FuzzReply =
  | { readonly done: number; readonly at: string }
  | { readonly result: FuzzResult };

/** Time between two replies, but for the case that is running. */
const REPLY_MS = 200;
/** Failures of a reader that are reported: more are likely the same. */
const MOST_FAILURES = 3;
/** What a reader may take beyond what the whole of them takes at the start. */
const MEMORY_BYTES = 2 ** 30;

/** The part of a worker's global scope that is used here; the checker knows only a window's. */
const scope = globalThis as unknown as {
  onmessage: (event: MessageEvent<FuzzRequest>) => void;
  postMessage(reply: FuzzReply): void;
};

scope.onmessage = async ({ data }) => {
  const dir = await Deno.makeTempDir();
  try {
    const all = await fuzzTargets(dir);
    const targets = all.filter(({ name }) => data.target === null || name === data.target);
    scope.postMessage({ result: await run(targets, data) });
  } finally {
    await Deno.remove(dir, { recursive: true });
  }
};

async function run(
  targets: readonly Target[],
  { cases, seed, from }: FuzzRequest,
): Promise<FuzzResult> {
  const each = Math.ceil(cases / targets.length);
  const failures: string[] = [];
  const values: Record<string, number> = {};
  let done = 0;
  let replied = 0;
  for (const target of targets) {
    const before = Deno.memoryUsage().rss;
    let failed = 0;
    values[target.name] = 0;
    for (let i = from; i < from + each && failed < MOST_FAILURES; i++, done++) {
      if (performance.now() - replied > REPLY_MS) {
        replied = performance.now();
        scope.postMessage({ done, at: `${target.name} ${i} or soon after` });
      }
      const bytes = mutate(target, new Random(seed, target.name, i));
      try {
        const size = sizeOfValue(await target.read(bytes));
        if (size > target.limit(bytes)) {
          throw new Error(`a value of ${size} bytes from ${bytes.length}`);
        }
        values[target.name]!++;
      } catch (error) {
        if (error instanceof UserError && !error.message.includes("\n")) continue;
        failed++;
        failures.push(`${target.name} ${i}: ${error instanceof Error ? error.stack : error}`);
      }
    }
    const grown = Deno.memoryUsage().rss - before;
    if (grown > MEMORY_BYTES) failures.push(`${target.name}: memory grew by ${grown} bytes`);
  }
  return { cases: done, failures, values };
}
