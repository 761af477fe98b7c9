/** `deno task train`: flags → configuration → data → run. */
import { type Preset, presets } from "../data/augment.ts";
import { indicesOf, isLabelled, pretrainingIndices, usage } from "../data/dataset.ts";
import { formatSpec, parseSpec, READERS_USAGE, resolveSpec } from "../data/spec.ts";
import { UserError } from "../errors.ts";
import { chooseLoss } from "../finetune_data.ts";
import { DeviceLostError, Gpu } from "../gpu/gpu.ts";
import { lossNames } from "../methods/supervised.ts";
import type { OptimizerName } from "../optim.ts";
import { renderReport } from "../report/report.ts";
import { createRun, type RunFolder } from "../run_folder.ts";
import {
  createMethod,
  type MethodName,
  methodNames,
  smallestBatch,
  train,
  type TrainConfig,
  type TrainData,
} from "../train.ts";
import { version } from "../version.ts";
import { defineCommand } from "./command.ts";
import {
  boolean,
  choice,
  configFile,
  integer,
  number,
  path,
  string,
  type Values,
} from "./flags.ts";
import { imageFlags, ImageLoader } from "./images.ts";
import { architectureFrom, foldNote, foldsStem, normalizationFrom, readInit } from "./init.ts";
import { formatProfile, formatUploads } from "./profile.ts";
import { createDisplay, type Display, formatDuration } from "./progress.ts";
import { expectNoSettings, expectSameData, reopen } from "./resume.ts";
import { writeEvents } from "./tensorboard.ts";

const presetNames = Object.keys(presets) as Preset[];

/** Those that fine-tuning shares are taken from here. */
export const flags = {
  method: choice({ of: methodNames, default: "simclr", help: "how the encoder is trained" }),
  data: {
    ...string({
      kind: "SPEC",
      default: "phantom",
      help: `images: ${READERS_USAGE}, joined by +`,
    }),
    rebase: (spec: string, directory: string) =>
      formatSpec(resolveSpec(parseSpec(spec), directory)),
  },
  arch: choice({
    of: ["resnet18", "resnet34", "resnet50"],
    default: "resnet18",
    help: "depth of the encoder",
  }),
  width: integer({
    min: 1,
    max: 512,
    default: 16,
    help: "channels of the first stage; 64 is the original",
  }),
  stem: choice({
    of: ["7x7", "3x3"],
    default: "7x7",
    help: "7x7 with pooling, or 3x3 for images of 32 and less",
  }),
  imageSize: integer({ min: 16, max: 1024, default: 64, help: "side of the images in pixels" }),
  channels: choice({ of: [1, 3], default: 1, help: "gray or colour" }),
  augment: choice({
    of: presetNames,
    otherwise: "medical for 1 channel (light by kmeans), simclr for 3",
    help: "recipe of the random views",
  }),
  blur: number({
    min: 0,
    max: 1,
    otherwise: "that of the recipe",
    help: "probability of a Gaussian blur; Azizi et al. leave it out for radiographs",
  }),
  batch: integer({
    min: smallestBatch,
    max: 65536,
    default: 64,
    help: "images that train at a time",
  }),
  accumulate: integer({
    min: 1,
    max: 65536,
    default: 1,
    help: "batches a step, their gradients averaged; each is contrasted by itself",
  }),
  recompute: boolean({
    help: "hold fewer activations and compute them again: the same bits, less memory, more time",
  }),
  precision: choice({
    of: ["f32", "f16"],
    default: "f32",
    help: "floats of activations and their gradients: f16 takes half the memory; weights stay f32",
  }),
  epochs: integer({ min: 1, max: 100000, default: 15, help: "passes over the data" }),
  steps: integer({ min: 1, help: "optimiser steps in place of --epochs" }),
  optimizer: choice({
    of: ["adamw", "adam", "sgd", "lars"],
    otherwise: "adamw, sgd for kmeans",
    help: "rule of the updates",
  }),
  lr: number({
    above: 0,
    otherwise:
      "by optimizer and batch B: 3e-3·√(B/128) for adamw and adam (1e-3 for autoencoder), 0.3·B/256 for sgd and lars (0.05 for kmeans)",
    help: "peak learning rate",
  }),
  weightDecay: number({ min: 0, default: 1e-4, help: "not for biases and normalisations" }),
  warmup: number({
    min: 0,
    otherwise: "a tenth of the epochs, at most 10",
    help: "epochs of linear warm-up",
  }),
  temperature: number({ above: 0, max: 10, default: 0.2, help: "τ of the contrastive loss" }),
  head: choice({
    of: ["v1", "v2"],
    default: "v1",
    help: "projection head with one or two hidden layers",
  }),
  corrupt: choice({
    of: ["noise", "mask"],
    default: "noise",
    help: "what an autoencoder undoes: Gaussian noise, or patches masked",
  }),
  strength: number({
    min: 0,
    below: 1,
    otherwise: "0.2 for noise, 0.4 for mask",
    help: "deviation of the noise, or part that is masked",
  }),
  loss: choice({
    of: lossNames,
    otherwise: "cross-entropy where every image has one label, else bce",
    help: "of supervised training",
  }),
  kmeans: choice({
    of: ["v1", "v2"],
    default: "v1",
    help: "DeepCluster: a new head every epoch, or centroids as prototypes",
  }),
  clusters: integer({
    min: 2,
    max: 65536,
    otherwise: "a tenth of the images, at most 200",
    help: "pseudo-classes of kmeans",
  }),
  clip: number({ min: 0, default: 0, help: "largest norm of the gradient; 0 for no limit" }),
  ema: number({
    min: 0,
    below: 1,
    default: 0,
    help: "decay of the average of the weights that is kept; 0 for none",
  }),
  knnEvery: integer({
    min: 0,
    default: 5,
    help: "epochs between kNN scores on the validation images; 0 for none",
  }),
  seed: integer({ min: 0, max: 0xffffffff, default: 0, help: "of all random numbers" }),
  ...imageFlags,
  out: path({
    kind: "DIR",
    otherwise: "the next free runs/<method>-<n>",
    help: "run folder to make",
  }),
  resume: path({ kind: "RUN", help: "run folder to go on with; of the other flags only --epochs" }),
  init: path({
    kind: "FILE|RUN",
    help: "encoder weights to start from: a run, safetensors, or PyTorch's .pth of a ResNet",
  }),
  config: configFile(),
  json: boolean({ help: "progress as JSON lines on stdout" }),
  tensorboard: boolean({ help: "write the metrics for TensorBoard too, into the run folder" }),
  profile: boolean({ help: "time per kernel, printed at the end (slower: a pass a kernel)" }),
};

/** The command. */
export const command = defineCommand({
  name: "train",
  summary: "Trains an encoder",
  flags,
  async run(values, { given }) {
    const display = createDisplay(values);
    if (values.resume !== undefined) expectNoSettings(given);
    const started = performance.now();
    display.stage("opening the GPU");
    const gpu = await Gpu.open();
    const { run, config, data } = values.resume === undefined
      ? await prepareTraining(values, given, gpu, display)
      : await reopenTraining(values.resume, {
        cache: values.cache,
        epochs: given.has("epochs") ? values.epochs : undefined,
      }, display);
    await writeEvents(run, values.tensorboard);
    if (values.profile && !gpu.startProfile()) {
      display.line("no profile: this adapter has no timestamp queries");
    }
    const interrupt = new AbortController();
    const onInterrupt = () => {
      display.line("stopping after this step; again to stop at once");
      interrupt.abort();
      Deno.removeSignalListener("SIGINT", onInterrupt);
    };
    Deno.addSignalListener("SIGINT", onInterrupt);
    display.line(introduce(config, data, gpu, run));
    try {
      const outcome = await train(gpu, config, data, run, display, interrupt.signal);
      display.close();
      run.write("report", renderReport(run));
      if (values.profile) {
        display.line(formatProfile(await gpu.profile()));
        display.line(formatUploads(outcome.uploads));
      }
      const took = formatDuration((performance.now() - started) / 1000);
      if (outcome.status === "interrupted") {
        display.line(
          `stopped at step ${outcome.step} after ${took}; go on with: ` +
            `deno task train --resume ${run.path}` +
            (given.has("epochs") && values.resume !== undefined
              ? ` --epochs ${config.epochs}`
              : ""),
        );
        return 130;
      }
      display.line(
        outcome.loss === null
          ? `${run.path} is done: step ${outcome.step} of ${
            Number(config.epochs.toFixed(2))
          } epochs; ` +
            "a higher --epochs goes on"
          : `done in ${took}: loss ${outcome.loss.toFixed(4)}; ${run.path}/ holds ` +
            "encoder.safetensors, report.html, metrics.jsonl, config.json",
      );
      return 0;
    } catch (error) {
      display.close();
      // Without a step there is nothing to keep, and the same --out may be tried again.
      if (values.resume === undefined && !run.has("metrics")) {
        Deno.removeSync(run.path, { recursive: true });
      }
      if (!(error instanceof DeviceLostError)) throw error;
      const rescue = run.has("checkpoint")
        ? `the last checkpoint is ${run.pathOf("checkpoint")}: deno task train --resume ${run.path}`
        : "there was no checkpoint yet";
      console.error(`error: ${error.message}; ${rescue}`);
      return 1;
    } finally {
      Deno.removeSignalListener("SIGINT", onInterrupt);
      gpu.close();
    }
  },
});

/** A run with what it needs to begin or to go on. */
export interface Training {
  readonly run: RunFolder;
  readonly config: TrainConfig;
  readonly data: TrainData;
}

/**
 * A new run: its data, its configuration, its folder.
 *
 * @throws {UserError} if the values of the flags do not fit each other, the data or the folder
 */
export async function prepareTraining(
  values: Values<typeof flags>,
  given: ReadonlySet<string>,
  gpu: Gpu,
  display: Pick<Display, "stage" | "line">,
): Promise<Training> {
  const { method, batch, accumulate, steps } = values;
  if (steps !== undefined && given.has("epochs")) {
    throw new UserError(`--steps ${steps}: takes the place of --epochs, give one of them`);
  }
  const optimizer = values.optimizer ?? (method === "kmeans" ? "sgd" : "adamw");
  const init = values.init === undefined ? null : readInit(values.init);
  const architecture = architectureFrom(values, given, init);
  const { channels } = architecture;
  const loader = new ImageLoader(values, display);
  const data = await loadData(values.data, method, values.imageSize, channels, loader);
  const imagesPerStep = batch * accumulate;
  if (imagesPerStep > data.images.count) {
    throw new UserError(
      `--batch ${batch}${accumulate > 1 ? ` times --accumulate ${accumulate}` : ""} is more than ` +
        `the ${data.images.count} images to train on`,
    );
  }
  const epochs = steps === undefined
    ? values.epochs
    : steps / Math.floor(data.images.count / imagesPerStep);
  if (init !== null && foldsStem(init, channels)) display.line(foldNote(init));
  // Clusters of plain images are hardly found again in strong views of a small set.
  const radiograph = method === "kmeans" ? "light" : "medical";
  const augment = values.augment ?? (channels === 1 ? radiograph : "simclr");
  const config: TrainConfig = {
    method,
    data: data.dataset.spec,
    ...architecture,
    imageSize: values.imageSize,
    augment,
    blur: values.blur ?? presets[augment].blur,
    normalization: normalizationFrom(init, data.images),
    batch,
    accumulate,
    recompute: values.recompute,
    precision: values.precision,
    epochs,
    optimizer,
    lr: values.lr ?? defaultRate(method, optimizer, imagesPerStep),
    weightDecay: values.weightDecay,
    warmup: values.warmup ?? Math.min(10, epochs / 10),
    temperature: values.temperature,
    head: values.head,
    corrupt: values.corrupt,
    strength: values.strength ?? (values.corrupt === "noise" ? 0.2 : 0.4),
    loss: method === "supervised"
      ? chooseLoss(
        { ...data, train: data.pretraining, val: data.validation, apart: [] },
        values.loss,
      )
      : "bce",
    kmeans: values.kmeans,
    clusters: values.clusters ?? Math.max(2, Math.min(200, Math.floor(data.images.count / 10))),
    clip: values.clip,
    ema: values.ema,
    knnEvery: values.knnEvery,
    seed: values.seed,
    init: init?.file ?? null,
  };
  if (method === "kmeans" && config.clusters > data.images.count) {
    throw new UserError(
      `--clusters ${config.clusters} is more than the ${data.images.count} images to train on`,
    );
  }
  const model = createMethod(config, data);
  const run = createRun(method, values.out);
  run.writeConfig({
    ...config,
    labels: data.dataset.labels,
    used: usage(data.dataset, data.pretraining),
    validation: data.validation.length,
    skipBad: values.skipBad,
    referenceLines: [
      ...model.referenceLines(batch),
      { measure: "std", label: "1/√d, healthy", value: 1 / Math.sqrt(model.embeddingSize) },
    ],
    ...model.facts(),
    ...(model.samplesCaption === "" ? {} : { samplesCaption: model.samplesCaption }),
    wgrad: version,
    deno: Deno.version.deno,
    adapter: gpu.adapter,
    subgroupSize: gpu.subgroupSize,
    started: new Date().toISOString(),
  });
  loader.report(run);
  return { run, config, data };
}

/**
 * A run to go on with.
 *
 * @param options `cache` as the flag; `epochs` in place of those of its configuration
 * @throws {UserError} if it has no checkpoint, or its data has changed
 */
export async function reopenTraining(
  path: string,
  { cache, epochs }: { readonly cache: boolean; readonly epochs: number | undefined },
  display: Pick<Display, "stage" | "line">,
): Promise<Training> {
  const run = reopen(path, "train");
  // What a run did that is older than these fields.
  const implied = { accumulate: 1, recompute: false, precision: "f32" };
  const stored = { ...implied, ...run.readConfig() } as unknown as TrainConfig & {
    readonly skipBad?: boolean;
  };
  const config = epochs === undefined ? stored : { ...stored, epochs };
  const { data: spec, method, imageSize, channels } = config;
  const loader = new ImageLoader({ skipBad: stored.skipBad ?? false, cache }, display);
  const data = await loadData(spec, method, imageSize, channels, loader);
  loader.report(run);
  expectSameData(run, usage(data.dataset, data.pretraining));
  return { run, config, data };
}

/** Opens and decodes what a run needs: never an image of the test split. */
async function loadData(
  spec: string,
  method: MethodName,
  size: number,
  channels: 1 | 3,
  loader: ImageLoader,
): Promise<TrainData> {
  const dataset = await loader.open(spec);
  const labelled = (i: number) => isLabelled(dataset.examples[i]!);
  const pretraining = method === "supervised"
    ? indicesOf(dataset, ["train"]).filter(labelled)
    : pretrainingIndices(dataset);
  const validation = indicesOf(dataset, ["val"]).filter(labelled);
  if (pretraining.length === 0) throw new UserError(`${spec}: no image to train on`);
  const { train, val } = await loader.loadParts(
    dataset,
    { train: pretraining, val: validation },
    { size, channels },
  );
  return {
    dataset,
    pretraining: train.indices,
    images: train.images,
    validation: val.indices,
    validationImages: val.images,
  };
}

/**
 * Chen et al. scale linearly with the batch; for Adam's step, which has a fixed size, by the root. A
 * squared error wants smaller steps than a contrast; DeepCluster's rate is that of its paper.
 */
function defaultRate(method: MethodName, optimizer: OptimizerName, batch: number): number {
  if (optimizer === "sgd" || optimizer === "lars") {
    return method === "kmeans" ? 0.05 : 0.3 * batch / 256;
  }
  return (method === "autoencoder" ? 1e-3 : 3e-3) * Math.sqrt(batch / 128);
}

/** The line that says what is about to run, defaults included. */
function introduce(config: TrainConfig, data: TrainData, gpu: Gpu, run: RunFolder): string {
  const { arch, width, stem, channels, imageSize, batch, accumulate, epochs, optimizer, lr } =
    config;
  const { splits } = usage(data.dataset, data.pretraining);
  return [
    `${config.method}: ${arch} width ${width}, ${stem} stem, ${channels}×${imageSize}×${imageSize}, ` +
    `${config.augment} views`,
    `${splits.train} train and ${splits.unlabeled} unlabeled images of ${config.data}`,
    ...data.dataset.notes ?? [],
    `${Number(epochs.toFixed(2))} epochs of ${
      Math.floor(data.images.count / (batch * accumulate))
    } steps, batch ${batch}${accumulate > 1 ? ` times ${accumulate}` : ""}, ` +
    `${optimizer}, lr ${lr.toPrecision(3)}, seed ${config.seed}` +
    (config.precision === "f16" ? ", activations of f16" : ""),
    `on ${gpu.adapter.description}${gpu.adapter.isFallback ? " (software)" : ""}`,
    `into ${run.path}/`,
  ].join("\n");
}
