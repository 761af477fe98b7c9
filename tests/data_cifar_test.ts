import assert from "node:assert/strict";
import { join } from "node:path";
import { usage } from "../src/data/dataset.ts";
import { decodeAll } from "../src/data/decode/decode_all.ts";
import { openDataset } from "../src/data/open.ts";
import { UserError } from "../src/errors.ts";
import { withFiles } from "./support/files.ts";
import { concat, pixelsOf, planesOf } from "./support/planes.ts";

/** Records of images `first`, `first + 1`, …, each behind its bytes of `heads`. */
const records = (first: number, heads: readonly number[][]) =>
  concat(heads.flatMap((head, i) => [Uint8Array.from(head), planesOf(first + i, 32, "rows")]));

/** Five batches of four images and two for testing; the class of image i is i mod 3. */
const cifar10 = {
  "batches.meta.txt": "airplane\nautomobile\nbird\n\n",
  ...Object.fromEntries(
    [0, 1, 2, 3, 4].map((b) => [
      `data_batch_${b + 1}.bin`,
      records(4 * b, [0, 1, 2, 3].map((i) => [(4 * b + i) % 3])),
    ]),
  ),
  "test_batch.bin": records(20, [[2], [0]]),
};

const cifar100 = {
  "fine_label_names.txt": "apple\nbaby\nbear\nbeaver\n",
  "coarse_label_names.txt": "fruit\npeople\nmammals\n",
  "train.bin": records(0, [[0, 0], [2, 3], [2, 2]]),
  "test.bin": records(3, [[1, 1]]),
};

Deno.test("cifar10: images are upright, in colour, and have one class each", async () => {
  await withFiles(cifar10, async (dir) => {
    const dataset = await openDataset("cifar10:.", { baseDir: dir });
    assert.deepEqual(dataset.labels, ["airplane", "automobile", "bird"]);
    assert.deepEqual(
      [0, 7, 19, 20, 21].map((i) => dataset.examples[i]!.id),
      ["data_batch_1/0", "data_batch_2/3", "data_batch_5/3", "test_batch/0", "test_batch/1"],
    );
    const all = await decodeAll(dataset, [...Array(22).keys()], { size: 32, channels: 3 });
    assert.deepEqual(all.pixels, concat(Array.from({ length: 22 }, (_, i) => pixelsOf(i, 32, 3))));
    const classes = dataset.examples.map(({ labels }) => labels.indexOf(1));
    assert.deepEqual(classes, [...Array.from({ length: 20 }, (_, i) => i % 3), 2, 0]);
    for (const { labels } of dataset.examples) {
      assert.equal(labels.reduce((sum, value) => sum + value), 1);
    }
    const { train, val, test } = usage(dataset).splits;
    assert.deepEqual([train + val, test], [20, 2]);
    assert.equal(dataset.notes?.length, 6);
    assert.equal(
      dataset.notes?.[5],
      `${join(dir, "test_batch.bin")}: 2 images, 10000 in the original`,
    );
  });
});

Deno.test("cifar10: about a tenth of the training images validates", async () => {
  const heads = Array.from({ length: 300 }, () => [0]);
  await withFiles({ ...cifar10, "data_batch_1.bin": records(0, heads) }, async (dir) => {
    const { splits } = usage(await openDataset("cifar10:.", { baseDir: dir }));
    assert.ok(splits.val > 15 && splits.val < 55, `${splits.val} of 316`);
  });
});

Deno.test("cifar100: has fine classes, or coarse ones", async () => {
  await withFiles(cifar100, async (dir) => {
    const open = (query: string) => openDataset(`cifar100:.${query}`, { baseDir: dir });
    const namesOf = async (query: string) => {
      const { labels, examples } = await open(query);
      return examples.map((example) => labels[example.labels.indexOf(1)]);
    };
    assert.deepEqual(await namesOf(""), ["apple", "beaver", "bear", "baby"]);
    assert.deepEqual(await namesOf("?classes=fine"), await namesOf(""));
    assert.deepEqual(await namesOf("?classes=coarse"), ["fruit", "mammals", "mammals", "people"]);
    for (const query of ["", "?classes=coarse"]) {
      const dataset = await open(query);
      assert.deepEqual(await dataset.load(2, 32, 3), pixelsOf(2, 32, 3));
      assert.equal(dataset.examples[3]!.split, "test");
    }
  });
});

Deno.test("cifar10:, cifar100: mistakes name the file and what is wrong in it", async () => {
  const refuses = (
    reader: string,
    files: Record<string, string | Uint8Array>,
    message: RegExp,
    query = "",
  ) =>
    withFiles(files, (dir) =>
      assert.rejects(
        openDataset(`${reader}:.${query}`, { baseDir: dir }),
        (error: Error) => error instanceof UserError && message.test(error.message),
        String(message),
      ));
  const batch = records(0, [[0], [1]]);
  const with3 = (content: string | Uint8Array) => ({ ...cifar10, "data_batch_3.bin": content });
  await refuses("cifar10", with3(batch.subarray(1)), /data_batch_3\.bin: 6145 bytes are no whole/);
  await refuses("cifar10", with3(""), /data_batch_3\.bin: is empty/);
  await refuses(
    "cifar10",
    with3(records(0, [[0], [3]])),
    /_3\.bin: label 3 of image 1, expected 0 to 2/,
  );
  await refuses("cifar10", cifar100, /batches\.meta\.txt: no such file/);
  await refuses("cifar100", cifar10, /fine_label_names\.txt: no such file/);
  await refuses("cifar100", cifar100, /classes=rough is none of fine, coarse/, "?classes=rough");
  const coarse3 = { ...cifar100, "test.bin": records(3, [[3, 1]]) };
  await refuses("cifar100", coarse3, /test\.bin: label 3 of image 0/, "?classes=coarse");
  for (const [reader, files] of Object.entries({ cifar10, cifar100 })) {
    for (const name of Object.keys(files)) {
      if (name.startsWith("coarse")) continue;
      const others = Object.fromEntries(Object.entries(files).filter(([other]) => other !== name));
      await refuses(reader, others, new RegExp(`${name}: no such file`));
    }
  }
});
