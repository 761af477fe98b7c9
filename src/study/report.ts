/** Everything a study leaves to read: `report.html`, `table.md`, `results.csv`, `differences.csv` and `figures/`. */
import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { writeAtomically } from "../files.ts";
import { chartsOf } from "./charts.ts";
import { emptyPage, studyPage } from "./page.ts";
import { openDrawer, openRenderer } from "./plot.ts";
import { readStudy } from "./read.ts";
import { resultsOf } from "./results.ts";
import { differencesCsv, resultsCsv, tableMarkdown } from "./table.ts";

/**
 * Writes the report of a study into its folder, from its files alone; what is not run yet is said so.
 *
 * @throws UserError naming file and field of what is missing or damaged.
 */
export async function writeStudyReport(dir: string): Promise<void> {
  const study = readStudy(dir);
  const results = resultsOf(study);
  if (results === null) {
    writeAtomically(join(dir, "report.html"), emptyPage(study));
    return;
  }
  writeAtomically(join(dir, "table.md"), tableMarkdown(results));
  writeAtomically(join(dir, "results.csv"), resultsCsv(results));
  writeAtomically(join(dir, "differences.csv"), differencesCsv(results));
  const material = { study, results };
  const charts = chartsOf(material);
  const drawer = await openDrawer();
  writeAtomically(join(dir, "report.html"), studyPage(material, charts, drawer));
  mkdirSync(join(dir, "figures"), { recursive: true });
  const render = await openRenderer();
  for (const chart of Object.values(charts).flat()) {
    const svg = drawer.figure(chart);
    writeAtomically(join(dir, "figures", `${chart.name}.svg`), svg);
    writeAtomically(join(dir, "figures", `${chart.name}.png`), render(svg));
  }
}
