/** `deno task finetune`: a classifier from an encoder and labelled images. */
import { type Preset, presets } from "../data/augment.ts";
import { usage } from "../data/dataset.ts";
import { UserError } from "../errors.ts";
import {
  type EpochScores,
  finetune,
  type FinetuneConfig,
  type FinetuneData,
  selections,
} from "../finetune.ts";
import {
  chooseLoss,
  finetuneSplits,
  labelBalance,
  labelProblems,
  positiveWeights,
} from "../finetune_data.ts";
import { BindingLimitError, Gpu } from "../gpu/gpu.ts";
import { lossNames } from "../methods/supervised.ts";
import type { ResNetOptions } from "../nn/resnet.ts";
import { renderReport } from "../report/report.ts";
import { createRun, type RunFolder } from "../run_folder.ts";
import { apartNote } from "../scores.ts";
import { tableLines } from "../table.ts";
import { version } from "../version.ts";
import { defineCommand } from "./command.ts";
import { boolean, choice, integer, number, path, type Values } from "./flags.ts";
import { imageFlags, ImageLoader } from "./images.ts";
import {
  architectureFrom,
  foldNote,
  foldsStem,
  type Init,
  normalizationFrom,
  readInit,
} from "./init.ts";
import { createDisplay, type Display, formatDuration } from "./progress.ts";
import { expectNoSettings, expectSameData, reopen } from "./resume.ts";
import { writeEvents } from "./tensorboard.ts";
import { flags as trainFlags } from "./train.ts";

const {
  data,
  arch,
  width,
  stem,
  channels,
  recompute,
  precision,
  seed,
  resume,
  config: configFlag,
  json,
  tensorboard,
} = trainFlags;

/** Those of the command. */
export const flags = {
  init: path({
    kind: "RUN|FILE|none",
    help:
      "the encoder, required but with --resume: a run, safetensors, or PyTorch's .pth of a ResNet; none trains from scratch",
  }),
  data,
  freeze: boolean({ help: "train the head alone, on features of the unchanged images" }),
  labelFraction: number({
    above: 0,
    max: 1,
    default: 1,
    help: "part of the labelled training patients, stratified by their labels",
  }),
  select: choice({
    of: selections,
    default: "auroc",
    help: "by what the best epoch is chosen on the validation images",
  }),
  loss: choice({
    of: lossNames,
    otherwise: "cross-entropy where every image has exactly one label, else bce",
    help: "what is minimised",
  }),
  posWeight: boolean({ help: "bce: positives count by negatives/positives of their label" }),
  labelSmoothing: number({ min: 0, below: 1, default: 0, help: "ε of cross-entropy" }),
  epochs: integer({ min: 1, max: 100000, default: 30, help: "passes over the data" }),
  lr: number({ above: 0, default: 1e-3, help: "rate of AdamW at the start, then half a cosine" }),
  weightDecay: number({ min: 0, default: 0.05, help: "not for biases and normalisations" }),
  layerDecay: number({
    above: 0,
    max: 1,
    default: 1,
    help: "factor of the rate from one stage of the encoder to the one before it",
  }),
  patience: integer({
    min: 0,
    default: 0,
    help: "stop after so many epochs without a better one; 0 for never",
  }),
  batch: integer({ min: 2, max: 65536, default: 64, help: "images that train at a time" }),
  accumulate: integer({
    min: 1,
    max: 65536,
    default: 1,
    help: "batches a step, their gradients averaged",
  }),
  recompute,
  precision,
  augment: choice({
    of: Object.keys(presets) as Preset[],
    default: "light",
    help: "recipe of the random views; nothing is changed with --freeze",
  }),
  imageSize: integer({
    min: 16,
    max: 1024,
    otherwise: "what the encoder was trained at; 64 without one, 224 for a file that does not say",
    help: "side of the images in pixels",
  }),
  arch,
  width,
  stem,
  channels,
  seed,
  ...imageFlags,
  out: path({
    kind: "DIR",
    otherwise: "the next free runs/finetune-<n>",
    help: "run folder to make",
  }),
  resume,
  config: configFlag,
  json,
  tensorboard,
};

/** The command. */
export const command = defineCommand({
  name: "finetune",
  summary: "Trains a classifier from an encoder and labelled images",
  flags,
  notes:
    "Trains on labelled images of the split train, with batch statistics; chooses epoch and thresholds on\n" +
    "val; never sees test. With --freeze the encoder stays as it is, running statistics included. The run\n" +
    "holds model.safetensors (the best epoch) and last.safetensors: encoder and head by torchvision's\n" +
    "names, with labels, normalisation, image size and thresholds in their metadata.",
  async run(values, { given }) {
    const display = createDisplay(values);
    if (values.resume !== undefined) expectNoSettings(given);
    const started = performance.now();
    display.stage("opening the GPU");
    const gpu = await Gpu.open();
    const interrupt = new AbortController();
    const onInterrupt = () => {
      display.line("stopping after this step; again to stop at once");
      interrupt.abort();
      Deno.removeSignalListener("SIGINT", onInterrupt);
    };
    let run: RunFolder | null = null;
    try {
      const tuning = values.resume === undefined
        ? await prepare(values, given, gpu, display)
        : await reopenTuning(values.resume, {
          cache: values.cache,
          epochs: given.has("epochs") ? values.epochs : undefined,
        }, display);
      const { config, data } = tuning;
      run = tuning.run;
      await writeEvents(run, values.tensorboard);
      display.line(
        `${data.images.count} training and ${data.validationImages.count} validation images of ` +
          `${config.data}, ${config.loss}, ${config.epochs} epochs, on ${gpu.adapter.description}, ` +
          `into ${run.path}/`,
      );
      Deno.addSignalListener("SIGINT", onInterrupt);
      const { status, best, last } = await finetune(gpu, config, data, run, {
        compiling: (kernel) => display.compiling(kernel),
        progress: (progress) => display.progress(progress),
        validated: (scores, isBest) =>
          display.line(`${describe(scores)}${isBest ? ", best so far" : ""}`),
      }, interrupt.signal);
      display.close();
      run.write("report", renderReport(run));
      const took = formatDuration((performance.now() - started) / 1000);
      display.line(
        status === "interrupted"
          ? `stopped after ${took}; go on with: deno task finetune --resume ${run.path}` +
            (given.has("epochs") && values.resume !== undefined ? ` --epochs ${config.epochs}` : "")
          : `${status} after ${took}`,
      );
      if (best !== null && last !== null) {
        display.line(`best by --select ${config.select}: ${describe(best)} (model.safetensors)`);
        display.line(`last: ${describe(last)} (last.safetensors)`);
        display.line(`next: deno task eval --run ${run.path}`);
      }
      return status === "interrupted" ? 130 : 0;
    } catch (error) {
      display.close();
      // Without an epoch there is nothing to keep, and the same --out may be tried again.
      if (run !== null && !run.has("last") && !run.has("checkpoint")) {
        Deno.removeSync(run.path, { recursive: true });
      }
      if (!(error instanceof BindingLimitError)) throw error;
      throw new UserError(
        `--batch ${values.batch}: a tensor [${error.shape}] is more than this adapter can bind`,
      );
    } finally {
      Deno.removeSignalListener("SIGINT", onInterrupt);
      gpu.close();
    }
  },
});

function describe({ epoch, auroc, map, loss }: EpochScores): string {
  return `epoch ${epoch}: validation macro AUROC ${auroc.toFixed(3)}, ` +
    `average precision ${map.toFixed(3)}, loss ${loss.toFixed(4)}`;
}

/** A run with what it needs to begin or to go on. */
interface Tuning {
  readonly run: RunFolder;
  readonly config: FinetuneConfig;
  readonly data: FinetuneData;
}

/** A new run: its data, its configuration, its folder. */
async function prepare(
  values: Values<typeof flags>,
  given: ReadonlySet<string>,
  gpu: Gpu,
  display: Display,
): Promise<Tuning> {
  const { freeze, labelFraction, seed } = values;
  if (values.init === undefined) {
    throw new UserError("--init is required");
  }
  if (freeze && values.init === "none") {
    throw new UserError("--freeze: an untrained encoder is not worth keeping; give --init");
  }
  if (freeze && values.precision === "f16") {
    throw new UserError("--precision f16: with --freeze the encoder does not train, and stays f32");
  }
  const init = values.init === "none" ? null : readInit(values.init);
  const architecture = architectureFrom(values, given, init);
  const { channels } = architecture;
  if (init !== null && foldsStem(init, channels)) display.line(foldNote(init));
  const size = values.imageSize ?? (init === null ? 64 : init.weights.format?.size ?? 224);

  const loader = new ImageLoader(values, display);
  const spec = values.data;
  const data = await loadData(
    { data: spec, imageSize: size, channels, labelFraction, seed },
    loader,
  );
  display.line([
    ...tableLines([
      ["training images", "positive", "negative", "missing"],
      ...labelBalance(data.dataset, data.train).map(({ label, positive, negative, missing }) => [
        label,
        ...[positive, negative, missing].map(String),
      ]),
    ]),
    ...data.apart.map(apartNote),
  ].join("\n"));
  labelProblems(data).forEach((problem) => display.line(problem));
  const config = finetuneConfig(values, architecture, init, data);
  const run = createRun("finetune", values.out);
  writeConfig(run, config, data, gpu, values.skipBad);
  loader.report(run);
  return { run, config, data };
}

/**
 * A run to go on with.
 *
 * @param options `cache` as the flag; `epochs` in place of those of its configuration
 * @throws {UserError} if it has no checkpoint, or its data has changed
 */
async function reopenTuning(
  path: string,
  { cache, epochs }: { readonly cache: boolean; readonly epochs: number | undefined },
  display: Display,
): Promise<Tuning> {
  const run = reopen(path, "finetune");
  const stored = run.readConfig() as unknown as FinetuneConfig & { readonly skipBad: boolean };
  const config = epochs === undefined ? stored : { ...stored, epochs };
  const loader = new ImageLoader({ skipBad: stored.skipBad, cache }, display);
  const data = await loadData(config, loader);
  loader.report(run);
  expectSameData(run, usage(data.dataset, data.train));
  return { run, config, data };
}

/** Opens and decodes what a run needs: never an image of the test split. */
async function loadData(
  { data: spec, imageSize: size, channels, labelFraction: fraction, seed }: Pick<
    FinetuneConfig,
    "data" | "imageSize" | "channels" | "labelFraction" | "seed"
  >,
  loader: ImageLoader,
): Promise<FinetuneData> {
  const dataset = await loader.open(spec);
  const splits = finetuneSplits(dataset, { fraction, seed });
  const { train, val } = await loader.loadParts(
    dataset,
    { train: splits.train, val: splits.val },
    { size, channels },
  );
  return {
    ...splits,
    train: train.indices,
    images: train.images,
    val: val.indices,
    validationImages: val.images,
  };
}

/**
 * The configuration that the values of the flags ask for.
 *
 * @throws {UserError} if they ask for a loss that the labels do not allow
 */
export function finetuneConfig(
  values: Values<typeof flags>,
  architecture: ResNetOptions,
  init: Init | null,
  data: FinetuneData,
): FinetuneConfig {
  const { freeze, select, labelSmoothing, epochs, lr, weightDecay, layerDecay } = values;
  const { labelFraction, patience, batch, seed } = values;
  const loss = chooseLoss(data, values.loss);
  if (values.posWeight && loss !== "bce") {
    throw new UserError(`--pos-weight is of --loss bce, not ${loss}`);
  }
  return {
    method: "finetune",
    data: data.dataset.spec,
    ...architecture,
    imageSize: data.images.size,
    augment: freeze ? "none" : values.augment,
    normalization: normalizationFrom(init, data.images),
    batch,
    accumulate: values.accumulate,
    recompute: values.recompute,
    precision: values.precision,
    epochs,
    lr,
    weightDecay,
    layerDecay,
    freeze,
    labelFraction,
    select,
    loss,
    posWeight: values.posWeight ? positiveWeights(data) : null,
    labelSmoothing,
    patience,
    seed,
    init: init?.file ?? null,
  };
}

function writeConfig(
  run: RunFolder,
  config: FinetuneConfig,
  { dataset, train, val, apart }: FinetuneData,
  gpu: Gpu,
  skipBad: boolean,
): void {
  run.writeConfig({
    ...config,
    labels: dataset.labels,
    apart: apart.map(({ label }) => label),
    used: usage(dataset, train),
    validation: val.length,
    skipBad,
    balance: Object.fromEntries(
      labelBalance(dataset, train).map(({ label, ...counts }) => [label, counts]),
    ),
    wgrad: version,
    deno: Deno.version.deno,
    adapter: gpu.adapter,
    subgroupSize: gpu.subgroupSize,
    started: new Date().toISOString(),
  });
}
