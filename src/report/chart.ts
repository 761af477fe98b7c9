/**
 * Line charts as inline SVG. Text keeps its size whatever the width: curves are drawn in a box of their
 * own that stretches, text is placed by percentages. Every chart carries a description and its numbers
 * as a table.
 */

import { type Cell, escapeHtml, formatNumber, table } from "./html.ts";

/** A point (x, y) with x ≥ 0; a y that is null leaves a gap. */
export type Point = readonly [x: number, y: number | null];

/** A curve. */
export interface Series {
  /** What the legend calls it. */
  readonly name: string;
  /** In ascending x. */
  readonly points: readonly Point[];
}

/** A horizontal line that curves are read against. */
export interface ReferenceLine {
  /** What stands on the line, before its value. */
  readonly label: string;
  /** Its y. */
  readonly value: number;
}

/** What a chart shows. */
export interface LineChart {
  /** Heading, with the unit where there is one. */
  readonly title: string;
  /** One sentence that says how to read it. */
  readonly caption: string;
  /** Name of the x axis, which begins at 0. */
  readonly x: string;
  /** One curve or more. */
  readonly series: readonly Series[];
  /** Lines across the chart. */
  readonly references?: readonly ReferenceLine[];
  /** Whether the y axis begins at 0, too. */
  readonly fromZero?: boolean;
  /** Whether curves jump from point to point: they are drawn faint, their moving average over them. */
  readonly noisy?: boolean;
}

/** Points a curve is thinned to: more are not seen at the width of a page. */
const MAX_POINTS = 600;
/** Curves of at most this many points show each of them. */
const MAX_DOTS = 60;
/** A moving average takes one of this many parts of its curve. */
const SMOOTHING = 40;
/** Rows of the table behind a chart. */
const MAX_ROWS = 100;
/** Colours and dashes of the style sheet. */
const STYLES = 6;

/** The chart as an HTML figure; `id` is unique in its page. */
export function lineChart(id: string, chart: LineChart): string {
  const { title, caption, series } = chart;
  return `<figure class="chart">
<figcaption><h3>${escapeHtml(title)}</h3><p>${escapeHtml(caption)}</p></figcaption>
<div class="plot">${plot(id, chart)}</div>
${series.length > 1 ? legend(series) : ""}
${numbers(chart)}
</figure>`;
}

/** Round numbers 1, 2 or 5 × 10ⁿ apart that enclose [low, high], about `count` of them. */
export function niceTicks(low: number, high: number, count = 5): number[] {
  const span = high - low || Math.abs(high) || 1;
  const magnitude = 10 ** Math.floor(Math.log10(span / count));
  const step = magnitude *
    [1, 2, 5, 10].find((factor) => span / count <= factor * magnitude * 1.001)!;
  const first = Math.floor(low / step + 1e-9);
  const last = Math.max(first + 1, Math.ceil(high / step - 1e-9));
  // Through decimal text, because 3 × 0.1 is not 0.3.
  return Array.from(
    { length: last - first + 1 },
    (_, i) => Number(((first + i) * step).toPrecision(12)),
  );
}

/**
 * A curve with fewer points that looks the same: of each stretch only the least and the greatest
 * value, and gaps, are kept.
 */
export function thin(points: readonly Point[], limit = MAX_POINTS): readonly Point[] {
  if (points.length <= limit) return points;
  const width = Math.ceil(points.length / (limit / 2));
  const kept: Point[] = [];
  for (let begin = 0; begin < points.length; begin += width) {
    const stretch = points.slice(begin, begin + width);
    const known = stretch.filter(isKnown).sort(([, a], [, b]) => a - b);
    const chosen = new Set([known[0], known.at(-1), stretch.find((point) => !isKnown(point))]);
    kept.push(...stretch.filter((point) => chosen.has(point as Known)));
  }
  return kept;
}

/** The mean of the known values around each point, over one part in {@link SMOOTHING} of the curve. */
export function movingAverage(points: readonly Point[]): readonly Point[] {
  const reach = Math.floor(points.length / SMOOTHING / 2);
  let [sum, count] = [0, 0];
  const sums = [[0, 0], ...points.map(([, y]) => y === null ? [sum, count] : [sum += y, ++count])];
  return points.map(([x], i) => {
    const before = sums[Math.max(0, i - reach)]!;
    const after = sums[Math.min(points.length, i + reach + 1)]!;
    const known = after[1]! - before[1]!;
    return [x, known > 0 ? (after[0]! - before[0]!) / known : null];
  });
}

type Known = readonly [x: number, y: number];
const isKnown = (point: Point): point is Known => point[1] !== null && Number.isFinite(point[1]);
const style = (index: number) => `s${index % STYLES + 1}`;
const percent = (share: number) => `${round(100 * share)}%`;
const round = (value: number) => Number(value.toFixed(2));

function plot(id: string, chart: LineChart): string {
  const { title, x, series, references = [], fromZero = false, noisy = false } = chart;
  const known = series.map(({ points }) => points.filter(isKnown));
  const heights = [...known.flat().map(([, y]) => y), ...references.map(({ value }) => value)];
  const width = Math.max(0, ...series.map(({ points }) => points.at(-1)?.[0] ?? 0)) || 1;
  const low = heights.reduce((a, b) => Math.min(a, b), fromZero ? 0 : Infinity);
  const high = heights.reduce((a, b) => Math.max(a, b), fromZero ? 0 : -Infinity);
  const ticks = niceTicks(Number.isFinite(low) ? low : 0, Number.isFinite(high) ? high : 1);
  const [bottom, top] = [ticks[0]!, ticks.at(-1)!];
  const across = (value: number) => value / width;
  const down = (value: number) => (top - value) / (top - bottom);

  const parts: string[] = [
    `<title id="${id}-title">${escapeHtml(title)}</title>`,
    `<desc id="${id}-desc">${escapeHtml(describe(chart))}</desc>`,
  ];
  for (const tick of ticks) {
    const y = percent(down(tick));
    parts.push(
      `<line class="grid-line" x2="100%" y1="${y}" y2="${y}"/>`,
      `<text x="-8" y="${y}" dy="0.32em" text-anchor="end">${formatTick(tick, ticks)}</text>`,
    );
  }
  const steps = niceTicks(0, width).filter((tick) => tick <= width);
  for (const tick of steps) {
    parts.push(
      `<text x="${percent(across(tick))}" y="100%" dy="1.6em" text-anchor="middle">${
        formatTick(tick, steps)
      }</text>`,
    );
  }
  parts.push(`<text x="50%" y="100%" dy="3.1em" text-anchor="middle">${escapeHtml(x)}</text>`);
  for (const { value } of references) {
    const y = percent(down(value));
    parts.push(`<line class="reference" x2="100%" y1="${y}" y2="${y}"/>`);
  }

  const curve = (points: readonly Point[], style: string) => {
    let pen = "M";
    const path = thin(points).map((point) => {
      const drawn = pen;
      pen = isKnown(point) ? "L" : "M";
      if (!isKnown(point)) return "";
      const to = `${round(100 * across(point[0]))} ${round(100 * down(point[1]))}`;
      // The stroke of length 0 makes a point between two gaps visible.
      return drawn === "M" ? `M${to}h0` : `L${to}`;
    });
    return `<path class="curve ${style}" d="${path.join("")}"/>`;
  };
  const [lines, dots]: [string[], string[]] = [[], []];
  series.forEach(({ name, points }, i) => {
    const many = points.length > MAX_DOTS;
    if (many && noisy) lines.push(curve(points, `${style(i)} faint`));
    const drawn = many && noisy ? movingAverage(points) : points;
    lines.push(curve(drawn, style(i)));
    for (const [at, y] of drawn.filter(isKnown).slice(many ? -1 : 0)) {
      const tip = escapeHtml(`${name} ${formatNumber(y)}, ${x} ${formatNumber(at)}`);
      dots.push(
        `<circle class="dot ${style(i)}" cx="${percent(across(at))}" cy="${
          percent(down(y))
        }" r="3.5">` +
          `<title>${tip}</title></circle>`,
      );
    }
  });
  const box = `viewBox="0 0 100 100" preserveAspectRatio="none" overflow="visible"`;
  parts.push(`<svg ${box}>${lines.join("")}</svg>`, ...dots);
  for (const { label, value } of references) {
    // At the end where the curves are farther away.
    const distance = (index: number) =>
      Math.min(...known.map((points) => Math.abs((points.at(index)?.[1] ?? Infinity) - value)));
    const [x, anchor] = distance(0) > distance(-1) ? ["0", "start"] : ["100%", "end"];
    parts.push(
      `<text class="label" x="${x}" y="${
        percent(down(value))
      }" dy="-0.45em" text-anchor="${anchor}">${
        escapeHtml(`${label} ${formatNumber(value)}`)
      }</text>`,
    );
  }
  return `<svg role="img" aria-labelledby="${id}-title ${id}-desc">${parts.join("\n")}</svg>`;
}

function legend(series: readonly Series[]): string {
  const items = series.map(({ name }, i) => {
    const line = `<line class="curve ${style(i)}" x2="100%" y1="50%" y2="50%"/>`;
    return `<li><svg aria-hidden="true">${line}</svg>${escapeHtml(name)}</li>`;
  });
  return `<ul class="legend">${items.join("")}</ul>`;
}

/** What a chart says, in words. */
function describe({ x, series, references = [] }: LineChart): string {
  const curves = series.map(({ name, points }) => {
    const known = points.filter(isKnown);
    const [first, last] = [known[0], known.at(-1)];
    if (!first || !last) return `${name}: no values.`;
    const ascending = known.toSorted(([, a], [, b]) => a - b);
    const at = ([step, value]: Known) => `${formatNumber(value)} at ${x} ${formatNumber(step)}`;
    return `${name}: from ${at(first)} to ${at(last)}; ` +
      `least ${at(ascending[0]!)}, greatest ${at(ascending.at(-1)!)}.`;
  });
  const lines = references.map(({ label, value }) => `Line ${label}: ${formatNumber(value)}.`);
  return [...curves, ...lines].join(" ");
}

/** The numbers behind a chart, closed until asked for. */
function numbers({ title, x, series }: LineChart): string {
  const rows = new Map<number, Cell[]>();
  series.forEach(({ points }, i) => {
    for (const [at, y] of points) {
      const row = rows.get(at) ?? new Array<Cell>(series.length).fill(null);
      row[i] = y;
      rows.set(at, row);
    }
  });
  const all = [...rows].sort(([a], [b]) => a - b).map(([at, cells]): Cell[] => [at, ...cells]);
  const every = Math.ceil(all.length / MAX_ROWS);
  const shown = all.filter((_, i) => (all.length - 1 - i) % every === 0);
  const thinned = every > 1 ? `, ${shown.length} of ${all.length} rows` : "";
  return `<details><summary>${escapeHtml(title)} as a table${thinned}</summary>${
    table([x, ...series.map(({ name }) => name)], shown)
  }</details>`;
}

/** A number on an axis: all of one axis with the same decimals. */
function formatTick(value: number, ticks: readonly number[]): string {
  const step = ticks.length > 1 ? ticks[1]! - ticks[0]! : 1;
  if (step < 1e-4) return formatNumber(value);
  if (step >= 1000) {
    return value.toLocaleString("en-US", { notation: "compact" }).replace("-", "−");
  }
  return value.toFixed(Math.max(0, -Math.floor(Math.log10(step) + 1e-9))).replace("-", "−");
}
