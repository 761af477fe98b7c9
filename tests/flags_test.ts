import assert from "node:assert/strict";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { defineCommand, helpText, runCommand } from "../src/commands/command.ts";
import {
  boolean,
  choice,
  configFile,
  helpLines,
  integer,
  number,
  parseFlags,
  path,
  string,
} from "../src/commands/flags.ts";
import { UserError } from "../src/errors.ts";

const table = {
  method: choice({ of: ["simclr", "supervised"], default: "simclr", help: "what to train by" }),
  channels: choice({ of: [1, 3], default: 1, help: "colour channels" }),
  epochs: integer({ min: 1, max: 1000, default: 20, help: "passes over the data" }),
  lr: number({ above: 0, otherwise: "by method", help: "peak learning rate" }),
  imageSize: integer({ min: 16, default: 64, help: "side of the images" }),
  data: string({ kind: "SPEC", default: "phantom", help: "data set" }),
  out: path({ kind: "DIR", help: "run folder" }),
  json: boolean({ help: "machine-readable output" }),
  flip: boolean({ default: true, help: "flip the images" }),
  config: configFile(),
};

function parse(...args: string[]) {
  return parseFlags(table, args);
}

function rejects(args: string[], message: string | RegExp) {
  assert.throws(() => parse(...args), (error) => {
    assert.ok(error instanceof UserError);
    if (typeof message === "string") assert.equal(error.message, message);
    else assert.match(error.message, message);
    return true;
  });
}

function withConfig(text: string, body: (file: string, directory: string) => void) {
  const directory = mkdtempSync(join(tmpdir(), "wgrad-flags-"));
  try {
    const file = join(directory, "config.json");
    writeFileSync(file, text);
    body(file, directory);
  } finally {
    rmSync(directory, { recursive: true });
  }
}

Deno.test("parseFlags() fills in defaults, typed by the table", () => {
  const { values, given } = parse();
  const method: "simclr" | "supervised" = values.method;
  const channels: 1 | 3 = values.channels;
  const epochs: number = values.epochs;
  const lr: number | undefined = values.lr;
  const out: string | undefined = values.out;
  // @ts-expect-error: a flag without a default may be undefined
  const sure: number = values.lr;
  assert.deepEqual([method, channels, epochs, lr, out, sure], [
    "simclr",
    1,
    20,
    undefined,
    undefined,
    undefined,
  ]);
  assert.equal(values.json, false);
  assert.equal(values.flip, true);
  assert.equal(given.size, 0);
});

Deno.test("parseFlags() reads every type, in both spellings", () => {
  const { values, given, positionals } = parse(
    "show",
    "--method=supervised",
    "--channels",
    "3",
    "--epochs",
    "7",
    "--lr=3e-4",
    "--image-size",
    "32",
    "--json",
    "--no-flip",
    "--out",
    "a b",
    "--",
    "--lr",
  );
  assert.deepEqual({ ...values }, {
    method: "supervised",
    channels: 3,
    epochs: 7,
    lr: 3e-4,
    imageSize: 32,
    data: "phantom",
    out: "a b",
    json: true,
    flip: false,
    config: undefined,
  });
  assert.ok(given.has("imageSize") && !given.has("data"));
  assert.deepEqual(positionals, ["show", "--lr"]);
});

Deno.test("parseFlags() names an unknown flag and the nearest known one", () => {
  rejects(["--epoch", "3"], "unknown flag --epoch; did you mean --epochs?");
  rejects(["--imagesize=3"], "unknown flag --imagesize; did you mean --image-size?");
  rejects(["--frobnicate"], "unknown flag --frobnicate");
  rejects(["-e"], "unknown flag -e");
  rejects(["--no-lr"], "unknown flag --no-lr");
  rejects(["--toString"], "unknown flag --toString");
});

Deno.test("parseFlags() says what a bad value should have been", () => {
  rejects(["--epochs", "ten"], '--epochs: expected an integer ≥ 1 and ≤ 1000, got "ten"');
  rejects(["--epochs", "2.5"], "--epochs: expected an integer ≥ 1 and ≤ 1000, got 2.5");
  rejects(["--epochs", "1001"], "--epochs: expected an integer ≥ 1 and ≤ 1000, got 1001");
  rejects(["--epochs", "-3"], "--epochs: expected an integer ≥ 1 and ≤ 1000, got -3");
  rejects(["--epochs="], '--epochs: expected an integer ≥ 1 and ≤ 1000, got ""');
  rejects(["--lr", "0"], "--lr: expected a number > 0, got 0");
  rejects(["--lr", "NaN"], '--lr: expected a number > 0, got "NaN"');
  rejects(["--lr", "Infinity"], /^--lr: expected a number > 0/);
  rejects(["--method", "sim"], '--method: expected one of simclr, supervised, got "sim"');
  rejects(["--channels", "2"], '--channels: expected one of 1, 3, got "2"');
  rejects(["--out", "--json"], "--out needs a value: a path");
  rejects(["--epochs"], "--epochs needs a value: an integer ≥ 1 and ≤ 1000");
  rejects(["--json=yes"], "--json takes no value");
});

Deno.test("parseFlags() requires what the table requires", () => {
  const required = { file: path({ required: true, help: "a file" }) };
  const { values } = parseFlags(required, ["--file", "x"]);
  const file: string = values.file;
  assert.equal(file, "x");
  assert.throws(() => parseFlags(required, []), new UserError("--file is required"));
});

Deno.test("parseFlags() puts the command line over the configuration over the defaults", () => {
  const text = `{
    // the learning rate; "quotes" and // slashes
    "lr": 0.5, /* kept */ "epochs": 3,
    "data": "csv://x,]",
    "out": "run",
    "flip": false,
  }`;
  withConfig(text, (file, directory) => {
    const { values, given } = parse("--config", file, "--epochs", "4");
    assert.equal(values.lr, 0.5);
    assert.equal(values.epochs, 4);
    assert.equal(values.flip, false);
    assert.equal(values.imageSize, 64);
    assert.equal(values.data, "csv://x,]");
    assert.equal(values.out, join(directory, "run"), "relative to the configuration file");
    assert.deepEqual([...given].sort(), ["config", "data", "epochs", "flip", "lr", "out"]);
  });
});

Deno.test("parseFlags() names file and key of a bad configuration", () => {
  withConfig('{ "epoch": 3 }', (file) => {
    rejects(["--config", file], `${file}: unknown key epoch; did you mean epochs?`);
  });
  withConfig('{ "epochs": "3" }', (file) => {
    rejects(
      ["--config", file],
      `${file}: epochs: expected an integer ≥ 1 and ≤ 1000, got "3"`,
    );
  });
  withConfig('{ "config": "other.json" }', (file) => {
    rejects(["--config", file], `${file}: config: a configuration file names no other`);
  });
  withConfig("[]", (file) => {
    rejects(["--config", file], `${file}: expected an object of flags, got []`);
  });
  withConfig('{\n  "epochs": 3 4 }', (file) => rejects(["--config", file], /line 2 column 15/));
  rejects(["--config", "/no/such.json"], "/no/such.json: no such file");
});

Deno.test("helpLines() shows every flag with its range and default", () => {
  const [method, meaning, ...lines] = helpLines(table);
  assert.equal(method, "  --method simclr|supervised");
  assert.equal(meaning, "                  what to train by (default simclr)");
  assert.deepEqual(lines.slice(0, 5), [
    "  --channels 1|3  colour channels (default 1)",
    "  --epochs N      passes over the data (≥ 1 and ≤ 1000; default 20)",
    "  --lr X          peak learning rate (> 0; default by method)",
    "  --image-size N  side of the images (≥ 16; default 64)",
    "  --data SPEC     data set (default phantom)",
  ]);
  assert.ok(lines.includes("  --[no-]flip     flip the images (default on)"));
});

Deno.test("runCommand() checks positionals and returns the exit code", async () => {
  const seen: unknown[] = [];
  const command = defineCommand({
    name: "inspect",
    summary: "Prints tensors",
    flags: { json: boolean({ help: "JSON" }) },
    positionals: ["FILE"],
    run({ json }, { positionals }) {
      seen.push(json, positionals);
      return json ? 3 : undefined;
    },
  });
  assert.equal(await runCommand(command, ["x", "--json"]), 3);
  assert.equal(await runCommand(command, ["x"]), 0);
  assert.deepEqual(seen, [true, ["x"], false, ["x"]]);
  await assert.rejects(
    runCommand(command, []),
    new UserError("inspect: FILE is missing (deno task inspect FILE [flags])"),
  );
  await assert.rejects(runCommand(command, ["x", "y"]), /unexpected argument "y"/);
  assert.equal(
    helpText(command),
    "Prints tensors\n\nUsage: deno task inspect FILE [flags]\n\nFlags:\n  --json  JSON\n  --help  prints this",
  );
});
