/** The tasks of deno.json as subprocesses, with the permissions that they name. */
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";

const tasks: Record<string, { command: string }> =
  JSON.parse(readFileSync("deno.json", "utf8")).tasks;

/** Starts a task, without the shell between. */
export function spawn(task: string, args: readonly string[]): Deno.ChildProcess {
  const [program, ...words] = tasks[task]!.command.split(" ");
  return new Deno.Command(program!, {
    args: [...words, ...args],
    env: { NO_COLOR: "1" },
    stdout: "piped",
    stderr: "piped",
  }).spawn();
}

/** Runs a task to its end. */
export async function run(
  task: string,
  ...args: string[]
): Promise<{ code: number; out: string; err: string }> {
  const { code, stdout, stderr } = await spawn(task, args).output();
  const decoder = new TextDecoder();
  return { code, out: decoder.decode(stdout), err: decoder.decode(stderr) };
}

/** Runs a task that must succeed; returns its stdout. */
export async function succeed(task: string, ...args: string[]): Promise<string> {
  const { code, out, err } = await run(task, ...args);
  assert.equal(code, 0, err);
  return out;
}
