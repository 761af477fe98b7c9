import assert from "node:assert/strict";
import {
  accuracy,
  atThresholds,
  auroc,
  averagePrecision,
  bootstrap,
  brierScore,
  confusionMatrix,
  constantPredictions,
  expectedCalibrationError,
  f1,
  type Interval,
  macroMean,
  perLabel,
  sensitivityAtSpecificity,
  subsetAccuracy,
  takeRows,
  topOneAccuracy,
} from "../src/metrics.ts";
import { Random } from "../src/random.ts";
import {
  formatScores,
  type MultiLabelPredictions,
  negations,
  scoreMultiLabel,
  scoreSingleLabel,
} from "../src/scores.ts";
import { assertClose } from "./support/assert.ts";

const options = { resamples: 40, seed: 3 };

/** Predictions of `n` images under three labels of which the third is the negation of the first. */
function draw(n: number): MultiLabelPredictions {
  const random = new Random(2, "scores");
  const labels = ["Effusion", "Nodule", "No Finding"];
  const targets = Float32Array.from(
    { length: 3 * n },
    (_, i) => +(random.uniform() < 0.3 + i % 3 / 5),
  );
  const scores = targets.map((target) => 1 / (1 + Math.exp(0.5 - target + random.normal())));
  for (let row = 0; row < n; row++) {
    if (random.uniform() < 0.2) targets[3 * row] = NaN;
    if (random.uniform() < 0.2) targets[3 * row + 1] = NaN;
    targets[3 * row + 2] = 1 - targets[3 * row]!;
  }
  return {
    labels,
    scores,
    targets,
    patients: Array.from({ length: n }, (_, row) => row % 7 === 0 ? null : `patient ${row >> 1}`),
    trainTargets: [1, 0, 0, /**/ 0, 0, 1, /**/ 0, NaN, 1],
    thresholds: [0.6, 0.5, 0.4],
  };
}

/** Compares estimate and interval with those of a statistic of the rows themselves, repeats written out. */
function assertInterval(
  actual: Interval,
  patients: readonly (string | null)[],
  statistic: (rows: Uint32Array) => number,
  name: string,
): void {
  const expected = bootstrap(patients, (counts) => {
    const rows = [...counts].flatMap((count, row) => new Array<number>(count).fill(row));
    return statistic(Uint32Array.from(rows));
  }, options);
  const values = ({ estimate, low, high }: Interval) => [estimate, low, high];
  assertClose(values(actual), values(expected), { rtol: 1e-12 }, name);
  assert.equal(actual.undefinedResamples, expected.undefinedResamples, name);
}

Deno.test("scoreMultiLabel() has every figure of the definitions, with intervals of one bootstrap", () => {
  const input = draw(60);
  const { labels, targets, patients, thresholds } = input;
  const { overall, labels: each, ...facts } = scoreMultiLabel(input, options);
  const predictions = atThresholds(input.scores, thresholds);
  const constant = constantPredictions(input.trainTargets, 3, 60);
  assert.deepEqual([...constant.subarray(0, 3)], [0, 0, 1]);
  assert.deepEqual(facts, {
    kind: "multi-label",
    images: 60,
    patients: new Set(patients.map((patient, row) => patient ?? row)).size,
    apart: [{ label: "No Finding", of: "Effusion" }],
    absent: [],
    sources: [],
  });

  labels.forEach((label, column) => {
    const figures = each[column]!;
    const take = (matrix: ArrayLike<number>, rows: Uint32Array) =>
      takeRows(matrix, 3, rows).filter((_, i) => i % 3 === column);
    const check = (
      actual: Interval,
      metric: (values: ArrayLike<number>, targets: ArrayLike<number>) => number,
      values: ArrayLike<number> = input.scores,
    ) =>
      assertInterval(
        actual,
        patients,
        (rows) => metric(take(values, rows), take(targets, rows)),
        `${label} ${metric.name}`,
      );
    check(figures.auroc, auroc);
    check(figures.averagePrecision, averagePrecision);
    check(figures.sensitivity, (scores, targets) => sensitivityAtSpecificity(scores, targets));
    check(figures.brier, brierScore);
    check(figures.ece, expectedCalibrationError);
    for (const [side, values] of [["model", predictions], ["constant", constant]] as const) {
      check(figures.f1[side], f1, values);
      check(figures.accuracy[side], accuracy, values);
    }
    const known = Array.from(targets).filter((target, i) =>
      i % 3 === column && !Number.isNaN(target)
    );
    assert.equal(figures.label, label);
    assert.equal(figures.known, known.length);
    assert.equal(figures.positives, known.filter((target) => target === 1).length);
    assert.equal(figures.threshold, thresholds[column]);
    assert.equal(figures.apart, column === 2);
  });

  // The first two columns are all that the means and totals see.
  const two = (matrix: ArrayLike<number>, rows: Uint32Array) =>
    takeRows(matrix, 3, rows).filter((_, i) => i % 3 < 2);
  const check = (
    actual: Interval,
    metric: (values: ArrayLike<number>, targets: ArrayLike<number>) => number,
    values: ArrayLike<number>,
  ) =>
    assertInterval(
      actual,
      patients,
      (rows) => metric(two(values, rows), two(targets, rows)),
      "overall",
    );
  const macro =
    (metric: (values: ArrayLike<number>, targets: ArrayLike<number>) => number) =>
    (values: ArrayLike<number>, targets: ArrayLike<number>) =>
      macroMean(perLabel(metric, values, targets, 2)).mean;
  check(overall.auroc, macro(auroc), input.scores);
  check(overall.averagePrecision, macro(averagePrecision), input.scores);
  check(overall.sensitivity, macro(sensitivityAtSpecificity), input.scores);
  check(overall.brier, macro(brierScore), input.scores);
  check(overall.ece, macro(expectedCalibrationError), input.scores);
  for (const [side, values] of [["model", predictions], ["constant", constant]] as const) {
    check(overall.f1Macro[side], macro(f1), values);
    check(overall.f1Micro[side], f1, values);
    check(overall.labelAccuracy[side], accuracy, values);
    check(overall.subsetAccuracy[side], (v, t) => subsetAccuracy(v, t, 2), values);
  }
});

Deno.test("scoreMultiLabel() leaves a label with an absent class out of the means and counts it", () => {
  const input = draw(60);
  const targets = Float32Array.from(input.targets, (target, i) => i % 3 === 1 ? 0 : target);
  const { labels, overall, absent } = scoreMultiLabel({ ...input, targets }, options);
  assert.deepEqual(absent, ["Nodule"]);
  assert.deepEqual([labels[1]!.auroc.estimate, labels[1]!.averagePrecision.estimate], [NaN, NaN]);
  assert.equal(labels[1]!.auroc.undefinedResamples, 40);
  assert.deepEqual(overall.auroc, labels[0]!.auroc);
  assert.deepEqual(overall.averagePrecision, labels[0]!.averagePrecision);
  // F1 is defined: 0, since some images are wrongly predicted.
  assert.equal(labels[1]!.f1.model.estimate, 0);
  assert.equal(overall.f1Macro.model.estimate, labels[0]!.f1.model.estimate / 2);
});

Deno.test("scoreMultiLabel() takes the labels apart that it is told", () => {
  const input = draw(60);
  const none = scoreMultiLabel({ ...input, apart: [] }, options);
  assert.deepEqual(none.apart, []);
  const mean = none.labels.reduce((sum, { auroc }) => sum + auroc.estimate / 3, 0);
  assertClose([none.overall.auroc.estimate], [mean], { rtol: 1e-12 }, "mean of all three");
  const one = scoreMultiLabel({ ...input, apart: ["Nodule"] }, options);
  assert.deepEqual(one.apart, [{ label: "Nodule", of: null }]);
  assert.deepEqual(one.labels.map(({ apart }) => apart), [false, true, false]);
});

Deno.test("scoreMultiLabel() scores each source by itself, from which it cannot be guessed", () => {
  const n = 80;
  const random = new Random(5, "sources");
  // Hospital b has more of the label; the model knows the hospital and nothing else.
  const sources = Array.from({ length: n }, (_, row) => row < 4 ? null : row % 2 === 0 ? "a" : "b");
  const targets = sources.map((source) => +(random.uniform() < (source === "b" ? 0.9 : 0.2)));
  const scores = sources.map((source) => (source === "b" ? 0.5 : 0) + random.uniform(0, 0.5));
  const input = {
    labels: ["x"],
    scores,
    targets,
    patients: new Array<null>(n).fill(null),
    sources,
    trainTargets: [0],
    thresholds: [0.5],
  };
  const all = scoreMultiLabel(input, options);
  assert.ok(all.overall.auroc.low > 0.7);
  assert.deepEqual(all.sources.map(({ source, images }) => [source, images]), [["a", 38], [
    "b",
    38,
  ]]);
  for (const { source, labels } of all.sources) {
    const rows = sources.keys().filter((row) => sources[row] === source).toArray();
    const { kind: _, sources: __, apart: ___, ...alone } = scoreMultiLabel({
      ...input,
      scores: takeRows(scores, 1, rows),
      targets: takeRows(targets, 1, rows),
      patients: rows.map(() => null),
      sources: rows.map(() => source),
    }, options);
    assert.deepEqual({ source, ...alone }, all.sources.find((part) => part.source === source));
    const { low, high } = labels[0]!.auroc;
    assert.ok(low < 0.5 && high > 0.5, `${source}: [${low}, ${high}]`);
  }
});

Deno.test("negations() finds exact pairs of labels only", () => {
  const find = (names: string[], ...rows: number[][]) =>
    negations(names, rows.flat()).map(({ label, of }) => `${label} = not ${of}`);
  assert.deepEqual(find(["a", "b"], [1, 0], [0, 1], [NaN, NaN]), ["b = not a"]);
  assert.deepEqual(find(["no_finding", "b"], [1, 0], [0, 1]), ["no_finding = not b"]);
  assert.deepEqual(find(["b", "No Finding"], [1, 0], [0, 1]), ["No Finding = not b"]);
  assert.deepEqual(find(["a", "b"], [1, 0], [0, 1], [0, 0]), []);
  assert.deepEqual(find(["a", "b"], [1, 0], [0, 1], [NaN, 0]), []);
  // One value only says nothing about the other.
  assert.deepEqual(find(["a", "b"], [1, 0], [1, 0]), []);
  // c repeats a; b is the negation of both and named once.
  assert.deepEqual(find(["a", "b", "c"], [1, 0, 1], [0, 1, 0]), ["b = not a"]);
});

Deno.test("negations that hold by chance in the test split are none if training contradicts them", () => {
  const input = {
    ...draw(0),
    scores: [0.9, 0.1, 0.4, /**/ 0.2, 0.6, 0.3],
    targets: [1, 0, 0, /**/ 0, 1, 0],
    patients: [null, null],
  };
  const apart = (trainTargets: number[]) =>
    scoreMultiLabel({ ...input, trainTargets }, options).apart.map(({ label }) => label);
  assert.deepEqual(apart([1, 0, 0]), ["Nodule"]);
  assert.deepEqual(apart([1, 1, 0]), []);
});

const single = {
  labels: ["cat", "dog", "owl"],
  scores: [0.8, 0.1, 0.1, /**/ 0.2, 0.5, 0.3, /**/ 0.6, 0.3, 0.1, /**/ 0.1, 0.1, 0.8, /**/ 1, 0, 0],
  targets: [1, 0, 0, /**/ 0, 1, 0, /**/ 0, 1, 0, /**/ 0, 0, 1, /**/ NaN, NaN, NaN],
  patients: ["p", "p", "q", null, null],
  sources: ["x", "x", "y", "y", "y"],
  trainTargets: [1, 0, 0, /**/ 0, 1, 0, /**/ 0, 1, 0],
};

Deno.test("scoreSingleLabel() counts top-1, the confusion, and what the commonest class reaches", () => {
  const scores = scoreSingleLabel(single, options);
  assert.deepEqual(scores.confusion, [[1, 0, 0], [1, 1, 0], [0, 0, 1]]);
  assert.deepEqual(scores.confusion.flat(), [...confusionMatrix(single.scores, single.targets, 3)]);
  assert.deepEqual([scores.images, scores.patients], [5, 4]);
  const constant = single.patients.flatMap(() => [0, 1, 0]);
  for (const [side, values] of [["model", single.scores], ["constant", constant]] as const) {
    assertInterval(
      scores.topOne[side],
      single.patients,
      (rows) => topOneAccuracy(takeRows(values, 3, rows), takeRows(single.targets, 3, rows), 3),
      side,
    );
  }
  assert.deepEqual(
    scores.sources.map(({ source, topOne }) => [source, topOne.model.estimate]),
    [["x", 1], ["y", 0.5]],
  );
});

Deno.test("formatScores() aligns everything in tables", () => {
  const exact = { resamples: 1, seed: 0 };
  const targets = [1, 0, /**/ 0, 0, /**/ 1, 0, /**/ 0, 0];
  const text = formatScores(scoreMultiLabel({
    labels: ["Effusion", "Nodule"],
    scores: [0.9, 0.5, /**/ 0.1, 0.5, /**/ 0.9, 0.5, /**/ 0.1, 0],
    targets,
    patients: ["p", "p", "p", "p"],
    sources: ["a", "a", "b", "b"],
    trainTargets: targets,
    thresholds: [0.5, 0.7],
    apart: [],
  }, exact));
  assert.deepEqual(text.split("\n"), [
    "4 images of 1 patients; 95 % intervals by resampling patients",
    "",
    "            positive                 AUROC     average precision  sensitivity at 95 % spec.",
    "Effusion         2/4  1.000 [1.000, 1.000]  1.000 [1.000, 1.000]       1.000 [1.000, 1.000]",
    "Nodule           0/4                     –                     –                          –",
    "macro mean            1.000 [1.000, 1.000]  1.000 [1.000, 1.000]       1.000 [1.000, 1.000]",
    "These means are of 1 of 2 labels: a class is absent of Nodule.",
    "",
    "            threshold     F1  accuracy  constant  Brier    ECE",
    "Effusion        0.500  1.000     1.000     0.500  0.010  0.100",
    "Nodule          0.700  0.000     1.000     1.000  0.188  0.375",
    "macro mean             0.500                      0.099  0.237",
    "",
    "                                    model    constant predictor",
    "F1, macro            0.500 [0.500, 0.500]  0.000 [0.000, 0.000]",
    "F1, micro            1.000 [1.000, 1.000]  0.000 [0.000, 0.000]",
    "label-wise accuracy  1.000 [1.000, 1.000]  0.750 [0.750, 0.750]",
    "subset accuracy      1.000 [1.000, 1.000]  0.500 [0.500, 0.500]",
    "",
    "AUROC within one source                 a (2)                 b (2)",
    "Effusion                 1.000 [1.000, 1.000]  1.000 [1.000, 1.000]",
    "Nodule                                      –                     –",
    "macro mean               1.000 [1.000, 1.000]  1.000 [1.000, 1.000]",
  ]);
  const { sources: _, ...alone } = single;
  const patients = single.patients.map(() => "p");
  assert.deepEqual(formatScores(scoreSingleLabel({ ...alone, patients }, exact)).split("\n"), [
    "5 images of 1 patients; 95 % intervals by resampling patients",
    "",
    "                               model    constant predictor",
    "top-1 accuracy  0.750 [0.750, 0.750]  0.500 [0.500, 0.500]",
    "",
    "true \\ predicted  cat  dog  owl",
    "cat                 1    0    0",
    "dog                 1    1    0",
    "owl                 0    0    1",
  ]);
});

Deno.test("formatScores() says which label is apart, and of what it is the negation", () => {
  const lines = formatScores(scoreMultiLabel(draw(60), options)).split("\n");
  assert.ok(lines.includes("No Finding is the negation of Effusion: not part of any mean."));
  const at = (name: string) => lines.findIndex((line) => line.startsWith(name));
  assert.ok(at("Nodule") < at("macro mean") && at("macro mean") < at("No Finding"));
});

Deno.test("scores refuse sizes that do not fit and labels that do not exist", () => {
  const input = draw(10);
  assert.throws(
    () => scoreMultiLabel({ ...input, scores: [1], sources: [] }),
    /scoreMultiLabel: 1 scores, 0 sources for 10 patients and 3 labels/,
  );
  assert.throws(
    () => scoreMultiLabel({ ...input, thresholds: [0.5] }),
    /1 thresholds for 3 labels/,
  );
  assert.throws(
    () => scoreMultiLabel({ ...input, apart: ["Edema"] }),
    /no label Edema among Effusion, Nodule, No Finding/,
  );
  assert.throws(
    () => scoreSingleLabel({ ...single, trainTargets: [1, 0] }),
    /scoreSingleLabel: 2 trainTargets for 5 patients and 3 labels/,
  );
});
