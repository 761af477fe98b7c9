/**
 * `csv:FILE`: images listed in a comma-separated file. The header names the columns, in any order
 * and case:
 *
 * - `filename`: the image, relative to the CSV; required;
 * - `labels`: names separated by `|`; required, but a cell may be empty: nothing is then known of
 *   the image, which is not the same as "no finding";
 * - `split`: train, val (valid, validation), test or unlabeled, which is also what an empty cell of
 *   an unlabelled image means. Without this column patients are placed by {@linkcode splitByPatient};
 * - `patient_id`, `view`, `source`, `license`: optional, empty for unknown.
 *
 * The labels of the data set are all that occur in the file, sorted by UTF-16 code units: their
 * order depends neither on the order of the rows nor on what a SPEC selects.
 */

import { dirname, resolve } from "node:path";
import { readCsvTable } from "../../formats/csv.ts";
import type { Example, Split } from "../dataset.ts";
import { checkListed } from "./listing.ts";
import { checkSides, parseSplit, splitByPatient } from "../splits.ts";

/**
 * Reads the examples of a CSV file and sees that every image is there.
 *
 * @param checkFiles false to leave it to decoding to find that an image is missing
 * @throws UserError with file, line and column of what is wrong
 */
export function readCsv(
  path: string,
  { checkFiles = true } = {},
): { labels: string[]; examples: Example[] } {
  const table = readCsvTable(
    path,
    ["filename", "labels"],
    ["split", "patient_id", "view", "source", "license"],
  );
  const placed = table.columns.includes("split");

  const rows = table.rows.map(({ line, cell, fail }) => {
    const id = cell("filename") ?? fail("filename", "no file name");
    const found = (cell("labels") ?? "").split("|").map((label) => label.trim())
      .filter((label) => label !== "");
    const labelled = found.length > 0;
    let split: Split | null = null;
    if (placed) {
      const word = cell("split") ?? (labelled ? "" : "unlabeled");
      split = parseSplit(word) ??
        fail("split", `"${word}" is none of train, val, test, unlabeled`);
    }
    return {
      ...{ line, id, file: resolve(dirname(path), id), found, labelled, split },
      fail: (why: string): never => fail("filename", why),
      patient: cell("patient_id"),
      view: cell("view"),
      source: cell("source"),
      license: cell("license"),
    };
  });

  checkListed(rows, { checkFiles });

  const labels = [...new Set(rows.flatMap((row) => row.found))].sort();
  const places = placed ? rows.map((row) => row.split!) : splitByPatient(rows);
  const examples = rows.map(({ id, file, patient, view, source, license, ...row }, i): Example => ({
    ...{ id, file, patient, view, source, license, split: places[i]! },
    labels: Float32Array.from(
      labels,
      (label) => row.labelled ? Number(row.found.includes(label)) : NaN,
    ),
  }));
  checkSides(path, "patient", examples.map(({ patient, split }) => [patient, split]));
  return { labels, examples };
}
