/** What a data set holds, in numbers: its counts, the sizes of its images, and what is wrong with it. */

import { UserError } from "../errors.ts";
import {
  type Dataset,
  type Example,
  indicesOf,
  isLabelled,
  type PixelSize,
  pretrainingIndices,
  type Split,
  usage,
} from "./dataset.ts";
import type { BadImage } from "./decode/decode_all.ts";

/** How many examples have a value of a property. */
export interface Tally {
  /** The value; null is unknown. */
  readonly name: string | null;
  /** How many. */
  readonly images: number;
}

/** Counts of one split. */
export interface SplitSummary {
  /** Examples. */
  readonly images: number;
  /** Known patients. */
  readonly patients: number;
  /** Examples of which any label is known. */
  readonly labelled: number;
  /** Examples that hold each label. */
  readonly positives: readonly number[];
}

/** Sizes as stored. */
export interface SizeSummary {
  /** The least width and the least height, not necessarily of one image. */
  readonly min: PixelSize;
  /** The median of widths and that of heights. */
  readonly median: PixelSize;
  /** The greatest of each. */
  readonly max: PixelSize;
  /** How many pairs of width and height there are. */
  readonly distinct: number;
}

/** What `deno task data show` tells, but for the sheet. */
export interface Summary {
  /** Of the data set. */
  readonly spec: string;
  /** Of the data set. */
  readonly notes: readonly string[];
  /** Things that make scores mean less than they seem to, a sentence each. */
  readonly warnings: readonly string[];
  /** Examples. */
  readonly images: number;
  /** Known patients. */
  readonly patients: number;
  /** Examples that pretraining sees. */
  readonly pretraining: number;
  /** Of the data set. */
  readonly labels: readonly string[];
  /** Counts by split. */
  readonly splits: Readonly<Record<Split, SplitSummary>>;
  /** Examples that hold both labels, [labels, labels]. */
  readonly together: readonly (readonly number[])[];
  /** Images of each known patient; null without any. */
  readonly imagesPerPatient: { readonly median: number; readonly max: number } | null;
  /** Projections, the most frequent first. */
  readonly views: readonly Tally[];
  /** Collections, likewise. */
  readonly sources: readonly Tally[];
  /** Licences, likewise. */
  readonly licenses: readonly Tally[];
  /** Null where no image is stored in a size of its own. */
  readonly sizes: SizeSummary | null;
  /** Groups of images that are copies of one another; null where they were not looked for. */
  readonly duplicates: readonly (readonly Pick<Example, "id" | "split">[])[] | null;
}

/** What is known from decoding the images. */
export interface Decoding {
  /** Groups of examples, see {@linkcode nearDuplicates}; null where they were not looked for. */
  readonly duplicates: readonly (readonly number[])[] | null;
  /** Examples that cannot be read. */
  readonly bad: readonly BadImage[];
}

/** Summarises a data set, of whose images no more than the headers are read here. */
export async function summarize(
  dataset: Dataset,
  { duplicates, bad }: Decoding = { duplicates: null, bad: [] },
): Promise<Summary> {
  const { spec, notes = [], labels, examples } = dataset;
  const filmsOf = Map.groupBy(examples.keys(), (index) => examples[index]!.patient);
  filmsOf.delete(null);
  const films = filmsOf.values().map(({ length }) => length).toArray().sort((a, b) => a - b);
  return {
    spec,
    notes,
    warnings: [
      ...bad.length > 0
        ? [`${plural(bad.length, "image")} cannot be read, such as ${bad[0]!.reason}`]
        : [],
      ...warningsOf(dataset, [...filmsOf.values()], duplicates ?? []),
    ],
    images: examples.length,
    patients: films.length,
    pretraining: pretrainingIndices(dataset).length,
    labels,
    splits: {
      train: summarizeSplit(dataset, "train"),
      val: summarizeSplit(dataset, "val"),
      test: summarizeSplit(dataset, "test"),
      unlabeled: summarizeSplit(dataset, "unlabeled"),
    },
    together: countTogether(dataset),
    imagesPerPatient: films.length === 0 ? null : { median: median(films), max: films.at(-1)! },
    views: tally(examples, "view"),
    sources: tally(examples, "source"),
    licenses: tally(examples, "license"),
    sizes: await measureSizes(dataset),
    duplicates:
      duplicates?.map((group) =>
        group.map((index) => ({ id: examples[index]!.id, split: examples[index]!.split }))
      ) ?? null,
  };
}

function summarizeSplit(dataset: Dataset, split: Split): SplitSummary {
  const indices = indicesOf(dataset, [split]);
  const examples = indices.map((index) => dataset.examples[index]!);
  return {
    images: examples.length,
    patients: usage(dataset, indices).patients,
    labelled: examples.filter(isLabelled).length,
    positives: dataset.labels.map((_, k) =>
      examples.filter(({ labels }) => labels[k] === 1).length
    ),
  };
}

function countTogether({ labels, examples }: Dataset): number[][] {
  const together = labels.map(() => Array<number>(labels.length).fill(0));
  for (const example of examples) {
    const held = labels.keys().filter((column) => example.labels[column] === 1).toArray();
    for (const a of held) {
      for (const b of held) together[a]![b]!++;
    }
  }
  return together;
}

function tally(examples: readonly Example[], property: "view" | "source" | "license"): Tally[] {
  return [...Map.groupBy(examples, (example) => example[property])]
    .map(([name, { length }]) => ({ name, images: length }))
    .sort((a, b) => b.images - a.images || ((a.name ?? "") < (b.name ?? "") ? -1 : 1));
}

async function measureSizes(dataset: Dataset): Promise<SizeSummary | null> {
  const sizes: PixelSize[] = [];
  for (const index of dataset.examples.keys()) {
    try {
      const size = await dataset.pixelSize?.(index);
      if (size) sizes.push(size);
    } catch (error) {
      // An image that cannot be read has no size, and is told of by whoever decodes it.
      if (!(error instanceof UserError)) throw error;
    }
  }
  if (sizes.length === 0) return null;
  const widths = sizes.map(({ width }) => width).sort((a, b) => a - b);
  const heights = sizes.map(({ height }) => height).sort((a, b) => a - b);
  return {
    min: { width: widths[0]!, height: heights[0]! },
    median: { width: median(widths), height: median(heights) },
    max: { width: widths.at(-1)!, height: heights.at(-1)! },
    distinct: new Set(sizes.map(({ width, height }) => `${width}×${height}`)).size,
  };
}

/** The median of ascending values; of an even count the lower of the two in the middle. */
function median(ascending: readonly number[]): number {
  return ascending[(ascending.length - 1) >> 1]!;
}

/** Labels that a warning names. */
const MOST_NAMED = 5;

/** Patients, or copies of an image, on two sides of the split, and labels that a split lacks. */
function warningsOf(
  { labels, examples }: Dataset,
  patients: readonly (readonly number[])[],
  duplicates: readonly (readonly number[])[],
): string[] {
  const warnings: string[] = [];
  const divided = (groups: typeof patients, unit: string, what: string) => {
    const wrong = groups.filter((group) =>
      new Set(group.map((index) => sideOf(examples[index]!))).size > 1
    );
    if (wrong.length === 0) return;
    // One image of each split, to look at.
    const bySplit = Map.groupBy(wrong[0]!, (index) => examples[index]!.split);
    const such = [...bySplit].map(([split, [index]]) => `${examples[index!]!.id} (${split})`);
    warnings.push(
      `${plural(wrong.length, unit)}${what} on two sides of the split, such as ${such.join(", ")}`,
    );
  };
  divided(patients, "patient", "");
  divided(duplicates, "group", " of duplicates");
  for (const split of ["train", "val", "test"] as const) {
    const members = examples.filter((example) => example.split === split && isLabelled(example));
    const absent = labels.filter((_, k) => members.every(({ labels }) => labels[k] !== 1));
    if (members.length > 0 && absent.length > 0) {
      const more = absent.length > MOST_NAMED ? ` and ${absent.length - MOST_NAMED} more` : "";
      warnings.push(
        `no image of ${split} holds ${absent.slice(0, MOST_NAMED).join(", ")}${more}`,
      );
    }
  }
  return warnings;
}

/** `1 group`, `2 groups`. */
export function plural(count: number, what: string): string {
  return `${count} ${what}${count === 1 ? "" : "s"}`;
}

/** Training may see unlabelled images too. */
function sideOf({ split }: Example): Split {
  return split === "unlabeled" ? "train" : split;
}
