import assert from "node:assert/strict";
import { mkdirSync, readFileSync } from "node:fs";
import { backwardOf } from "../src/accumulation.ts";
import { backward, noGrad } from "../src/autograd.ts";
import { decodeCheckpoint } from "../src/checkpoint.ts";
import { decodeAll } from "../src/data/decode/decode_all.ts";
import { pretrainingIndices } from "../src/data/dataset.ts";
import { openDataset } from "../src/data/open.ts";
import { UserError } from "../src/errors.ts";
import { Gpu } from "../src/gpu/gpu.ts";
import { BatchNorm, Conv2d, Linear } from "../src/nn/layers.ts";
import { ModelState } from "../src/nn/model_state.ts";
import { Module } from "../src/nn/module.ts";
import { ResNet } from "../src/nn/resnet.ts";
import { batchNorm } from "../src/ops/batch_norm.ts";
import { add, div, maximum, mul, sub } from "../src/ops/binary.ts";
import { cast, type Float } from "../src/ops/cast.ts";
import { conv2d, convolve } from "../src/ops/conv2d.ts";
import { bceWithLogits } from "../src/ops/losses.ts";
import { avgPool2d, maxPool2d } from "../src/ops/pool.ts";
import { sum } from "../src/ops/reduce.ts";
import {
  AdamW,
  LARS,
  LossScale,
  type LossScaleOptions,
  type Optimizer,
  SGD,
} from "../src/optim.ts";
import { checkLossScale } from "../src/precision.ts";
import { RunFolder } from "../src/run_folder.ts";
import type { Shape, Tensor } from "../src/tensor.ts";
import { type Reporter, train, type TrainConfig, type TrainData } from "../src/train.ts";
import { assertClose, assertRelative, relativeError } from "./support/assert.ts";
import { withFiles } from "./support/files.ts";
import { gpu, outputAndGradients, randomArray } from "./support/op.ts";
import { run, succeed } from "./support/task.ts";

const halves = { ignore: !gpu.hasHalves };

/** The adapter's own family of products, and the one for adapters without subgroups. */
const families: [name: string, gpu: Gpu][] = [
  [`subgroups of ${gpu.subgroupSize}`, gpu],
  ["tiles", await Gpu.open({ subgroups: false })],
];

/** Numbers that 16 bits hold exactly. */
const representable = (shape: Shape, name: string, scale = 1) =>
  new Float32Array(new Float16Array(randomArray(shape, name, scale)));

/** Half the distance of neighbours: of normal 16-bit floats relative to them, and of subnormal ones. */
const half = { relative: 2 ** -11, absolute: 2 ** -25 };

interface Input {
  readonly name: string;
  readonly shape: Shape;
  readonly data: Float32Array;
  /** Not an activation: it stays f32. */
  readonly whole?: boolean;
}

/**
 * Compares an op on activations of f16 with its own f32 run on the same numbers. As both sum in 32 bits, a result of
 * f16 differs by `roundings` to 16 bits, and one of f32 by what another order of a sum does.
 */
async function compare(
  gpu: Gpu,
  label: string,
  fn: (...inputs: Tensor[]) => Tensor,
  inputs: readonly Input[],
  { roundings = 1 } = {},
): Promise<void> {
  const run = (precision: Float, dy: Float32Array) =>
    outputAndGradients(
      (...tensors) => {
        const y = fn(...tensors.map((t, i) => inputs[i]!.whole ? t : cast(t, precision)));
        assert.equal(y.dtype, precision);
        return cast(y, "f32");
      },
      inputs.map(({ data, shape }) => gpu.tensor(data, shape)),
      dy,
    );
  const shape = gpu.step(() =>
    fn(...inputs.map(({ data, shape }) => gpu.tensor(data, shape))).shape
  );
  const dy = representable(shape, "dy");
  const [short, long] = [await run("f16", dy), await run("f32", dy)];
  const close = (a: Float32Array, e: Float32Array, name: string, count: number) => {
    const largest = e.reduce((m, v) => Math.max(m, Math.abs(v)), 1);
    const tolerance = { rtol: count * half.relative, atol: half.absolute + 2e-6 * largest };
    assertClose(a, e, tolerance, `${name} of ${label}`);
  };
  close(short.y, long.y, "y", roundings);
  inputs.forEach(({ name, whole }, i) =>
    close(short.gradients[i]!, long.gradients[i]!, `d${name}`, whole ? 0 : roundings)
  );
}

for (const [name, gpu] of families) {
  Deno.test(`conv2d() of f16 is its f32 run, rounded, by ${name}`, halves, async () => {
    const cases: { x: Shape; w: Shape; stride?: number; padding?: number; bias?: boolean }[] = [
      { x: [1, 1, 1, 4], w: [3, 3, 4, 4], padding: 1 },
      { x: [1, 5, 7, 3], w: [1, 1, 3, 5] },
      { x: [2, 7, 5, 4], w: [1, 1, 4, 33], stride: 3, bias: true },
      { x: [1, 9, 8, 33], w: [3, 3, 33, 4], padding: 1 },
      { x: [1, 9, 8, 8], w: [3, 3, 8, 36], stride: 2, padding: 1 },
      { x: [1, 9, 11, 5], w: [3, 3, 5, 3], stride: 3, padding: 2 },
      { x: [1, 17, 15, 1], w: [7, 7, 1, 8], stride: 2, padding: 3 },
      { x: [2, 17, 16, 1], w: [7, 7, 1, 18], stride: 2, padding: 3, bias: true },
      { x: [2, 17, 16, 1], w: [7, 7, 1, 16], stride: 2, padding: 3 },
      { x: [2, 9, 12, 3], w: [3, 3, 3, 64], padding: 1 },
      { x: [2, 9, 12, 3], w: [4, 4, 3, 36], padding: 1 },
      { x: [3, 13, 11, 68], w: [3, 3, 68, 72], padding: 1 },
      // So long a sum that it is cut into parts, for dw and for y.
      { x: [1, 1, 9001, 4], w: [1, 1, 4, 4] },
      { x: [1, 12, 12, 128], w: [9, 9, 128, 4] },
    ];
    for (const { x, w, stride = 1, padding = 0, bias = false } of cases) {
      const [kh, kw, inputs, outputs] = w as [number, number, number, number];
      await compare(
        gpu,
        `[${x}] * [${w}] stride ${stride} padding ${padding}`,
        (x, w, b) => conv2d(x!, w!, { stride, padding, bias: b }),
        [
          { name: "x", shape: x, data: representable(x, "x") },
          {
            name: "w",
            shape: w,
            data: randomArray(w, "w", (kh * kw * inputs) ** -0.5),
            whole: true,
          },
          ...(bias
            ? [{ name: "b", shape: [outputs], data: randomArray([outputs], "b"), whole: true }]
            : []),
        ],
      );
    }
  });
}

Deno.test("batchNorm() of f16 is its f32 run, rounded", halves, async () => {
  const flags = [false, true];
  const every = flags.flatMap((relu) =>
    flags.flatMap((training) => flags.map((adds) => ({ relu, training, adds })))
  );
  const cases = [
    ...every.map((options) => ({ shape: [1, 3, 5, 3], ...options })),
    // ReLU in training, without and with a residual.
    ...[[1, 7, 9, 64], [2, 5, 3, 128], [33, 6]].flatMap((shape) =>
      every.slice(-2).map((options) => ({ shape, ...options }))
    ),
  ];
  for (const { shape, relu, training, adds } of cases) {
    const c = shape.at(-1)!;
    await compare(
      gpu,
      `[${shape}] relu ${relu} training ${training} residual ${adds}`,
      (x, weight, bias, residual) =>
        batchNorm(x!, {
          weight: weight!,
          bias: bias!,
          runningMean: gpu.tensor(randomArray([c], "mean")),
          runningVar: gpu.tensor(randomArray([c], "var").map((v) => 0.5 + v * v)),
          training,
          relu,
          ...(residual ? { residual } : {}),
        }),
      [
        { name: "x", shape, data: representable(shape, "x", 2) },
        { name: "weight", shape: [c], data: randomArray([c], "weight"), whole: true },
        { name: "bias", shape: [c], data: randomArray([c], "bias"), whole: true },
        ...(adds ? [{ name: "residual", shape, data: representable(shape, "residual") }] : []),
      ],
    );
  }
});

Deno.test("convolve() of f16 normalises what it reads without rounding it", halves, async () => {
  const [, gpu] = families[1]!;
  const shapes = { x: [2, 9, 8, 20], weight: [20], bias: [20], kernel: [3, 3, 20, 12] };
  const data = Object.entries(shapes).map(([name, shape]) => representable(shape, name));
  const dy = representable([2, 5, 4, 12], "dy");
  const run = (precision: Float) => {
    const [runningMean, runningVar] = [gpu.zeros([20]), gpu.zeros([20])];
    return outputAndGradients(
      (x, weight, bias, kernel) => {
        const running = { runningMean, runningVar, training: true };
        const norm = { weight: weight!, bias: bias!, ...running, relu: true };
        const { y } = convolve({ x: cast(x!, precision), norm }, kernel!, {
          stride: 2,
          padding: 1,
        });
        assert.ok(y.node!.inputs.includes(weight!), "nothing is written in between");
        return cast(y, "f32");
      },
      Object.values(shapes).map((shape, i) => gpu.tensor(data[i]!, shape)),
      dy,
    );
  };
  const [short, long] = [await run("f16"), await run("f32")];
  const atol = half.absolute + 2e-6 * long.y.reduce((m, v) => Math.max(m, Math.abs(v)));
  assertClose(short.y, long.y, { rtol: half.relative, atol }, "y");
  // The gradient of what was normalised is rounded before it goes on.
  Object.keys(shapes).forEach((name, i) => {
    const error = relativeError(short.gradients[i]!, long.gradients[i]!);
    assert.ok(error < 2 * half.relative, `d${name}: ${error}`);
  });
});

Deno.test(
  "batchNorm() of f16 moves the running statistics as its f32 run does",
  halves,
  async () => {
    const data = representable([2, 5, 3, 12], "x");
    const after = async (precision: Float) => {
      const [runningMean, runningVar] = [gpu.zeros([12]), gpu.zeros([12])];
      const ones = gpu.tensor(new Float32Array(12).fill(1));
      const options = { weight: ones, bias: ones, runningMean, runningVar, training: true };
      gpu.step(() => void batchNorm(cast(gpu.tensor(data, [2, 5, 3, 12]), precision), options));
      return [...await runningMean.data(), ...await runningVar.data()];
    };
    assertClose(await after("f16"), await after("f32"), { rtol: 1e-6, atol: 1e-7 }, "statistics");
  },
);

Deno.test("pooling of f16 is its f32 run, rounded", halves, async () => {
  for (const shape of [[1, 7, 9, 4], [2, 5, 6, 3], [1, 3, 3, 1]]) {
    const x = { name: "x", shape, data: representable(shape, "x") };
    for (const window of [{ kernel: 3, stride: 2, padding: 1 }, { kernel: 2 }]) {
      await compare(gpu, `maximum [${shape}]`, (x) => maxPool2d(x!, window), [x]);
      await compare(gpu, `mean [${shape}]`, (x) => avgPool2d(x!, window), [x]);
    }
  }
});

Deno.test(
  "binary ops of f16 are their f32 runs, rounded, and so are sums of gradients",
  halves,
  async () => {
    const input = (name: string, shape: Shape) => ({
      name,
      shape,
      data: representable(shape, name),
    });
    for (const shape of [[5, 7], [4, 8]]) {
      const inputs = [input("a", shape), input("b", shape)];
      for (const op of [add, sub, mul, maximum]) {
        await compare(gpu, `${op.name} [${shape}]`, (a, b) => op(a!, b!), inputs);
      }
      await compare(gpu, `div [${shape}]`, (a) => div(a!, 3), inputs.slice(0, 1));
      // Three gradients meet in x: two sums, each rounded; all have the sign of dy.
      const fork = (x: Tensor) => add(add(mul(x, 2), mul(x, 0.5)), mul(x, 0.25));
      await compare(gpu, `fork [${shape}]`, (x) => fork(x!), inputs.slice(0, 1), { roundings: 3 });
    }
  },
);

/** An encoder with a linear classifier. */
class Model extends Module {
  readonly encoder = new ResNet({ arch: "resnet18", width: 8, stem: "7x7", channels: 1 });
  readonly fc = new Linear(this.encoder.features, 6);
}

/** A model in training on one batch of n images. */
class Fit {
  readonly model = new Model();
  readonly state: ModelState;
  readonly images: Float32Array;
  readonly targets: Float32Array;
  readonly #scale: LossScale | null;
  readonly #shape: Shape;

  constructor(precision: Float, n: number, size: number, scale: LossScaleOptions = {}, seed = 0) {
    this.model.encoder.precision = precision;
    this.state = new ModelState(gpu, this.model, { seed });
    this.#scale = precision === "f16" ? new LossScale(this.state, scale) : null;
    this.#shape = [n, size, size, 1];
    this.images = randomArray(this.#shape, "images");
    this.targets = randomArray([n, 6], "targets").map((v) => Number(v > 0));
  }

  /** One whose images are phantoms. */
  static async ofPhantoms(precision: Float, n: number, size: number, seed: number): Promise<Fit> {
    const fit = new Fit(precision, n, size, {}, seed);
    const { examples, load } = await openDataset(`phantom:n=${n}`);
    for (const [i, { labels }] of examples.entries()) {
      const film = Float32Array.from(await load(i, size, 1), (v) => v / 64 - 2);
      fit.images.set(film, i * size * size);
      fit.targets.set(labels, i * labels.length);
    }
    return fit;
  }

  /** One step, of gradients alone without an optimiser; gives the loss. */
  async step(optimizer: Optimizer | null = null, lr = 0): Promise<number> {
    const loss = gpu.step(() => {
      // Uploads come first, because each submits what was recorded before.
      const images = gpu.tensor(this.images, this.#shape);
      const targets = gpu.tensor(this.targets, [this.#shape[0]!, 6]);
      this.state.zeroGrad();
      const logits = this.model.fc.forward(this.model.encoder.forward(images));
      const loss = backwardOf(bceWithLogits(logits, targets), 1, this.#scale?.factor);
      optimizer?.step(lr, this.#scale?.settle());
      return loss;
    });
    const value = await loss.item();
    loss.dispose();
    return value;
  }

  /** The gradients of all parameters by name, without the scale. */
  async gradients(): Promise<Map<string, Float32Array>> {
    const scale = await this.scale() ?? 1;
    const flat = (await this.state.gradients.data()).map((g) => g / scale);
    return new Map(
      this.state.segments.map(({ name, offset, size }) => [
        name,
        flat.slice(offset, offset + size),
      ]),
    );
  }

  /** The factor of the loss. */
  async scale(): Promise<number | null> {
    return this.#scale === null ? null : await this.#scale.factor.item();
  }
}

/**
 * The network of a stem and a residual block, from layers of their own; `round` is put on all that goes in and
 * comes out of an op.
 */
function stemAndBlock(x: Tensor, layers: Layers, round: (x: Tensor) => Tensor): Tensor {
  const conv = (layer: Conv2d, x: Tensor) => round(layer.forward(round(x)));
  const norm = (layer: BatchNorm, x: Tensor, residual?: Tensor) =>
    round(layer.forward(round(x), { relu: true, ...(residual && { residual: round(residual) }) }));
  const stem = norm(layers.norms[0]!, conv(layers.convs[0]!, x));
  const pooled = round(maxPool2d(round(stem), { kernel: 3, stride: 2, padding: 1 }));
  const y = norm(layers.norms[1]!, conv(layers.convs[1]!, pooled));
  return norm(layers.norms[2]!, conv(layers.convs[2]!, y), pooled);
}

/** What {@linkcode stemAndBlock} is made of. */
class Layers extends Module {
  readonly convs = [
    new Conv2d(1, 8, 7, { stride: 2, padding: 3 }),
    ...[1, 2].map(() => new Conv2d(8, 8, 3, { padding: 1 })),
  ];
  readonly norms = [1, 2, 3].map(() => new BatchNorm(8));
}

Deno.test(
  "a step in f16 is one in f32 whose activations and gradients are rounded",
  halves,
  async () => {
    const run = async (precision: Float) => {
      const layers = new Layers();
      const state = new ModelState(gpu, layers);
      // Back and forth, values and gradients alike become what 16 bits hold.
      const round = (x: Tensor) => precision === "f16" ? x : cast(cast(x, "f16"), "f32");
      gpu.step(() => {
        const x = gpu.tensor(representable([2, 33, 31, 1], "images"), [2, 33, 31, 1]);
        const y = cast(stemAndBlock(cast(x, precision), layers, round), "f32");
        state.zeroGrad();
        backward(sum(mul(y, gpu.tensor(representable(y.shape, "dy"), y.shape))));
      });
      return { gradients: await state.gradients.data(), statistics: await state.statistics.data() };
    };
    const [short, long] = [await run("f16"), await run("f32")];
    assertRelative(short.gradients, long.gradients, 1e-4, "gradients");
    assertRelative(short.statistics, long.statistics, 1e-6, "statistics");
  },
);

Deno.test("f16 changes gradients hardly more than rounding the images does", halves, async () => {
  const run = async (precision: Float, change: (v: number) => number = (v) => v) => {
    const fit = new Fit(precision, 8, 33);
    fit.images.forEach((v, i) => fit.images[i] = change(v));
    await fit.step();
    return await fit.gradients();
  };
  const all = (gradients: Map<string, Float32Array>) =>
    [...gradients.values()].flatMap((g) => [...g]);
  const exact = await run("f32");
  const short = await run("f16");
  // Every ReLU that a rounding flips changes gradients by leaps: from errors of 1e-3 come some of 1e-1, and in f32
  // as well where only the images are rounded. What no ReLU stands before on the way back is near.
  const rounded = relativeError(all(await run("f32", Math.f16round)), all(exact));
  const error = relativeError(all(short), all(exact));
  assert.ok(error < 3 * rounded, `${error}, by rounded images ${rounded}`);
  for (const name of ["fc.weight", "fc.bias"]) {
    assertRelative(short.get(name)!, exact.get(name)!, 1e-2, name);
  }
});

Deno.test(
  "ten steps in f16 have the losses of ten steps in f32, over four models within 1 %",
  halves,
  async () => {
    const steps = 10;
    const losses = async (precision: Float, seed: number) => {
      const fit = await Fit.ofPhantoms(precision, 16, 32, seed);
      const optimizer = new AdamW(fit.state);
      const values: number[] = [];
      for (let i = 0; i < steps; i++) values.push(await fit.step(optimizer, 1e-3));
      return values;
    };
    // A ReLU that a rounding flips turns one model by 3 % either way; what is systematic stays in the mean of some.
    const seeds = [0, 1, 2, 3];
    const [short, long] = [1, 2].map(() => new Array<number>(steps).fill(0)) as [
      number[],
      number[],
    ];
    for (const seed of seeds) {
      const exact = await losses("f32", seed);
      const rounded = await losses("f16", seed);
      assert.ok(exact[9]! < 0.7 * exact[0]!, `${exact}`);
      assertClose(rounded, exact, { rtol: 0.05 }, `losses of ${seed}`);
      exact.forEach((loss, i) => long[i]! += loss / seeds.length);
      rounded.forEach((loss, i) => short[i]! += loss / seeds.length);
    }
    assertClose(short, long, { rtol: 0.01 }, "losses");
  },
);

Deno.test(
  "a step in f16 takes less than 0.6 of the memory of one in f32, and leaves none behind",
  halves,
  async () => {
    const bytes = async (precision: Float, recompute: boolean) => {
      const fit = new Fit(precision, 16, 64);
      fit.model.encoder.recompute = recompute;
      gpu.trim();
      const before = gpu.memory;
      await fit.step();
      const { allocated } = gpu.memory;
      await fit.step();
      assert.equal(gpu.memory.live, before.live);
      assert.equal(gpu.memory.allocated, allocated);
      return allocated - before.allocated;
    };
    for (const recompute of [false, true]) {
      const [short, long] = [await bytes("f16", recompute), await bytes("f32", recompute)];
      assert.ok(short < 0.6 * long, `${short} of ${long} bytes, recompute ${recompute}`);
    }
  },
);

Deno.test("recomputed activations of f16 give the same bits", halves, async () => {
  const run = async (recompute: boolean) => {
    const fit = new Fit("f16", 4, 33);
    fit.model.encoder.recompute = recompute;
    await fit.step();
    return await fit.gradients();
  };
  assert.deepEqual(await run(true), await run(false));
});

Deno.test(
  "an encoder of f16 evaluates in f32, and gives features of f32 in training",
  halves,
  async () => {
    const { model, images } = new Fit("f16", 2, 32);
    const features = async () => {
      const h = gpu.step(() =>
        noGrad(() => model.encoder.forward(gpu.tensor(images, [2, 32, 32, 1])))
      );
      assert.equal(h.dtype, "f32");
      return await h.data();
    };
    const training = await features();
    model.encoder.precision = "f32";
    assert.notDeepEqual(await features(), training);
    model.encoder.train(false);
    const evaluated = await features();
    model.encoder.precision = "f16";
    assert.deepEqual(await features(), evaluated);
  },
);

Deno.test(
  "gradients that overflow leave parameters and moments alone, and the scale falls",
  halves,
  async () => {
    for (const [rule, clip] of [[SGD, 1], [AdamW, 0], [LARS, 0]] as const) {
      const fit = new Fit("f16", 2, 32, { initial: 2 ** 24 });
      const optimizer = new rule(fit.state, { weightDecay: 0.1, clip });
      const state = async () => [
        await fit.state.values.data(),
        ...(await optimizer.arrays()).values(),
      ];
      const overflows = async () =>
        (await fit.state.gradients.data()).some((g) => !Number.isFinite(g));
      const before = await state();
      let skipped = 0;
      for (;; skipped++) {
        await fit.step(optimizer, 0.1);
        if (!await overflows()) break;
        assert.equal(await fit.scale(), 2 ** (23 - skipped));
        assert.deepEqual(await state(), before);
      }
      assert.ok(skipped > 0);
      assert.equal(await fit.scale(), 2 ** (24 - skipped));
      for (const [i, array] of (await state()).entries()) {
        assert.ok(array.every(Number.isFinite));
        assert.notDeepEqual(array, before[i]);
      }
    }
  },
);

Deno.test("the scale of the loss doubles after finite steps in a row, and divides the gradients", async () => {
  const parameters = {
    gpu,
    values: gpu.zeros([128]),
    // What lies between the parameters does not count.
    gradients: gpu.tensor(new Float32Array(128).fill(NaN)),
    segments: [{ offset: 0, size: 3, decay: true }, { offset: 64, size: 64, decay: true }],
  };
  const scale = new LossScale(parameters, { initial: 4, interval: 3 });
  const after = async (gradient: number) => {
    const g = (await parameters.gradients.data()).fill(8, 0, 3).fill(8, 64).fill(gradient, 66, 67);
    gpu.write(parameters.gradients, g);
    const by = gpu.step(() => scale.settle());
    return [await by.item(), ...(await scale.arrays()).get("loss_scale")!];
  };
  assert.deepEqual(await after(1), [1 / 4, 4, 1]);
  assert.deepEqual(await after(1), [1 / 4, 4, 2]);
  assert.deepEqual(await after(1), [1 / 4, 8, 0]);
  assert.deepEqual(await after(1), [1 / 8, 8, 1]);
  for (const [i, g] of [NaN, Infinity, -Infinity].entries()) {
    assert.deepEqual(await after(g), [-1, 4 / 2 ** i, 0]);
  }
  scale.load(new Map([["loss_scale", new Float32Array([2 ** 24, 2])]]));
  assert.deepEqual(await after(1), [2 ** -24, 2 ** 24, 0]);
  assert.throws(() => scale.load(new Map()), UserError);
});

Deno.test("gradients that are never finite are an error, not a standstill", () => {
  checkLossScale(null, 7);
  checkLossScale(1, 7);
  assert.throws(() => checkLossScale(0.5, 7), /--precision f16: at step 7 the gradients/);
});

const config: TrainConfig = {
  method: "simclr",
  data: "phantom:n=64",
  arch: "resnet18",
  width: 4,
  stem: "3x3",
  channels: 1,
  imageSize: 16,
  augment: "medical",
  blur: 0.5,
  normalization: { mean: [0.5], std: [0.25] },
  accumulate: 1,
  recompute: false,
  precision: "f16",
  batch: 8,
  epochs: 2,
  optimizer: "adamw",
  lr: 1e-3,
  weightDecay: 1e-4,
  warmup: 0.5,
  temperature: 0.2,
  head: "v1",
  corrupt: "noise",
  strength: 0.2,
  loss: "bce",
  kmeans: "v1",
  clusters: 4,
  clip: 0,
  ema: 0,
  knnEvery: 0,
  seed: 0,
  init: null,
};

async function decode(): Promise<TrainData> {
  const dataset = await openDataset(config.data);
  const pretraining = pretrainingIndices(dataset);
  const images = await decodeAll(dataset, pretraining, { size: 16, channels: 1 });
  return { dataset, pretraining, images, validation: [], validationImages: images };
}

/** Trains in a folder until a step. */
async function trainIn(
  dir: string,
  data: TrainData,
  { changes = {}, last = Infinity, on = gpu }: {
    readonly changes?: Partial<TrainConfig>;
    readonly last?: number;
    readonly on?: Gpu;
  },
): Promise<RunFolder> {
  mkdirSync(dir, { recursive: true });
  const run = new RunFolder(dir);
  const controller = new AbortController();
  const reporter: Reporter = {
    stage: () => {},
    compiling: () => {},
    knn: () => {},
    line: () => {},
    progress: ({ step }) => step >= last ? controller.abort() : undefined,
  };
  await train(on, { ...config, ...changes }, data, run, reporter, controller.signal);
  return run;
}

Deno.test("train() in f16 goes on from a checkpoint to the same bits", halves, async () => {
  const data = await decode();
  const variants = [{ accumulate: 2, clip: 1, epochs: 3 }, { method: "autoencoder" }] as const;
  for (const changes of variants) {
    await withFiles({}, async (dir) => {
      const whole = await trainIn(`${dir}/whole`, data, { changes });
      await trainIn(`${dir}/parts`, data, { changes, last: 3 });
      const parts = await trainIn(`${dir}/parts`, data, { changes });
      assert.deepEqual(parts.read("checkpoint"), whole.read("checkpoint"));
      assert.deepEqual(parts.read("encoder"), whole.read("encoder"));
      const { optimizer, step } = decodeCheckpoint(whole.read("checkpoint"), "last");
      assert.deepEqual([...optimizer.get("loss_scale")!], [2 ** 15, step]);
      const rows = whole.readMetrics();
      assert.ok(rows.length === step && rows.every((row) => row.loss_scale === 2 ** 15));
    });
  }
});

Deno.test("train() in f16 refuses an adapter without 16-bit floats", async () => {
  const data = await decode();
  const on = await Gpu.open({ halves: false });
  try {
    await withFiles({}, async (dir) => {
      await assert.rejects(
        trainIn(dir, data, { on }),
        { name: "UserError", message: /^--precision f16: .* has no 16-bit floats/ },
      );
    });
  } finally {
    on.close();
  }
});

Deno.test(
  "the commands take --precision, but not for an encoder that is frozen",
  halves,
  async () => {
    await withFiles({}, async (dir) => {
      const out = `${dir}/run`;
      const size = ["--image-size", "16", "--width", "4", "--stem", "3x3", "--batch", "8"];
      const data = ["--data", config.data, "--out", out];
      await succeed("train", ...data, ...size, "--precision", "f16", "--steps", "2", "--json");
      assert.equal(new RunFolder(out).readConfig().precision, "f16");
      const report = readFileSync(`${out}/report.html`, "utf8");
      assert.match(report, />precision<\/t[dh]><td[^>]*>f16</);
      assert.match(report, />Scale of the loss</);
      const frozen = ["--init", out, "--freeze", "--precision", "f16"];
      const { code, err } = await run("finetune", ...frozen);
      assert.equal(code, 2);
      assert.match(err, /^error: --precision f16: with --freeze the encoder does not train/m);
    });
  },
);
