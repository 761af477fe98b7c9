import assert from "node:assert/strict";
import { existsSync, readdirSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { decodeCheckpoint } from "../src/checkpoint.ts";
import { decodeAll } from "../src/data/decode/decode_all.ts";
import { ImageSet } from "../src/data/image_set.ts";
import { openDataset } from "../src/data/open.ts";
import { encodePng } from "../src/data/decode/png.ts";
import { embed, imageNet, loadEncoder, readEncoderFile } from "../src/encoder.ts";
import { decodeNpy } from "../src/formats/npy.ts";
import { decodeSafetensors, encodeSafetensors } from "../src/formats/safetensors.ts";
import { grayNormalization } from "../src/nn/convert.ts";
import { Random } from "../src/random.ts";
import { openRun } from "../src/run_folder.ts";
import { withFiles } from "./support/files.ts";
import { gpu } from "./support/op.ts";
import { run, spawn, succeed } from "./support/task.ts";

/** A file of a run folder. */
const bytes = (dir: string, file: string) => readFileSync(join(dir, file));
const losses = (dir: string) =>
  openRun(dir).readMetrics().filter(({ knn }) => !knn).map(({ step, loss, lr, std }) => ({
    step,
    loss,
    lr,
    std,
  }));

const size = ["--image-size", "32", "--width", "4", "--stem", "3x3", "--batch", "8"];
const small = ["--data", "phantom:n=64", ...size];

Deno.test("the command line trains, stops, resumes, embeds and inspects", async (t) => {
  await withFiles({}, async (dir) => {
    const whole = join(dir, "whole");
    const epochs = ["--epochs", "6", "--knn-every", "3"];

    await t.step("train writes a run folder", async () => {
      const out = await succeed("train", ...small, ...epochs, "--json", "--out", whole);
      const events = out.trimEnd().split("\n").map((line) => JSON.parse(line));
      assert.deepEqual(
        [...new Set(events.map(({ event }) => event))].sort(),
        ["knn", "message", "progress", "stage"],
      );
      assert.deepEqual(readdirSync(whole).sort(), [
        "checkpoints",
        "config.json",
        "encoder.safetensors",
        "metrics.jsonl",
        "report.html",
      ]);

      const config = openRun(whole).readConfig();
      assert.equal(config.data, "phantom:n=64,seed=0");
      assert.deepEqual(config.used, {
        images: 41,
        patients: 17,
        splits: { train: 41, val: 0, test: 0, unlabeled: 0 },
      });
      assert.equal(config.width, 4);
      assert.equal(config.lr, 3e-3 * Math.sqrt(8 / 128));
      assert.equal(config.deno, Deno.version.deno);

      const rows = openRun(whole).readMetrics();
      const steps = rows.filter(({ loss }) => loss !== undefined);
      assert.deepEqual(steps.map(({ step }) => step), Array.from({ length: 30 }, (_, i) => i + 1));
      assert.ok(steps.every(({ loss }) => loss! > 0 && loss! < 10));
      assert.deepEqual(rows.filter(({ knn }) => knn).map(({ epoch }) => epoch), [3, 6]);

      const { tensors } = decodeSafetensors(bytes(whole, "encoder.safetensors"), "encoder");
      assert.deepEqual(tensors.get("conv1.weight")!.shape, [4, 1, 3, 3]);
      assert.equal(tensors.get("layer4.1.bn2.num_batches_tracked")!.data[0], 30n);
      assert.deepEqual([...tensors.keys()].filter((name) => /^(fc|projection)/.test(name)), []);
      assert.equal(
        decodeCheckpoint(bytes(whole, "checkpoints/last.safetensors"), "last").step,
        30,
      );
      assert.match(bytes(whole, "report.html").toString(), /<h1>whole<\/h1>[^]*<svg/);
    });

    await t.step(
      "Ctrl-C saves and exits 130; --resume goes on to the same bits, of older runs too",
      async () => {
        const stopped = join(dir, "stopped");
        const child = spawn("train", [...small, ...epochs, "--json", "--out", stopped]);
        let text = "";
        for await (const chunk of child.stdout.pipeThrough(new TextDecoderStream())) {
          // The run introduces itself, then compiles kernels for its first step: time enough to stop it.
          if (!text.includes('"event":"message"') && (text + chunk).includes('"event":"message"')) {
            child.kill("SIGINT");
          }
          text += chunk;
        }
        assert.equal((await child.status).code, 130, text);
        await child.stderr.cancel();
        const { step } = decodeCheckpoint(bytes(stopped, "checkpoints/last.safetensors"), "last");
        assert.ok(step < 30, `stopped at step ${step}`);
        assert.equal(losses(stopped).length, step);
        assert.match(text, new RegExp(`stopped at step ${step}.*--resume ${stopped}`));
        assert.ok(existsSync(join(stopped, "report.html")));

        // As a version before these flags would have left it.
        const { accumulate: _a, recompute: _r, precision: _p, ...older } = openRun(stopped)
          .readConfig();
        writeFileSync(join(stopped, "config.json"), JSON.stringify(older));
        await succeed("train", "--resume", stopped);
        for (const file of ["encoder.safetensors", "checkpoints/last.safetensors"]) {
          assert.ok(bytes(stopped, file).equals(bytes(whole, file)), `${file} differs`);
        }
        assert.deepEqual(losses(stopped), losses(whole));
      },
    );

    await t.step("--resume of a finished run says so; --epochs goes on with it", async () => {
      const { code, err } = await run("train", "--resume", whole);
      assert.equal(code, 0);
      assert.match(err, /is done: step 30 of 6 epochs; a higher --epochs goes on\n$/);
      await succeed("train", "--resume", whole, "--epochs", "7");
      assert.equal(losses(whole).at(-1)!.step, 35);
    });

    await t.step(
      "--steps counts steps in place of epochs, and the rate falls over them",
      async () => {
        const part = join(dir, "part");
        await succeed("train", ...small, "--steps", "7", "--knn-every", "0", "--out", part);
        const { epochs } = openRun(part).readConfig();
        assert.equal(Number(epochs) * 5, 7);
        assert.deepEqual(losses(part).map(({ step }) => step), [1, 2, 3, 4, 5, 6, 7]);
        assert.equal(openRun(part).readMetrics().at(-1)!.epoch, 1.4);
        assert.ok(losses(part).at(-1)!.lr! < losses(part).at(-2)!.lr!);
        assert.equal(decodeCheckpoint(bytes(part, "checkpoints/last.safetensors"), "last").step, 7);
      },
    );

    await t.step("--init starts from the encoder, in its architecture", async () => {
      const next = join(dir, "next");
      const args = [
        "--data",
        "phantom:n=64",
        "--image-size",
        "32",
        "--batch",
        "8",
        "--epochs",
        "1",
      ];
      await succeed("train", ...args, "--init", whole, "--out", next);
      const config = openRun(next).readConfig();
      assert.deepEqual([config.width, config.stem, config.seed], [4, "3x3", 0]);
      assert.deepEqual(config.normalization, openRun(whole).readConfig().normalization);
      const { tensors } = decodeSafetensors(bytes(next, "encoder.safetensors"), "encoder");
      // 35 batches before, 5 more here.
      assert.equal(tensors.get("bn1.num_batches_tracked")!.data[0], 40n);
    });

    await t.step("--init repeats gray for colour weights, or folds their stem", async () => {
      const { arrays } = readEncoderFile(join(whole, "encoder.safetensors"));
      const shape = [4, 3, 3, 3];
      const stem = { dtype: "F32", shape, data: new Float32Array(4 * 27).fill(0.1) } as const;
      const colour = join(dir, "colour.safetensors");
      writeFileSync(colour, encodeSafetensors(new Map([...arrays, ["conv1.weight", stem]])));
      const train = async (name: string, ...more: string[]) => {
        const out = join(dir, name);
        const args = ["--image-size", "32", "--batch", "8", "--epochs", "1", "--init", colour];
        const { code, err } = await run(
          "train",
          ...args,
          "--data",
          "phantom:n=24",
          ...more,
          "--out",
          out,
        );
        assert.equal(code, 0, err);
        const { channels, normalization } = openRun(out).readConfig();
        return { channels, normalization, isFolded: err.includes("is folded to one channel") };
      };
      const { normalization } = imageNet;
      assert.deepEqual(await train("repeated"), { channels: 3, normalization, isFolded: false });
      assert.deepEqual(await train("folded", "--channels", "1"), {
        channels: 1,
        normalization: grayNormalization(normalization),
        isFolded: true,
      });
    });

    await t.step("embed writes what the library computes", async () => {
      const file = join(dir, "features.npy");
      const spec = "phantom:n=64";
      await succeed("embed", "--init", whole, "--data", spec, "--out", file, "--batch", "16");
      const { shape, data } = decodeNpy(readFileSync(file), file);
      assert.deepEqual(shape, [64, 32]);
      assert.ok(data.every(Number.isFinite));

      const dataset = await openDataset(spec);
      const { encoder, format } = await loadEncoder(gpu, join(whole, "encoder.safetensors"));
      const indices = [...dataset.examples.keys()];
      const images = await decodeAll(dataset, indices, { size: 32, channels: 1 });
      const { normalization } = format!;
      const set = new ImageSet(gpu, images);
      assert.deepEqual(await embed(encoder, set, indices, { normalization, batch: 16 }), data);

      const rows = readFileSync(join(dir, "features.csv"), "utf8").trimEnd().split("\n");
      assert.equal(rows[0], ["id", "split", ...dataset.labels].join());
      assert.deepEqual(
        rows.slice(1).map((row) => row.split(",").slice(0, 2).join()),
        dataset.examples.map(({ id, split }) => `${id},${split}`),
      );
    });

    await t.step("inspect lists the tensors of the encoder", async () => {
      const file = join(whole, "encoder.safetensors");
      const { tensors, total } = JSON.parse(await succeed("inspect", file, "--json"));
      assert.equal(tensors.length, readEncoderFile(file).arrays.size);
      assert.deepEqual(
        [total.tensors, total.nan, total.bytes],
        [tensors.length, 0, statSync(file).size],
      );
    });

    await t.step("mistakes are one line and exit code 2, and leave no run folder", async () => {
      const file = (name: string, content: string | Uint8Array) => {
        writeFileSync(join(dir, name), content);
        return join(dir, name);
      };
      const encoder = join(whole, "encoder.safetensors");
      const stranger = file("stranger.safetensors", encodeSafetensors(new Map()));
      const text = file("text.safetensors", "no such format");
      const config = file("flags.json", '{ "epochs": "three" }');
      const mistakes: [task: string, args: string[], message: RegExp][] = [
        ["train", ["--data"], /^--data needs a value/],
        ["train", ["--data", "nifti:x"], /nifti/],
        ["train", ["--data", "csv:/no/such.csv"], /^\/no\/such\.csv: no such file$/],
        ["train", ["--data", "phantom:n=8?split=test"], /no image to train on$/],
        ["train", ["--config", config], /flags\.json: epochs: expected an integer/],
        ["train", [...small, "--batch", "42"], /^--batch 42 is more than the 41 images/],
        ["train", [...small, "--out", whole], /^--out .*: the folder is not empty$/],
        ["train", [...small, "--init", "/no/such"], /^\/no\/such: no such file$/],
        ["train", [...small, "--init", text], /text\.safetensors/],
        ["train", [...small, "--init", stranger], /no ResNet-18, 34 or 50/],
        ["train", [...small, "--init", dir], /not a run folder/],
        [
          "train",
          [...small, "--width", "8", "--init", encoder],
          /^--width 8: the width of --init .*encoder\.safetensors is 4$/,
        ],
        [
          "train",
          [...small, "--channels", "3", "--init", encoder],
          /^--channels 3: the channels of --init .*encoder\.safetensors is 1$/,
        ],
        ["train", ["--steps", "3", "--epochs", "2"], /^--steps 3: takes the place of --epochs/],
        ["train", ["--resume", whole, "--lr", "1"], /^--resume .*: --lr cannot be given with it$/],
        ["train", ["--resume", "/no/such"], /^\/no\/such: no such run folder$/],
        ["train", ["--resume", dir], /not a run folder/],
        [
          "train",
          [...small, "--temperature", "1e-40", "--epochs", "1", "--out", join(dir, "nan")],
          /^the loss is NaN at step 1: try a lower --lr \(\S+\) or --clip 1$/,
        ],
        ["embed", ["--init", whole], /^--data is required$/],
        ["embed", ["--data", "phantom", "--out", "x.npy"], /^--init is required$/],
        [
          "embed",
          ["--init", whole, "--data", "phantom:n=8", "--split", "unlabeled", "--out", "x.npy"],
          /no image in --split unlabeled$/,
        ],
        [
          "embed",
          ["--init", whole, "--data", "phantom:n=8", "--out", "/no/such/x.npy"],
          /^\/no\/such\/x\.npy: its folder does not exist$/,
        ],
        ["inspect", [text], /text\.safetensors/],
      ];
      for (const [task, args, message] of mistakes) {
        // With --json, stderr holds the error alone.
        const quiet = task === "train" ? ["--json"] : [];
        const { code, err } = await run(task, ...quiet, ...args);
        const call = `${task} ${args.join(" ")}`;
        const [line, ...rest] = err.split("\n");
        assert.deepEqual(rest, [""], `${call}: ${err}`);
        assert.match(line!, /^error: /, call);
        assert.match(line!.slice("error: ".length), message, call);
        assert.equal(code, 2, call);
      }
      assert.ok(!existsSync(join(dir, "nan")));
    });
  });
});

/** A CSV of 16 train, 4 unlabeled, 6 val and 6 test images; `seeds` say what the pixels of a split are. */
function noiseStudy(seeds: Readonly<Record<string, number>>): Record<string, string | Uint8Array> {
  const counts = { train: 16, unlabeled: 4, val: 6, test: 6 };
  const rows = ["filename,labels,split,patient_id"];
  const files: Record<string, string | Uint8Array> = {};
  for (const [split, count] of Object.entries(counts)) {
    for (let i = 0; i < count; i++) {
      const random = new Random(seeds[split] ?? 0, split, i);
      const pixels = Uint8Array.from({ length: 32 * 32 }, () => random.integer(256));
      files[`${split}-${i}.png`] = encodePng({ width: 32, height: 32, channels: 1, pixels });
      const labels = split === "unlabeled" ? "" : random.integer(2) === 1 ? "bright" : "dark";
      rows.push(`${split}-${i}.png,${labels},${split},${split}-${i}`);
    }
  }
  return { ...files, "study.csv": rows.join("\n") + "\n" };
}

Deno.test("pretraining sees train and unlabeled images, never val or test", async () => {
  const encoder = (seeds: Record<string, number>) =>
    new Promise<{ encoder: Uint8Array; used: unknown }>((resolve, reject) =>
      withFiles(noiseStudy(seeds), async (dir) => {
        const out = join(dir, "run");
        const data = `csv:${join(dir, "study.csv")}`;
        await succeed("train", "--data", data, ...size, "--epochs", "2", "--out", out);
        const { used } = openRun(out).readConfig();
        resolve({ encoder: bytes(out, "encoder.safetensors"), used });
      }).catch(reject)
    );
  const first = await encoder({});
  assert.deepEqual(first.used, {
    images: 20,
    patients: 20,
    splits: { train: 16, val: 0, test: 0, unlabeled: 4 },
  });
  const others = await encoder({ val: 1, test: 1 });
  assert.deepEqual(others.encoder, first.encoder);
  for (const split of ["train", "unlabeled"]) {
    const { encoder: changed } = await encoder({ [split]: 1 });
    assert.notDeepEqual(changed, first.encoder, `the pixels of ${split} matter`);
  }
});
