/**
 * `deno task fixtures [--check]`: runs every script of this folder, which writes tests/fixtures, or with
 * --check writes to a temporary folder and compares that with the committed files.
 */

import process from "node:process";
import { fileURLToPath, pathToFileURL } from "node:url";
import { type Safetensors, toFloat32 } from "../../src/formats/safetensors.ts";
import { decodeWeights } from "../../src/formats/weights.ts";
import { FIXTURES } from "../support/fixture.ts";
import { findTorch, NO_TORCH, runPython } from "../support/python.ts";

/** Python files of this folder that write no fixture. */
const HELPERS = new Set(["common.py", "torch_parity.py", "torch_save.py"]);

/** Values may differ by this much of the largest of their tensor: PyTorch's versions sum in other orders. */
const TOLERANCE = 1e-6;

/** The names of the files of a folder with one of these extensions, sorted. */
function list(folder: URL, ...extensions: string[]): string[] {
  return [...Deno.readDirSync(folder)].map((entry) => entry.name)
    .filter((name) => extensions.some((extension) => name.endsWith(extension))).sort();
}

/** How a regenerated fixture differs from the committed one, a line each; the torch version may. */
export function differences(committed: Safetensors, fresh: Safetensors): string[] {
  const found: string[] = [];
  for (const key of ["script", "seed"]) {
    const [a, b] = [committed.metadata[key], fresh.metadata[key]];
    if (a !== b) found.push(`metadata ${key} is ${a}, now ${b}`);
  }
  for (const name of new Set([...committed.tensors.keys(), ...fresh.tensors.keys()])) {
    const [a, b] = [committed.tensors.get(name), fresh.tensors.get(name)];
    if (!a || !b) {
      found.push(a ? `${name} is no longer written` : `${name} is not in the committed file`);
      continue;
    }
    const [before, now] = [a, b].map(({ dtype, shape }) => `${dtype} [${shape}]`);
    if (before !== now) {
      found.push(`${name} is ${before}, now ${now}`);
      continue;
    }
    const [x, y] = [toFloat32(a), toFloat32(b)];
    const largest = x.reduce(
      (most, v) => Number.isFinite(v) ? Math.max(most, Math.abs(v)) : most,
      0,
    );
    const limit = a.dtype === "F32" ? TOLERANCE * largest : 0;
    // Written so that NaN beside a number counts as a difference.
    const worst = x.findIndex((v, i) => !Object.is(v, y[i]) && !(Math.abs(v - y[i]!) <= limit));
    if (worst >= 0) found.push(`${name} at ${worst} is ${x[worst]}, now ${y[worst]}`);
  }
  return found;
}

/** Runs every script with `folder` to write to. */
async function writeFixtures(interpreter: string, folder: URL): Promise<void> {
  const here = new URL(".", import.meta.url);
  for (const script of list(here, ".py").filter((name) => !HELPERS.has(name))) {
    console.log(script);
    await runPython(interpreter, [
      "-B",
      fileURLToPath(new URL(script, here)),
      fileURLToPath(folder),
    ]);
  }
}

/** Prints how the fixtures of two folders differ and returns whether they do. */
function reportDifferences(committed: URL, fresh: URL): boolean {
  const read = (folder: URL, name: string) =>
    decodeWeights(Deno.readFileSync(new URL(name, folder)), name);
  const names = [committed, fresh].map((folder) => list(folder, ".safetensors", ".pth"));
  let differ = false;
  for (const name of new Set(names.flat())) {
    const found = !names[0]!.includes(name)
      ? ["is not committed"]
      : !names[1]!.includes(name)
      ? ["is written by no script"]
      : differences(read(committed, name), read(fresh, name));
    for (const line of found) console.error(`${name}: ${line}`);
    differ ||= found.length > 0;
  }
  return differ;
}

async function main(args: readonly string[]): Promise<number> {
  const unknown = args.find((arg) => arg !== "--check");
  if (unknown !== undefined) {
    console.error(`fixtures: unknown argument ${unknown}; usage: deno task fixtures [--check]`);
    return 2;
  }
  const interpreter = await findTorch();
  if (interpreter === null) {
    console.error(`fixtures: ${NO_TORCH}`);
    return 1;
  }
  if (args.length === 0) {
    await writeFixtures(interpreter, FIXTURES);
    return 0;
  }
  const folder = await Deno.makeTempDir();
  try {
    const fresh = pathToFileURL(`${folder}/`);
    await writeFixtures(interpreter, fresh);
    if (reportDifferences(FIXTURES, fresh)) return 1;
    console.log("all fixtures are as committed");
    return 0;
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

if (import.meta.main) process.exit(await main(process.argv.slice(2)));
