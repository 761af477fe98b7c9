import { renderReport } from "../report/report.ts";
import { openRun } from "../run_folder.ts";
import { defineCommand } from "./command.ts";

/** `deno task report RUN` */
export const command = defineCommand({
  name: "report",
  summary: "Rebuilds report.html of a run from its config.json and metrics.jsonl",
  flags: {},
  positionals: ["RUN"],
  run(_values, { positionals: [path] }) {
    const run = openRun(path!);
    run.write("report", renderReport(run));
    console.log(run.pathOf("report"));
  },
});
