/** What the charts of a study's report are made of: a method keeps its colour in all of them, a set its dash and symbol. */
import type { Cell as TableCell } from "../report/html.ts";
import type { Arm, Protocol } from "./cell.ts";
import type { Curve } from "./curves.ts";
import { armTitle, setTitle } from "./layout.ts";
import { type Chart, type Color, color, type Mark, type Panel } from "./plot.ts";
import type { Study } from "./read.ts";
import type { Results } from "./results.ts";

const METHOD_COLORS: Readonly<Record<string, Color>> = {
  simclr: "blue",
  autoencoder: "vermilion",
  kmeans: "green",
  micle: "purple",
  supervised: "gold",
  imagenet: "sky",
  scratch: "ink",
  pixels: "soft",
};
/** For methods without a colour of their own, sources and labels. */
export const CYCLE: readonly Color[] = ["blue", "vermilion", "green", "purple", "gold", "sky"];
const SYMBOLS = ["circle", "triangle", "square"];
const DASHES = ["", "6 4", "2 3"];
/** Fits a phone without becoming too small to read. */
const WIDTH = 360;
/** Side of a panel of which there is one for each arm. */
export const SMALL = 190;

/** A study and its figures. */
export interface Material {
  readonly study: Study;
  readonly results: Results;
}

/** How an arm is drawn. */
export function styleOf(
  arm: Arm,
  { arms, config }: Results,
): Omit<Mark, "label"> & { symbol: string } {
  const others = [...new Set(arms.map(({ method }) => method))]
    .filter((method) => !Object.hasOwn(METHOD_COLORS, method));
  const name = METHOD_COLORS[arm.method] ?? CYCLE[others.indexOf(arm.method) % CYCLE.length]!;
  if (arm.set === null) {
    return arm.width === config.encoder.width
      ? { color: name, symbol: "diamond", dash: "" }
      : { color: name, symbol: "star", dash: "8 3 2 3" };
  }
  const set = Math.max(0, Object.keys(config.sets).indexOf(arm.set));
  return {
    color: name,
    symbol: SYMBOLS[set % SYMBOLS.length]!,
    dash: DASHES[set % DASHES.length]!,
  };
}

/** Which line is which arm. */
export function lineLegend(
  arms: readonly Arm[],
  protocol: Protocol | null,
  results: Results,
): Mark[] {
  return arms.map((arm) => {
    const { color, dash } = styleOf(arm, results);
    return { label: armTitle(arm, protocol, results), color, ...(dash && { dash }) };
  });
}

/** Which symbol is which set. */
export function setLegend(results: Results): Mark[] {
  const sets = Object.keys(results.config.sets).map((set, i): Mark => ({
    label: setTitle(set, results),
    color: "soft",
    symbol: SYMBOLS[i % SYMBOLS.length]!,
  }));
  const { width } = results.config.encoder;
  const others = [
    ...new Set(results.arms.map((arm) => arm.width).filter((other) => other !== width)),
  ];
  return [
    { label: "no pretraining set", color: "soft", symbol: "diamond" },
    ...others.map((other): Mark => ({ label: `width ${other}`, color: "soft", symbol: "star" })),
    ...sets,
  ];
}

/** What a chart says in words: its numbers if they are few. */
function describe(head: readonly string[], rows: readonly (readonly TableCell[])[]): string {
  if (rows.length > 40) return `${rows.length} rows of numbers in the table below.`;
  return `${head.slice(1).join(", ")}. ${
    rows.map(([first, ...rest]) => `${first}: ${rest.map((cell) => cell ?? "–").join(", ")}`).join(
      "; ",
    )
  }.`;
}

/** A chart that says its numbers in words. */
export function chart(options: Omit<Chart, "description" | "width"> & { width?: number }): Chart {
  return { width: WIDTH, ...options, description: describe(options.head, options.rows) };
}

/** Rows named on the left, a value with its interval and its seeds in each. */
export interface Dot {
  readonly name: string;
  readonly estimate: number;
  readonly low: number;
  readonly high: number;
  readonly seeds: readonly number[];
  readonly color: string;
  readonly symbol: string;
  /** Whether the symbol is filled. */
  readonly filled: boolean;
  readonly mark: string;
}

/** A panel of rows. */
export function dotPanel(
  title: string,
  dots: readonly Dot[],
  domain: readonly [number, number],
  label: string,
  zero: number | undefined,
): Panel {
  return {
    title,
    draw: (plot) => ({
      height: 24 * dots.length + 46,
      marginLeft: 170,
      marginRight: 20,
      marginTop: 6,
      marginBottom: 40,
      x: { domain: [...domain], label, tickSpacing: 48, labelArrow: "none", labelAnchor: "center" },
      y: { domain: dots.map(({ name }) => name), type: "band", padding: 0.2 },
      marks: [
        plot.gridX({ stroke: color("line"), strokeOpacity: 1, tickSpacing: 48 }),
        plot.axisY({ label: null, tickSize: 0, lineWidth: 13 }),
        ...zero === undefined
          ? []
          : [plot.ruleX([zero], { stroke: color("soft"), strokeDasharray: "3 3" })],
        plot.link(dots, {
          ...{ x1: "low", x2: "high", y1: "name", y2: "name" },
          ...{ stroke: (dot: Dot) => dot.color, strokeWidth: 2, strokeOpacity: 0.75 },
        }),
        plot.dot(dots.flatMap((dot) => dot.seeds.map((value) => ({ ...dot, value }))), {
          ...{ x: "value", y: "name", r: 2, dy: 8 },
          fill: (dot: Dot) => dot.color,
          fillOpacity: 0.7,
        }),
        plot.dot(dots, {
          ...{ x: "estimate", y: "name", r: 4.5, strokeWidth: 1.75 },
          symbol: (dot: Dot) => dot.symbol,
          stroke: (dot: Dot) => dot.color,
          fill: (dot: Dot) => dot.filled ? dot.color : color("card"),
        }),
        plot.text(dots.filter(({ mark }) => mark !== ""), {
          ...{ x: "high", y: "name", text: "mark", dx: 5, textAnchor: "start" },
        }),
      ],
    }),
  };
}

/** All that a row shows. */
export const edges = ({ low, high, estimate, seeds }: Dot) =>
  [low, high, estimate, ...seeds].filter((value) => !Number.isNaN(value));

/** Least and greatest value with some air, so that nothing is drawn on the edge. */
export function extent(values: readonly number[]): [number, number] {
  if (values.length === 0) return [0, 1];
  const [low, high] = [Math.min(...values), Math.max(...values)];
  const air = 0.04 * (high - low) || 0.01;
  return [low - air, high + air];
}

/** A curve of an arm; several of one arm are its seeds. */
export interface Line {
  readonly arm: Arm;
  readonly points: Curve;
  readonly faint?: boolean;
}

/** The axes of a panel with curves. */
export interface Axes {
  readonly x: Readonly<Record<string, unknown>>;
  readonly y: Readonly<Record<string, unknown>>;
  /** A line from corner to corner, or none. */
  readonly diagonal?: boolean;
  readonly dots?: boolean;
}

/** A panel of curves. */
export function linePanel(
  title: string,
  lines: readonly Line[],
  axes: Axes,
  results: Results,
): Panel {
  return {
    title,
    draw: (plot) => ({
      ...{ marginLeft: 46, marginRight: 14, marginTop: 22, marginBottom: 40 },
      x: { labelArrow: "none", labelAnchor: "center", ticks: 5, ...axes.x },
      y: { labelArrow: "none", ticks: 5, ...axes.y },
      marks: [
        plot.gridY({ stroke: color("line"), strokeOpacity: 1, ticks: 5 }),
        ...axes.diagonal
          ? [plot.line([[0, 0], [1, 1]], { stroke: color("soft"), strokeDasharray: "3 3" })]
          : [],
        ...lines.flatMap(({ arm, points, faint }) => {
          const { color: hue, dash, symbol } = styleOf(arm, results);
          const stroke = color(hue);
          return [
            plot.line(points, {
              ...{ stroke, strokeWidth: faint ? 1 : 2, strokeOpacity: faint ? 0.45 : 1 },
              ...(dash && { strokeDasharray: dash }),
            }),
            ...axes.dots
              ? [plot.dot(points, { fill: stroke, stroke, symbol: symbol as "circle", r: 3.5 })]
              : [],
          ];
        }),
      ],
    }),
  };
}

/** Rows of a table for curves over the same places: one row a place, one column a curve. */
export function lineRows(lines: readonly { readonly points: Curve }[]): TableCell[][] {
  const places = [...new Set(lines.flatMap(({ points }) => points.map(([x]) => x)))]
    .sort((a, b) => a - b);
  const maps = lines.map(({ points }) => new Map(points));
  return places.map((x) => [x, ...maps.map((map) => map.get(x) ?? null)]);
}
