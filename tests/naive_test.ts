/** The naive references against PyTorch: each proves the other before either judges a kernel. */

import assert from "node:assert/strict";
import { assertClose, assertRelative } from "./support/assert.ts";
import { readFixture } from "./support/fixture.ts";
import {
  averagePool,
  averagePoolGradient,
  batchNorm,
  batchNormGradients,
  conv2d,
  conv2dInputGradient,
  conv2dWeightGradient,
  matmul,
  maxPool,
  maxPoolGradient,
  ntXent,
  softmax,
  softmaxGradient,
  sumRows,
  type Values,
} from "./reference/naive.ts";

function assertSame(actual: Values, expected: Values, label: string): void {
  assert.deepEqual(actual.shape, expected.shape, label);
  assertRelative(actual.data, expected.data, 3e-7, label);
}

Deno.test("naive conv2d and its gradients agree with PyTorch", async () => {
  const fixture = await readFixture("conv2d");
  for (const name of fixture.cases()) {
    const get = (key: string) => fixture.tensor(`${name}.${key}`);
    const [x, w, dy] = [get("x"), get("w"), get("dy")];
    const window = {
      stride: fixture.integer(`${name}.stride`),
      padding: fixture.integer(`${name}.padding`),
    };
    const b = fixture.has(`${name}.b`) ? get("b") : undefined;
    assertSame(conv2d(x, w, window, b), get("y"), `${name}.y`);
    assertSame(conv2dInputGradient(dy, w, x.shape, window), get("dx"), `${name}.dx`);
    assertSame(conv2dWeightGradient(dy, x, w.shape, window), get("dw"), `${name}.dw`);
    if (b) assertSame(sumRows(dy), get("db"), `${name}.db`);
  }
});

Deno.test("naive matmul agrees with PyTorch in all transposes", async () => {
  const fixture = await readFixture("matmul");
  for (const name of fixture.cases().filter((name) => !name.startsWith("linear"))) {
    const get = (key: string) => fixture.tensor(`${name}.${key}`);
    const [a, b, dy] = [get("a"), get("b"), get("dy")];
    const transposeA = fixture.integer(`${name}.transpose_a`) === 1;
    const transposeB = fixture.integer(`${name}.transpose_b`) === 1;
    assertSame(matmul(a, b, { transposeA, transposeB }), get("y"), `${name}.y`);
    const da = transposeA
      ? matmul(b, dy, { transposeA: transposeB, transposeB: true })
      : matmul(dy, b, { transposeB: !transposeB });
    const db = transposeB
      ? matmul(dy, a, { transposeA: true, transposeB: transposeA })
      : matmul(a, dy, { transposeA: !transposeA });
    assertSame(da, get("da"), `${name}.da`);
    assertSame(db, get("db"), `${name}.db`);
  }
});

Deno.test("naive batchNorm and its gradients agree with PyTorch", async () => {
  const fixture = await readFixture("batch_norm");
  for (const name of fixture.cases()) {
    const get = (key: string) => fixture.tensor(`${name}.${key}`);
    const [x, x2, gamma, beta] = [get("x"), get("x2"), get("gamma"), get("beta")];
    const { y, ...first } = batchNorm(x, gamma, beta);
    assertSame(y, get("y"), `${name}.y`);

    const second = batchNorm(x2, gamma, beta);
    const count = x.data.length / gamma.data.length;
    const unbiased = count / (count - 1);
    const after = (start: number, one: number, two: number) =>
      0.9 * (0.9 * start + 0.1 * one) + 0.1 * two;
    assertRelative(
      first.mean.map((mean, i) => after(0, mean, second.mean[i]!)),
      get("running_mean").data,
      3e-7,
      `${name}.running_mean`,
    );
    assertRelative(
      first.variance.map((v, i) => after(1, v * unbiased, second.variance[i]! * unbiased)),
      get("running_var").data,
      3e-7,
      `${name}.running_var`,
    );

    const { dx, dgamma, dbeta } = batchNormGradients(x, gamma, get("dy"));
    assertSame(dx, get("dx"), `${name}.dx`);
    assertSame(dgamma, get("dgamma"), `${name}.dgamma`);
    assertSame(dbeta, get("dbeta"), `${name}.dbeta`);
  }
});

Deno.test("naive max and average pooling agree with PyTorch, ties included", async () => {
  const fixture = await readFixture("pool");
  for (const name of fixture.cases().filter((name) => !name.startsWith("global"))) {
    const get = (key: string) => fixture.tensor(`${name}.${key}`);
    const [x, dy] = [get("x"), get("dy")];
    const kernel = fixture.integer(`${name}.kernel`);
    const window = {
      stride: fixture.integer(`${name}.stride`),
      padding: fixture.integer(`${name}.padding`),
    };
    if (name.startsWith("max")) {
      const { y, from } = maxPool(x, kernel, window);
      assertSame(y, get("y"), `${name}.y`);
      assertSame(maxPoolGradient(dy, from, x.shape), get("dx"), `${name}.dx`);
    } else {
      assertSame(averagePool(x, kernel, window), get("y"), `${name}.y`);
      assertSame(averagePoolGradient(dy, kernel, x.shape, window), get("dx"), `${name}.dx`);
    }
  }
});

Deno.test("naive softmax and its gradient agree with PyTorch", async () => {
  const fixture = await readFixture("softmax");
  for (const name of fixture.cases().filter((name) => name.startsWith("softmax"))) {
    const get = (key: string) => fixture.tensor(`${name}.${key}`);
    const y = softmax(get("x"));
    assertSame(y, get("y"), `${name}.y`);
    assertSame(softmaxGradient(y, get("dy")), get("dx"), `${name}.dx`);
  }
});

Deno.test("naive ntXent and its gradient agree with PyTorch", async () => {
  const fixture = await readFixture("nt_xent");
  for (const name of fixture.cases()) {
    const h = fixture.tensor(`${name}.h`);
    const { loss, dh } = ntXent(h, fixture.scalar(`${name}.temperature`));
    assertClose([loss], [fixture.scalar(`${name}.y`)], { rtol: 1e-6 }, `${name}.y`);
    assertSame(dh, fixture.tensor(`${name}.dh`), `${name}.dh`);
  }
});

Deno.test("naive ntXent of identical embeddings is log(2N − 1)", () => {
  const views = 10;
  const h = { shape: [views, 3], data: Array.from({ length: views * 3 }, (_, i) => i % 3 + 1) };
  const { loss, dh } = ntXent(h, 0.1);
  assertClose([loss], [Math.log(views - 1)], { rtol: 1e-12 }, "loss");
  assertClose(dh.data, new Float64Array(views * 3), { atol: 1e-12 }, "dh");
});
