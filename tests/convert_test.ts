import assert from "node:assert/strict";
import { noGrad } from "../src/autograd.ts";
import { imageNet } from "../src/encoder.ts";
import type { SafeTensor } from "../src/formats/safetensors.ts";
import { foldStem, grayNormalization } from "../src/nn/convert.ts";
import { ModelState } from "../src/nn/model_state.ts";
import { ResNet, type ResNetOptions } from "../src/nn/resnet.ts";
import type { Tensor } from "../src/tensor.ts";
import { assertClose, relativeError } from "./support/assert.ts";
import { gpu, randomArray } from "./support/op.ts";

const { normalization } = imageNet;
const [width, size, count] = [4, 32, 2];
const colour: ResNetOptions = { arch: "resnet18", width, stem: "7x7", channels: 3 };

/** Gray levels in [0, 1], [count, size, size]. */
const levels = randomArray([count, size, size], "levels").map((x) => 1 / (1 + Math.exp(-x)));

/** The levels, normalised, in every channel. */
function images({ mean, std }: typeof normalization): Tensor {
  const channels = mean.length;
  const x = new Float32Array(levels.length * channels);
  x.forEach((_, i) => {
    const c = i % channels;
    x[i] = (levels[(i - c) / channels]! - mean[c]!) / std[c]!;
  });
  return gpu.tensor(x, [count, size, size, channels]);
}

/** Weights of a colour network whose stem has a running mean; filters alike in all channels if asked for. */
async function colourWeights(alike: boolean): Promise<Map<string, SafeTensor>> {
  const arrays = await new ModelState(gpu, new ResNet(colour), { seed: 3 }).arrays();
  const [running, stem] = ["bn1.running_mean", "conv1.weight"]
    .map((name) => arrays.get(name)!.data as Float32Array) as [Float32Array, Float32Array];
  running.set(randomArray([width], "running mean"));
  if (alike) stem.forEach((_, i) => stem[i] = stem[i - Math.floor(i / 49) % 3 * 49]!);
  return arrays;
}

/** What a network in evaluation makes of the images, by `fn`. */
async function evaluate(
  weights: ReadonlyMap<string, SafeTensor>,
  channels: 1 | 3,
  by: typeof normalization,
  fn = (net: ResNet, x: Tensor) => net.forward(x),
): Promise<Float32Array> {
  const net = new ResNet({ ...colour, channels });
  await new ModelState(gpu, net).load(weights, "weights");
  net.train(false);
  const y = gpu.step(() => noGrad(() => fn(net, images(by))));
  return await y.data() as Float32Array;
}

Deno.test("foldStem() is exact for filters that are alike in all channels, borders included", async () => {
  const weights = await colourWeights(true);
  const gray = grayNormalization(normalization);
  const folded = foldStem(weights, normalization, gray);
  const expected = await evaluate(weights, 3, normalization);
  assertClose(await evaluate(folded, 1, gray), expected, { rtol: 1e-4, atol: 1e-5 }, "features");
});

Deno.test("foldStem() is exact inside for any filters and any normalisation", async () => {
  const weights = await colourWeights(false);
  const stem = (net: ResNet, x: Tensor) => net.bn1.forward(net.conv1.forward(x));
  const expected = await evaluate(weights, 3, normalization, stem);
  const out = size / 2;
  // Windows are 7×7 at every second pixel: two rows and columns reach over the border, one at the end.
  const isInside = (_: number, i: number) =>
    [Math.floor(i / width) % out, Math.floor(i / width / out) % out].every((p) =>
      p >= 2 && p < out - 1
    );
  const gray = grayNormalization(normalization);
  for (const to of [gray, { mean: [0.2], std: [0.7] }]) {
    const folded = foldStem(weights, normalization, to);
    const actual = await evaluate(folded, 1, to, stem);
    const inside = [actual, expected].map((y) => y.filter(isInside)) as [
      Float32Array,
      Float32Array,
    ];
    assert.equal(inside[0].length, count * (out - 3) ** 2 * width);
    assertClose(...inside, { rtol: 1e-4, atol: 1e-5 }, "stem inside");
    assert.ok(relativeError(actual, expected) > 1e-3, "borders differ, as is documented");
  }
});

Deno.test("foldStem() leaves all but the stem alone, and the weights that it is given", async () => {
  const weights = await colourWeights(false);
  const before = structuredClone(weights);
  const folded = foldStem(weights, normalization, { mean: [0], std: [1] });
  assert.deepEqual(weights, before);
  const changed = [...folded].filter(([name, array]) => weights.get(name) !== array);
  assert.deepEqual(changed.map(([name]) => name).sort(), ["bn1.running_mean", "conv1.weight"]);
  assert.deepEqual(folded.get("conv1.weight")!.shape, [width, 1, 7, 7]);
  weights.delete("bn1.running_mean");
  assert.ok(!foldStem(weights, normalization, { mean: [0], std: [1] }).has("bn1.running_mean"));
});

Deno.test("grayNormalization() weighs the channels by 1/std", () => {
  const { mean, std } = grayNormalization({ mean: [0, 3], std: [1, 2] });
  assertClose([mean[0]!, std[0]!], [1, 4 / 3], { rtol: 1e-15 }, "mean and std");
  const same = grayNormalization({ mean: [0.5, 0.5, 0.5], std: [0.25, 0.25, 0.25] });
  assert.deepEqual(same, { mean: [0.5], std: [0.25] });
});
