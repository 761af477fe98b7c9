/** `--init FILE|RUN`: where encoder weights come from. */
import { statSync } from "node:fs";
import { openRun } from "../run_folder.ts";
import { UserError } from "../errors.ts";

/** The file of encoder weights that a path names: itself, or the `encoder.safetensors` of a run. */
export function initFile(path: string): string {
  if (!statSync(path, { throwIfNoEntry: false })?.isDirectory()) return path;
  const run = openRun(path);
  if (!run.has("encoder")) {
    throw new UserError(`${path}: the run has no encoder.safetensors yet`);
  }
  return run.pathOf("encoder");
}
