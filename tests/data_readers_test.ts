import assert from "node:assert/strict";
import { join } from "node:path";
import { readCsv } from "../src/data/readers/csv.ts";
import { isLabelled } from "../src/data/dataset.ts";
import { readFolder } from "../src/data/readers/folder.ts";
import { UserError } from "../src/errors.ts";
import { flatPng, withFiles } from "./support/files.ts";

const image = flatPng(9);

Deno.test("readCsv() reads every column, with any header case and spaces", async () => {
  const csv = "\uFEFF Source ,FILENAME,Labels,Patient_ID,View,Split,note,license\r\n" +
    'A,img/1.png,Edema | Effusion,p1,PA,train,"two\r\nlines",CC0 \r\n' +
    ",img/2.png,,p1,,,,\r\n" +
    "B,img/3.png,No Finding,,AP,Validation,,\r\n" +
    "B,4.png,Effusion,p2,AP,test,,CC BY 4.0\r\n";
  const files = { "img/1.png": image, "img/2.png": image, "img/3.png": image, "4.png": image };
  await withFiles({ "x.csv": csv, ...files }, (dir) => {
    const { labels, examples } = readCsv(join(dir, "x.csv"));
    assert.deepEqual(labels, ["Edema", "Effusion", "No Finding"]);
    assert.deepEqual(examples, [
      {
        id: "img/1.png",
        file: join(dir, "img/1.png"),
        split: "train",
        patient: "p1",
        view: "PA",
        source: "A",
        license: "CC0",
        labels: Float32Array.of(1, 1, 0),
      },
      {
        id: "img/2.png",
        file: join(dir, "img/2.png"),
        split: "unlabeled",
        patient: "p1",
        view: null,
        source: null,
        license: null,
        labels: Float32Array.of(NaN, NaN, NaN),
      },
      {
        id: "img/3.png",
        file: join(dir, "img/3.png"),
        split: "val",
        patient: null,
        view: "AP",
        source: "B",
        license: null,
        labels: Float32Array.of(0, 0, 1),
      },
      {
        id: "4.png",
        file: join(dir, "4.png"),
        split: "test",
        patient: "p2",
        view: "AP",
        source: "B",
        license: "CC BY 4.0",
        labels: Float32Array.of(0, 1, 0),
      },
    ]);
    assert.deepEqual(examples.map(isLabelled), [true, false, true, true]);
  });
});

Deno.test("readCsv() places patients by a hash when there is no split column", async () => {
  const rows = Array.from({ length: 600 }, (_, i) => `${i}.png,x,p${i % 300}`);
  const files = Object.fromEntries(rows.map((row) => [row.split(",")[0]!, ""]));
  const head = "filename,labels,patient_id\n";
  await withFiles({ "x.csv": head + rows.join("\n"), ...files }, async (dir) => {
    const path = join(dir, "x.csv");
    const { examples } = readCsv(path);
    for (let i = 0; i < 300; i++) assert.equal(examples[i]!.split, examples[i + 300]!.split);
    const share = (split: string) => examples.filter((e) => e.split === split).length / 600;
    assert.ok(Math.abs(share("train") - 0.7) < 0.08, `train ${share("train")}`);
    assert.ok(Math.abs(share("val") - 0.1) < 0.05, `val ${share("val")}`);
    assert.ok(Math.abs(share("test") - 0.2) < 0.07, `test ${share("test")}`);
    // The place of a patient does not depend on who else is in the file.
    await Deno.writeTextFile(path, head + rows.slice(100, 150).reverse().join("\n"));
    const placed = new Map(examples.map((example) => [example.patient, example.split]));
    for (const example of (readCsv(path)).examples) {
      assert.equal(example.split, placed.get(example.patient));
    }
  });
});

Deno.test("readCsv() names file, line and column of what is wrong", async () => {
  const mistakes: [string, RegExp][] = [
    ["filename,labels\n", /x\.csv: no rows below a header$/],
    ["", /x\.csv: no rows/],
    ["file,labels\n1.png,a", /x\.csv:1: no column "filename" \(there are file,labels\)/],
    ["\nfilename,label\n1.png,a", /x\.csv:2: no column "labels"/],
    ["filename,labels,Labels\n1.png,a,b", /x\.csv:1: two columns are named "labels"/],
    ["filename,labels\n1.png,a\n2.png", /x\.csv:3: 1 fields, but the header has 2/],
    ["filename,labels\n1.png,a\n3.png,b", /x\.csv:3: column 1, "filename": no image .*3\.png/],
    ["labels,filename\na,\n", /x\.csv:2: column 2, "filename": no file name/],
    ["filename,labels\n1.png,a\n./1.png,b", /x\.csv:3: .* \.\/1\.png is also on line 2/],
    ["filename,labels\nsub,a", /x\.csv:2: .* no image .*sub/],
    [
      'filename,labels,split\n1.png,"a\n",train\n2.png,b,trian',
      /x\.csv:4: column 3, "split": "trian" is none of train, val, test, unlabeled/,
    ],
    ["filename,labels,split\n1.png,a,", /x\.csv:2: column 3, "split": "" is none/],
    [
      "filename,labels,split,patient_id\n1.png,a,train,p 7\n2.png,a,test,p 7",
      /x\.csv: patient "p 7" is in both train and test/,
    ],
    [
      "filename,labels,split,patient_id\n1.png,a,val,7\n2.png,,unlabeled,7",
      /x\.csv: patient "7" is in both val and unlabeled/,
    ],
  ];
  for (const [csv, message] of mistakes) {
    const files = { "x.csv": csv, "1.png": image, "2.png": image, "sub/y.png": image };
    await withFiles(files, (dir) => {
      assert.throws(
        () => readCsv(join(dir, "x.csv")),
        (error) => error instanceof UserError && message.test(error.message),
        csv,
      );
    });
  }
  await withFiles({ "x.csv": Uint8Array.of(0xff, 0xfe, 0x41) }, (dir) => {
    assert.throws(() => readCsv(join(dir, "x.csv")), /x\.csv: is not UTF-8 text/);
    assert.throws(() => readCsv(join(dir, "y.csv")), /y\.csv: no such file/);
    assert.throws(() => readCsv(dir), UserError);
    Deno.writeTextFileSync(join(dir, "x.csv"), "filename,labels\nloop.png,a\n");
    Deno.symlinkSync(join(dir, "loop.png"), join(dir, "loop.png"));
    assert.throws(() => readCsv(join(dir, "x.csv")), /^UserError: .*loop\.png: a circle of links$/);
  });
});

/** id, split and the label of each image of a folder. */
async function summary(dir: string) {
  const { labels, examples } = await readFolder(dir);
  return examples.map(({ id, split, labels: values }) => [
    id,
    split,
    isLabelled({ labels: values } as never) ? labels[values.indexOf(1)] : null,
  ]);
}

Deno.test("readFolder() reads split folders with classes", async () => {
  const files = {
    "train/cat/b.png": image,
    "train/cat/a.JPG": image,
    "train/dog/deep/c.jpeg": image,
    "valid/dog/d.png": image,
    "Test/cat/e.png": image,
    "unlabeled/f.png": image,
    "train/dog/notes.txt": "no image",
    ".hidden/cat/g.png": image,
    "__MACOSX/train/cat/._a.png": image,
    "train/dog/._c.png": image,
  };
  await withFiles(files, async (dir) => {
    assert.deepEqual(await summary(dir), [
      ["Test/cat/e.png", "test", "cat"],
      ["train/cat/a.JPG", "train", "cat"],
      ["train/cat/b.png", "train", "cat"],
      ["train/dog/deep/c.jpeg", "train", "dog"],
      ["unlabeled/f.png", "unlabeled", null],
      ["valid/dog/d.png", "val", "dog"],
    ]);
    const { labels, examples } = await readFolder(dir);
    assert.deepEqual(labels, ["cat", "dog"]);
    assert.deepEqual(examples[5]!.labels, Float32Array.of(0, 1));
    assert.deepEqual(examples[4]!.labels, Float32Array.of(NaN, NaN));
    assert.equal(examples[0]!.file, join(dir, "Test/cat/e.png"));
  });
});

Deno.test("readFolder() splits class folders by a hash of each image", async () => {
  const files = Object.fromEntries(
    Array.from({ length: 400 }, (_, i) => [`${i % 2 ? "a" : "b"}/${i}.png`, image]),
  );
  await withFiles({ ...files, "loose.png": image }, async (dir) => {
    const { examples } = await readFolder(dir);
    const count = (split: string) => examples.filter((e) => e.split === split).length;
    assert.ok(count("train") > 240 && count("val") > 15 && count("test") > 50);
    assert.equal(count("unlabeled"), 1);
    assert.equal(examples.find((example) => example.id === "loose.png")!.split, "unlabeled");
  });
});

Deno.test("readFolder() reads a flat pile as unlabelled", async () => {
  await withFiles({ "2.png": image, "10.png": image }, async (dir) => {
    assert.deepEqual(await summary(dir), [
      ["10.png", "unlabeled", null],
      ["2.png", "unlabeled", null],
    ]);
    assert.deepEqual((await readFolder(dir)).labels, []);
  });
});

Deno.test("readFolder() follows links, but not in circles", async () => {
  await withFiles({ "real/x.png": image, "data/cat/y.png": image }, async (dir) => {
    await Deno.symlink(join(dir, "real"), join(dir, "data", "dog"));
    await Deno.symlink(join(dir, "data"), join(dir, "data", "cat", "loop"));
    const { labels, examples } = await readFolder(join(dir, "data"));
    assert.deepEqual(labels, ["cat", "dog"]);
    assert.deepEqual(examples.map(({ id }) => id), ["cat/y.png", "dog/x.png"]);
  });
});

Deno.test("readFolder() refuses what it cannot make sense of", async () => {
  await withFiles({ "train/a/1.png": image, "cats/2.png": image, "x.txt": "" }, async (dir) => {
    const rejects = (path: string, message: RegExp) =>
      assert.rejects(
        readFolder(path),
        (error) => error instanceof UserError && message.test(error.message),
      );
    await rejects(dir, /split folders \(train\) beside others \(cats\)/);
    await rejects(join(dir, "nothing"), /nothing: no such file or folder/);
    await rejects(join(dir, "x.txt"), /x\.txt: is no folder/);
    await Deno.symlink(join(dir, "nothing"), join(dir, "cats", "3.png"));
    await rejects(join(dir, "cats"), /3\.png: .* a link to nothing/);
    await Deno.symlink(join(dir, "train", "a", "2.png"), join(dir, "train", "a", "3.png"));
    await Deno.symlink(join(dir, "train", "a", "3.png"), join(dir, "train", "a", "2.png"));
    await rejects(join(dir, "train"), /[23]\.png: a circle of links/);
    await Deno.mkdir(join(dir, "empty"));
    await rejects(join(dir, "empty"), /no \.png, .* file/);
  });
});
