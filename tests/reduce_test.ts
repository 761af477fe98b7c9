import assert from "node:assert/strict";
import { max, mean, type ReduceOptions, sum, sumTo } from "../src/ops/reduce.ts";
import { type Shape, sizeOf, type Tensor } from "../src/tensor.ts";
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

const ops = { sum, mean, max };
type Op = keyof typeof ops;

/** Reduces on the CPU, over `axes` of `shape`. */
function naive(
  op: Op,
  data: ArrayLike<number>,
  shape: Shape,
  axes: readonly number[],
): Float64Array {
  const kept = shape.map((size, axis) => axes.includes(axis) ? 1 : size);
  const result = new Float64Array(sizeOf(kept)).fill(op === "max" ? -Infinity : 0);
  const scale = op === "mean" ? result.length / data.length : 1;
  for (let i = 0; i < data.length; i++) {
    let at = 0;
    let stride = 1;
    for (let axis = shape.length - 1, rest = i; axis >= 0; axis--) {
      if (kept[axis] !== 1) at += (rest % shape[axis]!) * stride;
      rest = Math.floor(rest / shape[axis]!);
      stride *= kept[axis]!;
    }
    result[at] = op === "max" ? Math.max(result[at]!, data[i]!) : result[at]! + scale * data[i]!;
  }
  return result;
}

/** Positive values without pattern, cheap in any number, the largest one last. */
function sequence(size: number): Float32Array {
  const data = Float32Array.from(
    { length: size },
    (_, i) => (Math.imul(i, 2654435761) >>> 8) / 2 ** 24,
  );
  data[size - 1] = 2;
  return data;
}

Deno.test("reductions follow PyTorch over one, several and all axes", async () => {
  const fixture = await readFixture("reduce");
  for (const name of fixture.cases()) {
    const options: ReduceOptions = {
      axes: fixture.integers(`${name}.axes`),
      keepDims: fixture.integer(`${name}.keep`) === 1,
    };
    const op = ops[name.split("_")[0] as Op];
    await assertFollows(fixture, name, ["x"], (x) => op(x, options), { rtol: 1e-6, atol: 1e-6 });
  }
});

Deno.test("reductions agree with the CPU at every number of lanes and passes", async () => {
  const cases: [Shape, number[]][] = [
    [[1], [0]],
    [[5, 63], [1]],
    [[5, 64], [1]],
    [[300, 65], [1]],
    [[3, 260], [1]],
    [[2, 1028], [1]],
    [[2, 5003], [1]],
    [[129, 5], [0]],
    [[129, 12], [0]],
    [[3, 257, 7], [1]],
    [[3, 257, 8], [1]],
    [[3, 4, 5, 6], [0, 2]],
    [[3, 4, 5, 6], [1, 3]],
    [[2, 3, 1, 5, 2], [0, 2, 4]],
  ];
  for (const [shape, axes] of cases) {
    for (const [op, run] of Object.entries(ops)) {
      const data = randomArray(shape, "lanes");
      const y = await gpu.step(() => run(gpu.tensor(data, shape), { axes })).data();
      const expected = naive(op as Op, data, shape, axes);
      assertClose(y, expected, { rtol: 1e-6, atol: 2e-5 }, `${op} [${shape}] over ${axes}`);
    }
  }
});

Deno.test("long rows and columns are reduced to the end, however long", async () => {
  for (const length of [65536, 70001, 1000003]) {
    const data = sequence(3 * length);
    const layouts: [Shape, number][] = [[[length], 0], [[3, length], 1], [[length, 3], 0]];
    if (length < 1000003) layouts.push([[length, 4], 0]);
    for (const [shape, axis] of layouts) {
      const part = shape.includes(4) ? sequence(4 * length) : data.subarray(0, sizeOf(shape));
      for (const [op, run] of Object.entries(ops)) {
        const y = await gpu.step(() => run(gpu.tensor(part, shape), { axes: [axis] })).data();
        const expected = naive(op as Op, part, shape, [axis]);
        assertClose(y, expected, { rtol: 1e-6 }, `${op} [${shape}] over ${axis}`);
      }
    }
  }
});

Deno.test("a reduction gives the same bits every time", async () => {
  const data = randomArray([70001, 3], "bits");
  const values = () =>
    Promise.all(
      [0, 1].map(async (axis) =>
        await gpu.step(() => sum(gpu.tensor(data, [70001, 3]), { axes: [axis] })).data()
      ),
    );
  assert.deepEqual(await values(), await values());
});

Deno.test("the gradient of a long sum reaches every element", async () => {
  const shape = [70001, 3];
  const x = gpu.tensor(sequence(sizeOf(shape)), shape);
  const { gradients } = await outputAndGradients(
    (x) => sum(x, { axes: [0] }),
    [x],
    Float32Array.of(1, 2, 3),
  );
  assertClose(gradients[0]!, gradients[0]!.map((_, i) => i % 3 + 1), {}, "dx");
});

Deno.test("gradients of reductions agree with finite differences", async () => {
  const x = { shape: [3, 5, 2], data: randomArray([3, 5, 2], "fd") };
  for (const axes of [[0], [1], [0, 2], [-1]]) {
    await checkGradients((x) => sum(x, { axes }), [x]);
    await checkGradients((x) => mean(x, { axes, keepDims: true }), [x]);
    await checkGradients((x) => max(x, { axes }), [x], { epsilon: 1e-4 });
  }
});

Deno.test("max() shares the gradient among equal values", async () => {
  const x = gpu.tensor([1, 7, 7, 3, 5, 2], [2, 3]);
  const dy = Float32Array.of(4, 9);
  const { y, gradients } = await outputAndGradients((x) => max(x, { axes: [1] }), [x], dy);
  assert.deepEqual([...y], [7, 5]);
  assert.deepEqual([...gradients[0]!], [0, 2, 2, 0, 9, 0]);
});

Deno.test("sumTo() undoes broadcasting", async () => {
  const shape = [2, 3, 4];
  const x = randomArray(shape, "sumTo");
  const targets: [Shape, number[]][] = [
    [[4], [0, 1]],
    [[3, 1], [0, 2]],
    [[2, 1, 4], [1]],
    [[], [0, 1, 2]],
    [shape, []],
  ];
  for (const [target, axes] of targets) {
    const dy = randomArray(target, "dy");
    const fn = (x: Tensor) => sumTo(x, target);
    const { y, gradients } = await outputAndGradients(fn, [gpu.tensor(x, shape)], dy);
    assertClose(y, naive("sum", x, shape, axes), { rtol: 1e-6, atol: 1e-6 }, `[${target}]`);
    const total = (values: ArrayLike<number>) => Array.from(values).reduce((a, b) => a + b, 0);
    const times = sizeOf(shape) / sizeOf(target);
    assertClose([total(gradients[0]!)], [total(dy) * times], { atol: 1e-4 }, `dx of [${target}]`);
  }
  assert.throws(() => sumTo(gpu.empty([2, 3]), [2]), /sumTo: \[2,3\] to \[2\]/);
});

Deno.test("reductions refuse axes that are not there", () => {
  const x = gpu.empty([2, 3]);
  assert.throws(() => sum(x, { axes: [2] }), /sum: axis 2 of a tensor \[2,3\]/);
  assert.throws(
    () => mean(x, { axes: [1, -1] }),
    /mean: axes \[1,-1\] of a tensor \[2,3\] name one twice/,
  );
  assert.throws(() => max(gpu.empty([0, 3])), /max: x \[0,3\] is empty/);
  assert.throws(() => sum(gpu.empty([2], "u32")), /sum: x \[2\] is u32, not f32/);
});

Deno.test("reductions give back their memory", () => {
  for (const op of Object.values(ops)) {
    for (const axes of [[0], [1], [0, 2], [0, 1, 2]]) {
      assertReleases((x) => op(x, { axes }), [300, 2, 3]);
    }
  }
});
