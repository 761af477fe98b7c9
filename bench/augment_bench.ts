/** Views of images, 128 at a time: a training batch of 64 images, or images to embed. */
import {
  drawView,
  type Normalization,
  plainViews,
  type Preset,
  presets,
  renderViews,
} from "../src/data/augment.ts";
import type { Images } from "../src/data/dataset.ts";
import { Random } from "../src/random.ts";
import { naiveView } from "../tests/reference/naive_augment.ts";
import { type Case, checkSome, register } from "./support.ts";

const count = 64;
const order = Array.from({ length: 2 * count }, (_, i) => i % count);
const normalization: Normalization = { mean: [0, 0, 0], std: [1, 1, 1] };

function randomImages(size: number, channels: 1 | 3): Images {
  const random = new Random(0, "images");
  const length = count * size * size * channels;
  const pixels = Uint8Array.from({ length }, () => random.integer(256));
  return { count, size, channels, pixels };
}

function caseOf(recipe: Preset | "plain", size: number, channels: 1 | 3): Case {
  return {
    name: `augment ${recipe}`,
    shape: `${size}²×${channels} n${order.length}`,
    unit: "ms",
    work: 1,
    async prepare(gpu) {
      const images = randomImages(size, channels);
      const tensor = gpu.tensor(images.pixels, [count, size, size, channels]);
      const preset = presets[recipe === "plain" ? "none" : recipe];
      const views = order.map((row, i) => drawView(preset, new Random(0, "views", i), row, size));
      const make = () =>
        recipe === "plain"
          ? plainViews(tensor, order, normalization)
          : renderViews(tensor, views, normalization);

      const result = gpu.step(make);
      const length = size * size * channels;
      const expected = (index: number) =>
        naiveView(images, views[Math.floor(index / length)]!, normalization)[index % length]!;
      await checkSome(`augment ${recipe}`, result, expected);
      result.dispose();
      return { run: () => void make(), tensors: [tensor] };
    },
  };
}

/** Every recipe at the size it is for. */
export const cases: readonly Case[] = [
  caseOf("plain", 64, 1),
  caseOf("none", 64, 1),
  caseOf("medical", 64, 1),
  caseOf("plain", 64, 3),
  caseOf("simclr", 64, 3),
  caseOf("simclr-cifar", 32, 3),
];

register("augment", cases);
