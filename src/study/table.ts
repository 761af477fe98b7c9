/** The results for papers: `table.md`, `results.csv` and `differences.csv`. */
import { formatInterval } from "../scores.ts";
import {
  armTitle,
  layoutOf,
  legendOf,
  markOf,
  selections,
  selectionTitle,
  type TableCell,
} from "./layout.ts";
import type { Comparison, Figure, Results } from "./results.ts";
import { METRIC_NAMES, METRICS } from "./statistics.ts";

/** Every metric of every protocol and part of the labels as methods by pretraining sets, and the differences. */
export function tableMarkdown(results: Results): string {
  const { target, config, patients, resamples } = results;
  const tables = METRIC_NAMES.flatMap((metric) => [
    `## ${heading(METRICS[metric].title)}${METRICS[metric].higher ? "" : " (lower is better)"}`,
    ...selections(results, metric).flatMap((selection) => {
      const { columns, rows } = layoutOf(results, selection);
      return [
        `### ${selectionTitle(selection)}`,
        markdownTable(
          ["", ...columns.map(text)],
          rows.map(({ title, cells }) => [text(title), ...cells.map(cellText)]),
        ),
        `${legendOf(selection.protocol)}.`,
      ];
    }),
  ]);
  return [
    `# ${text(config.title)}`,
    `${target.test.ids.length} test images of ${patients} patients. In brackets 95 % intervals from ` +
    `${resamples} resamples of patients, each averaging over seeds; in parentheses the value of every ` +
    "seed. Differences are paired by patient and seed; p is two-sided and Holm-corrected for the " +
    "comparisons with one baseline in one table; below 0.05 a difference is called discernible.",
    ...tables,
    "## Differences in macro AUROC",
    differences(results, results.comparisons.filter(({ metric }) => metric === "auroc")),
    "Those in the other metrics are in differences.csv.",
  ].join("\n\n") + "\n";
}

/** One row for each arm, protocol, part of the labels, epoch and metric; also the blind predictors. */
export function resultsCsv(results: Results): string {
  const { entries, constant, sourceOnly, target } = results;
  const n = target.test.ids.length;
  const head =
    "arm,method,set,width,protocol,fraction,epoch,metric,estimate,low,high,seeds,values,n";
  const rows = entries.flatMap(({ arm, protocol, fraction, epoch, figures }) =>
    METRIC_NAMES.map((metric) => {
      const { estimate, low, high, seeds } = figures[metric];
      return [
        ...[arm.name, arm.method, arm.set ?? "", arm.width, protocol, fraction, epoch, metric],
        ...[estimate, low, high].map(rounded),
        seeds.map(({ seed }) => seed).join(" "),
        seeds.map(({ value }) => rounded(value)).join(" "),
        n,
      ];
    })
  );
  const blind = [["constant", constant], ["source", sourceOnly]] as const;
  const without = blind.flatMap(([name, figures]) =>
    figures === null ? [] : METRIC_NAMES.map((metric) => {
      const { estimate, low, high } = figures[metric];
      return [
        name,
        name,
        "",
        "",
        "",
        "",
        "",
        metric,
        ...[estimate, low, high].map(rounded),
        "",
        "",
        n,
      ];
    })
  );
  return csv(head, [...rows, ...without]);
}

/** One row for each comparison. */
export function differencesCsv({ comparisons }: Results): string {
  const head =
    "arm,against,baseline,protocol,fraction,epoch,metric,difference,low,high,seeds,values," +
    "p,corrected,family,verdict";
  return csv(
    head,
    comparisons.map(({ arm, against, difference, p, corrected, family, verdict, ...test }) => [
      ...[
        arm.name,
        against.name,
        test.baseline,
        test.protocol,
        test.fraction,
        test.epoch,
        test.metric,
      ],
      ...[difference.estimate, difference.low, difference.high].map(rounded),
      difference.seeds.map(({ seed }) => seed).join(" "),
      difference.seeds.map(({ value }) => rounded(value)).join(" "),
      ...[p, corrected].map(rounded),
      family,
      verdict,
    ]),
  );
}

function differences(results: Results, tests: readonly Comparison[]): string {
  if (tests.length === 0) return "Nothing to compare yet.";
  return markdownTable(
    ["", "protocol", "compared with", "difference", "p", "corrected", "verdict"],
    tests.map(({ arm, against, protocol, fraction, epoch, difference, p, corrected, verdict }) => [
      text(armTitle(arm, protocol, results)),
      selectionTitle({ protocol, fraction, epoch, metric: "auroc" }),
      text(armTitle(against, protocol, results)),
      `${signedInterval(difference)} ${seedValues(difference, signed)}`,
      pText(p),
      pText(corrected),
      verdict,
    ]),
  );
}

function cellText(cell: TableCell): string {
  if (typeof cell === "string") return cell;
  const { figure, comparisons, missing } = cell;
  const { seeds } = figure;
  return [
    formatInterval(figure),
    comparisons.map(markOf).join(""),
    seeds === undefined || seeds.length < 2 ? "" : seedValues({ seeds }, (v) => v.toFixed(3)),
    missing > 0 ? `${missing} of ${missing + seeds!.length} seeds not run` : "",
  ].filter(Boolean).join(" ");
}

/** `+0.012 [−0.003, +0.030]`, or a dash where it is not defined. */
export function signedInterval({ estimate, low, high }: Figure): string {
  return Number.isNaN(estimate) ? "–" : `${signed(estimate)} [${signed(low)}, ${signed(high)}]`;
}

/** A p-value with at most three decimals. */
export function pText(p: number): string {
  return Number.isNaN(p) ? "–" : p < 0.001 ? "< 0.001" : p.toFixed(3);
}

const signed = (value: number) => `${value < 0 ? "−" : "+"}${Math.abs(value).toFixed(3)}`;
const seedValues = ({ seeds }: Pick<Figure, "seeds">, format: (value: number) => string) =>
  `(${seeds.map(({ value }) => format(value)).join(", ")})`;
const rounded = (value: number) => Number.isNaN(value) ? "" : Number(value.toPrecision(6));
const heading = (title: string) => title[0]!.toUpperCase() + title.slice(1);

function csv(head: string, rows: readonly (readonly (string | number)[])[]): string {
  return [head, ...rows.map((row) => row.map(csvField).join(","))].join("\n") + "\n";
}

function csvField(field: string | number): string {
  const text = String(field);
  return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}

/** Names may hold what Markdown or HTML would read. */
function text(words: string): string {
  return words.replace(/\s+/g, " ").replaceAll("&", "&amp;").replaceAll("<", "&lt;")
    .replaceAll(/[|\\`*_\[\]]/g, "\\$&");
}

function markdownTable(head: readonly string[], rows: readonly (readonly string[])[]): string {
  const line = (cells: readonly string[]) => `| ${cells.join(" | ")} |`;
  return [line(head), line(head.map(() => "---")), ...rows.map(line)].join("\n");
}
