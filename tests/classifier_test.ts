import assert from "node:assert/strict";
import { join } from "node:path";
import { noGrad } from "../src/autograd.ts";
import {
  type ClassifierFormat,
  classify,
  encodeClassifier,
  loadClassifier,
  probabilities,
} from "../src/classifier.ts";
import { plainViews } from "../src/data/augment.ts";
import { ImageSet } from "../src/data/image_set.ts";
import type { Picture } from "../src/data/decode/picture.ts";
import { readEncoderFile } from "../src/encoder.ts";
import { UserError } from "../src/errors.ts";
import { encodeSafetensors } from "../src/formats/safetensors.ts";
import { gradCam, overlay } from "../src/gradcam.ts";
import { Classifier } from "../src/methods/supervised.ts";
import { ModelState } from "../src/nn/model_state.ts";
import { Random } from "../src/random.ts";
import { assertClose } from "./support/assert.ts";
import { withFiles } from "./support/files.ts";
import { gpu } from "./support/op.ts";

const options = { arch: "resnet18", width: 4, stem: "3x3", channels: 1 } as const;
const normalization = { mean: [0.5], std: [0.25] };
const format: ClassifierFormat = {
  size: 32,
  normalization,
  labels: ["a", "b", "c"],
  kind: "multi-label",
  thresholds: [0.2, 0.5, 0.7],
  constant: [0, 1, 0],
  apart: [{ label: "b", of: "a" }],
  epoch: 4,
};

const model = new Classifier(options, 3);
const state = new ModelState(gpu, model, { seed: 3 });
model.train(false);

const random = new Random(0, "classifier images");
const images = new ImageSet(gpu, {
  count: 5,
  size: 32,
  channels: 1,
  pixels: Uint8Array.from({ length: 5 * 32 * 32 }, () => random.integer(256)),
});
const view = () =>
  gpu.step(() => {
    const part = images.batch([2]);
    return plainViews(part.images, part.rows, normalization);
  });

Deno.test("a classifier's file has torchvision's names and loads to the same logits", async () => {
  const file = encodeClassifier(await state.arrays(), format);
  await withFiles({ "model.safetensors": file }, async (dir) => {
    const path = join(dir, "model.safetensors");
    const loaded = await loadClassifier(gpu, path);
    assert.deepEqual(loaded.format, format);
    const logits = await classify(model, images, [0, 1, 2, 3, 4], { normalization });
    assert.equal(logits.length, 15);
    assert.deepEqual(await classify(loaded.model, images, [0, 1, 2, 3, 4], format), logits);
    assert.deepEqual(
      await classify(model, images, [4, 1], { normalization, batch: 1 }),
      Float32Array.of(...logits.subarray(12), ...logits.subarray(3, 6)),
    );
    // The encoder alone serves as --init.
    const { arrays, format: images_ } = readEncoderFile(path);
    assert.deepEqual([images_!.size, images_!.normalization], [32, normalization]);
    assert.deepEqual(
      [arrays.has("conv1.weight"), arrays.has("fc.weight"), arrays.has("encoder.conv1.weight")],
      [true, false, false],
    );
  });
});

Deno.test("loadClassifier() refuses other files by name", async () => {
  const arrays = await state.arrays();
  const files = {
    "no-metadata.safetensors": encodeSafetensors(arrays),
    "encoder.safetensors": encodeSafetensors(arrays, {
      wgrad: JSON.stringify({ size: 32, normalization }),
    }),
    "thresholds.safetensors": encodeClassifier(arrays, { ...format, thresholds: [0.5] }),
    "labels.safetensors": encodeClassifier(arrays, { ...format, labels: [1, 2] as never }),
    "kind.safetensors": encodeClassifier(arrays, { ...format, kind: "other" as never }),
    "size.safetensors": encodeClassifier(arrays, { ...format, size: 0 }),
  };
  await withFiles(files, async (dir) => {
    for (const name of Object.keys(files)) {
      const path = join(dir, name);
      await assert.rejects(loadClassifier(gpu, path), (error: Error) => {
        assert.ok(error instanceof UserError);
        assert.equal(
          error.message,
          `${path}: no classifier of wgrad (its metadata name no labels)`,
        );
        return true;
      });
    }
  });
});

Deno.test("probabilities() are sigmoids, or one softmax a row", () => {
  const logits = Float32Array.of(0, 100, -100, 1000, 1000, -1000);
  const labels = ["a", "b", "c"];
  assertClose(
    probabilities(logits, { labels, kind: "multi-label" }),
    [0.5, 1, 0, 1, 1, 0],
    { atol: 1e-12 },
    "sigmoid",
  );
  assertClose(
    probabilities(logits, { labels, kind: "single-label" }),
    [0, 1, 0, 0.5, 0.5, 0],
    { atol: 1e-12 },
    "softmax",
  );
});

Deno.test("gradCam() is the class activation map of a head on pooled features", async () => {
  const image = view();
  const heats = await gradCam(model, state, image);
  const map = gpu.step(() => noGrad(() => model.encoder.map(image)));
  const [, height, width, channels] = map.shape as [number, number, number, number];
  const features = await map.data() as Float32Array;
  const weight = await model.fc.weight.tensor.data() as Float32Array;
  assert.deepEqual([heats.length, height, width, channels], [3, 4, 4, 32]);
  heats.forEach((heat, label) => {
    assert.deepEqual([heat.width, heat.height], [width, height]);
    const expected = Array.from({ length: height * width }, (_, place) => {
      let sum = 0;
      for (let c = 0; c < channels; c++) {
        sum += features[place * channels + c]! * weight[c * 3 + label]!;
      }
      return Math.max(0, sum) / (height * width);
    });
    assertClose(heat.values, expected, { rtol: 1e-4, atol: 1e-6 }, `label ${label}`);
  });
  assert.ok(heats.some(({ values }) => values.some((value) => value > 0)));
  assert.ok(heats.some(({ values }) => values.some((value) => value === 0)));
});

Deno.test("overlay() leaves what is cold and covers what is hot", () => {
  const picture: Picture = {
    width: 8,
    height: 8,
    channels: 1,
    pixels: Uint8Array.from({ length: 64 }, (_, i) => i),
  };
  const heat = (...values: number[]) => ({
    width: 2,
    height: 2,
    values: Float64Array.from(values),
  });
  const cold = overlay(picture, heat(0, 0, 0, 0));
  assert.deepEqual(cold.pixels, Uint8Array.from({ length: 192 }, (_, i) => Math.floor(i / 3)));
  const { pixels } = overlay(picture, heat(0, 5, 0, 0));
  const at = (x: number, y: number) => [...pixels.subarray(3 * (8 * y + x), 3 * (8 * y + x) + 3)];
  // The corner of the hot cell: 60 % of the strongest colour; that of the opposite one: untouched.
  assert.deepEqual(at(7, 0), [252, 255, 164].map((c) => Math.round(7 + 0.6 * (c - 7))));
  assert.deepEqual(at(0, 7), [56, 56, 56]);
  assert.deepEqual(at(0, 0), [0, 0, 0]);
  // Along the upper edge the heat rises.
  const black = overlay({ ...picture, pixels: new Uint8Array(64) }, heat(0, 5, 0, 0)).pixels;
  const red = Array.from({ length: 8 }, (_, x) => black[3 * x]!);
  assert.ok(red.every((value, x) => x === 0 || value >= red[x - 1]!), `${red}`);
  const colour = overlay({ ...picture, channels: 3, pixels: cold.pixels }, heat(0, 0, 0, 0));
  assert.deepEqual(colour.pixels, cold.pixels);
});
