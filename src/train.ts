/**
 * The training loop: what every method shares. Random numbers are functions of (seed, step), the order
 * of an epoch of (seed, epoch), so a run that is stopped and resumed goes on to the same bits.
 */
import { backwardOf, meanOf } from "./accumulation.ts";
import { backward, keep, noGrad } from "./autograd.ts";
import { type Checkpoint, decodeCheckpoint, encodeCheckpoint } from "./checkpoint.ts";
import { drawViews, type Normalization, plainViews, type Preset, presets } from "./data/augment.ts";
import { contactSheet } from "./data/contact_sheet.ts";
import { ImageSet } from "./data/image_set.ts";
import type { Dataset, Images } from "./data/dataset.ts";
import { embed, encodeEncoder, readEncoderFile, weightsFor } from "./encoder.ts";
import { UserError } from "./errors.ts";
import type { SafeTensor } from "./formats/safetensors.ts";
import { BindingLimitError, type Gpu } from "./gpu/gpu.ts";
import { knn } from "./knn.ts";
import { Autoencoder } from "./methods/autoencoder.ts";
import { DeepCluster } from "./methods/kmeans.ts";
import { DeepClusterV2 } from "./methods/kmeans_v2.ts";
import type { Method } from "./methods/method.ts";
import { MICLe } from "./methods/micle.ts";
import { SimCLR } from "./methods/simclr.ts";
import { type LossName, Supervised } from "./methods/supervised.ts";
import {
  accuracy,
  atThresholds,
  auroc,
  constantPredictions,
  macroMean,
  perLabel,
} from "./metrics.ts";
import { ModelState } from "./nn/model_state.ts";
import type { Arch, Stem } from "./nn/resnet.ts";
import type { Float } from "./ops/cast.ts";
import { mean } from "./ops/reduce.ts";
import { l2Normalize } from "./ops/softmax.ts";
import { sqrt, square } from "./ops/unary.ts";
import { sub } from "./ops/binary.ts";
import {
  createOptimizer,
  Ema,
  LossScale,
  type Optimizer,
  type OptimizerName,
  warmupCosine,
} from "./optim.ts";
import { checkHalves, checkLossScale } from "./precision.ts";
import { labelsOf } from "./probe.ts";
import { Random } from "./random.ts";
import type { Measure, RunFolder } from "./run_folder.ts";
import { negations, withoutLabels } from "./scores.ts";
import type { Tensor } from "./tensor.ts";

/** Ways to train an encoder. */
export const methodNames = ["simclr", "micle", "autoencoder", "kmeans", "supervised"] as const;
/** One of them. */
export type MethodName = (typeof methodNames)[number];

/** All that determines a run, besides the pixels and the adapter. Frozen in `config.json`. */
export interface TrainConfig {
  readonly method: MethodName;
  /** Canonical SPEC of the data. */
  readonly data: string;
  readonly arch: Arch;
  readonly width: number;
  readonly stem: Stem;
  readonly channels: 1 | 3;
  /** Side of the images in pixels. */
  readonly imageSize: number;
  readonly augment: Preset;
  /** Probability of blur, in place of the recipe's. */
  readonly blur: number;
  readonly normalization: Normalization;
  /** Images that go through the model at a time. */
  readonly batch: number;
  /** Batches a step, whose gradients are averaged. Each is normalised, and contrasted, by itself. */
  readonly accumulate: number;
  /** Whether the encoder computes its activations again for the backward, to hold fewer of them. */
  readonly recompute: boolean;
  /** Of the encoder's activations and their gradients in training. */
  readonly precision: Float;
  /** Passes over the data; a fraction where a number of steps was asked for. */
  readonly epochs: number;
  readonly optimizer: OptimizerName;
  /** Peak learning rate. */
  readonly lr: number;
  readonly weightDecay: number;
  /** Epochs of linear warm-up. */
  readonly warmup: number;
  readonly temperature: number;
  readonly head: "v1" | "v2";
  /** How an autoencoder's input is spoilt, and how much. */
  readonly corrupt: "noise" | "mask";
  readonly strength: number;
  /** DeepCluster of the paper, or its second version. */
  readonly kmeans: "v1" | "v2";
  /** Pseudo-classes of kmeans. */
  readonly clusters: number;
  /** Of supervised training. */
  readonly loss: LossName;
  /** Largest global norm of the gradient; 0 leaves it alone. */
  readonly clip: number;
  /** Decay of the exponential moving average of the weights; 0 for none. */
  readonly ema: number;
  /** Epochs between kNN scores; 0 for none. */
  readonly knnEvery: number;
  readonly seed: number;
  /** File of encoder weights to start from, or null. */
  readonly init: string | null;
}

/** The decoded images of a run. */
export interface TrainData {
  readonly dataset: Dataset;
  /** The images that training sees: train and unlabeled. */
  readonly pretraining: readonly number[];
  readonly images: Images;
  /** Labelled images of the validation split, for kNN scores. */
  readonly validation: readonly number[];
  readonly validationImages: Images;
}

/** Where a run is. */
export interface Progress {
  /** Steps done and to do. */
  readonly step: number;
  readonly steps: number;
  readonly epoch: number;
  readonly epochs: number;
  /** Mean loss since the last report. */
  readonly loss: number;
  readonly lr: number;
  readonly imagesPerSecond: number;
  /** Seconds to the end at this speed. */
  readonly eta: number;
  readonly gpuBytes: number;
}

/** A kNN score on the validation images. */
export interface KnnScore {
  /** Mean AUROC over the labels for which it is defined and that negate no other. */
  readonly auroc: number;
  /** Label-wise accuracy at a score of one half. */
  readonly accuracy: number;
  /** What predicting the more frequent value of each label gives. */
  readonly constant: number;
}

/** Shows a run to whoever watches. */
export interface Reporter {
  stage(message: string): void;
  compiling(kernel: string): void;
  progress(progress: Progress): void;
  knn(epoch: number, score: KnnScore): void;
  /** Something that whoever watches should know of: it stays on the screen. */
  line(text: string): void;
}

/** How a run ended. */
export interface Outcome {
  readonly status: "done" | "interrupted";
  readonly step: number;
  /** Mean loss of the last epoch, or of what there was of it; null if no step was left to do. */
  readonly loss: number | null;
  /** Seconds of waiting for images to get to the GPU: before the first step, and in the steps. */
  readonly uploads: { readonly before: number; readonly during: number };
}

/** Images that it takes to contrast one with another. */
export const smallestBatch = 2;
/** Steps that may be on their way to the GPU before their losses are read. */
const maxInFlight = 64;
/** Seconds of GPU work between two reports, about. */
const reportInterval = 0.5;
/** The part of a healthy spread below which embeddings count as collapsed. */
const collapsedShare = 0.05;
/** Seconds between checkpoints, at least; one is always written at the end. */
const checkpointInterval = 60;

/**
 * Trains, or goes on from the run's checkpoint if it has one.
 *
 * @param signal stops after the step at hand, with a checkpoint
 * @throws {UserError} if model, batch or precision do not fit the adapter, or loss or gradients are not finite
 */
export async function train(
  gpu: Gpu,
  config: TrainConfig,
  data: TrainData,
  run: RunFolder,
  reporter: Reporter,
  signal: AbortSignal,
): Promise<Outcome> {
  const imagesPerStep = config.batch * config.accumulate;
  const stepsPerEpoch = Math.floor(data.images.count / imagesPerStep);
  const steps = Math.round(stepsPerEpoch * config.epochs);
  if (config.precision === "f16") await checkHalves(gpu);
  const trainer = createTrainer(gpu, config, data);
  const rate = (step: number) =>
    warmupCosine(step, {
      lr: config.lr,
      warmup: config.warmup * stepsPerEpoch,
      steps,
      minimum: trainer.rateFalls ? 0 : config.lr,
    });
  let step = 0;
  if (run.has("checkpoint")) {
    step = await trainer.restore(
      decodeCheckpoint(run.read("checkpoint"), run.pathOf("checkpoint")),
    );
    run.rewindMetrics(step);
  } else if (config.init !== null) {
    const weights = weightsFor(readEncoderFile(config.init), config);
    await trainer.start(weights, config.init);
  }

  gpu.onCompile = (label) => reporter.compiling(label);
  const save = async () => {
    run.write("checkpoint", encodeCheckpoint(await trainer.checkpoint(step)));
    run.write("encoder", await trainer.encoderFile());
    const samples = await trainer.samples();
    if (samples !== null) run.write("samples", samples);
  };
  const before = trainer.uploadSeconds;
  const losses: number[] = [];
  let collapsed = false;
  let inFlight = 0;
  let perReport = 1;
  let reported = performance.now();
  let saved = reported;
  let measures: Readonly<Record<string, Measure>> = {};
  while (step < steps && !signal.aborted) {
    const epoch = Math.floor(step / stepsPerEpoch);
    const lr = rate(step);
    if (step % stepsPerEpoch === 0) {
      measures = await trainer.beginEpoch(epoch);
      reported = performance.now();
    }
    try {
      trainer.step(step, trainer.batches(epoch, step % stepsPerEpoch), lr, inFlight++);
    } catch (error) {
      if (error instanceof BindingLimitError) throw trainer.batchThatFits(error, config.batch);
      throw error;
    }
    step++;
    const last = step === steps;
    const endOfEpoch = step % stepsPerEpoch === 0 || last;
    if (inFlight < perReport && !endOfEpoch && !signal.aborted) continue;

    const rows = await trainer.readMetrics(inFlight);
    const now = performance.now();
    const seconds = (now - reported) / 1000;
    const imagesPerSecond = inFlight * imagesPerStep / seconds;
    rows.forEach(({ loss, std, lossScale }, i) => {
      const at = step - rows.length + i + 1;
      if (!Number.isFinite(loss)) {
        throw new UserError(
          `the loss is ${loss} at step ${at}: try a lower --lr (${config.lr}) or --clip 1` +
            (run.has("checkpoint") ? `; the last checkpoint is ${run.pathOf("checkpoint")}` : ""),
        );
      }
      checkLossScale(lossScale, at);
      run.log({
        step: at,
        epoch: at / stepsPerEpoch,
        loss,
        lr: rate(at - 1),
        std,
        ...(lossScale === null ? {} : { loss_scale: lossScale }),
        images_per_s: imagesPerSecond,
        gpu_bytes: gpu.memory.allocated,
        ...((at - 1) % stepsPerEpoch === 0 ? measures : {}),
      });
      losses.push(loss);
    });
    const std = average(rows.map(({ std }) => std));
    if (!collapsed && std < collapsedShare * trainer.healthySpread) {
      collapsed = true;
      reporter.line(
        `the embeddings have collapsed at step ${step}: their spread is ${std.toPrecision(2)}, ` +
          `healthy is about ${
            trainer.healthySpread.toPrecision(2)
          }; try a lower --lr (${config.lr}), ` +
          "a larger --batch or other views (--augment)",
      );
    }
    reporter.progress({
      step,
      steps,
      epoch: step / stepsPerEpoch,
      epochs: config.epochs,
      loss: average(rows.map(({ loss }) => loss)),
      lr,
      imagesPerSecond,
      eta: (steps - step) * imagesPerStep / imagesPerSecond,
      gpuBytes: gpu.memory.allocated,
    });
    perReport = Math.max(1, Math.min(maxInFlight, Math.round(inFlight * reportInterval / seconds)));
    inFlight = 0;

    const done = step / stepsPerEpoch;
    if (endOfEpoch && config.knnEvery > 0 && (done % config.knnEvery === 0 || last)) {
      const score = await trainer.knnScore();
      if (score !== null) {
        run.log({ step, epoch: done, knn: { ...score } });
        reporter.knn(done, score);
      }
    }
    if (last || signal.aborted || now - saved > 1000 * checkpointInterval) {
      await save();
      saved = performance.now();
    }
    reported = performance.now();
  }
  if (step === 0 || (step === steps && losses.length === 0)) await save();
  return {
    status: step < steps ? "interrupted" : "done",
    step,
    loss: losses.length > 0 ? average(losses.slice(-stepsPerEpoch)) : null,
    uploads: { before, during: trainer.uploadSeconds - before },
  };
}

function createTrainer(gpu: Gpu, config: TrainConfig, data: TrainData): Trainer {
  try {
    return new Trainer(gpu, config, data);
  } catch (error) {
    if (!(error instanceof BindingLimitError)) throw error;
    throw new UserError(`--arch ${config.arch} --width ${config.width}: ${tooLarge(gpu, error)}`);
  }
}

function tooLarge({ maxTensorBytes }: Gpu, { shape }: BindingLimitError): string {
  const limit = (maxTensorBytes / 2 ** 20).toFixed(1);
  return `a tensor [${shape}] is more than the ${limit} MiB that this adapter can bind`;
}

/** The model of a run with its optimiser and images. */
export class Trainer {
  readonly gpu: Gpu;
  readonly model: ModelState;
  readonly #config: TrainConfig;
  readonly #data: TrainData;
  readonly #method: Method;
  readonly #optimizer: Optimizer;
  readonly #lossScale: LossScale | null;
  readonly #ema: Ema | null;
  readonly #images: ImageSet;
  /** [loss, std, scale of the next loss] of each step in flight. */
  readonly #metrics: Tensor<"f32">;
  #order: { epoch: number; rows: readonly number[] } = { epoch: -1, rows: [] };

  constructor(gpu: Gpu, config: TrainConfig, data: TrainData) {
    this.gpu = gpu;
    this.#config = config;
    this.#data = data;
    this.#method = createMethod(config, data);
    this.#method.encoder.recompute = config.recompute;
    this.#method.encoder.precision = config.precision;
    this.model = new ModelState(gpu, this.#method, { seed: config.seed });
    this.#optimizer = createOptimizer(config.optimizer, this.model, {
      weightDecay: config.weightDecay,
      clip: config.clip,
    });
    this.#lossScale = config.precision === "f16" ? new LossScale(this.model) : null;
    this.#ema = config.ema > 0 ? new Ema(this.model, config.ema) : null;
    this.#images = new ImageSet(gpu, data.images);
    this.#metrics = gpu.unscoped(() => gpu.zeros([maxInFlight, 3]));
  }

  /** Seconds that steps have waited for images so far. */
  get uploadSeconds(): number {
    return this.#images.uploadSeconds;
  }

  /** The spread of embeddings that use all their dimensions alike. */
  get healthySpread(): number {
    return 1 / Math.sqrt(this.#method.embeddingSize);
  }

  /** Whether the learning rate falls after its warm-up. */
  get rateFalls(): boolean {
    return this.#method.rateFalls;
  }

  /** Lets the method prepare an epoch; returns what it measured. */
  async beginEpoch(index: number): Promise<Readonly<Record<string, Measure>>> {
    const { gpu, model } = this;
    const { encoder, viewsPerImage } = this.#method;
    const { normalization, batch, seed } = this.#config;
    const rows = Array.from({ length: this.#data.images.count }, (_, row) => row);
    return await this.#method.beginEpoch({
      gpu,
      index,
      features: () =>
        // What fits in training fits here.
        embed(encoder, this.#images, rows, { normalization, batch: batch * viewsPerImage }),
      renew: (prefix) => {
        for (const segment of model.redraw(prefix, { seed, index })) {
          this.#optimizer.forget(segment);
          this.#ema?.forget(segment);
        }
      },
    });
  }

  /** The batches of a step: the next images of the epoch's random order. */
  batches(epoch: number, index: number): readonly (readonly number[])[] {
    const { seed, batch, accumulate } = this.#config;
    if (this.#order.epoch !== epoch) {
      const { count } = this.#data.images;
      const rows = this.#method.order(count, batch, new Random(seed, "order", epoch));
      this.#order = { epoch, rows };
    }
    return Array.from({ length: accumulate }, (_, i) => {
      const start = (index * accumulate + i) * batch;
      return this.#order.rows.slice(start, start + batch);
    });
  }

  /** Records and submits one step; its loss and spread go to place `slot` of the metrics. */
  step(step: number, batches: readonly (readonly number[])[], lr: number, slot: number): void {
    const { gpu, model } = this;
    gpu.step(() => {
      model.zeroGrad();
      const measured = batches.map((rows, i) =>
        gpu.scope(() => this.#batch(step * batches.length + i, rows, 1 / batches.length))
      );
      this.#optimizer.step(lr, this.#lossScale?.settle());
      this.#ema?.update();
      gpu.copyScalar(meanOf(measured.map(({ loss }) => loss)), this.#metrics, 3 * slot);
      gpu.copyScalar(meanOf(measured.map(({ std }) => std)), this.#metrics, 3 * slot + 1);
      if (this.#lossScale !== null) {
        gpu.copyScalar(this.#lossScale.factor, this.#metrics, 3 * slot + 2);
      }
    });
  }

  /**
   * Adds the gradients of a batch to those of the model.
   *
   * @param counter counts the batches, for all that is random
   * @param weight of its loss
   */
  #batch(
    counter: number,
    rows: readonly number[],
    weight: number,
  ): { readonly loss: Tensor; readonly std: Tensor } {
    const { augment, blur, normalization, seed } = this.#config;
    const drawn = this.#method.views(rows, new Random(seed, "rows of views", counter));
    const part = this.#images.batch(drawn);
    const views = drawViews(part.images, part.rows, {
      recipe: { ...presets[augment], blur },
      normalization,
      seed,
      counter,
    });
    const { loss, embeddings } = this.#method.loss(views, counter, rows);
    keep(embeddings);
    return { loss: backwardOf(loss, weight, this.#lossScale?.factor), std: spread(embeddings) };
  }

  /** Waits for the metrics of the steps in flight. */
  async readMetrics(
    count: number,
  ): Promise<{ loss: number; std: number; lossScale: number | null }[]> {
    const values = await this.#metrics.data();
    return Array.from({ length: count }, (_, i) => ({
      loss: values[3 * i]!,
      std: values[3 * i + 1]!,
      lossScale: this.#lossScale === null ? null : values[3 * i + 2]!,
    }));
  }

  /**
   * The largest batch whose tensors all fit the adapter, as an error to show: recording a step tells, and
   * what it recorded is dropped.
   */
  batchThatFits(error: BindingLimitError, batch: number): UserError {
    let fits = batch;
    for (let cause: unknown = error; cause instanceof BindingLimitError && fits >= smallestBatch;) {
      // The first axis is the batch or a multiple of it, so it shrinks in the same proportion.
      fits = Math.min(fits - 1, Math.floor(fits * cause.largestFirst / cause.shape[0]!));
      cause = fits >= smallestBatch ? this.#tryRecording(fits) : null;
    }
    return new UserError(
      `--batch ${batch}: ${tooLarge(this.gpu, error)}; ` +
        (fits >= smallestBatch
          ? `the largest batch that fits is ${fits}`
          : `not even ${smallestBatch} images fit`),
    );
  }

  #tryRecording(batch: number): unknown {
    try {
      const { imageSize, channels } = this.#config;
      this.gpu.scope(() => {
        const views = batch * this.#method.viewsPerImage;
        const images = this.gpu.empty([views, imageSize, imageSize, channels]);
        const { loss } = this.#method.loss(images, 0, Array.from({ length: batch }, () => 0));
        backward(loss);
      });
      return null;
    } catch (error) {
      return error;
    } finally {
      this.gpu.discard();
    }
  }

  /** A sheet of what the method makes of a few images, as PNG; null if it shows nothing. */
  async samples(): Promise<Uint8Array | null> {
    const { normalization: { mean, std }, normalization, imageSize: size, channels } = this.#config;
    const view = (images: readonly number[]) => {
      const part = this.#images.batch(images);
      return plainViews(part.images, part.rows, normalization);
    };
    this.#method.train(false);
    const lines = this.gpu.step(() =>
      noGrad(() => this.#method.samples(this.#data.images.count, view))
    );
    this.#method.train(true);
    const columns = Math.max(0, ...lines.map(({ shape }) => shape[0]!));
    const perLine = columns * size * size * channels;
    // A short line ends in the white of the sheet.
    const pixels = new Uint8Array(lines.length * perLine).fill(255);
    for (const [row, line] of lines.entries()) {
      const values = await line.data() as Float32Array;
      values.forEach((v, i) => {
        const value = v * std[i % channels]! + mean[i % channels]!;
        pixels[row * perLine + i] = Math.round(255 * Math.min(1, Math.max(0, value)));
      });
      line.dispose();
    }
    const count = columns * lines.length;
    return count === 0 ? null : contactSheet({ count, size, channels, pixels }, { columns });
  }

  /** kNN on the validation images from the labelled training images; null where labels are missing. */
  async knnScore(): Promise<KnnScore | null> {
    const { dataset, pretraining, validation, validationImages } = this.#data;
    const classes = dataset.labels.length;
    const labelled = pretraining.map((index, row) => ({ index, row })).filter(({ index }) =>
      dataset.examples[index]!.labels.some((value) => !Number.isNaN(value))
    );
    if (classes === 0 || labelled.length === 0 || validation.length === 0) return null;
    const { encoder } = this.#method;
    const { normalization, batch } = this.#config;
    // What fits in training fits here.
    const options = { normalization, batch: batch * this.#method.viewsPerImage };
    const features = (images: ImageSet, rows: readonly number[]) =>
      embed(encoder, images, rows, options);
    const labels = labelsOf(dataset, labelled.map(({ index }) => index));
    const apart = new Set(negations(dataset.labels, labels).map(({ label }) => label));
    const targets = withoutLabels(labelsOf(dataset, validation), dataset.labels, apart);
    const values = await features(this.#images, labelled.map(({ row }) => row));
    const queries = new ImageSet(this.gpu, validationImages);
    const scores = knn(
      { values, dimensions: encoder.features, labels, classes },
      {
        values: await features(queries, validation.map((_, row) => row)),
        dimensions: encoder.features,
      },
    );
    queries.dispose();
    // Training never asks for buffers of these sizes.
    this.gpu.trim();
    const half = new Float32Array(classes).fill(0.5);
    return {
      auroc: macroMean(perLabel(auroc, scores, targets, classes)).mean,
      accuracy: accuracy(atThresholds(scores, half), targets),
      constant: accuracy(constantPredictions(labels, classes, validation.length), targets),
    };
  }

  /** All that the next step depends on. */
  async checkpoint(step: number): Promise<Checkpoint> {
    return {
      step,
      model: await this.model.arrays(),
      optimizer: new Map([
        ...await this.#optimizer.arrays(),
        ...await this.#lossScale?.arrays() ?? [],
      ]),
      method: this.#method.state(),
      ema: await this.#ema?.values.data() ?? null,
    };
  }

  /** Starts with the weights of an encoder, and so does the average. */
  async start(weights: ReadonlyMap<string, SafeTensor>, source: string): Promise<void> {
    await this.model.load(weights, source, { prefix: "encoder." });
    this.#ema?.restart();
  }

  /** Goes back to a checkpoint; returns its step. */
  async restore(checkpoint: Checkpoint): Promise<number> {
    await this.model.load(checkpoint.model, "the checkpoint");
    this.#optimizer.load(checkpoint.optimizer, checkpoint.step);
    this.#lossScale?.load(checkpoint.optimizer);
    this.#method.restore(checkpoint.method);
    if (this.#ema !== null && checkpoint.ema !== null) {
      this.gpu.write(this.#ema.values, checkpoint.ema);
    }
    return checkpoint.step;
  }

  /** `encoder.safetensors`, of the averaged weights where they are kept. */
  async encoderFile(): Promise<Uint8Array> {
    const prefix = "encoder.";
    const arrays = await this.model.arrays(this.#ema?.values);
    const { imageSize: size, normalization } = this.#config;
    return encodeEncoder(
      new Map(
        [...arrays].filter(([name]) => name.startsWith(prefix)).map(([name, array]) => [
          name.slice(prefix.length),
          array,
        ]),
      ),
      { size, normalization },
    );
  }
}

/**
 * The method of a configuration.
 *
 * @param data whose patients and labels it may need
 */
export function createMethod(config: TrainConfig, data: TrainData): Method {
  switch (config.method) {
    case "simclr":
      return new SimCLR(config, config);
    case "micle":
      return new MICLe(config, config, patientsOf(data));
    case "autoencoder": {
      const { imageSize, corrupt: kind, strength, seed } = config;
      return new Autoencoder(config, imageSize, { kind, strength, seed });
    }
    case "kmeans":
      return new (config.kmeans === "v2" ? DeepClusterV2 : DeepCluster)(config, config);
    case "supervised": {
      const { dataset, pretraining } = data;
      const labels = labelsOf(dataset, pretraining);
      return new Supervised(config, config.loss, labels, dataset.labels.length);
    }
  }
}

/** The patient of each image that training sees. */
function patientsOf({ dataset, pretraining }: TrainData): (string | null)[] {
  return pretraining.map((index) => dataset.examples[index]!.patient);
}

/**
 * The collapse monitor: how far L2-normalised embeddings spread, as the mean over dimensions of their
 * standard deviation. About 1/√d when healthy, 0 when all embeddings are alike.
 */
function spread(embeddings: Tensor): Tensor {
  return noGrad(() => {
    const z = l2Normalize(embeddings);
    const centred = sub(z, mean(z, { axes: [0], keepDims: true }));
    return mean(sqrt(mean(square(centred), { axes: [0] })));
  });
}

function average(values: readonly number[]): number {
  return values.reduce((sum, value) => sum + value, 0) / values.length;
}
