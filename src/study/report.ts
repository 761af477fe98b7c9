/** Everything a study leaves to read: `table.md` and `results.csv`. */
import { join } from "node:path";
import { writeAtomically } from "../files.ts";
import { readStudy } from "./read.ts";
import { resultsOf } from "./results.ts";
import { resultsCsv, tableMarkdown } from "./table.ts";

/**
 * Writes the report of a study into its folder, from its files alone; what is not run yet is said so.
 *
 * @throws UserError naming file and field of what is missing or damaged.
 */
export function writeStudyReport(dir: string): Promise<void> {
  const results = resultsOf(readStudy(dir));
  if (results !== null) {
    writeAtomically(join(dir, "table.md"), tableMarkdown(results));
    writeAtomically(join(dir, "results.csv"), resultsCsv(results));
  }
  return Promise.resolve();
}
