import assert from "node:assert/strict";
import { existsSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { type ClassifierFormat, loadClassifier } from "../src/classifier.ts";
import { openDataset } from "../src/data/open.ts";
import { decodePng, encodePng } from "../src/data/decode/png.ts";
import { decodeSafetensors, encodeSafetensors } from "../src/formats/safetensors.ts";
import { ModelState } from "../src/nn/model_state.ts";
import { ResNet } from "../src/nn/resnet.ts";
import { Random } from "../src/random.ts";
import { openRun } from "../src/run_folder.ts";
import type { MultiLabelScores, SingleLabelScores } from "../src/scores.ts";
import { withFiles } from "./support/files.ts";
import { gpu } from "./support/op.ts";
import { run, spawn, succeed } from "./support/task.ts";

const small = ["--image-size", "32", "--width", "4", "--stem", "3x3", "--batch", "16"];
const spec = "phantom:n=96";

const formatOf = (dir: string, file = "model.safetensors") =>
  JSON.parse(
    decodeSafetensors(readFileSync(join(dir, file)), file).metadata.wgrad!,
  ) as ClassifierFormat;

Deno.test("the command line fine-tunes, evaluates and predicts", async (t) => {
  await withFiles({}, async (dir) => {
    const scratch = join(dir, "scratch");

    await t.step("finetune writes a run that needs nothing else", async () => {
      const args = ["--init", "none", "--data", spec, ...small, "--epochs", "3", "--pos-weight"];
      const { code, err } = await run("finetune", ...args, "--out", scratch);
      assert.equal(code, 0, err);
      const dataset = await openDataset(spec);
      // The balance of the labels comes first.
      const balance = err.indexOf("positive  negative  missing");
      assert.ok(balance >= 0 && balance < err.indexOf("epoch 1:"), err);
      for (const label of dataset.labels) {
        assert.match(err, new RegExp(`^${label} +\\d+ +\\d+ +0$`, "m"));
      }
      assert.match(
        err,
        /^best by --select auroc: epoch \d: validation macro AUROC [\d.]+.* \(model/m,
      );
      assert.match(err, /^last: epoch 3: /m);
      assert.deepEqual(readdirSync(scratch).sort(), [
        "checkpoints",
        "config.json",
        "encoder.safetensors",
        "last.safetensors",
        "metrics.jsonl",
        "model.safetensors",
        "report.html",
      ]);
      const { tensors } = decodeSafetensors(readFileSync(join(scratch, "model.safetensors")), "m");
      assert.deepEqual(tensors.get("fc.weight")!.shape, [6, 32]);
      assert.deepEqual(tensors.get("fc.bias")!.shape, [6]);
      assert.deepEqual(tensors.get("conv1.weight")!.shape, [4, 1, 3, 3]);
      const format = formatOf(scratch);
      assert.deepEqual(format.labels, dataset.labels);
      assert.deepEqual([format.size, format.kind], [32, "multi-label"]);
      assert.ok(format.thresholds.every((value) => value > 0 && value <= 1));
      assert.equal(formatOf(scratch, "last.safetensors").epoch, 3);

      const rows = openRun(scratch).readMetrics();
      const validated = rows.filter(({ validation }) => validation !== undefined);
      assert.deepEqual(validated.map(({ epoch }) => epoch), [1, 2, 3]);
      const aurocs = validated.map(({ validation }) =>
        (validation as Record<string, number>).auroc!
      );
      assert.equal(format.epoch, 1 + aurocs.indexOf(Math.max(...aurocs)));
      assert.ok(rows.some(({ loss }) => loss! > 0));
      assert.match(readFileSync(join(scratch, "report.html"), "utf8"), /Validation scores[^]*<svg/);
    });

    await t.step("the same seed gives the same file", async () => {
      const again = join(dir, "again");
      const args = ["--init", "none", "--data", spec, ...small, "--epochs", "3", "--pos-weight"];
      await succeed("finetune", ...args, "--out", again);
      assert.ok(
        readFileSync(join(again, "last.safetensors")).equals(
          readFileSync(join(scratch, "last.safetensors")),
        ),
      );
    });

    await t.step("Ctrl-C saves and exits 130; --resume goes on to the same bits", async () => {
      const stopped = join(dir, "stopped");
      const args = ["--init", "none", "--data", spec, ...small, "--epochs", "3", "--pos-weight"];
      const child = spawn("finetune", [...args, "--out", stopped]);
      let text = "";
      for await (const chunk of child.stderr.pipeThrough(new TextDecoderStream())) {
        if (!text.includes("epoch 1:") && (text + chunk).includes("epoch 1:")) child.kill("SIGINT");
        text += chunk;
      }
      assert.equal((await child.status).code, 130, text);
      await child.stdout.cancel();
      assert.match(
        text,
        new RegExp(`^stopped after .*deno task finetune --resume ${stopped}$`, "m"),
      );

      await succeed("finetune", "--resume", stopped);
      for (const file of ["last", "model", "encoder"].map((name) => `${name}.safetensors`)) {
        const [one, other] = [scratch, stopped].map((run) => readFileSync(join(run, file)));
        assert.ok(other!.equals(one!), `${file} differs`);
      }
      const { code, err } = await run("train", "--resume", stopped);
      assert.equal(code, 2);
      assert.match(err, /a run of finetune: deno task finetune --resume/);
    });

    await t.step("--freeze trains the head alone", async () => {
      const probe = join(dir, "probe");
      const args = ["--data", spec, "--freeze", "--epochs", "4", "--lr", "0.01", "--batch", "16"];
      await succeed("finetune", "--init", scratch, ...args, "--out", probe);
      const read = (run: string, file: string) =>
        decodeSafetensors(readFileSync(join(run, file)), file).tensors;
      const [before, after] = [read(scratch, "model.safetensors"), read(probe, "last.safetensors")];
      for (const [name, { data }] of before) {
        if (name.startsWith("fc.")) assert.notDeepEqual(after.get(name)!.data, data, name);
        else assert.deepEqual(after.get(name)!.data, data, name);
      }
      const losses = openRun(probe).readMetrics().flatMap(({ loss }) => loss ?? []);
      assert.ok(losses.at(-1)! < losses[0]!, `${losses}`);
    });

    await t.step(
      "--patience stops early; --label-fraction takes part of the patients",
      async () => {
        const out = join(dir, "early");
        const args = [
          "--lr",
          "1e-12",
          "--patience",
          "2",
          "--label-fraction",
          "0.5",
          "--epochs",
          "9",
        ];
        const { code, err } = await run(
          "finetune",
          "--init",
          scratch,
          "--data",
          spec,
          "--freeze",
          ...args,
          "--out",
          out,
        );
        assert.equal(code, 0, err);
        assert.match(err, /^stopped early after/m);
        assert.equal(formatOf(out, "last.safetensors").epoch, 3);
        assert.equal(formatOf(out).epoch, 1);
        const patients = (run: string) =>
          (openRun(run).readConfig().used as { patients: number }).patients;
        assert.ok(Math.abs(patients(out) - patients(scratch) / 2) <= 1);
      },
    );

    await t.step("eval scores with the thresholds of the run, as text and as JSON", async () => {
      const args = ["--run", scratch, "--resamples", "20"];
      const text = await succeed("eval", ...args);
      assert.match(text, /^.*epoch \d \(best\), test of phantom:n=96,seed=0\n/);
      assert.match(text, /label-wise accuracy .*\n/);
      assert.match(text, /constant predictor/);
      const scores: MultiLabelScores & { split: string } = JSON.parse(
        await succeed("eval", ...args, "--split", "val", "--json"),
      );
      assert.equal(scores.split, "val");
      const format = formatOf(scratch);
      assert.deepEqual(scores.labels.map(({ threshold }) => threshold), format.thresholds);
      // The figures of the validation images are those that the epoch was chosen by.
      const row = openRun(scratch).readMetrics().find(({ validation, epoch }) =>
        validation !== undefined && epoch === format.epoch
      )!;
      const { auroc, map } = row.validation as { auroc: number; map: number };
      assert.ok(Math.abs(scores.overall.auroc.estimate - auroc) < 1e-9);
      assert.ok(Math.abs(scores.overall.averagePrecision.estimate - map) < 1e-9);
    });

    await t.step("predict prints probabilities and writes overlays", async () => {
      const dataset = await openDataset(spec);
      const files = await Promise.all([0, 1].map(async (i) => {
        const file = join(dir, `film ${i}.png`);
        const pixels = await dataset.load(i, 64, 1);
        writeFileSync(file, encodePng({ width: 64, height: 64, channels: 1, pixels }));
        return file;
      }));
      const text = await succeed("predict", "--run", scratch, ...files);
      const lines = text.trimEnd().split("\n");
      assert.equal(lines.length, 3);
      assert.match(lines[0]!, /^image +consolidation/);
      const heat = join(dir, "heat");
      const { predictions } = JSON.parse(
        await succeed("predict", "--run", scratch, ...files, "--json", "--heatmap", heat),
      );
      const { thresholds } = formatOf(scratch);
      for (const [row, { image, labels }] of predictions.entries()) {
        assert.equal(image, files[row]);
        assert.deepEqual(labels.map(({ label }: { label: string }) => label), dataset.labels);
        for (const [i, { probability, predicted, heatmap }] of labels.entries()) {
          assert.ok(lines[row + 1]!.includes(probability.toFixed(3)));
          assert.equal(predicted, probability >= thresholds[i]!);
          const { width, height, channels } = decodePng(readFileSync(heatmap));
          assert.deepEqual([width, height, channels], [256, 256, 3]);
        }
      }
      assert.equal(readdirSync(heat).length, 12);
    });

    await t.step("mistakes are one line and exit code 2, and leave no run folder", async () => {
      const out = join(dir, "mistake");
      const file = (name: string, content: string | Uint8Array) => {
        writeFileSync(join(dir, name), content);
        return join(dir, name);
      };
      const csv = (name: string, ...rows: string[]) =>
        "csv:" + file(name, ["filename,labels,split,patient_id", ...rows].join("\n") + "\n");
      const pixels = new Uint8Array(16 * 16);
      for (const name of ["x.png", "y.png", "z.png"]) {
        file(name, encodePng({ width: 16, height: 16, channels: 1, pixels }));
      }
      const noVal = csv("no-val.csv", "x.png,a,train,1", "z.png,b,train,3", "y.png,b,test,2");
      const oneClass = csv("one-class.csv", "x.png,a,train,1", "z.png,a,train,3", "y.png,a,val,2");
      const text = file("text.txt", "no image");
      const mistakes: [task: string, args: string[], message: RegExp][] = [
        ["finetune", ["--data", spec], /^--init is required$/],
        [
          "finetune",
          ["--resume", scratch, "--lr", "1"],
          /^--resume .*: --lr cannot be given with it$/,
        ],
        ["finetune", ["--init", "/no/such", "--data", spec], /^\/no\/such: no such file$/],
        ["finetune", ["--init", "none", "--data", spec, "--freeze"], /^--freeze: an untrained/],
        [
          "finetune",
          ["--init", "none", "--data", spec, "--loss", "cross-entropy"],
          /one label an image/,
        ],
        [
          "finetune",
          ["--init", "none", "--data", spec, "--loss", "focal", "--pos-weight"],
          /^--pos-weight is of --loss bce, not focal$/,
        ],
        ["finetune", ["--init", "none", "--data", noVal], /no labelled image in the val split/],
        ["finetune", ["--init", "none", "--data", oneClass], /nothing to learn/],
        [
          "finetune",
          ["--init", "none", "--data", spec, ...small, "--lr", "1e30", "--epochs", "1"],
          /^the loss is (NaN|-?Infinity) at step \d+: try a lower --lr \(1e\+30\)$/,
        ],
        ["eval", ["--run", "/no/such"], /^\/no\/such: no such run folder$/],
        [
          "eval",
          ["--run", scratch, "--data", oneClass, "--split", "val"],
          /none of the classifier's labels/,
        ],
        [
          "eval",
          ["--run", scratch, "--data", "phantom:n=8?split=train"],
          /no labelled image in the test/,
        ],
        ["predict", ["--run", scratch], /^predict: IMAGE… is missing/],
        ["predict", ["--run", scratch, text], /text\.txt: neither PNG, JPEG nor DICOM/],
        [
          "predict",
          ["--run", scratch, join(dir, "x.png"), join(dir, "x.png"), "--heatmap", join(dir, "h")],
          /^--heatmap: two overlays would be called x-consolidation\.png/,
        ],
      ];
      for (const [task, args, message] of mistakes) {
        const more = task === "finetune" ? ["--json", "--out", out] : [];
        const { code, err } = await run(task, ...args, ...more);
        const call = `${task} ${args.join(" ")}`;
        const [line, ...rest] = err.split("\n");
        assert.deepEqual(rest, [""], `${call}: ${err}`);
        assert.match(line!, /^error: /, call);
        assert.match(line!.slice("error: ".length), message, call);
        assert.equal(code, 2, call);
        assert.ok(!existsSync(out), call);
      }
    });
  });
});

/** A CSV of noise under exclusive labels: bright, middling or dark, 24 train, 12 val and 12 test images. */
function brightness(): Record<string, string | Uint8Array> {
  const names = ["dark", "middling", "bright"];
  const rows = ["filename,labels,split,patient_id,source"];
  const files: Record<string, string | Uint8Array> = {};
  for (const [split, count] of [["train", 24], ["val", 12], ["test", 12]] as const) {
    for (let i = 0; i < count; i++) {
      const random = new Random(0, split, i);
      const pixels = Uint8Array.from(
        { length: 32 * 32 },
        () => 85 * (i % 3) + random.integer(86),
      );
      files[`${split}-${i}.png`] = encodePng({ width: 32, height: 32, channels: 1, pixels });
      rows.push(
        `${split}-${i}.png,${names[i % 3]},${split},${split}-${i},${i < 6 ? "one" : "two"}`,
      );
    }
  }
  return { ...files, "study.csv": rows.join("\n") + "\n" };
}

Deno.test("exclusive labels are learnt by cross-entropy, from PyTorch-like weights", async () => {
  const encoder = new ResNet({ arch: "resnet18", width: 4, stem: "3x3", channels: 3 });
  const weights = encodeSafetensors(await new ModelState(gpu, encoder, { seed: 7 }).arrays());
  await withFiles({ ...brightness(), "colour.safetensors": weights }, async (dir) => {
    const out = join(dir, "run");
    const { code, err } = await run(
      "finetune",
      "--init",
      join(dir, "colour.safetensors"),
      "--data",
      `csv:${join(dir, "study.csv")}`,
      ...["--image-size", "32", "--batch", "8", "--epochs", "20", "--augment", "none"],
      ...["--lr", "3e-3", "--label-smoothing", "0.1", "--out", out],
    );
    assert.equal(code, 0, err);
    assert.match(err, /cross-entropy, 20 epochs/);
    const { model, format } = await loadClassifier(gpu, join(out, "model.safetensors"));
    assert.deepEqual([format.kind, model.encoder.options.channels], ["single-label", 3]);
    const args = ["--run", out, "--resamples", "20"];
    const scores: SingleLabelScores = JSON.parse(await succeed("eval", ...args, "--json"));
    assert.equal(scores.kind, "single-label");
    assert.equal(scores.confusion.flat().reduce((a, b) => a + b), 12);
    assert.ok(scores.topOne.model.estimate >= 0.75, `top-1 ${scores.topOne.model.estimate}`);
    assert.ok(Math.abs(scores.topOne.constant.estimate - 1 / 3) < 1e-9);
    assert.deepEqual(scores.sources.map(({ source }) => source), ["one", "two"]);
    assert.match(await succeed("eval", ...args), /top-1 accuracy[^]*true \\ predicted/);
    const { predictions } = JSON.parse(
      await succeed("predict", "--run", out, "--json", join(dir, "test-0.png")),
    );
    const { labels } = predictions[0];
    const sum = labels.reduce(
      (a: number, { probability }: { probability: number }) => a + probability,
      0,
    );
    assert.ok(Math.abs(sum - 1) < 1e-9);
    assert.equal(labels.filter(({ predicted }: { predicted: boolean }) => predicted).length, 1);
  });
});
