/** Computes the cells of a study, one after the other, beside any other process that does the same. */
import { existsSync, mkdirSync, rmSync } from "node:fs";
import { join } from "node:path";
import { classify, loadClassifier, probabilities } from "../classifier.ts";
import { finetuneConfig, flags as finetuneFlags } from "../commands/finetune.ts";
import { parseFlags } from "../commands/flags.ts";
import { architectureFrom, type Init, readInit } from "../commands/init.ts";
import { prepareTraining, reopenTraining } from "../commands/train.ts";
import { ImageSet } from "../data/image_set.ts";
import { UserError } from "../errors.ts";
import { finetune, type FinetuneOutcome, type FinetuneReporter } from "../finetune.ts";
import { Gpu } from "../gpu/gpu.ts";
import type { ResNetOptions } from "../nn/resnet.ts";
import { renderReport } from "../report/report.ts";
import { type MetricsRow, RunFolder } from "../run_folder.ts";
import { type Reporter, train } from "../train.ts";
import { version } from "../version.ts";
import {
  type Arm,
  type Cell,
  cellId,
  type CellKey,
  type PretrainCell,
  type ScoreCell,
  type Scored,
} from "./cell.ts";
import { pretrainingFlags, pretrainingSteps, relativeTo, type StudyConfig } from "./config.ts";
import type { StudyFolder } from "./folder.ts";
import {
  featureMaps,
  type FeatureSource,
  type FrozenScore,
  rounded,
  scoreKnn,
  scoreLinear,
  type StudyFeatures,
  studyFeatures,
} from "./frozen.ts";
import { gradCamSheet } from "./gradcam_sheet.ts";
import type { PlannedCell } from "./plan.ts";
import { StudyTarget } from "./target.ts";

/** Shows a study to whoever watches. */
export interface StudyReporter extends Reporter, Pick<FinetuneReporter, "validated"> {
  /** A cell is finished. */
  finished(id: string, cell: Cell): void;
}

/** How a study ended for a process. */
export interface StudyOutcome {
  /**
   * `done`: all chosen cells are there; `interrupted`: by the signal; `elsewhere`: other processes are at
   * what is left; `failed`: some cells could not be computed.
   */
  readonly status: "done" | "interrupted" | "elsewhere" | "failed";
  /** Chosen cells that are not there. */
  readonly left: readonly string[];
}

/** Milliseconds between two looks for cells of other processes that ours wait for. */
const patience = 2000;

/**
 * Computes the cells that nobody has computed. One that fails by the user's mistake is reported and left
 * out, with those that need it.
 *
 * @param cells in an order in which each comes after those that it needs
 * @param signal stops the cell at hand; pretraining keeps its steps
 */
export async function runStudy(
  config: StudyConfig,
  folder: StudyFolder,
  cells: readonly PlannedCell[],
  reporter: StudyReporter,
  signal: AbortSignal,
): Promise<StudyOutcome> {
  const study = new Study(config, folder, reporter);
  await study.openTarget();
  const failed = new Set<string>();
  for (;;) {
    for (const { id, needs } of cells) if (needs.some((need) => failed.has(need))) failed.add(id);
    const left = cells.filter(({ id }) => !folder.has(id));
    const open = left.filter(({ id }) => !failed.has(id));
    const ended = (status: StudyOutcome["status"]) => ({ status, left: left.map(({ id }) => id) });
    if (signal.aborted) return ended("interrupted");
    if (open.length === 0) return ended(left.length === 0 ? "done" : "failed");
    // Weights are not kept with the cells: a pretraining may be needed again where only its cell is.
    const lost = cells.filter((cell) =>
      folder.has(cell.id) && !study.isComplete(cell) &&
      open.some(({ needs }) => needs.includes(cell.id))
    );
    const done = (id: string) => folder.has(id) && !lost.some((cell) => cell.id === id);
    const ready = study.arrange([...lost, ...open].filter(({ needs }) => needs.every(done)));
    if (await computeOne(study, ready, failed, signal)) continue;
    if (signal.aborted) continue;
    if (open.every((cell) => ready.includes(cell))) return ended("elsewhere");
    await new Promise((resolve) => setTimeout(resolve, patience));
  }
}

/** Computes the first of some cells that no other process holds; false if there is none. */
async function computeOne(
  study: Study,
  cells: readonly PlannedCell[],
  failed: Set<string>,
  signal: AbortSignal,
): Promise<boolean> {
  for (const cell of cells) {
    const lock = study.folder.locks.take(cell.id);
    if (lock === null) continue;
    try {
      if (study.isComplete(cell)) return true;
      await study.compute(cell, AbortSignal.any([signal, lock.lost]));
    } catch (error) {
      if (!(error instanceof UserError)) throw error;
      failed.add(cell.id);
      study.reporter.line(`${cell.id}: ${error.message}`);
    } finally {
      lock.release();
    }
    return true;
  }
  return false;
}

/** A study with what its cells share, one cell at a time. */
export class Study {
  readonly folder: StudyFolder;
  readonly reporter: StudyReporter;
  readonly #config: StudyConfig;
  #target: Promise<StudyTarget> | null = null;
  #features: { readonly encoder: string; readonly of: StudyFeatures } | null = null;

  constructor(config: StudyConfig, folder: StudyFolder, reporter: StudyReporter) {
    this.#config = config;
    this.folder = folder;
    this.reporter = reporter;
  }

  /**
   * Cells in their order, but first those of the encoder whose features are at hand, and last those of one
   * that another process is at: so that features are not computed twice.
   */
  arrange(cells: readonly PlannedCell[]): readonly PlannedCell[] {
    const busy = new Set(
      cells.filter(({ id, key }) => isFrozen(key) && this.folder.locks.isHeld(id))
        .map(({ key }) => encoderOf(key)),
    );
    const rank = ({ key }: PlannedCell) =>
      !isFrozen(key)
        ? 1
        : encoderOf(key) === this.#features?.encoder
        ? 0
        : busy.has(encoderOf(key))
        ? 2
        : 1;
    return cells.toSorted((a, b) => rank(a) - rank(b));
  }

  /** Whether nothing is left to do for a cell: of a pretraining, its weights are there too. */
  isComplete({ id, key }: PlannedCell): boolean {
    return this.folder.has(id) && (key.kind !== "pretrain" || this.#isPretrained(key));
  }

  /** Computes a cell and keeps it, unless it is interrupted. */
  async compute({ id, key }: PlannedCell, signal: AbortSignal): Promise<void> {
    const started = performance.now();
    this.reporter.stage(id);
    const gpu = await Gpu.open();
    try {
      const content = key.kind === "pretrain"
        ? await this.#pretrain(gpu, key, signal)
        : key.kind === "finetune"
        ? await this.#finetune(gpu, id, key, signal)
        : await this.#frozen(gpu, key);
      if (content === null) return;
      const cell = {
        ...content,
        origin: {
          adapter: gpu.adapter.description,
          wgrad: version,
          deno: Deno.version.deno,
          finished: new Date().toISOString(),
          seconds: rounded([
            // A pretraining may have been stopped before.
            content.kind === "pretrain"
              ? content.views / content.viewsPerSecond
              : (performance.now() - started) / 1000,
          ])[0]!,
        },
      };
      this.folder.write(id, cell);
      this.reporter.finished(id, cell);
    } finally {
      gpu.close();
    }
  }

  /** The target; its description is written when it is first opened. */
  openTarget(): Promise<StudyTarget> {
    const open = async () => {
      const target = await StudyTarget.open(this.#config.target, this.#config.imageSize);
      const { target: data } = relativeTo(this.folder.path, this.#config);
      await this.folder.writeTarget(target.describe(data));
      return target;
    };
    return this.#target ??= open();
  }

  /** The report of its run is written last. */
  #isPretrained({ arm, seed }: Pick<PretrainCell, "arm" | "seed">): boolean {
    return existsSync(join(this.folder.pretraining(arm.name, seed), "report.html"));
  }

  async #pretrain(
    gpu: Gpu,
    { arm, seed }: Pick<PretrainCell, "arm" | "seed">,
    signal: AbortSignal,
  ): Promise<Omit<PretrainCell, "origin"> | null> {
    const { method, set } = arm;
    const { steps, viewsPerStep } = pretrainingSteps(this.#config, method);
    const path = this.folder.pretraining(arm.name, seed);
    const { run, config, data } = existsSync(join(path, "checkpoints", "last.safetensors"))
      ? await reopenTraining(path, { cache: true, epochs: undefined }, this.reporter)
      : await this.#beginTraining(gpu, path, method, set!, steps, seed);
    const outcome = await train(gpu, config, data, run, this.reporter, signal);
    if (outcome.status === "interrupted") return null;
    run.write("report", renderReport(run));
    const rows = run.readMetrics().filter(({ loss }) => loss !== undefined);
    const { data: spec } = relativeTo(this.folder.path, this.#config).sets[set!]!;
    return {
      kind: "pretrain",
      arm,
      seed,
      views: outcome.step * viewsPerStep,
      images: data.images.count,
      steps: outcome.step,
      viewsPerSecond: Number(
        (viewsPerStep / (config.batch * config.accumulate) * meanRate(rows)).toPrecision(4),
      ),
      loss: thinned(rows).map(({ step, loss }) => [step, rounded([loss ?? NaN])[0]!] as const),
      config: { ...run.readConfig(), data: spec },
    };
  }

  async #beginTraining(
    gpu: Gpu,
    path: string,
    method: string,
    set: string,
    steps: number,
    seed: number,
  ) {
    // Left by a process that ended before its first checkpoint.
    rmSync(path, { recursive: true, force: true });
    const { values, given } = pretrainingFlags(this.#config, method);
    const { data } = this.#config.sets[set]!;
    return await prepareTraining(
      { ...values, data, steps, seed, out: path },
      given,
      gpu,
      this.reporter,
    );
  }

  /** The encoder of an arm: its weights, if it does not start from random ones, and its architecture. */
  #encoder({ method, set, name, width }: Arm, seed: number) {
    const { encoder, imagenet } = this.#config;
    const file = set !== null
      ? this.folder.pretraining(name, seed)
      : method === "imagenet"
      ? imagenet.weights
      : null;
    const init = file === null ? null : readInit(file);
    const own = { ...encoder, width };
    return { init, architecture: init === null ? own : architectureFrom(own, new Set(), init) };
  }

  async #frozen(
    gpu: Gpu,
    { kind, arm, seed, fraction }: Pick<ScoreCell, "kind" | "arm" | "seed" | "fraction">,
  ): Promise<Omit<ScoreCell, "origin">> {
    const target = await this.openTarget();
    const of = await this.#featuresOf(gpu, arm, seed);
    const rows = target.rows(fraction, seed);
    const score: FrozenScore = kind === "knn"
      ? scoreKnn(target, of.features, rows)
      : scoreLinear(target, of.features, rows);
    const maps = kind === "knn" && fraction === 1 ? await featureMaps(of, seed) : null;
    return { kind, arm, seed, fraction, ...score, last: null, curve: [], maps };
  }

  /** Features, which the cells of an encoder that follow each other share. */
  async #featuresOf(gpu: Gpu, arm: Arm, seed: number): Promise<StudyFeatures> {
    const encoder = encoderOf({ arm, seed });
    if (this.#features?.encoder !== encoder) {
      const { init, architecture } = this.#encoder(arm, seed);
      const source: FeatureSource = arm.method === "pixels"
        ? "pixels"
        : init === null
        ? { untrained: architecture }
        : { file: init.file };
      const target = await this.openTarget();
      const { channels } = this.#config.encoder;
      const of = await studyFeatures(gpu, source, target, { channels, seed });
      this.#features = { encoder, of };
    }
    return this.#features.of;
  }

  async #finetune(
    gpu: Gpu,
    id: string,
    key: Pick<ScoreCell, "kind" | "arm" | "seed" | "fraction">,
    signal: AbortSignal,
  ): Promise<Omit<ScoreCell, "origin"> | null> {
    const { arm, seed } = key;
    const { finetuning: { rates }, fractions, seeds } = this.#config;
    const encoder = this.#encoder(arm, seed);
    const first = { ...key, seed: seeds[0]! };
    const searching = seed === first.seed;
    const runs = this.folder.finetuning(id);
    const tried: { rate: number; run: RunFolder; outcome: FinetuneOutcome }[] = [];
    const candidates = searching ? rates : [(this.folder.read(cellId(first)) as ScoreCell).setting];
    for (const rate of candidates) {
      // What a process that was stopped has left is gone on with.
      const run = new RunFolder(join(runs, String(rate)));
      mkdirSync(run.path, { recursive: true });
      const outcome = await this.#finetuneOnce(gpu, key, encoder, rate, run, signal);
      if (outcome.status === "interrupted") return null;
      tried.push({ rate, run, outcome });
    }
    const validation = ({ outcome }: { outcome: FinetuneOutcome }) => outcome.best!.auroc;
    const { rate, run } = tried.reduce((a, b) => validation(b) > validation(a) ? b : a);
    const data = await this.#finetuneData(key, encoder.architecture);
    if (searching && key.fraction === Math.max(...fractions.map(({ fraction }) => fraction))) {
      const sheet = await gradCamSheet(gpu, run.pathOf("model"), await this.openTarget());
      this.folder.writePicture(`${arm.name}.gradcam`, sheet);
    }
    const cell = {
      ...key,
      images: data.train.length,
      search: searching
        ? tried.map((one) => ({ setting: one.rate, validation: validation(one) }))
        : [],
      setting: rate,
      best: await this.#scoreTest(gpu, run, "model"),
      last: await this.#scoreTest(gpu, run, "last"),
      curve: learningCurve(run.readMetrics()),
      maps: null,
    };
    rmSync(runs, { recursive: true });
    return cell;
  }

  async #finetuneData({ fraction, seed }: Pick<ScoreCell, "fraction" | "seed">, {
    channels,
  }: ResNetOptions) {
    const target = await this.openTarget();
    return await target.finetuneData(fraction, seed, channels);
  }

  async #finetuneOnce(
    gpu: Gpu,
    { fraction, seed }: Pick<ScoreCell, "fraction" | "seed">,
    { init, architecture }: { init: Init | null; architecture: ResNetOptions },
    lr: number,
    run: RunFolder,
    signal: AbortSignal,
  ): Promise<FinetuneOutcome> {
    const { finetuning: { weightDecay }, fractions } = this.#config;
    const { epochs, batch } = fractions.find((part) => part.fraction === fraction)!;
    const data = await this.#finetuneData({ fraction, seed }, architecture);
    const { values } = parseFlags(finetuneFlags, ["--init", init?.file ?? "none"]);
    const config = finetuneConfig(
      { ...values, labelFraction: fraction, seed, lr, weightDecay, epochs, batch },
      architecture,
      init,
      data,
    );
    return await finetune(gpu, config, data, run, this.reporter, signal);
  }

  /** What the classifier of a fine-tuning says of the test images. */
  async #scoreTest(gpu: Gpu, run: RunFolder, file: "model" | "last"): Promise<Scored> {
    const { model, format } = await loadClassifier(gpu, run.pathOf(file));
    const target = await this.openTarget();
    const { test } = await target.images(model.encoder.options.channels);
    const images = new ImageSet(gpu, test);
    const rows = Array.from({ length: test.count }, (_, row) => row);
    const logits = await classify(model, images, rows, format);
    images.dispose();
    const { validation } = run.readMetrics().find(({ epoch, validation }) =>
      validation !== undefined && epoch === format.epoch
    )!;
    return {
      probabilities: rounded(probabilities(logits, format)),
      thresholds: rounded(format.thresholds),
      validation: (validation as { auroc: number }).auroc,
      epoch: format.epoch,
    };
  }
}

const isFrozen = ({ kind }: CellKey) => kind === "linear" || kind === "knn";
const encoderOf = ({ arm, seed }: Pick<CellKey, "arm" | "seed">) => `${arm.name}.s${seed}`;

/** Images a second over all steps but the first, which waits for kernels to be compiled. */
function meanRate(rows: readonly MetricsRow[]): number {
  const later = rows.length > 1 ? rows.slice(1) : rows;
  const seconds = later.map(({ images_per_s }) => 1 / images_per_s!);
  return seconds.length / seconds.reduce((sum, value) => sum + value, 0);
}

/** About 200 of many rows, the last among them. */
function thinned(rows: readonly MetricsRow[]): readonly MetricsRow[] {
  const every = Math.ceil(rows.length / 200);
  return rows.filter((_, i) => i % every === 0 || i === rows.length - 1);
}

/** Training loss of each epoch with the validation score after it. */
function learningCurve(rows: readonly MetricsRow[]): ScoreCell["curve"] {
  let losses: number[] = [];
  return rows.flatMap(({ epoch, loss, validation }) => {
    if (validation === undefined) {
      losses.push(loss ?? NaN);
      return [];
    }
    const mean = losses.reduce((sum, value) => sum + value, 0) / losses.length;
    losses = [];
    const { auroc } = validation as { auroc: number | null };
    return [{ epoch, loss: rounded([mean])[0]!, validation: rounded([auroc ?? NaN])[0]! }];
  });
}
