/** Charts of what is said of the test images: labels and sources, operating points, reliability, maps. */
import { formatInterval } from "../scores.ts";
import type { Protocol, ScoreCell, Target } from "./cell.ts";
import { type Bin, type Curve, precisionCurve, reliability, rocCurve } from "./curves.ts";
import { armTitle, PROTOCOL_TITLES } from "./layout.ts";
import {
  chart,
  CYCLE,
  extent,
  lineLegend,
  linePanel,
  lineRows,
  type Material,
  SMALL,
  styleOf,
} from "./panels.ts";
import { type Chart, type Color, color, type Mark, type Panel } from "./plot.ts";

/** AUROC of each label, in all images and within each source. */
export function labelChart({ results }: Material, protocol: Protocol): Chart {
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

/** ROC and precision–recall curves. */
export function operatingChart(material: Material, protocol: Protocol): Chart {
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

/** Reliability diagrams, one for each arm. */
export function reliabilityChart(material: Material, protocol: Protocol): Chart {
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

/** Maps of the test images by their features, one for each arm. */
export function mapChart(
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
