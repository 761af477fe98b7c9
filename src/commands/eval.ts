/** `deno task eval`: a fine-tuned classifier on held-out images. */
import { classify, loadClassifier, probabilities } from "../classifier.ts";
import { type Dataset, indicesOf, isLabelled, type Split } from "../data/dataset.ts";
import { ImageSet } from "../data/image_set.ts";
import { UserError } from "../errors.ts";
import { Gpu } from "../gpu/gpu.ts";
import { openRun } from "../run_folder.ts";
import { formatScores, scoreMultiLabel, scoreSingleLabel } from "../scores.ts";
import { defineCommand } from "./command.ts";
import { boolean, choice, integer, path, string } from "./flags.ts";
import { imageFlags, ImageLoader } from "./images.ts";

/** The command. */
export const command = defineCommand({
  name: "eval",
  summary: "Scores a fine-tuned classifier, beside the constant predictor",
  flags: {
    run: path({ kind: "RUN", required: true, help: "run folder of finetune" }),
    data: string({ kind: "SPEC", otherwise: "the run's", help: "labelled images" }),
    split: choice({ of: ["train", "val", "test"], default: "test", help: "the split to score" }),
    epoch: choice({ of: ["best", "last"], default: "best", help: "which weights of the run" }),
    resamples: integer({ min: 1, default: 1000, help: "bootstrap resamples, of patients" }),
    ...imageFlags,
    json: boolean({ help: "print one JSON object" }),
  },
  notes:
    "Thresholds are those of the run, chosen on its validation images; the constant predictor is made from\n" +
    "its training images. Labels go by name: one that --data does not know counts as missing.",
  async run({ run: folder, data: spec, split, epoch, resamples, json, ...flags }) {
    const gpu = await Gpu.open();
    try {
      const run = openRun(folder);
      const { model, format } = await loadClassifier(gpu, modelFile(folder, epoch));
      const loader = new ImageLoader(flags);
      const dataset = await loader.open(spec ?? String(run.readConfig().data));
      const labelled = indicesOf(dataset, [split as Split]).filter((i) =>
        isLabelled(dataset.examples[i]!)
      );
      if (labelled.length === 0) {
        throw new UserError(`${dataset.spec}: no labelled image in the ${split} split`);
      }
      const { size, labels, thresholds, constant, apart, kind } = format;
      const { channels } = model.encoder.options;
      const { images, indices } = await loader.load(dataset, labelled, { size, channels });
      loader.report();
      const logits = await classify(model, new ImageSet(gpu, images), [...indices.keys()], format);
      const examples = indices.map((index) => dataset.examples[index]!);
      const predictions = {
        labels,
        scores: probabilities(logits, format),
        targets: targetsOf(dataset, indices, labels),
        patients: examples.map(({ patient }) => patient),
        sources: examples.map(({ source }) => source),
        trainTargets: constant,
      };
      const scores = kind === "single-label" ? scoreSingleLabel(predictions, { resamples }) : {
        ...scoreMultiLabel(
          { ...predictions, thresholds, apart: apart.map(({ label }) => label) },
          { resamples },
        ),
        // With the labels that they negate, which is known from training.
        apart,
      };
      if (json) {
        const about = { run: folder, data: dataset.spec, split, epoch: format.epoch };
        console.log(JSON.stringify({ ...about, ...scores }, null, 2));
        return;
      }
      console.log(`${folder}, epoch ${format.epoch} (${epoch}), ${split} of ${dataset.spec}`);
      console.log(formatScores(scores));
    } finally {
      gpu.close();
    }
  },
});

/**
 * The file of a classifier in a run.
 *
 * @throws {UserError} if it is no run of finetune, or has finished no epoch
 */
export function modelFile(folder: string, epoch: "best" | "last" = "best"): string {
  const run = openRun(folder);
  const file = epoch === "best" ? "model" : "last";
  if (run.has(file)) return run.pathOf(file);
  throw new UserError(`${folder}: no classifier in this run; deno task finetune makes one`);
}

/** Targets [n, labels] in the order of a classifier's labels; NaN for those the data does not know. */
function targetsOf(
  dataset: Dataset,
  indices: readonly number[],
  labels: readonly string[],
): Float32Array {
  const columns = labels.map((label) => dataset.labels.indexOf(label));
  if (columns.every((column) => column < 0)) {
    throw new UserError(
      `${dataset.spec}: none of the classifier's labels (${labels.join(", ")}), but ` +
        (dataset.labels.join(", ") || "none at all"),
    );
  }
  return Float32Array.from(indices.flatMap((index) => {
    const known = dataset.examples[index]!.labels;
    return columns.map((column) => column < 0 ? NaN : known[column]!);
  }));
}
