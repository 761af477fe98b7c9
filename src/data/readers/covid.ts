/**
 * `covid:DIR`: the COVID-19 image data collection (Cohen et al. 2020, arXiv 2006.11988;
 * github.com/ieee8023/covid-chestxray-dataset): `DIR/metadata.csv` as upstream writes it, images in
 * the folder below DIR that its column `folder` names.
 *
 * Rows of modality X-ray are read, and of them the frontal ones: PA, AP and AP Supine, or those that
 * the key `views=` names. Patients are placed by {@linkcode splitByPatient}.
 *
 * `finding` is a path in a hierarchy (`Pneumonia/Viral/COVID-19`), each part of which becomes a
 * label. States before July 2020 write names instead (`COVID-19, ARDS`); these get the path that
 * upstream gave them later. Two rules keep what is not known out of the negatives:
 *
 * - `todo`, `Unknown` and an empty finding: nothing is known of the image;
 * - below the last part of a path nothing is: `Pneumonia` may be viral or not. ARDS has a label of
 *   its own, and alone leaves open whether it came of pneumonia.
 *
 * The labels of the data set are all that occur in X-rays, sorted by UTF-16 code units.
 */

import { join } from "node:path";
import { UserError } from "../../errors.ts";
import { readCsvTable } from "../../formats/csv.ts";
import type { Example } from "../dataset.ts";
import { checkListed } from "./listing.ts";
import { splitByPatient } from "../splits.ts";

/** Views that are read unless others are asked for. */
const FRONTAL: readonly string[] = ["PA", "AP", "AP Supine"];

/** Findings that say nothing. */
const NOTHING = /^(todo|unknown)?$/i;

/** Names that say what kind of thing they name. */
const PNEUMONIA = /^(.*?)(?: (viral|bacterial|fungal))? pneumonia$/i;

/** Where upstream's later states put the names of the earlier ones. */
const PATHS = new Map(
  [
    "Pneumonia/Viral/COVID-19",
    "Pneumonia/Viral/SARS",
    "Pneumonia/Viral/MERS-CoV",
    "Pneumonia/Viral/Influenza/H1N1",
    "Pneumonia/Viral/Varicella",
    "Pneumonia/Viral/Herpes",
    "Pneumonia/Bacterial/Streptococcus",
    "Pneumonia/Bacterial/Klebsiella",
    "Pneumonia/Bacterial/Legionella",
    "Pneumonia/Bacterial/Mycoplasma",
    "Pneumonia/Bacterial/Chlamydophila",
    "Pneumonia/Bacterial/Nocardia",
    "Pneumonia/Bacterial/E.Coli",
    "Pneumonia/Bacterial/Staphylococcus/MRSA",
    "Pneumonia/Fungal/Pneumocystis",
    "Pneumonia/Fungal/Aspergillosis",
    "Pneumonia/Lipoid",
    "Pneumonia/Aspiration",
  ].flatMap((path) => {
    const parts = path.split("/");
    return parts.map((name, i) => [name.toLowerCase(), parts.slice(0, i + 1)] as const);
  }),
);

/** The paths of a finding, from the most general part on. */
function pathsOf(finding: string): string[][] {
  const names = finding.split(",").map((name) => name.trim());
  return names.filter((name) => !NOTHING.test(name)).flatMap((name) => {
    if (name.includes("/")) {
      return [name.split("/").map((part) => part.trim()).filter((part) => part !== "")];
    }
    // "Mycoplasma Bacterial Pneumonia" is Mycoplasma, "Lobar Pneumonia" some pneumonia.
    const [, bare = name, kind] = PNEUMONIA.exec(name) ?? [];
    const path = PATHS.get(bare.toLowerCase());
    if (path !== undefined) return [path];
    if (bare === name) return [[name]];
    const general = PATHS.get((kind ?? "pneumonia").toLowerCase())!;
    return [general, [...general, name]];
  });
}

/**
 * Reads the X-rays of the collection and sees that the images of the wanted projections are there.
 *
 * @param views the wanted projections, null for the frontal ones
 * @param checkFiles false to leave it to decoding to find that an image is missing
 * @returns the X-rays of all projections, and the wanted ones
 * @throws UserError with file, line and column of what is wrong
 */
export function readCovid(
  dir: string,
  views: readonly string[] | null,
  { checkFiles = true } = {},
): { labels: string[]; examples: Example[]; views: readonly string[] } {
  const path = join(dir, "metadata.csv");
  const columns = ["patientid", "finding", "view", "modality", "folder", "filename"] as const;
  const { rows: listed } = readCsvTable(path, columns, ["license"]);
  const rows = listed.filter(({ cell }) => cell("modality")?.toLowerCase() === "x-ray")
    .map(({ line, cell, fail }) => {
      const name = cell("filename") ?? fail("filename", "no file name");
      const id = `${cell("folder") ?? fail("folder", "no folder")}/${name}`;
      const paths = pathsOf(cell("finding") ?? "");
      return {
        ...{ line, id, file: join(dir, id), paths, labelled: paths.length > 0 },
        patient: cell("patientid") ?? fail("patientid", "no patient"),
        view: cell("view"),
        license: cell("license"),
        fail: (why: string): never => fail("filename", why),
      };
    });

  /** Each label with itself and what occurs below it. */
  const branches = new Map<string, Set<string>>();
  for (const parts of rows.flatMap(({ paths }) => paths)) {
    parts.forEach((part, i) => {
      branches.set(part, new Set([...branches.get(part) ?? [], ...parts.slice(i)]));
    });
  }
  const labels = [...branches.keys()].sort();

  const there = new Set(rows.map(({ view }) => view));
  const wanted = views ?? FRONTAL.filter((view) => there.has(view));
  if (wanted.length === 0) throw new UserError(`${path}: no X-ray of view ${FRONTAL.join(", ")}`);
  const lower = wanted.map((view) => view.toLowerCase());
  checkListed(rows.filter(({ view }) => lower.includes(view?.toLowerCase() ?? "")), { checkFiles });

  const splits = splitByPatient(rows);
  const examples = rows.map(({ id, file, patient, view, license, paths }, i): Example => {
    const found = new Set(paths.flat());
    const open = paths.map((parts) => parts.at(-1)!);
    if (found.has("ARDS") && found.size === 1) open.push("Pneumonia");
    const valueOf = (label: string) => {
      if (found.has(label)) return 1;
      return found.size === 0 || open.some((part) => branches.get(part)?.has(label)) ? NaN : 0;
    };
    return {
      ...{ id, file, patient, view, license, source: "covid-chestxray", split: splits[i]! },
      labels: Float32Array.from(labels, valueOf),
    };
  });
  return { labels, examples, views: wanted };
}
