/**
 * A whole step of SimCLR as `deno task train` does it: two views of every image, forward, NT-Xent, backward
 * and AdamW.
 */
import assert from "node:assert/strict";
import { pretrainingIndices } from "../src/data/dataset.ts";
import { measureNormalization, type Preset, presets } from "../src/data/augment.ts";
import { decodeAll } from "../src/data/decode/decode_all.ts";
import { openDataset } from "../src/data/open.ts";
import { ntXentFloor } from "../src/methods/simclr.ts";
import type { Stem } from "../src/nn/resnet.ts";
import { type TrainConfig, Trainer } from "../src/train.ts";
import { type Case, register } from "./support.ts";

/** More than the largest batch, two thirds of them to train on. */
const data = "phantom:n=256";

/** What cases differ in. */
interface Size {
  readonly width: number;
  readonly stem: Stem;
  readonly imageSize: number;
  readonly channels: 1 | 3;
  readonly augment: Preset;
  /** Images, of two views each. */
  readonly batch: number;
}

function caseOf(size: Size): Case {
  const { width, imageSize, channels, augment, batch } = size;
  return {
    name: "SimCLR step",
    shape: `width ${width}, 2×${batch}×${imageSize}²×${channels} ${augment}`,
    unit: "images/s",
    work: batch,
    async prepare(gpu) {
      const dataset = await openDataset(data);
      const pretraining = pretrainingIndices(dataset);
      const images = await decodeAll(dataset, pretraining, { size: imageSize, channels });
      const config: TrainConfig = {
        ...size,
        method: "simclr",
        data,
        arch: "resnet18",
        blur: presets[augment].blur,
        normalization: measureNormalization(images.pixels, channels),
        accumulate: 1,
        recompute: false,
        precision: "f32",
        epochs: 1,
        optimizer: "adamw",
        lr: 1e-3,
        weightDecay: 1e-4,
        warmup: 0,
        temperature: 0.2,
        head: "v1",
        corrupt: "noise",
        strength: 0,
        loss: "bce",
        kmeans: "v1",
        clusters: 2,
        clip: 0,
        ema: 0,
        knnEvery: 0,
        seed: 0,
        init: null,
      };
      const none = { validation: [], validationImages: { ...images, count: 0 } };
      const trainer = new Trainer(gpu, config, { dataset, pretraining, images, ...none });
      let steps = 0;
      const run = () => trainer.step(steps++, trainer.batches(0, 0), config.lr, 0);
      run();
      const [first] = await trainer.readMetrics(1);
      const range = [ntXentFloor(batch, config.temperature), 2 * Math.log(2 * batch)] as const;
      assert(first!.loss > range[0] && first!.loss < range[1], `a loss of ${first!.loss}`);
      const { values, gradients, statistics } = trainer.model;
      return { run, tensors: [values, gradients, statistics] };
    },
  };
}

/** Radiographs as `deno task train` takes them by default, photographs, and the paper's CIFAR-10. */
export const cases: readonly Case[] = [
  { width: 16, stem: "7x7", imageSize: 64, channels: 1, augment: "medical", batch: 128 },
  { width: 16, stem: "7x7", imageSize: 64, channels: 3, augment: "simclr", batch: 128 },
  { width: 64, stem: "3x3", imageSize: 32, channels: 3, augment: "simclr-cifar", batch: 32 },
].map((size) => caseOf(size as Size));

register("simclr", cases);
