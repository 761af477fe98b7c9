import assert from "node:assert/strict";
import { join } from "node:path";
import { zipSync } from "npm:fflate@0.8.2";
import { usage } from "../src/data/dataset.ts";
import { decodeAll } from "../src/data/decode/decode_all.ts";
import { openDataset } from "../src/data/open.ts";
import { UserError } from "../src/errors.ts";
import { encodeNpy, type NpyArray, type NpyData } from "../src/formats/npy.ts";
import { withFiles } from "./support/files.ts";
import { concat, pixelsOf } from "./support/planes.ts";

/** Images `first`, … as an array [count, side, side] or [count, side, side, 3]. */
const images = (first: number, count: number, channels: 1 | 3 = 1, side = 28): NpyArray => ({
  shape: [count, side, side, ...channels === 3 ? [3] : []],
  data: concat(Array.from({ length: count }, (_, i) => pixelsOf(first + i, side, channels))),
});

const labels = (rows: readonly number[][], data: NpyData = Uint8Array.from(rows.flat())) => ({
  shape: [rows.length, rows[0]!.length],
  data,
});

const npz = (arrays: Record<string, NpyArray>) =>
  zipSync(Object.fromEntries(
    Object.entries(arrays).map(([name, array]) => [`${name}.npy`, encodeNpy(array)]),
  ));

const grayOf = (i: number) => pixelsOf(i, 28, 1);

/** Three images for training, one to validate, two to test, of two classes. */
const gray = {
  train_images: images(0, 3),
  train_labels: labels([[1], [0], [1]]),
  val_images: images(3, 1),
  val_labels: labels([[0]]),
  test_images: images(4, 2),
  test_labels: labels([[1], [1]]),
};

const open = async (name: string, content: string | Uint8Array) => {
  let opened: Awaited<ReturnType<typeof openDataset>>;
  await withFiles({ [name]: content }, async (dir) => {
    opened = await openDataset(`medmnist:${name}`, { baseDir: dir });
  });
  return opened!;
};

Deno.test("medmnist: gray images and named classes in their splits", async () => {
  const dataset = await open("pneumoniamnist.npz", npz(gray));
  assert.deepEqual(dataset.labels, ["normal", "pneumonia"]);
  assert.deepEqual(
    dataset.examples.map(({ id, split, labels }) => [id, split, ...labels]),
    [
      ["train/0", "train", 0, 1],
      ["train/1", "train", 1, 0],
      ["train/2", "train", 0, 1],
      ["val/0", "val", 1, 0],
      ["test/0", "test", 0, 1],
      ["test/1", "test", 0, 1],
    ],
  );
  const order = [5, 0, 3, 1];
  const { pixels } = await decodeAll(dataset, order, { size: 28, channels: 1 });
  assert.deepEqual(pixels, concat(order.map((i) => pixelsOf(i, 28, 1))));
  const rgb = await dataset.load(2, 28, 3);
  assert.deepEqual(
    rgb,
    Uint8Array.from({ length: 3 * 784 }, (_, i) => grayOf(2)[(i - i % 3) / 3]!),
  );
});

Deno.test("medmnist: what a caller does with an image leaves the next reading as it was", async () => {
  const dataset = await open("x.npz", npz(gray));
  (await dataset.load(1, 28, 1)).fill(0);
  assert.deepEqual(await dataset.load(1, 28, 1), grayOf(1));
});

Deno.test("medmnist: colour images of any of the four sides", async () => {
  for (const side of [28, 64, 128, 224]) {
    const arrays = {
      ...gray,
      train_images: images(0, 3, 3, side),
      val_images: images(3, 1, 3, side),
      test_images: images(4, 2, 3, side),
    };
    const dataset = await open(`dermamnist_${side}.npz`, npz(arrays));
    assert.deepEqual(dataset.labels.slice(3), [
      ...["dermatofibroma", "melanoma", "melanocytic nevi", "vascular lesions"],
    ]);
    for (const i of [2, 5]) assert.deepEqual(await dataset.load(i, side, 3), pixelsOf(i, side, 3));
  }
});

Deno.test("medmnist: several columns are findings, those of ChestMNIST by name", async () => {
  const rows = [[0, 4], [], [13], [0, 1, 2], [12], [7]].map((found) =>
    Array.from({ length: 14 }, (_, i) => Number(found.includes(i)))
  );
  const arrays = {
    ...gray,
    train_labels: labels(rows.slice(0, 3)),
    val_labels: labels(rows.slice(3, 4)),
    test_labels: labels(rows.slice(4)),
  };
  const chest = await open("ChestMNIST_64.npz", npz(arrays));
  assert.equal(chest.labels.length, 14);
  assert.deepEqual([0, 7, 13].map((i) => chest.labels[i]), [
    ...["atelectasis", "pneumothorax", "hernia"],
  ]);
  assert.deepEqual(chest.examples.map(({ labels }) => [...labels]), rows);
  const other = await open("x.npz", npz(arrays));
  assert.deepEqual(other.labels, Array.from({ length: 14 }, (_, i) => `label_${i}`));
});

Deno.test("medmnist: classes without known names are numbered, whatever holds the labels", async () => {
  const rows = [[1], [0], [4]];
  for (const Data of [Int8Array, Uint16Array, Int16Array, Uint32Array, Int32Array]) {
    const train_labels = labels(rows, Data.from(rows.flat()));
    const dataset = await open("retinamnist.npz", npz({ ...gray, train_labels }));
    assert.deepEqual(dataset.labels, ["class_0", "class_1", "class_2", "class_3", "class_4"]);
    assert.deepEqual([...dataset.examples[2]!.labels], [0, 0, 0, 0, 1]);
  }
  for (const Data of [BigInt64Array, BigUint64Array]) {
    const train_labels = labels(rows, Data.from(rows.flat().map(BigInt)));
    const dataset = await open("x.npz", npz({ ...gray, train_labels }));
    assert.deepEqual(usage(dataset).splits, { train: 3, val: 1, test: 2, unlabeled: 0 });
    assert.deepEqual([...dataset.examples[2]!.labels], [0, 0, 0, 0, 1]);
  }
});

Deno.test("medmnist: mistakes name the file, the array and what is wrong in it", async () => {
  const { test_images: _, ...incomplete } = gray;
  const bytes = npz(gray);
  const huge = encodeNpy(images(0, 1));
  const shape = new TextEncoder().encode("99999, 99999)");
  const header = new TextDecoder("latin1").decode(huge);
  huge.set(shape, header.indexOf("1, 28, 28)"));
  const cases: [content: string | Uint8Array | Record<string, NpyArray>, message: RegExp][] = [
    ["", /x\.npz: is no \.npz file/],
    ["PNG", /x\.npz: is no \.npz file/],
    [bytes.subarray(0, bytes.length - 30), /x\.npz: cut short: the zip has no directory/],
    [incomplete as Record<string, NpyArray>, /x\.npz: there is no test_images\.npy in it/],
    [
      { ...gray, val_images: images(3, 2) },
      /val_labels\.npy: Uint8 \[1, 1\], expected int.* \[2, l/,
    ],
    [
      { ...gray, train_images: images(0, 3, 1, 32) },
      /train_images\.npy: Uint8 \[3, 32, 32\], expected .* side 28, 64, 128, 224/,
    ],
    [
      { ...gray, train_images: { shape: [3, 28, 28], data: new Float32Array(3 * 784) } },
      /train_images\.npy: Float32 \[3, 28, 28\], expected Uint8/,
    ],
    [
      { ...gray, train_images: { shape: [3, 28, 28, 28], data: new Uint8Array(3 * 28 ** 3) } },
      /train_images\.npy: Uint8 \[3, 28, 28, 28\], expected/,
    ],
    [
      { ...gray, train_labels: { shape: [3, 1], data: new Float32Array(3) } },
      /train_labels\.npy: Float32 \[3, 1\], expected integers \[3, labels\]/,
    ],
    [
      { ...gray, train_labels: { shape: [3], data: new Uint8Array(3) } },
      /train_labels\.npy: Uint8 \[3\], expected/,
    ],
    [
      { ...gray, test_labels: labels([[1], [-1]], Int8Array.of(1, -1)) },
      /test_labels\.npy: label -1 of image 1, expected 0 to 255/,
    ],
    [
      { ...gray, test_labels: labels([[1], [256]], Int16Array.of(1, 256)) },
      /test_labels\.npy: label 256 of image 1, expected 0 to 255/,
    ],
    [
      { ...gray, val_labels: labels([[0, 1]]) },
      /val_labels\.npy: 2 columns, but 1 in train_labels\.npy/,
    ],
    [
      {
        ...gray,
        train_labels: labels([[0, 1], [1, 2], [0, 0]]),
        val_labels: labels([[0, 1]]),
        test_labels: labels([[0, 1], [1, 1]]),
      },
      /train_labels\.npy: label 2 of image 1, expected 0 to 1/,
    ],
    [zipSync({ "train_images.npy": huge }), /train_images\.npy: 784 bytes .* need/],
  ];
  for (const [content, message] of cases) {
    const file = typeof content === "string" || content instanceof Uint8Array;
    await assert.rejects(
      open("x.npz", file ? content : npz(content)),
      (error: Error) => error instanceof UserError && message.test(error.message),
      String(message),
    );
  }
  await assert.rejects(
    open("pneumoniamnist.npz", npz({ ...gray, val_labels: labels([[2]]) })),
    /^UserError: .*pneumoniamnist\.npz: val_labels\.npy: label 2 of image 0, expected 0 to 1$/,
  );
});

Deno.test("medmnist: refuses an archive that would take too much memory, unread", async () => {
  const bytes = npz(gray);
  // The directory at the end says how much each member unpacks to.
  const view = new DataView(bytes.buffer);
  const directory = view.getUint32(bytes.length - 22 + 16, true);
  view.setUint32(directory + 24, 0xf0000000, true);
  await assert.rejects(
    open("x.npz", bytes),
    /^UserError: .*x\.npz: the zip unpacks to more than 2147483648 bytes$/,
  );
  await withFiles({ "x.npz": bytes }, async (dir) => {
    await Deno.truncate(join(dir, "x.npz"), 2 ** 31 + 1);
    const opened = openDataset("medmnist:x.npz", { baseDir: dir });
    await assert.rejects(opened, /^UserError: .*x\.npz: 2147483649 bytes, but only 2147483648 are/);
  });
});
