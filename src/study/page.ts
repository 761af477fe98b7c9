/** `report.html` of a study: one file without scripts that asks nothing of a network. */
import { existsSync } from "node:fs";
import { join } from "node:path";
import { readBytes } from "../files.ts";
import { escapeHtml, figure, formatNumber, page, table } from "../report/html.ts";
import { flatten } from "../report/settings.ts";
import { formatInterval } from "../scores.ts";
import type { Cell, PretrainCell } from "./cell.ts";
import type { Charts } from "./charts.ts";
import {
  armTitle,
  layoutOf,
  legendOf,
  markOf,
  type Selection,
  selections,
  selectionTitle,
  setTitle,
  type TableCell,
} from "./layout.ts";
import type { Material } from "./panels.ts";
import { type Chart, colorVariables, type Drawer, swatch } from "./plot.ts";
import type { Study } from "./read.ts";
import { readingOf, seedsRun } from "./reading.ts";
import type { Results } from "./results.ts";
import { METRIC_NAMES, METRICS } from "./statistics.ts";

/** The page of a study without a finished cell. */
export function emptyPage({ config }: Study): string {
  return page(
    config.title,
    `<header><h1>${escapeHtml(config.title)}</h1><p>No cell is finished yet.</p></header>`,
  );
}

/** The page of a study. */
export function studyPage(material: Material, charts: Charts, drawer: Drawer): string {
  const { study, results } = material;
  const { config } = results;
  const { findings, fewerLabels, context } = readingOf(results);
  const draw = (parts: readonly Chart[]) =>
    parts.map((chart) => chartFigure(chart, drawer)).join("\n");
  const [first, ...others] = selections(results, "auroc");
  const body = `<header>
<h1>${escapeHtml(config.title)}</h1>
<p>${escapeHtml(summary(material))}</p>
</header>
<main>
${first === undefined ? "" : scoreTable(results, first)}
<h2 id="reading">What it says</h2>
${list(findings)}
${fewerLabels.length === 0 ? "" : more("With fewer labels", list(fewerLabels))}
<h3>To be read against</h3>
${list(context)}
${section("comparison", "Comparison", draw(charts.comparison))}
${
    section(
      "tables",
      "All tables",
      METRIC_NAMES.map((metric) => {
        const shown = metric === "auroc" ? others : selections(results, metric);
        return more(
          capital(METRICS[metric].title),
          shown.map((part) => scoreTable(results, part)).join("\n"),
        );
      }).join("\n"),
    )
  }
${section("efficiency", "Label efficiency", draw(charts.efficiency))}
${section("labels", "Labels and sources", foldRest(charts.labels, drawer))}
${section("operating", "ROC and precision–recall", foldRest(charts.operating, drawer))}
${section("calibration", "Reliability", foldRest(charts.calibration, drawer))}
${section("learning", "Learning", draw(charts.learning))}
${section("maps", "Maps of the features", foldRest(charts.maps, drawer))}
${section("pictures", "Pictures", pictures(study, results))}
<h2 id="made">How it was made</h2>
${sets(results)}
${pretrainings(study, results)}
<div class="grid">
${card("Configuration", settings(results))}
${card("Environment", environment(study.cells))}
</div>
</main>
<footer>Written by wgrad. The numbers are in results.csv and table.md, the predictions for every test image in
cells/.</footer>`;
  return page(config.title, body, STYLE);
}

function summary({ study, results }: Material): string {
  const { target, config, patients, sources } = results;
  const n = target.test.ids.length;
  return [
    `${target.data}: ${formatNumber(target.training.images)} training images of ` +
    `${formatNumber(target.training.patients)} patients, ${formatNumber(n)} test images of ${
      formatNumber(patients)
    }`,
    `labels ${target.labels.join(", ")}${
      target.apart.length > 0 ? ` (${target.apart.join(", ")} in no mean)` : ""
    }`,
    ...sources.length > 1
      ? [`sources ${sources.map(({ name, images }) => `${name} (${images})`).join(", ")}`]
      : [],
    `${seedsRun(results)} of ${config.seeds.length} seeds`,
    `${study.cells.length} cells finished`,
  ].join(" · ");
}

const list = (items: readonly string[]) =>
  `<ul class="reading">${items.map((item) => `<li>${escapeHtml(item)}</li>`).join("\n")}</ul>`;

const capital = (words: string) => words[0]!.toUpperCase() + words.slice(1);

const cssName = (fraction: number) => String(fraction).replace(".", "-");

const section = (id: string, title: string, content: string) =>
  content.trim() === "" ? "" : `<h2 id="${id}">${title}</h2>\n${content}`;

const more = (title: string, content: string) =>
  content === ""
    ? ""
    : `<details class="more"><summary>${escapeHtml(title)}</summary>${content}</details>`;

/** The first chart, the others folded. */
function foldRest([first, ...rest]: readonly Chart[], drawer: Drawer): string {
  if (first === undefined) return "";
  return [
    chartFigure(first, drawer),
    ...rest.map((chart) => more(chart.title, chartFigure(chart, drawer))),
  ].join("\n");
}

/** A table of methods by pretraining sets. */
function scoreTable(results: Results, selection: Selection): string {
  const { columns, rows } = layoutOf(results, selection);
  const { title, higher } = METRICS[selection.metric];
  const head = columns.map((name) => `<th scope="col">${escapeHtml(name)}</th>`);
  const body = rows.map((row) =>
    `<tr${row.isReference ? ' class="against"' : ""}><th scope="row">${escapeHtml(row.title)}</th>${
      row.cells.map((cell) => `<td>${scoreCell(cell)}</td>`).join("")
    }</tr>`
  );
  const caption = `${capital(title)}${higher ? "" : ", lower is better"}. ` +
    `${selectionTitle(selection)}`;
  const id = `scores-${selection.metric}-${selection.protocol}-${
    cssName(selection.fraction)
  }-${selection.epoch}`;
  return `<section class="card scores"><h3 id="${id}">${escapeHtml(caption)}</h3>
<div class="table"><table aria-labelledby="${id}">
<thead><tr><th scope="col">Method</th>${head.join("")}</tr></thead>
<tbody>${body.join("\n")}</tbody></table></div>
<p class="soft">Columns are pretraining sets. ${
    escapeHtml(legendOf(selection.protocol))
  }, after Holm's
correction. In brackets 95 % intervals over patients, below them every seed.</p></section>`;
}

function scoreCell(cell: TableCell): string {
  if (typeof cell === "string") return cell === "" ? "" : `<span class="soft">${cell}</span>`;
  const { figure, comparisons, missing } = cell;
  const [estimate, ...interval] = formatInterval(figure).split(" ");
  const marks = comparisons.filter((test) => markOf(test) !== "").map((test) => {
    const words = `discernibly ${test.verdict} than ${
      test.baseline === "pixels"
        ? "raw pixels"
        : test.baseline === "scratch"
        ? "from scratch"
        : "untrained"
    }`;
    return `<span class="mark" role="img" aria-label="${words}" title="${words}">${
      markOf(test)
    }</span>`;
  });
  const seeds = figure.seeds ?? [];
  const points = seeds.length < 2
    ? ""
    : `<small>${seeds.map(({ value }) => value.toFixed(3)).join(" · ")}</small>`;
  const note = missing > 0
    ? `<small>${missing} of ${missing + seeds.length} seeds not run</small>`
    : "";
  return `<b>${estimate}</b>${marks.length > 0 ? ` ${marks.join("")}` : ""} ` +
    `<small>${interval.join(" ")}</small>${points}${note}`;
}

function chartFigure(chart: Chart, drawer: Drawer): string {
  const { name, title, caption, description, legend, panels, width, head, rows } = chart;
  const drawn = drawer.panels(chart).map((svg, i) => {
    const heading = panels[i]!.title;
    const id = `${name}-${i + 1}`;
    const words = i === 0 ? description : `Part of: ${title}.`;
    const named = svg.replace(
      /^<svg ([^>]*)>/,
      `<svg $1 role="img" aria-labelledby="${id}-title ${id}-desc">` +
        `<title id="${id}-title">${
          escapeHtml(heading === "" ? title : `${title}, ${heading}`)
        }</title>` +
        `<desc id="${id}-desc">${escapeHtml(words)}</desc>`,
    );
    return `<div class="panel">${
      heading === "" ? "" : `<h4>${escapeHtml(heading)}</h4>`
    }${named}</div>`;
  });
  // Two rows of two rather than three and one.
  const isPair = panels.length === 2 || panels.length === 4;
  const items = legend.map((mark) =>
    `<li><svg aria-hidden="true" viewBox="0 0 22 12">${swatch(mark)}</svg>${
      escapeHtml(mark.label)
    }</li>`
  );
  return `<figure class="chart study" id="${name}">
<figcaption><h3>${escapeHtml(title)}</h3><p>${escapeHtml(caption)}</p></figcaption>
${items.length > 0 ? `<ul class="legend">${items.join("")}</ul>` : ""}
<div class="panels" style="--basis:${isPair ? 1.25 * width : width}px;--most:${1.15 * width}px">${
    drawn.join("\n")
  }</div>
<details><summary>${escapeHtml(title)} as a table</summary>${table(head, rows)}</details>
</figure>`;
}

/** Reconstructions and cluster sheets of the first seeds, and Grad-CAM. */
function pictures({ path, cells }: Study, results: Results): string {
  const pretrained = cells.filter((cell) => cell.kind === "pretrain");
  const firsts = results.arms.flatMap(({ name }) =>
    pretrained.filter(({ arm }) => arm.name === name).toSorted((a, b) => a.seed - b.seed).slice(
      0,
      1,
    )
  );
  const samples = firsts.flatMap(({ arm, seed, config }): [string, string][] => {
    const file = join(path, "pretrain", `${arm.name}.s${seed}`, "samples.png");
    const caption = typeof config.samplesCaption === "string" ? config.samplesCaption : "Samples";
    return [[file, `${armTitle(arm, null, results)}, seed ${seed}. ${caption}`]];
  });
  const gradcam = results.arms.map((arm): [string, string] => [
    join(path, "pictures", `${arm.name}.gradcam.png`),
    `${
      armTitle(arm, null, results)
    }, fine-tuned: test images, and what speaks for a label of each ` +
    "(Grad-CAM).",
  ]);
  return [...samples, ...gradcam].filter(([file]) => existsSync(file))
    .map(([file, caption]) => figure(readBytes(file), caption)).join("\n");
}

function sets(results: Results): string {
  const rows = Object.entries(results.config.sets).map(([name, { data, note }]) => [
    setTitle(name, results),
    data,
    note ?? "",
  ]);
  return rows.length === 0
    ? ""
    : `<section class="card"><h3>Pretraining sets</h3>${
      table(["", "data", "note"], rows)
    }</section>`;
}

function pretrainings({ cells }: Study, results: Results): string {
  const rows = cells.filter((cell): cell is PretrainCell => cell.kind === "pretrain").map((
    cell,
  ) => [
    `${armTitle(cell.arm, null, results)}, seed ${cell.seed}`,
    cell.views,
    cell.images,
    cell.steps,
    Number(cell.viewsPerSecond.toPrecision(3)),
    duration(cell.origin.seconds),
    cell.loss.at(-1)?.[1] ?? null,
  ]);
  const head = ["", "views", "images", "steps", "views/s", "wall time", "last loss"];
  return rows.length === 0
    ? ""
    : `<section class="card"><h3>Pretrainings</h3>${table(head, rows)}</section>`;
}

function settings({ config, resamples }: Results): [string, string][] {
  const { title: _, sets: __, ...rest } = config;
  return [
    ...Object.entries(rest).flatMap(([name, value]) =>
      Array.isArray(value) && value.some((item) => typeof item === "object")
        ? value.flatMap((item, i) => flatten(`${name}.${i + 1}`, item))
        : flatten(name, value)
    ),
    ["resamples", String(resamples)],
  ];
}

function environment(cells: readonly Cell[]): [string, string][] {
  const all = (field: "adapter" | "wgrad" | "deno") =>
    [...new Set(cells.map(({ origin }) => origin[field]))].join("; ");
  const finished = cells.map(({ origin }) => origin.finished).sort();
  const seconds = (part: readonly Cell[]) =>
    duration(part.reduce((sum, { origin }) => sum + origin.seconds, 0));
  const kinds = [...Map.groupBy(cells, ({ kind }) => kind)];
  return [
    ["adapter", all("adapter")],
    ["wgrad", all("wgrad")],
    ["deno", all("deno")],
    ["first cell finished", finished[0] ?? ""],
    ["last cell finished", finished.at(-1) ?? ""],
    ["wall time of all cells", seconds(cells)],
    ...kinds.map(([kind, part]): [string, string] => [`${part.length} × ${kind}`, seconds(part)]),
  ];
}

function card(title: string, rows: readonly (readonly [string, string])[]): string {
  return `<section class="card"><h3>${title}</h3>${table([], rows)}</section>`;
}

/** Wall time in words: `2 h 5 min`, `3 min 10 s`, `12.5 s`. */
function duration(seconds: number): string {
  const whole = Math.round(seconds);
  if (whole >= 3600) return `${Math.floor(whole / 3600)} h ${Math.floor(whole % 3600 / 60)} min`;
  if (whole >= 60) return `${Math.floor(whole / 60)} min ${whole % 60} s`;
  return `${formatNumber(Number(seconds.toFixed(1)))} s`;
}

const STYLE = `
:root { ${colorVariables(0)} }
@media (prefers-color-scheme: dark) { :root { ${colorVariables(1)} } }
h3 { margin-top: 1.25rem; }
.study h3 { color: var(--ink); }
.chart h3, .card h3 { margin-top: 0; }
h4 { margin: 0 0 0.25rem; font-size: 0.8125rem; font-weight: 600; }
.reading { padding-left: 1.2rem; max-width: 46rem; }
.reading li { margin: 0.4rem 0; }
.card, .study { margin-block: 1rem; }
.scores table { width: auto; }
.scores th, .scores td { padding: 0.4rem 1.5rem 0.4rem 0; }
.scores tbody th { color: var(--ink); }
.scores th:first-child { position: sticky; left: 0; background: var(--card); z-index: 1; }
.scores small { color: var(--soft); white-space: nowrap; }
.scores td small + small { display: block; }
.scores .against th, .scores .against td { color: var(--soft); }
.scores p { font-size: 0.8125rem; }
.mark { cursor: help; }
.study details th, .study details td { white-space: nowrap; }
.study .legend { margin-top: 0.5rem; font-size: 0.8125rem; }
.study .legend svg { width: 22px; height: 12px; vertical-align: -1px; }
.panels { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(calc(var(--basis) * 0.9), 100%), 1fr)); gap: 1rem; margin-top: 0.75rem; }
.panel svg { display: block; width: 100%; height: auto; max-width: var(--most); overflow: visible; }
.more { font-size: 1rem; margin-block: 0.75rem; }
.more > summary { color: var(--ink); font-weight: 600; padding: 0.35rem 0; }
.more .table { max-height: none; overflow-y: visible; }
.more .study details .table { max-height: 22rem; overflow-y: auto; }
.more .scores table { font-size: 0.875rem; }
.panel { display: flex; flex-direction: column; justify-content: flex-end; }
@media (max-width: 30rem) {
  .scores th, .scores td { padding-right: 0.75rem; }
  .panels { grid-template-columns: repeat(auto-fill, minmax(min(calc(var(--basis) * 0.6), 100%), 1fr)); }
}
@media print {
  :root { ${colorVariables(0)} }
  .panel { break-inside: avoid; }
  .panels { grid-template-columns: repeat(auto-fit, minmax(calc(var(--basis) * 0.75), 1fr)); }
  #tables { display: none; }
  .study { break-inside: auto; }
}
`;
