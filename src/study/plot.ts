/**
 * Charts by Observable Plot, as SVG that a page styles (colours are CSS variables, text is the page's), and
 * as figures that stand alone: SVG with fixed colours, and PNG by resvg. The packages are loaded when the
 * first chart is drawn; resvg and the font read their files from Deno's npm cache.
 */
import type * as PlotModule from "@observablehq/plot";
import { readFileSync } from "node:fs";
import { UserError } from "../errors.ts";
import type { Cell } from "../report/html.ts";
import { escapeHtml } from "../report/html.ts";

/** The functions of Plot. */
export type Plot = typeof PlotModule;

/** What a legend explains: a colour, with a dash or a symbol. */
export interface Mark {
  readonly label: string;
  /** A name of {@linkcode COLORS}. */
  readonly color: Color;
  /** Lengths of strokes and gaps; none for a symbol. */
  readonly dash?: string;
  /** A symbol of Plot; none for a line. */
  readonly symbol?: string;
}

/** A part of a chart with axes of its own. */
export interface Panel {
  /** Above it; empty for the only one of its chart. */
  readonly title: string;
  /** Its marks and axes; the size is given by the chart unless it says so. */
  draw(plot: Plot): PlotModule.PlotOptions;
}

/** A chart of one panel or several of one kind, and the numbers behind it. */
export interface Chart {
  /** Its name as a file and as an anchor. */
  readonly name: string;
  readonly title: string;
  /** How to read it. */
  readonly caption: string;
  /** What it says, in words. */
  readonly description: string;
  readonly legend: readonly Mark[];
  readonly panels: readonly Panel[];
  /** Size of a panel in pixels; it shrinks where a screen is narrower. */
  readonly width: number;
  readonly height: number;
  readonly head: readonly string[];
  readonly rows: readonly (readonly Cell[])[];
}

/**
 * The colours by what they are for, light and dark: after Okabe & Ito (2008), darkened for white paper, told
 * apart by most colour-blind readers.
 */
export const COLORS = {
  ink: ["#1c2024", "#e8eaed"],
  soft: ["#5f6770", "#9aa2ab"],
  line: ["#e3e5e8", "#2c3137"],
  card: ["#ffffff", "#1a1d21"],
  blue: ["#0067a8", "#5ab4f0"],
  vermilion: ["#c04f00", "#f08a4b"],
  green: ["#007a58", "#3cc49a"],
  purple: ["#a8487f", "#e08cbc"],
  gold: ["#8a6d00", "#e0bb3c"],
  sky: ["#3b98d6", "#bfe3fb"],
} as const satisfies Record<string, readonly [light: string, dark: string]>;

/** Name of a colour. */
export type Color = keyof typeof COLORS;

/** A colour as marks name it. */
export const color = (name: Color): string => `var(--p-${name})`;

/** The variables of {@linkcode COLORS} as a style sheet: 0 for light paper, 1 for dark. */
export function colorVariables(scheme: 0 | 1): string {
  return Object.entries(COLORS).map(([name, pair]) => `--p-${name}:${pair[scheme]};`).join("");
}

/** Held in variables so that the packages stay out of the module graph until they are needed. */
const PLOT = "npm:@observablehq/plot@0.6.17";
const DOM = "npm:linkedom@0.18.12";
const RESVG = "npm:@resvg/resvg-wasm@2.6.2";
const FONT = { family: "DejaVu Sans", package: "npm:dejavu-fonts-ttf@2.37.3" };
const FONT_SIZE = 12;
/** Width that a stand-alone figure does not exceed. */
const FIGURE_WIDTH = 1080;
const GAP = 16;

/** Draws charts. */
export interface Drawer {
  /** The panels as SVG, without size and colours of their own. */
  panels(chart: Chart): string[];
  /** The whole chart as a file. */
  figure(chart: Chart): string;
}

/** A package, from the cache or the registry. */
// deno-lint-ignore no-explicit-any
async function load(specifier: string, options: ImportCallOptions = {}): Promise<any> {
  try {
    return await import(specifier, options);
  } catch (error) {
    const reason = error instanceof Error ? error.message.split("\n")[0] : error;
    throw new UserError(
      `${specifier}, which charts are drawn with, does not load: ${reason}; ` +
        "run deno install where there is a network",
    );
  }
}

/**
 * Loads Plot, and a document for it to draw in.
 *
 * @throws UserError if a package is neither in the cache nor to be had.
 */
export async function openDrawer(): Promise<Drawer> {
  const plot: Plot = await load(PLOT);
  const { parseHTML } = await load(DOM);
  const { document }: Window = parseHTML("<html></html>");
  const draw = (chart: Chart, panel: Panel) => {
    const options = panel.draw(plot);
    const drawn = plot.plot({
      document,
      width: chart.width,
      height: chart.height,
      // Any class will do; a given one is the same in every report.
      className: "panel",
      ...options,
    });
    return { svg: clean(drawn.outerHTML), height: Number(drawn.getAttribute("height")) };
  };
  return {
    panels: (chart) => chart.panels.map((panel) => draw(chart, panel).svg),
    figure: (chart) => standalone(chart, chart.panels.map((panel) => draw(chart, panel))),
  };
}

/** Plot's SVG without its own styles and names, numbers with as many digits as are seen. */
function clean(svg: string): string {
  return svg
    .replace(/<style>[^]*?<\/style>/g, "")
    .replace(/ (class|aria-label|aria-hidden|aria-description)="[^"]*"/g, "")
    .replace(/ font-family="system-ui, sans-serif"/, "")
    .replace(/ font-size="10"/, ` font-size="${FONT_SIZE}"`)
    .replace(/-?\d+\.\d{2,}(?=[^<>]*>)/g, (digits) => String(Number(Number(digits).toFixed(1))))
    .replace(/^<svg ([^>]*?)height="[^"]*" width="[^"]*"/, "<svg $1")
    .replace(/\s+\/>/g, "/>");
}

/** A chart with its title, legend and panels in one SVG of fixed colours. */
function standalone(chart: Chart, drawn: readonly { svg: string; height: number }[]): string {
  const { title, legend, panels, width } = chart;
  const columns = Math.max(1, Math.min(panels.length, Math.floor(FIGURE_WIDTH / (width + GAP))));
  const full = Math.max(columns * (width + GAP) + GAP, 480);
  const parts = [
    `<text x="${GAP}" y="28" font-size="16" font-weight="bold">${escapeHtml(title)}</text>`,
  ];
  let [x, y] = [GAP, 52];
  for (const mark of legend) {
    const length = 34 + mark.label.length * 0.62 * FONT_SIZE;
    if (x > GAP && x + length > full) [x, y] = [GAP, y + 20];
    parts.push(
      `<g transform="translate(${x},${y - 10})">${swatch(mark)}</g>` +
        `<text x="${x + 26}" y="${y}">${escapeHtml(mark.label)}</text>`,
    );
    x += length + 10;
  }
  y += legend.length > 0 ? 16 : -12;
  for (let row = 0; row < drawn.length; row += columns) {
    const inRow = drawn.slice(row, row + columns);
    const titled = panels.slice(row, row + columns).some((panel) => panel.title !== "");
    inRow.forEach(({ svg, height }, i) => {
      const left = GAP + i * (width + GAP);
      const name = panels[row + i]!.title;
      if (name) {
        parts.push(`<text x="${left}" y="${y + 14}" font-weight="bold">${escapeHtml(name)}</text>`);
      }
      const place =
        `x="${left}" y="${y + (titled ? 22 : 0)}" width="${width}" height="${height}" ` +
        'overflow="visible"';
      parts.push(svg.replace(/^<svg /, `<svg ${place} `));
    });
    y += Math.max(...inRow.map(({ height }) => height)) + (titled ? 22 : 0) + GAP;
  }
  const svg =
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${full} ${y}" width="${full}" ` +
    `height="${y}" font-family="${FONT.family}, sans-serif" font-size="${FONT_SIZE}" ` +
    `fill="currentColor"><rect width="100%" height="100%" fill="${color("card")}"/>` +
    `${parts.join("\n")}</svg>\n`;
  return svg
    .replace(/var\(--p-(\w+)\)/g, (_, name: Color) => COLORS[name][0])
    .replaceAll("currentColor", COLORS.ink[0]);
}

/** What stands before a word of a legend, 22 × 12 pixels. */
export function swatch({ color: name, dash, symbol }: Mark): string {
  if (symbol === undefined) {
    const dashes = dash ? ` stroke-dasharray="${dash}"` : "";
    return `<line x1="0" x2="22" y1="6" y2="6" stroke="${
      color(name)
    }" stroke-width="2.5"${dashes}/>`;
  }
  return `<path transform="translate(11,6)" d="${SYMBOLS[symbol]}" fill="${color(name)}"/>`;
}

/** The shapes of the symbols that are used, as Plot draws them, about 10 pixels wide. */
const SYMBOLS: Readonly<Record<string, string>> = {
  circle: "M5,0A5,5,0,1,1,-5,0A5,5,0,1,1,5,0Z",
  square: "M-4.5,-4.5H4.5V4.5H-4.5Z",
  triangle: "M0,-5.5L5.5,4.5H-5.5Z",
  star:
    "M0.0,-6.2L1.5,-2.1L5.9,-1.9L2.5,0.8L3.6,5.0L0.0,2.6L-3.6,5.0L-2.5,0.8L-5.9,-1.9L-1.5,-2.1Z",
  diamond: "M0,-6L4.5,0L0,6L-4.5,0Z",
};

/**
 * Renders stand-alone figures as PNG of twice their size.
 *
 * @throws UserError if a package is neither in the cache nor to be had.
 */
export async function openRenderer(): Promise<(svg: string) => Uint8Array> {
  const { initWasm, Resvg } = await load(RESVG);
  resvgReady ??= initWasm(readFileSync(new URL(import.meta.resolve(`${RESVG}/index_bg.wasm`))));
  await resvgReady;
  // Once imported, the package lies in the cache.
  await load(`${FONT.package}/package.json`, { with: { type: "json" } });
  const fontBuffers = ["DejaVuSans.ttf", "DejaVuSans-Bold.ttf"].map((file) =>
    new Uint8Array(readFileSync(new URL(import.meta.resolve(`${FONT.package}/ttf/${file}`))))
  );
  return (svg) =>
    new Resvg(svg, {
      fitTo: { mode: "zoom", value: 2 },
      font: { fontBuffers, defaultFontFamily: FONT.family, loadSystemFonts: false },
    }).render().asPng();
}

let resvgReady: Promise<void> | null = null;
