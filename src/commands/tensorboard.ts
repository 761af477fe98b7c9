/** `--tensorboard`: what a run logs, as event files in its folder. */
import { appendFileSync, readdirSync } from "node:fs";
import { join } from "node:path";
import type { MetricsRow, RunFolder } from "../run_folder.ts";

/** Of the names of files in which TensorBoard looks for events. */
const prefix = "events.out.tfevents.";

/**
 * Lets a run write event files, if asked to or if it did before it was stopped. A run that goes on writes a
 * new file, which begins with word of its first step: of what was written before, TensorBoard drops the
 * steps that are done again.
 */
export async function writeEvents(run: RunFolder, asked: boolean): Promise<void> {
  if (!asked && !readdirSync(run.path).some((name) => name.startsWith(prefix))) return;
  const { encodeEvent } = await import("../formats/tensorboard.ts");
  const now = () => Date.now() / 1000;
  // TensorBoard reads the files in the order of their names. The name of the host is not ours to ask for.
  const path = join(run.path, `${prefix}${Math.floor(now())}.wgrad`);
  let begun = false;
  run.onLog = (row) => {
    const at = { wallTime: now(), step: row.step };
    if (!begun) {
      appendFileSync(path, encodeEvent({ ...at, content: "file version" }));
      appendFileSync(path, encodeEvent({ ...at, content: "session start" }));
      begun = true;
    }
    appendFileSync(path, encodeEvent({ ...at, content: scalarsOf(row) }));
  };
}

/** The finite numbers of a row by the names that TensorBoard shows: loss, knn/auroc. */
function scalarsOf({ step: _, ...measures }: MetricsRow): Record<string, number> {
  const named = Object.entries(measures).flatMap(([name, measure]): [string, unknown][] =>
    typeof measure === "object" && measure !== null
      ? Object.entries(measure).map(([key, value]) => [`${name}/${key}`, value])
      : [[name, measure]]
  );
  return Object.fromEntries(
    named.filter((pair): pair is [string, number] => Number.isFinite(pair[1])),
  );
}
