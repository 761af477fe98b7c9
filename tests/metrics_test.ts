import assert from "node:assert/strict";
import { decodeSafetensors } from "../src/formats/safetensors.ts";
import {
  accuracy,
  atThresholds,
  auroc,
  averagePrecision,
  bootstrap,
  constantPredictions,
  f1,
  macroMean,
  pairedBootstrap,
  perLabel,
  subsetAccuracy,
  takeRows,
  topOneAccuracy,
} from "../src/metrics.ts";
import { Random } from "../src/random.ts";
import { assertClose } from "./support/assert.ts";

const { tensors } = decodeSafetensors(
  await Deno.readFile(new URL("fixtures/metrics.safetensors", import.meta.url)),
);
const cases = [...new Set([...tensors.keys()].map((name) => name.split(".")[0]!))];

function reference(name: string): number[] {
  const tensor = tensors.get(name);
  assert.ok(tensor, `fixture metrics has no ${name}`);
  return Array.from(tensor.data, Number);
}

for (const name of cases) {
  Deno.test(`metrics agree with scikit-learn: ${name}`, () => {
    const scores = reference(`${name}.scores`);
    const targets = reference(`${name}.targets`);
    const labels = tensors.get(`${name}.scores`)!.shape[1]!;
    const predictions = atThresholds(scores, new Array(labels).fill(0.5));
    const agree = (actual: number[], metric: string) =>
      assertClose(actual, reference(`${name}.${metric}`), { atol: 1e-9 }, metric);

    agree(perLabel(auroc, scores, targets, labels), "auroc");
    agree(perLabel(averagePrecision, scores, targets, labels), "average_precision");
    agree(perLabel(f1, predictions, targets, labels), "f1");
    agree(perLabel(accuracy, predictions, targets, labels), "accuracy");
    agree([f1(predictions, targets)], "f1_micro");
    if (!tensors.has(`${name}.subset`)) return;
    agree([macroMean(perLabel(f1, predictions, targets, labels)).mean], "f1_macro");
    agree([accuracy(predictions, targets)], "hamming");
    agree([subsetAccuracy(predictions, targets, labels)], "subset");
  });
}

Deno.test("auroc() equals the count over all pairs, with infinities and ties", () => {
  const random = new Random(3, "auroc");
  const n = 90;
  const levels = [-Infinity, -1, -0, 0, 0.5, Infinity];
  const scores = Array.from({ length: n }, () => levels[random.integer(levels.length)]!);
  const targets = Array.from({ length: n }, () => [0, 1, NaN][random.integer(3)]!);
  let [wins, pairs] = [0, 0];
  for (let i = 0; i < n; i++) {
    for (let j = 0; j < n; j++) {
      if (targets[i] !== 1 || targets[j] !== 0) continue;
      pairs++;
      wins += scores[i]! > scores[j]! ? 1 : scores[i] === scores[j] ? 0.5 : 0;
    }
  }
  assert.equal(auroc(scores, targets), wins / pairs);
});

Deno.test("auroc() is that of the flipped problem, and 1 minus that of negated scores", () => {
  const random = new Random(4, "auroc");
  const scores = Array.from({ length: 201 }, () => random.integer(20));
  const targets = scores.map((score) => random.uniform() * 20 < score ? 1 : 0);
  const negated = scores.map((score) => -score);
  const value = auroc(scores, targets);
  assert.ok(value > 0.6 && value < 1);
  assertClose([auroc(negated, targets)], [1 - value], { atol: 1e-12 }, "negated");
  assertClose([auroc(negated, targets.map((y) => 1 - y))], [value], { atol: 1e-12 }, "flipped");
});

Deno.test("metrics that their input does not define are NaN", () => {
  assert.equal(auroc([1, 2], [1, 1]), NaN);
  assert.equal(auroc([1, 2], [0, NaN]), NaN);
  assert.equal(auroc([], []), NaN);
  assert.equal(auroc([NaN, 2, 3], [0, 1, 0]), NaN);
  assert.equal(auroc([NaN, 2, 3], [NaN, 1, 0]), 0);
  assert.equal(averagePrecision([1, 2], [0, 0]), NaN);
  assert.equal(averagePrecision([NaN, 2], [1, 1]), NaN);
  assert.equal(averagePrecision([1, 2], [1, 1]), 1);
  assert.equal(accuracy([1], [NaN]), NaN);
  assert.equal(f1([1], [NaN]), NaN);
  assert.equal(f1([0, 0], [0, 0]), 0);
  assert.equal(subsetAccuracy([1, 0], [NaN, NaN], 2), NaN);
  assert.equal(topOneAccuracy([1, 0], [0, 0], 2), NaN);
});

Deno.test("macroMean() leaves NaN out and counts it", () => {
  assert.deepEqual(macroMean([0.5, NaN, 1]), { mean: 0.75, defined: 2, absent: 1 });
  assert.deepEqual(macroMean([NaN]), { mean: NaN, defined: 0, absent: 1 });
});

Deno.test("subsetAccuracy() judges rows by their known labels", () => {
  const targets = [1, NaN, /**/ 0, 1, /**/ NaN, NaN, /**/ 1, 0];
  const predictions = [1, 1, /**/ 0, 0, /**/ 0, 0, /**/ 1, 0];
  assert.equal(subsetAccuracy(predictions, targets, 2), 2 / 3);
  assert.equal(accuracy(predictions, targets), 4 / 5);
});

Deno.test("topOneAccuracy() takes the first of the largest scores", () => {
  const scores = [0.1, 0.8, 0.1, /**/ 0.5, 0.5, 0, /**/ 0, 0.5, 0.5];
  const targets = [0, 1, 0, /**/ 1, 0, 0, /**/ 0, 0, 1];
  assert.equal(topOneAccuracy(scores, targets, 3), 2 / 3);
});

Deno.test("constantPredictions() are the majorities of the training labels", () => {
  const training = [1, 0, NaN, /**/ 1, 1, NaN, /**/ NaN, 0, NaN, /**/ 0, 0, 1, /**/ 1, 1, 0];
  assert.deepEqual(constantPredictions(training, 3, 2), Uint8Array.of(1, 0, 0, 1, 0, 0));
});

Deno.test("atThresholds() has a threshold for each label, reached by equality", () => {
  const scores = [0.5, 0.5, 0.4, 0.7, NaN, NaN];
  assert.deepEqual(atThresholds(scores, [0.5, 0.6]), Uint8Array.of(1, 0, 0, 1, 0, 0));
});

Deno.test("metrics refuse predictions and targets of different sizes", () => {
  assert.throws(() => auroc([1, 2, 3], [0, 1]), /3 scores, 2 targets/);
  assert.throws(() => accuracy([1], [0, 1]), /1 predictions, 2 targets/);
});

const average = (values: ArrayLike<number>) => (rows: Uint32Array) =>
  rows.reduce((sum, row) => sum + values[row]!, 0) / rows.length;

Deno.test("bootstrap() of a mean gives the normal interval", () => {
  const random = new Random(5, "sample");
  const n = 200;
  const values = Array.from({ length: n }, () => random.normal());
  const mean = values.reduce((a, b) => a + b) / n;
  const error = Math.sqrt(values.reduce((sum, v) => sum + (v - mean) ** 2, 0)) / n;
  const patients = new Array(n).fill(null);
  const interval = bootstrap(patients, average(values), { resamples: 2000, seed: 1 });
  assertClose([interval.estimate], [mean], { rtol: 1e-12 }, "estimate");
  const ends = [mean - 1.96 * error, mean + 1.96 * error];
  assertClose([interval.low, interval.high], ends, { atol: 0.15 * error }, "interval");
  const narrow = bootstrap(patients, average(values), { resamples: 2000, seed: 1, level: 0.5 });
  const quartiles = [mean - 0.674 * error, mean + 0.674 * error];
  assertClose([narrow.low, narrow.high], quartiles, { atol: 0.15 * error }, "quartiles");
});

Deno.test("bootstrap() resamples patients: copies of an image add nothing", () => {
  const random = new Random(6, "sample");
  const values = Array.from({ length: 40 }, () => random.uniform());
  const alone = values.map((_, i) => `patient ${i}`);
  const once = bootstrap(alone, average(values));
  const copied = bootstrap(
    [...alone, ...alone, ...alone],
    average([...values, ...values, ...values]),
  );
  assertClose(
    [copied.estimate, copied.low, copied.high],
    [once.estimate, once.low, once.high],
    { rtol: 1e-12 },
    "interval",
  );
  // Rows without a patient are patients of their own, so that three times as many narrow it by √3.
  const strangers = bootstrap(
    new Array(120).fill(null),
    average([...values, ...values, ...values]),
  );
  const ratio = (once.high - once.low) / (strangers.high - strangers.low);
  assert.ok(ratio > 1.5 && ratio < 2, `ratio ${ratio}`);
});

Deno.test("bootstrap() repeats itself for a seed, differs for another, and counts what is undefined", () => {
  const scores = [0.1, 0.4, 0.35, 0.8];
  const targets = [0, 0, 1, 1];
  const statistic = (rows: Uint32Array) =>
    auroc(takeRows(scores, 1, rows), takeRows(targets, 1, rows));
  const interval = bootstrap(["a", "b", "c", "d"], statistic, { seed: 3 });
  assert.deepEqual(bootstrap(["a", "b", "c", "d"], statistic, { seed: 3 }), interval);
  assert.equal(interval.estimate, 0.75);
  // All four draws fall into one class with probability 2/16.
  assert.ok(interval.undefinedResamples > 90 && interval.undefinedResamples < 160);
  const mean = average([1, 2, 3, 5]);
  const patients = ["a", "b", "c", "d"];
  assert.notDeepEqual(
    bootstrap(patients, mean, { seed: 1, resamples: 50, level: 0.3 }),
    bootstrap(patients, mean, { seed: 2, resamples: 50, level: 0.3 }),
  );
});

Deno.test("pairedBootstrap() gives what both have in common no weight in the difference", () => {
  const random = new Random(7, "sample");
  const n = 60;
  const patients = Array.from({ length: n }, (_, i) => `${i % 30}`);
  const b = Array.from({ length: n }, () => random.normal());
  const a = b.map((value) => value + 0.25);
  const paired = pairedBootstrap(patients, average(a), average(b));
  assert.deepEqual(paired.a, bootstrap(patients, average(a)));
  assert.deepEqual(paired.b, bootstrap(patients, average(b)));
  const { estimate, low, high } = paired.difference;
  assertClose([estimate, low, high], [0.25, 0.25, 0.25], { atol: 1e-12 }, "difference");
});

Deno.test("takeRows() gathers rows, repeats included", () => {
  assert.deepEqual(
    takeRows([1, 2, 3, 4, 5, NaN], 2, Uint32Array.of(2, 0, 2)),
    Float64Array.of(5, NaN, 1, 2, 5, NaN),
  );
});
