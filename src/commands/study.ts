/** `deno task study`: pretraining methods compared. */
import { existsSync } from "node:fs";
import { join } from "node:path";
import { UserError } from "../errors.ts";
import { DeviceLostError } from "../gpu/gpu.ts";
import type { Cell, CellKey } from "../study/cell.ts";
import { phantomStudy, readStudy, type StudyConfig, withImagenet } from "../study/config.ts";
import { estimateCells } from "../study/estimate.ts";
import { StudyFolder } from "../study/folder.ts";
import { type PlannedCell, planStudy, selectCells } from "../study/plan.ts";
import { writeStudyReport } from "../study/report.ts";
import { runStudy, type StudyReporter } from "../study/run.ts";
import { tableLines } from "../table.ts";
import { defineCommand } from "./command.ts";
import { boolean, choice, path, string } from "./flags.ts";
import { createDisplay, formatDuration } from "./progress.ts";

/** The command. */
export const command = defineCommand({
  name: "study",
  summary: "Compares pretraining methods: sets, seeds, protocols, parts of the labels",
  flags: {
    data: choice({ of: ["phantom"], help: "the built-in study of phantoms, in place of a file" }),
    imagenetWeights: path({
      help: "PyTorch's file of a ResNet-18 trained on ImageNet, which adds its rows",
    }),
    out: path({ kind: "DIR", default: "runs/study", help: "folder of the study" }),
    only: string({
      kind: "PATTERN",
      help: "cells whose names hold this text, or match it where it has a *; and what they need",
    }),
    shard: string({ kind: "I/N", help: "the I-th of N parts, for job arrays" }),
    dryRun: boolean({
      help: "print the cells that are left and how long they take; write nothing",
    }),
  },
  positionals: ["[STUDY.jsonc]"],
  notes:
    "The file says what is compared; docs/study/study.jsonc is an example with every field. Pretraining sees\n" +
    "no image of the target's val or test split. Learning rates and penalties are chosen on val; test is\n" +
    "scored once a cell. Any number of processes may work on one folder, and stop and start at any time:\n" +
    "what is finished stays, a pretraining goes on from its checkpoint.",
  async run({ data, imagenetWeights, out, only, shard, dryRun }, { positionals: [file] }) {
    if ((file === undefined) === (data === undefined)) {
      throw new UserError("study: give a configuration, or --data phantom for the built-in one");
    }
    const named = file === undefined ? phantomStudy() : readStudy(file);
    const config = imagenetWeights === undefined ? named : withImagenet(named, imagenetWeights);
    const cells = selectCells(planStudy(config), {
      only,
      shard: shard === undefined ? undefined : parseShard(shard),
    });
    if (dryRun) return await printEstimate(config, out, cells);
    const folder = await StudyFolder.open(out, config);
    const left = cells.filter(({ id }) => !folder.has(id)).length;
    console.error(`${config.title}: ${left} of ${cells.length} cells left, into ${out}/`);
    const reporter = createReporter();
    const interrupt = new AbortController();
    const onInterrupt = () => {
      reporter.line("stopping after this step; again to stop at once");
      interrupt.abort();
      Deno.removeSignalListener("SIGINT", onInterrupt);
    };
    Deno.addSignalListener("SIGINT", onInterrupt);
    const started = performance.now();
    try {
      const { status, left } = await runStudy(config, folder, cells, reporter, interrupt.signal);
      if (status === "done" || status === "failed") {
        reporter.stage("writing the report");
        await folder.alone("report", () => writeStudyReport(out));
      }
      reporter.close();
      const took = formatDuration((performance.now() - started) / 1000);
      switch (status) {
        case "interrupted":
          console.error(
            `stopped after ${took}, ${left.length} cells left; the same command goes on`,
          );
          return 130;
        case "elsewhere":
          console.error(`other processes are at what is left: ${left.join(", ")}`);
          return 0;
        case "failed":
          console.error(`not computed: ${left.join(", ")}`);
          return 1;
        case "done":
          console.error(`done in ${took}; ${out}/ holds table.md, results.csv, cells/`);
          return 0;
      }
    } catch (error) {
      reporter.close();
      if (!(error instanceof DeviceLostError)) throw error;
      console.error(`error: ${error.message}; the same command goes on`);
      return 1;
    } finally {
      folder.close();
      Deno.removeSignalListener("SIGINT", onInterrupt);
    }
  },
});

/** What is left of a study, and how long it takes here. */
async function printEstimate(
  config: StudyConfig,
  out: string,
  cells: readonly PlannedCell[],
): Promise<void> {
  const left = cells.filter(({ id }) => !existsSync(join(out, "cells", `${id}.json`)));
  const display = createDisplay({ json: false });
  const seconds = await estimateCells(config, left, (message) => display.stage(message));
  display.close();
  const kindOf = ({ kind, arm, ...key }: CellKey) =>
    [
      kind,
      ...(kind === "pretrain" ? [arm.name] : arm.method === "pixels" ? ["of pixels"] : []),
      ...("fraction" in key ? [`${100 * key.fraction} % of the labels`] : []),
      ...(arm.width === config.encoder.width ? [] : [`width ${arm.width}`]),
    ].join(" ");
  const sum = (values: readonly number[]) => values.reduce((total, value) => total + value, 0);
  const rows = [...Map.groupBy(left.keys(), (i) => kindOf(left[i]!.key))].map(([kind, cells]) => {
    const each = cells.map((i) => seconds[i]!);
    return [kind, String(each.length), formatDuration(sum(each))];
  });
  console.log(
    tableLines([
      ["cells", "left", "time"],
      ...rows,
      ["all", String(left.length), formatDuration(sum(seconds))],
    ]).join("\n"),
  );
}

/** `2/5` */
function parseShard(text: string): { index: number; of: number } {
  const [index = 0, of = 0] = (/^(\d+)\/(\d+)$/.exec(text) ?? []).slice(1).map(Number);
  if (index >= 1 && index <= of) return { index, of };
  throw new UserError(`--shard ${text}: expected I/N with I from 1 to N`);
}

/** A line a cell; on a terminal also where the cell at work is. */
function createReporter(): StudyReporter & { close(): void } {
  const display = createDisplay({ json: false });
  const none = () => {};
  const shown = Deno.stderr.isTerminal();
  return {
    stage: shown ? (message) => display.stage(message) : none,
    compiling: none,
    progress: shown ? (progress) => display.progress(progress) : none,
    knn: none,
    validated: none,
    line: (text) => display.line(text),
    finished: (id, cell) => display.line(describe(id, cell)),
    close: () => display.close(),
  };
}

function describe(id: string, cell: Cell): string {
  const { origin: { seconds } } = cell;
  const result = cell.kind === "pretrain"
    ? `${cell.views} views, ${Math.round(cell.viewsPerSecond)} a second, loss ${
      cell.loss.at(-1)![1].toPrecision(4)
    }`
    : `validation macro AUROC ${cell.best.validation.toFixed(3)}`;
  return `${id}: ${result}, ${formatDuration(seconds)}`;
}
