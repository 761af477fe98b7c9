/**
 * `cifar10:DIR` and `cifar100:DIR`: CIFAR in its binary versions
 * (https://www.cs.toronto.edu/~kriz/cifar.html), color pictures of 32×32:
 *
 *     cifar10:   DIR/data_batch_1.bin … data_batch_5.bin    10 000 images for training each
 *                DIR/test_batch.bin                         10 000 for testing
 *                DIR/batches.meta.txt                       a name on each line
 *     cifar100:  DIR/train.bin, DIR/test.bin                50 000 and 10 000 images
 *                DIR/fine_label_names.txt, DIR/coarse_label_names.txt
 *
 * An image is its class, one byte from 0 (in CIFAR-100 two: the coarse one, then the fine one), and
 * 3 072 bytes of pixels: a plane of red, green and blue, each one row after the other. Any number of
 * images is read; a note tells where it is not the original's. The images stay in their files.
 *
 * `classes=fine`, which is the default, or `classes=coarse` chooses the labels of cifar100: a hundred
 * classes, or the twenty they belong to. About a tenth of the training images, placed by a hash of
 * their number, is `val`.
 */

import { join } from "node:path";
import { UserError } from "../../errors.ts";
import { type Archive, type Block, countNotes, idOf, oneHot, readNames } from "./blocks.ts";
import { fromPlanes } from "../decode/picture.ts";
import { RecordFile } from "./records.ts";
import { validates } from "../splits.ts";

const SIDE = 32;
const IMAGE_BYTES = 3 * SIDE * SIDE;

/** A file of images: its name without `.bin`, and how many the original has. */
interface Part {
  readonly name: string;
  readonly split: "train" | "test";
  readonly original: number;
}

/** A collection. */
interface Layout {
  readonly names: string;
  readonly parts: readonly Part[];
  /** Bytes before the pixels of an image, and which of them is its class. */
  readonly head: number;
  readonly classAt: number;
}

const CIFAR10: Layout = {
  names: "batches.meta.txt",
  parts: [
    ...[1, 2, 3, 4, 5].map((i): Part => (
      { name: `data_batch_${i}`, split: "train", original: 10_000 }
    )),
    { name: "test_batch", split: "test", original: 10_000 },
  ],
  head: 1,
  classAt: 0,
};

const CIFAR100: Readonly<Record<string, Layout>> = Object.fromEntries(
  ["coarse", "fine"].map((level, classAt) => [level, {
    names: `${level}_label_names.txt`,
    parts: [
      { name: "train", split: "train", original: 50_000 },
      { name: "test", split: "test", original: 10_000 },
    ],
    head: 2,
    classAt,
  }]),
);

/**
 * Reads the class names and all labels of CIFAR-10.
 *
 * @throws UserError naming the file that is missing, cut short or holds a label without a name
 */
export function readCifar10(dir: string): Promise<Archive> {
  return read(dir, CIFAR10);
}

/**
 * Reads the class names and all labels of CIFAR-100.
 *
 * @param options `classes`, fine or coarse
 * @throws UserError naming the file that is missing, cut short or holds a label without a name
 */
export async function readCifar100(
  dir: string,
  { classes = "fine" }: Readonly<Record<string, string>>,
): Promise<Archive> {
  if (!Object.hasOwn(CIFAR100, classes)) {
    throw new UserError(`cifar100: classes=${classes} is none of fine, coarse`);
  }
  return await read(dir, CIFAR100[classes]!);
}

async function read(dir: string, { names, parts, head, classAt }: Layout): Promise<Archive> {
  const labels = readNames(join(dir, names));
  const files = parts.map(({ name }) =>
    new RecordFile(join(dir, `${name}.bin`), head + IMAGE_BYTES)
  );
  const blocks: Block[] = [];
  for (const [i, { name, split }] of parts.entries()) {
    const file = files[i]!;
    const classes = await readClasses(file, classAt, labels.length);
    blocks.push({
      name,
      count: file.count,
      splitOf: (index) =>
        split === "train" && validates({ id: idOf(name, index), patient: null }) ? "val" : split,
      labelsOf: (index) => oneHot(classes[index]!, labels.length),
      pictureOf: async (index) =>
        fromPlanes(SIDE, SIDE, (await file.read(index)).subarray(head), "rows"),
    });
  }
  const notes = countNotes(files.map(({ path, count }, i) => [path, count, parts[i]!.original]));
  return { labels, blocks, notes };
}

/** The classes of all records, each below `count`. */
async function readClasses(file: RecordFile, at: number, count: number): Promise<Uint8Array> {
  const classes = new Uint8Array(file.count);
  for (let index = 0; index < file.count; index++) {
    const value = (await file.read(index))[at]!;
    if (value >= count) {
      throw new UserError(
        `${file.path}: label ${value} of image ${index}, expected 0 to ${count - 1}`,
      );
    }
    classes[index] = value;
  }
  return classes;
}
