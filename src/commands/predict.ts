/** `deno task predict`: what a fine-tuned classifier says of image files, and where it looks. */
import { mkdirSync } from "node:fs";
import { basename, extname, join } from "node:path";
import { classify, loadClassifier, probabilities } from "../classifier.ts";
import { plainViews } from "../data/augment.ts";
import type { Dataset } from "../data/dataset.ts";
import { loadImage } from "../data/decode/decode.ts";
import { ImageSet } from "../data/image_set.ts";
import { encodePng } from "../data/decode/png.ts";
import { UserError } from "../errors.ts";
import { errorCode, writeAtomically } from "../files.ts";
import { Gpu } from "../gpu/gpu.ts";
import { gradCam, overlay } from "../gradcam.ts";
import { tableLines } from "../table.ts";
import { defineCommand } from "./command.ts";
import { modelFile } from "./eval.ts";
import { boolean, choice, path } from "./flags.ts";
import { imageFlags, ImageLoader } from "./images.ts";

/** Overlays of smaller images are enlarged to this side. */
const overlaySize = 256;

/** The command. */
export const command = defineCommand({
  name: "predict",
  summary: "Prints the probability of each label of a fine-tuned classifier for image files",
  flags: {
    run: path({ kind: "RUN", required: true, help: "run folder of finetune" }),
    epoch: choice({ of: ["best", "last"], default: "best", help: "which weights of the run" }),
    heatmap: path({
      kind: "DIR",
      help: "write a Grad-CAM overlay of every label, <image>-<label>.png",
    }),
    ...imageFlags,
    json: boolean({ help: "print one JSON object" }),
  },
  positionals: ["IMAGE…"],
  notes:
    "A * marks what reaches the threshold of its label, or the most probable of exclusive classes. Overlays\n" +
    "show the part of the image that the classifier sees; each is scaled to its own maximum.",
  async run({ run: folder, epoch, heatmap, json, ...flags }, { positionals: wanted }) {
    const gpu = await Gpu.open();
    try {
      const { model, state, format } = await loadClassifier(gpu, modelFile(folder, epoch));
      const { labels, size, normalization } = format;
      const { channels } = model.encoder.options;
      const loader = new ImageLoader(flags);
      const loaded = await loader.load(ofFiles(wanted), [...wanted.keys()], { size, channels });
      loader.report();
      const files = loaded.indices.map((index) => wanted[index]!);
      const images = new ImageSet(gpu, loaded.images);
      const rows = [...files.keys()];
      const scores = probabilities(await classify(model, images, rows, format), format);
      const predictions = files.map((file, row) => {
        const own = scores.subarray(row * labels.length, (row + 1) * labels.length);
        const top = own.indexOf(Math.max(...own));
        const holds = (i: number) =>
          format.kind === "single-label" ? i === top : own[i]! >= format.thresholds[i]!;
        return {
          image: file,
          labels: labels.map((label, i) => ({ label, probability: own[i]!, predicted: holds(i) })),
        };
      });

      const names = heatmap === undefined ? [] : overlayNames(files, labels);
      if (heatmap !== undefined) makeFolder(heatmap);
      for (const [row, own] of names.entries()) {
        const side = Math.max(size, overlaySize);
        const picture = {
          width: side,
          height: side,
          channels,
          pixels: await loadImage(files[row]!, side, channels),
        };
        const image = gpu.step(() => {
          const part = images.batch([row]);
          return plainViews(part.images, part.rows, normalization);
        });
        const heats = await gradCam(model, state, image);
        image.dispose();
        heats.forEach((heat, label) =>
          writeAtomically(join(heatmap!, own[label]!), encodePng(overlay(picture, heat)))
        );
      }

      if (json) {
        const results = predictions.map((prediction, row) => ({
          ...prediction,
          labels: prediction.labels.map((label, i) =>
            heatmap === undefined ? label : { ...label, heatmap: join(heatmap, names[row]![i]!) }
          ),
        }));
        console.log(JSON.stringify({ run: folder, predictions: results }, null, 2));
        return;
      }
      console.log(
        tableLines([
          ["image", ...labels],
          ...predictions.map(({ image, labels }) => [
            image,
            ...labels.map(({ probability, predicted }) =>
              `${probability.toFixed(3)}${predicted ? "*" : " "}`
            ),
          ]),
        ]).join("\n"),
      );
    } finally {
      gpu.close();
    }
  },
});

/** Image files of which nothing else is known. */
function ofFiles(files: readonly string[]): Dataset {
  return {
    spec: "files",
    labels: [],
    examples: files.map((file) => ({
      ...{ id: file, file, split: "unlabeled", labels: new Float32Array(0) },
      ...{ patient: null, source: null, view: null, license: null },
    })),
    load: (index, size, channels) => loadImage(files[index]!, size, channels),
  };
}

function makeFolder(folder: string): void {
  try {
    mkdirSync(folder, { recursive: true });
  } catch (error) {
    const code = errorCode(error);
    if (code === undefined) throw error;
    throw new UserError(`--heatmap ${folder}: cannot make this folder: ${code}`);
  }
}

/**
 * The file names of the overlays, a row an image.
 *
 * @throws {UserError} if two would be the same
 */
function overlayNames(files: readonly string[], labels: readonly string[]): string[][] {
  const plain = (text: string) => text.replaceAll(/[^\p{L}\p{N}._-]+/gu, "-");
  const names = files.map((file) =>
    labels.map((label) => `${plain(basename(file, extname(file)))}-${plain(label)}.png`)
  );
  const all = names.flat();
  const twice = all.find((name, i) => all.indexOf(name) !== i);
  if (twice === undefined) return names;
  throw new UserError(`--heatmap: two overlays would be called ${twice}; give these images apart`);
}
