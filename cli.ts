/** The command line: names a command, runs it, turns its outcome into an exit code. */

import {
  asksForHelp,
  type Command,
  type CommandGroup,
  runCommand,
} from "./src/commands/command.ts";
import { suggestion } from "./src/commands/flags.ts";
import { UserError } from "./src/errors.ts";

const commands: Record<string, () => Promise<{ command: Command | CommandGroup }>> = {
  train: () => import("./src/commands/train.ts"),
  embed: () => import("./src/commands/embed.ts"),
  probe: () => import("./src/commands/probe.ts"),
  finetune: () => import("./src/commands/finetune.ts"),
  eval: () => import("./src/commands/eval.ts"),
  predict: () => import("./src/commands/predict.ts"),
  export: () => import("./src/commands/export.ts"),
  data: () => import("./src/commands/data.ts"),
  inspect: () => import("./src/commands/inspect.ts"),
  study: () => import("./src/commands/study.ts"),
  report: () => import("./src/commands/report.ts"),
  compare: () => import("./src/commands/compare.ts"),
  doctor: () => import("./src/commands/doctor.ts"),
};

async function main(args: readonly string[]): Promise<number> {
  const [name = "--help", ...rest] = args;
  if (asksForHelp([name])) {
    console.log("Commands (deno task NAME --help tells more):");
    for (const [name, load] of Object.entries(commands)) {
      console.log(`  ${name.padEnd(8)}  ${(await load()).command.summary}`);
    }
    return 0;
  }
  if (!Object.hasOwn(commands, name)) {
    throw new UserError(`unknown command ${name}${suggestion(name, Object.keys(commands))}`);
  }
  const { command } = await commands[name]!();
  return await runCommand(command, rest);
}

/** One line a person can act on; the stack only for those who ask for it. */
function report(error: unknown): number {
  const mistake = error instanceof UserError;
  if (Deno.env.get("WGRAD_DEBUG")) {
    console.error(error);
  } else {
    console.error(`error: ${error instanceof Error ? error.message : error}`);
    if (!mistake) console.error("hint: set WGRAD_DEBUG=1 for a stack trace");
  }
  return mistake ? 2 : 1;
}

if (import.meta.main) {
  Deno.exit(await main(Deno.args).catch(report));
}
