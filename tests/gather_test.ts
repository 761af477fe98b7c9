import assert from "node:assert/strict";
import { gatherRows } from "../src/ops/gather.ts";
import { Random } from "../src/random.ts";
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

function randomIndices(count: number, n: number): Uint32Array {
  const random = new Random(2, "indices");
  return Uint32Array.from({ length: count }, () => random.integer(n));
}

Deno.test("gatherRows() follows PyTorch", async () => {
  const fixture = await readFixture("shape");
  for (const name of fixture.cases().filter((name) => name.startsWith("gather"))) {
    const indices = gpu.tensor(Uint32Array.from(fixture.integers(`${name}.indices`)));
    await assertFollows(fixture, name, ["x"], (x) => gatherRows(x, indices), { atol: 1e-6 });
  }
});

Deno.test("gatherRows() agrees with the CPU, however many indices", async () => {
  for (
    const [n, width, m] of [[5, 3, 1000], [9, 8, 300], [100, 1, 70001], [40000, 1, 5]] as const
  ) {
    const x = randomArray([n, width], "x");
    const rows = randomIndices(m, n);
    const dy = randomArray([m, width], "dy");
    const indices = gpu.tensor(rows);
    const actual = await outputAndGradients((x) => gatherRows(x, indices), [
      gpu.tensor(x, [n, width]),
    ], dy);
    assert.deepEqual(
      actual.y,
      Float32Array.from(dy, (_, i) => x[rows[Math.floor(i / width)]! * width + i % width]!),
    );
    const dx = new Float64Array(x.length);
    dy.forEach((g, i) => dx[rows[Math.floor(i / width)]! * width + i % width]! += g);
    assertClose(actual.gradients[0]!, dx, { rtol: 1e-5, atol: 1e-4 }, `dx of ${m} rows`);
  }
});

Deno.test("the gradient of gatherRows() has the same bits every time", async () => {
  const indices = gpu.tensor(randomIndices(5000, 7));
  const dy = randomArray([5000, 3], "dy");
  const gradient = async () =>
    (await outputAndGradients((x) => gatherRows(x, indices), [gpu.zeros([7, 3])], dy)).gradients;
  assert.deepEqual(await gradient(), await gradient());
});

Deno.test("the gradient of gatherRows() agrees with finite differences", async () => {
  const indices = gpu.tensor(Uint32Array.of(3, 0, 3, 1));
  await checkGradients((x) => gatherRows(x, indices), [{
    shape: [4, 5],
    data: randomArray([4, 5], "fd"),
  }]);
});

Deno.test("gatherRows() of u32 rows, and NaN for a row that is not there", async () => {
  const labels = gpu.tensor(Uint32Array.of(10, 11, 12));
  const indices = gpu.tensor(Uint32Array.of(2, 0, 2));
  const chosen = gpu.step(() => gatherRows(labels, indices));
  assert.deepEqual(await chosen.data(), Uint32Array.of(12, 10, 12));
  const x = gpu.tensor([1, 2, 3, 4], [2, 2]);
  const beyond = gpu.tensor(Uint32Array.of(1, 2));
  const { y, gradients } = await outputAndGradients(
    (x) => gatherRows(x, beyond),
    [x],
    Float32Array.of(1, 2, 3, 4),
  );
  assert.deepEqual([...y], [3, 4, NaN, NaN]);
  assert.deepEqual([...gradients[0]!], [0, 0, 1, 2]);
});

Deno.test("gatherRows() refuses other indices and gives back its memory", () => {
  const x = gpu.empty([2, 3]);
  assert.throws(() => gatherRows(x, gpu.tensor([1])), /gatherRows: indices \[1\] is f32, not u32/);
  assert.throws(
    () => gatherRows(x, gpu.tensor(Uint32Array.of(0, 1), [1, 2])),
    /gatherRows: indices \[1,2\] of f32 \[2,3\]/,
  );
  const indices = gpu.tensor(Uint32Array.of(1, 1, 0));
  assertReleases((x) => gatherRows(x, indices), [2, 3]);
});
