/** Charts of the scores: arms beside each other, their differences to the baselines, and fewer labels. */
import { formatInterval } from "../scores.ts";
import type { Protocol } from "./cell.ts";
import type { Curve } from "./curves.ts";
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
import {
  chart,
  type Dot,
  dotPanel,
  edges,
  extent,
  lineLegend,
  linePanel,
  type Material,
  setLegend,
  styleOf,
} from "./panels.ts";
import { type Chart, type Color, color } from "./plot.ts";
import type { Comparison } from "./results.ts";
import { pText, signedInterval } from "./table.ts";

/** Macro AUROC of all arms, with their seeds and the lines to read them against. */
export function scoreChart({ results }: Material, protocol: Protocol): Chart {
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

/** Differences in macro AUROC to the baselines. */
export function differenceChart({ results }: Material, protocol: Protocol): Chart {
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

/** Macro AUROC by labelled images. */
export function efficiencyChart({ results }: Material): Chart {
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
