import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { encodePng } from "../src/data/decode/png.ts";
import { openDataset } from "../src/data/open.ts";
import { decodeNpy } from "../src/formats/npy.ts";
import { openRun } from "../src/run_folder.ts";
import { withFiles } from "./support/files.ts";
import { run, succeed } from "./support/task.ts";

/** 24 phantoms with one label, of which those at `bad` are no images, and a CSV of them. */
async function phantoms(bad: readonly number[]): Promise<Record<string, string | Uint8Array>> {
  const { examples, load } = await openDataset("phantom:n=24");
  const files: Record<string, string | Uint8Array> = {};
  const rows = ["filename,labels,split,patient_id"];
  for (const [i, { split, patient }] of examples.entries()) {
    const pixels = await load(i, 16, 1);
    files[`${i}.png`] = bad.includes(i)
      ? "no image"
      : encodePng({ width: 16, height: 16, channels: 1, pixels });
    rows.push(`${i}.png,${i % 2 ? "odd" : "even"},${split},${patient}`);
  }
  return { ...files, "x.csv": rows.join("\n") };
}

const size = ["--image-size", "16", "--width", "2", "--stem", "3x3", "--batch", "4"];

Deno.test("--skip-bad leaves bad images out of every command, which else stop at them", async (t) => {
  const { examples } = await openDataset("phantom:n=24");
  const inSplit = (split: string) =>
    examples.keys().filter((i) => examples[i]!.split === split).toArray();
  const [train, val, test] = ["train", "val", "test"].map(inSplit) as [
    number[],
    number[],
    number[],
  ];
  const bad = [train[1]!, train[6]!, val[0]!, test[0]!];
  await withFiles(await phantoms(bad), async (dir) => {
    const data = ["--data", `csv:${join(dir, "x.csv")}`, "--no-cache"];
    const skip = [...data, "--skip-bad"];
    const [pretrained, classifier] = [join(dir, "pretrained"), join(dir, "classifier")];

    await t.step("train", async () => {
      const args = [...size, "--epochs", "1", "--out", pretrained];
      const { code, err } = await run("train", ...args, ...data);
      assert.equal(code, 2);
      assert.match(err, /\d+\.png: neither PNG, JPEG nor DICOM/);
      const told = await run("train", ...args, ...skip);
      assert.equal(told.code, 0, told.err);
      assert.match(
        told.err,
        /left out 3 of \d+ images, which cannot be read:\n {2}.*\.png: neither/,
      );
      const listed = readFileSync(join(pretrained, "skipped.txt"), "utf8").trimEnd().split("\n");
      assert.deepEqual(
        listed.map((line) => line.split(": ")[0]),
        [train[1], train[6], val[0]].map((i) => join(dir, `${i}.png`)),
      );
      const { used, skipBad } = openRun(pretrained).readConfig();
      assert.equal((used as { images: number }).images, train.length - 2);
      assert.equal(skipBad, true);
      await succeed("train", "--resume", pretrained, "--epochs", "2", "--no-cache");
    });

    await t.step("finetune, eval and probe", async () => {
      await succeed(
        "finetune",
        ...[
          "--init",
          pretrained,
          ...skip,
          "--epochs",
          "1",
          "--select",
          "loss",
          "--out",
          classifier,
        ],
      );
      const config = openRun(classifier).readConfig();
      assert.equal((config.used as { images: number }).images, train.length - 2);
      assert.equal(config.validation, val.length - 1);
      assert.equal((await run("eval", "--run", classifier, "--no-cache")).code, 2);
      const scored = await run("eval", "--run", classifier, "--no-cache", "--skip-bad", "--json");
      assert.equal(scored.code, 0, scored.err);
      assert.match(scored.err, new RegExp(`left out 1 of ${test.length} images`));
      assert.equal(JSON.parse(scored.out).images, test.length - 1);
      await succeed("probe", "--init", pretrained, ...skip, "--probe", "knn", "--resamples", "10");
    });

    await t.step("embed writes a row for each image that is left, in order", async () => {
      const out = join(dir, "features.npy");
      await succeed("embed", "--init", pretrained, ...skip, "--out", out);
      const left = examples.keys().filter((i) => !bad.includes(i)).toArray();
      assert.deepEqual(decodeNpy(readFileSync(out)).shape[0], left.length);
      const ids = readFileSync(join(dir, "features.csv"), "utf8").trimEnd().split("\n").slice(1);
      assert.deepEqual(ids.map((line) => line.split(",")[0]), left.map((i) => `${i}.png`));
    });

    await t.step("predict", async () => {
      const files = [train[0], train[1], test[1]].map((i) => join(dir, `${i}.png`));
      const args = ["--run", classifier, "--no-cache", ...files];
      assert.equal((await run("predict", ...args)).code, 2);
      const { out, err } = await run("predict", ...args, "--skip-bad", "--json");
      assert.match(err, /left out 1 of 3 images/);
      const { predictions } = JSON.parse(out) as { predictions: { image: string }[] };
      assert.deepEqual(predictions.map(({ image }) => image), [files[0], files[2]]);
    });
  });
});
