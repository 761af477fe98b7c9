import assert from "node:assert/strict";
import { fileURLToPath } from "node:url";
import { runCommand } from "../src/commands/command.ts";
import { command, inspectFile } from "../src/commands/inspect.ts";
import { UserError } from "../src/errors.ts";
import { encodeSafetensors } from "../src/formats/safetensors.ts";
import { FIXTURES } from "./support/fixture.ts";

/** Runs `use` on a file with the given bytes. */
async function withFile(bytes: Uint8Array, use: (file: string) => unknown): Promise<void> {
  const file = await Deno.makeTempFile({ suffix: ".safetensors" });
  try {
    await Deno.writeFile(file, bytes);
    await use(file);
  } finally {
    await Deno.remove(file);
  }
}

/** What a command prints. */
async function printed(...args: string[]): Promise<string> {
  const lines: string[] = [];
  const { log } = console;
  console.log = (line: string) => lines.push(line);
  try {
    assert.equal(await runCommand(command, args), 0);
  } finally {
    console.log = log;
  }
  return lines.join("\n");
}

const FILE = encodeSafetensors({
  "layer10.weight": { dtype: "F32", shape: [2, 2], data: Float32Array.of(1, NaN, 3, 5) },
  "layer2.weight": { dtype: "BF16", shape: [2], data: Uint16Array.of(0x3f80, 0xbf80) },
  "steps": { dtype: "I64", shape: [], data: BigInt64Array.of(-7n) },
  "nothing": { dtype: "F32", shape: [0], data: new Float32Array() },
}, { arch: "resnet18" });

Deno.test("inspectFile() tells statistics without NaN, and totals with them", async () => {
  await withFile(FILE, (file) => {
    const none = { min: NaN, max: NaN, mean: NaN, std: NaN, nan: 0 };
    const one = { min: -7, max: -7, mean: -7, std: 0, nan: 0 };
    assert.deepEqual(inspectFile(file).tensors, [
      {
        name: "layer2.weight",
        dtype: "BF16",
        shape: [2],
        min: -1,
        max: 1,
        mean: 0,
        std: 1,
        nan: 0,
      },
      {
        ...{ name: "layer10.weight", dtype: "F32", shape: [2, 2] },
        ...{ min: 1, max: 5, mean: 3, std: Math.sqrt(8 / 3), nan: 1 },
      },
      { name: "nothing", dtype: "F32", shape: [0], ...none },
      { name: "steps", dtype: "I64", shape: [], ...one },
    ]);
    const { total, metadata } = inspectFile(file);
    assert.deepEqual(total, { tensors: 4, values: 7, nan: 1, bytes: FILE.length });
    assert.deepEqual({ ...metadata }, { arch: "resnet18" });
  });
});

Deno.test("inspect prints a table, or JSON", async () => {
  await withFile(FILE, async (file) => {
    const lines = (await printed(file)).split("\n");
    assert.match(lines[0]!, /^name +dtype +shape +min +max +mean +std +NaN$/);
    assert.match(lines[2]!, /^layer10.weight +F32 +\[2, 2\] +1 +5 +3 +1.633 +1$/);
    assert.ok(lines.includes(`4 tensors, 7 values, 1 NaN, ${FILE.length} bytes`));
    assert.equal(lines.at(-1), "arch: resnet18");
    const json = JSON.parse(await printed(file, "--json"));
    assert.equal(json.tensors[1].std, Math.sqrt(8 / 3));
    assert.equal(json.tensors[2].mean, null);
  });
});

Deno.test("inspect prints PyTorch's files, and which of their dicts it took", async () => {
  const file = fileURLToPath(new URL("weights_checkpoint_legacy.pth", FIXTURES));
  const lines = (await printed(file)).split("\n");
  assert.match(lines[1]!, /^0\.bias +F32 +\[2\] /);
  assert.deepEqual(lines.slice(-3), [
    "format: PyTorch legacy",
    "dict: nested.state_dict",
    "stripped: module.",
  ]);
});

Deno.test("inspect names the file that is missing, a folder or no file of weights", async () => {
  const refuses = (file: string, message: string) =>
    assert.rejects(
      async () => await runCommand(command, [file]),
      (error: Error) => error instanceof UserError && error.message === `${file}: ${message}`,
    );
  await refuses("no/such.safetensors", "no such file");
  await refuses(".", "is a folder, expected a file");
  await withFile(
    new Uint8Array(3),
    (file) => refuses(file, "neither safetensors nor PyTorch (it begins with bytes 00 00 00)"),
  );
});
