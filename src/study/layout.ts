/** The table of a comparison: rows are methods, columns the sets that they were pretrained on. */
import type { Interval } from "../metrics.ts";
import type { Arm, Protocol } from "./cell.ts";
import type { Comparison, Entry, Epoch, Figure, Results } from "./results.ts";
import type { Metric } from "./statistics.ts";

/** How methods are called; others by their own names. */
const METHODS: Readonly<Record<string, string>> = {
  simclr: "SimCLR",
  micle: "MICLe",
  autoencoder: "Autoencoder",
  kmeans: "K-means",
  supervised: "Supervised",
  imagenet: "ImageNet weights",
  pixels: "Raw pixels",
};

/** How protocols are called in a heading. */
export const PROTOCOL_TITLES: Readonly<Record<Protocol, string>> = {
  finetune: "Fine-tuning",
  linear: "Linear probe of frozen features",
  knn: "kNN of frozen features",
};

/** A method as a row of a table; random weights are a start to train from or an encoder left untrained. */
export function methodTitle(arm: Arm, protocol: Protocol | null, { config }: Results): string {
  const name = arm.method === "scratch"
    ? protocol === "finetune" ? "From scratch" : protocol === null ? "Scratch" : "Untrained"
    : METHODS[arm.method] ?? arm.method;
  return arm.width === config.encoder.width ? name : `${name}, width ${arm.width}`;
}

/** An arm in words: `SimCLR, STL-10`. */
export function armTitle(arm: Arm, protocol: Protocol | null, results: Results): string {
  const method = methodTitle(arm, protocol, results);
  return arm.set === null ? method : `${method}, ${setTitle(arm.set, results)}`;
}

/** A pretraining set in words. */
export function setTitle(set: string, { config }: Results): string {
  return config.sets[set]?.title ?? set;
}

/** A part of the labels in words. */
export function fractionTitle(fraction: number): string {
  return fraction === 1
    ? "all labels"
    : `${Number((100 * fraction).toPrecision(6))} % of the labels`;
}

/** What a table is of. */
export interface Selection {
  readonly protocol: Protocol;
  readonly fraction: number;
  readonly epoch: Epoch;
  readonly metric: Metric;
}

/** A cell with a figure. */
export interface Measured {
  readonly figure: Interval & Partial<Pick<Figure, "seeds">>;
  /** Against scratch, or the untrained encoder and pixels. */
  readonly comparisons: readonly Comparison[];
  /** Seeds of the study that are not run yet. */
  readonly missing: number;
}

/** A cell: a figure, an arm that has none yet, or a place without an arm. */
export type TableCell = Measured | "not run" | "";

/** A row: a method, or a line to read the others against. */
export interface TableRow {
  readonly title: string;
  readonly method: string;
  /** The first without pretraining set, then one for each set. */
  readonly cells: readonly TableCell[];
  readonly isReference: boolean;
}

/** A table of methods by pretraining sets. */
export interface Layout {
  readonly columns: readonly string[];
  readonly rows: readonly TableRow[];
}

/** All selections that have a figure, one for each table, in the order of the report. */
export function selections(results: Results, metric: Metric): Selection[] {
  return results.config.protocols.flatMap((protocol) =>
    results.fractions.flatMap((fraction) =>
      (["best", "last"] as const).filter((epoch) =>
        results.entries.some((entry) => matches(entry, { protocol, fraction, epoch }))
      ).map((epoch) => ({ protocol, fraction, epoch, metric }))
    )
  );
}

/** The heading of a table. */
export function selectionTitle({ protocol, fraction, epoch }: Selection): string {
  const which = protocol !== "finetune"
    ? ""
    : epoch === "best"
    ? ", epoch chosen on validation"
    : ", last epoch";
  return `${PROTOCOL_TITLES[protocol]}, ${fractionTitle(fraction)}${which}`;
}

/** Lays a table out. */
export function layoutOf(results: Results, selection: Selection): Layout {
  const { config, arms } = results;
  const { protocol, metric } = selection;
  const sets = [...new Set([...Object.keys(config.sets), ...arms.flatMap(({ set }) => set ?? [])])];
  const rows = Map.groupBy(
    arms.filter(({ method }) => method !== "pixels"),
    ({ method, width }) => JSON.stringify([method, width]),
  );
  const blank = [null, ...sets].map((): TableCell => "");
  const reference = (title: string, method: string, first: TableCell): TableRow => ({
    ...{ title, method, cells: [first, ...blank.slice(1)], isReference: true },
  });
  const pixels = arms.filter(({ method }) => method === "pixels").flatMap((arm) =>
    (["linear", "knn"] as const)
      .filter((other) => config.protocols.includes(other))
      .filter((other) => protocol === "finetune" || protocol === other)
      .map((other) =>
        reference(
          `Raw pixels, ${other === "linear" ? "linear probe" : "kNN"}`,
          "pixels",
          cellOf(results, { ...selection, protocol: other, epoch: "best" }, arm),
        )
      )
  );
  const blind = (figure: Interval): TableCell => ({ figure, comparisons: [], missing: 0 });
  return {
    columns: ["none", ...sets.map((set) => setTitle(set, results))],
    rows: [
      ...[...rows.values()].map((group): TableRow => ({
        title: methodTitle(group[0]!, protocol, results),
        method: group[0]!.method,
        cells: [null, ...sets].map((set) => {
          const arm = group.find((arm) => arm.set === set);
          return arm === undefined ? "" : cellOf(results, selection, arm);
        }),
        isReference: false,
      })),
      ...pixels,
      reference("Constant predictor", "constant", blind(results.constant[metric])),
      ...results.sourceOnly === null
        ? []
        : [reference("Knowing only the source", "source", blind(results.sourceOnly[metric]))],
    ],
  };
}

function cellOf(results: Results, selection: Selection, arm: Arm): TableCell {
  const entry = results.entries.find((entry) =>
    entry.arm.name === arm.name && matches(entry, selection)
  );
  if (entry === undefined) return "not run";
  const figure = entry.figures[selection.metric];
  return {
    figure,
    comparisons: results.comparisons.filter((comparison) =>
      comparison.arm.name === arm.name && comparison.metric === selection.metric &&
      matches(comparison, selection)
    ),
    // Pixels have no weights that a seed could change.
    missing: arm.method === "pixels"
      ? 0
      : results.config.seeds.filter((seed) => !figure.seeds.some((run) => run.seed === seed))
        .length,
  };
}

/** Whether an entry or a comparison belongs to a table. */
export function matches(
  entry: Pick<Entry | Comparison, "protocol" | "fraction" | "epoch">,
  { protocol, fraction, epoch }: Omit<Selection, "metric">,
): boolean {
  return entry.protocol === protocol && entry.fraction === fraction && entry.epoch === epoch;
}

/** Filled marks stand for scratch or the untrained encoder, hollow ones for raw pixels. */
export function markOf({ baseline, verdict }: Comparison): string {
  if (verdict === "not discernible") return "";
  if (baseline === "pixels") return verdict === "better" ? "△" : "▽";
  return verdict === "better" ? "▲" : "▼";
}

/** What the marks mean, for a table of a protocol. */
export function legendOf(protocol: Protocol): string {
  return protocol === "finetune"
    ? "▲ discernibly better, ▼ worse than from scratch (at the same width)"
    : "▲ discernibly better, ▼ worse than the untrained encoder (at the same width); " +
      "△ better, ▽ worse than raw pixels";
}
