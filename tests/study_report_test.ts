import assert from "node:assert/strict";
import { readdirSync } from "node:fs";
import { join } from "node:path";
import { runCommand } from "../src/commands/command.ts";
import { command } from "../src/commands/report.ts";
import { decodePng } from "../src/data/decode/png.ts";
import { auroc } from "../src/metrics.ts";
import type { ScoreCell, Target } from "../src/study/cell.ts";
import { chartsOf } from "../src/study/charts.ts";
import { precisionCurve, reliability, rocCurve } from "../src/study/curves.ts";
import { studyPage } from "../src/study/page.ts";
import { openDrawer } from "../src/study/plot.ts";
import type { Study } from "../src/study/read.ts";
import { readingOf } from "../src/study/reading.ts";
import { writeStudyReport } from "../src/study/report.ts";
import { resultsOf } from "../src/study/results.ts";
import { assertClose } from "./support/assert.ts";
import { findChromium, type View, visit } from "./support/browser.ts";
import { flatPng, withFiles } from "./support/files.ts";
import { assertBalanced, assertNamed, assertSelfContained } from "./support/html.ts";
import { makeStudy, studyFiles, type StudyOptions } from "./support/study.ts";

const decode = (bytes: Uint8Array) => new TextDecoder().decode(bytes);

/** The page of a study, without a folder. */
async function render(study: Study): Promise<string> {
  const results = resultsOf(study, { resamples: 60 })!;
  const material = { study, results };
  return studyPage(material, chartsOf(material), await openDrawer());
}

/** The page without its tags. */
const words = (html: string) =>
  html.replace(/<style>[^]*?<\/style>/, "").replace(/<[^>]*>/g, " ").replace(/\s+/g, " ");

Deno.test("writeStudyReport() leaves page, tables and figures, and report calls it", async () => {
  const methods = { autoencoder: { on: ["stl10"], flags: {} } };
  const study = makeStudy({
    patients: 24,
    seeds: [0, 1],
    config: { pretraining: { views: 100, methods }, protocols: ["finetune", "knn"] },
  });
  const files = {
    ...studyFiles(study),
    "pictures/autoencoder-stl10.gradcam.png": flatPng(10),
    "pretrain/autoencoder-stl10.s0/samples.png": flatPng(20),
    "pretrain/autoencoder-stl10.s1/samples.png": flatPng(30),
  };
  await withFiles(files, async (dir) => {
    const { log } = console;
    const lines: string[] = [];
    console.log = (line: string) => lines.push(line);
    try {
      assert.equal(await runCommand(command, [dir]), 0);
    } finally {
      console.log = log;
    }
    assert.deepEqual(lines, [join(dir, "report.html")]);
    const read = (name: string) => Deno.readFileSync(join(dir, name));
    const html = decode(read("report.html"));
    assert.match(html, /^<!doctype html>/);
    // Of a pretraining the samples of its first seed, and Grad-CAM of what is fine-tuned from it.
    const images = [...html.matchAll(/<img alt="([^"]*)"/g)].map(([, alt]) => alt);
    assert.deepEqual(images, [
      "Autoencoder, STL-10, seed 0. Samples",
      "Autoencoder, STL-10, fine-tuned: test images, and what speaks for a label of each (Grad-CAM).",
    ]);
    assert.match(decode(read("table.md")), /^# A made-up study\n/);
    assert.match(decode(read("results.csv")), /^arm,method,set,width,/);
    assert.match(decode(read("differences.csv")), /^arm,against,baseline,/);

    const charts = [...html.matchAll(/<figure class="chart study" id="([^"]*)"/g)]
      .map(([, id]) => id!);
    const figures = readdirSync(join(dir, "figures"));
    assert.deepEqual(
      figures.toSorted(),
      charts.flatMap((name) => [`${name}.png`, `${name}.svg`]).toSorted(),
    );
    for (const name of charts) {
      const svg = decode(read(`figures/${name}.svg`));
      assert.match(svg, /^<svg xmlns="http:\/\/www\.w3\.org\/2000\/svg" viewBox="0 0 \d+ [\d.]+"/);
      // Colours are its own, not those of a page.
      assert.ok(!/var\(|currentColor|<script|NaN|undefined/.test(svg), name);
      const { width, pixels } = decodePng(read(`figures/${name}.png`));
      assert.equal(width, 2 * Number(/width="(\d+)"/.exec(svg)![1]));
      assert.ok(new Set(pixels).size > 20, `${name} is empty`);
    }
  });
});

Deno.test("the page is one valid file without scripts, named to screen readers, with tables behind its charts", async () => {
  const html = await render(makeStudy({ patients: 24 }));
  assertBalanced(html);
  assertSelfContained(html);
  assertNamed(html);
  assert.ok(!/NaN|undefined|Infinity|\[object/.test(words(html)));
  const figures = [...html.matchAll(/<figure class="chart study"[^]*?<\/figure>/g)];
  assert.ok(figures.length > 15);
  for (const [figure] of figures) {
    const title = /<h3>(.*?)<\/h3>/.exec(figure)![1]!;
    assert.ok(figure.includes(`<summary>${title} as a table</summary><div class="table">`), title);
    assert.match(figure, /<tbody><tr>/);
    assert.match(figure, /<desc id="[^"]*">[^<]{20,}<\/desc>/);
  }
  const headings = [...html.matchAll(/<h2 id="(.*?)"/g)].map(([, id]) => id);
  assert.deepEqual(headings, [
    "reading",
    "comparison",
    "tables",
    "efficiency",
    "labels",
    "operating",
    "calibration",
    "learning",
    "maps",
    "made",
  ]);
});

Deno.test("a method keeps its colour in every chart", async () => {
  const html = await render(makeStudy({ patients: 24 }));
  const colors = new Map<string, Set<string>>();
  for (
    const [, hue, name] of html.matchAll(
      /(?:stroke|fill)="var\(--p-(\w+)\)"[^<>]*\/><\/svg>(.*?)<\/li>/g,
    )
  ) {
    const method = name!.split(",")[0]!;
    colors.set(method, (colors.get(method) ?? new Set()).add(hue!));
  }
  for (const method of ["SimCLR", "Autoencoder", "K-means", "MICLe", "Supervised"]) {
    assert.equal(colors.get(method)?.size, 1, method);
  }
  const each = ["SimCLR", "Autoencoder", "K-means", "MICLe", "Supervised"]
    .flatMap((method) => [...colors.get(method)!]);
  assert.equal(new Set(each).size, 5);
});

Deno.test("names are text, whatever they hold", async () => {
  const evil = `<script>alert("1")</script>&amp;'`;
  const study = makeStudy({
    patients: 24,
    labels: [evil, "Viral"],
    config: {
      title: evil,
      sets: {
        [evil]: { title: evil, data: evil, note: evil },
        other: { title: "*_`|", data: "x" },
      },
      pretraining: { views: 100, methods: { [evil]: { on: [evil], flags: { [evil]: evil } } } },
    },
  });
  const rename = <T extends Target>(target: T): T => ({
    ...target,
    sourcePrevalence: {},
    test: { ...target.test, sources: target.test.sources.map((source) => source + evil) },
  });
  const html = await render({ ...study, target: rename(study.target) });
  assertBalanced(html);
  assertSelfContained(html);
  assertNamed(html);
  assert.ok(html.includes("&lt;script&gt;alert(&quot;1&quot;)&lt;/script&gt;&amp;amp;"));
});

Deno.test("the page of a study without cells, with one cell and with pretrainings alone", async () => {
  const study = makeStudy({ patients: 24, seeds: [0] });
  await withFiles({ "study.json": studyFiles(study)["study.json"]! }, async (dir) => {
    await writeStudyReport(dir);
    const html = Deno.readTextFileSync(join(dir, "report.html"));
    assert.match(html, /No cell is finished yet/);
    assertBalanced(html);
  });
  const kinds = [
    study.cells.filter(({ kind }) => kind === "pretrain"),
    study.cells.filter(({ kind }) => kind === "knn").slice(0, 1),
    [],
  ];
  for (const cells of kinds) {
    const html = await render({ ...study, cells });
    assertBalanced(html);
    assertNamed(html);
    assert.ok(!/NaN|undefined|Infinity/.test(words(html)));
  }
});

Deno.test("losses and validation scores that are not finite leave gaps", async () => {
  const study = makeStudy({ patients: 24, seeds: [0] });
  const cells = JSON.parse(
    JSON.stringify(study.cells),
    (key, value) => key === "loss" && Array.isArray(value) ? value.map(([x]) => [x, null]) : value,
  );
  const html = await render({ ...study, cells });
  assertBalanced(html);
  assert.ok(!/NaN|undefined/.test(html.replace(/<style>[^]*?<\/style>/, "")));
});

/** The reading of a study of two pretrainings in two sets. */
function read(options: StudyOptions) {
  const config = {
    pretraining: {
      views: 10,
      methods: {
        simclr: { on: ["stl10", "xrays"], flags: {} },
        kmeans: { on: ["stl10", "xrays"], flags: {} },
      },
    },
  };
  const study = makeStudy({ patients: 120, seeds: [0, 1], ...options, config });
  return readingOf(resultsOf(study, { resamples: 300 })!);
}

Deno.test("readingOf() names what is discernible and claims nothing of the others", () => {
  const { findings, fewerLabels, context } = read({
    separation: ({ name }) => name === "simclr-xrays" ? 2.4 : name === "kmeans-stl10" ? 0.2 : 1,
  });
  assert.equal(findings.length, 3);
  assert.equal(fewerLabels.length, 3);
  assert.match(
    findings[0]!,
    /^Fine-tuned on all labels, 4 pretrained encoders: against training from scratch \(0\.\d{3}\), 1 \(SimCLR, chest X-rays \+0\.\d{3} \[\+0\.\d{3}, \+0\.\d{3}\]\) discernibly better, 1 \(K-means, STL-10 −0\.\d{3} \[.*\]\) worse, 2 not to be told apart\.$/,
  );
  assert.match(findings[2]!, /against the untrained encoder .*; against raw pixels \(0\.\d{3}\), /);
  assert.match(fewerLabels[0]!, /^Fine-tuned on 10 % of the labels, /);
  const all = context.join("\n");
  assert.match(
    all,
    /Raw pixels, without any encoder, score 0\.\d{3} .* by a linear probe and 0\.\d{3}/,
  );
  assert.match(
    all,
    /knows only which source .* AUROC of 0\.\d{3} .* within clinic A \(\d+ images\)/,
  );
  assert.match(all, /label-wise accuracy of 0\.\d{3}/);
  assert.match(all, /all 8 verdicts are the same\./);
  assert.match(all, /Not run, or not wholly: ImageNet weights, width 64\. The correction counts/);
  assert.match(all, /the 2 seeds trained here/);
  assert.ok(
    !/signific|proves|best\b|outperform/i.test([...findings, ...fewerLabels, all].join(" ")),
  );
});

Deno.test("readingOf() of equal arms says that no difference is discernible", () => {
  const { findings } = read({ separation: () => 1, own: 0.3, seed: 5 });
  assert.match(findings[0]!, /\(0\.\d{3}\), no difference of the 4 is discernible\.$/);
});

Deno.test("rocCurve() and precisionCurve() by hand, and against AUROC", () => {
  const target = {
    labels: ["a", "b"],
    apart: ["b"],
    test: { ids: ["1", "2", "3", "4"], targets: [1, 0, 0, 1, 1, 0, null, 1] },
  } as unknown as Target;
  const cell = (probabilities: number[]) => ({ best: { probabilities } }) as unknown as ScoreCell;
  // Of label a, known in three images: 0.9 is true, 0.7 not, 0.4 is.
  const cells = [cell([0.9, 0, 0.7, 0, 0.4, 0, 0.99, 0])];
  const roc = new Map(rocCurve(cells, target));
  assert.deepEqual([roc.get(0), roc.get(0.5), roc.get(0.98), roc.get(1)], [0.5, 0.5, 0.5, 1]);
  const precision = new Map(precisionCurve(cells, target));
  assert.deepEqual([precision.get(0), precision.get(0.5), precision.get(0.52), precision.get(1)], [
    1,
    1,
    2 / 3,
    2 / 3,
  ]);
  assert.deepEqual(
    rocCurve([cell([0, 0, 0, 0, 0, 0, 0, 0])], {
      ...target,
      test: { ...target.test, targets: target.test.targets.map(() => 0) },
    }),
    [],
  );

  const study = makeStudy({ patients: 200, labels: ["Pneumonia"], seeds: [0] });
  const score = study.cells.find((cell) => cell.kind === "knn") as ScoreCell;
  const curve = rocCurve([score], study.target);
  // The curve is a step function, seen at every fiftieth.
  const area = curve.slice(1).reduce((sum, [, y], i) => sum + (y + curve[i]![1]) / 100, 0);
  const expected = auroc(score.best.probabilities, study.target.test.targets as number[]);
  assertClose([area], [expected], { atol: 0.01 }, "area");
});

Deno.test("reliability() compares mean probability and share of positives in ten bins", () => {
  const target = {
    labels: ["a"],
    apart: [],
    test: { ids: ["1", "2", "3", "4", "5"], targets: [1, 0, 1, 1, null] },
  } as unknown as Target;
  const cell = { best: { probabilities: [0.12, 0.18, 0.5, 1, 0.7] } } as unknown as ScoreCell;
  const bins = reliability([cell], target);
  assertClose(bins.map(({ predicted }) => predicted), [0.15, 0.5, 1], { rtol: 1e-12 }, "predicted");
  assert.deepEqual(bins.map(({ observed }) => observed), [0.5, 1, 1]);
  assert.deepEqual(bins.map(({ count }) => count), [2, 1, 1]);
});

const chromium = await findChromium();
if (chromium === null) {
  console.log("no Chromium on this machine: reports are not opened in a browser");
}

Deno.test({
  name: "the page opens in Chromium: no errors, no requests, nothing wider than the screen",
  ignore: chromium === null,
  fn: () =>
    withFiles({}, async (dir) => {
      const file = join(dir, "report.html");
      await Deno.writeTextFile(file, await render(makeStudy({ patients: 40 })));
      const views: View[] = [
        { width: 1280 },
        { width: 390 },
        { width: 1280, scheme: "dark" },
        { width: 794, media: "print" },
      ];
      const backgrounds: unknown[] = [];
      await visit(chromium!, file, views, async (page, view) => {
        const { width, scheme, media } = view;
        assert.deepEqual(page.errors, []);
        assert.deepEqual(page.requests, []);
        assert.ok(await page.evaluate("document.documentElement.scrollWidth") as number <= width);
        // Text in charts keeps a size that can be read.
        const least = await page.evaluate(`Math.min(...[...document.querySelectorAll(".panel svg")]
          .filter((svg) => svg.clientWidth > 0)
          .map((svg) => 12 * svg.getBoundingClientRect().width / svg.viewBox.baseVal.width))`);
        assert.ok(least as number >= 8.5, `${least} px at ${width}`);
        backgrounds.push(await page.evaluate("getComputedStyle(document.body).backgroundColor"));
        const png = await page.screenshot();
        assert.ok(png.length > 50_000, `${png.length} bytes at ${width}`);
        const folder = Deno.env.get("WGRAD_SCREENSHOTS");
        if (folder) await Deno.writeFile(join(folder, `${width}-${scheme}-${media}.png`), png);
      });
      assert.deepEqual(backgrounds, [
        "rgb(251, 251, 250)",
        "rgb(251, 251, 250)",
        "rgb(18, 20, 23)",
        "rgb(255, 255, 255)",
      ]);
    }),
});
