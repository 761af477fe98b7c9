import assert from "node:assert/strict";
import * as unary from "../src/ops/unary.ts";
import type { Tensor } from "../src/tensor.ts";
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

const { clamp, ...functions } = unary;
const ops: Record<string, (x: Tensor) => Tensor> = functions;

/** The error function by its Taylor series, for |x| ≤ 4. */
function erf(x: number): number {
  let term = x;
  let sum = x;
  for (let n = 1; n < 100; n++) {
    term *= -x * x / n;
    sum += term / (2 * n + 1);
  }
  return 2 / Math.sqrt(Math.PI) * sum;
}

const definitions: Record<string, (x: number) => number> = {
  neg: (x) => -x,
  abs: Math.abs,
  square: (x) => x * x,
  sqrt: Math.sqrt,
  rsqrt: (x) => 1 / Math.sqrt(x),
  exp: Math.exp,
  log: Math.log,
  relu: (x) => Math.max(x, 0),
  sigmoid: (x) => 1 / (1 + Math.exp(-x)),
  tanh: Math.tanh,
  softplus: (x) => Math.log1p(Math.exp(x)),
  gelu: (x) => x * (1 + erf(x / Math.SQRT2)) / 2,
};
const positiveOnly = new Set(["sqrt", "rsqrt", "log"]);

Deno.test("unary ops agree with the CPU on sizes off the vector and off the group", async () => {
  assert.deepEqual(Object.keys(ops).sort(), Object.keys(definitions).sort());
  for (const [name, op] of Object.entries(ops)) {
    for (const size of [1, 7, 1025]) {
      const data = randomArray([size], name).map((x) => positiveOnly.has(name) ? 0.1 + x * x : x);
      const y = await gpu.step(() => op(gpu.tensor(data))).data();
      const expected = Array.from(data, definitions[name]!);
      assertClose(y, expected, { rtol: 2e-6, atol: 1e-6 }, `${name} [${size}]`);
    }
  }
});

Deno.test("unary ops follow PyTorch, far out too", async () => {
  const fixture = await readFixture("unary");
  // WGSL allows exp an error of 3 + 2|x| units in the last place: 1e-5 at 80.
  const tolerance = { rtol: 1e-5, atol: 1e-6 };
  for (const name of fixture.cases()) {
    await assertFollows(fixture, name, ["x"], ops[name.split("_")[0]!]!, tolerance);
  }
});

Deno.test("gelu() is PyTorch's default to 1e-6", async () => {
  const data = Float32Array.from({ length: 801 }, (_, i) => (i - 400) / 100);
  const y = await gpu.step(() => unary.gelu(gpu.tensor(data))).data();
  assertClose(y, Array.from(data, definitions.gelu!), { atol: 1e-6 }, "gelu");
});

Deno.test("gradients of unary ops agree with finite differences", async () => {
  for (const [name, op] of Object.entries(ops)) {
    // Away from 0, where relu and abs have a corner.
    const data = randomArray([3, 5], name).map((x) =>
      positiveOnly.has(name) ? 0.5 + x * x : x + 0.3 * Math.sign(x)
    );
    await checkGradients(op, [{ shape: [3, 5], data }]);
  }
});

Deno.test("clamp() bounds values, and the gradient passes inside", async () => {
  const x = gpu.tensor([-3, -1, 0, 2, 5]);
  const dy = Float32Array.of(1, 2, 3, 4, 5);
  const { y, gradients } = await outputAndGradients((x) => clamp(x, -1, 2), [x], dy);
  assert.deepEqual([...y], [-1, -1, 0, 2, 2]);
  assert.deepEqual([...gradients[0]!], [0, 2, 3, 4, 0]);
  assert.throws(() => clamp(x, 2, -1), /clamp: bounds 2 and -1/);
});

Deno.test("relu() keeps NaN, so that a diverged network shows", async () => {
  const y = await gpu.step(() => unary.relu(gpu.tensor([NaN, -1, 1]))).data();
  assert.deepEqual([...y as Float32Array], [NaN, 0, 1]);
});

Deno.test("identities of the exponential family hold", async () => {
  const data = randomArray([257], "identities", 3);
  const values = async (fn: (x: Tensor) => Tensor) =>
    await gpu.step(() => fn(gpu.tensor(data))).data();
  const tolerance = { rtol: 1e-5, atol: 1e-6 };
  assertClose(await values((x) => unary.log(unary.exp(x))), data, tolerance, "log exp x = x");
  const sigmoids = await values(unary.sigmoid) as Float32Array;
  const mirrored = await values((x) => unary.sigmoid(unary.neg(x))) as Float32Array;
  assertClose(
    sigmoids.map((s, i) => s + mirrored[i]!),
    data.map(() => 1),
    tolerance,
    "σ(x) + σ(−x)",
  );
  const difference = await values(unary.softplus) as Float32Array;
  const other = await values((x) => unary.softplus(unary.neg(x))) as Float32Array;
  assertClose(
    difference.map((s, i) => s - other[i]!),
    data,
    tolerance,
    "softplus(x) − softplus(−x) = x",
  );
});

Deno.test("unary ops refuse other types and give back their memory", () => {
  assert.throws(() => unary.relu(gpu.empty([2, 3], "u32")), /relu: x \[2,3\] is u32, not f32/);
  for (const op of Object.values(ops)) assertReleases(op, [3, 5]);
  assertReleases((x) => clamp(unary.exp(unary.relu(x)), 0, 1), [3, 5]);
});
