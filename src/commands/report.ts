import { join } from "node:path";
import { renderReport } from "../report/report.ts";
import { openRun } from "../run_folder.ts";
import { isStudy } from "../study/read.ts";
import { defineCommand } from "./command.ts";

/** `deno task report RUN|STUDY` */
export const command = defineCommand({
  name: "report",
  summary: "Rebuilds report.html of a run or a study from its files",
  flags: {},
  positionals: ["RUN|STUDY"],
  notes: "Of a study also table.md, results.csv, differences.csv and figures/.",
  async run(_values, { positionals: [path] }) {
    if (isStudy(path!)) {
      const { writeStudyReport } = await import("../study/report.ts");
      await writeStudyReport(path!);
      console.log(join(path!, "report.html"));
      return;
    }
    const run = openRun(path!);
    run.write("report", renderReport(run));
    console.log(run.pathOf("report"));
  },
});
