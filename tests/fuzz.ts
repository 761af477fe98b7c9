/**
 * `deno task fuzz`: damaged files for every reader. What comes of each must be a value of bounded size
 * or a UserError, in bounded time. A case is a function of (seed, target, number), so a bad one is
 * found again by `--target NAME --from NUMBER --cases 1`.
 */

import { parseArgs } from "node:util";
import type { FuzzReply, FuzzRequest } from "./support/fuzz_worker.ts";

/** What to run. */
export interface FuzzOptions {
  /** Cases in all. */
  readonly cases: number;
  readonly seed: number;
  /** One reader instead of all. */
  readonly target?: string | undefined;
  /** Number of the first case of each reader. */
  readonly from?: number;
  /** Called as cases are done. */
  readonly onProgress?: (done: number) => void;
}

/** What came out. */
export interface FuzzResult {
  readonly cases: number;
  /** One line for each failure. */
  readonly failures: readonly string[];
  /** How many cases gave a value, by reader: one that refuses everything tests little. */
  readonly values: Readonly<Record<string, number>>;
}

/** A case that takes longer hangs; the slowest good ones take a tenth of a second on an idle machine. */
const HANG_MS = 30_000;

/** Runs cases in a worker, which can be ended where one of them hangs. */
export function fuzz(
  { cases, seed, target, from = 0, onProgress }: FuzzOptions,
): Promise<FuzzResult> {
  const url = new URL("./support/fuzz_worker.ts", import.meta.url);
  const worker = new Worker(url, { type: "module" });
  return new Promise<FuzzResult>((resolve, reject) => {
    let at = "the start";
    const hang = () => reject(new Error(`a case hangs: ${at}`));
    let watch = setTimeout(hang, HANG_MS);
    worker.onmessage = ({ data }: MessageEvent<FuzzReply>) => {
      clearTimeout(watch);
      if ("result" in data) return resolve(data.result);
      at = data.at;
      onProgress?.(data.done);
      watch = setTimeout(hang, HANG_MS);
    };
    worker.onerror = (event) => {
      clearTimeout(watch);
      event.preventDefault();
      reject(new Error(`after ${at}: ${event.message}`));
    };
    const request: FuzzRequest = { cases, seed, from, target: target ?? null };
    worker.postMessage(request);
  }).finally(() => worker.terminate());
}

if (import.meta.main) {
  const { values } = parseArgs({
    options: {
      cases: { type: "string", default: "1000000" },
      seed: { type: "string", default: "0" },
      target: { type: "string" },
      from: { type: "string", default: "0" },
    },
  });
  const started = performance.now();
  const minutes = () => ((performance.now() - started) / 60_000).toFixed(1);
  let told = 0;
  const result = await fuzz({
    cases: Number(values.cases),
    seed: Number(values.seed),
    target: values.target,
    from: Number(values.from),
    onProgress(done) {
      if (done - told < 100_000) return;
      told = done;
      console.error(`${done} cases, ${minutes()} min`);
    },
  });
  console.log(`${result.cases} cases in ${minutes()} min, ${result.failures.length} failures`);
  for (const [name, count] of Object.entries(result.values)) {
    console.log(`  ${name.padEnd(12)} ${count} values`);
  }
  result.failures.forEach((failure) => console.log(failure));
  Deno.exit(result.failures.length === 0 ? 0 : 1);
}
