/** `--init FILE|RUN`: where encoder weights come from. */
import { statSync } from "node:fs";
import { measureNormalization, type Normalization } from "../data/augment.ts";
import type { Images } from "../data/dataset.ts";
import { architectureOf, type EncoderFile, readEncoderFile } from "../encoder.ts";
import { UserError } from "../errors.ts";
import { grayNormalization } from "../nn/convert.ts";
import type { ResNetOptions } from "../nn/resnet.ts";
import { openRun } from "../run_folder.ts";

/** The file of encoder weights that a path names: itself, or the `encoder.safetensors` of a run. */
export function initFile(path: string): string {
  if (!statSync(path, { throwIfNoEntry: false })?.isDirectory()) return path;
  const run = openRun(path);
  if (!run.has("encoder")) {
    throw new UserError(`${path}: the run has no encoder.safetensors yet`);
  }
  return run.pathOf("encoder");
}

/** The weights to start from, and the file that they are in. */
export interface Init {
  readonly file: string;
  readonly weights: EncoderFile;
}

/** Reads what `--init` names. */
export function readInit(path: string): Init {
  const file = initFile(path);
  return { file, weights: readEncoderFile(file) };
}

/** The architecture of the flags; what they leave open, that of the weights to start from. */
export function architectureFrom(
  { arch, width, stem, channels }: ResNetOptions,
  given: ReadonlySet<string>,
  init: Init | null,
): ResNetOptions {
  const chosen = { arch, width, stem, channels };
  if (init === null) return chosen;
  const found = architectureOf(init.weights.arrays, init.file);
  for (const name of ["arch", "width", "stem", "channels"] as const) {
    // A stem for three channels can be folded.
    const fits = chosen[name] === found[name] || (name === "channels" && found.channels === 3);
    if (given.has(name) && !fits) {
      throw new UserError(
        `--${name} ${chosen[name]}: the ${name} of --init ${init.file} is ${found[name]}`,
      );
    }
  }
  return given.has("channels") ? { ...found, channels } : found;
}

/** Whether the weights are for colour and the run is not. */
export function foldsStem({ weights: { format } }: Init, channels: 1 | 3): boolean {
  return format !== null && format.normalization.mean.length > channels;
}

/** Says what folding does. */
export function foldNote({ file }: Init): string {
  return `the stem of ${file} is folded to one channel: exact but for windows that reach over the ` +
    "border; without --channels 1, gray is repeated in three channels, which is exact";
}

/** The normalisation that the weights know, else that of the training images. */
export function normalizationFrom(init: Init | null, { pixels, channels }: Images): Normalization {
  const known = init?.weights.format?.normalization;
  if (known === undefined) return measureNormalization(pixels, channels);
  return foldsStem(init!, channels) ? grayNormalization(known) : known;
}
