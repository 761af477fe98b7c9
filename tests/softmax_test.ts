import assert from "node:assert/strict";
import { mul } from "../src/ops/binary.ts";
import { l2Normalize, logSoftmax, softmax } from "../src/ops/softmax.ts";
import type { Tensor } from "../src/tensor.ts";
import * as naive from "./reference/naive.ts";
import { assertClose } from "./support/assert.ts";
import { readFixture } from "./support/fixture.ts";
import {
  assertFollows,
  assertReleases,
  checkGradients,
  gpu,
  outputAndGradients,
  randomArray,
} from "./support/op.ts";

const ops: Record<string, (x: Tensor) => Tensor> = {
  softmax,
  log_softmax: logSoftmax,
  normalize: (x) => l2Normalize(x),
};

/** Values and gradients of an op by its definition. */
function reference(name: string, x: naive.Values, dy: naive.Values) {
  const k = x.shape.at(-1)!;
  const y = new Float64Array(x.data.length);
  const dx = new Float64Array(x.data.length);
  const probabilities = naive.softmax(x).data;
  for (let first = 0; first < y.length; first += k) {
    const columns = Array.from({ length: k }, (_, c) => first + c);
    const total = (f: (i: number) => number) => columns.reduce((sum, i) => sum + f(i), 0);
    const norm = Math.sqrt(total((i) => x.data[i]! ** 2));
    for (const i of columns) {
      y[i] = name === "softmax"
        ? probabilities[i]!
        : name === "log_softmax"
        ? Math.log(probabilities[i]!)
        : x.data[i]! / norm;
    }
    const sum = total((i) => dy.data[i]! * (name === "log_softmax" ? 1 : y[i]!));
    for (const i of columns) {
      dx[i] = name === "softmax"
        ? y[i]! * (dy.data[i]! - sum)
        : name === "log_softmax"
        ? dy.data[i]! - probabilities[i]! * sum
        : (dy.data[i]! - y[i]! * sum) / norm;
    }
  }
  return { y, dx };
}

Deno.test("softmax(), logSoftmax() and l2Normalize() follow PyTorch", async () => {
  const fixture = await readFixture("softmax");
  for (const name of fixture.cases()) {
    const op = Object.keys(ops).find((op) => name.startsWith(op))!;
    // Gradients of vectors of length 1e-4 are 1e4 times larger than anything else here.
    const atol = name === "normalize_tiny" ? 5e-3 : 2e-6;
    await assertFollows(fixture, name, ["x"], ops[op]!, { rtol: 1e-5, atol });
  }
});

Deno.test("softmax(), logSoftmax() and l2Normalize() agree with the CPU, in long rows too", async () => {
  const shapes = [[1, 1], [7, 5], [300, 3], [2, 3, 65], [3, 2049], [1, 65536], [2, 70001]];
  for (const shape of [...shapes, [1, 1000003]]) {
    const [x, dy] = ["x", "dy"].map((name) => ({ shape, data: randomArray(shape, name) }));
    for (const [name, op] of Object.entries(ops)) {
      const expected = reference(name, x!, dy!);
      const actual = await outputAndGradients(op, [gpu.tensor(x!.data, shape)], dy!.data);
      assertClose(actual.y, expected.y, { rtol: 1e-5, atol: 1e-9 }, `${name} [${shape}]`);
      const scale = Math.max(...expected.dx.map(Math.abs).slice(0, 1000));
      assertClose(
        actual.gradients[0]!,
        expected.dx,
        { rtol: 1e-4, atol: 1e-5 * scale },
        `d${name} [${shape}]`,
      );
    }
  }
});

Deno.test("gradients of softmax(), logSoftmax() and l2Normalize() agree with finite differences", async () => {
  for (const op of Object.values(ops)) {
    await checkGradients(op, [{ shape: [3, 5], data: randomArray([3, 5], "fd") }]);
  }
});

Deno.test("softmax() does not feel a shift, not even to where exp overflows", async () => {
  const x = randomArray([4, 9], "shift").map((v) => Math.fround(Math.round(v * 16) / 16));
  const values = async (by: number) =>
    await gpu.step(() => softmax(gpu.tensor(x.map((v) => v + by), [4, 9]))).data();
  assert.deepEqual(await values(512), await values(0));
  assert.deepEqual(await values(-512), await values(0));
});

Deno.test("l2Normalize() does not feel a scale, and divides by eps what is shorter", async () => {
  const x = randomArray([4, 9], "scale");
  const values = async (scale: number) =>
    await gpu.step(() => l2Normalize(mul(gpu.tensor(x, [4, 9]), scale))).data();
  assert.deepEqual(await values(64), await values(1));
  const short = gpu.tensor([3e-3, 4e-3, 0, 0], [2, 2]);
  const dy = Float32Array.of(1, 2, 3, 4);
  const { y, gradients } = await outputAndGradients(
    (x) => l2Normalize(x, { eps: 0.5 }),
    [short],
    dy,
  );
  assertClose(y, [6e-3, 8e-3, 0, 0], { rtol: 1e-6 }, "x / eps");
  assertClose(gradients[0]!, [2, 4, 6, 8], { rtol: 1e-6 }, "dy / eps");
});

Deno.test("row ops refuse rows longer than an invocation can walk, and give back their memory", () => {
  assert.throws(
    () => softmax(gpu.empty([9_000_000])),
    /softmax: rows of 9000000 values, not 1…8192000/,
  );
  assert.throws(() => l2Normalize(gpu.empty([3], "u32")), /l2Normalize: x \[3\] is u32, not f32/);
  for (const op of Object.values(ops)) assertReleases(op, [3, 5]);
});
