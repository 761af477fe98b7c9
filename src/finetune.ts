/**
 * Fine-tuning: a classifier from labelled training images, judged on the validation images after every
 * epoch. Besides labels it sees nothing of the validation split, and nothing at all of the test split.
 */
import { backwardOf, meanOf } from "./accumulation.ts";
import { type Checkpoint, decodeCheckpoint, encodeCheckpoint } from "./checkpoint.ts";
import {
  applyHead,
  type ClassifierFormat,
  encodeClassifier,
  type LabelKind,
  probabilities,
} from "./classifier.ts";
import { drawViews, type Normalization, type Preset, presets } from "./data/augment.ts";
import type { Images } from "./data/dataset.ts";
import { ImageSet } from "./data/image_set.ts";
import { embed, encodeEncoder, readEncoderFile, weightsFor } from "./encoder.ts";
import { UserError } from "./errors.ts";
import { type FinetuneSplits, labelBalance } from "./finetune_data.ts";
import type { Gpu } from "./gpu/gpu.ts";
import {
  Classifier,
  type LossFunction,
  lossFunction,
  type Objective,
} from "./methods/supervised.ts";
import {
  auroc,
  averagePrecision,
  bestThreshold,
  constantPredictions,
  macroMean,
  perLabel,
} from "./metrics.ts";
import { ModelState } from "./nn/model_state.ts";
import type { ResNetOptions } from "./nn/resnet.ts";
import type { Float } from "./ops/cast.ts";
import { AdamW, type FlatParameters, LossScale, type Optimizer, warmupCosine } from "./optim.ts";
import { checkHalves, checkLossScale } from "./precision.ts";
import { labelsOf } from "./probe.ts";
import { Random } from "./random.ts";
import type { MetricsRow, RunFolder } from "./run_folder.ts";
import { withoutLabels } from "./scores.ts";
import { Tensor } from "./tensor.ts";
import type { Progress } from "./train.ts";

/** By what the best epoch is chosen on the validation images. */
export const selections = ["auroc", "map", "loss"] as const;
/** One of them. */
export type Selection = (typeof selections)[number];

/** All that determines a fine-tuning, besides the pixels and the adapter. Frozen in `config.json`. */
export interface FinetuneConfig extends ResNetOptions, Objective {
  readonly method: "finetune";
  /** Canonical SPEC of the data. */
  readonly data: string;
  /** Side of the images in pixels. */
  readonly imageSize: number;
  readonly augment: Preset;
  readonly normalization: Normalization;
  /** Images that go through the model at a time. */
  readonly batch: number;
  /** Batches a step, whose gradients are averaged. */
  readonly accumulate: number;
  /** Whether the encoder computes its activations again for the backward, to hold fewer of them. */
  readonly recompute: boolean;
  /** Of the encoder's activations and their gradients in training. */
  readonly precision: Float;
  readonly epochs: number;
  /** Peak learning rate of AdamW, that of the head. */
  readonly lr: number;
  readonly weightDecay: number;
  /** What the rate is multiplied by from one stage to the one before it. */
  readonly layerDecay: number;
  /** Trains the head alone, on features of the unchanged images. */
  readonly freeze: boolean;
  /** Part of the labelled training patients. */
  readonly labelFraction: number;
  readonly select: Selection;
  /** Epochs without a better one after which training stops; 0 for never. */
  readonly patience: number;
  readonly seed: number;
  /** File of encoder weights to start from, or null. */
  readonly init: string | null;
}

/** {@linkcode FinetuneSplits}, decoded. */
export interface FinetuneData extends FinetuneSplits {
  /** Those of `train`. */
  readonly images: Images;
  /** Those of `val`. */
  readonly validationImages: Images;
}

/** Figures of an epoch on the validation images, over the labels that are not apart. */
export interface EpochScores {
  /** Epochs done. */
  readonly epoch: number;
  /** Macro AUROC. */
  readonly auroc: number;
  /** Macro average precision. */
  readonly map: number;
  /** The loss that is trained, without smoothing or augmentation. */
  readonly loss: number;
}

/** How a fine-tuning ended. */
export interface FinetuneOutcome {
  readonly status: "done" | "stopped early" | "interrupted";
  /** The chosen epoch, whose weights are `model.safetensors`; null if none was finished. */
  readonly best: EpochScores | null;
  /** The last epoch, whose weights are `last.safetensors`. */
  readonly last: EpochScores | null;
}

/** Shows a fine-tuning to whoever watches. */
export interface FinetuneReporter {
  compiling(kernel: string): void;
  progress(progress: Progress): void;
  validated(scores: EpochScores, isBest: boolean): void;
}

/** Steps that may be on their way to the GPU before their losses are read. */
const maxInFlight = 64;
/** Seconds of GPU work between two reports, about. */
const reportInterval = 0.5;
/** Seconds between checkpoints, at least; one is always written at the end. */
const checkpointInterval = 60;

/**
 * Fine-tunes, or goes on from the run's checkpoint if it has one. After every epoch `last.safetensors` is
 * written, and `model.safetensors` and `encoder.safetensors` if it is the best so far.
 *
 * @param signal stops after the step at hand, with a checkpoint
 * @throws {UserError} if the weights or the precision do not fit, no validation label serves to choose, or loss or
 * gradients are not finite
 */
export async function finetune(
  gpu: Gpu,
  config: FinetuneConfig,
  data: FinetuneData,
  run: RunFolder,
  reporter: FinetuneReporter,
  signal: AbortSignal,
): Promise<FinetuneOutcome> {
  checkSelection(config, data);
  const { count } = data.images;
  const batch = Math.min(config.batch, count);
  const accumulate = Math.min(config.accumulate, Math.floor(count / batch));
  const imagesPerStep = batch * accumulate;
  const stepsPerEpoch = Math.floor(count / imagesPerStep);
  const steps = stepsPerEpoch * config.epochs;
  gpu.onCompile = (label) => reporter.compiling(label);
  if (config.precision === "f16") await checkHalves(gpu);
  const checkpoint = run.has("checkpoint")
    ? decodeCheckpoint(run.read("checkpoint"), run.pathOf("checkpoint"))
    : null;
  const tuner = await Tuner.create(gpu, config, data, checkpoint);
  let step = checkpoint?.step ?? 0;
  run.rewindMetrics(step);
  let { best, last } = scoresOf(run.readMetrics(), config.select);
  const isOver = () =>
    config.patience > 0 && last !== null && last.epoch - best!.epoch >= config.patience;

  let [inFlight, perReport, reported] = [0, 1, performance.now()];
  let saved = reported;
  const save = async () => {
    run.write("checkpoint", encodeCheckpoint(await tuner.checkpoint(step)));
    saved = performance.now();
  };
  while (step < steps && !isOver()) {
    const epoch = Math.floor(step / stepsPerEpoch) + 1;
    const order = new Random(config.seed, "order", epoch)
      .shuffle(Array.from({ length: count }, (_, i) => i));
    for (let i = step % stepsPerEpoch; i < stepsPerEpoch; i++) {
      const lr = warmupCosine(step, { lr: config.lr, warmup: 0, steps });
      const batches = Array.from({ length: accumulate }, (_, j) => {
        const start = i * imagesPerStep + j * batch;
        return order.slice(start, start + batch);
      });
      tuner.step(step++, batches, lr, inFlight++);
      if (inFlight < perReport && i + 1 < stepsPerEpoch && !signal.aborted) continue;

      const rows = await tuner.readLosses(inFlight);
      const now = performance.now();
      const seconds = (now - reported) / 1000;
      const imagesPerSecond = inFlight * imagesPerStep / seconds;
      rows.forEach(({ loss, lossScale }, j) => {
        const at = step - rows.length + j + 1;
        if (!Number.isFinite(loss)) {
          throw new UserError(`the loss is ${loss} at step ${at}: try a lower --lr (${config.lr})`);
        }
        checkLossScale(lossScale, at);
        run.log({
          step: at,
          epoch: at / stepsPerEpoch,
          loss,
          lr: warmupCosine(at - 1, { lr: config.lr, warmup: 0, steps }),
          ...(lossScale === null ? {} : { loss_scale: lossScale }),
          images_per_s: imagesPerSecond,
          gpu_bytes: gpu.memory.allocated,
        });
      });
      reporter.progress({
        step,
        steps,
        epoch: step / stepsPerEpoch,
        epochs: config.epochs,
        loss: rows.reduce((sum, { loss }) => sum + loss, 0) / rows.length,
        lr,
        imagesPerSecond,
        eta: (steps - step) * imagesPerStep / imagesPerSecond,
        gpuBytes: gpu.memory.allocated,
      });
      perReport = Math.max(
        1,
        Math.min(maxInFlight, Math.round(inFlight * reportInterval / seconds)),
      );
      [inFlight, reported] = [0, now];
      if (signal.aborted && i + 1 < stepsPerEpoch) {
        await save();
        return { status: "interrupted", best, last };
      }
    }

    const { scores, format } = await tuner.validate(epoch);
    last = scores;
    const isBest = best === null || isBetter(config.select, scores, best);
    if (isBest) best = scores;
    const { auroc, map, loss } = scores;
    run.log({
      step,
      epoch,
      validation: { auroc: finite(auroc), map: finite(map) },
      validation_loss: loss,
    });
    const arrays = await tuner.state.arrays();
    const file = encodeClassifier(arrays, format);
    run.write("last", file);
    if (isBest) {
      run.write("model", file);
      const encoder = [...arrays].filter(([name]) => name.startsWith(encoderPrefix))
        .map(([name, array]) => [name.slice(encoderPrefix.length), array] as const);
      const { size, normalization } = format;
      run.write("encoder", encodeEncoder(new Map(encoder), { size, normalization }));
    }
    reporter.validated(scores, isBest);
    const ends = step === steps || isOver();
    if (ends || signal.aborted || performance.now() - saved > 1000 * checkpointInterval) {
      await save();
    }
    if (signal.aborted && !ends) return { status: "interrupted", best, last };
    reported = performance.now();
  }
  return { status: step < steps ? "stopped early" : "done", best, last };
}

/** The best and the last of the epochs that were validated. */
function scoresOf(
  rows: readonly MetricsRow[],
  select: Selection,
): Pick<FinetuneOutcome, "best" | "last"> {
  let best: EpochScores | null = null;
  let last: EpochScores | null = null;
  for (const { epoch, validation, validation_loss } of rows) {
    if (validation === undefined) continue;
    const { auroc, map } = validation as Record<"auroc" | "map", number | null>;
    const loss = validation_loss as number;
    last = { epoch, auroc: auroc ?? NaN, map: map ?? NaN, loss };
    if (best === null || isBetter(select, last, best)) best = last;
  }
  return { best, last };
}

const encoderPrefix = "encoder.";

/** Null for what JSON does not know. */
const finite = (value: number) => Number.isFinite(value) ? value : null;

function isBetter(select: Selection, a: EpochScores, b: EpochScores): boolean {
  return select === "loss" ? a.loss < b.loss : a[select] > b[select];
}

function checkSelection({ select }: FinetuneConfig, { dataset, val, apart }: FinetuneData): void {
  if (select === "loss") return;
  const left = new Set(apart.map(({ label }) => label));
  const serves = labelBalance(dataset, val).some(({ label, positive, negative }) =>
    !left.has(label) && positive > 0 && negative > 0
  );
  if (serves) return;
  throw new UserError(
    `--select ${select}: no label both holds and fails among the ${val.length} validation images; ` +
      "--select loss does without",
  );
}

/** A classifier with its optimisers, images and labels. */
class Tuner {
  readonly gpu: Gpu;
  readonly state: ModelState;
  readonly #config: FinetuneConfig;
  readonly #data: FinetuneData;
  readonly #model: Classifier;
  readonly #optimizers: readonly { optimizer: Optimizer; scale: number }[];
  readonly #lossScale: LossScale | null;
  readonly #images: ImageSet;
  readonly #validation: ImageSet;
  readonly #targets: Float32Array;
  readonly #validationTargets: Float32Array;
  readonly #loss: LossFunction;
  readonly #plainLoss: LossFunction;
  /** [loss, scale of the next loss] of each step in flight. */
  readonly #losses: Tensor<"f32">;
  /** Of a frozen encoder, which are computed once. */
  #features: { train: Float32Array; val: Float32Array } | null = null;

  /** A classifier as it was left, or as it starts, with the weights of `--init`. */
  static async create(
    gpu: Gpu,
    config: FinetuneConfig,
    data: FinetuneData,
    checkpoint: Checkpoint | null,
  ): Promise<Tuner> {
    const tuner = new Tuner(gpu, config, data);
    if (checkpoint !== null) {
      await tuner.#restore(checkpoint);
    } else if (config.init !== null) {
      const weights = weightsFor(readEncoderFile(config.init), config);
      await tuner.state.load(weights, config.init, { prefix: encoderPrefix });
    }
    if (config.freeze) {
      tuner.#features = {
        train: await tuner.#embed(tuner.#images),
        val: await tuner.#embed(tuner.#validation),
      };
    }
    return tuner;
  }

  private constructor(gpu: Gpu, config: FinetuneConfig, data: FinetuneData) {
    const { dataset, train, val } = data;
    this.gpu = gpu;
    this.#config = config;
    this.#data = data;
    this.#model = new Classifier(config, dataset.labels.length);
    this.#model.encoder.recompute = config.recompute;
    this.#model.encoder.precision = config.precision;
    this.state = new ModelState(gpu, this.#model, { seed: config.seed });
    this.#optimizers = createOptimizers(this.state, config);
    this.#lossScale = config.precision === "f16" ? new LossScale(this.state) : null;
    this.#images = new ImageSet(gpu, data.images);
    this.#validation = new ImageSet(gpu, data.validationImages);
    const targets = (indices: readonly number[]) => {
      const labels = labelsOf(dataset, indices);
      // Of exclusive classes, the one that holds says that the others do not.
      return config.loss === "cross-entropy" ? labels.map((value) => Number(value === 1)) : labels;
    };
    [this.#targets, this.#validationTargets] = [targets(train), targets(val)];
    this.#loss = lossFunction(gpu, config);
    this.#plainLoss = lossFunction(gpu, { ...config, labelSmoothing: 0 });
    this.#losses = gpu.unscoped(() => gpu.zeros([maxInFlight, 2]));
  }

  /** All that the next step depends on. */
  async checkpoint(step: number): Promise<Checkpoint> {
    const optimizer = new Map(await this.#lossScale?.arrays() ?? []);
    for (const [depth, one] of this.#optimizers.entries()) {
      for (const [name, moment] of await one.optimizer.arrays()) {
        optimizer.set(`${depth}.${name}`, moment);
      }
    }
    return { step, model: await this.state.arrays(), optimizer, method: new Map(), ema: null };
  }

  async #restore({ step, model, optimizer }: Checkpoint): Promise<void> {
    await this.state.load(model, "the checkpoint");
    this.#lossScale?.load(optimizer);
    for (const [depth, one] of this.#optimizers.entries()) {
      const prefix = `${depth}.`;
      const own = [...optimizer].filter(([name]) => name.startsWith(prefix));
      one.optimizer.load(
        new Map(own.map(([name, data]) => [name.slice(prefix.length), data])),
        step,
      );
    }
  }

  /** Records and submits one step; its loss goes to place `slot`. */
  step(step: number, batches: readonly (readonly number[])[], lr: number, slot: number): void {
    const { gpu, state } = this;
    gpu.step(() => {
      state.zeroGrad();
      const losses = batches.map((rows, i) =>
        gpu.scope(() => this.#batch(step * batches.length + i, rows, 1 / batches.length))
      );
      const gradientScale = this.#lossScale?.settle();
      for (const { optimizer, scale } of this.#optimizers) {
        optimizer.step(lr * scale, gradientScale);
      }
      gpu.copyScalar(meanOf(losses), this.#losses, 2 * slot);
      if (this.#lossScale !== null) {
        gpu.copyScalar(this.#lossScale.factor, this.#losses, 2 * slot + 1);
      }
    });
  }

  /**
   * Adds the gradients of a batch to those of the model.
   *
   * @param counter counts the batches, for the views
   * @param weight of its loss
   */
  #batch(counter: number, rows: readonly number[], weight: number): Tensor {
    const { augment: preset, normalization, seed } = this.#config;
    // Uploads come first, because each submits what was recorded before.
    const targets = this.#upload(this.#targets, rows);
    let logits: Tensor;
    if (this.#features !== null) {
      logits = this.#model.fc.forward(this.#upload(this.#features.train, rows));
    } else {
      const part = this.#images.batch(rows);
      const recipe = presets[preset];
      logits = this.#model.forward(
        drawViews(part.images, part.rows, { recipe, normalization, seed, counter }),
      );
    }
    return backwardOf(this.#loss(logits, targets), weight, this.#lossScale?.factor);
  }

  /** Waits for the losses of the steps in flight. */
  async readLosses(count: number): Promise<{ loss: number; lossScale: number | null }[]> {
    const values = await this.#losses.data();
    return Array.from({ length: count }, (_, i) => ({
      loss: values[2 * i]!,
      lossScale: this.#lossScale === null ? null : values[2 * i + 1]!,
    }));
  }

  /** The figures of the validation images, and what the file of this epoch says. */
  async validate(epoch: number): Promise<{ scores: EpochScores; format: ClassifierFormat }> {
    const { dataset, train, apart } = this.#data;
    const { labels } = dataset;
    const features = this.#features?.val ?? await this.#embed(this.#validation);
    const logits = await applyHead(this.#model, this.gpu, features);
    const targets = this.#validationTargets;
    const shape = [targets.length / labels.length, labels.length];
    const loss = this.gpu.step(() =>
      this.#plainLoss(this.gpu.tensor(logits, shape), this.gpu.tensor(targets, shape))
    );
    const kind: LabelKind = this.#config.loss === "cross-entropy" ? "single-label" : "multi-label";
    const scored = probabilities(logits, { labels, kind });
    const counted = withoutLabels(targets, labels, new Set(apart.map(({ label }) => label)));
    const macro = (metric: typeof auroc) =>
      macroMean(perLabel(metric, scored, counted, labels.length)).mean;
    const scores = {
      epoch,
      auroc: macro(auroc),
      map: macro(averagePrecision),
      loss: (await loss.data())[0]!,
    };
    loss.dispose();
    // Training never asks for buffers of these sizes.
    this.gpu.trim();
    const format = {
      size: this.#config.imageSize,
      normalization: this.#config.normalization,
      labels,
      kind,
      thresholds: perLabel(bestThreshold, scored, targets, labels.length),
      constant: [...constantPredictions(labelsOf(dataset, train), labels.length, 1)],
      apart,
      epoch,
    };
    return { scores, format };
  }

  #embed(images: ImageSet): Promise<Float32Array> {
    const rows = Array.from({ length: images.images.count }, (_, i) => i);
    const { normalization, batch } = this.#config;
    return embed(this.#model.encoder, images, rows, { normalization, batch });
  }

  /** Rows of a matrix whose rows are those of the training images. */
  #upload(matrix: Float32Array, rows: readonly number[]): Tensor {
    const width = matrix.length / this.#data.images.count;
    const part = new Float32Array(rows.length * width);
    rows.forEach((row, i) => part.set(matrix.subarray(row * width, (row + 1) * width), i * width));
    return this.gpu.tensor(part, [rows.length, width]);
  }
}

/** Stages from the head, which has the full rate, down to the stem. */
const stages = [
  /^fc\./,
  /^encoder\.layer4\./,
  /^encoder\.layer3\./,
  /^encoder\.layer2\./,
  /^encoder\.layer1\./,
  /^encoder\.(conv1|bn1)\./,
];

/**
 * AdamW for each stage, with what its rate is multiplied by: layerDecay to the number of stages above it.
 * Of a frozen encoder only the head is updated; without decay one optimiser does for all.
 */
export function createOptimizers(
  state: ModelState,
  { layerDecay, weightDecay, freeze }: Pick<
    FinetuneConfig,
    "layerDecay" | "weightDecay" | "freeze"
  >,
): { optimizer: Optimizer; scale: number }[] {
  const groups = freeze ? stages.slice(0, 1) : layerDecay === 1 ? [/^/] : stages;
  return groups.map((names, depth) => ({
    optimizer: new AdamW(partOf(state, names), { weightDecay }),
    scale: layerDecay ** depth,
  }));
}

/** Neighbouring parameters of a model, in place. */
function partOf(state: ModelState, names: RegExp): FlatParameters {
  const segments = state.segments.filter(({ name }) => names.test(name));
  const start = segments[0]!.offset;
  const next = state.segments[state.segments.indexOf(segments.at(-1)!) + 1];
  const size = (next?.offset ?? state.values.size) - start;
  const view = (flat: Tensor<"f32">) =>
    new Tensor(flat.gpu, flat.storage, [size], "f32", flat.offset + 4 * start);
  return {
    gpu: state.gpu,
    values: view(state.values),
    gradients: view(state.gradients),
    segments: segments.map((segment) => ({ ...segment, offset: segment.offset - start })),
  };
}
