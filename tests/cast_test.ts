import assert from "node:assert/strict";
import { backward } from "../src/autograd.ts";
import { UserError } from "../src/errors.ts";
import { Gpu } from "../src/gpu/gpu.ts";
import { Shader } from "../src/gpu/shader.ts";
import { mul } from "../src/ops/binary.ts";
import { cast } from "../src/ops/cast.ts";
import { globalAvgPool } from "../src/ops/pool.ts";
import { sum } from "../src/ops/reduce.ts";
import { transpose } from "../src/ops/shape.ts";
import { relu } from "../src/ops/unary.ts";
import { checkHalves } from "../src/precision.ts";
import { byteLength } from "../src/tensor.ts";
import { assertReleases, gpu, randomArray } from "./support/op.ts";

const halves = { ignore: !gpu.hasHalves };

Deno.test(
  "cast() rounds to the nearest 16-bit float, and back changes nothing",
  halves,
  async () => {
    for (const n of [1, 3, 8, 1029]) {
      // From below the smallest 16-bit float to beyond the largest.
      const data = randomArray([n], "x").map((v, i) => v * 2 ** (i % 46 - 28));
      const x = gpu.tensor(data);
      const half = gpu.step(() => cast(x, "f16"));
      assert.equal(half.dtype, "f16");
      assert.equal(byteLength(half.shape, half.dtype), 2 * n);
      const expected = new Float32Array(new Float16Array(data));
      assert.deepEqual(await half.data(), expected);
      const whole = gpu.step(() => cast(half, "f32"));
      assert.deepEqual(await whole.data(), expected);
      assert.equal(cast(x, "f32"), x);
      for (const tensor of [half, whole]) tensor.dispose();
    }
  },
);

Deno.test("cast() casts the gradient back, and gives back its memory", halves, async () => {
  const x = gpu.tensor([1, 2, 3]);
  x.requiresGrad = true;
  const by = gpu.tensor([1 / 3, 1e-9, 70_000]);
  gpu.step(() => backward(sum(mul(cast(cast(x, "f16"), "f32"), by))));
  // Rounded on its way through the 16 bits.
  assert.deepEqual(await x.grad!.data(), new Float32Array([Math.f16round(1 / 3), 0, Infinity]));
  assertReleases((x) => cast(cast(x, "f16"), "f32"), [3, 5]);
  assert.throws(
    () => cast(gpu.tensor(new Uint32Array(4)), "f16"),
    /^RangeError: cast: x \[4\] is u32/,
  );
});

Deno.test("what takes no 16-bit floats refuses them", halves, () => {
  gpu.scope(() => {
    const x = cast(gpu.zeros([2, 3, 3, 4]), "f16");
    assert.throws(() => relu(x), /^RangeError: relu: x \[2,3,3,4\] is f16, not f32/);
    assert.throws(() => globalAvgPool(x), /mean: x \[2,3,3,4\] is f16, not f32/);
    assert.throws(() => mul(x, gpu.zeros([4])), /mul: second \[4\] is f32, not f16/);
    assert.throws(() => transpose(x, [3, 1, 2, 0]), /RangeError: shape\.\w+: x4? is f16/);
  });
});

Deno.test("Shader sets the aliases of elements, to 16-bit floats and to fours", () => {
  const source = `alias Quad = vec4f;
alias Real = f32;
alias Pair = vec2f;
@group(0) @binding(0) var<storage, read> x: array<Quad>;
@group(0) @binding(1) var<storage, read> bias: array<f32>;
@group(0) @binding(2) var<storage, read_write> y: array<Real>;
@group(0) @binding(3) var<storage, read> residual: array<Quad>;
@compute @workgroup_size(1) fn f() { y[0] = Real(bias[0] + f32(x[0].x) + f32(residual[0].x)); }
`;
  const shader = new Shader("aliases", source);
  const kernel = shader.kernel("f");
  assert.deepEqual(kernel.elements, ["Quad", null, "Real", "Quad"]);
  assert.equal(shader.kernelFor(kernel, ["f32", "f32", "f32", "f32"]), kernel);

  const half = shader.kernelFor(kernel, ["f16", "f32", "f32", "f16"]);
  assert.deepEqual(shader.expand(half).split("\n").slice(0, 2), [
    "alias Quad = vec4h;",
    "alias Real = f32;",
  ]);
  assert.deepEqual([kernel.usesHalves, half.usesHalves], [false, true]);
  assert.equal(shader.kernelFor(kernel, ["f16", "f32", "f32", "f16"]), half);
  const scalar = shader.kernel("f", { Real: 16 });
  assert.deepEqual(shader.expand(scalar).split("\n").slice(0, 2), [
    "alias Quad = vec4f;",
    "alias Real = f16;",
  ]);
  const pair = (Pair: number) => shader.expand(shader.kernel("f", { Pair })).split("\n")[2];
  assert.deepEqual([32, 16, 4].map(pair), [
    "alias Pair = vec2f;",
    "alias Pair = vec2h;",
    "alias Pair = vec4f;",
  ]);

  assert.throws(() => shader.kernelFor(kernel, ["f16", "f32", "f32", "f32"]), {
    name: "RangeError",
    message: "aliases.f: residual is f32, which it does not take here",
  });
  assert.throws(() => shader.kernelFor(kernel, ["f32", "f16", "f32", "f32"]), /bias is f16/);
});

Deno.test("an adapter without 16-bit floats is refused by its name", async () => {
  const without = await Gpu.open({ halves: false });
  try {
    assert.equal(without.hasHalves, false);
    await assert.rejects(checkHalves(without), (error: Error) => {
      assert.ok(error instanceof UserError);
      assert.equal(
        error.message,
        `--precision f16: ${without.adapter.description} has no 16-bit floats ` +
          "(the feature shader-f16); train with f32",
      );
      return true;
    });
  } finally {
    without.close();
  }
});

Deno.test(
  "an adapter that rounds as IEEE 754 does is accepted, and keeps no memory",
  halves,
  async () => {
    const { live } = gpu.memory;
    await checkHalves(gpu);
    assert.equal(gpu.memory.live, live);
  },
);
