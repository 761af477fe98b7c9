import assert from "node:assert/strict";
import { Gpu } from "../src/gpu/gpu.ts";
import { conv2d } from "../src/ops/conv2d.ts";
import { imageProduct, type Taps, weightsProduct } from "../src/ops/gemm.ts";
import { winogradImage, winogradPays, winogradWeights } from "../src/ops/winograd.ts";
import type { Tensor } from "../src/tensor.ts";
import * as naive from "./reference/naive.ts";
import { assertClose, relativeError } from "./support/assert.ts";
import { gpu, outputAndGradients, randomArray } from "./support/op.ts";

interface Problem {
  /** [n, h, w, in] */
  readonly x: readonly [number, number, number, number];
  readonly columns: number;
  readonly padding: number;
  readonly bias?: boolean;
}

function tapsOf({ x: [images, sourceHeight, sourceWidth], padding }: Problem): Taps {
  return {
    images,
    sourceHeight,
    sourceWidth,
    resultHeight: sourceHeight + 2 * padding - 2,
    resultWidth: sourceWidth + 2 * padding - 2,
    kernelHeight: 3,
    kernelWidth: 3,
    stride: 1,
    padding,
  };
}

const kernels = {
  winograd: { image: winogradImage, weights: winogradWeights },
  direct: { image: imageProduct, weights: weightsProduct },
};

/** Value and gradients by one of the kernels, and by the definition in 64-bit floats. */
function solve(gpu: Gpu, problem: Problem, by: keyof typeof kernels) {
  const { x: shape, columns, padding } = problem;
  const inner = shape[3];
  const taps = tapsOf(problem);
  const size = [taps.images, taps.resultHeight, taps.resultWidth, columns];
  const back: Taps = {
    ...taps,
    sourceHeight: taps.resultHeight,
    sourceWidth: taps.resultWidth,
    resultHeight: taps.sourceHeight,
    resultWidth: taps.sourceWidth,
  };
  const array = (shape: readonly number[], name: string, scale = 1) => ({
    shape,
    data: randomArray(shape, name, scale),
  });
  const x = array(shape, "x");
  const w = array([3, 3, inner, columns], "w", (9 * inner) ** -0.5);
  const dy = array(size, "dy");
  const b = problem.bias ? array([columns], "b") : undefined;
  const { image, weights } = kernels[by];
  const run = async () => {
    const [X, W, DY] = [x, w, dy].map(({ data, shape }) => gpu.tensor(data, shape));
    const bias = b && gpu.tensor(b.data);
    const [y, dx, dw] = [size, shape, w.shape].map((shape) => gpu.empty(shape));
    image(y!, X!, W!, taps, inner, columns, { bias });
    image(dx!, DY!, W!, back, columns, inner, { back: true, transposed: true });
    weights(dw!, X!, DY!, taps, inner, columns);
    const read = (tensor?: Tensor) => tensor!.data() as Promise<Float32Array>;
    return { y: await read(y), dx: await read(dx), dw: await read(dw) };
  };
  const window = { stride: 1, padding };
  const expected = () => ({
    y: naive.conv2d(x, w, window, b).data,
    dx: naive.conv2dInputGradient(dy, w, shape, window).data,
    dw: naive.conv2dWeightGradient(dy, x, w.shape, window).data,
  });
  return { inputs: [x, w, dy] as const, run, expected };
}

const names = ["y", "dx", "dw"] as const;

const problems: Problem[] = [
  { x: [1, 4, 4, 4], columns: 4, padding: 1 },
  { x: [2, 8, 8, 8], columns: 12, padding: 1, bias: true },
  { x: [3, 5, 7, 4], columns: 8, padding: 0 },
  { x: [1, 3, 3, 4], columns: 4, padding: 0, bias: true },
  { x: [2, 1, 2, 8], columns: 4, padding: 2 },
  { x: [1, 6, 9, 8], columns: 4, padding: 3 },
  // Channels in more than one block.
  { x: [1, 7, 6, 72], columns: 132, padding: 1, bias: true },
  // Tiles in more than one block.
  { x: [3, 53, 57, 4], columns: 8, padding: 1, bias: true },
];

for (
  const [name, own] of [
    [`subgroups of ${gpu.subgroupSize}`, gpu],
    ["tiles", await Gpu.open({ subgroups: false })],
  ] as const
) {
  Deno.test(`Winograd's convolution agrees with the definition, by ${name}`, async () => {
    for (const problem of problems) {
      const { run, expected } = solve(own, problem, "winograd");
      const [actual, exact] = [await run(), expected()];
      for (const name of names) {
        const largest = exact[name].reduce((m, v) => Math.max(m, Math.abs(v)), 1);
        const label = `${name} of ${JSON.stringify(problem)}`;
        assertClose(actual[name], exact[name], { atol: 5e-6 * largest }, label);
      }
    }
  });
}

Deno.test("Winograd's convolution rounds no worse than three times the direct one", async () => {
  const problem: Problem = { x: [2, 16, 16, 128], columns: 64, padding: 1 };
  const winograd = solve(gpu, problem, "winograd");
  const [exact, actual] = [winograd.expected(), await winograd.run()];
  const direct = await solve(gpu, problem, "direct").run();
  for (const name of names) {
    const [error, other] = [actual, direct].map((result) =>
      relativeError(result[name], exact[name])
    );
    assert.ok(error! < 3 * other!, `${name}: ${error}, direct ${other}`);
    assert.ok(error! < 3e-6, `${name}: ${error}`);
  }
});

Deno.test("Winograd's convolution gives the same bits twice", async () => {
  const { run } = solve(gpu, { x: [1, 100, 100, 4], columns: 68, padding: 1 }, "winograd");
  assert.deepEqual(await run(), await run());
});

Deno.test("Winograd's convolution holds no more than a block of what it transforms", async () => {
  const own = await Gpu.open();
  const [n, channels] = [64, 256];
  const images = [n, 16, 16, channels];
  const [x, y] = [own.zeros(images), own.empty(images)];
  const weight = own.zeros([3, 3, channels, channels]);
  const taps = tapsOf({ x: [n, 16, 16, channels], columns: channels, padding: 1 });
  own.one;
  const before = own.memory.live;
  winogradImage(y, x, weight, taps, channels, channels);
  winogradImage(x, y, weight, taps, channels, channels, { back: true });
  winogradWeights(weight, x, y, taps, channels, channels);
  assert.equal(own.memory.live, before);
  const [tiles, columns] = [512, 64];
  const block = 36 * (tiles * channels + tiles * columns + channels * columns);
  assert.ok(own.memory.peak <= before + 4 * block, `${own.memory.peak - before} bytes`);
  own.close();
});

Deno.test("conv2d() takes Winograd's where it pays", async () => {
  const pays = (own: Gpu, n: number, size: number, channels: number) => {
    const taps = tapsOf({ x: [n, size, size, channels], columns: channels, padding: 1 });
    return winogradPays(own, taps, channels, channels);
  };
  const [software, hardware] = [true, false].map((isFallback): Gpu =>
    Object.create(gpu, { adapter: { value: { ...gpu.adapter, isFallback } } })
  );
  // The stages of ResNet-18 on 32×32 images.
  for (const [size, channels] of [[32, 64], [16, 128], [8, 256], [4, 512]] as const) {
    assert.ok(pays(software!, 32, size, channels));
    assert.ok(!pays(hardware!, 32, size, channels), "not measured there");
    assert.ok(!pays(software!, 32, size, 16), "narrow");
  }
  assert.ok(!pays(software!, 1, 8, 256), "few tiles");
  assert.ok(!pays(software!, 128, 2, 512), "tiles that are mostly empty");

  const problem: Problem = { x: [16, 16, 16, 64], columns: 64, padding: 1 };
  const kernel = pays(gpu, 16, 16, 64) ? "winograd" : "direct";
  const { inputs, run } = solve(gpu, problem, kernel);
  const [x, w, dy] = inputs;
  const convolve = (x?: Tensor, w?: Tensor) => conv2d(x!, w!, { padding: 1 });
  const tensors = [x, w].map(({ data, shape }) => gpu.tensor(data, shape));
  const { y, gradients } = await outputAndGradients(convolve, tensors, dy.data);
  assert.deepEqual({ y, dx: gradients[0], dw: gradients[1] }, await run());
});
