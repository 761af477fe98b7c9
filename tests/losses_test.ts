import assert from "node:assert/strict";
import { asymmetricLoss, bceWithLogits, crossEntropy, focalLoss, mse } from "../src/ops/losses.ts";
import { Random } from "../src/random.ts";
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

const one = Float32Array.of(1);

/** Cross-entropy and its gradient by definition; `target(row, c)` before smoothing. */
function naiveCrossEntropy(
  x: Float32Array,
  [n, k]: readonly [number, number],
  target: (row: number, c: number) => number,
  smoothing: number,
): { loss: number; dx: Float64Array } {
  const dx = new Float64Array(n * k);
  let loss = 0;
  for (let row = 0; row < n; row++) {
    let m = -Infinity;
    for (let c = 0; c < k; c++) m = Math.max(m, x[row * k + c]!);
    let sum = 0;
    for (let c = 0; c < k; c++) sum += Math.exp(x[row * k + c]! - m);
    let mass = 0;
    for (let c = 0; c < k; c++) {
      const q = (1 - smoothing) * target(row, c) + smoothing / k;
      loss -= q * (x[row * k + c]! - m - Math.log(sum)) / n;
      mass += q;
      dx[row * k + c] = -q / n;
    }
    for (let c = 0; c < k; c++) dx[row * k + c]! += mass * Math.exp(x[row * k + c]! - m) / sum / n;
  }
  return { loss, dx };
}

/** Binary cross-entropy over present labels and its gradient, by definition. */
function naiveBce(
  x: Float32Array,
  targets: Float32Array,
  weight: readonly number[],
): { loss: number; dx: Float64Array } {
  const present = targets.filter((t) => !Number.isNaN(t)).length;
  const dx = new Float64Array(x.length);
  let loss = 0;
  x.forEach((logit, i) => {
    const t = targets[i]!;
    if (Number.isNaN(t)) return;
    const p = 1 / (1 + Math.exp(-logit));
    const w = weight[i % weight.length]!;
    loss -= (w * t * Math.log(p) + (1 - t) * Math.log(1 - p)) / present;
    dx[i] = ((1 - t) * p - w * t * (1 - p)) / present;
  });
  return { loss, dx };
}

/** Asymmetric loss over present labels with weights for the two terms, and its gradient, by definition. */
function naiveFocused(
  x: Float32Array,
  targets: Float32Array,
  { gammaPositive = 0, gammaNegative = 0, positive = 1, negative = 1, shift = 0 },
): { loss: number; dx: Float64Array } {
  const present = targets.filter((t) => !Number.isNaN(t)).length;
  const dx = new Float64Array(x.length);
  let loss = 0;
  x.forEach((logit, i) => {
    const t = targets[i]!;
    if (Number.isNaN(t)) return;
    const p = 1 / (1 + Math.exp(-logit));
    const s = Math.max(p - shift, 0);
    const weight = t * positive / present;
    loss -= weight * (1 - p) ** gammaPositive * Math.log(p);
    dx[i] = weight * (1 - p) ** gammaPositive * (gammaPositive * p * Math.log(p) - (1 - p));
    if (s === 0) return;
    const other = (1 - t) * negative / present * s ** gammaNegative;
    loss -= other * Math.log(1 - s);
    dx[i]! += other * p * (1 - p) * (1 / (1 - s) - gammaNegative * Math.log(1 - s) / s);
  });
  return { loss, dx };
}

/** 0, 1 or, in three of ten cases, NaN. */
function someLabels(count: number): Float32Array {
  const random = new Random(4, "targets");
  const targets = Float32Array.from(
    { length: count },
    () => random.uniform() < 0.3 ? NaN : random.integer(2),
  );
  targets[0] = 1;
  return targets;
}

function integers(count: number, n: number): Uint32Array {
  const random = new Random(3, "labels");
  return Uint32Array.from({ length: count }, () => random.integer(n));
}

Deno.test("losses follow PyTorch", async () => {
  const fixture = await readFixture("losses");
  const tolerance = { rtol: 1e-5, atol: 1e-6 };
  for (const name of fixture.cases()) {
    if (name.startsWith("mse")) {
      await assertFollows(fixture, name, ["x", "target"], mse as never, tolerance);
    } else if (name.startsWith("cross_entropy")) {
      const labels = gpu.tensor(Uint32Array.from(fixture.integers(`${name}.labels`)));
      const labelSmoothing = fixture.scalar(`${name}.smoothing`);
      const loss = (x: Tensor) => crossEntropy(x, labels, { labelSmoothing });
      await assertFollows(fixture, name, ["x"], loss, tolerance);
    } else {
      const put = (key: string) => {
        const { data, shape } = fixture.tensor(`${name}.${key}`);
        return gpu.tensor(data, shape);
      };
      const labels = put("labels");
      const options = fixture.has(`${name}.pos_weight`) ? { posWeight: put("pos_weight") } : {};
      const option = (key: string) => fixture.scalar(`${name}.${key}`);
      const loss = (x: Tensor) => {
        if (name.startsWith("focal")) {
          const alpha = option("alpha");
          return focalLoss(x, labels, {
            gamma: option("gamma"),
            alpha: Number.isNaN(alpha) ? null : alpha,
          });
        }
        if (name.startsWith("asymmetric")) {
          return asymmetricLoss(x, labels, {
            gammaNegative: option("gamma_negative"),
            gammaPositive: option("gamma_positive"),
            shift: option("shift"),
          });
        }
        return bceWithLogits(x, labels, options);
      };
      await assertFollows(fixture, name, ["x"], loss, tolerance);
    }
  }
});

Deno.test("crossEntropy() agrees with the CPU in long rows and many rows", async () => {
  const shapes = [[7, 5], [300, 3], [5, 65], [3, 2049], [1, 65536], [2, 70001], [70001, 3], [
    1,
    1000003,
  ]] as const;
  for (const shape of shapes) {
    const [n, k] = shape;
    for (const labelSmoothing of k > 1e5 ? [0.1] : [0, 0.1]) {
      const x = randomArray(shape, "x", 3);
      const labels = integers(n, k);
      const expected = naiveCrossEntropy(
        x,
        shape,
        (row, c) => +(labels[row] === c),
        labelSmoothing,
      );
      const targets = gpu.tensor(labels);
      const loss = (x: Tensor) => crossEntropy(x, targets, { labelSmoothing });
      const actual = await outputAndGradients(loss, [gpu.tensor(x, shape)], one);
      assertClose(actual.y, [expected.loss], { rtol: 1e-5 }, `loss [${shape}]`);
      const scale = Math.max(...expected.dx.slice(0, 1000).map(Math.abs));
      assertClose(
        actual.gradients[0]!,
        expected.dx,
        { rtol: 1e-4, atol: 1e-5 * scale },
        `dx [${shape}]`,
      );
    }
  }
});

Deno.test("crossEntropy() takes probabilities, which need not add up to 1", async () => {
  const shape = [6, 70] as const;
  const x = randomArray(shape, "x");
  const probabilities = randomArray(shape, "q").map(Math.abs);
  const expected = naiveCrossEntropy(x, shape, (row, c) => probabilities[row * 70 + c]!, 0.2);
  const targets = gpu.tensor(probabilities, shape);
  const loss = (x: Tensor) => crossEntropy(x, targets, { labelSmoothing: 0.2 });
  const actual = await outputAndGradients(loss, [gpu.tensor(x, shape)], one);
  assertClose(actual.y, [expected.loss], { rtol: 1e-5 }, "loss");
  assertClose(actual.gradients[0]!, expected.dx, { rtol: 1e-4, atol: 1e-6 }, "dx");
});

Deno.test("crossEntropy() of equal logits is log k, and NaN for a class that is not there", async () => {
  const labels = gpu.tensor(Uint32Array.of(4, 0));
  const loss = async (k: number) =>
    await gpu.step(() => crossEntropy(gpu.tensor(new Float32Array(2 * k).fill(9), [2, k]), labels))
      .item();
  assertClose([await loss(5)], [Math.log(5)], { rtol: 1e-6 }, "log 5");
  assert.ok(Number.isNaN(await loss(4)));
});

Deno.test("bceWithLogits() agrees with the CPU where labels are missing, however many", async () => {
  for (
    const [n, k] of [[5, 3], [1, 1], [1025, 4], [333, 15], [65536, 1], [70001, 1], [
      1000003,
      1,
    ]] as const
  ) {
    const x = randomArray([n, k], "x", 2);
    const targets = someLabels(n * k);
    const weight = Array.from({ length: k }, (_, c) => 0.5 + c);
    for (const weighted of [false, true]) {
      const expected = naiveBce(x, targets, weighted ? weight : [1]);
      const labels = gpu.tensor(targets, [n, k]);
      const options = weighted ? { posWeight: gpu.tensor(weight) } : {};
      const loss = (x: Tensor) => bceWithLogits(x, labels, options);
      const actual = await outputAndGradients(loss, [gpu.tensor(x, [n, k])], one);
      assertClose(actual.y, [expected.loss], { rtol: 1e-5 }, `loss [${n},${k}]`);
      const atol = 1e-5 / (n * k);
      assertClose(actual.gradients[0]!, expected.dx, { rtol: 1e-4, atol }, `dx [${n},${k}]`);
    }
  }
});

Deno.test("focalLoss() and asymmetricLoss() agree with the CPU, however many labels", async () => {
  for (const [n, k] of [[1, 1], [5, 3], [1025, 4], [65536, 1], [70001, 1], [1000003, 1]] as const) {
    const x = randomArray([n, k], "x", 3);
    const targets = someLabels(n * k);
    const labels = gpu.tensor(targets, [n, k]);
    const check = async (
      name: string,
      loss: (x: Tensor) => Tensor,
      expected: ReturnType<typeof naiveFocused>,
    ) => {
      const actual = await outputAndGradients(loss, [gpu.tensor(x, [n, k])], one);
      assertClose(actual.y, [expected.loss], { rtol: 1e-5 }, `${name} of [${n},${k}]`);
      const atol = 1e-6 / (n * k);
      assertClose(
        actual.gradients[0]!,
        expected.dx,
        { rtol: 1e-4, atol },
        `${name} [${n},${k}] dx`,
      );
    };
    await check(
      "focal",
      (x) => focalLoss(x, labels),
      naiveFocused(x, targets, {
        gammaPositive: 2,
        gammaNegative: 2,
        positive: 0.25,
        negative: 0.75,
      }),
    );
    await check(
      "asymmetric",
      (x) => asymmetricLoss(x, labels, { gammaPositive: 1 }),
      naiveFocused(x, targets, { gammaPositive: 1, gammaNegative: 4, shift: 0.05 }),
    );
  }
});

Deno.test("focalLoss() and asymmetricLoss() that discount nothing are bceWithLogits()", async () => {
  // Probabilities as targets too.
  const x = randomArray([50, 3], "x", 4);
  const labels = gpu.tensor(
    someLabels(150).map((t, i) => i % 5 === 0 ? i / 150 : t),
    [50, 3],
  );
  const run = (loss: (x: Tensor) => Tensor) =>
    outputAndGradients(loss, [gpu.tensor(x, [50, 3])], one);
  const bce = await run((x) => bceWithLogits(x, labels));
  for (
    const loss of [
      (x: Tensor) => focalLoss(x, labels, { gamma: 0, alpha: null }),
      (x: Tensor) => asymmetricLoss(x, labels, { gammaNegative: 0, shift: 0 }),
    ]
  ) {
    const actual = await run(loss);
    assertClose(actual.y, bce.y, { rtol: 1e-6 }, "loss");
    assertClose(actual.gradients[0]!, bce.gradients[0]!, { rtol: 1e-5, atol: 1e-9 }, "dx");
  }
  const half = await run((x) => focalLoss(x, labels, { gamma: 0, alpha: 0.5 }));
  assertClose(half.y, bce.y.map((v) => v / 2), { rtol: 1e-6 }, "half");
});

Deno.test("focalLoss() and asymmetricLoss() stay finite where the sigmoid is 0 or 1", async () => {
  const x = gpu.tensor([200, -200, 200, -200], [4, 1]);
  const labels = gpu.tensor([1, 0, 0, 1], [4, 1]);
  const focal = (x: Tensor) => focalLoss(x, labels, { alpha: null });
  const { y, gradients } = await outputAndGradients(focal, [x], one);
  // Two wrong logits of 200 in four: a mean of 100, a slope of 1/4 each.
  assertClose(y, [100], { rtol: 1e-6 }, "focal");
  assertClose(gradients[0]!, [0, 0, 0.25, -0.25], { atol: 1e-6 }, "focal dx");
  // A negative's loss ends at −log(0.05), by the shift.
  const asymmetric = await outputAndGradients((x) => asymmetricLoss(x, labels), [x], one);
  const expected = (200 - 0.95 ** 4 * Math.log(0.05)) / 4;
  assertClose(asymmetric.y, [expected], { rtol: 1e-6 }, "asymmetric");
  assertClose(asymmetric.gradients[0]!, [0, 0, 0, -0.25], { atol: 1e-6 }, "asymmetric dx");
});

Deno.test("asymmetricLoss() leaves negatives below the shift alone", async () => {
  const x = [0.01, 0.049, 0.051, 0.2].map((p) => Math.log(p / (1 - p)));
  const labels = gpu.tensor(new Float32Array(4), [4, 1]);
  for (const gammaNegative of [0, 1, 4]) {
    const loss = (x: Tensor) => asymmetricLoss(x, labels, { gammaNegative });
    const { gradients } = await outputAndGradients(loss, [gpu.tensor(x, [4, 1])], one);
    assert.deepEqual([...gradients[0]!.subarray(0, 2)], [0, 0]);
    assert.ok(gradients[0]!.subarray(2).every((slope) => slope > 0));
  }
});

Deno.test("losses without any label are 0 with a gradient of 0, whatever the logits", async () => {
  const missing = gpu.tensor(new Float32Array(5).fill(NaN), [5, 1]);
  for (const loss of [bceWithLogits, focalLoss, asymmetricLoss]) {
    const x = gpu.tensor([1, -2, Infinity, NaN, 3], [5, 1]);
    const { y, gradients } = await outputAndGradients((x) => loss(x, missing), [x], one);
    assert.deepEqual([...y], [0]);
    assert.deepEqual([...gradients[0]!], [0, 0, 0, 0, 0]);
  }
});

Deno.test("a missing label changes nothing but the number of those present", async () => {
  const x = randomArray([4, 3], "x");
  const targets = Float32Array.of(1, 0, NaN, 1, 1, 0, 0, NaN, 1, 0, 0, 1);
  const isPresent = (_: number, i: number) => !Number.isNaN(targets[i]!);
  for (const loss of [bceWithLogits, focalLoss, asymmetricLoss]) {
    const run = (x: Float32Array, targets: Float32Array) => {
      const labels = gpu.tensor(targets);
      return outputAndGradients((x) => loss(x, labels), [gpu.tensor(x)], one);
    };
    const whole = await run(x, targets);
    const rest = await run(x.filter(isPresent), targets.filter(isPresent));
    assertClose(whole.y, rest.y, { rtol: 1e-6 }, "loss");
    assertClose(whole.gradients[0]!.filter(isPresent), rest.gradients[0]!, { rtol: 1e-6 }, "dx");
  }
});

Deno.test("mse() agrees with the CPU, however many elements", async () => {
  for (const n of [1, 7, 65536, 70001, 1000003]) {
    const [x, target] = [randomArray([n], "x"), randomArray([n], "target")];
    const actual = await outputAndGradients(mse as never, [gpu.tensor(x), gpu.tensor(target)], one);
    const loss = x.reduce((sum, v, i) => sum + (v - target[i]!) ** 2, 0) / n;
    const dx = Float64Array.from(x, (v, i) => 2 * (v - target[i]!) / n);
    assertClose(actual.y, [loss], { rtol: 1e-5 }, `loss of ${n}`);
    assertClose(actual.gradients[0]!, dx, { rtol: 1e-5, atol: 1e-7 / n }, `dx of ${n}`);
    assertClose(
      actual.gradients[1]!,
      dx.map((d) => -d),
      { rtol: 1e-5, atol: 1e-7 / n },
      `dtarget of ${n}`,
    );
  }
});

Deno.test("gradients of the losses agree with finite differences", async () => {
  const x = { shape: [5, 3], data: randomArray([5, 3], "fd") };
  const classes = gpu.tensor(integers(5, 3));
  const labels = gpu.tensor(randomArray([5, 3], "labels").map((v) => v > 1 ? NaN : +(v > 0)), [
    5,
    3,
  ]);
  const posWeight = gpu.tensor([0.5, 2, 7]);
  await checkGradients((x) => crossEntropy(x, classes, { labelSmoothing: 0.1 }), [x]);
  await checkGradients((x) => bceWithLogits(x, labels, { posWeight }), [x]);
  await checkGradients((x) => focalLoss(x, labels), [x]);
  await checkGradients((x) => asymmetricLoss(x, labels, { gammaPositive: 1 }), [x]);
  await checkGradients(mse as never, [x, { shape: [5, 3], data: randomArray([5, 3], "fd 2") }]);
});

Deno.test("losses have the same bits every time", async () => {
  const x = randomArray([20000, 3], "x");
  const labels = gpu.tensor(integers(20000, 3));
  const probabilities = gpu.tensor(x.map((v) => +(v > 0)), [20000, 3]);
  const losses = [
    (x: Tensor) => crossEntropy(x, labels),
    (x: Tensor) => bceWithLogits(x, probabilities),
    (x: Tensor) => asymmetricLoss(x, probabilities),
    (x: Tensor) => mse(x, probabilities),
  ];
  for (const loss of losses) {
    const run = () => outputAndGradients(loss, [gpu.tensor(x, [20000, 3])], one);
    assert.deepEqual(await run(), await run());
  }
});

Deno.test("losses refuse what does not fit, with the shapes", () => {
  const x = gpu.empty([4, 3]);
  const labels = gpu.tensor(Uint32Array.of(0, 1, 2, 0));
  assert.throws(
    () => crossEntropy(x, gpu.empty([3], "u32")),
    /crossEntropy: logits \[4,3\] .* not u32 \[3\]/,
  );
  assert.throws(
    () => crossEntropy(x, gpu.empty([4])),
    /crossEntropy: logits \[4,3\] .* not f32 \[4\]/,
  );
  assert.throws(
    () => crossEntropy(x, labels, { labelSmoothing: 2 }),
    /labelSmoothing 2 is not in 0…1/,
  );
  assert.throws(
    () => bceWithLogits(x, gpu.empty([3, 4])),
    /bceWithLogits: logits \[4,3\] and targets \[3,4\]/,
  );
  assert.throws(
    () => bceWithLogits(x, x, { posWeight: gpu.empty([4]) }),
    /bceWithLogits: posWeight \[4\] for logits \[4,3\], not \[3\]/,
  );
  assert.throws(
    () => focalLoss(x, gpu.empty([3, 4])),
    /focalLoss: logits \[4,3\] and targets \[3,4\]/,
  );
  assert.throws(() => focalLoss(x, x, { gamma: -1 }), /focalLoss: gamma -1 is not a number ≥ 0/);
  assert.throws(() => focalLoss(x, x, { alpha: 2 }), /focalLoss: alpha 2 is not in 0…1/);
  assert.throws(
    () => asymmetricLoss(x, x, { gammaNegative: NaN }),
    /asymmetricLoss: gammaNegative NaN is not a number ≥ 0/,
  );
  assert.throws(() => asymmetricLoss(x, x, { shift: -0.1 }), /shift -0.1 is not in 0…1/);
  assert.throws(() => mse(x, gpu.empty([3])), /mse: x \[4,3\] and target \[3\]/);
  assert.throws(() => mse(x, gpu.empty([4, 3], "u32")), /mse: target \[4,3\] is u32, not f32/);
});

Deno.test("losses give back their memory, and not their labels", async () => {
  const labels = gpu.tensor(Uint32Array.of(0, 1, 2, 0));
  const targets = gpu.tensor(new Float32Array(12), [4, 3]);
  assertReleases((x) => crossEntropy(x, labels), [4, 3]);
  assertReleases((x) => bceWithLogits(x, targets, { posWeight: gpu.tensor([1, 2, 3]) }), [4, 3]);
  assertReleases((x) => focalLoss(x, targets), [4, 3]);
  assertReleases((x) => mse(x, targets), [4, 3]);
  assert.deepEqual(await labels.data(), Uint32Array.of(0, 1, 2, 0));
  assert.deepEqual(await targets.data(), new Float32Array(12));
});
