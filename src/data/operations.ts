/**
 * What can be done to any data set, whichever reader it comes from, in the vocabulary of
 * torchxrayvision (Cohen et al. 2022, https://arxiv.org/abs/2111.00595): relabel, filter, merge,
 * subset, split by patient. An operation returns a new data set, leaves the old one as it is and
 * decodes nothing; the new one keeps the `spec`, which says where the images come from. A SPEC
 * names the same operations by keys, see spec.ts.
 */

import { UserError } from "../errors.ts";
import { pcg4d, Random, streamId } from "../random.ts";
import { type Dataset, type Example, indicesOf, isLabelled, type Split } from "./dataset.ts";
import { checkSides, personOf, placePatients } from "./splits.ts";

/** What {@linkcode filter} keeps; a criterion that is null or absent keeps everything. */
export interface Criteria {
  /** Examples of any of these splits. */
  readonly split?: readonly Split[] | null;
  /** Images of any of these projections, upper or lower case. */
  readonly views?: readonly string[] | null;
  /** Images under any of these licences, upper or lower case. */
  readonly licenses?: readonly string[] | null;
  /** Images that hold any of these labels. */
  readonly having?: readonly string[] | null;
}

/** How {@linkcode resplit} places patients: shares in any unit, and a seed. */
export interface Resplit {
  /** The share of patients to train on. */
  readonly train: number;
  /** The share to choose settings by. */
  readonly val: number;
  /** The share to test on. */
  readonly test: number;
  /** Another seed gives another split; 0 by default. */
  readonly seed?: number;
}

/**
 * The examples at `indices`, in that order.
 *
 * @throws {RangeError} for an index that the data set does not have
 */
export function subset(dataset: Dataset, indices: readonly number[]): Dataset {
  const origins = [...indices];
  const examples = origins.map((index) => {
    const example = dataset.examples[index];
    if (example !== undefined) return example;
    throw new RangeError(`subset: no example ${index} of ${dataset.examples.length}`);
  });
  return {
    ...dataset,
    examples,
    load: (index, size, channels) => dataset.load(origins[index]!, size, channels),
    ...(dataset.pixelSize && { pixelSize: (index) => dataset.pixelSize!(origins[index]!) }),
  };
}

/** At most `limit` examples, evenly spaced over the data set. */
export function thin(dataset: Dataset, limit: number): Dataset {
  return subset(dataset, evenlySpaced(dataset.examples.length, limit));
}

/** At most `count` of the indices 0, …, total − 1, evenly spaced and beginning with 0. */
export function evenlySpaced(total: number, count: number): number[] {
  const n = Math.min(count, total);
  return Array.from({ length: n }, (_, i) => Math.floor((i * total) / n));
}

/**
 * The examples that a predicate holds for, or that fulfil all criteria.
 *
 * @throws {UserError} for a view, licence or label that no image has, and if nothing is left
 */
export function filter(
  dataset: Dataset,
  keep: Criteria | ((example: Example) => boolean),
): Dataset {
  const holds = typeof keep === "function" ? keep : predicateOf(dataset, keep);
  const kept = dataset.examples.keys().filter((index) => holds(dataset.examples[index]!));
  const left = subset(dataset, kept.toArray());
  return left.examples.length > 0 ? left : fail(dataset, "no image is left");
}

function predicateOf(
  dataset: Dataset,
  { split, views, licenses, having }: Criteria,
): (example: Example) => boolean {
  const among = (property: "view" | "license", words: readonly string[] | null = null) => {
    const known = dataset.examples.flatMap((example) => example[property] ?? []);
    const lower = new Set(known.map((word) => word.toLowerCase()));
    for (const word of words ?? []) {
      if (lower.has(word.toLowerCase())) continue;
      fail(dataset, `no image has the ${property} "${word}"; there are ${namesOf(known)}`);
    }
    const wanted = words?.map((word) => word.toLowerCase());
    return (example: Example) => wanted?.includes(example[property]?.toLowerCase() ?? "") ?? true;
  };
  const inViews = among("view", views);
  const inLicenses = among("license", licenses);
  const columns = having && columnsOf(dataset, having);
  return (example) =>
    (split?.includes(example.split) ?? true) && inViews(example) && inLicenses(example) &&
    (columns?.some((column) => example.labels[column] === 1) ?? true);
}

/**
 * Renames, merges and drops labels: each old name to its new one, or to null to drop it. Labels
 * that get one name become one label, as does one that has the name already: it holds where any of
 * them holds, is unknown where none holds and any is unknown, and else does not hold. Labels that
 * are not named stay. Names are compared whole.
 *
 * @throws {UserError} for a label that the data set does not have, with those it has
 */
export function relabel(
  dataset: Dataset,
  map: Readonly<Record<string, string | null>>,
): Dataset {
  const renamed = new Map(Object.entries(map));
  columnsOf(dataset, [...renamed.keys()]);
  const names = dataset.labels.map((label) => renamed.has(label) ? renamed.get(label)! : label);
  const labels = [...new Set(names.filter((name) => name !== null))];
  const merged = labels.map((label) =>
    names.keys().filter((column) => names[column] === label).toArray()
  );
  return withLabels(
    dataset,
    labels,
    (old) => merged.map((columns) => any(columns.map((column) => old[column]!))),
  );
}

/** Whether any of the values holds, which is unknown where none does and one is unknown. */
function any(values: readonly number[]): number {
  return values.includes(1) ? 1 : values.some(Number.isNaN) ? NaN : 0;
}

/**
 * These labels, in this order.
 *
 * @throws {UserError} for a label that the data set does not have, with those it has
 */
export function selectLabels(dataset: Dataset, labels: readonly string[]): Dataset {
  const columns = columnsOf(dataset, labels);
  return withLabels(dataset, [...labels], (old) => columns.map((column) => old[column]!));
}

/**
 * All examples of several data sets. The labels are those of the first in its order, then what the
 * others add; where a data set does not know a label, its examples have NaN. Patient ids are local
 * to the reader and path of a data set, so equal ids of two files stay two patients. A single data
 * set is returned as it is.
 *
 * @throws {UserError} if a patient or an image file is on two sides of a split
 */
export function merge(datasets: readonly Dataset[]): Dataset {
  if (datasets.length === 1) return datasets[0]!;
  const spec = datasets.map((part) => part.spec).join("+");
  const labels = [...new Set(datasets.flatMap((part) => part.labels))];
  const origins = datasets.map((part) => part.spec.replaceAll(/\?[^+]*/g, ""));
  const owners: { part: Dataset; index: number }[] = [];
  const names: string[] = [];
  const examples = datasets.flatMap((part, p) => {
    const columns = labels.map((label) => part.labels.indexOf(label));
    const home = origins.indexOf(origins[p]!) + 1;
    return part.examples.map((example, index): Example => {
      owners.push({ part, index });
      names.push(`${home}:${example.id}`);
      return {
        ...example,
        patient: example.patient === null ? null : `${home}:${example.patient}`,
        labels: Float32Array.from(columns, (column) => column < 0 ? NaN : example.labels[column]!),
      };
    });
  });
  const where = `data ${JSON.stringify(spec)}`;
  checkSides(where, "image", examples.map(({ file, split }, i) => [file ?? names[i]!, split]));
  checkSides(where, "patient", examples.map(({ patient, split }) => [patient, split]));
  return {
    spec,
    labels,
    examples,
    notes: [...new Set(datasets.flatMap(({ notes }) => notes ?? []))],
    load(index, size, channels) {
      const { part, index: inner } = owners[index]!;
      return part.load(inner, size, channels);
    },
    async pixelSize(index) {
      const { part, index: inner } = owners[index]!;
      return await part.pixelSize?.(inner) ?? null;
    },
  };
}

/**
 * Splits anew by patient. Every combination of labels, a patient having those of any of its images,
 * keeps the shares to within one patient. Where a patient goes depends on the seed and on the
 * labelled patients of the same combination alone: with one more or one less of them at most one patient
 * moves at each border, and all others stay.
 *
 * As in {@linkcode splitByPatient}, patients without a labelled image and the unlabelled images of
 * training patients are `unlabeled`.
 *
 * @throws {RangeError} for shares that are negative or all zero
 */
export function resplit(dataset: Dataset, { train, val, test, seed = 0 }: Resplit): Dataset {
  const sum = train + val + test;
  if (!(Math.min(train, val, test) >= 0 && sum > 0 && sum < Infinity)) {
    throw new RangeError(`resplit: shares of ${train}, ${val} and ${test}`);
  }
  const hash = (text: string, stream: string) =>
    pcg4d(streamId(text), streamId(stream), seed, 0)[0];
  const people = Map.groupBy(dataset.examples.keys(), (i) => personOf(dataset.examples[i]!));
  const labelled = people.keys().filter((person) =>
    people.get(person)!.some((index) => isLabelled(dataset.examples[index]!))
  );
  const strata = Map.groupBy(labelled, (person) => stratumOf(dataset, people.get(person)!));
  const sides = new Map<string, Split>();
  for (const [stratum, persons] of strata) {
    // With a random offset even strata of one patient keep their shares on average.
    const offset = hash(stratum, "resplit stratum") / 0x100000000;
    const cut = (share: number) => Math.floor(persons.length * share + offset);
    const [endOfTrain, endOfVal] = [cut(train / sum), cut((train + val) / sum)];
    const order = new Map(persons.map((person) => [person, hash(person, "resplit patient")]));
    persons.sort((a, b) => order.get(a)! - order.get(b)!).forEach((person, place) => {
      sides.set(person, place < endOfTrain ? "train" : place < endOfVal ? "val" : "test");
    });
  }
  const places = placePatients(
    dataset.examples.map((example) => ({ ...example, labelled: isLabelled(example) })),
    (person) => sides.get(person)!,
  );
  const examples = dataset.examples.map((example, i) => ({ ...example, split: places[i]! }));
  return { ...dataset, examples };
}

/**
 * Keeps the labels of a part of the labelled training patients, see {@linkcode samplePatients};
 * those of the others become unknown and their images `unlabeled`, as if nobody had read them.
 *
 * @throws {RangeError} for a fraction outside (0, 1]
 */
export function sampleLabels(dataset: Dataset, fraction: number, seed = 0): Dataset {
  if (!(fraction > 0 && fraction <= 1)) throw new RangeError(`sampleLabels: fraction ${fraction}`);
  const labelled = indicesOf(dataset, ["train"]).filter((i) => isLabelled(dataset.examples[i]!));
  const hidden = new Set(labelled)
    .difference(new Set(samplePatients(dataset, labelled, fraction, seed)));
  const examples = dataset.examples.map((example, index): Example =>
    !hidden.has(index) ? example : {
      ...example,
      split: "unlabeled",
      labels: new Float32Array(dataset.labels.length).fill(NaN),
    }
  );
  return { ...dataset, examples };
}

/**
 * All images of a part of the patients, so chosen that every combination of labels keeps its share: with
 * the patients in the order of their labels, shuffled among equals, every 1/fraction-th is taken. An
 * image without a patient is a patient of its own.
 */
export function samplePatients(
  dataset: Dataset,
  indices: readonly number[],
  fraction: number,
  seed: number,
): number[] {
  const patients = [
    ...Map.groupBy(indices, (index) => dataset.examples[index]!.patient ?? index).values(),
  ];
  const random = new Random(seed, "label fraction");
  const ordered = random.shuffle(patients)
    .map((images) => ({ images, key: stratumOf(dataset, images) }))
    .sort((a, b) => a.key < b.key ? -1 : Number(a.key > b.key));
  const start = random.uniform();
  return ordered
    .filter((_, i) => Math.floor((i + 1) * fraction + start) > Math.floor(i * fraction + start))
    .flatMap(({ images }) => images)
    .sort((a, b) => a - b);
}

/** The combination of labels of a patient, which are those of any of its images: a digit for each label. */
function stratumOf(dataset: Dataset, images: readonly number[]): string {
  return dataset.labels.map((_, label) =>
    Number(images.some((index) => dataset.examples[index]!.labels[label] === 1))
  ).join("");
}

/** The examples under other labels, whose values `valuesOf` makes from the old ones. */
function withLabels(
  dataset: Dataset,
  labels: readonly string[],
  valuesOf: (old: Float32Array) => readonly number[],
): Dataset {
  const examples = dataset.examples.map((example) => ({
    ...example,
    labels: Float32Array.from(valuesOf(example.labels)),
  }));
  return { ...dataset, labels, examples };
}

function columnsOf(dataset: Dataset, labels: readonly string[]): number[] {
  return labels.map((label) => {
    const column = dataset.labels.indexOf(label);
    return column >= 0
      ? column
      : fail(dataset, `no label "${label}"; there are ${namesOf(dataset.labels)}`);
  });
}

const namesOf = (words: Iterable<string>) => [...new Set(words)].sort().join(", ") || "none";

function fail(dataset: Dataset, why: string): never {
  throw new UserError(`data ${JSON.stringify(dataset.spec)}: ${why}`);
}
