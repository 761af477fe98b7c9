/** Opening data sets by SPEC: one reader for each source, then its keys, then the union. */

import { type Archive, ofBlocks } from "./readers/blocks.ts";
import { readChexpert } from "./readers/chexpert.ts";
import { readCifar10, readCifar100 } from "./readers/cifar.ts";
import { readCovid } from "./readers/covid.ts";
import { readCsv } from "./readers/csv.ts";
import type { Dataset } from "./dataset.ts";
import { loadImage } from "./decode/decode.ts";
import { readFolder } from "./readers/folder.ts";
import { readMedmnist } from "./readers/medmnist.ts";
import { readNih } from "./readers/nih.ts";
import { filter, merge, relabel, resplit, sampleLabels, selectLabels, thin } from "./operations.ts";
import { openPhantom } from "./readers/phantom.ts";
import { pixelSizeOf } from "./decode/pixel_size.ts";
import { formatSpec, parseSpec, resolveSpec, type Source } from "./spec.ts";
import { readStl10 } from "./readers/stl10.ts";

/**
 * Opens the data set that a SPEC names (its grammar is in spec.ts). Several sources are joined by
 * {@linkcode merge}.
 *
 * @param baseDir what relative paths are below; the working directory by default, and the folder of
 *   the file when the SPEC stands in a configuration file
 * @param checkFiles false to open a table whose images are not all there
 * @throws UserError for a bad SPEC, missing or contradictory files, a patient or image on two sides
 *   of a split, or a selection that leaves nothing
 */
export async function openDataset(
  spec: string,
  { baseDir = ".", checkFiles = true }: {
    readonly baseDir?: string;
    readonly checkFiles?: boolean;
  } = {},
): Promise<Dataset> {
  const sources = resolveSpec(parseSpec(spec), baseDir);
  const parts: Dataset[] = [];
  for (const source of sources) parts.push(select(await openSource(source, checkFiles), source));
  return merge(parts);
}

async function openSource(source: Source, checkFiles: boolean): Promise<Dataset> {
  switch (source.reader) {
    case "chexpert":
      return ofFiles(source, readChexpert(source.path!, source.options, { checkFiles }));
    case "covid": {
      const { views, ...read } = readCovid(source.path!, source.views, { checkFiles });
      return ofFiles({ ...source, views }, read);
    }
    case "csv":
      return ofFiles(source, readCsv(source.path!, { checkFiles }));
    case "folder":
      return ofFiles(source, await readFolder(source.path!));
    case "nih":
      return ofFiles(source, readNih(source.path!, { checkFiles }));
    case "stl10":
      return ofArchive(source, readStl10(source.path!, source.options));
    case "cifar10":
      return ofArchive(source, await readCifar10(source.path!));
    case "cifar100":
      return ofArchive(source, await readCifar100(source.path!, source.options));
    case "medmnist":
      return ofArchive(source, readMedmnist(source.path!));
    case "phantom":
      return openPhantom({ ...source.options });
    default:
      throw new Error(`reader ${source.reader} is declared in spec.ts but not opened here`);
  }
}

const ofArchive = (source: Source, archive: Archive) => ofBlocks(formatSpec([source]), archive);

function ofFiles(source: Source, { labels, examples }: Pick<Dataset, "labels" | "examples">) {
  return {
    spec: formatSpec([source]),
    labels,
    examples,
    load: (index: number, size: number, channels: 1 | 3) =>
      loadImage(examples[index]!.file!, size, channels),
    pixelSize: (index: number) => pixelSizeOf(examples[index]!.file!),
  };
}

/** The shares of `resplit`, those of {@linkcode splitByPatient}. */
const SHARES = { train: 70, val: 10, test: 20 };

/** Applies the keys that every reader has, in the order in which spec.ts lists them. */
function select(opened: Dataset, source: Source): Dataset {
  // A reader writes out what it chose itself.
  const { reader, path, options, views } = parseSpec(opened.spec)[0]!;
  const settled = { ...source, reader, path, options, views: views ?? source.views };
  let dataset: Dataset = { ...opened, spec: formatSpec([settled]) };
  if (source.resplit !== null) dataset = resplit(dataset, { ...SHARES, seed: source.resplit });
  if (source.map !== null) dataset = relabel(dataset, source.map);
  dataset = filter(dataset, settled);
  if (source.labels !== null) dataset = selectLabels(dataset, source.labels);
  if (source.limit !== null) dataset = thin(dataset, source.limit);
  if (source.fraction !== null) dataset = sampleLabels(dataset, source.fraction);
  return dataset;
}
