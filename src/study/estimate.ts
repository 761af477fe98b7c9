/** How long the cells of a study take on this machine: a few steps of each kind, timed in a temporary folder. */
import type { Progress } from "../train.ts";
import { type Arm, cellId, type CellKey } from "./cell.ts";
import { armsOf, type StudyConfig } from "./config.ts";
import { StudyFolder } from "./folder.ts";
import type { PlannedCell } from "./plan.ts";
import { Study } from "./run.ts";

/** Steps timed, after a first one that compiles kernels. */
const timedSteps = 10;
/** Images that an encoder sees while its running statistics are fitted. */
const adaptedImages = 6400;

/** What some steps took, in seconds. */
interface Pace {
  /** From the start to the end of the first step. */
  readonly start: number;
  /** Of each later step. */
  readonly step: number;
  /** Of the whole cell. */
  readonly steps: number;
  readonly epochs: number;
}

/**
 * Seconds that each of some cells will take.
 *
 * @param cells of one study, those that are left to compute
 * @param stage called with what is being timed
 */
export async function estimateCells(
  config: StudyConfig,
  cells: readonly PlannedCell[],
  stage: (message: string) => void,
): Promise<number[]> {
  const path = await Deno.makeTempDir({ prefix: "wgrad-study-" });
  const folder = await StudyFolder.open(path, config);
  try {
    const estimator = new Estimator(config, folder, stage);
    const seconds: number[] = [];
    let encoder = "";
    for (const { key } of cells) {
      const isFrozen = key.kind === "linear" || key.kind === "knn";
      const next = `${key.arm.name}.s${key.seed}`;
      // Cells of an encoder that follow each other share its features.
      const features = isFrozen && next !== encoder ? await estimator.features(key.arm) : 0;
      if (isFrozen) encoder = next;
      seconds.push(features + await estimator.cell(key));
    }
    return seconds;
  } finally {
    folder.close();
    await Deno.remove(path, { recursive: true });
  }
}

class Estimator {
  readonly #config: StudyConfig;
  readonly #study: Study;
  readonly #stage: (message: string) => void;
  readonly #known = new Map<string, unknown>();
  #onProgress: (progress: Progress) => void = () => {};

  constructor(config: StudyConfig, folder: StudyFolder, stage: (message: string) => void) {
    this.#config = config;
    this.#stage = stage;
    const none = () => {};
    this.#study = new Study(config, folder, {
      ...{ stage: none, compiling: none, knn: none, line: none, validated: none, finished: none },
      progress: (progress) => this.#onProgress(progress),
    });
  }

  /** A cell, the features of frozen protocols not counted. */
  async cell(key: CellKey): Promise<number> {
    if (key.kind === "linear" || key.kind === "knn") {
      await this.features(key.arm);
      return await this.#frozen(this.#likeness(key));
    }
    if (key.kind === "pretrain") {
      const { start, step, steps, epochs } = await this.#pace(key, key.arm.method);
      const { images } = await this.#target();
      const perEpoch = key.arm.method === "kmeans" ? await this.#embedding(key.arm, images) : 0;
      return start + step * (steps - 1) + perEpoch * (epochs - 1);
    }
    const { start, step, steps, epochs } = await this.#pace(
      this.#likeness(key),
      `finetune ${key.fraction} ${key.arm.width}`,
    );
    const { validation } = await this.#target();
    const once = start + step * (steps - 1) + epochs * await this.#embedding(key.arm, validation);
    const { finetuning: { rates }, seeds } = this.#config;
    return once * (key.seed === seeds[0] ? rates.length : 1);
  }

  /** The features of an arm for all labelled images, its running statistics included. */
  features(arm: Arm): Promise<number> {
    const key = this.#likeness({
      kind: "knn",
      arm,
      seed: 0,
      fraction: this.#config.fractions.at(-1)!.fraction,
    });
    return this.#once(`features ${key.arm.name}`, async () => {
      const both = await this.#time(key);
      return Math.max(0, both - await this.#time(key));
    });
  }

  /** Images through an encoder in evaluation mode. */
  async #embedding(arm: Arm, images: number): Promise<number> {
    const { images: all } = await this.#target();
    return await this.features(arm) * images / (all + adaptedImages);
  }

  #frozen(key: CellKey): Promise<number> {
    return this.#once(cellId(key), () => this.#time(key));
  }

  /** The cell of the first seed and of an arm that needs no pretraining, which takes as long. */
  #likeness<K extends CellKey>(key: K): K {
    const { arm: { method, width } } = key;
    const seed = this.#config.seeds[0]!;
    const arm = armsOf(this.#config).find((arm) =>
      method === "pixels"
        ? arm.method === "pixels"
        : arm.method === "scratch" && arm.width === width
    )!;
    return { ...key, arm, seed };
  }

  #target(): Promise<{ images: number; validation: number }> {
    return this.#once("target", async () => {
      const { parts: { train, val, test } } = await this.#study.openTarget();
      return { images: train.length + val.length + test.length, validation: val.length };
    });
  }

  /** Begins a training, and stops it after a few steps. */
  #pace(key: CellKey, name: string): Promise<Pace> {
    return this.#once(name, async () => {
      const enough = new AbortController();
      const started = performance.now();
      let first: { at: number; step: number } | null = null;
      let pace: Pace | null = null;
      this.#onProgress = ({ step, steps, epochs }) => {
        const at = performance.now();
        first ??= { at, step };
        const later = step - first.step;
        pace = {
          start: (first.at - started) / 1000,
          step: later > 0 ? (at - first.at) / 1000 / later : 0,
          steps,
          epochs,
        };
        if (later >= timedSteps) enough.abort();
      };
      await this.#time(key, enough.signal);
      return pace!;
    });
  }

  async #time(key: CellKey, signal = new AbortController().signal): Promise<number> {
    this.#stage(`timing ${cellId(key)}`);
    const started = performance.now();
    await this.#study.compute({ id: cellId(key), key, needs: [] }, signal);
    return (performance.now() - started) / 1000;
  }

  async #once<T>(name: string, measure: () => Promise<T>): Promise<T> {
    if (!this.#known.has(name)) this.#known.set(name, await measure());
    return this.#known.get(name) as T;
  }
}
