/** `deno task compare RUN RUN…` */
import { UserError } from "../errors.ts";
import { writeAtomically } from "../files.ts";
import { compareRuns, comparisonPage, comparisonRows } from "../report/compare.ts";
import { openRun } from "../run_folder.ts";
import { tableLines } from "../table.ts";
import { defineCommand } from "./command.ts";
import { path } from "./flags.ts";

/** The command. */
export const command = defineCommand({
  name: "compare",
  summary: "Puts runs side by side: what they reached, where their settings differ, their curves",
  flags: {
    out: path({ kind: "FILE.html", help: "writes the comparison with its charts here, too" }),
  },
  positionals: ["RUN", "RUN…"],
  run({ out }, { positionals }) {
    const twice = positionals.find((path, i) => positionals.indexOf(path) < i);
    if (twice !== undefined) throw new UserError(`compare: ${twice} is given twice`);
    const comparison = compareRuns(positionals.map(openRun));
    const { measures, settings } = comparisonRows(comparison);
    console.log(tableLines(measures).join("\n"));
    console.log(
      settings.length > 1
        ? `\nwhere they differ\n${tableLines(settings).join("\n")}`
        : "\nall were started with the same",
    );
    if (out === undefined) return;
    writeAtomically(out, comparisonPage(comparison));
    console.log(`\n${out}`);
  },
});
