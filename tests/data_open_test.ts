import assert from "node:assert/strict";
import { join } from "node:path";
import { decodeAll, loadImages, loadParts } from "../src/data/decode/decode_all.ts";
import { indicesOf, pretrainingIndices, usage } from "../src/data/dataset.ts";
import { openDataset } from "../src/data/open.ts";
import { formatSpec, parseSpec } from "../src/data/spec.ts";
import { UserError } from "../src/errors.ts";
import { flatPng, withFiles } from "./support/files.ts";

/** Ten images of seven patients in all four splits; image i is flat gray of level 10 i. */
const csv = `filename,labels,split,patient_id,view,source,license
0.png,Edema,train,p0,PA,A,CC0
1.png,Edema|Mass,train,p0,AP,A,CC0
2.png,None,train,p1,PA,A,CC BY 4.0
3.png,,train,p1,L,A,
4.png,Mass,val,p2,PA,B,CC0
5.png,None,val,p3,AP,B,cc0
6.png,Edema,test,p4,PA,B,
7.png,None,test,p4,AP Supine,B,
8.png,,unlabeled,p5,PA,B,CC BY 4.0
9.png,,unlabeled,p6,,B,
`;
const images = Object.fromEntries(
  Array.from({ length: 10 }, (_, i) => [`${i}.png`, flatPng(10 * i)]),
);
const files = { "x.csv": csv, ...images };

const ids = (dataset: { examples: readonly { id: string }[] }) =>
  dataset.examples.map(({ id }) => id.replace(".png", "")).join("");

Deno.test("openDataset() applies split, views, licenses, labels and limit", async () => {
  await withFiles(files, async (dir) => {
    const open = (keys: string) => openDataset(`csv:x.csv${keys}`, { baseDir: dir });
    assert.equal(ids(await open("")), "0123456789");
    assert.equal(ids(await open("?split=valid,test")), "4567");
    assert.equal(ids(await open("?views=ap,ap supine")), "157");
    assert.equal(ids(await open("?split=train&views=PA")), "02");
    assert.equal(ids(await open("?licenses=cc0")), "0145");
    assert.equal(ids(await open("?licenses=CC0,CC by 4.0&views=PA")), "0248");
    assert.equal(ids(await open("?limit=5")), "02468");
    assert.equal(ids(await open("?limit=3&split=test,unlabeled")), "678");
    assert.equal(ids(await open("?limit=99")), "0123456789");

    const chosen = await open("?labels=None,Edema&limit=4");
    assert.deepEqual(chosen.labels, ["None", "Edema"]);
    assert.deepEqual(chosen.examples.map(({ labels }) => [...labels]), [
      [0, 1],
      [1, 0],
      [1, 0],
      [1, 0],
    ]);
    assert.deepEqual([...await chosen.load(1, 1, 1)], [20]);
    const path = join(dir, "x.csv");
    assert.equal(chosen.spec, formatSpec(parseSpec(`csv:${path}?limit=4&labels=None,Edema`)));
  });
});

Deno.test("openDataset() opens its own canonical spec again", async () => {
  await withFiles(files, async (dir) => {
    const spec = "csv:x.csv?split=train&limit=3+csv:x.csv?split=val+phantom:n=12?labels=device";
    const first = await openDataset(spec, { baseDir: dir });
    const second = await openDataset(first.spec);
    assert.equal(second.spec, first.spec);
    assert.deepEqual(second.labels, first.labels);
    assert.deepEqual(second.examples, first.examples);
  });
});

Deno.test("openDataset() joins by the union of labels, NaN where a source lacks one", async () => {
  const other = "filename,labels,split,patient_id\n0.png,Fracture,train,p0\n1.png,Mass,test,p2\n";
  await withFiles(
    { ...files, "o/x.csv": other, "o/0.png": flatPng(1), "o/1.png": flatPng(2) },
    async (dir) => {
      const joined = await openDataset("csv:x.csv?split=train,val&limit=3+csv:o/x.csv", {
        baseDir: dir,
      });
      assert.deepEqual(joined.labels, ["Edema", "Mass", "None", "Fracture"]);
      assert.deepEqual(joined.examples.map(({ labels }) => [...labels]), [
        [1, 0, 0, NaN],
        [0, 0, 1, NaN],
        [0, 1, 0, NaN],
        [NaN, 0, NaN, 1],
        [NaN, 1, NaN, 0],
      ]);
      // p0 and p2 of the second file are other people than p0 and p2 of the first.
      assert.equal(new Set(joined.examples.map(({ patient }) => patient)).size, 5);
      assert.deepEqual([...await joined.load(1, 1, 1)], [20]);
      assert.deepEqual([...await joined.load(4, 1, 1)], [2]);
      assert.deepEqual(usage(joined), {
        images: 5,
        patients: 5,
        splits: { train: 3, val: 1, test: 1, unlabeled: 0 },
      });
    },
  );
});

Deno.test("openDataset() keeps the patients of one file together when it is named twice", async () => {
  await withFiles(files, async (dir) => {
    const spec = "csv:x.csv?views=PA+csv:x.csv?views=AP";
    const { examples } = await openDataset(spec, { baseDir: dir });
    assert.equal(ids({ examples }), "0246815");
    assert.equal(examples[0]!.patient, examples[5]!.patient);
  });
});

Deno.test("openDataset() refuses an image that one source trains on and another tests on", async () => {
  await withFiles(files, async (dir) => {
    await assert.rejects(
      openDataset("csv:x.csv?split=test+folder:.", { baseDir: dir }),
      (error) =>
        error instanceof UserError && /6\.png" is in both test and unl/.test(error.message),
    );
    await openDataset("csv:x.csv?split=train+folder:.", { baseDir: dir });
  });
});

Deno.test("openDataset() names what a selection does not find", async () => {
  await withFiles(files, async (dir) => {
    const mistakes: [string, RegExp][] = [
      ["csv:x.csv?labels=edema", /no label "edema"; there are Edema, Mass, None/],
      ["csv:x.csv?views=lateral", /no image has the view "lateral"; there are AP, AP Sup.*, L, PA/],
      ["csv:x.csv?licenses=CC", /no image has the license "CC"; there are CC BY 4\.0, CC0, cc0/],
      ["csv:x.csv?split=unlabeled&views=AP", /no image is left/],
      ["csv:y.csv", /y\.csv: no such file/],
      ["folder:nowhere", /nowhere: no such/],
      ["phantom:n=0", /n=0/],
    ];
    for (const [spec, message] of mistakes) {
      await assert.rejects(
        openDataset(spec, { baseDir: dir }),
        (error) => error instanceof UserError && message.test(error.message),
        spec,
      );
    }
  });
});

Deno.test("pretrainingIndices() takes train and unlabeled, never val or test", async () => {
  await withFiles(files, async (dir) => {
    const dataset = await openDataset("csv:x.csv", { baseDir: dir });
    assert.deepEqual(pretrainingIndices(dataset), [0, 1, 2, 3, 8, 9]);
    assert.deepEqual(indicesOf(dataset, ["val", "test"]), [4, 5, 6, 7]);
    assert.deepEqual(usage(dataset, pretrainingIndices(dataset)), {
      images: 6,
      patients: 4,
      splits: { train: 4, val: 0, test: 0, unlabeled: 2 },
    });
  });
});

Deno.test("decodeAll() gives the same pixels in workers as without", async () => {
  await withFiles(files, async (dir) => {
    const dataset = await openDataset("csv:x.csv+phantom:n=3", { baseDir: dir });
    // Enough images for three workers, out of order and repeated, files and phantoms mixed.
    const indices = Array.from({ length: 450 }, (_, i) => (i * 7) % 13);
    const progress: number[] = [];
    const onProgress = (done: number, total: number) => {
      assert.equal(total, 450);
      progress.push(done);
    };
    for (const channels of [1, 3] as const) {
      const options = { size: 5, channels };
      const here = await decodeAll(dataset, indices, { ...options, workers: 1 });
      progress.length = 0;
      const there = await decodeAll(dataset, indices, { ...options, workers: 3, onProgress });
      assert.deepEqual(there, here);
      assert.equal(here.pixels.length, 450 * 25 * channels);
      for (const [i, index] of indices.entries()) {
        if (index < 10) assert.equal(here.pixels[i * 25 * channels], 10 * index);
      }
      assert.deepEqual(progress, progress.toSorted((a, b) => a - b));
      assert.equal(progress.at(-1), 450);
    }
  });
});

Deno.test({
  name: "decodeAll() draws phantoms without any permission",
  permissions: "none",
  async fn() {
    const dataset = await openDataset("phantom:n=260");
    const indices = [...dataset.examples.keys()];
    const { pixels } = await decodeAll(dataset, indices, { size: 4, channels: 1, workers: 2 });
    assert.deepEqual(pixels.subarray(-16), await dataset.load(259, 4, 1));
  },
});

Deno.test("loadParts() gives what loadImages() gives of each part, and refuses one without images", async () => {
  await withFiles({ ...files, "7.png": flatPng(0).slice(0, 40) }, async (dir) => {
    const dataset = await openDataset("csv:x.csv", { baseDir: dir });
    const options = { size: 4, channels: 1, skipBad: true } as const;
    const parts = { train: [5, 7, 1], val: [], test: [2, 3] };
    const loaded = await loadParts(dataset, parts, options);
    for (const name of ["train", "val", "test"] as const) {
      assert.deepEqual(loaded[name], await loadImages(dataset, parts[name], options));
    }
    assert.deepEqual(loaded.train.indices, [5, 1]);
    await assert.rejects(
      loadParts(dataset, { train: [1], val: [7] }, options),
      (error) => error instanceof UserError && /none of 1 images can be read/.test(error.message),
    );
  });
});

Deno.test("decodeAll() names the file that a worker cannot read", async () => {
  await withFiles({ ...files, "7.png": flatPng(0).slice(0, 40) }, async (dir) => {
    const dataset = await openDataset("csv:x.csv", { baseDir: dir });
    const indices = Array.from({ length: 300 }, (_, i) => i === 200 ? 7 : i % 7);
    for (const workers of [1, 2]) {
      await assert.rejects(
        decodeAll(dataset, indices, { size: 4, channels: 1, workers }),
        (error) =>
          error instanceof UserError && error.message.startsWith(join(dir, "7.png")) &&
          /truncated/.test(error.message),
      );
    }
  });
});
