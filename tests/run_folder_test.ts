import assert from "node:assert/strict";
import { join } from "node:path";
import { UserError } from "../src/errors.ts";
import { createRun, openRun, type RunFolder } from "../src/run_folder.ts";

/** Runs `use` in an empty folder. */
async function inFolder(use: (folder: string) => unknown): Promise<void> {
  const folder = await Deno.makeTempDir();
  try {
    await use(folder);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

/** Runs `use` on a new run with a configuration. */
function inRun(use: (run: RunFolder) => unknown): Promise<void> {
  return inFolder((folder) => {
    const run = createRun("simclr", undefined, folder);
    run.writeConfig({ method: "simclr" });
    return use(run);
  });
}

function refuses(call: () => unknown, message: string | RegExp): void {
  assert.throws(call, (error: Error) => {
    assert.ok(error instanceof UserError, `${error.stack}`);
    if (typeof message === "string") assert.equal(error.message, message);
    else assert.match(error.message, message);
    return true;
  });
}

Deno.test("createRun() takes the next free number of a method", async () => {
  await inFolder((folder) => {
    const root = join(folder, "runs");
    const made = () => createRun("simclr", undefined, root).path;
    assert.equal(made(), join(root, "simclr-1"));
    assert.equal(made(), join(root, "simclr-2"));
    Deno.mkdirSync(join(root, "simclr-9"));
    Deno.mkdirSync(join(root, "simclr-30-copy"));
    Deno.mkdirSync(join(root, "kmeans-40"));
    assert.equal(made(), join(root, "simclr-10"));
    assert.equal(createRun("kmeans", undefined, root).path, join(root, "kmeans-41"));
  });
});

Deno.test("createRun() never gives one folder to two processes", async () => {
  await inFolder(async (folder) => {
    const module = new URL("../src/run_folder.ts", import.meta.url).href;
    const script = `import { createRun } from ${JSON.stringify(module)};
      for (let i = 0; i < 20; i++) console.log(createRun("simclr", undefined, Deno.args[0]).path);`;
    const file = join(folder, "make.ts");
    await Deno.writeTextFile(file, script);
    const outputs = await Promise.all([1, 2].map(() =>
      new Deno.Command("deno", {
        args: ["run", "--no-check", "--allow-read", "--allow-write", file, join(folder, "runs")],
      }).output()
    ));
    const paths = outputs.flatMap(({ success, stdout, stderr }) => {
      assert.ok(success, new TextDecoder().decode(stderr));
      return new TextDecoder().decode(stdout).trim().split("\n");
    });
    assert.equal(new Set(paths).size, 40);
  });
});

Deno.test("createRun() makes --out, or takes it empty, and refuses it otherwise", async () => {
  await inFolder((folder) => {
    const out = join(folder, "a", "b");
    assert.equal(createRun("simclr", out).path, out);
    const run = createRun("simclr", out);
    run.writeConfig({});
    refuses(() => createRun("simclr", out), `--out ${out}: the folder is not empty`);
    refuses(
      () => createRun("simclr", run.pathOf("config")),
      `--out ${run.pathOf("config")}: cannot make this folder: a file is in the way`,
    );
    const below = join(run.pathOf("config"), "x");
    refuses(
      () => createRun("simclr", below),
      `--out ${below}: cannot make this folder: a file is in the way`,
    );
  });
});

Deno.test("openRun() refuses what is no run folder", async () => {
  await inRun((run) => {
    assert.equal(openRun(run.path).path, run.path);
    refuses(() => openRun("no/such"), "no/such: no such run folder");
    const parent = join(run.path, "..");
    refuses(() => openRun(parent), `${parent}: not a run folder, it holds no config.json`);
    const config = run.pathOf("config");
    refuses(() => openRun(config), `${config}: not a run folder, it holds no config.json`);
  });
});

Deno.test("RunFolder keeps the configuration it was started with", async () => {
  await inRun((run) => {
    assert.deepEqual(run.readConfig(), { method: "simclr" });
    assert.throws(() => run.writeConfig({ method: "kmeans" }), /exists, and is never rewritten/);
    assert.deepEqual(openRun(run.path).readConfig(), { method: "simclr" });
  });
});

Deno.test("RunFolder names the file and place of a corrupt configuration", async () => {
  await inRun(async (run) => {
    const path = run.pathOf("config");
    await Deno.writeTextFile(path, '{\n  "seed": }');
    refuses(() => run.readConfig(), /config\.json: Unexpected token '}', .*is not valid JSON$/);
    await Deno.writeTextFile(path, "[1]");
    refuses(() => run.readConfig(), `${path}: expected a JSON object, got [1]`);
  });
});

Deno.test("RunFolder logs rows of metrics and reads them back", async () => {
  await inRun((run) => {
    assert.deepEqual(run.readMetrics(), []);
    run.log({ step: 1, epoch: 0.5, loss: 4.5, lr: 0.1 });
    run.log({ step: 2, epoch: 1, loss: NaN, knn: { auroc: 0.5 } });
    assert.deepEqual(openRun(run.path).readMetrics(), [
      { step: 1, epoch: 0.5, loss: 4.5, lr: 0.1 },
      { step: 2, epoch: 1, loss: null, knn: { auroc: 0.5 } },
    ]);
  });
});

Deno.test("RunFolder rewinds metrics to a step, past a line left unfinished", async () => {
  await inRun(async (run) => {
    for (let step = 1; step <= 5; step++) run.log({ step, epoch: step / 5 });
    await Deno.writeTextFile(run.pathOf("metrics"), '{"step":6,"ep', { append: true });
    assert.equal(run.readMetrics().length, 5);
    run.rewindMetrics(3);
    run.log({ step: 4, epoch: 0.8, loss: 1 });
    assert.deepEqual(run.readMetrics().map(({ step, loss }) => [step, loss]), [
      [1, undefined],
      [2, undefined],
      [3, undefined],
      [4, 1],
    ]);
    run.rewindMetrics(0);
    assert.deepEqual(run.readMetrics(), []);
  });
});

Deno.test("RunFolder names the line of a corrupt row of metrics", async () => {
  await inRun(async (run) => {
    const path = run.pathOf("metrics");
    const corrupt = async (line: string) => {
      await Deno.writeTextFile(path, `{"step":1,"epoch":1}\n${line}\n{"step":2,"epoch":2}\n`);
      return () => run.readMetrics();
    };
    refuses(await corrupt('{"step":'), /metrics\.jsonl: line 2: /);
    refuses(await corrupt("3"), `${path}: line 2: expected a JSON object, got 3`);
    refuses(await corrupt('{"epoch":1}'), `${path}: line 2: step is undefined, expected a number`);
    refuses(
      await corrupt('{"step":1,"epoch":"1"}'),
      `${path}: line 2: epoch is "1", expected a number`,
    );
  });
});

Deno.test("RunFolder replaces a checkpoint as a whole and leaves nothing beside it", async () => {
  await inRun((run) => {
    assert.equal(run.has("checkpoint"), false);
    refuses(() => run.read("checkpoint"), `${run.pathOf("checkpoint")}: no such file`);
    run.write("checkpoint", Uint8Array.of(1, 2, 3));
    run.write("checkpoint", Uint8Array.of(4));
    assert.deepEqual(run.read("checkpoint"), Uint8Array.of(4));
    run.write("report", "<!doctype html>");
    assert.equal(new TextDecoder().decode(run.read("report")), "<!doctype html>");
    const files = [...Deno.readDirSync(join(run.path, "checkpoints"))].map(({ name }) => name);
    assert.deepEqual(files, ["last.safetensors"]);
  });
});

Deno.test("RunFolder keeps the old checkpoint when writing the new one fails", async () => {
  await inRun((run) => {
    run.write("checkpoint", Uint8Array.of(1));
    // The temporary file cannot be made where a folder has its name.
    Deno.mkdirSync(`${run.pathOf("checkpoint")}.${Deno.pid}.tmp`);
    assert.throws(() => run.write("checkpoint", Uint8Array.of(2)));
    assert.deepEqual(run.read("checkpoint"), Uint8Array.of(1));
  });
});
