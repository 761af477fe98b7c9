/** Charts of training: losses of pretraining, validation scores of fine-tuning. */
import type { PretrainCell, ScoreCell } from "./cell.ts";
import type { Curve } from "./curves.ts";
import { armTitle, fractionTitle, methodTitle } from "./layout.ts";
import { chart, extent, lineLegend, linePanel, lineRows, type Material } from "./panels.ts";
import type { Chart } from "./plot.ts";

/** Losses of pretraining, a panel for each method. */
export function lossChart({ study, results }: Material): Chart {
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

/** Validation scores of fine-tuning, a panel for each method. */
export function validationChart({ study, results }: Material, fraction: number): Chart {
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
