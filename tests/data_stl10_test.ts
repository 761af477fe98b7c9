import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { type Dataset, isLabelled, usage } from "../src/data/dataset.ts";
import { decodeAll } from "../src/data/decode/decode_all.ts";
import { openDataset } from "../src/data/open.ts";
import { square } from "../src/data/decode/decode.ts";
import { summarize } from "../src/data/summary.ts";
import { describe } from "../src/data/summary_text.ts";
import { UserError } from "../src/errors.ts";
import { withFiles } from "./support/files.ts";
import { concat, pixelsOf, planesOf } from "./support/planes.ts";

const SIDE = 96;

/** Images `first`, …, `first + count − 1`. */
const images = (first: number, count: number) =>
  concat(Array.from({ length: count }, (_, i) => planesOf(first + i, SIDE, "columns")));

/** Forty images for training and three for testing, of three classes in turns. */
const files = {
  "class_names.txt": "airplane\r\nbird\r\ncar\r\n",
  "train_X.bin": images(0, 40),
  "train_y.bin": Uint8Array.from({ length: 40 }, (_, i) => 1 + i % 3),
  "test_X.bin": images(100, 3),
  "test_y.bin": Uint8Array.of(3, 1, 2),
};

const placesOf = ({ examples }: Dataset) => examples.map(({ id, split }) => `${id} ${split}`);

Deno.test("stl10: images are upright, in colour, and have one class each", async () => {
  await withFiles({ ...files, "unlabeled_X.bin": images(200, 2) }, async (dir) => {
    const dataset = await openDataset("stl10:.", { baseDir: dir });
    assert.deepEqual(dataset.labels, ["airplane", "bird", "car"]);
    const ids = dataset.examples.map(({ id }) => id);
    assert.deepEqual(ids.slice(38), [
      ...["train/38", "train/39", "test/0", "test/1", "test/2", "unlabeled/0", "unlabeled/1"],
    ]);
    const numbers = [...Array(40).keys(), 100, 101, 102, 200, 201];
    const all = await decodeAll(dataset, [...ids.keys()], { size: SIDE, channels: 3 });
    assert.deepEqual(all.pixels, concat(numbers.map((i) => pixelsOf(i, SIDE, 3))));

    assert.deepEqual(
      dataset.examples.slice(38).map(({ labels }) => [...labels]),
      [[0, 0, 1], [1, 0, 0], [0, 0, 1], [1, 0, 0], [0, 1, 0], [NaN, NaN, NaN], [NaN, NaN, NaN]],
    );
    assert.equal(dataset.examples.filter(isLabelled).length, 43);
  });
});

Deno.test("stl10: images shrink like any other, and turn gray by Rec. 601", async () => {
  await withFiles(files, async (dir) => {
    const dataset = await openDataset("stl10:.", { baseDir: dir });
    const picture = (channels: 3) => ({
      width: SIDE,
      height: SIDE,
      channels,
      pixels: pixelsOf(7, SIDE, 3),
    });
    for (const channels of [1, 3] as const) {
      assert.deepEqual(await dataset.load(7, 33, channels), square(picture(3), 33, channels));
    }
    const [r, g, b] = pixelsOf(7, SIDE, 3);
    const luma = Math.round(0.299 * r! + 0.587 * g! + 0.114 * b!);
    assert.equal((await dataset.load(7, SIDE, 1))[0], luma);
  });
});

Deno.test("stl10: the same tenth of the training images validates, however many there are", async () => {
  await withFiles(files, async (dir) => {
    const long = await openDataset("stl10:.", { baseDir: dir });
    const { train, val, test } = usage(long).splits;
    assert.equal(train + val, 40);
    assert.equal(test, 3);
    assert.ok(val >= 1 && val <= 10, `${val} of 40`);
    await Deno.truncate(join(dir, "train_X.bin"), 25 * 3 * SIDE * SIDE);
    await Deno.truncate(join(dir, "train_y.bin"), 25);
    const short = await openDataset("stl10:.", { baseDir: dir });
    assert.deepEqual(placesOf(short).slice(0, 25), placesOf(long).slice(0, 25));
  });
});

Deno.test("stl10: a fold trains, and of the others only those that validate are left", async () => {
  const folds = Array.from({ length: 10 }, (_, k) => `${k} ${k + 10} ${k + 20} 4999 \n`).join("");
  await withFiles({ ...files, "fold_indices.txt": folds }, async (dir) => {
    const whole = await openDataset("stl10:.", { baseDir: dir });
    const validating = whole.examples.filter(({ split }) => split === "val").map(({ id }) => id);
    for (const k of [0, 9]) {
      const dataset = await openDataset(`stl10:.?fold=${k}`, { baseDir: dir });
      const ids = (split: string) =>
        dataset.examples.filter((example) => example.split === split).map(({ id }) => id);
      assert.deepEqual(ids("train"), [k, k + 10, k + 20].map((i) => `train/${i}`));
      assert.deepEqual(ids("val"), validating.filter((id) => !ids("train").includes(id)));
      assert.equal(ids("test").length, 3);
      const index = dataset.examples.findIndex(({ id }) => id === `train/${k + 20}`);
      assert.deepEqual(await dataset.load(index, SIDE, 3), pixelsOf(k + 20, SIDE, 3));
      assert.match(dataset.spec, new RegExp(`\\?fold=${k}$`));
    }
  });
});

Deno.test("stl10: notes tell where the counts are not the original's", async () => {
  await withFiles(files, async (dir) => {
    const notes = [
      `${join(dir, "train_X.bin")}: 40 images, 5000 in the original`,
      `${join(dir, "test_X.bin")}: 3 images, 8000 in the original`,
    ];
    const dataset = await openDataset("stl10:.?split=test&limit=2", { baseDir: dir });
    assert.deepEqual(dataset.notes, notes);
    assert.deepEqual(describe(await summarize(dataset)).split("\n").slice(2, 4), notes);
    const joined = await openDataset("stl10:.?split=train+stl10:.?split=test", { baseDir: dir });
    assert.deepEqual(joined.notes, notes, "each once");
  });
});

Deno.test("stl10: mistakes name the file and what is wrong in it", async () => {
  const X = files["train_X.bin"];
  const cases: [changes: Record<string, string | Uint8Array>, query: string, message: RegExp][] = [
    [{ "train_X.bin": X.subarray(0, -1) }, "", /train_X\.bin: 1105919 bytes are no whole number/],
    [{ "train_X.bin": "" }, "", /train_X\.bin: is empty/],
    [{ "unlabeled_X.bin": "abc" }, "", /unlabeled_X\.bin: 3 bytes are no whole number/],
    [{ "test_y.bin": Uint8Array.of(1) }, "", /test_y\.bin: 1 labels, but .*test_X\.bin holds 3 im/],
    [
      { "test_y.bin": Uint8Array.of(1, 0, 1) },
      "",
      /test_y\.bin: label 0 of image 1, expected 1 to 3/,
    ],
    [
      { "test_y.bin": Uint8Array.of(1, 1, 4) },
      "",
      /test_y\.bin: label 4 of image 2, expected 1 to 3/,
    ],
    [{ "class_names.txt": "\n" }, "", /class_names\.txt: no names in it/],
    [{ "class_names.txt": "a\nb\na" }, "", /class_names\.txt: "a" is there twice/],
    [{}, "?fold=1", /fold_indices\.txt: no such file/],
    [{ "fold_indices.txt": "1 2\n" }, "?fold=1", /fold_indices\.txt: no line 2, which is fold 1/],
    [{ "fold_indices.txt": "1 5000" }, "?fold=0", /fold_indices\.txt:1: "5000" is no whole number/],
    [{ "fold_indices.txt": "1 -1" }, "?fold=0", /fold_indices\.txt:1: "-1" is no whole number/],
    [{ "fold_indices.txt": "1" }, "?fold=10", /fold=10 is no whole number from 0 to 9/],
  ];
  for (const [changes, query, message] of cases) {
    await withFiles({ ...files, ...changes }, async (dir) => {
      await assert.rejects(
        openDataset(`stl10:.${query}`, { baseDir: dir }),
        (error: Error) => error instanceof UserError && message.test(error.message),
        String(message),
      );
    });
  }
  for (const name of Object.keys(files)) {
    const { [name as keyof typeof files]: _, ...others } = files;
    await withFiles(others, async (dir) => {
      const missing = new RegExp(`^UserError: .*${name}: no such file`);
      await assert.rejects(openDataset("stl10:.", { baseDir: dir }), missing);
    });
  }
});

const original = fileURLToPath(new URL("../../shared/data/stl10_binary", import.meta.url));

Deno.test({
  name: `stl10: reads photos of the original, if they are in ${original}`,
  ignore: !existsSync(original),
  async fn() {
    const { labels, examples, load } = await openDataset(`stl10:${original}`);
    assert.deepEqual([labels.length, labels[0]], [10, "airplane"]);
    for (const label of labels.keys()) {
      const count = examples.filter((example) => example.labels[label] === 1).length;
      assert.ok(count > examples.length / 15 && count < examples.length / 6, `${count}`);
    }
    // Neighbours in a photo are alike down as well as across; mixed up axes or planes are not.
    const pixels = await load(0, SIDE, 3);
    const difference = (step: number) => {
      let sum = 0;
      for (let i = step; i < pixels.length; i++) sum += Math.abs(pixels[i]! - pixels[i - step]!);
      return sum / (pixels.length - step);
    };
    assert.ok(difference(3) < difference(3 * 17) && difference(3 * SIDE) < difference(48 * SIDE));
  },
});
