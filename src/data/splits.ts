/**
 * Which examples train, validate and test. A patient is never on both sides: images of one person
 * are alike, and a model that has seen one of them is not tested by another.
 */

import { UserError } from "../errors.ts";
import { pcg4d, streamId } from "../random.ts";
import type { Split } from "./dataset.ts";

const NAMES: Readonly<Record<string, Split>> = {
  train: "train",
  val: "val",
  valid: "val",
  validation: "val",
  test: "test",
  unlabeled: "unlabeled",
  unlabelled: "unlabeled",
};

/** The split a word means (`valid` and `validation` are val), or null if it means none. */
export function parseSplit(word: string): Split | null {
  return NAMES[word.trim().toLowerCase()] ?? null;
}

/** The least that is needed to place an example: its patient, or else itself. */
export interface Unplaced {
  /** The id of the example. */
  readonly id: string;
  /** The id of its patient, null when unknown. */
  readonly patient: string | null;
  /** Whether any label is known of it. */
  readonly labelled: boolean;
}

/** Who an example is of: its patient, or where that is unknown the image itself. */
export function personOf({ patient, id }: Pick<Unplaced, "patient" | "id">): string {
  return patient === null ? `image ${id}` : `id ${patient}`;
}

/** The place of a key in [0, 1). */
function placeOf(key: string): number {
  return pcg4d(streamId(key), streamId("split"), 0, 0)[0] / 0x100000000;
}

/**
 * Splits examples that come without a split by patient, about 70 % train, 10 % val, 20 % test. The
 * place of a patient is a hash of the patient id alone (of the example id where there is none), so
 * that it is the same on every machine and does not move when others join.
 *
 * Unlabelled images of a train patient, and those of patients none of whose images has a label,
 * are `unlabeled`; those of a val or test patient stay held out with the patient.
 */
export function splitByPatient(examples: readonly Unplaced[]): Split[] {
  return placePatients(examples, (person) => {
    const place = placeOf(person);
    return place < 0.7 ? "train" : place < 0.8 ? "val" : "test";
  });
}

/** Splits examples by the side of their person, as {@linkcode personOf} names it, with the same rule for unlabelled ones. */
export function placePatients(
  examples: readonly Unplaced[],
  sideOf: (person: string) => Split,
): Split[] {
  const labelled = new Set(examples.filter((example) => example.labelled).map(personOf));
  return examples.map((example) => {
    const person = personOf(example);
    const side = labelled.has(person) ? sideOf(person) : "unlabeled";
    return side === "train" && !example.labelled ? "unlabeled" : side;
  });
}

/**
 * Whether an example validates, of a collection that sets apart what to test on but not what to
 * validate on: about a tenth of the patients do, placed by the same hash.
 */
export function validates(example: Pick<Unplaced, "patient" | "id">): boolean {
  return placeOf(personOf(example)) >= 0.9;
}

/**
 * Refuses a patient, or an image, that lies in more than one of {train, unlabeled}, val and test.
 *
 * @param where what to name in the error, such as the file with the splits
 * @param what what the keys are; a null key is unknown and stands for itself alone
 * @throws UserError naming the key and both splits
 */
export function checkSides(
  where: string,
  what: "patient" | "image",
  places: Iterable<readonly [key: string | null, split: Split]>,
): void {
  const first = new Map<string, Split>();
  const side = (split: Split) => split === "unlabeled" ? "train" : split;
  for (const [key, split] of places) {
    if (key === null) continue;
    const before = first.get(key);
    if (before === undefined) first.set(key, split);
    else if (side(before) !== side(split)) {
      throw new UserError(
        `${where}: ${what} ${JSON.stringify(key)} is in both ${before} and ${split}; ` +
          `only train and unlabeled may share one`,
      );
    }
  }
}
