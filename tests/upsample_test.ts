import assert from "node:assert/strict";
import { upsample } from "../src/ops/upsample.ts";
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

Deno.test("upsample() follows PyTorch", async () => {
  const fixture = await readFixture("shape");
  for (const name of fixture.cases().filter((name) => name.startsWith("upsample"))) {
    await assertFollows(fixture, name, ["x"], (x) => upsample(x), { rtol: 1e-6, atol: 1e-6 });
  }
});

Deno.test("upsample() by any factor agrees with the CPU", async () => {
  for (const [n, h, w, c] of [[1, 5, 3, 3], [2, 3, 4, 8], [3, 7, 5, 1]] as const) {
    for (const factor of [1, 2, 3]) {
      const x = randomArray([n, h, w, c], "x");
      const shape = [n, h * factor, w * factor, c];
      const dy = randomArray(shape, "dy");
      const from = Array.from(dy, (_, i) => {
        const row = Math.floor(i / (w * factor * c));
        const column = Math.floor(i / c) % (w * factor);
        return (Math.floor(row / factor) * w + Math.floor(column / factor)) * c + i % c;
      });
      const actual = await outputAndGradients((x) => upsample(x, factor), [
        gpu.tensor(x, [n, h, w, c]),
      ], dy);
      assert.deepEqual(actual.y, Float32Array.from(from, (at) => x[at]!));
      const dx = new Float64Array(x.length);
      from.forEach((at, i) => dx[at]! += dy[i]!);
      assertClose(actual.gradients[0]!, dx, { rtol: 1e-6, atol: 1e-6 }, `dx of [${shape}]`);
    }
  }
});

Deno.test("the gradient of upsample() agrees with finite differences", async () => {
  await checkGradients((x) => upsample(x), [{
    shape: [2, 3, 1, 5],
    data: randomArray([2, 3, 1, 5], "fd"),
  }]);
});

Deno.test("upsample() refuses other ranks and factors, and gives back its memory", () => {
  assert.throws(() => upsample(gpu.empty([3, 4])), /upsample: x \[3,4\] is not \[n,h,w,c\]/);
  assert.throws(() => upsample(gpu.empty([1, 2, 2, 3]), 1.5), /upsample: factor 1.5/);
  assertReleases((x) => upsample(x), [1, 3, 2, 5]);
});
