/** A summary of a data set as text, 100 columns wide where names allow it. */

import { tableLines } from "../table.ts";
import { type PixelSize, SPLITS } from "./dataset.ts";
import { plural, type SplitSummary, type Summary, type Tally } from "./summary.ts";

/** The width in which lists, and the table of all pairs of labels, must fit. */
const WIDTH = 100;
/** Pairs of labels that are listed where it does not. */
const PAIRS = 10;
/** Groups of duplicates that are written out. */
const GROUPS = 5;
/** Columns for the names of properties. */
const INDENT = 13;

/** Tables of the counts, a line for each property, and the warnings. */
export function describe(summary: Summary): string {
  const { spec, images, patients, pretraining, notes, warnings } = summary;
  return [
    spec,
    `${images} images, ${patients} known patients; pretraining sees ${pretraining} (train and unlabeled)`,
    ...notes,
    "",
    ...splitTable(summary),
    ...togetherTable(summary),
    ...propertyLines(summary),
    ...warnings.map((warning, i) => `${i === 0 ? "\n" : ""}warning: ${warning}`),
  ].join("\n");
}

/** A row for images, patients and each label, a column for each split. */
function splitTable({ splits, labels }: Summary): string[] {
  const row = (name: string, count: (split: SplitSummary) => number) => [
    name,
    ...SPLITS.map((split) => String(count(splits[split]))),
  ];
  return tableLines([
    ["", ...SPLITS],
    row("images", ({ images }) => images),
    row("patients", ({ patients }) => patients),
    row("labelled", ({ labelled }) => labelled),
    ...labels.map((label, k) => row(`  ${label}`, ({ positives }) => positives[k]!)),
  ]);
}

/** How often two labels hold together, where any do: half a table, its diagonal a label's own count. */
function togetherTable({ labels, together }: Summary): string[] {
  const pairs = labels.flatMap((_, a) => labels.slice(0, a).map((_, b) => [a, b] as const))
    .filter(([a, b]) => together[a]![b]! > 0)
    .sort(([a, b], [c, d]) => together[c]![d]! - together[a]![b]!);
  if (pairs.length === 0) return [];
  const digits = String(labels.length).length;
  const table = tableLines([
    ["together", ...labels.map((_, k) => String(k + 1))],
    ...labels.map((label, a) => [
      `  ${String(a + 1).padStart(digits)} ${label}`,
      ...labels.map((_, b) => b > a ? "" : String(together[a]![b] || "·")),
    ]),
  ]);
  if (table.every(({ length }) => length <= WIDTH)) return ["", ...table];
  const rows = pairs.slice(0, PAIRS)
    .map(([a, b]) => [`  ${labels[b]}, ${labels[a]}`, String(together[a]![b])]);
  const rest = pairs.length - rows.length;
  return [
    "",
    ...tableLines([["together", "images"], ...rows]),
    ...rest > 0 ? [`  and ${rest} pairs less often`] : [],
  ];
}

/** A line for each property that is known. */
function propertyLines(summary: Summary): string[] {
  const { imagesPerPatient, views, sources, licenses, sizes, duplicates } = summary;
  const properties: [name: string, lines: readonly string[]][] = [
    [
      "per patient",
      imagesPerPatient === null
        ? []
        : [`median ${imagesPerPatient.median}, at most ${imagesPerPatient.max}`],
    ],
    ["views", tallyLine(views)],
    ["sources", tallyLine(sources)],
    ["licences", tallyLine(licenses)],
    [
      "sizes",
      sizes === null ? [] : sizes.distinct === 1 ? [`all ${pixels(sizes.min)}`] : [
        `${pixels(sizes.min)} to ${pixels(sizes.max)}, median ${pixels(sizes.median)}, ` +
        `${sizes.distinct} different`,
      ],
    ],
    [
      "duplicates",
      duplicates === null ? [] : duplicates.length === 0 ? ["none"] : [
        `${duplicates.flat().length} images in ${plural(duplicates.length, "group")}`,
        ...duplicates.slice(0, GROUPS).map((group) =>
          listed(group.map(({ id, split }) => `${shorten(id)} (${split})`))
        ),
        ...duplicates.length > GROUPS ? ["…"] : [],
      ],
    ],
  ];
  const lines = properties.flatMap(([name, lines]) =>
    lines.map((line, i) => `${(i === 0 ? name : "").padEnd(INDENT)}${line}`)
  );
  return lines.length > 0 ? ["", ...lines] : [];
}

function tallyLine(tally: readonly Tally[]): string[] {
  if (tally.every(({ name }) => name === null)) return [];
  return [listed(tally.map(({ name, images }) => `${shorten(name ?? "unknown")} ${images}`))];
}

const pixels = ({ width, height }: PixelSize) => `${width}×${height}`;

/** A list, or as much of it as fits beside the name of a property, but for its count. */
function listed(names: readonly string[]): string {
  const width = WIDTH - INDENT - " and 9999 more".length;
  let shown = names.length;
  while (shown > 1 && names.slice(0, shown).join(", ").length > width) shown--;
  const rest = names.length - shown;
  return names.slice(0, shown).join(", ") + (rest > 0 ? ` and ${rest} more` : "");
}

/** The end of a long name, which tells images of one folder apart; two of them fit in a line. */
function shorten(name: string): string {
  return name.length > 23 ? `…${name.slice(-22)}` : name;
}
