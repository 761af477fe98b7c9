import assert from "node:assert/strict";
import { decodeSafetensors } from "../src/formats/safetensors.ts";
import {
  accuracy,
  atThresholds,
  auroc,
  averagePrecision,
  bestThreshold,
  bootstrap,
  brierScore,
  confusionMatrix,
  constantPredictions,
  expectedCalibrationError,
  f1,
  macroMean,
  normalizedMutualInformation,
  perLabel,
  Ranking,
  sensitivityAtSpecificity,
  subsetAccuracy,
  takeRows,
  topOneAccuracy,
} from "../src/metrics.ts";
import { Random } from "../src/random.ts";
import { assertClose } from "./support/assert.ts";
import { readFixture } from "./support/fixture.ts";

const { tensors } = decodeSafetensors(
  await Deno.readFile(new URL("fixtures/metrics.safetensors", import.meta.url)),
);
const cases = [...tensors.keys()].filter((name) => name.endsWith(".auroc"))
  .map((name) => name.split(".")[0]!);

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
    agree(perLabel(sensitivityAtSpecificity, scores, targets, labels), "sensitivity");
    agree(perLabel(brierScore, scores, targets, labels), "brier");
    const thresholds = perLabel(bestThreshold, scores, targets, labels);
    agree(perLabel(f1, atThresholds(scores, thresholds), targets, labels), "best_f1");
    agree(perLabel(f1, predictions, targets, labels), "f1");
    agree(perLabel(accuracy, predictions, targets, labels), "accuracy");
    agree([f1(predictions, targets)], "f1_micro");
    if (!tensors.has(`${name}.subset`)) return;
    agree([macroMean(perLabel(f1, predictions, targets, labels)).mean], "f1_macro");
    agree([accuracy(predictions, targets)], "hamming");
    agree([subsetAccuracy(predictions, targets, labels)], "subset");
  });
}

Deno.test("metrics of one label a row agree with scikit-learn", () => {
  const scores = reference("single_label.scores");
  const targets = reference("single_label.targets");
  const [confusion, topOne] = ["confusion", "top_one"].map((name) =>
    reference(`single_label.${name}`)
  );
  assert.deepEqual([...confusionMatrix(scores, targets, 4)], confusion);
  assertClose([topOneAccuracy(scores, targets, 4)], topOne!, { atol: 1e-9 }, "top one");
});

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
  assert.equal(averagePrecision([1, 2], [1, 1]), NaN);
  assert.equal(averagePrecision([NaN, 2], [1, 0]), NaN);
  assert.equal(sensitivityAtSpecificity([1, 2], [0, 0]), NaN);
  assert.equal(sensitivityAtSpecificity([1, 2], [1, 1]), NaN);
  assert.equal(brierScore([1], [NaN]), NaN);
  assert.equal(expectedCalibrationError([1], [NaN]), NaN);
  assert.equal(expectedCalibrationError([NaN], [1]), NaN);
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

Deno.test("confusionMatrix() has the truth in rows, leaves unlabelled rows out and refuses two labels", () => {
  const scores = [0, 2, /**/ 2, 2, /**/ 0, 1, /**/ 3, 1];
  const targets = [1, 0, /**/ 1, 0, /**/ NaN, NaN, /**/ 0, 1];
  assert.deepEqual(confusionMatrix(scores, targets, 2), Uint32Array.of(1, 1, 1, 0));
  assert.throws(() => confusionMatrix([1, 0], [1, 1], 2), /row 0 has 2 labels, not one/);
});

Deno.test("sensitivityAtSpecificity() accepts tied scores together and 19 of 20 negatives", () => {
  const negatives = Array.from({ length: 20 }, (_, i) => i);
  const targets = [...negatives.map(() => 0), 1, 1, 1, 1];
  const found = (...positives: number[]) =>
    sensitivityAtSpecificity([...negatives, ...positives], targets);
  assert.equal(found(30, 18.5, 17.5, 2), 0.5);
  // With the second highest negative comes a positive that is tied with it: one alarm too many.
  assert.equal(found(30, 19, 18, 18), 0.5);
  assert.equal(found(5, 5, 5, 5), 0);
  // A tie of all scores accepts all or nothing.
  assert.equal(sensitivityAtSpecificity([1, 1, 1], [1, 0, 1]), 0);
  assert.equal(sensitivityAtSpecificity([3, 1, 2], [1, 0, 1], 1), 1);
});

Deno.test("bestThreshold() has the greatest F1 of all and lies half way to the next score", () => {
  assert.equal(bestThreshold([0.1, 0.4, 0.8, 0.9], [0, 0, 1, 1]), (0.8 + 0.4) / 2);
  assert.equal(bestThreshold([0.5, 0.75], [1, 1]), 0.25);
  assert.equal(bestThreshold([0.5, 0.5, 0], [1, NaN, 0]), 0.25);
  // Of equally good ones the highest: F1 is 2/3 with the first alone and with all three.
  assert.equal(bestThreshold([0.9, 0.5, 0.25, 0.125], [1, 0, 0, 1]), 0.7);
  const next = 0.5 + 2 ** -53;
  assert.equal(bestThreshold([0.5, next], [0, 1]), next);
  assert.equal(bestThreshold([0.2, 0.9], [0, 0]), 0.5);
  assert.equal(bestThreshold([0.2, NaN], [0, 1]), 0.5);

  const random = new Random(8, "thresholds");
  const scores = Array.from({ length: 150 }, () => random.integer(40) / 40);
  const targets = scores.map((score) => random.uniform() < 0.05 ? NaN : +(random.normal() < score));
  const reached = (threshold: number) => f1(atThresholds(scores, [threshold]), targets);
  const most = Math.max(...scores.map(reached));
  assert.equal(reached(bestThreshold(scores, targets)), most);
});

Deno.test("expectedCalibrationError() equals its definition, on the edges of the bins too", () => {
  const random = new Random(9, "calibration");
  const edges = Array.from({ length: 16 }, (_, i) => i / 15);
  const probabilities = [...edges, ...edges.map(Math.fround).map((p) => Math.min(p, 1))];
  for (let i = 0; i < 300; i++) probabilities.push(random.uniform() ** 2);
  const targets = probabilities.map((p) =>
    random.uniform() < 0.1 ? NaN : +(random.uniform() < 0.8 * p)
  );
  let [error, known] = [0, 0];
  for (let bin = 0; bin < 15; bin++) {
    const inside = probabilities.keys().filter((i) => {
      const p = probabilities[i]!;
      return !Number.isNaN(targets[i]) && p <= (bin + 1) / 15 && (p > bin / 15 || bin === 0);
    }).toArray();
    if (inside.length === 0) continue;
    const mean = (values: number[]) =>
      inside.reduce((sum, i) => sum + values[i]!, 0) / inside.length;
    error += inside.length * Math.abs(mean(probabilities) - mean(targets));
    known += inside.length;
  }
  assert.ok(error / known > 0.02);
  assertClose(
    [expectedCalibrationError(probabilities, targets)],
    [error / known],
    { rtol: 1e-12 },
    "error",
  );
});

Deno.test("expectedCalibrationError() is 0 for the truth, 1 for its opposite, and refuses logits", () => {
  assert.equal(expectedCalibrationError([0, 1, 1], [0, 1, 1]), 0);
  assert.equal(expectedCalibrationError([1, 0, 0], [0, 1, 1]), 1);
  assert.throws(() => expectedCalibrationError([2.5], [1]), /probability 2.5 is not in 0…1/);
});

Deno.test("counts stand for repeated rows", () => {
  const random = new Random(10, "counts");
  const [n, labels] = [60, 3];
  const scores = Float64Array.from({ length: n * labels }, () => random.integer(20) / 20);
  const targets = scores.map((s) => random.uniform() < 0.2 ? NaN : +(random.uniform() < s));
  const predictions = atThresholds(scores, [0.4, 0.5, 0.6]);
  for (let trial = 0; trial < 20; trial++) {
    const counts = Uint32Array.from({ length: n }, () => random.integer(4));
    const rows = [...counts].flatMap((count, row) => new Array<number>(count).fill(row));
    const take = (matrix: ArrayLike<number>) => takeRows(matrix, labels, rows);
    for (const metric of [subsetAccuracy, topOneAccuracy]) {
      const values = metric === topOneAccuracy ? scores : predictions;
      const expected = metric(take(values), take(targets), labels);
      assert.equal(metric(values, targets, labels, counts), expected, metric.name);
    }
    for (const metric of [f1, accuracy]) {
      const expected = metric(take(predictions), take(targets));
      assert.equal(metric(predictions, targets, counts), expected, metric.name);
    }
    for (const metric of [brierScore, expectedCalibrationError]) {
      const expected = metric(take(scores), take(targets));
      const actual = metric(scores, targets, counts);
      assertClose([actual], [expected], { rtol: 1e-12 }, metric.name);
    }
    // The same sums in the same order: the same bits.
    const ranking = new Ranking(scores.slice(0, n), targets.slice(0, n));
    const repeat = (values: Float64Array) => takeRows(values, 1, rows);
    const [s, t] = [repeat(scores.slice(0, n)), repeat(targets.slice(0, n))];
    assert.equal(ranking.auroc(counts), auroc(s, t));
    assert.equal(ranking.averagePrecision(counts), averagePrecision(s, t));
    assert.equal(
      ranking.sensitivityAtSpecificity(0.8, counts),
      sensitivityAtSpecificity(s, t, 0.8),
    );
  }
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

const average = (values: ArrayLike<number>) => (counts: Uint32Array) =>
  counts.reduce((sum, count, row) => sum + count * values[row]!, 0) /
  counts.reduce((sum, count) => sum + count, 0);

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
  const statistic = (counts: Uint32Array) => auroc(scores, targets, counts);
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

Deno.test("bootstrap() takes all numbers of a statistic from the same resamples", () => {
  const random = new Random(7, "sample");
  const n = 60;
  const patients = Array.from({ length: n }, (_, i) => `${i % 30}`);
  const x = Array.from({ length: n }, () => random.normal());
  const [a, b] = [average(x.map((value) => value + 0.25)), average(x)];
  const all = bootstrap(patients, (counts) => ({
    both: [a(counts), b(counts)] as const,
    difference: a(counts) - b(counts),
  }));
  assert.deepEqual(all.both, [bootstrap(patients, a), bootstrap(patients, b)]);
  const { estimate, low, high } = all.difference;
  assertClose([estimate, low, high], [0.25, 0.25, 0.25], { atol: 1e-12 }, "difference");
});

Deno.test("bootstrap() draws as many patients as there are, with all their rows", () => {
  const patients = ["a", "b", "a", null, null];
  const seen = new Set<string>();
  bootstrap(patients, (counts) => {
    assert.equal(counts[0], counts[2]);
    assert.equal(counts[0]! + counts[1]! + counts[3]! + counts[4]!, 4);
    seen.add(counts.join());
    return 0;
  }, { resamples: 5000 });
  // Four patients in four draws: 35 multisets.
  assert.equal(seen.size, 35);
});

Deno.test("takeRows() gathers rows, repeats included", () => {
  assert.deepEqual(
    takeRows([1, 2, 3, 4, 5, NaN], 2, Uint32Array.of(2, 0, 2)),
    Float64Array.of(5, NaN, 1, 2, 5, NaN),
  );
});

Deno.test("normalizedMutualInformation() agrees with scikit-learn, and knows its bounds", async () => {
  const fixture = await readFixture("kmeans");
  for (const name of fixture.cases()) {
    const [a, b] = [fixture.integers(`${name}.truth`), fixture.integers(`${name}.labels`)];
    const expected = fixture.scalar(`${name}.nmi`);
    assert.ok(Math.abs(normalizedMutualInformation(a, b) - expected) < 1e-6, name);
  }
  assert.equal(normalizedMutualInformation([1, 1, 1], [0, 0, 0]), 1);
  assert.equal(normalizedMutualInformation([0, 1, 0, 1], [0, 0, 1, 1]), 0);
  assert.throws(() => normalizedMutualInformation([1], [1, 2]), /1 labels and 2/);
});
