import assert from "node:assert/strict";
import { Gpu } from "../src/gpu/gpu.ts";
import { batchNorm } from "../src/ops/batch_norm.ts";
import { conv2d, convolve } from "../src/ops/conv2d.ts";
import type { Tensor } from "../src/tensor.ts";
import * as naive from "./reference/naive.ts";
import { assertClose } from "./support/assert.ts";
import { readFixture } from "./support/fixture.ts";
import { checkGradients, gpu, outputAndGradients, randomArray } from "./support/op.ts";

/** The adapter's own family of kernels, and the one for adapters without subgroups. */
const families: [name: string, gpu: Gpu][] = [
  [`subgroups of ${gpu.subgroupSize}`, gpu],
  ["tiles", await Gpu.open({ subgroups: false })],
];

interface Case {
  readonly x: number[];
  readonly w: number[];
  readonly stride?: number;
  readonly padding?: number;
  readonly bias?: boolean;
}

function describe({ x, w, stride = 1, padding = 0, bias = false }: Case): string {
  return `[${x}] * [${w}] stride ${stride} padding ${padding}${bias ? " bias" : ""}`;
}

/** Holds value and gradients against the definition on the CPU. */
async function compare(gpu: Gpu, problem: Case, label: string, tolerance = 2e-6): Promise<void> {
  const { stride = 1, padding = 0, bias = false } = problem;
  const window = { stride, padding };
  const [kh, kw, cin, cout] = problem.w as [number, number, number, number];
  const x = { shape: problem.x, data: randomArray(problem.x, "x") };
  const w = { shape: problem.w, data: randomArray(problem.w, "w", (kh * kw * cin) ** -0.5) };
  const b = { shape: [cout], data: randomArray([cout], "b") };
  const y = naive.conv2d(x, w, window, bias ? b : undefined);
  const dy = { shape: y.shape, data: randomArray(y.shape, "dy") };
  const inputs = (bias ? [x, w, b] : [x, w]).map(({ shape, data }) => gpu.tensor(data, shape));
  const actual = await outputAndGradients(
    (x, w, b) => conv2d(x!, w!, { ...window, bias: b }),
    inputs,
    dy.data,
  );
  const dx = naive.conv2dInputGradient(dy, w, x.shape, window);
  const dw = naive.conv2dWeightGradient(dy, x, w.shape, window);
  // Sums of n numbers of size 1 and random sign are of size √n, but may come out near 0.
  const pixels = Math.sqrt(dy.data.length / cout);
  const close = (a: Float32Array, e: Float64Array, name: string, least: number) => {
    const largest = e.reduce((m, v) => Math.max(m, Math.abs(v)), least);
    assertClose(a, e, { atol: tolerance * largest }, `${name} of ${describe(problem)} by ${label}`);
  };
  close(actual.y, y.data, "y", 1);
  close(actual.gradients[0]!, dx.data, "dx", 1);
  close(actual.gradients[1]!, dw.data, "dw", pixels);
  if (bias) close(actual.gradients[2]!, naive.sumRows(dy).data, "db", pixels);
}

const cases: Case[] = [
  { x: [1, 1, 1, 4], w: [3, 3, 4, 4], padding: 1 },
  { x: [1, 5, 7, 3], w: [1, 1, 3, 5] },
  { x: [2, 7, 5, 8], w: [1, 1, 8, 4], stride: 2 },
  { x: [1, 131, 129, 64], w: [1, 1, 64, 68], bias: true },
  { x: [2, 7, 5, 4], w: [1, 1, 4, 33], stride: 3, bias: true },
  { x: [2, 6, 5, 4], w: [3, 3, 4, 8], padding: 1 },
  { x: [1, 9, 8, 33], w: [3, 3, 33, 4], padding: 1, bias: true },
  { x: [1, 9, 8, 8], w: [3, 3, 8, 33], stride: 2, padding: 1 },
  { x: [1, 9, 11, 5], w: [3, 3, 5, 3], stride: 3, padding: 2 },
  { x: [1, 10, 7, 4], w: [3, 3, 4, 4], stride: 3, padding: 3 },
  { x: [2, 8, 6, 1], w: [3, 3, 1, 4], stride: 2, padding: 1 },
  { x: [1, 17, 15, 1], w: [7, 7, 1, 8], stride: 2, padding: 3 },
  { x: [2, 16, 14, 3], w: [7, 7, 3, 64], stride: 2, padding: 3 },
  { x: [1, 9, 8, 4], w: [7, 7, 4, 4], padding: 3, bias: true },
  { x: [2, 9, 8, 3], w: [5, 4, 3, 5], padding: 2, bias: true },
  { x: [1, 9, 11, 4], w: [5, 4, 4, 8], stride: 2, padding: 1 },
  { x: [1, 11, 9, 5], w: [4, 5, 5, 1], stride: 3 },
  { x: [3, 4, 4, 5], w: [4, 4, 5, 6], bias: true },
  { x: [1, 3, 2, 4], w: [2, 1, 4, 4], stride: 4 },
  { x: [3, 1, 1, 4], w: [1, 1, 4, 4], stride: 2 },
  { x: [3, 13, 11, 68], w: [3, 3, 68, 72], padding: 1 },
  { x: [1, 12, 12, 16], w: [3, 3, 16, 16], padding: 1, stride: 2 },
  { x: [2, 11, 10, 20], w: [3, 3, 20, 32], padding: 1, bias: true },
  { x: [2, 16, 17, 4], w: [3, 3, 4, 132], padding: 1, bias: true },
  // Few channels, in lines of a multiple of 4 elements.
  { x: [1, 17, 16, 1], w: [7, 7, 1, 16], stride: 2, padding: 3 },
  { x: [2, 9, 20, 1], w: [7, 7, 1, 18], stride: 2, padding: 3, bias: true },
  { x: [3, 11, 36, 1], w: [3, 3, 1, 10], padding: 2, bias: true },
  { x: [2, 13, 6, 2], w: [5, 4, 2, 2], stride: 3, padding: 2, bias: true },
  { x: [1, 11, 12, 3], w: [3, 3, 3, 64], padding: 1, bias: true },
  { x: [2, 8, 28, 3], w: [3, 3, 3, 20] },
  { x: [40, 7, 4, 3], w: [2, 3, 3, 38], padding: 3 },
  { x: [2, 15, 24, 3], w: [7, 7, 3, 16], stride: 2, padding: 3, bias: true },
  { x: [1, 12, 20, 1], w: [7, 7, 1, 28], stride: 2, padding: 3, bias: true },
  { x: [2, 11, 20, 3], w: [7, 7, 3, 52], stride: 2, padding: 3 },
  { x: [2, 10, 12, 1], w: [7, 7, 1, 64], padding: 3 },
  { x: [2, 19, 20, 3], w: [3, 3, 3, 44], padding: 1, bias: true },
  { x: [2, 9, 12, 3], w: [7, 7, 3, 20], padding: 3, bias: true },
  { x: [2, 20, 24, 1], w: [12, 12, 1, 6], stride: 4, padding: 4, bias: true },
  { x: [1, 16, 16, 3], w: [4, 4, 3, 8], stride: 4 },
  { x: [3, 7, 10, 2], w: [2, 3, 2, 12], stride: 2, padding: 1 },
  { x: [1, 9, 24, 1], w: [1, 2, 1, 8], stride: 2, bias: true },
  { x: [1, 71, 256, 1], w: [3, 4, 1, 4], padding: 2 },
  { x: [1, 131, 20, 1], w: [6, 5, 1, 4], stride: 2, padding: 2 },
  { x: [41, 9, 8, 1], w: [3, 3, 1, 12], padding: 1 },
  { x: [1, 6, 8, 1], w: [5, 5, 1, 100], padding: 2 },
  { x: [1, 9, 8, 132], w: [3, 3, 132, 68], stride: 2, padding: 1 },
  // Neighbours in a line: lines of 8, 12 and 24, kernels that are not square, sums in parts.
  { x: [1, 5, 8, 4], w: [3, 3, 4, 6], padding: 1, bias: true },
  { x: [5, 3, 24, 32], w: [3, 3, 32, 32], padding: 1 },
  { x: [2, 6, 17, 8], w: [5, 4, 8, 12], padding: 1, bias: true },
  { x: [2, 6, 16, 8], w: [3, 2, 8, 20] },
  { x: [1, 8, 8, 32], w: [5, 5, 32, 16], padding: 2, bias: true },
  { x: [3, 5, 12, 20], w: [2, 3, 20, 24], padding: 1 },
  { x: [4, 12, 18, 16], w: [3, 3, 16, 16] },
];

/** The first three are Winograd's on software adapters; the last is read number by number. */
const normalisedCases: (Case & { training?: boolean })[] = [
  { x: [14, 8, 8, 64], w: [3, 3, 64, 64], padding: 1 },
  { x: [50, 7, 8, 68], w: [3, 3, 68, 72], padding: 1, bias: true },
  { x: [20, 10, 10, 64], w: [3, 3, 64, 60], training: false },
  { x: [3, 7, 9, 20], w: [3, 3, 20, 33], padding: 1, bias: true },
  { x: [2, 9, 8, 8], w: [3, 3, 8, 12], stride: 2, padding: 1 },
  { x: [2, 5, 5, 4], w: [1, 1, 4, 16], training: false },
  { x: [1, 12, 11, 132], w: [1, 1, 132, 68], stride: 2 },
  { x: [1, 6, 7, 4], w: [5, 4, 4, 4], padding: 4 },
  { x: [2, 6, 7, 5], w: [3, 3, 5, 4], padding: 1 },
];

for (const [name, gpu] of families) {
  Deno.test(`conv2d() agrees with its definition, by ${name}`, async () => {
    for (const problem of cases) await compare(gpu, problem, name);
  });

  Deno.test(`convolve() leaves the moments of its channels, by ${name}`, async () => {
    const left: string[] = [];
    for (const problem of cases) {
      const { stride = 1, padding = 0, bias = false } = problem;
      const [x, w] = [problem.x, problem.w].map((shape, i) =>
        gpu.tensor(randomArray(shape, "xw"[i]!), shape)
      );
      const b = bias ? gpu.tensor(randomArray([w!.shape[3]!], "b")) : undefined;
      const { y, moments } = convolve(x!, w!, { stride, padding, bias: b, moments: true });
      if (moments === null) continue;
      left.push(describe(problem));
      const c = y.shape[3]!;
      const parts = await moments.data() as Float32Array;
      const values = await y.data() as Float32Array;
      for (let channel = 0; channel < c; channel++) {
        // Of all values, from what is left of their parts.
        let [count, sum, squares] = [0, 0, 0];
        for (let i = channel; i < parts.length; i += 3 * c) {
          const [n, mean, m2] = [parts[i]!, parts[i + c]!, parts[i + 2 * c]!];
          count += n;
          sum += n * mean;
          squares += m2 + n * mean ** 2;
        }
        const all = values.filter((_, i) => i % c === channel);
        const scale = Math.sqrt(all.reduce((sum, v) => sum + v * v, 0) / all.length);
        const actual = [count, sum / count / scale, squares / count / scale ** 2];
        const expected = [all.length, all.reduce((sum, v) => sum + v, 0) / all.length / scale, 1];
        const label = `channel ${channel} of ${describe(problem)} by ${name}`;
        assertClose(actual, expected, { atol: 1e-5 }, label);
      }
    }
    // Not those summed in parts, Winograd's, nor most whose channels are no multiple of four.
    assert.ok(left.length >= 20, `${left.length}: ${left.join("; ")}`);
    const { moments } = convolve(gpu.zeros([1, 4, 4, 4]), gpu.zeros([1, 1, 4, 4]));
    assert.equal(moments, null);
  });

  Deno.test(`convolve() normalises what it reads as batchNorm() does, by ${name}`, async () => {
    const read: string[] = [];
    for (const problem of normalisedCases) {
      const { stride = 1, padding = 0, training = true, x: shape, w } = problem;
      const c = shape[3]!;
      const sides = [1, 2].map((i) =>
        Math.floor((shape[i]! + 2 * padding - w[i - 1]!) / stride) + 1
      );
      const run = async (fused: boolean) => {
        const [runningMean, runningVar] = [gpu.zeros([c]), gpu.tensor(new Float32Array(c).fill(2))];
        const inputs = [shape, [c], [c], w, [w[3]!]].map((shape, i) =>
          gpu.tensor(randomArray(shape, `input ${i}`), shape)
        );
        const made = await outputAndGradients(
          (x, weight, bias, kernel, b) => {
            const norm = {
              weight: weight!,
              bias: bias!,
              runningMean,
              runningVar,
              training,
              relu: true,
            };
            const window = { stride, padding, bias: problem.bias ? b! : undefined };
            const live = gpu.memory.live;
            const source = fused ? { x: x!, norm } : batchNorm(x!, norm);
            const { y } = convolve(source, kernel!, window);
            if (fused && y.node!.inputs.includes(weight!)) {
              read.push(describe(problem));
              // The coefficients, and nothing of the size of x.
              assert.ok(gpu.memory.live - live - y.bytes <= 16 * (64 + c));
            }
            return y;
          },
          inputs,
          randomArray([shape[0]!, ...sides, w[3]!], "dy"),
        );
        return { made, statistics: [await runningMean.data(), await runningVar.data()] };
      };
      const [actual, expected] = [await run(true), await run(false)];
      assert.deepEqual(actual.statistics, expected.statistics);
      const { gradients } = expected.made;
      assert.equal(actual.made.gradients.length, gradients.length);
      for (const [i, e] of [expected.made.y, ...gradients].entries()) {
        const a = [actual.made.y, ...actual.made.gradients][i]!;
        const atol = 2e-6 * e.reduce((most, v) => Math.max(most, Math.abs(v)), 0);
        assertClose(a, e, { atol }, `${i} of ${describe(problem)} by ${name}`);
      }
    }
    const winograds = gpu.adapter.isFallback ? 3 : 0;
    assert.equal(read.length, name === "tiles" ? normalisedCases.length - 1 : winograds);
  });

  Deno.test(`conv2d() follows PyTorch, by ${name}`, async () => {
    const fixture = await readFixture("conv2d");
    for (const name of fixture.cases()) {
      const window = {
        stride: fixture.integer(`${name}.stride`),
        padding: fixture.integer(`${name}.padding`),
      };
      const names = ["x", "w", "b"].filter((input) => fixture.has(`${name}.${input}`));
      const inputs = names.map((input) => {
        const { shape, data } = fixture.tensor(`${name}.${input}`);
        return gpu.tensor(data, shape);
      });
      const { y, gradients } = await outputAndGradients(
        (x, w, b) => conv2d(x!, w!, { ...window, bias: b }),
        inputs,
        fixture.tensor(`${name}.dy`).data,
      );
      const tolerance = { rtol: 1e-5, atol: 1e-5 };
      assertClose(y, fixture.tensor(`${name}.y`).data, tolerance, `${name}.y`);
      names.forEach((input, i) => {
        const expected = fixture.tensor(`${name}.d${input}`).data;
        assertClose(gradients[i]!, expected, tolerance, `${name}.d${input}`);
      });
    }
  });

  Deno.test(`conv2d() sums over very many pixels and taps, by ${name}`, async () => {
    const tolerance = 9e-6;
    await compare(gpu, { x: [1, 256, 256, 1], w: [1, 1, 1, 2] }, name, tolerance);
    await compare(gpu, { x: [1, 1, 70_001, 4], w: [1, 1, 4, 4], bias: true }, name, tolerance);
    await compare(gpu, { x: [1, 1, 1_000_003, 1], w: [1, 1, 1, 1] }, name, tolerance);
    await compare(gpu, { x: [1, 40_000, 4, 1], w: [3, 3, 1, 2], padding: 1 }, name, tolerance);
    // So many taps that the forward is cut into parts, too.
    await compare(gpu, { x: [1, 16, 16, 36], w: [16, 16, 36, 4], padding: 1 }, name, tolerance);
  });

  Deno.test(`conv2d() gives the same bits twice, by ${name}`, async () => {
    const x = gpu.tensor(randomArray([4, 20, 20, 8], "x"), [4, 20, 20, 8]);
    const w = gpu.tensor(randomArray([3, 3, 8, 8], "w"), [3, 3, 8, 8]);
    const dy = randomArray([4, 20, 20, 8], "dy");
    const run = () => outputAndGradients((x, w) => conv2d(x!, w!, { padding: 1 }), [x, w], dy);
    assert.deepEqual(await run(), await run());
  });
}

Deno.test("conv2d() has kernels of its own for few channels on software adapters", {
  ignore: !gpu.adapter.isFallback || gpu.subgroupSize !== 8,
}, async () => {
  const compiled: string[] = [];
  const fresh = await Gpu.open();
  fresh.onCompile = (label) => compiled.push(label.replace(/ .*/, ""));
  try {
    const x = fresh.zeros([1, 16, 16, 3]);
    const w = fresh.zeros([3, 3, 3, 16]);
    w.requiresGrad = true;
    const y = conv2d(x, w);
    y.node!.backward(fresh.zeros(y.shape), [true, true]);
    await fresh.idle();
  } finally {
    fresh.close();
  }
  assert.deepEqual(compiled.filter((name) => /^(stem|gemm)/.test(name)), [
    "stem.image",
    "stem.weights",
    "stem.image_back",
  ]);
});

Deno.test("conv2d() has the gradients of finite differences", async () => {
  const input = (shape: number[], name: string) => ({ shape, data: randomArray(shape, name, 0.5) });
  await checkGradients(
    (x, w, b) => conv2d(x!, w!, { stride: 2, padding: 1, bias: b }),
    [input([2, 6, 7, 3], "x"), input([3, 4, 3, 5], "w"), input([5], "b")],
  );
});

Deno.test("conv2d() computes only the gradients that are needed", async () => {
  const x = gpu.tensor(randomArray([1, 5, 5, 4], "x"), [1, 5, 5, 4]);
  const w = gpu.tensor(randomArray([3, 3, 4, 4], "w"), [3, 3, 4, 4]);
  w.requiresGrad = true;
  const y = conv2d(x, w);
  const dy = gpu.tensor(randomArray(y.shape, "dy"), y.shape);
  const [dx, dw] = y.node!.backward(dy, [false, true]);
  assert.equal(dx, null);
  const expected = naive.conv2dWeightGradient(
    { shape: y.shape, data: await dy.data() as Float32Array },
    { shape: x.shape, data: await x.data() as Float32Array },
    w.shape,
    { stride: 1, padding: 0 },
  );
  assertClose(await dw!.data() as Float32Array, expected.data, { rtol: 1e-5, atol: 1e-5 }, "dw");
});

Deno.test("conv2d() names the shapes that do not fit", () => {
  const zeros = (...shape: number[]): Tensor => gpu.zeros(shape);
  const x = zeros(2, 8, 9, 3);
  assert.throws(
    () => conv2d(x, zeros(7, 7, 64, 64)),
    {
      name: "RangeError",
      message: "conv2d: input has 3 channels, weight expects 64 (x [2,8,9,3], weight [7,7,64,64])",
    },
  );
  assert.throws(() => conv2d(zeros(8, 9, 3), zeros(3, 3, 3, 4)), /x is \[n,h,w,in\].*x \[8,9,3\]/);
  assert.throws(() => conv2d(x, zeros(9, 9, 3, 4)), /nothing remains.*weight \[9,9,3,4\]/);
  assert.throws(() => conv2d(x, zeros(3, 3, 3, 4), { stride: 0 }), /stride 0/);
  assert.throws(() => conv2d(x, zeros(3, 3, 3, 4), { padding: -1 }), /padding -1/);
  assert.throws(() => conv2d(x, zeros(3, 3, 3, 4), { bias: zeros(3) }), /bias is \[3\], not \[4\]/);
  assert.throws(() => conv2d(gpu.tensor(new Uint8Array(9), [1, 3, 3, 1]), zeros(1, 1, 1, 1)), /u8/);
});
