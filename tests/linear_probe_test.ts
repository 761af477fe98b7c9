import assert from "node:assert/strict";
import type { LabelledEmbeddings } from "../src/knn.ts";
import {
  chooseLinearProbe,
  fitLinearProbe,
  L2_GRID,
  type LinearProbe,
  predictLinear,
} from "../src/linear_probe.ts";
import { Random } from "../src/random.ts";
import { assertClose } from "./support/assert.ts";
import { readFixture } from "./support/fixture.ts";

/** Rows whose labels follow the first features through noise. */
function draw(name: string, rows: number, dimensions: number, classes: number, noise = 1) {
  const random = new Random(1, name);
  const values = Float32Array.from({ length: rows * dimensions }, () => random.normal());
  const labels = Float32Array.from({ length: rows * classes }, (_, i) => {
    const signal = values[Math.floor(i / classes) * dimensions + i % classes]!;
    return +(signal + noise * random.normal() > 0);
  });
  return { values, dimensions, labels, classes };
}

function crossEntropy(probabilities: ArrayLike<number>, labels: Float32Array): number {
  const terms = Array.from(
    labels,
    (y, i) => -Math.log(y === 1 ? probabilities[i]! : 1 - probabilities[i]!),
  );
  return terms.reduce((sum, term) => sum + term, 0) / terms.length;
}

Deno.test("fitLinearProbe() agrees with scikit-learn", async () => {
  const fixture = await readFixture("linear_probe");
  for (const name of fixture.cases()) {
    const get = (key: string) => fixture.tensor(`${name}.${key}`);
    const [x, labels] = [get("x"), get("labels")];
    const dimensions = x.shape[1]!;
    const train = { values: x.data, dimensions, labels: labels.data, classes: labels.shape[1]! };
    const l2 = fixture.scalar(`${name}.l2`);
    const probe = fitLinearProbe(train, { l2, tolerance: 1e-9 });
    assert.ok(probe.converged, name);
    const tolerance = { rtol: 1e-4, atol: 1e-5 };
    assertClose(probe.weights, get("weights").data, tolerance, `${name} weights`);
    assertClose(probe.bias, get("bias").data, tolerance, `${name} bias`);
    const probabilities = predictLinear(probe, { values: get("queries").data, dimensions });
    assertClose(probabilities, get("probabilities").data, { atol: 1e-5 }, `${name} probabilities`);
  }
});

Deno.test("fitLinearProbe() at its default tolerance predicts like a minimum found to the last digit", () => {
  const train = draw("tolerance", 120, 30, 3);
  const exact = predictLinear(fitLinearProbe(train, { l2: 0.001, tolerance: 1e-11 }), train);
  const probe = fitLinearProbe(train, { l2: 0.001 });
  assert.ok(probe.converged);
  assertClose(predictLinear(probe, train), exact, { atol: 1e-3 }, "probabilities");
});

Deno.test("fitLinearProbe() ignores the scale and place of features, and repeats itself", () => {
  const train = draw("scale", 50, 6, 2);
  const moved = { ...train, values: train.values.map((v, i) => 7 + v * 2 ** (i % 6)) };
  const fit = (data: LabelledEmbeddings) => fitLinearProbe(data, { l2: 0.01, tolerance: 1e-9 });
  const expected = predictLinear(fit(train), train);
  assertClose(predictLinear(fit(moved), moved), expected, { atol: 1e-4 }, "probabilities");
  assert.deepEqual(fit(train), fit(train));
});

Deno.test("fitLinearProbe() fits each label by itself, wherever it starts", () => {
  const train = draw("labels", 60, 5, 3);
  const all = fitLinearProbe(train, { l2: 0.01, tolerance: 1e-10 });
  for (let label = 0; label < 3; label++) {
    const labels = train.labels.filter((_, i) => i % 3 === label);
    const one = fitLinearProbe({ ...train, labels, classes: 1 }, { l2: 0.01, tolerance: 1e-10 });
    assertClose(all.weights.subarray(5 * label, 5 * label + 5), one.weights, { atol: 1e-8 }, "w");
  }
  const start = fitLinearProbe(train, { l2: 1 });
  const warm = fitLinearProbe(train, { l2: 0.01, tolerance: 1e-10, start });
  assertClose(warm.weights, all.weights, { atol: 1e-8 }, "weights from a start");
});

Deno.test("fitLinearProbe() is sure of a label with one class, and knows nothing of an unknown one", () => {
  const train = draw("classes", 30, 4, 1);
  const labels = Float32Array.from(
    { length: 120 },
    (_, i) => [train.labels[i >> 2]!, 0, i < 60 ? 1 : NaN, NaN][i % 4]!,
  );
  const probe = fitLinearProbe({ ...train, labels, classes: 4 }, { l2: 0.01 });
  const alone = fitLinearProbe(train, { l2: 0.01 });
  assert.deepEqual(probe.weights.subarray(0, 4), alone.weights);
  assert.deepEqual(probe.weights.subarray(4), new Float64Array(12));
  assert.deepEqual([...predictLinear(probe, train).subarray(1, 4)], [0, 1, NaN]);
});

Deno.test("fitLinearProbe() separates what can be separated without growing beyond its penalty", () => {
  const values = Float32Array.of(-2, -1, 1, 2);
  const train = { values, dimensions: 1, labels: Float32Array.of(0, 0, 1, 1), classes: 1 };
  const [strong, weak] = [1, 1e-4].map((l2) => fitLinearProbe(train, { l2 }));
  assert.ok(strong!.converged && weak!.converged);
  assert.ok(strong!.weights[0]! < 1 && weak!.weights[0]! > 5);
});

Deno.test("chooseLinearProbe() takes the penalty of the least held-out cross-entropy", () => {
  const chosen = (noise: number, rows: number) => {
    const train = draw("train", rows, 20, 2, noise);
    const heldOut = draw("held out", 400, 20, 2, noise);
    const probe = chooseLinearProbe(train, heldOut);
    const loss = (probe: LinearProbe) =>
      crossEntropy(predictLinear(probe, heldOut), heldOut.labels);
    const losses = L2_GRID.map((l2) => loss(fitLinearProbe(train, { l2, tolerance: 1e-8 })));
    assert.equal(probe.l2, L2_GRID[losses.indexOf(Math.min(...losses))]);
    assertClose([loss(probe)], [Math.min(...losses)], { rtol: 1e-3 }, "loss");
    return probe.l2;
  };
  // The more noise and the fewer rows, the stronger.
  assert.ok(chosen(5, 40) > chosen(0.3, 400));
});

Deno.test("the linear probe refuses what does not fit", () => {
  const train = draw("errors", 6, 3, 2);
  assert.throws(
    () => fitLinearProbe({ ...train, classes: 3 }, { l2: 1 }),
    /12 labels for 6 rows of 3 classes/,
  );
  assert.throws(
    () => fitLinearProbe({ ...train, dimensions: 4 }, { l2: 1 }),
    /18 values are no rows of 4/,
  );
  const broken = { ...train, values: train.values.with(7, NaN) };
  assert.throws(() => fitLinearProbe(broken, { l2: 1 }), /row 2 is not finite/);
  const probe = fitLinearProbe(train, { l2: 1 });
  assert.throws(
    () => predictLinear(probe, { values: train.values, dimensions: 2 }),
    /rows have 2 dimensions, the probe 3/,
  );
  assert.throws(() => chooseLinearProbe(train, train, []), /the grid is empty/);
});
