import assert from "node:assert/strict";
import type { Dataset, Example } from "../src/data/dataset.ts";
import { openDataset } from "../src/data/open.ts";
import { subset } from "../src/data/operations.ts";
import { pixelSizeOf } from "../src/data/decode/pixel_size.ts";
import { encodePng } from "../src/data/decode/png.ts";
import { summarize } from "../src/data/summary.ts";
import { describe } from "../src/data/summary_text.ts";
import { UserError } from "../src/errors.ts";
import { writeDicomImage } from "./support/dicom.ts";
import { flatPng, withFiles } from "./support/files.ts";

type Row = Partial<Omit<Example, "labels">> & { readonly labels: readonly number[] };

function study(labels: readonly string[], rows: readonly Row[]): Dataset {
  const examples = rows.map((row, i): Example => ({
    id: `${i}.png`,
    split: "train",
    patient: null,
    source: null,
    view: null,
    license: null,
    file: null,
    ...row,
    labels: Float32Array.from(row.labels),
  }));
  return { spec: "a study", labels, examples, load: () => Promise.reject(new Error("no pixels")) };
}

const small = study(["Edema", "Mass"], [
  { patient: "p0", view: "PA", license: "CC0", labels: [1, 0] },
  { patient: "p0", view: "AP", license: "CC0", labels: [1, 1] },
  { patient: "p3", view: "PA", labels: [0, 1] },
  { patient: "p1", split: "unlabeled", labels: [NaN, NaN] },
  { split: "test", view: "PA", labels: [1, NaN] },
]);

/** The summary but for what a test is not about. */
async function part<K extends keyof Awaited<ReturnType<typeof summarize>>>(
  dataset: Dataset,
  ...keys: K[]
) {
  const summary = await summarize(dataset);
  return keys.map((key) => summary[key]);
}

Deno.test("summarize() counts images, patients and labels by split", async () => {
  const { splits, images, patients, pretraining, imagesPerPatient } = await summarize(small);
  assert.deepEqual(splits, {
    train: { images: 3, patients: 2, labelled: 3, positives: [2, 2] },
    val: { images: 0, patients: 0, labelled: 0, positives: [0, 0] },
    test: { images: 1, patients: 0, labelled: 1, positives: [1, 0] },
    unlabeled: { images: 1, patients: 1, labelled: 0, positives: [0, 0] },
  });
  assert.deepEqual([images, patients, pretraining], [5, 3, 4]);
  assert.deepEqual(imagesPerPatient, { median: 1, max: 2 });
  assert.deepEqual(await part(study([], [{ labels: [] }]), "imagesPerPatient"), [null]);
});

Deno.test("summarize() counts labels that hold together, and values of properties", async () => {
  const summary = await summarize(small);
  assert.deepEqual(summary.together, [[3, 1], [1, 2]]);
  assert.deepEqual(summary.views, [
    { name: "PA", images: 3 },
    { name: null, images: 1 },
    { name: "AP", images: 1 },
  ]);
  assert.deepEqual(summary.licenses, [{ name: null, images: 3 }, { name: "CC0", images: 2 }]);
  assert.deepEqual(summary.sources, [{ name: null, images: 5 }]);
});

Deno.test("summarize() measures images as they are stored", async () => {
  const png = (width: number, height: number) =>
    encodePng({ width, height, channels: 1, pixels: new Uint8Array(width * height) });
  const files = {
    "a.png": png(10, 40),
    "b.png": png(30, 20),
    "c.png": png(30, 20),
    "d.png": png(50, 5),
    "e.png": new Uint8Array([1, 2, 3]),
  };
  await withFiles(files, async (dir) => {
    const dataset = await openDataset(`folder:${dir}+phantom:n=3`);
    const sizes = {
      min: { width: 10, height: 5 },
      median: { width: 30, height: 20 },
      max: { width: 50, height: 40 },
      distinct: 3,
    };
    // The broken file and the phantom have no size.
    assert.deepEqual(await part(dataset, "sizes"), [sizes]);
    const one = await part(subset(dataset, [2]), "sizes");
    const same = { width: 30, height: 20 };
    assert.deepEqual(one, [{ min: same, median: same, max: same, distinct: 1 }]);
    assert.deepEqual(await part(await openDataset("phantom:n=3"), "sizes"), [null]);
  });
});

Deno.test("pixelSizeOf() reads the header of a PNG, JPEG or DICOM, and names a file without one", async () => {
  // SOI, a comment of 70 000 bytes (two segments), SOF0 of 7 rows and 5 columns, SOS.
  const comment = [0xff, 0xfe, 0x88, 0xba, ...new Uint8Array(0x88ba - 2)];
  const frame = [0xff, 0xc0, 0, 11, 8, 0, 7, 0, 5, 1, 1, 0x11, 0];
  const scan = [0xff, 0xda, 0, 8, 1, 1, 0, 0, 63, 0];
  const near = Uint8Array.from([0xff, 0xd8, ...frame, ...scan]);
  const files = {
    "a.png": flatPng(0, 6).slice(0, 40),
    "near.jpg": near,
    "far.jpg": Uint8Array.from([0xff, 0xd8, ...comment, ...comment, ...frame, ...scan]),
    "none.jpg": near.slice(0, 12),
    "a.dcm": writeDicomImage({ width: 3, height: 2, words: [0, 1, 2, 3, 4, 5] }),
    "text.png": "not a picture",
  };
  await withFiles(files, async (dir) => {
    assert.deepEqual(await pixelSizeOf(`${dir}/a.png`), { width: 6, height: 6 });
    assert.deepEqual(await pixelSizeOf(`${dir}/a.dcm`), { width: 3, height: 2 });
    for (const name of ["near", "far"]) {
      const { width, height } = await pixelSizeOf(`${dir}/${name}.jpg`);
      assert.deepEqual([width, height], [5, 7]);
    }
    for (
      const [name, message] of [
        ["none.jpg", /none\.jpg: the JPEG is truncated/],
        ["text.png", /text\.png: neither PNG, JPEG nor DICOM/],
        ["x.png", /x\.png: no such file/],
      ] as const
    ) {
      await assert.rejects(
        pixelSizeOf(`${dir}/${name}`),
        (error) => error instanceof UserError && message.test(error.message),
      );
    }
  });
});

Deno.test("summarize() warns of patients and copies on two sides, and of labels a split lacks", async () => {
  const dataset = study(["a", "b", "c"], [
    { patient: "p0", labels: [1, 0, 0] },
    { patient: "p0", split: "unlabeled", labels: [NaN, NaN, NaN] },
    { patient: "p1", split: "unlabeled", labels: [NaN, NaN, NaN] },
    { patient: "p1", split: "test", labels: [1, 1, NaN] },
    { patient: "p2", split: "val", labels: [1, 0, 0] },
    { patient: "p2", split: "val", labels: [0, 1, 1] },
  ]);
  const groups = [[0, 1], [1, 2, 5], [4, 5], [0, 3]];
  const { warnings, duplicates } = await summarize(dataset, {
    duplicates: groups,
    bad: [1, 2].map((index) => ({ index, reason: `${index}.png: no such file` })),
  });
  assert.deepEqual(warnings, [
    "2 images cannot be read, such as 1.png: no such file",
    "1 patient on two sides of the split, such as 2.png (unlabeled), 3.png (test)",
    "2 groups of duplicates on two sides of the split, such as 1.png (unlabeled), 5.png (val)",
    "no image of train holds b, c",
    "no image of test holds c",
  ]);
  assert.deepEqual(duplicates![3], [{ id: "0.png", split: "train" }, {
    id: "3.png",
    split: "test",
  }]);
  assert.deepEqual(await part(subset(dataset, [0, 1]), "warnings", "duplicates"), [
    ["no image of train holds b, c"],
    null,
  ]);
});

Deno.test("describe() writes tables, properties and warnings", async () => {
  assert.deepEqual(
    describe(await summarize(small, { duplicates: [[0, 2]], bad: [] })).split("\n"),
    [
      "a study",
      "5 images, 3 known patients; pretraining sees 4 (train and unlabeled)",
      "",
      "          train  val  test  unlabeled",
      "images        3    0     1          1",
      "patients      2    0     0          1",
      "labelled      3    0     1          0",
      "  Edema       2    0     1          0",
      "  Mass        2    0     0          0",
      "",
      "together   1  2",
      "  1 Edema  3",
      "  2 Mass   1  2",
      "",
      "per patient  median 1, at most 2",
      "views        PA 3, unknown 1, AP 1",
      "licences     unknown 3, CC0 2",
      "duplicates   2 images in 1 group",
      "             0.png (train), 2.png (train)",
      "",
      "warning: no image of test holds Mass",
    ],
  );
});

Deno.test("describe() leaves out what is not known, and lists pairs where their table is too wide", async () => {
  const plain = describe(
    await summarize(study(["a", "b"], [{ labels: [1, 0] }, { labels: [0, 1] }])),
  );
  assert.equal(plain.split("\n").length, 9);

  const labels = Array.from({ length: 30 }, (_, i) => `finding ${i}`);
  const rows = Array.from({ length: 9 }, (_, row) => ({
    id: `${"long/".repeat(20)}${row}.png`,
    view: `view ${row}`,
    labels: labels.map((_, k) => Number(k <= row)),
  }));
  const text = describe(
    await summarize(study(labels, rows), { duplicates: [[0, 1, 2, 3], [4, 5]], bad: [] }),
  );
  const lines = text.split("\n");
  assert.ok(lines.includes("  finding 0, finding 1       8"));
  assert.ok(lines.includes("  and 26 pairs less often"));
  assert.ok(lines.includes(
    "warning: no image of train holds " +
      "finding 9, finding 10, finding 11, finding 12, finding 13 and 16 more",
  ));
  assert.ok(
    lines.includes(
      "views        view 0 1, view 1 1, view 2 1, view 3 1, view 4 1, view 5 1, view 6 1 and 2 more",
    ),
  );
  assert.match(
    text,
    /duplicates {3}6 images in 2 groups\n {13}….*0\.png \(train\), ….* and 2 more/,
  );
  for (const line of lines) {
    if (!line.startsWith("warning")) assert.ok(line.length <= 100, line);
  }
});
