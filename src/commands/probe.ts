/** `deno task probe`: kNN on frozen features, beside the baselines. */
import { decodeAll } from "../data/decode_all.ts";
import { measureNormalization } from "../data/augment.ts";
import { ImageSet } from "../data/image_set.ts";
import { openDataset } from "../data/open.ts";
import { loadEncoder } from "../encoder.ts";
import { Gpu } from "../gpu/gpu.ts";
import type { Interval } from "../metrics.ts";
import { ModelState } from "../nn/model_state.ts";
import { ResNet } from "../nn/resnet.ts";
import {
  adaptStatistics,
  constantAccuracy,
  encoderFeatures,
  pixelFeatures,
  probeData,
  probeKnn,
} from "../probe.ts";
import { defineCommand } from "./command.ts";
import { boolean, choice, integer, path, string } from "./flags.ts";
import { initFile } from "./init.ts";

/** The command. */
export const command = defineCommand({
  name: "probe",
  summary: "Scores an encoder's features by kNN, beside raw pixels and an untrained encoder",
  flags: {
    init: path({
      kind: "RUN|FILE",
      required: true,
      help: "the encoder: a run or a safetensors file",
    }),
    data: string({ kind: "SPEC", required: true, help: "labelled images with a train split" }),
    split: choice({ of: ["val", "test"], default: "test", help: "the split to score" }),
    imageSize: integer({
      min: 16,
      max: 1024,
      otherwise: "what the encoder was trained at, 224 where the file does not say",
      help: "side of the images in pixels",
    }),
    k: integer({ min: 1, default: 20, help: "neighbours that vote" }),
    resamples: integer({ min: 1, default: 1000, help: "bootstrap resamples, of patients" }),
    seed: integer({ min: 0, default: 0, help: "of the untrained encoder" }),
    json: boolean({ help: "print one JSON object" }),
  },
  notes:
    "Neighbours are labelled training images. The untrained encoder has its running statistics\n" +
    "adapted to the training images. Intervals are 95 %, by resampling patients.",
  async run({ init, data: spec, split, imageSize, k, resamples, seed, json }) {
    const gpu = await Gpu.open();
    try {
      const { encoder, format } = await loadEncoder(gpu, initFile(init));
      const data = probeData(await openDataset(spec), split);
      const options = {
        size: imageSize ?? format?.size ?? 224,
        channels: encoder.options.channels,
      };
      const load = async (indices: readonly number[]) =>
        new ImageSet(gpu, await decodeAll(data.dataset, indices, options));
      const [train, test] = [await load(data.train), await load(data.test)];
      const normalization = format?.normalization ??
        measureNormalization(train.images.pixels, options.channels);
      const untrained = new ResNet(encoder.options);
      new ModelState(gpu, untrained, { seed });
      adaptStatistics(untrained, train, normalization, { seed });
      const scores = probeKnn(data, [
        await encoderFeatures("untrained encoder", untrained, train, test, normalization),
        pixelFeatures(train, test, normalization),
        await encoderFeatures(init, encoder, train, test, normalization),
      ], { k, resamples });
      const constant = constantAccuracy(data, resamples);
      const { labels } = data.dataset;
      if (json) {
        console.log(JSON.stringify({ split, k, labels, constant, scores }, null, 2));
        return;
      }
      console.log(
        `kNN, k = ${k}: ${data.train.length} training images → ${data.test.length} of ${split}; ` +
          `labels ${labels.join(", ")}`,
      );
      const row = (...cells: string[]) =>
        console.log(cells.map((cell, i) => cell.padEnd(i === 0 ? 28 : 26)).join("").trimEnd());
      row("", "macro AUROC", "label accuracy", "AUROC − untrained");
      row("constant predictor", "0.500", interval(constant));
      for (const { name, auroc, accuracy, gain } of scores) {
        row(name, interval(auroc), interval(accuracy), gain === null ? "" : interval(gain.auroc));
      }
    } finally {
      gpu.close();
    }
  },
});

/** `0.912 [0.881, 0.939]` */
function interval({ estimate, low, high }: Interval): string {
  return `${estimate.toFixed(3)} [${low.toFixed(3)}, ${high.toFixed(3)}]`;
}
