import assert from "node:assert/strict";
import { backward, record, setGradientSlot } from "../src/autograd.ts";
import { batchNorm, type BatchNormOptions } from "../src/ops/batch_norm.ts";
import { add, mul } from "../src/ops/binary.ts";
import { convolve } from "../src/ops/conv2d.ts";
import { maxPool2d } from "../src/ops/pool.ts";
import { type Shape, Tensor } from "../src/tensor.ts";
import * as naive from "./reference/naive.ts";
import { assertClose } from "./support/assert.ts";
import { readFixture } from "./support/fixture.ts";
import { checkGradients, gpu, outputAndGradients, randomArray } from "./support/op.ts";

const shapes = [[3, 5, 7, 5], [2, 4, 6, 8], [1, 3, 3, 1], [2, 3, 70], [130, 12], [2, 5], [67, 33]];

/** Running statistics as a model begins with them. */
function running(c: number): { runningMean: Tensor; runningVar: Tensor } {
  const [runningMean, runningVar] = [0, 1].map((v) => gpu.tensor(new Float32Array(c).fill(v)));
  return { runningMean: runningMean!, runningVar: runningVar! };
}

/** A training batchNorm() as a function of its differentiable inputs. */
function training(c: number, options: Partial<BatchNormOptions> = {}) {
  return (x: Tensor, weight: Tensor, bias: Tensor, residual?: Tensor) =>
    batchNorm(x, {
      weight,
      bias,
      ...running(c),
      training: true,
      ...(residual && { residual }),
      ...options,
    });
}

Deno.test("batchNorm() in training agrees with the CPU", async () => {
  for (const shape of shapes) {
    const c = shape.at(-1)!;
    const [x, gamma, beta, dy] = [shape, [c], [c], shape].map((s, i) => ({
      shape: s,
      data: randomArray(s, `naive ${i}`),
    }));
    const expected = naive.batchNorm(x!, gamma!, beta!);
    const gradients = naive.batchNormGradients(x!, gamma!, dy!);
    const inputs = [x!, gamma!, beta!].map(({ shape, data }) => gpu.tensor(data, shape));
    const actual = await outputAndGradients(training(c), inputs, dy!.data);
    const tolerance = { rtol: 1e-4, atol: 1e-4 };
    assertClose(actual.y, expected.y.data, tolerance, `y [${shape}]`);
    assertClose(actual.gradients[0]!, gradients.dx.data, tolerance, `dx [${shape}]`);
    assertClose(actual.gradients[1]!, gradients.dgamma.data, tolerance, `dweight [${shape}]`);
    assertClose(actual.gradients[2]!, gradients.dbeta.data, tolerance, `dbias [${shape}]`);
  }
});

Deno.test("batchNorm() follows PyTorch in training, running statistics and evaluation", async () => {
  const fixture = await readFixture("batch_norm");
  for (const name of fixture.cases()) {
    const get = (tensor: string) => fixture.tensor(`${name}.${tensor}`);
    const put = (tensor: string) => gpu.tensor(get(tensor).data, get(tensor).shape);
    const close = (actual: ArrayLike<number>, tensor: string) =>
      assertClose(actual, get(tensor).data, { rtol: 1e-4, atol: 1e-4 }, `${name}.${tensor}`);
    const inputs = ["x", "gamma", "beta"].map(put) as [Tensor, Tensor, Tensor];
    const [, weight, bias] = inputs;
    const state = running(weight.size);
    const train = (x: Tensor, weight: Tensor, bias: Tensor) =>
      batchNorm(x, { weight, bias, ...state, training: true });
    const step = await outputAndGradients(train, inputs, get("dy").data);
    close(step.y, "y");
    ["dx", "dgamma", "dbeta"].forEach((tensor, i) => close(step.gradients[i]!, tensor));

    gpu.step(() => void train(put("x2"), weight, bias));
    close(await state.runningMean.data() as Float32Array, "running_mean");
    close(await state.runningVar.data() as Float32Array, "running_var");

    const evaluation = await outputAndGradients(
      (x, weight, bias) => batchNorm(x, { weight, bias, ...state, training: false }),
      inputs,
      get("dy").data,
    );
    close(evaluation.y, "eval_y");
    ["dx", "dgamma", "dbeta"].forEach((t, i) => close(evaluation.gradients[i]!, `eval_${t}`));
    close(await state.runningMean.data() as Float32Array, "running_mean");
  }
});

Deno.test("batchNorm() with ReLU and residual follows PyTorch", async () => {
  const fixture = await readFixture("batch_norm_relu");
  for (const name of fixture.cases()) {
    const names = ["x", "gamma", "beta", "residual"].filter((n) => fixture.has(`${name}.${n}`));
    const get = (tensor: string) => fixture.tensor(`${name}.${tensor}`);
    const inputs = names.map((n) => gpu.tensor(get(n).data, get(n).shape));
    const fn = training(inputs[1]!.size, { relu: true });
    const actual = await outputAndGradients(
      fn as (...t: Tensor[]) => Tensor,
      inputs,
      get("dy").data,
    );
    const close = (values: ArrayLike<number>, tensor: string) =>
      assertClose(values, get(tensor).data, { rtol: 1e-4, atol: 1e-4 }, `${name}.${tensor}`);
    close(actual.y, "y");
    names.forEach((n, i) => close(actual.gradients[i]!, `d${n}`));
  }
});

Deno.test("batchNorm() has the gradients of finite differences", async () => {
  for (const shape of [[3, 5, 7, 5], [2, 3, 2, 8], [9, 3]]) {
    const c = shape.at(-1)!;
    const inputs = [shape, [c], [c], shape].map((s, i) => ({
      shape: s,
      data: randomArray(s, `check ${i}`),
    }));
    await checkGradients(training(c) as (...t: Tensor[]) => Tensor, inputs);
    const state = running(c);
    await checkGradients(
      (x, weight, bias) => batchNorm(x, { weight, bias, ...state, training: false }),
      inputs.slice(0, 3),
    );
  }
});

Deno.test("batchNorm() with a residual and no ReLU adds it", async () => {
  const inputs = [[4, 5], [5], [5], [4, 5]].map((s, i) =>
    gpu.tensor(randomArray(s, `add ${i}`), s)
  );
  const dy = randomArray([4, 5], "add dy");
  const fn = training(5) as (...t: Tensor[]) => Tensor;
  const plain = await outputAndGradients(fn, inputs.slice(0, 3), dy);
  const sum = await outputAndGradients(fn, inputs, dy);
  const residual = await inputs[3]!.data() as Float32Array;
  assertClose(sum.y, plain.y.map((v, i) => v + residual[i]!), { atol: 1e-6 }, "y");
  assert.deepEqual(sum.gradients[3], dy);
  assert.deepEqual(sum.gradients[0], plain.gradients[0]);
});

Deno.test("batchNorm() with a residual adds the two parts of its gradient", async () => {
  for (const shape of [[3, 5, 7, 5], [40, 3, 3, 32]]) {
    const c = shape.at(-1)!;
    const inputs = [shape, [c], [c], shape].map((s, i) =>
      gpu.tensor(randomArray(s, `part ${i}`), s)
    );
    const dy = randomArray(shape, "parts dy");
    const fn = training(c, { relu: true }) as (...t: Tensor[]) => Tensor;
    const parts = (...inputs: Tensor[]) => {
      const y = fn(...inputs);
      return add(mul(y, 0.75), mul(y, 0.25));
    };
    const whole = (...inputs: Tensor[]) => mul(fn(...inputs), 1);
    const expected = await outputAndGradients(whole, inputs, dy);
    const actual = await outputAndGradients(parts, inputs, dy);
    for (const [i, gradient] of actual.gradients.entries()) {
      assertClose(
        gradient,
        expected.gradients[i]!,
        { rtol: 1e-5, atol: 1e-5 },
        `input ${i} [${shape}]`,
      );
    }
  }
});

Deno.test("batchNorm() with pooling is maxPool2d() after it", async () => {
  const pool = { kernel: 3, stride: 2, padding: 1 };
  for (const [relu, isTraining] of [[true, true], [false, true], [true, false]]) {
    // In fours of channels and one by one.
    for (const shape of [[3, 9, 8, 20], [2, 7, 7, 5]]) {
      const c = shape.at(-1)!;
      const weight = randomArray([c], "pool weight");
      assert.ok(weight.some((v) => v < 0) && weight.some((v) => v > 0));
      const inputs = [
        gpu.tensor(randomArray(shape, "pool x"), shape),
        gpu.tensor(weight),
        gpu.tensor(randomArray([c], "pool bias")),
      ];
      const run = (options: Partial<BatchNormOptions>, after = (y: Tensor) => y) => {
        const fn = training(c, { relu: relu!, training: isTraining!, ...options });
        const shown = (x: Tensor, weight: Tensor, bias: Tensor) => after(fn(x, weight, bias));
        return outputAndGradients(shown, inputs, dy);
      };
      const dy = randomArray([shape[0]!, Math.ceil(shape[1]! / 2), 4, c], "pool dy");
      const apart = await run({}, (y) => maxPool2d(y, pool));
      const fused = await run({ pool });
      assert.deepEqual(fused.y, apart.y);
      for (const [i, name] of ["dx", "dweight", "dbias"].entries()) {
        const label = `${name} [${shape}] relu ${relu} training ${isTraining}`;
        assertClose(fused.gradients[i]!, apart.gradients[i]!, { rtol: 1e-5, atol: 1e-5 }, label);
      }
    }
  }
});

Deno.test("batchNorm() over many rows", async () => {
  for (
    const [rows, c] of [[65_536, 1], [70_001, 3], [1_000_003, 1], [1_000_003, 4], [262_147, 20]]
  ) {
    const shape = [rows!, c!];
    const x = { shape, data: Float32Array.from({ length: rows! * c! }, (_, i) => wave(i)) };
    const dy = { shape, data: x.data.map((_, i) => wave(3 * i + 1)) };
    const gamma = { shape: [c!], data: randomArray([c!], "rows weight") };
    const beta = { shape: [c!], data: randomArray([c!], "rows bias") };
    const expected = naive.batchNorm(x, gamma, beta);
    const gradients = naive.batchNormGradients(x, gamma, dy);
    const inputs = [x, gamma, beta].map(({ shape, data }) => gpu.tensor(data, shape));
    const actual = await outputAndGradients(training(c!), inputs, dy.data);
    assertClose(actual.y, expected.y.data, { rtol: 1e-4, atol: 1e-4 }, `y [${shape}]`);
    assertClose(
      actual.gradients[0]!,
      gradients.dx.data,
      { rtol: 1e-4, atol: 1e-4 },
      `dx [${shape}]`,
    );
    // Sums of `rows` terms that cancel: compared at the scale of their random walk.
    const atol = 1e-4 * Math.sqrt(rows!);
    assertClose(actual.gradients[1]!, gradients.dgamma.data, { rtol: 1e-4, atol }, "dweight");
    assertClose(actual.gradients[2]!, gradients.dbeta.data, { rtol: 1e-4, atol }, "dbias");
    inputs.forEach((input) => input.dispose());
  }
});

/** Numbers in [−1, 1) without a pattern that the rows could follow. */
function wave(i: number): number {
  return (Math.imul(i ^ (i >>> 15), 0x2c1b3c6d) >> 8) / 2 ** 23;
}

Deno.test("batchNorm() takes the moments that a convolution left", async () => {
  for (const [n, c] of [[2, 8], [5, 12], [40, 16]] as const) {
    const [x, w] = [[n, 12, 8, 4], [3, 3, 4, c]].map((shape, i) =>
      gpu.tensor(randomArray(shape, `left ${i}`), shape)
    );
    const dy = randomArray([n, 12, 8, c], "left dy");
    const [weight, bias] = [1, 2].map((i) => gpu.tensor(randomArray([c], `left affine ${i}`)));
    // A mean many deviations off.
    const shift = gpu.tensor(new Float32Array(c).fill(30));
    const run = async (takes: boolean) => {
      const state = running(c);
      const normalised = (x: Tensor, w: Tensor, weight: Tensor, bias: Tensor) => {
        const { y, moments } = convolve(x, w, { padding: 1, bias: shift, moments: true });
        assert.notEqual(moments, null);
        const options = { weight, bias, ...state, training: true };
        return batchNorm(y, takes ? { ...options, moments } : options);
      };
      const { y, gradients } = await outputAndGradients(
        normalised as (...t: Tensor[]) => Tensor,
        [x!, w!, weight!, bias!],
        dy,
      );
      return [y, ...gradients, await state.runningMean.data(), await state.runningVar.data()];
    };
    const [left, own] = [await run(true), await run(false)];
    left.forEach((values, i) => {
      assertClose(values, own[i]!, { rtol: 1e-4, atol: 1e-4 }, `${i} of [${n},12,8,${c}]`);
    });
  }
});

Deno.test("batchNorm() loses nothing to a large mean, even where the first value is far off", async () => {
  const rows = 4099;
  const x = { shape: [rows, 2], data: randomArray([rows, 2], "offset").map((v) => v + 3000) };
  x.data[0] = 0;
  const gamma = { shape: [2], data: new Float32Array([1, 1]) };
  const beta = { shape: [2], data: new Float32Array(2) };
  const expected = naive.batchNorm(x, gamma, beta);
  const inputs = [x, gamma, beta].map(({ shape, data }) => gpu.tensor(data, shape));
  const { y } = await outputAndGradients(training(2), inputs, x.data);
  assertClose(y, expected.y.data, { rtol: 1e-4, atol: 5e-4 }, "y");
});

Deno.test("batchNorm() writes gradients of views into their slots, and nothing beside them", async () => {
  const view = (flat: Tensor, shape: Shape, offset: number) =>
    new Tensor(gpu, flat.storage, shape, "f32", 4 * offset);
  const values = gpu.tensor(randomArray([192], "values"));
  const gradients = gpu.tensor(new Float32Array(192).fill(7));
  const statistics = gpu.tensor(new Float32Array(192).fill(1));
  const parameters = [64, 128].map((offset) => {
    const parameter = view(values, [8], offset);
    parameter.requiresGrad = true;
    setGradientSlot(parameter, { tensor: view(gradients, [8], offset), written: false });
    return parameter;
  });
  const [runningMean, runningVar] = [0, 64].map((offset) => view(statistics, [8], offset));
  const [weight, bias] = parameters;
  gpu.step(() => {
    const y = batchNorm(gpu.tensor(randomArray([6, 8], "view x"), [6, 8]), {
      weight: weight!,
      bias: bias!,
      runningMean: runningMean!,
      runningVar: runningVar!,
      training: true,
    });
    const ones = gpu.tensor(new Float32Array(48).fill(1), [6, 8]);
    backward(record("sum", [y], gpu.zeros([]), [], () => [ones]));
  });
  const written = await gradients.data();
  assert.deepEqual([...written.subarray(128, 136)], Array(8).fill(6));
  assert.deepEqual([...written.subarray(0, 64)], Array(64).fill(7));
  assert.deepEqual([...written.subarray(72, 128)], Array(56).fill(7));
  const moved = await statistics.data();
  assert.ok(moved.subarray(0, 8).every((v) => v !== 1));
  assert.ok(moved.subarray(64, 72).every((v) => v !== 1));
  assert.deepEqual([...moved.subarray(128)], Array(64).fill(1));
});

Deno.test("batchNorm() gives the same bits twice", async () => {
  const inputs = [[1000, 24], [24], [24], [1000, 24]].map((s, i) =>
    gpu.tensor(randomArray(s, `twice ${i}`), s)
  );
  const fn = training(24, { relu: true }) as (...t: Tensor[]) => Tensor;
  const dy = randomArray([1000, 24], "twice dy");
  const first = await outputAndGradients(fn, inputs, dy);
  assert.deepEqual(await outputAndGradients(fn, inputs, dy), first);
});

Deno.test("batchNorm() refuses wrong shapes and single values by name", () => {
  const options = { weight: gpu.zeros([3]), bias: gpu.zeros([3]), ...running(3), training: true };
  const x = gpu.zeros([2, 4]);
  assert.throws(() => batchNorm(x, options), /batchNorm: weight \[3\] for x \[2,4\]/);
  const residual = gpu.zeros([2, 4]);
  assert.throws(
    () => batchNorm(gpu.zeros([2, 3]), { ...options, residual }),
    /residual \[2,4\] for x \[2,3\]/,
  );
  const moments = gpu.zeros([1, 3, 4]);
  assert.throws(
    () => batchNorm(gpu.zeros([2, 3]), { ...options, moments }),
    /moments \[1,3,4\] for x \[2,3\]/,
  );
  assert.throws(() => batchNorm(gpu.zeros([1, 3]), options), /one value a channel/);
  const pixels = gpu.zeros([1, 2, 2, 3]);
  assert.throws(
    () => batchNorm(pixels, { ...options, residual: pixels, pool: { kernel: 2 } }),
    /pool beside a residual/,
  );
});
