/** `deno task probe`: kNN and logistic regression on frozen features, beside the baselines. */
import { measureNormalization } from "../data/augment.ts";
import { ImageSet } from "../data/image_set.ts";
import { loadEncoder } from "../encoder.ts";
import { Gpu } from "../gpu/gpu.ts";
import { ModelState } from "../nn/model_state.ts";
import { ResNet, type ResNetOptions } from "../nn/resnet.ts";
import {
  adaptStatistics,
  constantAccuracy,
  encoderFeatures,
  type Features,
  pixelFeatures,
  probeData,
  probeKnn,
  probeLinear,
  type ProbeScore,
} from "../probe.ts";
import { apartNote, formatInterval } from "../scores.ts";
import { tableLines } from "../table.ts";
import { defineCommand } from "./command.ts";
import { boolean, choice, integer, path, string } from "./flags.ts";
import { imageFlags, ImageLoader } from "./images.ts";
import { initFile } from "./init.ts";

/** The untrained encoder where there is no other to resemble: what `train` makes by default. */
const DEFAULT_ENCODER: ResNetOptions = { arch: "resnet18", width: 16, stem: "7x7", channels: 1 };

/** Logistic regression on more pixels would take minutes. */
const MOST_PIXELS = 4096;

/** The command. */
export const command = defineCommand({
  name: "probe",
  summary: "Scores an encoder's features by kNN and logistic regression, beside the baselines",
  flags: {
    init: path({
      kind: "RUN|FILE|pixels|none",
      required: true,
      help: "the encoder: a run, safetensors, or PyTorch's .pth of a ResNet",
    }),
    data: string({ kind: "SPEC", required: true, help: "labelled images with a train split" }),
    split: choice({ of: ["val", "test"], default: "test", help: "the split to score" }),
    probe: choice({ of: ["knn", "linear", "both"], default: "both", help: "what is put on top" }),
    imageSize: integer({
      min: 16,
      max: 1024,
      otherwise:
        "what the encoder was trained at, 224 where its file does not say; 64 without an encoder",
      help: "side of the images in pixels",
    }),
    k: integer({ min: 1, default: 20, help: "neighbours that vote" }),
    resamples: integer({ min: 1, default: 1000, help: "bootstrap resamples, of patients" }),
    seed: integer({ min: 0, default: 0, help: "of the untrained encoder" }),
    ...imageFlags,
    json: boolean({ help: "print one JSON object" }),
  },
  notes:
    "Baselines are the constant predictor, an untrained encoder and raw pixels; --init none scores them\n" +
    "alone, with a ResNet-18 of width 16, --init pixels without it. Both probes learn from the labelled\n" +
    "training images; the penalty of the regression is chosen on the val split, or, where that is missing\n" +
    "or scored, on a fifth of the training patients. The untrained encoder has its running statistics\n" +
    "adapted to the training images. Intervals are 95 %, by resampling patients.",
  async run({ init, data: spec, split, probe, imageSize, k, resamples, seed, json, ...flags }) {
    const gpu = await Gpu.open();
    try {
      const given = init === "pixels" || init === "none"
        ? null
        : await loadEncoder(gpu, initFile(init));
      const encoderOptions = given?.encoder.options ?? DEFAULT_ENCODER;
      const { channels } = encoderOptions;
      const loader = new ImageLoader(flags);
      const wanted = probeData(await loader.open(spec), split);
      const size = imageSize ?? (given === null ? 64 : given.format?.size ?? 224);
      const { train, val, test } = await loader.loadParts(
        wanted.dataset,
        { train: wanted.train, val: wanted.val, test: wanted.test },
        { size, channels },
      );
      loader.report();
      const data = { ...wanted, train: train.indices, val: val.indices, test: test.indices };
      const images = {
        train: new ImageSet(gpu, train.images),
        val: new ImageSet(gpu, val.images),
        test: new ImageSet(gpu, test.images),
      };
      const normalization = given?.format?.normalization ??
        measureNormalization(images.train.images.pixels, channels);

      const encoders: Features[] = [];
      if (init !== "pixels") {
        const untrained = new ResNet(encoderOptions);
        new ModelState(gpu, untrained, { seed });
        adaptStatistics(untrained, images.train, normalization, { seed });
        encoders.push(
          await encoderFeatures("untrained encoder", untrained, images, normalization),
        );
      }
      if (given !== null) {
        encoders.push(await encoderFeatures(init, given.encoder, images, normalization));
      }
      const features = (side: number) => {
        const pixels = pixelFeatures(images, normalization, { size: side });
        return [...encoders.slice(0, 1), pixels, ...encoders.slice(1)];
      };
      const side = Math.floor(Math.sqrt(MOST_PIXELS / channels));
      const result = {
        split,
        labels: data.dataset.labels,
        apart: data.apart,
        constant: constantAccuracy(data, resamples),
        ...(probe !== "linear" &&
          { knn: { k, scores: probeKnn(data, features(Infinity), { k, resamples }) } }),
        ...(probe !== "knn" &&
          { linear: { scores: probeLinear(data, features(side), { resamples }) } }),
      };
      if (json) {
        console.log(JSON.stringify(result, null, 2));
        return;
      }
      const { knn, linear, constant } = result;
      console.log([
        `${data.train.length} training images → ${data.test.length} of ${split}; ` +
        `labels ${data.dataset.labels.join(", ")}`,
        ...data.apart.map(apartNote),
      ].join("\n"));
      const show = (title: string, scores: readonly ProbeScore[]) => {
        const baseline = scores[0]!.name;
        const rows = scores.map(({ name, auroc, accuracy, gain }, i) => [
          name,
          ...[auroc, accuracy].map(formatInterval),
          i === 0 ? "" : formatInterval(gain),
        ]);
        console.log([
          "",
          ...tableLines([
            [title, "macro AUROC", "label accuracy", `AUROC − ${baseline}`],
            ["constant predictor", "0.500", formatInterval(constant), ""],
            ...rows,
          ], 4),
        ].join("\n"));
      };
      if (knn) show(`kNN, k = ${k}`, knn.scores);
      if (linear) show("logistic regression", linear.scores);
    } finally {
      gpu.close();
    }
  },
});
