import assert from "node:assert/strict";
import { backward } from "../src/autograd.ts";
import { Gpu } from "../src/gpu/gpu.ts";
import { ntXent } from "../src/ops/nt_xent.ts";
import type { Shape } from "../src/tensor.ts";
import * as naive from "./reference/naive.ts";
import { assertClose } from "./support/assert.ts";
import { readFixture } from "./support/fixture.ts";
import { checkGradients, gpu, randomArray } from "./support/op.ts";

/** The variants of the passes over all pairs: by subgroups where there are any, and portable. */
const variants: readonly [name: string, gpu: Gpu][] = [
  ["default", gpu],
  ["portable", await Gpu.open({ subgroups: false })],
];

/** The loss of h and its gradient. */
async function lossAndGradient(
  gpu: Gpu,
  h: { shape: Shape; data: Float32Array },
  temperature: number,
): Promise<{ loss: number; dh: Float32Array }> {
  const input = gpu.tensor(h.data, h.shape);
  input.requiresGrad = true;
  const copy = gpu.step(() => {
    const loss = ntXent(input, { temperature });
    const copy = gpu.empty([]);
    gpu.copy(loss, copy);
    backward(loss);
    return copy;
  });
  const result = { loss: await copy.item(), dh: await input.grad!.data() as Float32Array };
  copy.dispose();
  input.dispose();
  return result;
}

/** [2n, d] of normal numbers, its second half near the first. */
function pairs(n: number, d: number, name: string): { shape: Shape; data: Float32Array } {
  const data = randomArray([2 * n, d], name);
  for (let i = 0; i < n * d; i++) data[n * d + i] = data[i]! + 0.7 * data[n * d + i]!;
  return { shape: [2 * n, d], data };
}

const norm = (values: ArrayLike<number>) => Math.hypot(...Array.from(values));

/** Compares losses: similarities of up to 1/τ are rounded, whatever remains of their differences. */
function assertLoss(actual: number, expected: number, temperature: number, label: string): void {
  assertClose([actual], [expected], { rtol: 1e-5, atol: 2.5e-7 / temperature }, `loss, ${label}`);
}

/** Compares gradients by row: rounded similarities are errors of the weights, which end at 1 or 2. */
function assertGradient(
  actual: Float32Array,
  expected: ArrayLike<number>,
  h: { shape: Shape; data: Float32Array },
  temperature: number,
  label: string,
): void {
  const [rows, d] = h.shape as [number, number];
  const values = Array.from(expected);
  for (let i = 0; i < rows * d; i += d) {
    const weight = 1 / (rows * temperature * norm(h.data.subarray(i, i + d)));
    const tolerance = { rtol: 1e-4, atol: weight * (1e-6 + 5e-7 / temperature) };
    const row = values.slice(i, i + d);
    assertClose(actual.subarray(i, i + d), row, tolerance, `dh of row ${i / d}, ${label}`);
  }
}

for (const [variant, gpu] of variants) {
  Deno.test(`ntXent() agrees with three loops (${variant})`, async () => {
    for (
      const [n, d] of [[2, 1], [3, 5], [8, 4], [17, 33], [33, 64], [47, 130], [65, 128], [5, 300]]
    ) {
      for (const temperature of [0.05, 0.5]) {
        const h = pairs(n!, d!, `naive ${n} ${d}`);
        const expected = naive.ntXent(h, temperature);
        const { loss, dh } = await lossAndGradient(gpu, h, temperature);
        const label = `n ${n} d ${d} temperature ${temperature}`;
        assertLoss(loss, expected.loss, temperature, label);
        assertGradient(dh, expected.dh.data, h, temperature, label);
      }
    }
  });

  Deno.test(`ntXent() follows PyTorch (${variant})`, async () => {
    const fixture = await readFixture("nt_xent");
    for (const name of fixture.cases()) {
      const temperature = fixture.scalar(`${name}.temperature`);
      const { loss, dh } = await lossAndGradient(gpu, fixture.tensor(`${name}.h`), temperature);
      assertLoss(loss, fixture.scalar(`${name}.y`), temperature, name);
      const h = fixture.tensor(`${name}.h`);
      assertGradient(dh, fixture.tensor(`${name}.dh`).data, h, temperature, name);
    }
  });

  Deno.test(`ntXent() of more columns than a dispatch takes (${variant})`, async () => {
    // So many dimensions that a dispatch covers 64 columns: the second dispatch goes on from the first.
    const [n, d] = [34, 3990];
    const h = pairs(n, d, "long");
    const expected = naive.ntXent(h, 0.1);
    const { loss, dh } = await lossAndGradient(gpu, h, 0.1);
    assertLoss(loss, expected.loss, 0.1, "long");
    assertGradient(dh, expected.dh.data, h, 0.1, "long");
  });
}

Deno.test("ntXent() of identical embeddings is log(2n − 1), without a gradient", async () => {
  for (const [n, temperature] of [[2, 0.05], [50, 0.5], [500, 0.1]] as const) {
    const data = new Float32Array(2 * n * 6).map((_, i) => [3, -1, 4, 1, -5, 9][i % 6]!);
    const { loss, dh } = await lossAndGradient(gpu, { shape: [2 * n, 6], data }, temperature);
    assertClose([loss], [Math.log(2 * n - 1)], { rtol: 1e-6 }, `n ${n}`);
    assertClose(dh, new Float32Array(data.length), { atol: 1e-6 }, "dh");
  }
});

Deno.test("ntXent() does not depend on the lengths of embeddings; gradients scale inversely", async () => {
  const h = pairs(20, 12, "scale");
  const lengths = Array.from({ length: 40 }, (_, i) => 0.1 + i);
  const scaled = h.data.map((v, i) => v * lengths[Math.floor(i / 12)]!);
  const one = await lossAndGradient(gpu, h, 0.2);
  const other = await lossAndGradient(gpu, { ...h, data: scaled }, 0.2);
  assertLoss(other.loss, one.loss, 0.2, "scaled");
  const scaledBack = other.dh.map((v, i) => v * lengths[Math.floor(i / 12)]!);
  assertGradient(scaledBack, one.dh, h, 0.2, "scaled");
});

Deno.test("ntXent() does not depend on the order of pairs, nor on which view is first", async () => {
  const [n, d] = [45, 16];
  const h = pairs(n, d, "order");
  const { loss, dh } = await lossAndGradient(gpu, h, 0.1);
  const turned = (row: number) => (row + n) % (2 * n);
  const rotated = (row: number) => (row % n + 7) % n + (row < n ? 0 : n);
  for (const to of [turned, rotated]) {
    const moved = (values: Float32Array) => {
      const out = new Float32Array(values.length);
      for (let i = 0; i < 2 * n; i++) out.set(values.subarray(i * d, i * d + d), to(i) * d);
      return out;
    };
    const other = await lossAndGradient(gpu, { ...h, data: moved(h.data) }, 0.1);
    assertLoss(other.loss, loss, 0.1, to.name);
    assertGradient(other.dh, moved(dh), { ...h, data: moved(h.data) }, 0.1, to.name);
  }
});

Deno.test("ntXent() is finite where exponentials overflow", async () => {
  // Opposite embeddings: similarities of ±500, and of ±40, the most that are summed without a maximum.
  for (const temperature of [0.002, 0.025]) {
    const data = new Float32Array([1, 0, -1, 0, 1, 0, -1, 0]);
    const { loss, dh } = await lossAndGradient(gpu, { shape: [4, 2], data }, temperature);
    assertClose([loss], [0], { atol: 1e-4 }, "positive pairs alike");
    assert.ok(dh.every((v) => Math.abs(v) < 1e-2), `${dh}`);
    const crossed = new Float32Array([1, 0, 1, 0, -1, 0, -1, 0]);
    const worst = await lossAndGradient(gpu, { shape: [4, 2], data: crossed }, temperature);
    assertClose([worst.loss], [2 / temperature], { rtol: 1e-5 }, "positive pairs opposite");
    const alone = new Float32Array([3, 0, -3, 0]);
    const only = await lossAndGradient(gpu, { shape: [2, 2], data: alone }, temperature);
    assertClose([only.loss], [0], { atol: 1e-4 }, "nothing but an opposite pair");
    assert.ok(only.dh.every((v) => Math.abs(v) < 1e-2), `${only.dh}`);
  }
});

Deno.test("ntXent() has the gradients of finite differences", async () => {
  const inputs = [pairs(9, 7, "check")];
  await checkGradients((h) => ntXent(h!, { temperature: 0.5 }), inputs, { epsilon: 2e-2 });
});

Deno.test("ntXent() of 65 538 rows", async () => {
  // Rows are copies of a few directions, so that sums over rows are sums over directions.
  const [n, d, kinds] = [32_769, 3, 7];
  const kind = (row: number) => (row % n * 5 + Math.floor(row / n)) % kinds;
  const directions = naive.zeros([kinds, d]);
  const drawn = randomArray([kinds, d], "directions");
  for (let a = 0; a < kinds; a++) {
    const own = drawn.subarray(a * d, a * d + d);
    own.forEach((v, k) => directions.data[a * d + k] = v / norm(own));
  }
  const of = (a: number) => directions.data.subarray(a * d, a * d + d);
  const temperature = 0.5;
  const similarity = (a: number, b: number) =>
    of(a).reduce((sum, v, k) => sum + v * of(b)[k]!, 0) / temperature;
  const data = new Float32Array(2 * n * d);
  const counts = new Array<number>(kinds).fill(0);
  for (let i = 0; i < 2 * n; i++) {
    data.set(of(kind(i)), i * d);
    counts[kind(i)]!++;
  }
  const lse = counts.map((_, a) =>
    Math.log(
      counts.reduce(
        (sum, count, b) => sum + (count - Number(a === b)) * Math.exp(similarity(a, b)),
        0,
      ),
    )
  );
  const partner = (row: number) => kind((row + n) % (2 * n));
  let expected = 0;
  for (let i = 0; i < 2 * n; i++) {
    expected += (lse[kind(i)]! - similarity(kind(i), partner(i))) / (2 * n);
  }

  const { loss, dh } = await lossAndGradient(gpu, { shape: [2 * n, d], data }, temperature);
  assertClose([loss], [expected], { rtol: 1e-5 }, "loss");
  const rows = [0, 1, 2, 3, 4, 5, 6, n - 1, n, 2 * n - 2, 2 * n - 1];
  for (const i of rows) {
    const a = kind(i);
    const dz = new Float64Array(d);
    for (let b = 0; b < kinds; b++) {
      const s = similarity(a, b);
      const both = Math.exp(s - lse[a]!) + Math.exp(s - lse[b]!);
      const weight = (counts[b]! - Number(a === b)) * both - (b === partner(i) ? 2 : 0);
      dz.forEach((_, k) => dz[k]! += weight * of(b)[k]! / (2 * n * temperature));
    }
    const along = dz.reduce((sum, v, k) => sum + v * of(a)[k]!, 0);
    const gradient = dz.map((v, k) => v - along * of(a)[k]!);
    // At the scale of the sum of magnitudes, of which most cancels.
    const atol = 5e-5 / (n * temperature);
    assertClose(dh.subarray(i * d, i * d + d), gradient, { atol }, `dh of row ${i}`);
  }
});

Deno.test("ntXent() gives the same bits twice", async () => {
  const h = pairs(100, 20, "twice");
  const first = await lossAndGradient(gpu, h, 0.1);
  assert.deepEqual(await lossAndGradient(gpu, h, 0.1), first);
});

Deno.test("ntXent() holds no matrix of similarities", async () => {
  const own = await Gpu.open();
  const h = pairs(1024, 8, "memory");
  await lossAndGradient(own, h, 0.5);
  assert.ok(own.memory.peak < 20 * h.data.byteLength, `${own.memory.peak} bytes`);
  own.close();
});

Deno.test("ntXent() refuses odd rows and temperatures of zero", () => {
  assert.throws(
    () => ntXent(gpu.zeros([3, 4]), { temperature: 1 }),
    /ntXent: h \[3,4\] is not \[2n/,
  );
  assert.throws(() => ntXent(gpu.zeros([8]), { temperature: 1 }), /ntXent: h \[8\] is not/);
  assert.throws(() => ntXent(gpu.zeros([2, 4]), { temperature: 0 }), /ntXent: temperature 0/);
});
