/**
 * `nih:DIR`: NIH ChestX-ray14 (Wang et al. 2017, arXiv 1705.02315): `DIR/Data_Entry_2017_v2020.csv`
 * or `DIR/Data_Entry_2017.csv`, images in `DIR/images/` or, as the archives unpack, in
 * `DIR/images_001/images/` to `DIR/images_012/images/`.
 *
 * The labels are the 14 findings. "No Finding" is none of them: it is 0 under each, as in
 * torchxrayvision. The licence is null: upstream asks to be cited and names none.
 *
 * Splits come from `train_val_list.txt` and `test_list.txt`, upstream's, where a hash of the patient
 * takes about 10 % of the former as `val`; or from `train_list.txt`, `val_list.txt` and
 * `test_list.txt`; without lists patients are placed by {@linkcode splitByPatient}. A list may name
 * images that the table does not, but not the other way round.
 */

import { readdirSync } from "node:fs";
import { join } from "node:path";
import { UserError } from "../../errors.ts";
import { errorCode, isFile, readText } from "../../files.ts";
import { readCsvTable } from "../../formats/csv.ts";
import type { Example, Split } from "../dataset.ts";
import { checkListed, type Listed } from "./listing.ts";
import { checkSides, splitByPatient, type Unplaced, validates } from "../splits.ts";

const TABLES: readonly string[] = ["Data_Entry_2017_v2020.csv", "Data_Entry_2017.csv"];

const FINDINGS: readonly string[] = [
  "Atelectasis",
  "Cardiomegaly",
  "Consolidation",
  "Edema",
  "Effusion",
  "Emphysema",
  "Fibrosis",
  "Hernia",
  "Infiltration",
  "Mass",
  "Nodule",
  "Pleural_Thickening",
  "Pneumonia",
  "Pneumothorax",
];

/** The combinations of lists that place every image, and the split of each list. */
const LISTS: readonly Readonly<Record<string, Split>>[] = [
  { "train_val_list.txt": "train", "test_list.txt": "test" },
  { "train_list.txt": "train", "val_list.txt": "val", "test_list.txt": "test" },
];

/** Where the archives put the images. */
const FOLDERS: readonly string[] = [
  "images",
  ...Array.from({ length: 12 }, (_, i) => `images_${String(i + 1).padStart(3, "0")}/images`),
];

/**
 * Reads the examples of ChestX-ray14 and sees that every image is there.
 *
 * @param checkFiles false to leave it to decoding to find that an image is missing
 * @throws UserError with file, line and column of what is wrong
 */
export function readNih(
  dir: string,
  { checkFiles = true } = {},
): { labels: readonly string[]; examples: Example[] } {
  const table = TABLES.find((name) => isFile(join(dir, name)));
  if (table === undefined) throw new UserError(`${dir}: no ${TABLES.join(" and no ")} in it`);
  const path = join(dir, table);
  const files = findImages(dir);
  // The header ends in OriginalImage[Width,Height], without quotes.
  const { rows: listed } = readCsvTable(
    path,
    ["image index", "finding labels", "patient id", "view position"],
    [],
    { ragged: true },
  );
  const rows = listed.map(({ line, cell, fail }) => {
    const id = cell("image index") ?? fail("image index", "no file name");
    const words = (cell("finding labels") ?? "").split("|").map((word) => word.trim());
    const healthy = words.length === 1 && words[0] === "No Finding";
    const odd = healthy ? undefined : words.find((word) => !FINDINGS.includes(word));
    if (odd !== undefined) {
      fail("finding labels", `"${odd}" is none of ${FINDINGS.join(", ")} or, alone, No Finding`);
    }
    return {
      ...{ line, id, file: files.get(id) ?? join(dir, "images", id), labelled: true },
      patient: cell("patient id") ?? fail("patient id", "no patient"),
      view: cell("view position"),
      labels: Float32Array.from(FINDINGS, (finding) => Number(words.includes(finding))),
      fail: (why: string): never => fail("image index", why),
    };
  });
  checkListed(rows, { checkFiles });

  const splits = placeByLists(dir, rows);
  checkSides(path, "patient", rows.map(({ patient }, i) => [patient, splits[i]!]));

  const examples = rows.map(({ id, file, patient, view, labels }, i): Example => ({
    ...{ id, file, patient, view, labels, split: splits[i]! },
    ...{ source: "nih-chestxray14", license: null },
  }));
  return { labels: FINDINGS, examples };
}

/** The images in the folders of the archives, by name. */
function findImages(dir: string): Map<string, string> {
  const files = new Map<string, string>();
  for (const folder of FOLDERS) {
    for (const name of namesIn(join(dir, folder))) files.set(name, join(dir, folder, name));
  }
  return files;
}

/** What is in a folder; nothing if there is none. */
function namesIn(folder: string): string[] {
  try {
    return readdirSync(folder);
  } catch (error) {
    const code = errorCode(error);
    if (code === "ENOENT" || code === "ENOTDIR") return [];
    throw error;
  }
}

/** The splits of images by the lists in a folder, or by patient if there are none. */
function placeByLists(dir: string, rows: readonly (Listed & Unplaced)[]): Split[] {
  const there = [...new Set(LISTS.flatMap((lists) => Object.keys(lists)))]
    .filter((name) => isFile(join(dir, name)));
  if (there.length === 0) return splitByPatient(rows);
  const lists = LISTS.find((lists) =>
    Object.keys(lists).length === there.length && there.every((name) => name in lists)
  );
  if (lists === undefined) {
    const sets = LISTS.map((lists) => Object.keys(lists).join(", ")).join("; or ");
    throw new UserError(`${dir}: there are the lists ${there.join(", ")}; needed are ${sets}`);
  }
  const places = new Map<string, Split>();
  for (const [name, split] of Object.entries(lists)) {
    readText(join(dir, name)).split(/\r?\n/).forEach((text, i) => {
      const id = text.trim();
      const before = places.get(id) ?? split;
      if (before !== split) {
        throw new UserError(`${join(dir, name)}:${i + 1}: ${id} is also in the ${before} list`);
      }
      if (id !== "") places.set(id, split);
    });
  }
  return rows.map((row) => {
    const split = places.get(row.id) ?? row.fail(`${row.id} is in none of the lists`);
    return "train_val_list.txt" in lists && split === "train" && validates(row) ? "val" : split;
  });
}
