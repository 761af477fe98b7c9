import assert from "node:assert/strict";
import {
  add,
  broadcastTo,
  div,
  equal,
  maximum,
  minimum,
  mul,
  type Operand,
  pow,
  sub,
} from "../src/ops/binary.ts";
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
  randomTensor,
} from "./support/op.ts";

type Binary = (a: Operand, b: Operand) => Tensor;

/** Each op with its definition and its derivatives by u and by v. */
const ops: [Binary, ...((u: number, v: number) => number)[]][] = [
  [add, (u, v) => u + v, () => 1, () => 1],
  [sub, (u, v) => u - v, () => 1, () => -1],
  [mul, (u, v) => u * v, (_, v) => v, (u) => u],
  [div, (u, v) => u / v, (_, v) => 1 / v, (u, v) => -u / v ** 2],
  [pow, (u, v) => u ** v, (u, v) => v * u ** (v - 1), (u, v) => u ** v * Math.log(u)],
  [maximum, Math.max, (u, v) => +(u > v), (u, v) => +(v > u)],
  [minimum, Math.min, (u, v) => +(u < v), (u, v) => +(v < u)],
];

/** Values away from 0 and above it: fit for every op. */
function positive(shape: Shape, name: string): Float32Array {
  return randomArray(shape, name).map((v) => 0.3 + Math.abs(v));
}

/** For every element of `shape` the position of the element of `of` that is repeated there. */
function repeated(of: Shape, shape: Shape): number[] {
  const padded = [...new Array<number>(shape.length - of.length).fill(1), ...of];
  return Array.from({ length: sizeOf(shape) }, (_, i) => {
    let at = 0;
    let stride = 1;
    for (let axis = shape.length - 1; axis >= 0; axis--) {
      if (padded[axis] !== 1) at += (i % shape[axis]!) * stride;
      i = Math.floor(i / shape[axis]!);
      stride *= padded[axis]!;
    }
    return at;
  });
}

Deno.test("binary ops follow PyTorch with every kind of broadcasting", async () => {
  const fixture = await readFixture("binary");
  const byName: Record<string, Binary> = { add, sub, mul, div, pow, max: maximum };
  for (const name of fixture.cases()) {
    const op = byName[name.split("_")[0]!]!;
    await assertFollows(fixture, name, ["a", "b"], op, { rtol: 1e-5, atol: 1e-6 });
  }
});

Deno.test("binary ops agree with the CPU where vectors, rows and splats meet", async () => {
  const shapes: [Shape, Shape][] = [
    [[4101], [4101]],
    [[3, 5, 8], [8]],
    [[3, 1, 8], [1, 5, 1]],
    [[2, 3, 4, 5], [2, 1, 4, 1]],
    [[1, 3, 1, 5], [2, 1, 4, 1]],
    [[2, 1, 4], [1, 3, 4]],
    [[1], [7, 3]],
  ];
  for (const [aShape, bShape] of shapes) {
    const shape = gpu.step(() => add(gpu.empty(aShape), gpu.empty(bShape)).shape);
    const [a, b] = [positive(aShape, "a"), positive(bShape, "b")];
    const [ai, bi] = [repeated(aShape, shape), repeated(bShape, shape)];
    const dy = randomArray(shape, "dy");
    for (const [op, value, byA, byB] of ops) {
      const inputs = [gpu.tensor(a, aShape), gpu.tensor(b, bShape)];
      const actual = await outputAndGradients(op as never, inputs, dy);
      const y = ai.map((at, i) => value!(a[at]!, b[bi[i]!]!));
      const da = new Float64Array(a.length);
      const db = new Float64Array(b.length);
      y.forEach((_, i) => {
        const [u, v] = [a[ai[i]!]!, b[bi[i]!]!];
        da[ai[i]!]! += dy[i]! * byA!(u, v);
        db[bi[i]!]! += dy[i]! * byB!(u, v);
      });
      const tolerance = { rtol: 1e-5, atol: 1e-5 };
      const label = `${op.name} [${aShape}] [${bShape}]`;
      assertClose(actual.y, y, tolerance, label);
      assertClose(actual.gradients[0]!, da, tolerance, `${label} da`);
      assertClose(actual.gradients[1]!, db, tolerance, `${label} db`);
    }
  }
});

Deno.test("a number does what a tensor full of it does, on either side", async () => {
  const shape = [3, 5, 3];
  const x = positive(shape, "x");
  const dy = randomArray(shape, "dy");
  const full = gpu.tensor(new Float32Array(x.length).fill(1.75), shape);
  for (const [op] of ops) {
    const pairs: [(x: Tensor) => Tensor, (x: Tensor) => Tensor][] = [
      [(x) => op(x, 1.75), (x) => op(x, full)],
      [(x) => op(1.75, x), (x) => op(full, x)],
    ];
    for (const [withNumber, withTensor] of pairs) {
      const actual = await outputAndGradients(withNumber, [gpu.tensor(x, shape)], dy);
      const expected = await outputAndGradients(withTensor, [gpu.tensor(x, shape)], dy);
      assert.deepEqual(actual, expected, op.name);
    }
  }
});

Deno.test("gradients of binary ops agree with finite differences", async () => {
  for (const [op] of ops) {
    await checkGradients(op as never, [
      { shape: [3, 1, 5], data: positive([3, 1, 5], "fd a") },
      { shape: [2, 5], data: positive([2, 5], "fd b").map((v) => v + 0.01) },
    ], { epsilon: 1e-3 });
  }
});

Deno.test("pow() takes negative bases to whole powers and 0 to any", async () => {
  const base = gpu.tensor([-2, -2, -2, -2, 0, 0, 0, 3]);
  const exponent = gpu.tensor([2, 3, -1, 0.5, 0, 2, -1, 0]);
  const y = await gpu.step(() => pow(base, exponent)).data();
  assertClose(y, [4, -8, -0.5, NaN, 1, 0, Infinity, 1], { rtol: 1e-6 }, "pow");
  const square = await outputAndGradients(
    (x) => pow(x, 2),
    [gpu.tensor([-3, 0, 2])],
    Float32Array.of(1, 1, 1),
  );
  assertClose(square.y, [9, 0, 4], { rtol: 1e-6 }, "x²");
  assertClose(square.gradients[0]!, [-6, 0, 4], { rtol: 1e-6 }, "2x");
});

Deno.test("equal() marks equal elements; maximum() and minimum() share the gradient among them", async () => {
  const a = () => gpu.tensor([1, 2, 3]);
  const b = () => gpu.tensor([1, 5, 0]);
  assert.deepEqual([...await gpu.step(() => equal(a(), b())).data() as Float32Array], [1, 0, 0]);
  const dy = Float32Array.of(2, 2, 2);
  const largest = await outputAndGradients(maximum as never, [a(), b()], dy);
  assert.deepEqual(largest.gradients.map((g) => [...g]), [[1, 0, 2], [1, 2, 0]]);
  const smallest = await outputAndGradients(minimum as never, [a(), b()], dy);
  assert.deepEqual(smallest.gradients.map((g) => [...g]), [[1, 2, 0], [1, 0, 2]]);
});

Deno.test("broadcastTo() repeats and its gradient sums", async () => {
  const x = gpu.tensor([1, 2], [2, 1]);
  const dy = Float32Array.of(1, 2, 3, 4, 5, 6);
  const { y, gradients } = await outputAndGradients((x) => broadcastTo(x, [2, 3]), [x], dy);
  assert.deepEqual([...y], [1, 1, 1, 2, 2, 2]);
  assert.deepEqual([...gradients[0]!], [6, 15]);
});

Deno.test("binary ops refuse what does not fit, with the shapes", () => {
  const x = randomTensor([2, 3], "x");
  assert.throws(() => add(x, gpu.empty([2])), /add: \[2,3\] and \[2\] do not broadcast/);
  assert.throws(() => add(1, 2), /add: 1 and 2 are both numbers/);
  assert.throws(() => mul(x, gpu.empty([2, 3], "u32")), /mul: .*\[2,3\] is u32, not f32/);
  assert.throws(() => broadcastTo(x, [3]), /broadcastTo: \[2,3\] does not fit into \[3\]/);
  assert.throws(
    () => sub(gpu.empty([2, 1, 2, 1, 2]), gpu.empty([1, 2, 1, 2, 1])),
    /sub: \[2,1,2,1,2\] and \[1,2,1,2,1\] broadcast along 5 separate axes, more than 4/,
  );
});

Deno.test("binary ops give back their memory", () => {
  for (const [op] of ops) assertReleases(op as never, [3, 1, 5], [2, 5]);
  assertReleases((x) => div(2, mul(x, 3)), [7]);
});
