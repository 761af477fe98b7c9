/** Opening data sets by SPEC: one reader for each source, then selection, then the union. */

import { UserError } from "../errors.ts";
import { type Archive, ofBlocks } from "./blocks.ts";
import { readCifar10, readCifar100 } from "./cifar.ts";
import { readCsv } from "./csv.ts";
import type { Dataset, Example } from "./dataset.ts";
import { loadImage } from "./decode.ts";
import { readFolder } from "./folder.ts";
import { openPhantom } from "./phantom.ts";
import { formatSpec, parseSpec, resolveSpec, type Source } from "./spec.ts";
import { checkSides } from "./splits.ts";
import { readStl10 } from "./stl10.ts";

/**
 * Opens the data set that a SPEC names (its grammar is in spec.ts).
 *
 * Several sources are joined: the labels are those of the first in its order, then what the others
 * add; where a source does not know a label, its examples have NaN. Patient ids are local to a
 * reader and path, so equal ids of two files stay two patients.
 *
 * @param baseDir what relative paths are below; the working directory by default, and the folder of
 *   the file when the SPEC stands in a configuration file
 * @throws UserError for a bad SPEC, missing or contradictory files, a patient or image on two sides
 *   of a split, or a selection that leaves nothing
 */
export async function openDataset(
  spec: string,
  { baseDir = "." }: { readonly baseDir?: string } = {},
): Promise<Dataset> {
  const sources = resolveSpec(parseSpec(spec), baseDir);
  const parts: Dataset[] = [];
  for (const source of sources) parts.push(select(await openSource(source), source));
  return parts.length === 1 ? parts[0]! : join(parts);
}

async function openSource(source: Source): Promise<Dataset> {
  switch (source.reader) {
    case "csv":
      return ofFiles(source, readCsv(source.path!));
    case "folder":
      return ofFiles(source, await readFolder(source.path!));
    case "stl10":
      return ofArchive(source, readStl10(source.path!, source.options));
    case "cifar10":
      return ofArchive(source, await readCifar10(source.path!));
    case "cifar100":
      return ofArchive(source, await readCifar100(source.path!, source.options));
    case "phantom":
      return openPhantom({ ...source.options });
    default:
      throw new Error(`reader ${source.reader} is declared in spec.ts but not opened here`);
  }
}

/** Keys of a source that keeps everything. */
const NO_SELECTION = { split: null, labels: null, views: null, licenses: null, limit: null };

const specOf = (source: Source) => formatSpec([{ ...source, ...NO_SELECTION }]);

const ofArchive = (source: Source, archive: Archive) => ofBlocks(specOf(source), archive);

function ofFiles(source: Source, { labels, examples }: Pick<Dataset, "labels" | "examples">) {
  return {
    spec: specOf(source),
    labels,
    examples,
    load: (index: number, size: number, channels: 1 | 3) =>
      loadImage(examples[index]!.file!, size, channels),
  };
}

/** Applies the keys that every reader has. */
function select(dataset: Dataset, source: Source): Dataset {
  const { split, labels, limit } = source;
  const { reader, path, options } = parseSpec(dataset.spec)[0]!;
  const spec = formatSpec([{ ...source, reader, path, options }]);
  const fail = (why: string): never => {
    throw new UserError(`data ${JSON.stringify(spec)}: ${why}`);
  };
  const oneOf = (values: Iterable<string>) => [...new Set(values)].sort().join(", ") || "none";

  const columns = (labels ?? dataset.labels).map((label) => {
    const column = dataset.labels.indexOf(label);
    return column < 0 ? fail(`no label "${label}"; there are ${oneOf(dataset.labels)}`) : column;
  });
  /** Whether an example's view or license is among the wanted words, each of which some image has. */
  const among = (property: "view" | "license", words: readonly string[] | null) => {
    const known = dataset.examples.flatMap((example) => example[property] ?? []);
    const lower = new Set(known.map((word) => word.toLowerCase()));
    for (const word of words ?? []) {
      if (lower.has(word.toLowerCase())) continue;
      fail(`no image has the ${property} "${word}"; there are ${oneOf(known)}`);
    }
    const wanted = words?.map((word) => word.toLowerCase());
    return (example: Example) => wanted?.includes(example[property]?.toLowerCase() ?? "") ?? true;
  };
  const inViews = among("view", source.views);
  const inLicenses = among("license", source.licenses);

  let kept = dataset.examples.keys().filter((index) => {
    const example = dataset.examples[index]!;
    return (split?.includes(example.split) ?? true) && inViews(example) && inLicenses(example);
  }).toArray();
  if (kept.length === 0) fail("no image is left");
  if (limit !== null && limit < kept.length) {
    const all = kept;
    kept = Array.from({ length: limit }, (_, i) => all[Math.floor((i * all.length) / limit)]!);
  }

  return {
    spec,
    labels: columns.map((column) => dataset.labels[column]!),
    examples: kept.map((index): Example => {
      const example = dataset.examples[index]!;
      const values = Float32Array.from(columns, (column) => example.labels[column]!);
      return { ...example, labels: values };
    }),
    notes: dataset.notes ?? [],
    load: (index, size, channels) => dataset.load(kept[index]!, size, channels),
  };
}

function join(parts: readonly Dataset[]): Dataset {
  const labels = [...new Set(parts.flatMap((part) => part.labels))];
  const origins = parts.map((part) => {
    const { reader, path, options } = parseSpec(part.spec)[0]!;
    return JSON.stringify([reader, path, options]);
  });
  const owners: { part: Dataset; index: number }[] = [];
  const examples = parts.flatMap((part, p) => {
    const columns = labels.map((label) => part.labels.indexOf(label));
    const home = origins.indexOf(origins[p]!) + 1;
    return part.examples.map((example, index): Example => {
      owners.push({ part, index });
      return {
        ...example,
        patient: example.patient === null ? null : `${home}:${example.patient}`,
        labels: Float32Array.from(columns, (column) => column < 0 ? NaN : example.labels[column]!),
      };
    });
  });
  const spec = parts.map((part) => part.spec).join("+");
  checkSides(`data ${JSON.stringify(spec)}`, "image", examples.map((e) => [e.file, e.split]));
  return {
    spec,
    labels,
    examples,
    notes: [...new Set(parts.flatMap(({ notes }) => notes ?? []))],
    load(index, size, channels) {
      const { part, index: inner } = owners[index]!;
      return part.load(inner, size, channels);
    },
  };
}
