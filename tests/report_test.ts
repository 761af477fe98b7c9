import assert from "node:assert/strict";
import { runCommand } from "../src/commands/command.ts";
import { command } from "../src/commands/report.ts";
import { lineChart, movingAverage, niceTicks, type Point, thin } from "../src/report/chart.ts";
import { formatNumber, table } from "../src/report/html.ts";
import { renderReport } from "../src/report/report.ts";
import { createRun, type MetricsRow } from "../src/run_folder.ts";
import { assertBalanced } from "./support/html.ts";

/** A run of 200 steps in 10 epochs. */
const METRICS: MetricsRow[] = Array.from({ length: 200 }, (_, i) => i + 1).flatMap((step) => [
  {
    step,
    epoch: step / 20,
    loss: 2 + 2 / step,
    lr: 0.001 * (1 - step / 200),
    std: 0.08,
    images_per_s: 100 + step % 7,
    gpu_bytes: 2 ** 20 * 64,
  },
  ...(step % 100 === 0
    ? [{ step, epoch: step / 20, knn: { auroc: 0.7 + step / 1000, accuracy: 0.8, constant: 0.79 } }]
    : []),
]);

const CONFIG = {
  method: "simclr",
  data: "phantom",
  labels: ["effusion", "nodule"],
  used: { splits: { train: 20 } },
  init: null,
  adapter: { description: "llvmpipe" },
  deno: "2.9.6",
  referenceLines: [
    { label: "floor", value: 1.5 },
    { measure: "std", label: "1/√d", value: 0.088 },
  ],
};

const render = (config: Record<string, unknown>, metrics: readonly MetricsRow[]) =>
  renderReport({
    path: "runs/simclr-1",
    readConfig: () => config,
    readMetrics: () => metrics,
    ...noSamples,
  });

/** The charts of a page by title: the text of each figure. */
function figures(html: string): Map<string, string> {
  return new Map(
    [...html.matchAll(/<figure[^]*?<h3>(.*?)<\/h3>[^]*?<\/figure>/g)].map(([all, title]) => [
      title!,
      all,
    ]),
  );
}

const noSamples = {
  has: () => false,
  read: (): Uint8Array => assert.fail("there is nothing to read"),
};

Deno.test("renderReport() shows samples with their caption", () => {
  const html = renderReport({
    path: "runs/autoencoder-1",
    readConfig: () => ({ samplesCaption: "Images & reconstructions" }),
    readMetrics: () => [],
    has: () => true,
    read: () => Uint8Array.of(0x89, 0x50, 0x4e, 0x47),
  });
  assert.match(
    html,
    /<img alt="Images &amp; reconstructions" src="data:image\/png;base64,iVBORw==">/,
  );
  assert.match(html, /<figcaption>Images &amp; reconstructions<\/figcaption>/);
});

Deno.test("renderReport() shows the charts of a run in order, with their lines and numbers", () => {
  const html = render(CONFIG, METRICS);
  assertBalanced(html);
  const charts = figures(html);
  assert.deepEqual([...charts.keys()], [
    "Loss",
    "kNN score",
    "Collapse monitor",
    "Learning rate",
    "Images per second",
  ]);
  assert.match(charts.get("Loss")!, /floor 1\.5<\/text>/);
  assert.match(
    charts.get("Loss")!,
    /<desc[^>]*>loss: from 4 at step 1 to 2\.01 at step 200; least 2\.01 at step 200, .* Line floor: 1\.5\.</,
  );
  assert.match(charts.get("Collapse monitor")!, /1\/√d 0\.088<\/text>/);
  assert.ok(!charts.get("Learning rate")!.includes('class="reference"'));
  assert.match(charts.get("kNN score")!, /<\/svg>accuracy of the constant predictor<\/li>/);
  assert.match(charts.get("kNN score")!, /<th scope="row" class="number">100<\/th>/);
  assert.match(html, /<dt>Loss<\/dt><dd>2\.011<small>/);
  assert.match(html, /<dt>kNN AUROC<\/dt><dd>0\.9<small>/);
  assert.match(html, /<dt>GPU memory<\/dt><dd>64<small>/);
  assert.match(html, /<p>simclr · phantom · 10 epochs, 200 steps<\/p>/);
});

Deno.test("renderReport() lists configuration and environment apart", () => {
  const html = render(CONFIG, METRICS);
  const [configuration, environment] = html.split("<h3>Configuration</h3>")[1]!
    .split("<h3>Environment</h3>");
  assert.match(configuration!, /labels<\/th><td>effusion, nodule<\/td>/);
  assert.match(configuration!, /used\.splits\.train<\/th><td>20<\/td>/);
  assert.match(configuration!, /init<\/th><td>none<\/td>/);
  assert.match(environment!, /adapter\.description<\/th><td>llvmpipe<\/td>/);
  assert.ok(!html.includes("referenceLines"));
});

Deno.test("renderReport() needs no scripts and no network", () => {
  const html = render(CONFIG, METRICS);
  assert.ok(!/<script|<iframe|<img|@import|url\(|javascript:|https?:/i.test(html));
  for (const [, target] of html.matchAll(/(?:href|src)="([^"]*)"/g)) assert.equal(target, "data:,");
});

Deno.test("renderReport() says its charts to screen readers", () => {
  const html = render(CONFIG, METRICS);
  const ids = [...html.matchAll(/ id="([^"]*)"/g)].map(([, id]) => id!);
  assert.equal(new Set(ids).size, ids.length);
  const labels = [...html.matchAll(/role="img" aria-labelledby="([^"]*)"/g)];
  assert.equal(labels.length, 5);
  for (const id of labels.flatMap(([, label]) => label!.split(" "))) assert.ok(ids.includes(id));
  for (const [title, figure] of figures(html)) {
    assert.ok(figure.includes(`<summary>${title} as a table`), title);
  }
});

Deno.test("renderReport() escapes what stands in the configuration", () => {
  const evil = '<script>alert("1")</script>&amp;';
  const html = renderReport({
    path: `runs/${"<b>"}`,
    readConfig: () => ({
      method: evil,
      [evil]: evil,
      referenceLines: [{ label: evil, value: 1 }],
    }),
    readMetrics: () => [{ step: 1, epoch: 1, loss: 2, [evil]: { [evil]: 1, other: 2 } }],
    ...noSamples,
  });
  assert.ok(!html.includes("<script"));
  assert.ok(!html.includes("<b>"));
  assert.ok(html.includes("&lt;script&gt;alert(&quot;1&quot;)&lt;/script&gt;&amp;amp;"));
  assertBalanced(html);
});

Deno.test("renderReport() of an empty, a one-step and a diverged run", () => {
  assert.match(render({}, []), /No metrics have been logged yet/);
  assertBalanced(render({}, []));
  const one = render({ method: "simclr" }, [{ step: 1, epoch: 1, loss: 4 }]);
  assert.deepEqual([...figures(one).keys()], ["Loss"]);
  assert.match(one, /cx="100%"/);
  const diverged = render({}, [{ step: 1, epoch: 0.5, loss: null }, {
    step: 2,
    epoch: 1,
    loss: null,
  }]);
  assert.match(diverged, /<desc[^>]*>loss: no values\.</);
  assert.match(diverged, /<td class="number">–<\/td>/);
  for (const html of [one, diverged]) {
    assert.ok(!/NaN|Infinity|undefined/.test(html));
    assertBalanced(html);
  }
});

Deno.test("renderReport() of a long run stays small", () => {
  const rows = Array.from({ length: 200_000 }, (_, i) => ({
    step: i + 1,
    epoch: (i + 1) / 1000,
    loss: i % 10,
    gpu_bytes: 1,
  }));
  const html = render({}, rows);
  assert.match(html, /Loss as a table, 100 of 200000 rows/);
  assert.ok(html.length < 100_000, `${html.length} characters`);
});

Deno.test("renderReport() draws measures that a method adds", () => {
  const html = render(
    {},
    [1, 2, 3].map((step) => ({
      step,
      epoch: step,
      nmi: 0.1 * step,
      cluster_sizes: { least: step, greatest: 10 },
    })),
  );
  const charts = figures(html);
  assert.deepEqual([...charts.keys()], ["nmi", "cluster sizes"]);
  assert.match(charts.get("cluster sizes")!, /<\/svg>greatest<\/li>/);
});

Deno.test("lineChart() places points, ticks and lines", () => {
  const svg = lineChart("c", {
    title: "t",
    caption: "",
    x: "step",
    series: [{ name: "a", points: [[0, 0], [50, null], [75, 1], [100, 4]] }],
    references: [{ label: "line", value: 3 }],
  });
  // The y axis goes from 0 to 4 in five ticks, the x axis from 0 to 100.
  assert.match(svg, /<path class="curve s1" d="M0 100h0M75 75h0L100 0"\/>/);
  assert.match(svg, /class="reference" x2="100%" y1="25%" y2="25%"/);
  assert.match(svg, /x="-8" y="75%"[^>]*>1<\/text>/);
  assert.match(svg, /<text x="20%" y="100%"[^>]*>20<\/text>/);
  assert.match(svg, /cx="75%" cy="75%" r="3.5"><title>a 1, step 75<\/title>/);
  // The line is farther from the beginning of the curve than from its end.
  assert.match(svg, /class="label" x="0" y="25%"[^>]*text-anchor="start">line 3<\/text>/);
});

Deno.test("lineChart() draws long noisy curves faint under their moving average", () => {
  const points = Array.from({ length: 5000 }, (_, i): Point => [i, i % 2]);
  const chart = { title: "t", caption: "", x: "step", series: [{ name: "a", points }] };
  assert.equal([...lineChart("c", chart).matchAll(/<path/g)].length, 1);
  const noisy = lineChart("c", { ...chart, noisy: true });
  assert.equal([...noisy.matchAll(/<path class="curve s1 faint"/g)].length, 1);
  assert.equal([...noisy.matchAll(/<path/g)].length, 2);
  assert.match(noisy, /t as a table, 100 of 5000 rows/);
  assert.ok(noisy.length < 60_000, `${noisy.length} characters`);
});

Deno.test("niceTicks() are round, evenly apart, and enclose the range", () => {
  assert.deepEqual(niceTicks(0, 4), [0, 1, 2, 3, 4]);
  assert.deepEqual(niceTicks(0.13, 0.87), [0, 0.2, 0.4, 0.6, 0.8, 1]);
  assert.deepEqual(niceTicks(-0.3, 0.3), [-0.4, -0.2, 0, 0.2, 0.4]);
  assert.deepEqual(niceTicks(0, 0.0021), [0, 0.0005, 0.001, 0.0015, 0.002, 0.0025]);
  for (const [low, high] of [[3, 3], [0, 0], [-2, -2], [1e-7, 3e-7], [0, 123456], [99.9, 100]]) {
    const ticks = niceTicks(low!, high!);
    assert.ok(ticks[0]! <= low! && ticks.at(-1)! >= high!, `${low} to ${high}: ${ticks}`);
    assert.ok(ticks.length >= 2 && ticks.length <= 8, `${low} to ${high}: ${ticks}`);
    const step = ticks[1]! - ticks[0]!;
    assert.ok(step > 0);
    ticks.forEach((tick, i) =>
      assert.ok(Math.abs(tick - ticks[0]! - i * step) < 1e-9 * Math.max(step, Math.abs(tick)))
    );
  }
});

Deno.test("thin() keeps the outline, the ends of gaps and the order", () => {
  const points = Array.from({ length: 10_000 }, (_, i): Point => [i, Math.sin(i / 500)]);
  points[5000] = [5000, 99];
  points[7000] = [7000, null];
  const thinned = thin(points, 100);
  assert.ok(thinned.length <= 102);
  assert.ok(thinned.some(([x, y]) => x === 5000 && y === 99));
  assert.ok(thinned.some(([x, y]) => x === 7000 && y === null));
  assert.ok(thinned.every(([x], i) => i === 0 || thinned[i - 1]![0] < x));
  assert.equal(thin(points, 10_000), points);
});

Deno.test("movingAverage() is a mean over known neighbours", () => {
  const line = Array.from({ length: 200 }, (_, i): Point => [i, 2 * i]);
  const averaged = movingAverage(line);
  // A window of 2 to either side leaves a line as it is, but for the two ends.
  assert.deepEqual(averaged.slice(2, -2), line.slice(2, -2));
  assert.deepEqual(averaged[0], [0, 2]);
  assert.deepEqual(averaged[199], [199, 396]);
  const gap = line.map(([x], i): Point => [x, i >= 50 && i < 60 ? null : 1]);
  assert.equal(movingAverage(gap)[55]![1], null);
  assert.equal(movingAverage(gap)[51]![1], 1);
});

Deno.test("formatNumber() has four digits and keeps small numbers readable", () => {
  const cases: [number, string][] = [
    [0, "0"],
    [1234567, "1\u202f234\u202f567"],
    [12.3456, "12.35"],
    [0.00012345, "0.0001235"],
    [0.000012346, "1.235 × 10⁻⁵"],
    [-0.5, "−0.5"],
    [1e-12, "1 × 10⁻¹²"],
    [Infinity, "Infinity"],
  ];
  for (const [value, text] of cases) assert.equal(formatNumber(value), text);
});

Deno.test("table() marks headers and aligns numbers", () => {
  assert.equal(
    table(["step", "a&b"], [[1, null]]),
    '<div class="table"><table><thead><tr><th scope="col" class="number">step</th>' +
      '<th scope="col" class="number">a&amp;b</th></tr></thead><tbody><tr>' +
      '<th scope="row" class="number">1</th><td class="number">–</td></tr></tbody></table></div>',
  );
});

Deno.test("report writes report.html into the run folder", async () => {
  const root = await Deno.makeTempDir();
  const { log } = console;
  try {
    const run = createRun("simclr", undefined, root);
    run.writeConfig(CONFIG);
    for (const row of METRICS) run.log(row);
    const lines: string[] = [];
    console.log = (line: string) => lines.push(line);
    assert.equal(await runCommand(command, [run.path]), 0);
    assert.deepEqual(lines, [run.pathOf("report")]);
    const html = new TextDecoder().decode(run.read("report"));
    assert.equal(html, renderReport(run));
    assert.match(html, /<title>simclr-1 · training report<\/title>/);
    await assert.rejects(async () => await runCommand(command, [root]), /not a run folder/);
  } finally {
    console.log = log;
    await Deno.remove(root, { recursive: true });
  }
});
