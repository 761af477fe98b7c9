import assert from "node:assert/strict";
import { dropout } from "../src/ops/dropout.ts";
import { Random } from "../src/random.ts";
import { assertReleases, gpu, outputAndGradients, randomArray } from "./support/op.ts";

const options = { rate: 0.25, seed: 3, stream: "head", index: 17 };

Deno.test("dropout() keeps what Random says, and divides it by 1 − rate", async () => {
  const x = randomArray([7, 149], "x");
  const dy = randomArray([7, 149], "dy");
  const { y, gradients } = await outputAndGradients((x) => dropout(x, options), [
    gpu.tensor(x, [7, 149]),
  ], dy);
  const random = new Random(options.seed, options.stream, options.index);
  const isKept = Array.from(x, () => random.uniform() >= options.rate);
  assert.deepEqual(y, x.map((v, i) => isKept[i] ? v / 0.75 : 0));
  assert.deepEqual(gradients[0], dy.map((g, i) => isKept[i] ? g / 0.75 : 0));
});

Deno.test("dropout() drops the part it was told to, another one in every step and stream", async () => {
  const n = 40000;
  const x = gpu.tensor(new Float32Array(n).fill(1));
  const kept = async (changes: Partial<typeof options>) =>
    [...await gpu.step(() => dropout(x, { ...options, ...changes })).data() as Float32Array].map((
      v,
    ) => v > 0);
  for (const rate of [0, 0.1, 0.5, 0.9]) {
    const part = (await kept({ rate })).filter((k) => k).length / n;
    // Five standard deviations.
    assert.ok(
      Math.abs(part - (1 - rate)) <= 5 * Math.sqrt(rate * (1 - rate) / n),
      `${rate}: ${part}`,
    );
  }
  const first = await kept({ rate: 0.5 });
  assert.deepEqual(await kept({ rate: 0.5 }), first);
  for (const other of [{ index: 18 }, { seed: 4 }, { stream: "tail" }]) {
    const second = await kept({ rate: 0.5, ...other });
    const agreement = second.filter((k, i) => k === first[i]).length / n;
    assert.ok(
      Math.abs(agreement - 0.5) <= 5 * Math.sqrt(0.25 / n),
      `${JSON.stringify(other)}: ${agreement}`,
    );
  }
});

Deno.test("dropout() refuses rates that leave nothing, and gives back its memory", () => {
  assert.throws(
    () => dropout(gpu.empty([3]), { ...options, rate: 1 }),
    /dropout: rate 1 is not in/,
  );
  assertReleases((x) => dropout(x, options), [3, 5]);
});
