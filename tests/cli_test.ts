import assert from "node:assert/strict";

async function cli(args: string[], env: Record<string, string> = {}) {
  const { code, stdout, stderr } = await new Deno.Command("deno", {
    args: ["run", "-q", "-P=inspect", "cli.ts", ...args],
    env: { NO_COLOR: "1", ...env },
  }).output();
  const decoder = new TextDecoder();
  return { code, out: decoder.decode(stdout), err: decoder.decode(stderr) };
}

Deno.test("the command line lists its commands", async () => {
  const { code, out } = await cli([]);
  assert.equal(code, 0);
  for (const name of ["train", "embed", "data", "inspect", "doctor"]) {
    assert.match(out, new RegExp(`^  ${name} +[A-Z]`, "m"));
  }
});

Deno.test("the command line meets mistakes with one line and exit code 2", async () => {
  const mistakes: [string[], string][] = [
    [["tran"], "unknown command tran; did you mean train?"],
    [["toString"], "unknown command toString"],
    [["train", "--epoch", "3"], "unknown flag --epoch; did you mean --epochs?"],
    [["train", "--epochs", "0"], "--epochs: expected an integer ≥ 1 and ≤ 100000, got 0"],
    [["inspect"], "inspect: FILE is missing (deno task inspect FILE [flags])"],
    [["inspect", "/no/such.file"], "/no/such.file: no such file"],
  ];
  for (const [args, message] of mistakes) {
    assert.deepEqual(await cli(args), { code: 2, out: "", err: `error: ${message}\n` });
  }
});

Deno.test("the command line shows a stack to those who ask for it", async () => {
  const { code, err } = await cli(["tran"], { WGRAD_DEBUG: "1" });
  assert.equal(code, 2);
  assert.match(err, /unknown command tran[^]*at .*cli\.ts/);
});

Deno.test("every command explains its flags", async () => {
  for (const name of ["train", "embed", "data", "inspect", "doctor"]) {
    const { code, out } = await cli([name, "--help"]);
    assert.equal(code, 0);
    assert.match(out, new RegExp(`^Usage: deno task ${name}`, "m"));
    assert.match(out, /^ {2}--help +prints this$/m);
  }
});
