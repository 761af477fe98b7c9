/**
 * `chexpert:DIR`: CheXpert (Irvin et al. 2019, arXiv 1901.07031): `DIR/train.csv` and `DIR/valid.csv`
 * with the images below DIR. Paths in them begin with the name upstream gave to DIR
 * (`CheXpert-v1.0-small/train/patient00001/…`); the folder may be called otherwise.
 *
 * The key `uncertain` says what -1 means: `ignore`, that the label is not known (the default), `zeros`
 * or `ones`: the paper's U-Ignore, U-Zeroes and U-Ones. An empty cell, an observation that the report
 * does not mention, is 0, as in most work on the set: explicit negatives alone would be few, and
 * those of patients with something to rule out.
 *
 * Upstream keeps its test set to itself, so `valid.csv`, whose labels are radiologists', is the split
 * `test`, and a hash of the patient takes about 10 % of `train.csv` as `val`. The view is AP, PA or
 * what else stands in the column AP/PA, or else Lateral.
 */

import { join } from "node:path";
import { UserError } from "../../errors.ts";
import { readCsvTable } from "../../formats/csv.ts";
import type { Example, Split } from "../dataset.ts";
import { checkListed } from "./listing.ts";
import { checkSides, validates } from "../splits.ts";

const OBSERVATIONS = [
  "No Finding",
  "Enlarged Cardiomediastinum",
  "Cardiomegaly",
  "Lung Opacity",
  "Lung Lesion",
  "Edema",
  "Consolidation",
  "Pneumonia",
  "Atelectasis",
  "Pneumothorax",
  "Pleural Effusion",
  "Pleural Other",
  "Fracture",
  "Support Devices",
] as const;

/** The value of an uncertain label under each policy. */
const POLICIES: Readonly<Record<string, number>> = { ignore: NaN, zeros: 0, ones: 1 };

/**
 * Reads the examples of CheXpert and sees that every image is there.
 *
 * @param checkFiles false to leave it to decoding to find that an image is missing
 * @throws UserError with file, line and column of what is wrong, or for an unknown policy
 */
export function readChexpert(
  dir: string,
  { uncertain = "ignore" }: Readonly<Record<string, string>>,
  { checkFiles = true } = {},
): { labels: readonly string[]; examples: Example[] } {
  if (!Object.hasOwn(POLICIES, uncertain)) {
    const names = Object.keys(POLICIES).join(", ");
    throw new UserError(`chexpert: uncertain=${uncertain} is none of ${names}`);
  }
  const train = readTable(dir, "train.csv", POLICIES[uncertain]!);
  const valid = readTable(dir, "valid.csv", POLICIES[uncertain]!);
  for (const table of [train, valid]) checkListed(table, { checkFiles });
  const rows = [...train, ...valid];
  const splits = rows.map((row, i): Split =>
    i >= train.length ? "test" : validates(row) ? "val" : "train"
  );
  checkSides(dir, "patient", rows.map(({ patient }, i) => [patient, splits[i]!]));
  const examples = rows.map(({ id, file, patient, view, labels }, i): Example => ({
    ...{ id, file, patient, view, labels, split: splits[i]! },
    ...{ source: "chexpert", license: "Stanford University Dataset Research Use Agreement" },
  }));
  return { labels: OBSERVATIONS, examples };
}

/** The rows of one of the two tables. */
function readTable(dir: string, name: string, uncertain: number) {
  const observations = OBSERVATIONS.map((label) => label.toLowerCase());
  const values = new Map([[null, 0], ["0", 0], ["1", 1], ["-1", uncertain]]);
  const path = join(dir, name);
  const { rows: listed } = readCsvTable(path, [
    "path",
    "frontal/lateral",
    "ap/pa",
    ...observations,
  ]);
  return listed.map(({ line, cell, fail }) => {
    const id = cell("path") ?? fail("path", "no file name");
    const patient = /\/(patient\d+)\//.exec(id)?.[1] ??
      fail("path", `${id} is in no folder of a patient (patient00001)`);
    const labels = Float32Array.from(observations, (name) => {
      const word = cell(name)?.replace(/\.0+$/, "") ?? null;
      return values.get(word) ?? fail(name, `"${cell(name)}" is none of 1, 0, -1 and empty`);
    });
    return {
      ...{ line, id, patient, labels, labelled: true },
      file: join(dir, ...id.split("/").slice(1)),
      view: cell("ap/pa") ?? cell("frontal/lateral"),
      fail: (why: string): never => fail("path", why),
    };
  });
}
