/** `--resume`: a run goes on as it was begun. */
import type { Usage } from "../data/dataset.ts";
import { UserError } from "../errors.ts";
import { openRun, type RunFolder } from "../run_folder.ts";
import { kebab } from "./flags.ts";

/** Flags that say how a run is shown, not what it is; and how far it goes. */
const allowed = ["resume", "epochs", "cache", "json", "tensorboard", "profile", "config"];

/** @throws {UserError} for a flag that would change the run */
export function expectNoSettings(given: ReadonlySet<string>): void {
  for (const flag of given) {
    if (allowed.includes(flag)) continue;
    throw new UserError(
      `--resume goes on with the configuration of the run: --${
        kebab(flag)
      } cannot be given with it`,
    );
  }
}

/**
 * The folder of a run that has a checkpoint.
 *
 * @throws {UserError} if it has none, or another command made it
 */
export function reopen(path: string, command: "train" | "finetune"): RunFolder {
  const run = openRun(path);
  const made = run.readConfig().method === "finetune" ? "finetune" : "train";
  if (made !== command) {
    throw new UserError(`${path}: a run of ${made}: deno task ${made} --resume ${path}`);
  }
  if (run.has("checkpoint")) return run;
  throw new UserError(`${path}: nothing to resume, there is no ${run.pathOf("checkpoint")}`);
}

/** @throws {UserError} if a run began with other images */
export function expectSameData(run: RunFolder, now: Usage): void {
  const [was, is] = [run.readConfig().used, now].map((used) => JSON.stringify(used));
  if (was === is) return;
  throw new UserError(`${run.path}: the data has changed since the run began: ${was}, now ${is}`);
}
