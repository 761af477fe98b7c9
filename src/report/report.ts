/** The report of a training run: its curves, what it was started with, and where it ran. */

import { basename } from "node:path";
import type { JsonObject, Measure, MetricsRow } from "../run_folder.ts";
import { type LineChart, lineChart, type Point, type ReferenceLine, type Series } from "./chart.ts";
import { escapeHtml, figure, formatNumber, page, table } from "./html.ts";
import { flatten } from "./settings.ts";

/** A run as it lies in its folder: what a `RunFolder` gives. */
export interface Run {
  /** Path of the folder; its name is the title of the page. */
  readonly path: string;
  /** config.json */
  readConfig(): JsonObject;
  /** metrics.jsonl, in the order of the steps. */
  readMetrics(): readonly MetricsRow[];
  /** Whether it has one of its files. */
  has(file: "samples"): boolean;
  /** The bytes of one of its files. */
  read(file: "samples"): Uint8Array;
}

/** The fields of config.json that the report knows; it lists all others as they are. */
interface Config extends JsonObject {
  readonly method?: string;
  readonly data?: string;
  /** What samples.png shows. */
  readonly samplesCaption?: string;
  /** Lines to draw into the chart of a measure, by default that of the loss. */
  readonly referenceLines?: readonly (ReferenceLine & { readonly measure?: string })[];
}

/** Fields of config.json that tell where a run took place and not what it is. */
const ENVIRONMENT = ["adapter", "subgroupSize", "deno", "wgrad", "started"];

/** How a measure is shown; one without an entry is shown under its own name. */
type Presentation = Pick<LineChart, "title" | "caption" | "fromZero" | "noisy">;

/** Charts in the order of the page, of which those are shown that have data. */
const PRESENTATIONS: Readonly<Record<string, Presentation>> = {
  loss: {
    title: "Loss",
    caption: "Training loss and its moving average. Lower is better.",
    noisy: true,
  },
  knn: {
    title: "kNN score",
    caption: "Validation images judged by their nearest training images. Higher is better.",
  },
  validation: {
    title: "Validation scores",
    caption: "Macro means over the labels, after every epoch. Higher is better.",
  },
  validation_loss: {
    title: "Validation loss",
    caption: "The training loss on the validation images as they are. Lower is better.",
  },
  std: {
    title: "Collapse monitor",
    caption: "Spread of the normalised embeddings. Near 0 all images look the same to the encoder.",
    fromZero: true,
    noisy: true,
  },
  lr: {
    title: "Learning rate",
    caption: "Size of the steps of the optimiser.",
    fromZero: true,
  },
  loss_scale: {
    title: "Scale of the loss",
    caption:
      "What it is multiplied by for gradients in 16 bits; it falls where an update was left out.",
    fromZero: true,
  },
  images_per_s: {
    title: "Images per second",
    caption: "Speed of training, without kNN scores and checkpoints.",
    fromZero: true,
    noisy: true,
  },
};

/** Fields of a row that are no curves. */
const NO_CURVES = ["step", "epoch", "gpu_bytes"];

/** Names of the curves of a chart with several. */
const CURVES: Readonly<Record<string, string>> = {
  auroc: "macro AUROC",
  map: "mean average precision",
  accuracy: "label-wise accuracy",
  constant: "accuracy of the constant predictor",
};

/**
 * The report as one HTML file, without scripts and without anything from a network.
 *
 * @throws UserError naming file and line if configuration or metrics are corrupt.
 */
export function renderReport(run: Run): string {
  const name = basename(run.path);
  const config = run.readConfig() as Config;
  const metrics = run.readMetrics();
  const { referenceLines = [], samplesCaption = "Samples", ...settings } = config;

  const charts = measures(metrics).map((measure, i) => {
    const lines = referenceLines.filter((line) => (line.measure ?? "loss") === measure);
    return lineChart(`chart-${i + 1}`, chartOf(measure, metrics, lines));
  });
  const curves = charts.length > 0
    ? `${tiles(metrics)}
<h2>Curves</h2>
<div class="grid">
${charts.join("\n")}
</div>`
    : `<p>No metrics have been logged yet.</p>`;
  const entries = Object.entries(settings);
  const isEnvironment = ([name]: [string, unknown]) => ENVIRONMENT.includes(name);
  return page(
    `${name} · training report`,
    `<header>
<h1>${escapeHtml(name)}</h1>
<p>${escapeHtml(summary(config, metrics))}</p>
</header>
<main>
${curves}
${run.has("samples") ? figure(run.read("samples"), samplesCaption) : ""}
<h2>How it was made</h2>
<div class="grid">
${card("Configuration", entries.filter((entry) => !isEnvironment(entry)))}
${card("Environment", entries.filter(isEnvironment))}
</div>
</main>
<footer>Written by wgrad. Every number is in metrics.jsonl and config.json.</footer>`,
  );
}

function summary({ method, data }: Config, metrics: readonly MetricsRow[]): string {
  const last = metrics.at(-1);
  const length = last && `${formatNumber(last.epoch)} epochs, ${formatNumber(last.step)} steps`;
  return [method, data, length].filter(Boolean).join(" · ");
}

/** The measures that were logged: known ones in the order of the page, then the others as logged. */
function measures(metrics: readonly MetricsRow[]): string[] {
  const logged = new Set(metrics.flatMap((row) => Object.keys(row)));
  const known = Object.keys(PRESENTATIONS);
  const others = [...logged].filter((name) => !known.includes(name) && !NO_CURVES.includes(name));
  return [...known.filter((name) => logged.has(name)), ...others];
}

function chartOf(
  measure: string,
  metrics: readonly MetricsRow[],
  references: readonly ReferenceLine[],
): LineChart {
  const presentation = PRESENTATIONS[measure] ?? { title: words(measure), caption: "" };
  const curves = new Map<string, Point[]>();
  for (const row of metrics) {
    for (const [name, value] of values(measure, row[measure])) {
      const points = curves.get(name) ?? [];
      points.push([row.step, value]);
      curves.set(name, points);
    }
  }
  const series = [...curves].map(([name, points]): Series => ({ name: words(name), points }));
  return { ...presentation, x: "step", series, references };
}

/** The numbers of one field of a row by the names of their curves. */
function values(name: string, measure: Measure | undefined): [string, number | null][] {
  if (measure === undefined) return [];
  return measure === null || typeof measure === "number"
    ? [[name, measure]]
    : Object.entries(measure);
}

function words(name: string): string {
  return CURVES[name] ?? name.replaceAll("_", " ");
}

/** The figures one looks for first. */
function tiles(metrics: readonly MetricsRow[]): string {
  const numbers = (field: string, rows = metrics) =>
    rows.map((row) => row[field]).filter((value) => typeof value === "number");
  const mean = (values: number[]) => values.reduce((sum, value) => sum + value, 0) / values.length;
  const lastEpoch = metrics.filter(({ epoch }) => epoch > metrics.at(-1)!.epoch - 1);
  const knn = metrics.findLast((row) => row.knn !== undefined)?.knn;
  const validated = metrics.findLast((row) => row.validation !== undefined)?.validation as
    | Readonly<Record<string, number | null>>
    | undefined;
  const speeds = numbers("images_per_s").sort((a, b) => a - b);
  const memory = numbers("gpu_bytes").reduce((a, b) => Math.max(a, b), -Infinity);

  const found: (readonly [name: string, value: number | null | undefined, note: string])[] = [
    ["Loss", mean(numbers("loss", lastEpoch)), "mean of the last epoch"],
    ["kNN AUROC", knn?.auroc, "macro mean, validation"],
    ["Validation AUROC", validated?.auroc, "macro mean, last epoch"],
    ["Spread", mean(numbers("std", lastEpoch)), "of embeddings, last epoch"],
    ["Images per second", speeds[speeds.length >> 1], "median"],
    ["GPU memory", memory / 2 ** 20, "MiB at most"],
  ];
  const items = found
    .filter(([, value]) => Number.isFinite(value))
    .map(([name, value, note]) =>
      `<div><dt>${name}</dt><dd>${formatNumber(value!)}<small>${note}</small></dd></div>`
    );
  return `<dl class="tiles">${items.join("")}</dl>`;
}

function card(title: string, entries: readonly (readonly [string, unknown])[]): string {
  const rows = entries.flatMap(([name, value]) => flatten(name, value));
  const content = rows.length > 0 ? table([], rows) : "<p>Not recorded.</p>";
  return `<section class="card"><h3>${title}</h3>${content}</section>`;
}
