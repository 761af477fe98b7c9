/**
 * The embedded data set: procedural chest radiographs with known findings. Anatomy belongs to the
 * patient; pose, exposure, grain and all findings but the size of the heart belong to the film, and
 * every finding is drawn on its own.
 */

import { UserError } from "../../errors.ts";
import { Random } from "../../random.ts";
import type { Dataset, Example, Split } from "../dataset.ts";
import { anatomyOf, drawBuild, drawFindings, expose } from "./phantom_film.ts";

const LABELS = [
  "consolidation",
  "effusion",
  "cardiomegaly",
  "nodule",
  "pneumothorax",
  "device",
] as const;

function wholeNumber(key: string, text: string, low: number, high: number): number {
  const value = Number(text);
  if (!/^[0-9]+$/.test(text) || value < low || value > high) {
    throw new UserError(`phantom: ${key}=${text} is no whole number from ${low} to ${high}`);
  }
  return value;
}

/** Of every ten patients in a row, seven train, one validates and two test. */
function splitOf(seed: number, patient: number): Split {
  const order = new Random(seed, "phantom split", Math.floor(patient / 10));
  const place = order.shuffle([0, 1, 2, 3, 4, 5, 6, 7, 8, 9])[patient % 10]!;
  return place < 7 ? "train" : place < 8 ? "val" : "test";
}

/**
 * Opens the procedural data set. Patients come with one to four films each. Everything is a function
 * of `seed`, and a smaller `n` gives the first films of a larger one.
 *
 * @param options `n`, the number of images, 1 to 1 000 000 (2000), and `seed`, a u32 (0)
 * @throws UserError for any other key, or a value that is no whole number
 */
export function openPhantom(options: Record<string, string>): Dataset {
  for (const key of Object.keys(options)) {
    if (key !== "n" && key !== "seed") {
      throw new UserError(`phantom: no key "${key}"; there are n, seed`);
    }
  }
  const n = wholeNumber("n", options.n ?? "2000", 1, 1_000_000);
  const seed = wholeNumber("seed", options.seed ?? "0", 0, 0xffffffff);
  const examples: Example[] = [];
  for (let patient = 0; examples.length < n; patient++) {
    const build = drawBuild(anatomyOf(seed, patient));
    const split = splitOf(seed, patient);
    const films = 1 + new Random(seed, "phantom films", patient).integer(4);
    for (let film = 0; film < films && examples.length < n; film++) {
      const image = examples.length;
      const findings = drawFindings(seed, image, build);
      examples.push({
        id: `phantom-${seed}-${patient}-${film}`,
        split,
        patient: `phantom-${seed}-${patient}`,
        source: "phantom",
        view: "PA",
        license: "MIT",
        file: null,
        film: { seed, patient, image },
        labels: Float32Array.from(LABELS, (label) => findings[label] ? 1 : 0),
      });
    }
  }
  return {
    spec: `phantom:n=${n},seed=${seed}`,
    labels: LABELS,
    examples,
    load(index, size, channels) {
      return Promise.resolve(expose(examples[index]!.film!, size, channels));
    },
  };
}
