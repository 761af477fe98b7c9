import assert from "node:assert/strict";
import {
  accuracy,
  atThresholds,
  auroc,
  averagePrecision,
  bootstrap,
  brierScore,
  columnOf,
  expectedCalibrationError,
  f1,
  macroMean,
  Ranking,
  takeRows,
} from "../src/metrics.ts";
import { Random } from "../src/random.ts";
import { type Arm, type Cell, cellId, type ScoreCell, type Target } from "../src/study/cell.ts";
import { layoutOf, type Measured } from "../src/study/layout.ts";
import { readCell, readStudy, type Study } from "../src/study/read.ts";
import { type Comparison, resultsOf } from "../src/study/results.ts";
import { bootstrapP, holm, LabelScorer, METRIC_NAMES } from "../src/study/statistics.ts";
import { resultsCsv, tableMarkdown } from "../src/study/table.ts";
import { assertClose } from "./support/assert.ts";
import { withFiles } from "./support/files.ts";
import { makeStudy, studyFiles } from "./support/study.ts";

/** A study of one pretraining and one protocol, quick to compute. */
const SMALL = {
  config: {
    sets: { stl10: { title: "STL-10", data: "stl10:x" } },
    pretraining: { views: 1000, methods: { simclr: { on: ["stl10"], flags: {} } } },
    fractions: [{ fraction: 1, epochs: 4, batch: 64 }],
    protocols: ["finetune", "knn"],
  },
  seeds: [0, 1],
} as const;

const nameOf = ({ arm }: { readonly arm: Arm }) => arm.name;

Deno.test("LabelScorer gives the figures of metrics.ts for any resample, with ties and missing labels", () => {
  const random = new Random(1, "scorer");
  const n = 80;
  const probabilities = Array.from({ length: n }, () => random.integer(31) / 30);
  const targets = probabilities.map((p) =>
    random.uniform() < 0.1 ? NaN : +(random.uniform() < 0.2 + 0.6 * p)
  );
  const scorer = new LabelScorer(probabilities, targets, 0.4);
  const predictions = atThresholds(probabilities, [0.4]);
  for (let trial = 0; trial < 20; trial++) {
    const counts = Uint32Array.from({ length: n }, () => random.integer(4));
    scorer.score(counts);
    const ranking = new Ranking(probabilities, targets);
    assertClose(
      [scorer.auroc, scorer.ap, scorer.f1, scorer.right / scorer.known, scorer.brier, scorer.ece],
      [
        ranking.auroc(counts),
        ranking.averagePrecision(counts),
        f1(predictions, targets, counts),
        accuracy(predictions, targets, counts),
        brierScore(probabilities, targets, counts),
        expectedCalibrationError(probabilities, targets, counts),
      ],
      { rtol: 1e-12 },
      "figures",
    );
  }
  scorer.score(Uint32Array.from(targets, (target) => target === 1 ? 1 : 0));
  assert.deepEqual([scorer.auroc, scorer.ap], [NaN, NaN]);
  scorer.score(new Uint32Array(n));
  assert.deepEqual([scorer.f1, scorer.brier, scorer.ece], [NaN, NaN, NaN]);
});

Deno.test("bootstrapP() counts both sides, and belongs to the percentile interval", () => {
  const draws = (low: number, zero: number, high: number) => [
    ...new Array(low).fill(-1),
    ...new Array(zero).fill(0),
    ...new Array(high).fill(1),
  ];
  assert.equal(bootstrapP(draws(0, 0, 999)), 2 / 1000);
  assert.equal(bootstrapP(draws(9, 0, 990)), 20 / 1000);
  assert.equal(bootstrapP(draws(990, 0, 9)), 20 / 1000);
  assert.equal(bootstrapP(draws(4, 5, 990)), 20 / 1000);
  assert.equal(bootstrapP(draws(0, 999, 0)), 1);
  assert.equal(bootstrapP([...draws(0, 0, 9), NaN, NaN]), 2 / 10);
  assert.equal(bootstrapP([NaN]), NaN);
});

Deno.test("bootstrapP() of a mean is the p-value of the normal test", () => {
  const random = new Random(2, "mean");
  const n = 300;
  const values = Array.from({ length: n }, () => random.normal());
  const average = values.reduce((a, b) => a + b) / n;
  const error = Math.sqrt(values.reduce((sum, v) => sum + (v - average) ** 2, 0)) / n;
  // [distance in standard errors, two-sided p of the normal distribution]
  for (const [z, p] of [[0, 1], [1, 0.3173], [1.96, 0.05], [2.576, 0.01]]) {
    const shifted = values.map((value) => value - average + z! * error);
    const draws = Array.from({ length: 4000 }, (_, i) => {
      const resample = new Random(7, "resample", i);
      let sum = 0;
      for (let j = 0; j < n; j++) sum += shifted[resample.integer(n)]!;
      return sum / n;
    });
    // Three standard errors of a share of 4000 resamples, twice.
    const atol = 2 * 3 * Math.sqrt(p! / 2 * (1 - p! / 2) / 4000);
    assertClose([bootstrapP(draws)], [p!], { atol }, `z = ${z}`);
  }
});

Deno.test("holm() by hand, and as the closed test of Bonferroni's", () => {
  const close = (actual: number[], expected: number[]) =>
    assertClose(actual, expected, { rtol: 1e-12 }, "adjusted");
  close(holm([0.01, 0.04, 0.03, 0.005]), [0.03, 0.06, 0.06, 0.02]);
  close(holm([0.02, NaN, 0.02]), [0.04, NaN, 0.04]);
  close(holm([0.6, 0.9]), [1, 1]);
  assert.deepEqual(holm([]), []);
  const random = new Random(3, "holm");
  for (let trial = 0; trial < 50; trial++) {
    const p = Array.from({ length: 6 }, () => random.uniform() ** 3);
    const adjusted = p.map((_, i) => {
      // A hypothesis falls when every set of hypotheses that holds it falls.
      let most = 0;
      for (let set = 0; set < 64; set++) {
        if ((set >> i & 1) === 0) continue;
        const members = p.filter((_, j) => (set >> j & 1) === 1);
        most = Math.max(most, Math.min(1, members.length * Math.min(...members)));
      }
      return most;
    });
    close(holm(p), adjusted);
  }
});

/** Every metric of a classifier, by the definitions of metrics.ts. */
function naive(cell: ScoreCell, target: Target, counts: Uint32Array): number[] {
  const { labels, apart } = target;
  const k = labels.length;
  const truth = target.test.targets.map((value, i) =>
    apart.includes(labels[i % k]!) ? NaN : value ?? NaN
  );
  const { probabilities, thresholds } = cell.best;
  const predictions = atThresholds(probabilities, thresholds);
  const macro = (
    metric: (a: Float64Array, b: Float64Array, counts: Uint32Array) => number,
    values: ArrayLike<number>,
  ) =>
    macroMean(
      labels.map((_, label) =>
        metric(columnOf(values, k, label), columnOf(truth, k, label), counts)
      ),
    ).mean;
  const ranked = (of: (ranking: Ranking, counts: Uint32Array) => number) =>
    macro((a, b, counts) => of(new Ranking(a, b), counts), probabilities);
  return [
    ranked((ranking, counts) => ranking.auroc(counts)),
    ranked((ranking, counts) => ranking.averagePrecision(counts)),
    accuracy(predictions, truth, counts),
    macro(f1, predictions),
    macro(brierScore, probabilities),
    macro(expectedCalibrationError, probabilities),
  ];
}

Deno.test("resultsOf() averages over seeds within each resample of patients, and pairs differences", () => {
  const study = makeStudy({ ...SMALL, separation: (arm) => arm.set === null ? 1 : 1.6 });
  const { target } = study;
  const results = resultsOf(study, { resamples: 40 })!;
  const seedsOf = (name: string) =>
    study.cells.filter((cell): cell is ScoreCell =>
      cell.kind === "finetune" && nameOf(cell) === name
    );
  const [ours, scratch] = [seedsOf("simclr-stl10"), seedsOf("scratch")];
  assert.equal(ours.length, 2);
  const mean = (cells: readonly ScoreCell[], counts: Uint32Array) => {
    const each = cells.map((cell) => naive(cell, target, counts));
    return METRIC_NAMES.map((_, i) => (each[0]![i]! + each[1]![i]!) / 2);
  };
  const expected = bootstrap(target.test.patients.map(String), (counts) => {
    const [a, b] = [mean(ours, counts), mean(scratch, counts)];
    return { figures: a, differences: a.map((value, i) => value - b[i]!) };
  }, { resamples: 40 });
  const entry = results.entries.find((entry) =>
    entry.arm.name === "simclr-stl10" && entry.protocol === "finetune" && entry.epoch === "best"
  )!;
  METRIC_NAMES.forEach((metric, i) => {
    const numbers = ({ estimate, low, high }: { estimate: number; low: number; high: number }) => [
      estimate,
      low,
      high,
    ];
    const close = (actual: number[], wanted: number[]) =>
      assertClose(actual, wanted, { rtol: 1e-9, atol: 1e-12 }, metric);
    close(numbers(entry.figures[metric]), numbers(expected.figures[i]!));
    const { difference, seeds } = (() => {
      const found = results.comparisons.find((comparison) =>
        comparison.arm.name === "simclr-stl10" && comparison.protocol === "finetune" &&
        comparison.epoch === "best" && comparison.metric === metric
      )!;
      return { difference: found.difference, seeds: found.difference.seeds };
    })();
    close(numbers(difference), numbers(expected.differences[i]!));
    const once = new Uint32Array(target.test.ids.length).fill(1);
    const alone = ours.map((cell) => naive(cell, target, once)[i]!);
    close(entry.figures[metric].seeds.map(({ value }) => value), alone);
    close(
      seeds.map(({ value }) => value),
      alone.map((value, seed) => value - naive(scratch[seed]!, target, once)[i]!),
    );
  });
});

Deno.test("a much better arm is discernible, an equal one in about one study of twenty", () => {
  let [better, equal] = [0, 0];
  const trials = 100;
  for (let seed = 0; seed < trials; seed++) {
    const study = makeStudy({
      seed,
      seeds: [seed],
      patients: 50,
      labels: ["Pneumonia"],
      config: {
        ...SMALL.config,
        sets: { a: { title: "A", data: "a" }, b: { title: "B", data: "b" } },
        pretraining: {
          views: 1,
          methods: { simclr: { on: ["a"], flags: {} }, kmeans: { on: ["b"], flags: {} } },
        },
        protocols: ["knn"],
      },
      separation: (arm) => arm.method === "simclr" ? 3.5 : 1,
    });
    const results = resultsOf(study, { resamples: 300 })!;
    const test = (name: string) =>
      results.comparisons.find((comparison) =>
        comparison.arm.name === name && comparison.metric === "auroc" &&
        comparison.baseline === "untrained"
      )!;
    if (test("simclr-a").verdict === "better") better++;
    if (test("kmeans-b").p < 0.05) equal++;
  }
  assert.equal(better, trials);
  // A test at 5 % errs 5 times of 100, 11 times or more with a probability of 0.01.
  assert.ok(equal >= 1 && equal <= 11, `${equal} of ${trials}`);
});

Deno.test("comparisons: fine-tuning with scratch of the same width, frozen features with untrained and pixels", () => {
  const study = makeStudy({ patients: 20 });
  const arms: Arm[] = study.cells.map(({ arm }) => arm);
  const wide = arms.find(({ name }) => name === "scratch-64")!;
  const imagenet = study.cells.filter(({ arm }) => arm.name === "scratch-64")
    .map((cell): Cell => ({ ...cell, arm: { ...wide, name: "imagenet", method: "imagenet" } }));
  const results = resultsOf({ ...study, cells: [...study.cells, ...imagenet] }, { resamples: 50 })!;
  const pairs = new Set(
    results.comparisons.map(({ arm, against, protocol, baseline }) =>
      `${arm.name} ${protocol} ${baseline} ${against.name}`
    ),
  );
  assert.ok(pairs.has("imagenet finetune scratch scratch-64"));
  assert.ok(pairs.has("imagenet knn untrained scratch-64"));
  assert.ok(pairs.has("imagenet knn pixels pixels"));
  assert.ok(pairs.has("micle-xrays finetune scratch scratch"));
  assert.ok(pairs.has("micle-xrays linear pixels pixels"));
  assert.ok(![...pairs].some((pair) => /^(scratch|pixels)|finetune pixels/.test(pair)));
  // ImageNet's cells are copies of its baseline's: no difference, whatever the resample.
  const copies = results.comparisons.filter(({ arm, baseline }) =>
    arm.name === "imagenet" && baseline !== "pixels"
  );
  for (const { difference, p, verdict } of copies) {
    assert.deepEqual([difference.estimate, difference.low, difference.high], [0, 0, 0]);
    assert.deepEqual([p, verdict], [1, "not discernible"]);
  }
  // One seed of pixels is the partner of every seed.
  const pixels = results.comparisons.find(({ baseline }) => baseline === "pixels")!;
  assert.deepEqual(pixels.difference.seeds.map(({ seed }) => seed), [0, 1, 2]);

  const families = Map.groupBy(
    results.comparisons,
    ({ protocol, fraction, epoch, metric, baseline }) =>
      `${protocol} ${fraction} ${epoch} ${metric} ${baseline}`,
  );
  // Fine-tuning: 2 fractions × 2 epochs; frozen: 2 protocols × 2 fractions × 2 baselines.
  assert.equal(families.size, 6 * (2 * 2 + 2 * 2 * 2));
  for (const family of families.values()) {
    assert.equal(family.length, 9);
    assert.deepEqual(family.map(({ corrected }) => corrected), holm(family.map(({ p }) => p)));
    assert.ok(family.every((test) => test.family === 9));
  }
});

Deno.test("verdicts read errors the other way round: a lower Brier score is better", () => {
  const study = makeStudy({
    ...SMALL,
    seeds: [0],
    patients: 150,
    separation: (arm) => arm.set === null ? 0.5 : 4,
  });
  const results = resultsOf(study, { resamples: 200 })!;
  const verdict = (metric: string) =>
    results.comparisons.find((test: Comparison) =>
      test.metric === metric && test.protocol === "finetune"
    )!;
  assert.ok(verdict("auroc").difference.high > 0 && verdict("brier").difference.high < 0);
  assert.equal(verdict("auroc").verdict, "better");
  assert.equal(verdict("brier").verdict, "better");
});

Deno.test("resultsOf() scores labels within each source as if there were no other", () => {
  const study = makeStudy(SMALL);
  const { target, cells } = study;
  const results = resultsOf(study, { resamples: 10 })!;
  assert.deepEqual(results.sources.map(({ name }) => name).toSorted(), ["clinic A", "clinic B"]);
  const rows = target.test.sources.flatMap((source, row) => source === "clinic B" ? [row] : []);
  const cell = cells.find((cell) => cell.kind === "knn" && cell.arm.name === "simclr-stl10");
  const found = results.labels.find(({ arm, protocol, source }) =>
    arm.name === "simclr-stl10" && protocol === "knn" && source === "clinic B"
  )!;
  const k = target.labels.length;
  const take = (matrix: readonly (number | null)[]) => takeRows(matrix as number[], k, rows);
  const [scores, truth] = [take((cell as ScoreCell).best.probabilities), take(target.test.targets)];
  const expected = target.labels.map((_, label) =>
    auroc(columnOf(scores, k, label), columnOf(truth, k, label))
  );
  assertClose(
    found.labels.map(({ seeds }) => seeds[0]!.value),
    expected,
    { rtol: 1e-12 },
    "labels",
  );
  const macro = (expected[0]! + expected[1]!) / 2;
  assertClose([found.macro.seeds[0]!.value], [macro], { rtol: 1e-12 }, "macro");
});

Deno.test("the constant predictor and the one that knows only the source", () => {
  const study = makeStudy(SMALL);
  const { target } = study;
  const results = resultsOf(study, { resamples: 20 })!;
  assert.deepEqual(
    [results.constant.auroc.estimate, results.constant.auroc.low, results.constant.auroc.high],
    [0.5, 0.5, 0.5],
  );
  const counted = target.test.targets.filter((_, i) => i % 3 !== 2);
  const absent = counted.filter((value) => value === 0).length / counted.length;
  assertClose([results.constant.accuracy.estimate], [absent], { rtol: 1e-12 }, "constant");
  const known = target.test.sources.map((source) => source === "clinic A" ? 0.55 : 0.35);
  const truth = [0, 1].map((label) => columnOf(target.test.targets as number[], 3, label));
  const expected = truth.reduce((sum, column) => sum + auroc(known, column) / 2, 0);
  assertClose([results.sourceOnly!.auroc.estimate], [expected], { rtol: 1e-12 }, "source");
  assert.ok(expected > 0.5);
  const precision = truth.reduce((sum, column) => sum + averagePrecision(known, column) / 2, 0);
  assertClose([results.sourceOnly!.ap.estimate], [precision], { rtol: 1e-12 }, "precision");
  const { sourcePrevalence: _, ...unknown } = target;
  assert.equal(resultsOf({ ...study, target: unknown }, { resamples: 1 })!.sourceOnly, null);
});

Deno.test("cells that are not there are not run, and missing seeds are counted", () => {
  const study = makeStudy({ patients: 20 });
  const without = (id: string) => (cell: Cell) => cellId(cell) !== id;
  const cells = study.cells.filter(without("simclr-stl10.finetune.100.s1"))
    .filter(({ arm, kind }) => arm.name !== "kmeans-xrays" || kind !== "finetune");
  const results = resultsOf({ ...study, cells }, { resamples: 10 })!;
  const selection = { protocol: "finetune", fraction: 1, epoch: "best", metric: "auroc" } as const;
  const { columns, rows } = layoutOf(results, selection);
  assert.deepEqual(columns, ["none", "STL-10", "chest X-rays"]);
  const row = (title: string) => rows.find((row) => row.title === title)!.cells;
  assert.equal(row("ImageNet weights, width 64")[0], "not run");
  assert.equal(row("K-means")[2], "not run");
  assert.equal(row("MICLe")[1], "");
  assert.equal((row("SimCLR")[1] as Measured).missing, 1);
  assert.equal((row("SimCLR")[2] as Measured).missing, 0);
  assert.equal((row("Raw pixels, kNN")[0] as Measured).missing, 0);
  const difference = results.comparisons.find(({ arm, protocol }) =>
    arm.name === "simclr-stl10" && protocol === "finetune"
  )!;
  assert.deepEqual(difference.difference.seeds.map(({ seed }) => seed), [0, 2]);
  assert.match(tableMarkdown(results), /\| ImageNet weights, width 64 \| not run \|/);
  assert.match(tableMarkdown(results), /1 of 3 seeds not run/);
});

Deno.test("a study without cells has no results, and one with a first cell has some", () => {
  const study = makeStudy(SMALL);
  assert.equal(resultsOf({ ...study, target: null, cells: [] }), null);
  const none = resultsOf({ ...study, cells: [] }, { resamples: 5 })!;
  assert.deepEqual(none.entries, []);
  const scratch = study.cells.filter(({ arm }) => arm.name === "scratch").slice(0, 1);
  const one = resultsOf({ ...study, cells: scratch }, { resamples: 5 })!;
  assert.deepEqual(one.entries.map(({ epoch }) => epoch), ["best", "last"]);
  assert.deepEqual(one.comparisons, []);
});

Deno.test("readStudy() reads what was written", async () => {
  const study = makeStudy(SMALL);
  await withFiles(studyFiles(study), (dir) => {
    const read = readStudy(dir);
    assert.deepEqual(read.config, study.config);
    assert.deepEqual(read.target, study.target);
    const byName = (a: Cell, b: Cell) => cellId(a) < cellId(b) ? -1 : 1;
    assert.deepEqual(read.cells.toSorted(byName), study.cells.toSorted(byName));
  });
  await withFiles({ "study.json": studyFiles(study)["study.json"]! }, (dir) => {
    assert.deepEqual(readStudy(dir).cells, []);
  });
});

Deno.test("readStudy() names the file and the field of what is damaged", async () => {
  const study = makeStudy(SMALL);
  const files = studyFiles(study);
  const id = "simclr-stl10.finetune.100.s0";
  const cell = JSON.parse(files[`cells/${id}.json`]!);
  const damaged = (change: Record<string, unknown>) => ({
    ...files,
    [`cells/${id}.json`]: JSON.stringify({ ...cell, ...change }),
  });
  const shorter = { ...cell.best, probabilities: cell.best.probabilities.slice(1) };
  const count = cell.best.probabilities.length;
  const cases: [Record<string, string>, RegExp][] = [
    [damaged({ kind: "svm" }), /s0\.json: kind: expected one of pretrain, .* got "svm"$/],
    [
      damaged({ best: shorter }),
      new RegExp(`best\\.probabilities: ${count - 1} numbers, expected ${count}$`),
    ],
    [
      damaged({ best: { ...cell.best, probabilities: [...shorter.probabilities, 1.5] } }),
      /best\.probabilities: expected \d+ numbers in 0…1, got .{1,60}$/,
    ],
    [damaged({ last: undefined }), /last: expected an object, got nothing$/],
    [damaged({ arm: { ...cell.arm, set: 3 } }), /arm\.set: expected text or null, got 3$/],
    [damaged({ seed: "0" }), /seed: expected a number ≥ 0, got "0"$/],
    [damaged({ seed: 1 }), /holds the cell simclr-stl10\.finetune\.100\.s1; rename or remove it$/],
    [damaged({ origin: null }), /origin: expected an object, got null$/],
    [{ ...files, [`cells/${id}.json`]: '{"kind": ' }, /s0\.json: .*JSON/],
    [{ ...files, "target.json": "[]" }, /target\.json: expected a JSON object$/],
    [
      { ...files, "target.json": JSON.stringify({ ...study.target, prevalence: [0.5] }) },
      /target\.json: prevalence: 1 numbers, expected 3$/,
    ],
    [
      { ...files, "study.json": JSON.stringify({ ...study.config, seeds: [0.5] }) },
      /study\.json: seeds: expected a list of integers, got \[0\.5\]$/,
    ],
  ];
  for (const [content, message] of cases) {
    await withFiles(content, (dir) => {
      assert.throws(() => readStudy(dir), (error: Error) => {
        assert.equal(error.name, "UserError");
        assert.match(error.message, message);
        assert.ok(!error.message.includes("\n"));
        return true;
      });
    });
  }
  const { "target.json": _, ...rest } = files;
  await withFiles(rest, (dir) => {
    assert.throws(() => readStudy(dir), /target\.json: missing, but there are cells/);
  });
  await withFiles({}, (dir) => {
    assert.throws(() => readStudy(dir), /not a study, it holds no study\.json/);
    assert.throws(() => readCell(`${dir}/none.json`, study.target), /none\.json: no such file/);
  });
});

Deno.test("resultsCsv() is tidy, and names with commas and quotes stay in their fields", () => {
  const study = makeStudy(SMALL);
  const evil = 'a,"b"';
  const cells = study.cells.map((cell): Cell =>
    cell.arm.set === null ? cell : { ...cell, arm: { ...cell.arm, set: evil } }
  );
  const results = resultsOf({ ...study, cells } as Study, { resamples: 10 })!;
  const [head, ...rows] = resultsCsv(results).trimEnd().split("\n");
  assert.equal(head!.split(",").length, 14);
  const unquoted = (row: string) => row.replaceAll('"a,""b"""', "evil").split(",");
  assert.ok(rows.every((row) => unquoted(row).length === 14));
  const expected = results.entries.length * METRIC_NAMES.length + 2 * METRIC_NAMES.length;
  assert.equal(rows.length, expected);
  const entry = results.entries.find(({ arm }) => arm.name === "scratch")!;
  const [estimate, values] = [8, 12].map((column) =>
    unquoted(rows.find((row) => row.startsWith("scratch,"))!)[column]
  );
  assert.equal(Number(estimate), Number(entry.figures.auroc.estimate.toPrecision(6)));
  assert.equal(values!.split(" ").length, 2);
});

Deno.test("tableMarkdown() keeps its columns, whatever sets are called", () => {
  const sets = { stl10: { title: "<b>|x`\n", data: "a" } };
  const study = makeStudy({ ...SMALL, config: { ...SMALL.config, sets } });
  const markdown = tableMarkdown(resultsOf(study, { resamples: 10 })!);
  assert.ok(!markdown.includes("<b>"));
  const tables = markdown.split("\n\n").filter((block) => block.startsWith("|"));
  assert.ok(tables.length > 6);
  for (const table of tables) {
    const columns = table.trimEnd().split("\n").map((line) =>
      line.replaceAll("\\|", "").split("|").length
    );
    assert.equal(new Set(columns).size, 1, table);
  }
});
