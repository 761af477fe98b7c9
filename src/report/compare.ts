/** Runs side by side: where their settings differ, what they reached, and their curves in one chart. */
import { basename } from "node:path";
import type { MetricsRow } from "../run_folder.ts";
import { type LineChart, lineChart, type Point } from "./chart.ts";
import { type Cell, escapeHtml, formatNumber, page, table } from "./html.ts";
import type { Run } from "./report.ts";
import { flatten } from "./settings.ts";

/** What is said of some runs, one column each. */
export interface RunComparison {
  /** Their folders, by name or, where names are not unique, by path. */
  readonly names: readonly string[];
  /** The settings that are not the same for all; null where a run has none of that name. */
  readonly settings: readonly Row<string>[];
  /** What they reached. */
  readonly measures: readonly Row<number>[];
  /** Curves that several runs have. */
  readonly charts: readonly LineChart[];
}

/** A row with a value for each run. */
export interface Row<T> {
  readonly name: string;
  readonly values: readonly (T | null)[];
}

/** Fields of config.json that say nothing of what a run is. */
const SILENT = ["started", "referenceLines", "samplesCaption"];

/** Curves that are compared; of those that are not noisy the greatest value is the best. */
const CURVES: readonly {
  readonly title: string;
  readonly caption: string;
  readonly noisy?: boolean;
  value(row: MetricsRow): number | null | undefined;
}[] = [
  {
    title: "Loss",
    caption: "Training loss and its moving average. Losses of different methods do not compare.",
    noisy: true,
    value: ({ loss }) => loss,
  },
  {
    title: "kNN AUROC",
    caption: "Macro mean on the validation images, judged by their nearest training images.",
    value: ({ knn }) => knn?.auroc,
  },
  {
    title: "Validation AUROC",
    caption: "Macro mean on the validation images, after every epoch of fine-tuning.",
    value: ({ validation }) =>
      typeof validation === "object" && validation !== null ? validation.auroc : undefined,
  },
];

/**
 * Compares runs.
 *
 * @throws UserError naming file and line if configuration or metrics are corrupt.
 */
export function compareRuns(runs: readonly Run[]): RunComparison {
  const bases = runs.map(({ path }) => basename(path));
  const names = new Set(bases).size === runs.length ? bases : runs.map(({ path }) => path);
  const metrics = runs.map((run) => run.readMetrics());
  const curves = CURVES.map((curve) => ({
    ...curve,
    points: metrics.map((rows) => points(rows, curve.value)),
  })).filter(({ points }) => points.some((points) => points.length > 0));
  const last = (field: "step" | "epoch"): Row<number> => ({
    name: field === "step" ? "steps" : "epochs",
    values: metrics.map((rows) => rows.at(-1)?.[field] ?? null),
  });
  return {
    names,
    settings: differences(runs),
    measures: [
      last("step"),
      last("epoch"),
      ...curves.flatMap(({ title, noisy, points, value }): Row<number>[] => [
        {
          name: noisy ? `${title}, mean of the last epoch` : `${title}, last`,
          values: noisy
            ? metrics.map((rows) => lastEpoch(rows, value))
            : points.map((points) => known(points).at(-1) ?? null),
        },
        ...noisy ? [] : [{
          name: `${title}, best`,
          values: points.map((points) =>
            known(points).reduce((most: number | null, y) => Math.max(most ?? y, y), null)
          ),
        }],
      ]),
      { name: "images per second, median", values: metrics.map(speed) },
    ].filter(({ values }) => values.some((value) => value !== null)),
    charts: curves.map(({ title, caption, noisy = false, points }) => ({
      ...{ title, caption, noisy, x: "step" },
      series: names.flatMap((name, i) =>
        points[i]!.length > 0 ? [{ name, points: points[i]! }] : []
      ),
    })),
  };
}

/** The comparison as one HTML file, without scripts and without anything from a network. */
export function comparisonPage({ names, settings, measures, charts }: RunComparison): string {
  const rows = (rows: readonly Row<Cell>[]) => rows.map(({ name, values }) => [name, ...values]);
  const title = `${names.length} runs side by side`;
  return page(
    title,
    `<header>
<h1>${title}</h1>
<p>${escapeHtml(names.join(" · "))}</p>
</header>
<main>
<section class="card"><h3>What they reached</h3>${table(["", ...names], rows(measures))}</section>
<h2>Curves</h2>
<div class="grid">
${charts.map((chart, i) => lineChart(`chart-${i + 1}`, chart)).join("\n")}
</div>
<h2>Where they differ</h2>
<section class="card">${
      settings.length > 0
        ? table(["", ...names], rows(settings))
        : "<p>All were started with the same.</p>"
    }</section>
</main>
<footer>Written by wgrad. One run of each tells nothing of chance: see deno task study for that.</footer>`,
  );
}

/** The comparison as rows of text, the names first. */
export function comparisonRows(
  { names, settings, measures }: RunComparison,
): { readonly measures: string[][]; readonly settings: string[][] } {
  const number = (value: number | null) => value === null ? "–" : formatNumber(value);
  return {
    measures: [
      ["", ...names],
      ...measures.map(({ name, values }) => [name, ...values.map(number)]),
    ],
    settings: [
      ["", ...names],
      ...settings.map(({ name, values }) => [name, ...values.map((value) => value ?? "–")]),
    ],
  };
}

function differences(runs: readonly Run[]): Row<string>[] {
  const settings = runs.map((run) =>
    new Map(
      Object.entries(run.readConfig()).filter(([name]) => !SILENT.includes(name))
        .flatMap(([name, value]) => flatten(name, value)),
    )
  );
  const names = [...new Set(settings.flatMap((map) => [...map.keys()]))];
  return names.map((name) => ({ name, values: settings.map((map) => map.get(name) ?? null) }))
    .filter(({ values }) => new Set(values).size > 1);
}

function points(
  rows: readonly MetricsRow[],
  value: (row: MetricsRow) => number | null | undefined,
): Point[] {
  return rows.flatMap((row): Point[] => {
    const y = value(row);
    return y === undefined ? [] : [[row.step, y]];
  });
}

const known = (points: readonly Point[]) =>
  points.map(([, y]) => y).filter((y) => y !== null && Number.isFinite(y)) as number[];

function lastEpoch(
  rows: readonly MetricsRow[],
  value: (row: MetricsRow) => number | null | undefined,
): number | null {
  const end = rows.at(-1)?.epoch ?? 0;
  const values = known(points(rows.filter(({ epoch }) => epoch > end - 1), value));
  return values.length === 0 ? null : values.reduce((a, b) => a + b) / values.length;
}

function speed(rows: readonly MetricsRow[]): number | null {
  const speeds = known(points(rows, ({ images_per_s }) => images_per_s)).sort((a, b) => a - b);
  return speeds[speeds.length >> 1] ?? null;
}
