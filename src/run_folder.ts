/**
 * The folder of a training run:
 *
 * ```
 * config.json                   everything the run was started with; written once
 * metrics.jsonl                 one JSON object a line, in the order of the steps
 * checkpoints/last.safetensors  what --resume goes on from
 * encoder.safetensors           the result
 * model.safetensors             of fine-tuning: encoder and head of the best epoch,
 * last.safetensors              and of the last
 * samples.png                   what the method makes of a few images, if it shows any
 * skipped.txt                   images that --skip-bad left out, and why
 * events.out.tfevents.*         the metrics for TensorBoard, if asked for
 * report.html                   the curves
 * ```
 */

import { appendFileSync, existsSync, mkdirSync, readdirSync, statSync } from "node:fs";
import { dirname, join } from "node:path";
import { UserError } from "./errors.ts";
import { errorCode, readBytes, readText, writeAtomically } from "./files.ts";

/** A file of a run folder. */
export type RunFile =
  | "config"
  | "metrics"
  | "checkpoint"
  | "encoder"
  | "model"
  | "last"
  | "samples"
  | "skipped"
  | "report";

const FILES: Readonly<Record<RunFile, string>> = {
  config: "config.json",
  metrics: "metrics.jsonl",
  checkpoint: "checkpoints/last.safetensors",
  encoder: "encoder.safetensors",
  model: "model.safetensors",
  last: "last.safetensors",
  samples: "samples.png",
  skipped: "skipped.txt",
  report: "report.html",
};

/** A JSON object. */
export type JsonObject = Readonly<Record<string, unknown>>;

/** What one field of a row holds: a number, or related numbers by name. Null is a number that was not finite. */
export type Measure = number | null | Readonly<Record<string, number | null>>;

/**
 * A line of metrics.jsonl: what was measured after `step` optimiser steps. Methods add fields of their own;
 * the report draws a curve for each.
 */
export interface MetricsRow {
  /** Optimiser steps done. */
  readonly step: number;
  /** Passes over the data done; a fraction within an epoch. */
  readonly epoch: number;
  /** Mean training loss since the row before. */
  readonly loss?: number | null;
  /** Learning rate of the last step. */
  readonly lr?: number | null;
  /** Images trained on in a second. */
  readonly images_per_s?: number | null;
  /** Bytes of GPU memory in use. */
  readonly gpu_bytes?: number | null;
  /** Collapse monitor: mean over dimensions of the standard deviation of L2-normalised embeddings. */
  readonly std?: number | null;
  /** kNN scores on the validation images, by name: auroc, accuracy, … */
  readonly knn?: Readonly<Record<string, number | null>>;
  /** Measures of a method's own. */
  readonly [measure: string]: Measure | undefined;
}

/**
 * Makes the folder of a new run: `out`, or the next free `<root>/<method>-<n>`. Two processes never get the
 * same one.
 *
 * @throws UserError if `out` is a file or a folder that is not empty.
 */
export function createRun(method: string, out?: string, root = "runs"): RunFolder {
  return new RunFolder(out === undefined ? nextFree(root, method) : emptyFolder(out));
}

/**
 * Opens the folder of a run that exists.
 *
 * @throws UserError if there is none at this path.
 */
export function openRun(path: string): RunFolder {
  const run = new RunFolder(path);
  if (!statSync(path, { throwIfNoEntry: false })) {
    throw new UserError(`${path}: no such run folder`);
  }
  if (!existsSync(run.pathOf("config"))) {
    throw new UserError(`${path}: not a run folder, it holds no ${FILES.config}`);
  }
  return run;
}

/** A run folder; made by {@link createRun} or {@link openRun}. */
export class RunFolder {
  /** Path of the folder. */
  readonly path: string;
  /** Hears of every row that is logged, after it is written. */
  onLog: (row: MetricsRow) => void = () => {};

  /** The run in a folder that exists. */
  constructor(path: string) {
    this.path = path;
  }

  /** Path of one of its files, which may not exist. */
  pathOf(file: RunFile): string {
    return join(this.path, FILES[file]);
  }

  /** Whether one of its files exists. */
  has(file: RunFile): boolean {
    return existsSync(this.pathOf(file));
  }

  /**
   * The bytes of one of its files.
   *
   * @throws UserError naming the file if it cannot be read.
   */
  read(file: RunFile): Uint8Array<ArrayBuffer> {
    return readBytes(this.pathOf(file));
  }

  /** Writes or replaces one of its files; a crash leaves the old content or the new one. */
  write(file: Exclude<RunFile, "config" | "metrics">, content: Uint8Array | string): void {
    mkdirSync(dirname(this.pathOf(file)), { recursive: true });
    writeAtomically(this.pathOf(file), content);
  }

  /**
   * Writes the configuration of a new run.
   *
   * @throws Error if it is written already: a run keeps the configuration it was started with.
   */
  writeConfig(config: JsonObject): void {
    if (this.has("config")) {
      throw new Error(`${this.pathOf("config")}: exists, and is never rewritten`);
    }
    writeAtomically(this.pathOf("config"), JSON.stringify(config, null, 2) + "\n");
  }

  /**
   * The configuration the run was started with.
   *
   * @throws UserError naming file and position if it is not a JSON object.
   */
  readConfig(): JsonObject {
    const path = this.pathOf("config");
    return parseObject(readText(path), path);
  }

  /** Adds a line to the metrics. It is with the operating system when this returns. */
  log(row: MetricsRow): void {
    appendFileSync(this.pathOf("metrics"), JSON.stringify(row) + "\n");
    this.onLog(row);
  }

  /**
   * All metrics logged so far; a last line that a crash left unfinished is not among them.
   *
   * @throws UserError naming file and line if another line is no row of metrics.
   */
  readMetrics(): MetricsRow[] {
    if (!this.has("metrics")) return [];
    const path = this.pathOf("metrics");
    const lines = readText(path).split("\n").slice(0, -1);
    return lines.map((line, i) => {
      const where = `${path}: line ${i + 1}`;
      const row = parseObject(line, where);
      for (const field of ["step", "epoch"]) {
        if (typeof row[field] !== "number") {
          throw new UserError(
            `${where}: ${field} is ${JSON.stringify(row[field])}, expected a number`,
          );
        }
      }
      return row as MetricsRow;
    });
  }

  /** Drops the metrics of later steps, so that a run resumed at `step` does not log them twice. */
  rewindMetrics(step: number): void {
    const kept = this.readMetrics().filter((row) => row.step <= step);
    writeAtomically(this.pathOf("metrics"), kept.map((row) => JSON.stringify(row) + "\n").join(""));
  }
}

function nextFree(root: string, method: string): string {
  mkdirSync(root, { recursive: true });
  const taken = readdirSync(root)
    .filter((name) => name.startsWith(`${method}-`))
    .map((name) => Number(name.slice(method.length + 1)))
    .filter(Number.isInteger);
  for (let n = Math.max(0, ...taken) + 1;; n++) {
    const path = join(root, `${method}-${n}`);
    try {
      mkdirSync(path);
      return path;
    } catch (error) {
      // Another process was faster.
      if (errorCode(error) !== "EEXIST") throw error;
    }
  }
}

function emptyFolder(path: string): string {
  try {
    mkdirSync(path, { recursive: true });
    if (readdirSync(path).length === 0) return path;
  } catch (error) {
    const code = errorCode(error);
    if (code === undefined) throw error;
    const problem = code === "EEXIST" || code === "ENOTDIR" ? "a file is in the way" : code;
    throw new UserError(`--out ${path}: cannot make this folder: ${problem}`);
  }
  throw new UserError(`--out ${path}: the folder is not empty`);
}

function parseObject(text: string, where: string): JsonObject {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (error) {
    // The message quotes the text, and errors are one line.
    throw new UserError(`${where}: ${(error as Error).message.replaceAll("\n", " ")}`);
  }
  if (typeof value === "object" && value !== null && !Array.isArray(value)) {
    return value as JsonObject;
  }
  throw new UserError(`${where}: expected a JSON object, got ${JSON.stringify(value)}`);
}
