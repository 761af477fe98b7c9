import assert from "node:assert/strict";
import { join } from "node:path";
import { runCommand } from "../src/commands/command.ts";
import { command } from "../src/commands/compare.ts";
import { compareRuns, comparisonPage } from "../src/report/compare.ts";
import type { JsonObject, MetricsRow } from "../src/run_folder.ts";
import { withFiles } from "./support/files.ts";
import { assertBalanced, assertNamed, assertSelfContained } from "./support/html.ts";

const run = (path: string, config: JsonObject, metrics: readonly MetricsRow[]) => ({
  path,
  readConfig: () => config,
  readMetrics: () => metrics,
  has: () => false,
  read: (): Uint8Array => assert.fail("there is nothing to read"),
});

/** Two epochs of two steps. */
const metrics = (loss: number, auroc: readonly [number, number]): MetricsRow[] => [
  { step: 1, epoch: 0.5, loss: loss + 2, images_per_s: 100 },
  { step: 2, epoch: 1, loss: loss + 1, images_per_s: 120, knn: { auroc: auroc[0] } },
  { step: 3, epoch: 1.5, loss, images_per_s: 110 },
  { step: 4, epoch: 2, loss: loss + 0.5, images_per_s: null, knn: { auroc: auroc[1] } },
];

const RUNS = [
  run("runs/a", {
    method: "simclr",
    lr: 0.1,
    adapter: { description: "llvmpipe" },
    started: "1",
    views: { crop: 0.2, flips: [0, 1] },
  }, metrics(3, [0.8, 0.7])),
  run("runs/b", {
    method: "simclr",
    lr: 0.2,
    adapter: { description: "llvmpipe" },
    started: "2",
    views: { crop: 0.2, flips: [0] },
    clusters: null,
  }, metrics(2, [0.6, 0.75])),
];

Deno.test("compareRuns() lists the settings that differ, and only those", () => {
  const { names, settings } = compareRuns(RUNS);
  assert.deepEqual(names, ["a", "b"]);
  assert.deepEqual(settings, [
    { name: "lr", values: ["0.1", "0.2"] },
    { name: "views.flips", values: ["0, 1", "0"] },
    { name: "clusters", values: [null, "none"] },
  ]);
});

Deno.test("compareRuns() gives last and best, and the curves", () => {
  const { measures, charts } = compareRuns(RUNS);
  assert.deepEqual(measures, [
    { name: "steps", values: [4, 4] },
    { name: "epochs", values: [2, 2] },
    { name: "Loss, mean of the last epoch", values: [3.25, 2.25] },
    { name: "kNN AUROC, last", values: [0.7, 0.75] },
    { name: "kNN AUROC, best", values: [0.8, 0.75] },
    { name: "images per second, median", values: [110, 110] },
  ]);
  assert.deepEqual(charts.map(({ title }) => title), ["Loss", "kNN AUROC"]);
  assert.deepEqual(charts[0]!.series.map(({ name }) => name), ["a", "b"]);
  assert.deepEqual(charts[0]!.series[1]!.points, [[1, 4], [2, 3], [3, 2], [4, 2.5]]);
});

Deno.test("compareRuns() of runs without metrics, of another kind and of one name", () => {
  const tuned = run("studies/a", { method: "finetune" }, [
    { step: 5, epoch: 1, loss: null, validation: { auroc: 0.9 } },
  ]);
  const { names, measures, charts } = compareRuns([RUNS[0]!, tuned, run("runs/new", {}, [])]);
  assert.deepEqual(names, ["runs/a", "studies/a", "runs/new"]);
  const values = (name: string) => measures.find((row) => row.name === name)!.values;
  assert.deepEqual(values("Loss, mean of the last epoch"), [3.25, null, null]);
  assert.deepEqual(values("Validation AUROC, best"), [null, 0.9, null]);
  assert.deepEqual(charts.at(-1)!.series.map(({ name }) => name), ["studies/a"]);
});

Deno.test("comparisonPage() is one valid file that escapes names", () => {
  const evil = `<script>"1"&`;
  const runs = [...RUNS, run(evil, { [evil]: evil }, metrics(1, [0.5, 0.6]))];
  const html = comparisonPage(compareRuns(runs));
  assertBalanced(html);
  assertSelfContained(html);
  assertNamed(html.replaceAll('<svg viewBox="0 0 100 100"', '<svg aria-hidden="true"'));
  assert.match(html, /<h3>Loss<\/h3>/);
  assert.match(
    html,
    /<th scope="row">lr<\/th><td>0\.1<\/td><td>0\.2<\/td><td class="number">–<\/td>/,
  );
  assert.match(
    comparisonPage(compareRuns([RUNS[0]!, { ...RUNS[0]!, path: "c" }])),
    /started with the same/,
  );
});

Deno.test("compare prints tables, writes the page, and refuses what is no run", async () => {
  const lines = (rows: readonly MetricsRow[]) =>
    rows.map((row) => JSON.stringify(row) + "\n").join("");
  const files = Object.fromEntries(RUNS.flatMap(({ path, readConfig, readMetrics }) => [
    [`${path}/config.json`, JSON.stringify(readConfig())],
    [`${path}/metrics.jsonl`, lines(readMetrics())],
  ]));
  await withFiles(files, async (dir) => {
    const [a, b, out] = ["runs/a", "runs/b", "compare.html"].map((name) => join(dir, name)) as [
      string,
      string,
      string,
    ];
    const printed: string[] = [];
    const { log } = console;
    console.log = (line: string) => printed.push(line);
    try {
      assert.equal(await runCommand(command, [a, b, "--out", out]), 0);
    } finally {
      console.log = log;
    }
    assert.deepEqual(printed.join("\n").split("\n"), [
      "                                 a     b",
      "steps                            4     4",
      "epochs                           2     2",
      "Loss, mean of the last epoch  3.25  2.25",
      "kNN AUROC, last                0.7  0.75",
      "kNN AUROC, best                0.8  0.75",
      "images per second, median      110   110",
      "",
      "where they differ",
      "                a     b",
      "lr            0.1   0.2",
      "views.flips  0, 1     0",
      "clusters        –  none",
      "",
      out,
    ]);
    assert.match(Deno.readTextFileSync(out), /<title>2 runs side by side<\/title>/);
    const fails = (args: string[], message: RegExp) =>
      assert.rejects(runCommand(command, args), message);
    await fails([a], /RUN… is missing/);
    await fails([a, a], /is given twice/);
    await fails([a, dir], /not a run folder/);
  });
});
