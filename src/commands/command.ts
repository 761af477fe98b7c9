/**
 * A command of `cli.ts`: a name, a flag table and a function of the flags' values.
 *
 * `src/commands/<name>.ts` exports it as `command`:
 *
 * @example
 * ```ts
 * import { boolean } from "./flags.ts";
 *
 * const command = defineCommand({
 *   name: "inspect",
 *   summary: "Prints the tensors of a safetensors file",
 *   flags: { json: boolean({ help: "print one JSON object" }) },
 *   positionals: ["FILE"],
 *   run({ json }, { positionals: [file] }) {
 *     console.log(json ? JSON.stringify({ file }) : file); // a returned number is the exit code
 *   },
 * });
 * await runCommand(command, ["encoder.safetensors", "--json"]); // 0
 * ```
 */

import { UserError } from "../errors.ts";
import {
  boolean,
  type FlagTable,
  helpLines,
  type ParsedFlags,
  parseFlags,
  type Values,
} from "./flags.ts";

const HELP = boolean({ help: "prints this" });

/** What a command is given besides the values of its flags. */
export type Invocation<F extends FlagTable> = Omit<ParsedFlags<F>, "values">;

/** A command of the command line. */
export interface Command<F extends FlagTable = FlagTable> {
  /** The word that calls it. */
  readonly name: string;
  /** One line for the list of commands and the head of its help. */
  readonly summary: string;
  /** Its flags; `--help` is understood by every command. */
  readonly flags: F;
  /**
   * Names of the arguments that are no flags (`["FILE"]`); exactly these are required, but one in
   * brackets may be absent, and a last one that ends in `…` takes all that follow.
   */
  readonly positionals?: readonly string[];
  /** Lines that follow the flags in its help. */
  readonly notes?: string;
  /**
   * Does the work.
   *
   * @returns the exit code; nothing means 0.
   * @throws {UserError} for the user's mistakes: one line, exit code 2.
   */
  run(values: Values<F>, invocation: Invocation<F>): Promise<number | void> | number | void;
}

/** Commands that share their first word, as `data show` and `data get` do. */
export interface CommandGroup {
  /** The word that they share. */
  readonly name: string;
  /** One line for the list of commands and the head of its help. */
  readonly summary: string;
  /** The commands by their second word; their names hold both. */
  readonly commands: Readonly<Record<string, Command>>;
}

/** Types a command by its flag table. */
export function defineCommand<const F extends FlagTable>(command: Command<F>): Command<F> {
  return command;
}

/**
 * Parses a command line and runs the command, or prints its help.
 *
 * @returns the exit code.
 * @throws {UserError} for a bad command line, and whatever the command throws.
 */
export async function runCommand(
  command: Command | CommandGroup,
  args: readonly string[],
): Promise<number> {
  if ("commands" in command) return await runOneOf(command, args);
  if (asksForHelp(args)) {
    console.log(helpText(command));
    return 0;
  }
  const { values, ...invocation } = parseFlags(command.flags, args);
  const expected = command.positionals ?? [];
  const missing = expected[invocation.positionals.length];
  const extra = expected.at(-1)?.endsWith("…")
    ? undefined
    : invocation.positionals[expected.length];
  if (missing !== undefined && !missing.startsWith("[")) {
    throw new UserError(`${command.name}: ${missing} is missing (${usage(command)})`);
  }
  if (extra !== undefined) {
    throw new UserError(`${command.name}: unexpected argument "${extra}" (${usage(command)})`);
  }
  return await command.run(values, invocation) ?? 0;
}

async function runOneOf(group: CommandGroup, args: readonly string[]): Promise<number> {
  const [word = "--help", ...rest] = args;
  if (asksForHelp([word])) {
    const usages = Object.values(group.commands).map((
      command,
    ) => [usage(command), command.summary]);
    console.log(group.summary);
    for (const [line, summary] of usages) console.log(`\nUsage: ${line}\n  ${summary}`);
    console.log(`\nFlags:\n${helpLines({ help: HELP }).join("\n")}`);
    return 0;
  }
  const command = Object.hasOwn(group.commands, word) ? group.commands[word] : undefined;
  if (command === undefined) {
    const words = Object.keys(group.commands);
    throw new UserError(`${group.name}: no "${word}"; there are ${words.join(", ")}`);
  }
  return await runCommand(command, rest);
}

/** Whether `--help` or `-h` stands before a `--`. */
export function asksForHelp(args: readonly string[]): boolean {
  const end = args.indexOf("--");
  return (end < 0 ? args : args.slice(0, end)).some((arg) => arg === "--help" || arg === "-h");
}

/** The full help of a command. */
export function helpText(command: Command): string {
  return [
    command.summary,
    "",
    `Usage: ${usage(command)}`,
    "",
    "Flags:",
    ...helpLines({ ...command.flags, help: HELP }),
    ...(command.notes ? ["", command.notes] : []),
  ].join("\n");
}

function usage(command: Command): string {
  const words = [...(command.positionals ?? []), "[flags]"];
  return `deno task ${command.name} ${words.join(" ")}`;
}
