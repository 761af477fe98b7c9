import assert from "node:assert/strict";
import { concat, pad, reshape, slice, transpose } from "../src/ops/shape.ts";
import { type Shape, sizeOf, type Tensor } from "../src/tensor.ts";
import { type Fixture, readFixture } from "./support/fixture.ts";
import {
  assertFollows,
  assertReleases,
  checkGradients,
  gpu,
  outputAndGradients,
  randomArray,
} from "./support/op.ts";

/** 0, 1, 2, …: every element tells where it came from. */
function numbered(shape: Shape): Float32Array {
  return Float32Array.from({ length: sizeOf(shape) }, (_, i) => i);
}

/** The position of index (i₀, i₁, …) in a tensor of `shape`. */
function position(index: readonly number[], shape: Shape): number {
  return index.reduce((at, i, axis) => at * shape[axis]! + i, 0);
}

/** The index of element `i` of a tensor of `shape`. */
function indexOf(i: number, shape: Shape): number[] {
  return shape.map((size, axis) => Math.floor(i / sizeOf(shape.slice(axis + 1))) % size);
}

async function values(fn: () => Tensor): Promise<number[]> {
  return [...await gpu.step(fn).data() as Float32Array];
}

Deno.test("transpose(), slice(), concat() and pad() follow PyTorch", async () => {
  const fixture: Fixture = await readFixture("shape");
  for (const name of fixture.cases()) {
    const list = (key: string) => fixture.integers(`${name}.${key}`);
    const parts = ["a", "b", "c"].filter((part) => fixture.has(`${name}.${part}`));
    const follows = (inputs: string[], fn: (...inputs: Tensor[]) => Tensor) =>
      assertFollows(fixture, name, inputs, fn, {});
    switch (name.split("_")[0]) {
      case "transpose":
        await follows(["x"], (x) => transpose(x, list("permutation")));
        break;
      case "slice":
        await follows(["x"], (x) => slice(x, list("begin"), list("end")));
        break;
      case "concat":
        await follows(parts, (...parts) => concat(parts, fixture.integer(`${name}.axis`)));
        break;
      case "pad":
        await follows(["x"], (x) => pad(x, list("before"), list("after")));
    }
  }
});

Deno.test("transpose() moves every element where its index says, vectors or not", async () => {
  const cases: [Shape, number[]][] = [
    [[33, 17], [1, 0]],
    [[3, 5, 8], [1, 0, 2]],
    [[3, 5, 7], [1, 0, 2]],
    [[2, 3, 4, 5], [3, 1, 0, 2]],
    [[2, 2, 3, 2, 3, 4], [0, 1, 3, 2, 4, 5]],
    [[2, 4, 3, 4, 3, 4], [0, 1, 3, 2, 4, 5]],
    [[4, 1, 3], [-1, 1, 0]],
    [[20, 8], [1, 0]],
    [[3, 2, 4, 12], [0, 1, 3, 2]],
  ];
  for (const [shape, axes] of cases) {
    const data = numbered(shape);
    const order = axes.map((axis) => (axis + shape.length) % shape.length);
    const moved = order.map((axis) => shape[axis]!);
    const y = await values(() => transpose(gpu.tensor(data, shape), axes));
    for (let i = 0; i < y.length; i++) {
      const index = indexOf(i, moved);
      const from = shape.map((_, axis) => index[order.indexOf(axis)]!);
      assert.equal(y[i], position(from, shape), `[${shape}] by ${axes} at ${index}`);
    }
  }
});

Deno.test("slice() and pad() move every element where its index says, vectors or not", async () => {
  for (const shape of [[5, 6, 8], [5, 6, 7]]) {
    for (const begin of [[1, 2, 0], [2, 0, 3], [0, 1, 4]]) {
      const end = shape.map((size, axis) => size - (axis === 2 ? 0 : 1));
      const small = begin.map((b, axis) => end[axis]! - b);
      const y = await values(() => slice(gpu.tensor(numbered(shape), shape), begin, end));
      for (let i = 0; i < y.length; i++) {
        const index = indexOf(i, small).map((at, axis) => at + begin[axis]!);
        assert.equal(y[i], position(index, shape), `slice [${shape}] from ${begin} at ${index}`);
      }
      const after = end.map((e, axis) => shape[axis]! - e);
      const padded = await values(() => pad(gpu.tensor(numbered(small), small), begin, after, -5));
      for (let i = 0; i < padded.length; i++) {
        const index = indexOf(i, shape).map((at, axis) => at - begin[axis]!);
        const isInside = index.every((at, axis) => at >= 0 && at < small[axis]!);
        assert.equal(padded[i], isInside ? position(index, small) : -5, `pad at ${index}`);
      }
    }
  }
});

Deno.test("concat() joins what slice() cut", async () => {
  const shape = [4, 6, 8];
  const cut = (axis: number, at: number) => (x: Tensor) => {
    const middle = shape.map((size, a) => a === axis ? at : size);
    const begin = shape.map((_, a) => a === axis ? at : 0);
    return concat([slice(x, [0, 0, 0], middle), slice(x, begin, shape)], axis);
  };
  const dy = randomArray(shape, "dy");
  for (const [axis, at] of [[0, 1], [1, 2], [2, 4], [2, 3], [-1, 5]] as const) {
    const x = gpu.tensor(numbered(shape), shape);
    const fn = axis === -1 ? (x: Tensor) => concat([cut(2, at)(x)], axis) : cut(axis, at);
    const { y, gradients } = await outputAndGradients(fn, [x], dy);
    assert.deepEqual(y, numbered(shape));
    assert.deepEqual(gradients[0], dy);
  }
});

Deno.test("reshape() is a view, and −1 stands for what is left", async () => {
  const x = gpu.tensor(numbered([2, 3, 4]), [2, 3, 4]);
  const y = reshape(x, [4, -1]);
  assert.deepEqual(y.shape, [4, 6]);
  assert.equal(y.storage, x.storage);
  const dy = randomArray([24], "dy");
  const { gradients } = await outputAndGradients((x) => reshape(x, [24]), [x], dy);
  assert.deepEqual(gradients[0], dy);
});

Deno.test("labels in u32 can be cut and joined, without a gradient", async () => {
  const labels = gpu.tensor(Uint32Array.of(7, 8, 9, 10));
  const parts = gpu.step(() => concat([slice(labels, [2], [4]), slice(labels, [0], [1])], 0));
  assert.deepEqual(await parts.data(), Uint32Array.of(9, 10, 7));
});

Deno.test("gradients of the moving ops agree with finite differences", async () => {
  const x = { shape: [3, 2, 4], data: randomArray([3, 2, 4], "fd") };
  await checkGradients((x) => transpose(x), [x]);
  await checkGradients((x) => slice(x, [1, 0, 1], [3, 2, 3]), [x]);
  await checkGradients((x) => pad(x, [1, 0, 2], [0, 1, 0]), [x]);
  await checkGradients((a, b) => concat([a!, b!, a!], 1), [x, x]);
});

Deno.test("the moving ops refuse what does not fit, with the shapes", () => {
  const x = gpu.empty([2, 3]);
  assert.throws(() => reshape(x, [4]), /reshape: \[2,3\] to \[4\]/);
  assert.throws(() => reshape(x, [4, -1]), /reshape: \[2,3\] to \[4,-1\]/);
  assert.throws(() => transpose(x, [0]), /transpose: axes \[0\] of a tensor \[2,3\]/);
  assert.throws(() => transpose(x, [0, 0]), /transpose: axes \[0,0\] .* name one twice/);
  assert.throws(() => slice(x, [0, 2], [2, 4]), /slice: \[0,2\] to \[2,4\] of a tensor \[2,3\]/);
  assert.throws(() => slice(x, [1], [2]), /slice: \[1\] to \[2\] of a tensor \[2,3\]/);
  assert.throws(() => pad(x, [0, -1], [0, 0]), /pad: \[0,-1\] before and \[0,0\] after/);
  assert.throws(() => concat([], 0), /concat: no tensors/);
  assert.throws(
    () => concat([x, gpu.empty([3, 2])], 0),
    /concat: f32 \[2,3\], f32 \[3,2\] along axis 0/,
  );
  assert.throws(() => slice(gpu.empty([4], "u8"), [0], [2]), /slice: a tensor \[4\] of u8/);
  const six = gpu.empty([2, 2, 2, 2, 2, 2]);
  assert.throws(() => transpose(six), /transpose: .* has 6 separate axes, more than 4/);
});

Deno.test("the moving ops give back their memory", () => {
  assertReleases((x) => transpose(x), [3, 5]);
  assertReleases((x) => reshape(slice(x, [1, 0], [3, 4]), [-1]), [3, 5]);
  assertReleases((x) => pad(x, [1, 0], [3, 4]), [3, 5]);
  assertReleases((a, b) => concat([a!, b!], 0), [3, 5], [2, 5]);
});
