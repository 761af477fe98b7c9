import assert from "node:assert/strict";
import { existsSync, readdirSync, readFileSync, rmSync, utimesSync, writeFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { openDataset } from "../src/data/open.ts";
import { decodePng } from "../src/data/decode/png.ts";
import { UserError } from "../src/errors.ts";
import type { Cell, ScoreCell, Target } from "../src/study/cell.ts";
import {
  checkStudy,
  contradiction,
  phantomStudy,
  pretrainingSteps,
  readStudy,
  relativeTo,
  type StudyConfig,
  withImagenet,
} from "../src/study/config.ts";
import { StudyFolder } from "../src/study/folder.ts";
import { Locks } from "../src/study/locks.ts";
import { planStudy, selectCells } from "../src/study/plan.ts";
import { runStudy, type StudyReporter } from "../src/study/run.ts";
import { StudyTarget } from "../src/study/target.ts";
import { createMethod, methodNames, type TrainConfig, type TrainData } from "../src/train.ts";
import { withFiles } from "./support/files.ts";
import { run, spawn } from "./support/task.ts";

/** A study of two pretrained arms. */
const small = {
  target: "phantom:n=64",
  sets: { own: { data: "phantom:n=64" }, other: { data: "phantom:n=64,seed=1" } },
  pretraining: { views: 256, methods: { simclr: { on: ["other", "own"] } } },
  seeds: [3, 1],
};

Deno.test("planStudy() lists the cells of a seed after what they need", () => {
  const config = checkStudy({ ...small, fractions: [{ fraction: 1 }, { fraction: 0.1 }] }, "s");
  const ids = (seed: number) =>
    [
      ...["pixels.linear.100", "pixels.linear.10", "pixels.knn.100", "pixels.knn.10"],
      ...["scratch.linear.100", "scratch.linear.10", "scratch.knn.100", "scratch.knn.10"],
      ...["own", "other"].flatMap((set) =>
        ["pretrain", "linear.100", "linear.10", "knn.100", "knn.10"].map((kind) =>
          `simclr-${set}.${kind}`
        )
      ),
      ...["scratch.finetune.100", "simclr-own.finetune.100", "simclr-other.finetune.100"],
      ...["scratch.finetune.10", "simclr-own.finetune.10", "simclr-other.finetune.10"],
    ].map((id) => `${id}.s${seed}`);
  const cells = planStudy(config);
  assert.deepEqual(cells.map(({ id }) => id), [...ids(3), ...ids(1)]);

  const needs = Object.fromEntries(cells.map(({ id, needs }) => [id, needs]));
  assert.deepEqual(needs["pixels.knn.10.s3"], []);
  assert.deepEqual(needs["simclr-own.pretrain.s1"], []);
  assert.deepEqual(needs["simclr-own.linear.10.s1"], ["simclr-own.pretrain.s1"]);
  // The first seed chooses the learning rate.
  assert.deepEqual(needs["scratch.finetune.10.s3"], []);
  assert.deepEqual(needs["simclr-own.finetune.10.s1"], [
    "simclr-own.pretrain.s1",
    "simclr-own.finetune.10.s3",
  ]);
  cells.forEach(({ needs }, i) =>
    assert.ok(needs.every((need) => cells.slice(0, i).some(({ id }) => id === need)))
  );
});

Deno.test("planStudy() has ImageNet's encoder and the one beside it where there are weights", () => {
  const arms = (config: StudyConfig) => [
    ...new Set(planStudy(config).map(({ key }) => key.arm.name)),
  ];
  const config = checkStudy(small, "s");
  assert.deepEqual(arms(config), ["pixels", "scratch", "simclr-own", "simclr-other"]);
  assert.deepEqual(
    arms({ ...config, imagenet: { weights: "resnet18.pth" } }),
    ["pixels", "scratch", "scratch-64", "imagenet", "simclr-own", "simclr-other"],
  );
  assert.equal(withImagenet(config, "deno.json").imagenet.weights, resolve("deno.json"));
  assert.throws(
    () => withImagenet(config, "none.pth"),
    new UserError("--imagenet-weights none.pth: no such file"),
  );
});

Deno.test("selectCells() parts the cells, a pretraining with all that needs it, and brings along", () => {
  const cells = planStudy(checkStudy(small, "s"));
  const pieces = [1, 2, 3].map((index) => selectCells(cells, { shard: { index, of: 3 } }));
  const all = new Set(pieces.flat().map(({ id }) => id));
  assert.equal(all.size, cells.length);
  const encoders = pieces.map((piece) =>
    new Set(
      piece.flatMap(({ id, key }) => key.kind === "linear" ? id.replace(/linear.*s/, "") : []),
    )
  );
  assert.equal(encoders.reduce((sum, { size }) => sum + size, 0), 8);
  for (const [i, piece] of pieces.entries()) {
    const ids = piece.map(({ id }) => id);
    assert.ok(piece.every(({ needs }) => needs.every((need) => ids.includes(need))));
    // Others' cells are there only because they are needed.
    const foreign = piece.filter(({ id, key }) =>
      !encoders[i]!.has(`${key.arm.name}.${key.seed}`) &&
      !piece.some(({ needs }) => needs.includes(id))
    );
    assert.deepEqual(foreign, []);
  }

  const only = (pattern: string) => selectCells(cells, { only: pattern }).map(({ id }) => id);
  assert.deepEqual(only("own.linear.100.s1"), [
    "simclr-own.pretrain.s1",
    "simclr-own.linear.100.s1",
  ]);
  assert.deepEqual(only("scratch.*.100.s3"), [
    "scratch.linear.100.s3",
    "scratch.knn.100.s3",
    "scratch.finetune.100.s3",
  ]);
  assert.throws(
    () => only("simclar"),
    /^UserError: --only simclar: no cell of this name; there are/,
  );
});

Deno.test("a configuration has defaults, and mistakes name file, field and value", async () => {
  const config = checkStudy(small, "dir/study.jsonc");
  assert.deepEqual(config.encoder, { arch: "resnet18", width: 16, stem: "7x7", channels: 1 });
  assert.deepEqual(config.sets.own, { title: "own", data: "phantom:n=64" });
  assert.deepEqual(config.finetuning, { rates: [1e-4, 3e-4, 1e-3], weightDecay: 0.05 });
  assert.deepEqual(config.fractions, [
    { fraction: 1, epochs: 30, batch: 64 },
    { fraction: 0.1, epochs: 100, batch: 32 },
  ]);

  const methods = (simclr: unknown, views = 256) => ({
    ...small,
    pretraining: { views, methods: { simclr } },
  });
  for (
    const [value, message] of [
      [{}, "target: expected text, it is missing"],
      [{ ...small, target: "phantm" }, /^target: data "phantm": no reader "phantm"/],
      [{ ...small, seed: [1] }, 'no field "seed"; did you mean seeds?'],
      [{ ...small, encoder: { width: 0 } }, /^encoder\.width: expected an integer ≥ 1 .*got 0$/],
      [{ ...small, encoder: { widh: 4 } }, 'encoder: no field "widh"; did you mean width?'],
      [{ ...small, seeds: [] }, "seeds: expected a list, got []"],
      [{ ...small, seeds: [0, 1.5] }, /^seeds\.1: expected an integer/],
      [{ ...small, seeds: [0, 0] }, "seeds: 0 is there twice"],
      [{ ...small, fractions: [{}] }, /^fractions\.0\.fraction: expected a number .* missing$/],
      [
        { ...small, fractions: [{ fraction: 1 }, { fraction: 1, epochs: 3 }] },
        "fractions: 1 is there twice",
      ],
      [{ ...small, protocols: ["knm"] }, 'protocols.0: no protocol "knm"; did you mean knn?'],
      [{ ...small, sets: { "a b": { data: "phantom" } } }, /^sets: "a b": expected small letters/],
      [
        { ...small, imagenet: { weights: "no.pth" } },
        /^imagenet\.weights: .*no\.pth: no such file/,
      ],
      [methods({ on: ["owl"] }), 'pretraining.methods.simclr.on: no set "owl"; did you mean own?'],
      [
        methods({ on: ["own"], flags: { bach: 2 } }),
        /simclr\.flags: unknown flag --bach; did .*batch/,
      ],
      [
        methods({ on: ["own"], flags: { batch: 1.5 } }),
        /simclr\.flags: --batch: expected an integer/,
      ],
      [methods({ on: ["own"], flags: { seed: 3 } }), /simclr\.flags: seed is set by the study/],
      [methods({ on: ["own"] }, 300), /flags: batch 64: 300 views,.* steps of 128; 256 would be$/],
      [
        { ...small, pretraining: { methods: { simcrl: { on: ["own"] } } } },
        'pretraining.methods: no method "simcrl"; did you mean simclr?',
      ],
    ] as const
  ) {
    assert.throws(() => checkStudy(value, "study.jsonc"), (error: Error) => {
      assert.ok(error instanceof UserError, String(error));
      const [, text] = /^study\.jsonc: (.*)$/.exec(error.message) ?? assert.fail(error.message);
      if (typeof message === "string") assert.equal(text, message);
      else assert.match(text!, message);
      return true;
    });
  }

  await withFiles(
    { "a/study.jsonc": '{ // phantoms\n"target": "csv:../x.csv?limit=3", }' },
    (dir) => {
      const config = readStudy(join(dir, "a", "study.jsonc"));
      assert.equal(config.target, `csv:${dir}/x.csv?limit=3`);
      assert.equal(relativeTo(join(dir, "b"), config).target, "csv:../x.csv?limit=3");
    },
  );
});

Deno.test("the examples are configurations", () => {
  assert.equal(planStudy(readStudy("docs/study/study.jsonc")).length, 198);
  assert.equal(planStudy(phantomStudy()).length, 104);
});

Deno.test("every method is pretrained on the same number of views", () => {
  const config = readStudy("docs/study/study.jsonc");
  for (const method of Object.keys(config.pretraining.methods)) {
    const { steps, viewsPerStep } = pretrainingSteps(config, method);
    assert.equal(steps * viewsPerStep, config.pretraining.views);
  }
});

Deno.test("a step counts as many views as the method makes", async () => {
  const dataset = await openDataset("phantom:n=8");
  const pretraining = dataset.examples.keys().toArray();
  const architecture = { arch: "resnet18", width: 2, stem: "7x7", channels: 1, imageSize: 32 };
  for (const method of methodNames) {
    const options = { method, ...architecture, head: "v1", corrupt: "noise", loss: "bce" };
    const { viewsPerImage } = createMethod(
      { ...options, clusters: 2, strength: 0, kmeans: "v1", seed: 0 } as unknown as TrainConfig,
      { dataset, pretraining } as unknown as TrainData,
    );
    const config = checkStudy({
      ...small,
      pretraining: { views: 128, methods: { [method]: { on: ["own"], flags: { batch: 16 } } } },
    }, "s");
    assert.equal(pretrainingSteps(config, method).viewsPerStep, 16 * viewsPerImage, method);
  }
});

Deno.test("a study that has begun may grow, and nothing else of it may change", () => {
  const config = checkStudy(small, "s");
  const { simclr } = config.pretraining.methods;
  const methods = { simclr: { ...simclr!, on: ["own"] } };
  for (
    const [next, field] of [
      [{ ...config, title: "another" }, null],
      [{ ...config, seeds: [3, 1, 0] }, null],
      [{ ...config, seeds: [1, 3] }, "seeds"],
      [{ ...config, seeds: [3] }, "seeds"],
      [{ ...config, imageSize: 32 }, "imageSize"],
      [{ ...config, fractions: config.fractions.slice(1) }, "fractions"],
      [
        { ...config, fractions: [...config.fractions, { fraction: 0.5, epochs: 1, batch: 2 }] },
        null,
      ],
      [{ ...config, sets: { ...config.sets, third: config.sets.own! } }, null],
      [{ ...config, sets: { ...config.sets, own: config.sets.other! } }, "sets.own"],
      [{ ...config, pretraining: { ...config.pretraining, views: 512 } }, "pretraining.views"],
      [
        { ...config, pretraining: { ...config.pretraining, methods } },
        "pretraining.methods.simclr",
      ],
      [{ ...config, finetuning: { ...config.finetuning, weightDecay: 0 } }, "finetuning"],
      [{ ...config, imagenet: { weights: "x.pth" } }, null],
    ] as const
  ) assert.equal(contradiction(config, next), field);
});

Deno.test("a lock has one holder, and passes on when its holder is gone", async () => {
  await withFiles({}, async (dir) => {
    const [locks, others, sleepy] = [{}, {}, { staleAfter: 60 }].map((options) =>
      new Locks(dir, options)
    ) as [Locks, Locks, Locks];
    const lock = locks.take("cell")!;
    assert.notEqual(lock, null);
    assert.equal(others.take("cell"), null);
    assert.equal(JSON.parse(readFileSync(join(dir, "cell"), "utf8")).pid, Deno.pid);
    lock.release();
    assert.deepEqual(readdirSync(dir), []);

    // What a process leaves that was killed.
    const content = '{"process":"gone"}';
    const abandon = (age: number) => {
      writeFileSync(join(dir, "cell"), content);
      const then = Date.now() / 1000 - age;
      utimesSync(join(dir, "cell"), then, then);
    };
    abandon(50);
    assert.equal(locks.take("cell"), null);
    abandon(70);
    const takers = [locks, others].map((taker) => taker.take("cell"));
    assert.equal(takers.filter((taker) => taker !== null).length, 1);
    takers.forEach((taker) => taker?.release());
    assert.deepEqual(readdirSync(dir), []);

    // One that slept finds its lock taken, and does not remove it.
    const slept = sleepy.take("cell")!;
    const lost = new Promise((resolve) => slept.lost.addEventListener("abort", resolve));
    writeFileSync(join(dir, "cell"), content);
    await lost;
    slept.release();
    assert.equal(readFileSync(join(dir, "cell"), "utf8"), content);
    [locks, others, sleepy].forEach((one) => one.close());
  });
});

Deno.test("a seed draws the same part of the labels for every arm, and the target says what is scored", async () => {
  const target = await StudyTarget.open("phantom:n=120", 16);
  const { parts, dataset } = target;
  assert.deepEqual(target.rows(1, 5), parts.train.keys().toArray());
  assert.deepEqual(target.rows(0.5, 5), target.rows(0.5, 5));
  assert.notDeepEqual(target.rows(0.5, 5), target.rows(0.5, 6));
  const { train, images } = await target.finetuneData(0.5, 5, 1);
  assert.equal(images.count, train.length);
  const pixels = await dataset.load(train[3]!, 16, 1);
  assert.deepEqual(images.pixels.slice(3 * 256, 4 * 256), pixels);

  const described = target.describe("x");
  assert.deepEqual(described.labels, dataset.labels);
  assert.equal(described.training.images, parts.train.length);
  assert.deepEqual(described.test.ids, parts.test.map((index) => dataset.examples[index]!.id));
  assert.deepEqual(
    described.test.targets.slice(0, dataset.labels.length),
    Array.from(dataset.examples[parts.test[0]!]!.labels),
  );
  const numbers = described.test.patients;
  assert.equal(numbers[0], 0);
  assert.equal(
    Math.max(...numbers.map(Number)) + 1,
    new Set(parts.test.map((index) => dataset.examples[index]!.patient)).size,
  );
});

const tiny = {
  target: "phantom:n=120",
  sets: { other: { data: "phantom:n=40,seed=1" } },
  encoder: { width: 4 },
  imageSize: 32,
  pretraining: { views: 192, methods: { simclr: { on: ["other"], flags: { batch: 8 } } } },
  finetuning: { rates: [1e-3, 1e-2] },
  fractions: [{ fraction: 1, epochs: 2, batch: 16 }],
  seeds: [0, 1],
};

/** What must not depend on how often a study was stopped. */
function lasting(dir: string): Record<string, unknown> {
  return Object.fromEntries(
    readdirSync(join(dir, "cells")).sort().map((file) => {
      const cell: Cell = JSON.parse(readFileSync(join(dir, "cells", file), "utf8"));
      const { origin: _origin, ...content } = cell;
      if (content.kind !== "pretrain") return [file, JSON.stringify(content)];
      const { viewsPerSecond: _, config: { started: _started, ...config }, ...rest } = content;
      return [file, JSON.stringify({ ...rest, config })];
    }),
  );
}

const silent: StudyReporter = {
  stage() {},
  compiling() {},
  progress() {},
  knn() {},
  validated() {},
  line(text) {
    assert.fail(text);
  },
  finished() {},
};

Deno.test("a study goes on where it stopped, by several processes, to the same cells", async (t) => {
  await withFiles({ "study.jsonc": JSON.stringify(tiny) }, async (dir) => {
    const file = join(dir, "study.jsonc");
    const config = readStudy(file);
    const cells = planStudy(config);
    const [whole, parts] = [join(dir, "whole"), join(dir, "parts")];
    const forever = new AbortController().signal;
    const finished: string[] = [];

    await t.step("--dry-run prints what is left and writes nothing", async () => {
      const { code, out, err } = await run("study", file, "--out", parts, "--dry-run");
      assert.equal(code, 0, err);
      assert.match(out, /^pretrain simclr-other +2 +\d/m);
      assert.match(out, /^all +18 +\d/m);
      assert.equal(existsSync(parts), false);
    });

    await t.step("without a stop", async () => {
      const folder = await StudyFolder.open(whole, config);
      const { status, left } = await runStudy(config, folder, cells, silent, forever);
      assert.deepEqual([status, left], ["done", []]);
      assert.deepEqual(
        readdirSync(join(whole, "cells")).sort(),
        cells.map(({ id }) => `${id}.json`).sort(),
      );
      assert.deepEqual(readdirSync(join(whole, "locks")), []);
      // One sheet for each encoder that is fine-tuned.
      const sheets = readdirSync(join(whole, "pictures")).sort();
      const tuned = new Set(
        cells.filter(({ key }) => key.kind === "finetune").map(({ key }) => key.arm.name),
      );
      assert.deepEqual(sheets, [...tuned].sort().map((name) => `${name}.gradcam.png`));
      for (const sheet of sheets) {
        const { width, height } = decodePng(Deno.readFileSync(join(whole, "pictures", sheet)));
        assert.ok(width > height && height > config.imageSize * 2);
      }
      const target: Target = JSON.parse(readFileSync(join(whole, "target.json"), "utf8"));
      const size = target.test.ids.length * target.labels.length;
      const read = (id: string) => folder.read(id) as ScoreCell;
      for (const { id, key } of cells) {
        const cell = folder.read(id);
        if (cell.kind === "pretrain") {
          assert.deepEqual([cell.views, cell.steps, cell.loss.length], [192, 12, 12]);
          assert.equal(cell.config.data, "phantom:n=40,seed=1");
          continue;
        }
        assert.equal(cell.best.probabilities.length, size);
        assert.ok(cell.best.probabilities.every((value) => value >= 0 && value <= 1));
        assert.equal(cell.best.thresholds.length, target.labels.length);
        assert.equal(cell.images, target.training.images);
        const isFinetuned = key.kind === "finetune";
        assert.deepEqual([cell.last !== null, cell.curve.length], [
          isFinetuned,
          isFinetuned ? 2 : 0,
        ]);
        assert.equal(
          cell.maps?.umap.length ?? 0,
          key.kind === "knn" ? 2 * target.test.ids.length : 0,
        );
      }
      const [first, second] = [0, 1].map((seed) => read(`scratch.finetune.100.s${seed}`));
      assert.deepEqual(first!.search.map(({ setting }) => setting), [1e-3, 1e-2]);
      const top = Math.max(...first!.search.map(({ validation }) => validation));
      assert.equal(first!.best.validation, top);
      assert.equal(
        first!.search.find(({ validation }) => validation === top)!.setting,
        first!.setting,
      );
      assert.deepEqual([second!.search, second!.setting], [[], first!.setting]);
      assert.equal(first!.last!.epoch, 2);
      folder.close();
    });

    await t.step("Ctrl-C exits 130 and gives the lock back", async () => {
      const child = spawn("study", [file, "--out", parts]);
      let text = "";
      for await (const chunk of child.stderr.pipeThrough(new TextDecoderStream())) {
        if (finished.length === 0 && /^pixels.*AUROC/m.test(chunk)) {
          finished.push("");
          child.kill("SIGINT");
        }
        text += chunk;
      }
      assert.equal((await child.status).code, 130, text);
      await child.stdout.cancel();
      assert.match(text, /^stopped after \d+ s, \d+ cells left; the same command goes on$/m);
      assert.deepEqual(readdirSync(join(parts, "locks")), []);
      finished.splice(0, 1, ...text.matchAll(/^(\S+): .*AUROC/gm).map(([, id]) => id!));
    });

    await t.step("a pretraining that is stopped keeps its steps", async () => {
      const folder = await StudyFolder.open(parts, config);
      const enough = new AbortController();
      const reporter = { ...silent, progress: () => enough.abort() };
      const pretraining = cells.filter(({ key }) => key.kind === "pretrain");
      const { status } = await runStudy(config, folder, pretraining, reporter, enough.signal);
      assert.equal(status, "interrupted");
      assert.deepEqual(readdirSync(join(parts, "locks")), []);
      assert.ok(existsSync(join(parts, "pretrain/simclr-other.s0/checkpoints/last.safetensors")));
      assert.equal(folder.has("simclr-other.pretrain.s0"), false);
      folder.close();
    });

    await t.step("so does a fine-tuning", async () => {
      const folder = await StudyFolder.open(parts, config);
      const enough = new AbortController();
      const reporter = { ...silent, validated: () => enough.abort() };
      const tuning = cells.filter(({ id }) => id.startsWith("scratch.finetune."));
      const { status } = await runStudy(config, folder, tuning, reporter, enough.signal);
      assert.equal(status, "interrupted");
      const [id] = readdirSync(join(parts, "finetune"));
      assert.equal(folder.has(id!), false);
      assert.ok(existsSync(join(parts, "finetune", id!, "0.001/checkpoints/last.safetensors")));
      folder.close();
    });

    await t.step("two processes share what is left", async () => {
      const ends = await Promise.all([1, 2].map(() => run("study", file, "--out", parts)));
      for (const { code, err } of ends) assert.equal(code, 0, err);
      const lines = ends.map(({ err }) =>
        err.matchAll(/^(\S+): .*(?:AUROC|views)/gm).map(([, id]) => id!).toArray()
      );
      assert.ok(lines.every(({ length }) => length > 0), "each has computed something");
      assert.deepEqual([...finished, ...lines.flat()].sort(), cells.map(({ id }) => id).sort());
      assert.deepEqual(lasting(parts), lasting(whole));
      assert.deepEqual(readdirSync(join(parts, "locks")), []);
    });

    await t.step(
      "weights that are gone are computed again for the cells that need them",
      async () => {
        const folder = await StudyFolder.open(parts, config);
        const before = lasting(parts);
        const kept = readFileSync(join(parts, "cells/simclr-other.pretrain.s1.json"), "utf8");
        rmSync(join(parts, "pretrain"), { recursive: true });
        rmSync(join(parts, "cells/simclr-other.linear.100.s1.json"));
        const { status } = await runStudy(config, folder, cells, silent, forever);
        assert.equal(status, "done");
        assert.deepEqual(lasting(parts), before);
        assert.equal(
          readFileSync(join(parts, "cells/simclr-other.pretrain.s1.json"), "utf8"),
          kept,
        );
        assert.deepEqual(readdirSync(join(parts, "pretrain")), ["simclr-other.s1"]);
        folder.close();
      },
    );

    await t.step("mistakes are one line and exit code 2", async () => {
      const other = join(dir, "other.jsonc");
      writeFileSync(other, JSON.stringify({ ...tiny, imageSize: 48 }));
      for (
        const [args, message] of [
          [[other, "--out", parts], /study\.json: imageSize is not that of this study/],
          [[], /give a configuration, or --data phantom/],
          [[file, "--data", "phantom"], /give a configuration, or --data phantom/],
          [[file, "--shard", "3/2", "--out", parts], /^error: --shard 3\/2: expected I\/N/],
          [[join(dir, "none.jsonc")], /none\.jsonc: no such file/],
        ] as const
      ) {
        const { code, err } = await run("study", ...args);
        assert.equal(code, 2, err);
        assert.match(err, message);
        assert.equal(err.trimEnd().split("\n").length, 1);
      }
    });
  });
});

Deno.test("a cell that fails leaves the others alone", async () => {
  await withFiles({}, async (dir) => {
    const config = checkStudy({
      ...tiny,
      pretraining: {
        views: 192,
        methods: { simclr: { on: ["other"], flags: { batch: 8, temperature: 1e-40 } } },
      },
      protocols: ["knn"],
      seeds: [0],
    }, "s");
    const folder = await StudyFolder.open(join(dir, "out"), config);
    const lines: string[] = [];
    const reporter = { ...silent, line: (text: string) => lines.push(text) };
    const signal = new AbortController().signal;
    const { status, left } = await runStudy(config, folder, planStudy(config), reporter, signal);
    assert.deepEqual([status, left], [
      "failed",
      ["simclr-other.pretrain.s0", "simclr-other.knn.100.s0"],
    ]);
    assert.match(lines.join("\n"), /^simclr-other\.pretrain\.s0: the loss is NaN at step 1/);
    assert.ok(folder.has("scratch.knn.100.s0"));
    folder.close();
  });
});
