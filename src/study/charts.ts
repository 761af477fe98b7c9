/** The charts of a study's report. A method keeps its colour in all of them, a pretraining set its dash and symbol. */
import type { Cell as TableCell } from "../report/html.ts";
import { formatInterval } from "../scores.ts";
import type { Arm, PretrainCell, Protocol, ScoreCell, Target } from "./cell.ts";
import { type Bin, type Curve, precisionCurve, reliability, rocCurve } from "./curves.ts";
import {
  armTitle,
  fractionTitle,
  layoutOf,
  markOf,
  type Measured,
  methodTitle,
  PROTOCOL_TITLES,
  setTitle,
} from "./layout.ts";
import { type Chart, type Color, color, type Mark, type Panel } from "./plot.ts";
import type { Study } from "./read.ts";
import type { Comparison, Results } from "./results.ts";
import { pText, signedInterval } from "./table.ts";

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
const CYCLE: readonly Color[] = ["blue", "vermilion", "green", "purple", "gold", "sky"];
const SYMBOLS = ["circle", "triangle", "square"];
const DASHES = ["", "6 4", "2 3"];
/** Fits a phone without becoming too small to read. */
const WIDTH = 360;
const SMALL = 190;

/** A study and its figures. */
export interface Material {
  readonly study: Study;
  readonly results: Results;
}

/** The charts of one part of the page; those without data are left out. */
export interface Charts {
  readonly comparison: readonly Chart[];
  readonly learning: readonly Chart[];
  readonly efficiency: readonly Chart[];
  readonly labels: readonly Chart[];
  readonly operating: readonly Chart[];
  readonly calibration: readonly Chart[];
  readonly maps: readonly Chart[];
}

/** All charts of a study. */
export function chartsOf(material: Material): Charts {
  const { config } = material.results;
  const each = (chart: (material: Material, protocol: Protocol) => Chart) =>
    config.protocols.map((protocol) => chart(material, protocol)).filter(hasData);
  return {
    comparison: config.protocols.flatMap((protocol) =>
      [scoreChart(material, protocol), differenceChart(material, protocol)].filter(hasData)
    ),
    learning: [
      lossChart(material),
      ...material.results.fractions.map((fraction) => validationChart(material, fraction)),
    ].filter(hasData),
    efficiency: [efficiencyChart(material)].filter(hasData),
    labels: each(labelChart),
    operating: each(operatingChart),
    calibration: each(reliabilityChart),
    maps: (["pca", "umap"] as const).flatMap((projection) =>
      (["label", "source"] as const).map((by) => mapChart(material, projection, by))
    ).filter(hasData),
  };
}

const hasData = ({ panels }: Chart) => panels.length > 0;

/** How an arm is drawn. */
function styleOf(arm: Arm, { arms, config }: Results): Omit<Mark, "label"> & { symbol: string } {
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

function lineLegend(arms: readonly Arm[], protocol: Protocol | null, results: Results): Mark[] {
  return arms.map((arm) => {
    const { color, dash } = styleOf(arm, results);
    return { label: armTitle(arm, protocol, results), color, ...(dash && { dash }) };
  });
}

/** Which symbol is which set. */
function setLegend(results: Results): Mark[] {
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

function chart(options: Omit<Chart, "description" | "width"> & { width?: number }): Chart {
  return { width: WIDTH, ...options, description: describe(options.head, options.rows) };
}

/** Rows named on the left, a value with its interval and its seeds in each. */
interface Dot {
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

function dotPanel(
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

function scoreChart({ results }: Material, protocol: Protocol): Chart {
  const selections = results.fractions
    .filter((fraction) =>
      results.entries.some((entry) => entry.protocol === protocol && entry.fraction === fraction)
    )
    .map((fraction) => ({ protocol, fraction, epoch: "best", metric: "auroc" } as const));
  const found = selections.map((selection) => {
    const { rows } = layoutOf(results, selection);
    const sets = [null, ...Object.keys(results.config.sets)];
    const dots = rows.flatMap(({ title, method, cells, isReference }) =>
      cells.flatMap((cell, column): Dot[] => {
        if (typeof cell === "string") return [];
        const set = sets[column] ?? null;
        const arm = results.arms.find((arm) =>
          arm.method === method && arm.set === set &&
          (isReference || methodTitle(arm, protocol, results) === title)
        );
        const style = arm === undefined || isReference
          ? { color: "soft" as const, symbol: "diamond" }
          : styleOf(arm, results);
        return [dotOf(set === null ? title : `${title}, ${setTitle(set, results)}`, cell, style)];
      })
    );
    return { selection, dots };
  });
  const [low, high] = extent(found.flatMap(({ dots }) => dots.flatMap(edges)));
  const scratch = (fraction: number) =>
    results.entries.find(({ arm, ...entry }) =>
      arm.method === "scratch" && arm.width === results.config.encoder.width &&
      entry.protocol === protocol && entry.fraction === fraction && entry.epoch === "best"
    )?.figures.auroc.estimate;
  return chart({
    name: `auroc-${protocol}`,
    title: `${PROTOCOL_TITLES[protocol]}: macro AUROC`,
    caption:
      "Means over seeds with 95 % intervals over patients; the small dots below are the seeds. " +
      `The dashed line is ${
        protocol === "finetune" ? "training from scratch" : "the untrained encoder"
      }.`,
    legend: setLegend(results),
    panels: found.map(({ selection, dots }) =>
      dotPanel(
        fractionTitle(selection.fraction),
        dots,
        [low, high],
        "macro AUROC",
        scratch(selection.fraction),
      )
    ),
    height: 0,
    head: ["", "labels", "macro AUROC", "seeds"],
    rows: found.flatMap(({ selection, dots }) =>
      dots.map((dot) => [
        dot.name,
        fractionTitle(selection.fraction),
        formatInterval({ ...dot, undefinedResamples: 0 }),
        dot.seeds.map((value) => value.toFixed(3)).join(", "),
      ])
    ),
  });
}

function dotOf(
  name: string,
  { figure, comparisons }: Measured,
  { color: hue, symbol }: { color: Color; symbol: string },
): Dot {
  const { estimate, low, high, seeds = [] } = figure;
  return {
    ...{ name, estimate, low, high, symbol, color: color(hue), filled: true },
    seeds: seeds.length > 1 ? seeds.map(({ value }) => value) : [],
    mark: comparisons.map(markOf).join(""),
  };
}

const edges = ({ low, high, estimate, seeds }: Dot) =>
  [low, high, estimate, ...seeds].filter((value) => !Number.isNaN(value));

/** Least and greatest value with some air, so that nothing is drawn on the edge. */
function extent(values: readonly number[]): [number, number] {
  if (values.length === 0) return [0, 1];
  const [low, high] = [Math.min(...values), Math.max(...values)];
  const air = 0.04 * (high - low) || 0.01;
  return [low - air, high + air];
}

function differenceChart({ results }: Material, protocol: Protocol): Chart {
  const tests = results.comparisons.filter((test) =>
    test.protocol === protocol && test.metric === "auroc" && test.epoch === "best"
  );
  const groups = [
    ...Map.groupBy(tests, ({ fraction, baseline }) => `${baseline} ${fraction}`).values(),
  ];
  const dots = (group: readonly Comparison[]) =>
    group.map(({ arm, difference, verdict }): Dot => {
      const { color: hue, symbol } = styleOf(arm, results);
      const { estimate, low, high, seeds } = difference;
      return {
        ...{ name: armTitle(arm, protocol, results), estimate, low, high, symbol, mark: "" },
        color: color(hue),
        filled: verdict !== "not discernible",
        seeds: seeds.length > 1 ? seeds.map(({ value }) => value) : [],
      };
    });
  const domain = extent([0, ...groups.flatMap((group) => dots(group).flatMap(edges))]);
  const words = { scratch: "scratch", untrained: "untrained encoder", pixels: "raw pixels" };
  return chart({
    name: `difference-${protocol}`,
    title: `${PROTOCOL_TITLES[protocol]}: differences in macro AUROC`,
    caption:
      "Paired by patient and seed, with 95 % intervals. Filled symbols are discernible after Holm's " +
      "correction, hollow ones are not; right of the line is better.",
    legend: setLegend(results),
    panels: groups.map((group) =>
      dotPanel(
        `to ${words[group[0]!.baseline]}, ${fractionTitle(group[0]!.fraction)}`,
        dots(group),
        domain,
        "difference",
        0,
      )
    ),
    height: 0,
    head: ["", "baseline", "labels", "difference", "p", "corrected p", "verdict"],
    rows: tests.map((test) => [
      armTitle(test.arm, protocol, results),
      armTitle(test.against, protocol, results),
      fractionTitle(test.fraction),
      signedInterval(test.difference),
      pText(test.p),
      pText(test.corrected),
      test.verdict,
    ]),
  });
}

/** A curve of an arm; several of one arm are its seeds. */
interface Line {
  readonly arm: Arm;
  readonly points: Curve;
  readonly faint?: boolean;
}

interface Axes {
  readonly x: Readonly<Record<string, unknown>>;
  readonly y: Readonly<Record<string, unknown>>;
  /** A line from corner to corner, or none. */
  readonly diagonal?: boolean;
  readonly dots?: boolean;
}

function linePanel(title: string, lines: readonly Line[], axes: Axes, results: Results): Panel {
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
function lineRows(lines: readonly { readonly points: Curve }[]): TableCell[][] {
  const places = [...new Set(lines.flatMap(({ points }) => points.map(([x]) => x)))]
    .sort((a, b) => a - b);
  const maps = lines.map(({ points }) => new Map(points));
  return places.map((x) => [x, ...maps.map((map) => map.get(x) ?? null)]);
}

function lossChart({ study, results }: Material): Chart {
  const cells = study.cells.filter((cell): cell is PretrainCell => cell.kind === "pretrain");
  const lines = cells.map(({ arm, seed, loss, steps, views }) => ({
    arm,
    seed,
    points: loss.filter(([, value]) => value !== null)
      .map(([step, value]) => [Math.round(step / steps * views), value] as const),
  }));
  const arms = results.arms.filter(({ name }) => lines.some(({ arm }) => arm.name === name));
  const methods = [...new Set(arms.map(({ method }) => method))];
  const titles = lines.map(({ arm, seed }) => `${armTitle(arm, null, results)}, seed ${seed}`);
  const last = lines.map((
    { points },
    i,
  ) => [titles[i]!, points[0]?.[1] ?? null, points.at(-1)?.[1] ?? null]);
  return chart({
    name: "pretraining-loss",
    title: "Pretraining losses",
    caption:
      "A line for every seed. Losses of different methods measure different things: only their course compares.",
    legend: lineLegend(arms, null, results),
    panels: methods.map((method) =>
      linePanel(
        methodTitle(arms.find((arm) => arm.method === method)!, null, results),
        lines.filter(({ arm }) => arm.method === method),
        { x: { label: "views", tickFormat: "~s" }, y: { label: "loss", nice: true } },
        results,
      )
    ),
    height: 230,
    head: ["", "first loss", "last loss"],
    rows: last,
  });
}

function validationChart({ study, results }: Material, fraction: number): Chart {
  const cells = study.cells.filter((cell): cell is ScoreCell =>
    cell.kind === "finetune" && cell.fraction === fraction && cell.curve.length > 0
  );
  const curve = (cell: ScoreCell): Curve =>
    cell.curve.filter(({ validation }) => validation !== null)
      .map(({ epoch, validation }) => [epoch, validation]);
  const arms = results.arms.filter(({ name }) => cells.some(({ arm }) => arm.name === name));
  const lines = arms.map((arm) => {
    const seeds = cells.filter((cell) => cell.arm.name === arm.name).map(curve);
    return { arm, seeds, points: meanCurve(seeds) };
  });
  const scratch = lines.filter(({ arm }) =>
    arm.method === "scratch" && arm.width === results.config.encoder.width
  );
  const methods = [...new Set(arms.map(({ method }) => method))].filter((method) =>
    method !== "scratch" || arms.every((arm) => arm.method === "scratch")
  );
  const part = Number((100 * fraction).toPrecision(6));
  const values = lines.flatMap(({ seeds }) => seeds.flatMap((points) => points.map(([, y]) => y)));
  return chart({
    name: `validation-${part}`,
    title: `Fine-tuning on ${fractionTitle(fraction)}: validation`,
    caption:
      "Macro AUROC on the validation images after every epoch, the mean over seeds; each seed faint. " +
      "Training from scratch is in every panel.",
    legend: lineLegend(arms, "finetune", results),
    panels: methods.map((method) => {
      const own = lines.filter(({ arm }) => arm.method === method);
      return linePanel(
        methodTitle(own[0]!.arm, "finetune", results),
        [
          ...own.flatMap(({ arm, seeds }) => seeds.map((points) => ({ arm, points, faint: true }))),
          ...scratch,
          ...own,
        ],
        {
          x: { label: "epoch", tickFormat: "d" },
          y: { label: "macro AUROC", domain: extent(values) },
        },
        results,
      );
    }),
    height: 220,
    head: ["epoch", ...arms.map((arm) => armTitle(arm, "finetune", results))],
    rows: lineRows(lines),
  });
}

function meanCurve(curves: readonly Curve[]): Curve {
  const groups = Map.groupBy(curves.flat(), ([x]) => x);
  return [...groups].filter(([, points]) => points.length === curves.length)
    .map(([x, points]) => [x, points.reduce((sum, [, y]) => sum + y, 0) / points.length]);
}

function efficiencyChart({ results }: Material): Chart {
  const { entries, config, fractions } = results;
  const ofProtocol = (protocol: Protocol) =>
    results.arms.flatMap((arm) => {
      const own = entries.filter((entry) =>
        entry.arm.name === arm.name && entry.protocol === protocol && entry.epoch === "best"
      );
      const points = own.map((
        { images, figures },
      ): [number, number] => [images, figures.auroc.estimate])
        .sort(([a], [b]) => a - b);
      return points.length > 1 ? [{ arm, points, own }] : [];
    });
  const all = config.protocols.map((protocol) => ({ protocol, lines: ofProtocol(protocol) }))
    .filter(({ lines }) => lines.length > 0);
  const arms = results.arms.filter(({ name }) =>
    all.some(({ lines }) => lines.some(({ arm }) => arm.name === name))
  );
  const values = all.flatMap(({ lines }) =>
    lines.flatMap(({ points }) => points.map(([, y]) => y))
  );
  return chart({
    name: "label-efficiency",
    title: "Label efficiency",
    caption:
      "Macro AUROC on the test images by labelled images trained on, means over seeds. A method that saves " +
      "labels falls less to the left.",
    legend: lineLegend(arms, null, results),
    panels: all.map(({ protocol, lines }) =>
      linePanel(PROTOCOL_TITLES[protocol], lines, {
        x: {
          label: "labelled images",
          type: "log",
          ticks: ticksOf(lines),
          tickFormat: "d",
          inset: 12,
        },
        y: { label: "macro AUROC", domain: extent(values) },
        dots: true,
      }, results)
    ),
    height: 280,
    head: ["", "protocol", ...fractions.map(fractionTitle)],
    rows: all.flatMap(({ protocol, lines }) =>
      lines.map(({ arm, own }) => [
        armTitle(arm, protocol, results),
        PROTOCOL_TITLES[protocol],
        ...fractions.map((fraction) => {
          const entry = own.find((entry) => entry.fraction === fraction);
          return entry === undefined ? null : formatInterval(entry.figures.auroc);
        }),
      ])
    ),
  });
}

/** The numbers of images that occur, each once. */
function ticksOf(lines: readonly { readonly points: Curve }[]): number[] {
  const images = lines.flatMap(({ points }) => points.map(([x]) => Math.round(x)));
  return [...new Set(images)].sort((a, b) => a - b)
    .filter((value, i, all) => i === 0 || value > 1.2 * all[i - 1]!);
}

function labelChart({ results }: Material, protocol: Protocol): Chart {
  const { target, sources, labels } = results;
  const parts = labels.filter((part) => part.protocol === protocol);
  const arms = results.arms.filter(({ name }) => parts.some(({ arm }) => arm.name === name));
  const titleOf = (label: string) => target.apart.includes(label) ? `${label} (in no mean)` : label;
  const dots = parts.flatMap(({ arm, source, labels, macro }) =>
    [...labels.map((figure, i) => ({ name: titleOf(target.labels[i]!), figure })), {
      name: "macro mean",
      figure: macro,
    }].filter(({ figure }) => !Number.isNaN(figure.estimate))
      .map(({ name, figure }) => {
        const { color: hue, symbol } = styleOf(arm, results);
        const { estimate, low, high } = figure;
        return { arm: arm.name, source, name, estimate, low, high, color: color(hue), symbol };
      })
  );
  type LabelDot = typeof dots[number];
  const names = [...target.labels.map(titleOf), "macro mean"];
  const domain = extent(dots.flatMap(({ low, high }) => [low, high]));
  const sections = [
    { source: null, title: `all ${target.test.ids.length} images` },
    ...sources.length > 1
      ? sources.map(({ name, images }) => ({
        source: name,
        title: `within ${name}, ${images} images`,
      }))
      : [],
  ];
  return chart({
    name: `labels-${protocol}`,
    title: `${PROTOCOL_TITLES[protocol]}: AUROC of each label`,
    caption:
      "With all labels, in all test images and within each source, where the source cannot give the answer " +
      "away. A label of which a source has only one class has none there.",
    legend: arms.map((arm) => {
      const { color, symbol } = styleOf(arm, results);
      return { label: armTitle(arm, protocol, results), color, symbol };
    }),
    panels: sections.flatMap(({ source, title }) => {
      const own = dots.filter((dot) => dot.source === source);
      if (own.length === 0) return [];
      return [
        {
          title,
          draw: (plot) => ({
            height: names.length * (8 * arms.length + 14) + 50,
            ...{ marginLeft: 100, marginRight: 14, marginTop: 6, marginBottom: 40 },
            x: {
              domain,
              label: "AUROC",
              tickSpacing: 48,
              labelArrow: "none",
              labelAnchor: "center",
            },
            y: { domain: arms.map(({ name }) => name), type: "point", axis: null, padding: 0.8 },
            fy: { domain: names, padding: 0.06, label: null },
            marks: [
              plot.frame({ stroke: color("line") }),
              plot.gridX({ stroke: color("line"), strokeOpacity: 1, tickSpacing: 48 }),
              // Not below the facets above an empty one, where Plot puts axes otherwise.
              plot.axisX({
                ...{ label: "AUROC", labelArrow: "none", labelAnchor: "center" },
                ...{ tickSpacing: 48, facetAnchor: "bottom" },
              }),
              plot.axisFy({
                anchor: "left",
                label: null,
                lineWidth: 7.5,
                textAnchor: "end",
                dx: -8,
              }),
              plot.ruleX([0.5], { stroke: color("soft"), strokeDasharray: "3 3" }),
              plot.link(own, {
                ...{ x1: "low", x2: "high", y1: "arm", y2: "arm", fy: "name" },
                ...{ stroke: (dot: LabelDot) => dot.color, strokeWidth: 1.5, strokeOpacity: 0.6 },
              }),
              plot.dot(own, {
                ...{ x: "estimate", y: "arm", fy: "name", r: 3 },
                symbol: (dot: LabelDot) => dot.symbol,
                fill: (dot: LabelDot) => dot.color,
              }),
            ],
          }),
        } satisfies Panel,
      ];
    }),
    height: 0,
    head: ["", "images", ...names],
    rows: parts.map(({ arm, source, labels, macro }) => [
      armTitle(arm, protocol, results),
      source === null ? "all" : `within ${source}`,
      ...[...labels, macro].map(formatInterval),
    ]),
  });
}

/** The cells of each arm with all labels. */
function fullCells({ study, results }: Material, protocol: Protocol) {
  return results.arms.flatMap((arm) => {
    const cells = study.cells.filter((cell): cell is ScoreCell =>
      cell.kind === protocol && cell.arm.name === arm.name && cell.fraction === results.fractions[0]
    );
    return cells.length > 0 ? [{ arm, cells }] : [];
  });
}

function operatingChart(material: Material, protocol: Protocol): Chart {
  const { results } = material;
  const groups = fullCells(material, protocol);
  const curves = (of: (cells: readonly ScoreCell[], target: Target) => Curve) =>
    groups.map(({ arm, cells }) => ({ arm, points: of(cells, results.target) }))
      .filter(({ points }) => points.length > 0);
  const [roc, precision] = [curves(rocCurve), curves(precisionCurve)];
  const titles = roc.map(({ arm }) => armTitle(arm, protocol, results));
  return chart({
    name: `curves-${protocol}`,
    title: `${PROTOCOL_TITLES[protocol]}: ROC and precision–recall`,
    caption:
      "With all labels; means over labels and seeds, of the sensitivity at each specificity and of the " +
      "precision at each recall.",
    legend: lineLegend(roc.map(({ arm }) => arm), protocol, results),
    panels: roc.length === 0 ? [] : [
      linePanel("ROC", roc, {
        x: { label: "1 − specificity", domain: [0, 1] },
        y: { label: "sensitivity", domain: [0, 1] },
        diagonal: true,
      }, results),
      linePanel("Precision–recall", precision, {
        x: { label: "recall", domain: [0, 1] },
        y: { label: "precision", domain: [0, 1] },
      }, results),
    ],
    height: 340,
    head: [
      "place",
      ...titles.map((title) => `sensitivity, ${title}`),
      ...titles.map((title) => `precision, ${title}`),
    ],
    rows: lineRows([...roc, ...precision]).filter((_, i) => i % 5 === 0),
  });
}

function reliabilityChart(material: Material, protocol: Protocol): Chart {
  const { results } = material;
  const groups = fullCells(material, protocol)
    .map(({ arm, cells }) => ({ arm, bins: reliability(cells, results.target) }));
  return chart({
    name: `reliability-${protocol}`,
    title: `${PROTOCOL_TITLES[protocol]}: reliability`,
    caption:
      "Of what is given a probability, how much is true: in ten bins over all labels and seeds, larger dots " +
      "for more of them. On the dashed line probabilities mean what they say.",
    legend: [],
    panels: groups.map(({ arm, bins }): Panel => {
      const { color: hue } = styleOf(arm, results);
      const most = Math.max(...bins.map(({ count }) => count));
      return {
        title: armTitle(arm, protocol, results),
        draw: (plot) => ({
          ...{ marginLeft: 36, marginRight: 10, marginTop: 10, marginBottom: 38 },
          x: {
            domain: [0, 1],
            label: "probability",
            ticks: [0, 0.5, 1],
            labelArrow: "none",
            labelAnchor: "center",
          },
          y: { domain: [0, 1], label: null, ticks: [0, 0.5, 1] },
          r: { type: "identity" },
          marks: [
            plot.frame({ stroke: color("line") }),
            plot.line([[0, 0], [1, 1]], { stroke: color("soft"), strokeDasharray: "3 3" }),
            plot.line(bins, {
              x: "predicted",
              y: "observed",
              stroke: color(hue),
              strokeWidth: 1.5,
            }),
            plot.dot(bins, {
              ...{ x: "predicted", y: "observed", fill: color(hue) },
              r: (bin: Bin) => 1.5 + 4.5 * Math.sqrt(bin.count / most),
            }),
          ],
        }),
      };
    }),
    width: SMALL,
    height: SMALL,
    head: ["", "mean probability", "share of positives", "cells"],
    rows: groups.flatMap(({ arm, bins }) =>
      bins.map(({ predicted, observed, count }) => [
        armTitle(arm, protocol, results),
        predicted.toFixed(3),
        observed.toFixed(3),
        count,
      ])
    ),
  });
}

function mapChart(
  material: Material,
  projection: "pca" | "umap",
  by: "label" | "source",
): Chart {
  const { results } = material;
  const { target } = results;
  const categories = by === "label"
    ? rarestLabels(target)
    : target.test.sources.map((name) => name ?? "unknown");
  const counts = [...Map.groupBy(categories, (name) => name)]
    .map(([name, images]) => ({ name, count: images.length }))
    .sort((a, b) => b.count - a.count);
  const named = counts.map(({ name }) => name).filter((name) => !NAMELESS.includes(name))
    .slice(0, CYCLE.length);
  const colorOf = (name: string): Color =>
    named.includes(name) ? CYCLE[named.indexOf(name)]! : NAMELESS.includes(name) ? "soft" : "ink";
  const groups = fullCells(material, "knn").flatMap(({ arm, cells }) => {
    const maps = cells.find(({ maps }) => maps !== null)?.maps;
    if (maps === null || maps === undefined) return [];
    const points = categories.map((name, i) => ({
      ...{ name, x: maps[projection][2 * i]!, y: maps[projection][2 * i + 1]! },
    }));
    return [{ arm, points }];
  });
  type Place = typeof groups[number]["points"][number];
  const others = counts.filter(({ name }) => colorOf(name) === "ink");
  const method = projection === "pca" ? "PCA" : "UMAP";
  const mean = (values: number[]) => values.reduce((sum, value) => sum + value, 0) / values.length;
  return chart({
    name: `map-${projection}-${by}`,
    title: `${method} of the test images, coloured by ${by}`,
    caption: (by === "label"
      ? "Each image in the colour of its rarest label. "
      : "Each image in the colour of the source that it is from. ") +
      "Frozen features of the first seed; axes have no meaning" +
      (projection === "umap" ? ", and neither have distances between groups." : " of their own."),
    legend: [
      ...[
        ...named,
        ...NAMELESS.filter((name) =>
          categories.includes(name)
        ),
      ].map((name): Mark => ({
        ...{ label: `${name} (${counts.find((entry) => entry.name === name)!.count})` },
        ...{ color: colorOf(name), symbol: "circle" },
      })),
      ...others.length === 0 ? [] : [{ label: "other", color: "ink", symbol: "circle" } as const],
    ],
    panels: groups.map(({ arm, points }): Panel => ({
      title: armTitle(arm, "knn", results),
      draw: (plot) => ({
        ...{ margin: 6, inset: 6 },
        axis: null,
        marks: [
          plot.frame({ stroke: color("line") }),
          plot.dot(points, {
            ...{ x: "x", y: "y", r: 2.2, fillOpacity: 0.8 },
            fill: (place: Place) => color(colorOf(place.name)),
          }),
        ],
      }),
    })),
    width: SMALL,
    height: SMALL,
    head: ["", by, "images", "mean x", "mean y"],
    rows: groups.flatMap(({ arm, points }) =>
      counts.map(({ name, count }) => {
        const own = points.filter((place) => place.name === name);
        return [
          armTitle(arm, "knn", results),
          name,
          count,
          mean(own.map(({ x }) => x)),
          mean(own.map(({ y }) => y)),
        ];
      })
    ),
  });
}

/** What is no label and no source. */
const NAMELESS = ["none", "unknown"];

/** Of each test image its label that is rarest in training: labels may imply each other. */
function rarestLabels({ labels, apart, prevalence, test }: Target): string[] {
  const k = labels.length;
  return test.ids.map((_, row) => {
    const own = test.targets.slice(row * k, (row + 1) * k);
    const found = labels.flatMap((label, i) => own[i] === 1 && !apart.includes(label) ? [i] : [])
      .sort((a, b) => prevalence[a]! - prevalence[b]!);
    return found.length > 0
      ? labels[found[0]!]!
      : own.every((value) => value === null)
      ? "unknown"
      : "none";
  });
}
