import assert from "node:assert/strict";
import { avgPool2d, globalAvgPool, maxPool2d, type PoolOptions } from "../src/ops/pool.ts";
import { sizeOf, type Tensor } from "../src/tensor.ts";
import * as naive from "./reference/naive.ts";
import { assertClose } from "./support/assert.ts";
import { readFixture } from "./support/fixture.ts";
import { checkGradients, gpu, outputAndGradients, randomArray } from "./support/op.ts";

const cases: [shape: number[], kernel: number, stride: number, padding: number][] = [
  [[1, 5, 7, 3], 3, 2, 1],
  [[2, 6, 5, 8], 3, 2, 1],
  [[3, 4, 4, 4], 2, 2, 0],
  [[2, 7, 6, 5], 2, 2, 0],
  [[2, 6, 6, 4], 3, 1, 1],
  [[1, 9, 8, 2], 4, 3, 2],
  [[2, 8, 9, 4], 2, 3, 0],
  [[1, 3, 3, 8], 3, 1, 0],
  // Rows that several invocations share.
  [[1, 3, 139, 4], 3, 2, 1],
  [[1, 2, 75, 8], 2, 1, 0],
];

Deno.test("maxPool2d() and avgPool2d() agree with the CPU", async () => {
  for (const [shape, kernel, stride, padding] of cases) {
    const x = { shape, data: randomArray(shape, "x") };
    const options = { kernel, stride, padding };
    const label = `[${shape}] kernel ${kernel} stride ${stride} padding ${padding}`;

    const { y, from } = naive.maxPool(x, kernel, options);
    const dy = { shape: y.shape, data: randomArray(y.shape, "dy") };
    const input = gpu.tensor(x.data, shape);
    const max = await outputAndGradients((x) => maxPool2d(x, options), [input], dy.data);
    assert.deepEqual(max.y, Float32Array.from(y.data), label);
    const dx = naive.maxPoolGradient(dy, from, shape);
    assertClose(max.gradients[0]!, dx.data, { rtol: 1e-6, atol: 1e-6 }, `max dx ${label}`);

    const mean = naive.averagePool(x, kernel, options);
    const avg = await outputAndGradients((x) => avgPool2d(x, options), [input], dy.data);
    assertClose(avg.y, mean.data, { rtol: 1e-6, atol: 1e-6 }, `avg ${label}`);
    const spread = naive.averagePoolGradient(dy, kernel, shape, options);
    assertClose(avg.gradients[0]!, spread.data, { rtol: 1e-6, atol: 1e-6 }, `avg dx ${label}`);
  }
});

Deno.test("maxPool2d(), avgPool2d() and globalAvgPool() follow PyTorch", async () => {
  const fixture = await readFixture("pool");
  for (const name of fixture.cases()) {
    const { shape, data } = fixture.tensor(`${name}.x`);
    let fn: (x: Tensor) => Tensor = globalAvgPool;
    if (!name.startsWith("global")) {
      const option = (key: string) => fixture.integer(`${name}.${key}`);
      const options: PoolOptions = {
        kernel: option("kernel"),
        stride: option("stride"),
        padding: option("padding"),
      };
      fn = (x) => name.startsWith("max") ? maxPool2d(x, options) : avgPool2d(x, options);
    }
    const dy = fixture.tensor(`${name}.dy`).data;
    const { y, gradients } = await outputAndGradients(fn, [gpu.tensor(data, shape)], dy);
    const tolerance = { rtol: 1e-5, atol: 1e-6 };
    assertClose(y, fixture.tensor(`${name}.y`).data, tolerance, `${name}.y`);
    assertClose(gradients[0]!, fixture.tensor(`${name}.dx`).data, tolerance, `${name}.dx`);
  }
});

Deno.test("avgPool2d() and globalAvgPool() have the gradients of finite differences", async () => {
  const input = { shape: [2, 5, 6, 3], data: randomArray([2, 5, 6, 3], "check") };
  await checkGradients((x) => avgPool2d(x, { kernel: 3, stride: 2, padding: 1 }), [input]);
  await checkGradients(globalAvgPool, [input]);
});

Deno.test("maxPool2d() has the gradients of finite differences where no maximum changes", async () => {
  const shape = [2, 5, 6, 4];
  const data = Float32Array.from({ length: sizeOf(shape) }, (_, i) => (i * 89) % sizeOf(shape));
  await checkGradients((x) => maxPool2d(x, { kernel: 3, stride: 2, padding: 1 }), [{
    shape,
    data,
  }]);
});

Deno.test("maxPool2d() of negative values ignores the padding, avgPool2d() counts it", async () => {
  const x = gpu.tensor(new Float32Array(16).fill(-9), [1, 4, 4, 1]);
  const options = { kernel: 3, stride: 2, padding: 1 };
  assert.deepEqual([...await maxPool2d(x, options).data()], [-9, -9, -9, -9]);
  assert.deepEqual([...await avgPool2d(x, options).data()], [-4, -6, -6, -9]);
});

Deno.test("globalAvgPool() of more than 65 535 pixels", async () => {
  const shape = [1, 263, 269, 3];
  const data = randomArray(shape, "large").map((v) => v + 1);
  const expected = naive.sumRows({ shape: [263 * 269, 3], data }).data.map((v) => v / (263 * 269));
  const y = await globalAvgPool(gpu.tensor(data, shape)).data();
  assertClose(y as Float32Array, expected, { rtol: 1e-5 }, "y");
});

Deno.test("maxPool2d() and avgPool2d() refuse windows that do not fit", () => {
  const x = gpu.zeros([1, 2, 8, 4]);
  assert.throws(
    () => maxPool2d(x, { kernel: 3 }),
    /maxPool2d: kernel 3, stride 3, padding 0 over x \[1,2,8,4\]/,
  );
  assert.throws(() => avgPool2d(x, { kernel: 2, padding: 2 }), /avgPool2d: .* padding 2/);
  assert.throws(() => maxPool2d(gpu.zeros([1, 40, 40, 4]), { kernel: 17 }), /kernel 17 is over 16/);
  assert.throws(() => globalAvgPool(gpu.zeros([4, 4])), /x \[4,4\] has not four axes/);
});
