import assert from "node:assert/strict";
import { Gpu } from "../src/gpu/gpu.ts";
import { linear, matmul } from "../src/ops/matmul.ts";
import type { Shape, Tensor } from "../src/tensor.ts";
import * as naive from "./reference/naive.ts";
import { assertClose } from "./support/assert.ts";
import { readFixture } from "./support/fixture.ts";
import { checkGradients, gpu, outputAndGradients, randomArray } from "./support/op.ts";

/** The adapter's own family of kernels, and the one for adapters without subgroups. */
const families: [name: string, gpu: Gpu][] = [
  [`subgroups of ${gpu.subgroupSize}`, gpu],
  ["tiles", await Gpu.open({ subgroups: false })],
];

const transposes = [[false, false], [false, true], [true, false], [true, true]] as const;

const sizes: [m: number, k: number, n: number, batch?: number][] = [
  [1, 1, 1],
  [1, 9, 6],
  [6, 5, 1],
  [5, 7, 3],
  [4, 4, 4],
  [8, 12, 16],
  [33, 18, 37],
  [64, 64, 64],
  [68, 20, 132],
  [70, 35, 67],
  [5, 6, 7, 3],
  [8, 4, 12, 5],
];

for (const [name, gpu] of families) {
  Deno.test(`matmul() agrees with its definition, by ${name}`, async () => {
    for (const [m, k, n, batch] of sizes) {
      for (const [transposeA, transposeB] of transposes) {
        const leading = batch === undefined ? [] : [batch];
        const a = [...leading, ...(transposeA ? [k, m] : [m, k])];
        const b = [...leading, ...(transposeB ? [n, k] : [k, n])];
        const left = { shape: a, data: randomArray(a, "a") };
        const right = { shape: b, data: randomArray(b, "b") };
        const options = { transposeA, transposeB };
        const y = naive.matmul(left, right, options);
        const dy = { shape: y.shape, data: randomArray(y.shape, "dy") };
        const da = transposeA
          ? naive.matmul(right, dy, { transposeA: transposeB, transposeB: true })
          : naive.matmul(dy, right, { transposeB: !transposeB });
        const db = transposeB
          ? naive.matmul(dy, left, { transposeA: true, transposeB: transposeA })
          : naive.matmul(left, dy, { transposeA: !transposeA });
        const actual = await outputAndGradients(
          (a, b) => matmul(a!, b!, options),
          [gpu.tensor(left.data, a), gpu.tensor(right.data, b)],
          dy.data,
        );
        const label = `[${a}] × [${b}] ${transposeA ? "T" : "N"}${transposeB ? "T" : "N"}`;
        const tolerance = { rtol: 1e-5, atol: 1e-5 };
        assertClose(actual.y, y.data, tolerance, `y of ${label}`);
        assertClose(actual.gradients[0]!, da.data, tolerance, `da of ${label}`);
        assertClose(actual.gradients[1]!, db.data, tolerance, `db of ${label}`);
      }
    }
  });

  Deno.test(`matmul() and linear() follow PyTorch, by ${name}`, async () => {
    const fixture = await readFixture("matmul");
    for (const name of fixture.cases()) {
      const isLinear = name.startsWith("linear");
      const names = (isLinear ? ["x", "w", "b"] : ["a", "b"])
        .filter((input) => fixture.has(`${name}.${input}`));
      const inputs = names.map((input) => {
        const { shape, data } = fixture.tensor(`${name}.${input}`);
        return gpu.tensor(data, shape);
      });
      const fn = isLinear
        ? (x: Tensor, w: Tensor, b?: Tensor) => linear(x, w, b)
        : (a: Tensor, b: Tensor) =>
          matmul(a, b, {
            transposeA: fixture.integer(`${name}.transpose_a`) === 1,
            transposeB: fixture.integer(`${name}.transpose_b`) === 1,
          });
      const dy = fixture.tensor(`${name}.dy`).data;
      const { y, gradients } = await outputAndGradients(
        (...tensors) => fn(tensors[0]!, tensors[1]!, tensors[2]),
        inputs,
        dy,
      );
      const tolerance = { rtol: 1e-5, atol: 1e-5 };
      assertClose(y, fixture.tensor(`${name}.y`).data, tolerance, `${name}.y`);
      names.forEach((input, i) => {
        const expected = fixture.tensor(`${name}.d${input}`).data;
        assertClose(gradients[i]!, expected, tolerance, `${name}.d${input}`);
      });
    }
  });

  Deno.test(`matmul() sums over long inner axes, by ${name}`, async () => {
    for (const k of [65_536, 4 * 65_536 + 4, 70_001, 1_000_003]) {
      const some = k > 100_000 ? transposes.slice(1, 3) : transposes;
      for (const [transposeA, transposeB] of some) {
        const a = { shape: transposeA ? [k, 2] : [2, k], data: randomArray([2 * k], "a") };
        const b = { shape: transposeB ? [1, k] : [k, 1], data: randomArray([k], "b") };
        const options = { transposeA, transposeB };
        const expected = naive.matmul(a, b, options).data;
        const y = gpu.step(() =>
          matmul(gpu.tensor(a.data, a.shape), gpu.tensor(b.data, b.shape), options)
        );
        // Sums of n random products are off by about 2⁻²⁴ · 0.4 · n, of which there are k / n with
        // n = 8192: √k · 2.3e-6 in all, allowed four times.
        const tolerance = { atol: Math.sqrt(k) * 9e-6 };
        assertClose(await y.data() as Float32Array, expected, tolerance, `k ${k}`);
        y.dispose();
      }
    }
  });

  Deno.test(`matmul() agrees with its definition where b is megabytes, by ${name}`, async () => {
    const [m, k, n] = [36, 15_424, 68];
    const a = { shape: [k, m], data: randomArray([k, m], "a") };
    const b = { shape: [k, n], data: randomArray([k, n], "b") };
    const options = { transposeA: true };
    const y = gpu.step(() =>
      matmul(gpu.tensor(a.data, a.shape), gpu.tensor(b.data, b.shape), options)
    );
    const tolerance = { atol: Math.sqrt(k) * 9e-6 };
    const expected = naive.matmul(a, b, options).data;
    assertClose(await y.data() as Float32Array, expected, tolerance, "y");
    y.dispose();
  });

  Deno.test(`matmul() agrees with its definition where rows are many, by ${name}`, async () => {
    for (const [m, k, n, batch] of [[16_411, 64, 70, 1], [4_103, 128, 68, 2]] as const) {
      for (const transposeB of [false, true]) {
        const a = { shape: [batch, m, k], data: randomArray([batch, m, k], "a") };
        const shape = transposeB ? [batch, n, k] : [batch, k, n];
        const b = { shape, data: randomArray(shape, "b") };
        const y = gpu.step(() =>
          matmul(gpu.tensor(a.data, a.shape), gpu.tensor(b.data, b.shape), { transposeB })
        );
        const expected = naive.matmul(a, b, { transposeB }).data;
        const label = `[${a.shape}] × [${shape}]`;
        assertClose(await y.data() as Float32Array, expected, { rtol: 1e-5, atol: 1e-5 }, label);
        y.dispose();
      }
    }
  });

  Deno.test(`matmul() gives the same bits twice, by ${name}`, async () => {
    const a = gpu.tensor(randomArray([40, 4096], "a"), [40, 4096]);
    const b = gpu.tensor(randomArray([4096, 24], "b"), [4096, 24]);
    const dy = randomArray([40, 24], "dy");
    const run = () => outputAndGradients((a, b) => matmul(a!, b!), [a, b], dy);
    assert.deepEqual(await run(), await run());
  });
}

Deno.test("matmul() of a batch by one matrix is matmul() by copies of it", async () => {
  const count = 3;
  for (const [transposeA, transposeB] of transposes) {
    const options = { transposeA, transposeB };
    const a = gpu.tensor(randomArray([count, 6, 6], "a"), [count, 6, 6]);
    const b = randomArray([6, 6], "b");
    const copies = new Float32Array(count * b.length).map((_, i) => b[i % b.length]!);
    const dy = randomArray([count, 6, 6], "dy");
    const fn = (a: Tensor, b: Tensor) => matmul(a, b, options);
    const run = (b: Tensor) => outputAndGradients((a, b) => fn(a!, b!), [a, b], dy);
    const shared = await run(gpu.tensor(b, [6, 6]));
    const copied = await run(gpu.tensor(copies, [count, 6, 6]));
    const tolerance = { rtol: 1e-5, atol: 1e-5 };
    assertClose(shared.y, copied.y, tolerance, "y");
    assertClose(shared.gradients[0]!, copied.gradients[0]!, tolerance, "da");
    const db = naive.sumRows({
      shape: [count, 36],
      data: copied.gradients[1]!,
    }).data;
    assertClose(shared.gradients[1]!, db, tolerance, "db");
  }
});

Deno.test("matmul() and linear() have the gradients of finite differences", async () => {
  const input = (shape: Shape, name: string) => ({ shape, data: randomArray(shape, name, 0.5) });
  await checkGradients(
    (a, b) => matmul(a!, b!, { transposeB: true }),
    [input([2, 5, 7], "a"), input([2, 3, 7], "b")],
  );
  await checkGradients(
    (x, w, b) => linear(x!, w!, b!),
    [input([5, 7], "x"), input([7, 6], "w"), input([6], "b")],
  );
});

Deno.test("matmul() computes only the gradients that are needed", async () => {
  const a = gpu.tensor(randomArray([5, 7], "a"), [5, 7]);
  const b = gpu.tensor(randomArray([7, 3], "b"), [7, 3]);
  a.requiresGrad = true;
  const y = matmul(a, b);
  const dy = gpu.tensor(randomArray(y.shape, "dy"), y.shape);
  const [da, db] = y.node!.backward(dy, [true, false]);
  assert.equal(db, null);
  const expected = naive.matmul(
    { shape: y.shape, data: randomArray(y.shape, "dy") },
    { shape: b.shape, data: randomArray(b.shape, "b") },
    { transposeB: true },
  );
  assertClose(await da!.data() as Float32Array, expected.data, { rtol: 1e-5, atol: 1e-5 }, "da");
});

Deno.test("matmul() and linear() name the shapes that do not fit", () => {
  const zeros = (...shape: number[]): Tensor => gpu.zeros(shape);
  assert.throws(() => matmul(zeros(2, 3), zeros(4, 5)), {
    name: "RangeError",
    message: "matmul: inner lengths 3 and 4 differ (a [2,3], b [4,5])",
  });
  assert.throws(
    () => matmul(zeros(2, 3), zeros(3, 5), { transposeB: true }),
    /inner lengths 3 and 5 differ \(a \[2,3\], b \[3,5\] transposed\)/,
  );
  assert.throws(() => matmul(zeros(2, 3, 4), zeros(3, 4, 5)), /batches differ \(a \[2,3,4\]/);
  assert.throws(() => matmul(zeros(3), zeros(3, 4)), /two axes \(a \[3\]/);
  assert.throws(() => matmul(zeros(70_000, 1, 1), zeros(70_000, 1, 1)), /70000 parts, over 65535/);
  assert.throws(() => linear(zeros(2, 3), zeros(4, 5)), /linear: .*x \[2,3\], weight \[4,5\]/);
  assert.throws(() => linear(zeros(2, 3), zeros(3, 5), zeros(3)), /bias is \[3\], not \[5\]/);
});
