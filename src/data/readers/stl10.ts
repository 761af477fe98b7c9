/**
 * `stl10:DIR`: STL-10 in its binary form (https://cs.stanford.edu/~acoates/stl10/), color photos of
 * 96×96 in ten classes:
 *
 *     DIR/train_X.bin, train_y.bin    5 000 labelled images
 *     DIR/test_X.bin, test_y.bin      8 000 labelled images
 *     DIR/class_names.txt             a name on each line
 *     DIR/unlabeled_X.bin             100 000 images, split `unlabeled`; may be missing
 *     DIR/fold_indices.txt            needed for `fold` alone
 *
 * An image is 27 648 bytes: a plane of red, green and blue, each one column after the other. Classes
 * are one byte each, from 1. Any number of images is read; a note tells where it is not the
 * original's. The images stay in their files.
 *
 * About a tenth of the training images, placed by a hash of their number, is `val`. With
 * `fold=0`…`fold=9`, the protocol of the data set, `train` is that fold, about 1 000 images; of the
 * others the hash still places about a tenth in `val`, to choose settings on, and what remains is
 * left out, so that unsupervised training sees the fold and `unlabeled` alone.
 */

import { join } from "node:path";
import { UserError } from "../../errors.ts";
import { isFile, readBytes, readText } from "../../files.ts";
import { type Archive, type Block, countNotes, idOf, oneHot, readNames } from "./blocks.ts";
import { fromPlanes } from "../decode/picture.ts";
import { RecordFile } from "./records.ts";
import { validates } from "../splits.ts";

const SIDE = 96;
const IMAGE_BYTES = 3 * SIDE * SIDE;
/** Images in the original files. */
const ORIGINAL = { train: 5_000, test: 8_000, unlabeled: 100_000 };

/**
 * Reads class names and labels, and where the images are.
 *
 * @param options `fold`, 0 to 9
 * @throws UserError naming the file that is missing, cut short or contradicts another
 */
export function readStl10(dir: string, { fold }: Readonly<Record<string, string>>): Archive {
  const labels = readNames(join(dir, "class_names.txt"));
  const train = labelledImages(dir, "train", labels);
  const test = labelledImages(dir, "test", labels);
  const inFold = fold === undefined ? null : readFold(join(dir, "fold_indices.txt"), fold);
  const blocks: Block[] = [
    {
      ...train,
      splitOf(index) {
        if (inFold?.has(index)) return "train";
        if (validates({ id: idOf("train", index), patient: null })) return "val";
        return inFold === null ? "train" : null;
      },
    },
    { ...test, splitOf: () => "test" },
  ];
  const unlabeled = join(dir, "unlabeled_X.bin");
  if (isFile(unlabeled)) {
    const unknown = new Float32Array(labels.length).fill(NaN);
    blocks.push({
      ...imagesOf("unlabeled", new RecordFile(unlabeled, IMAGE_BYTES)),
      splitOf: () => "unlabeled",
      labelsOf: () => unknown,
    });
  }
  const notes = countNotes(blocks.map(({ name, count }) => [
    join(dir, `${name}_X.bin`),
    count,
    ORIGINAL[name as keyof typeof ORIGINAL],
  ]));
  return { labels, blocks, notes };
}

function imagesOf(name: string, images: RecordFile) {
  return {
    name,
    count: images.count,
    pictureOf: async (index: number) => fromPlanes(SIDE, SIDE, await images.read(index), "columns"),
  };
}

/** The images and classes of one split. */
function labelledImages(dir: string, name: string, labels: readonly string[]) {
  const images = new RecordFile(join(dir, `${name}_X.bin`), IMAGE_BYTES);
  const path = join(dir, `${name}_y.bin`);
  const classes = readBytes(path);
  if (classes.length !== images.count) {
    throw new UserError(
      `${path}: ${classes.length} labels, but ${images.path} holds ${images.count} images`,
    );
  }
  const wrong = classes.findIndex((value) => value < 1 || value > labels.length);
  if (wrong >= 0) {
    throw new UserError(
      `${path}: label ${classes[wrong]} of image ${wrong}, expected 1 to ${labels.length}`,
    );
  }
  return {
    ...imagesOf(name, images),
    labelsOf: (index: number) => oneHot(classes[index]! - 1, labels.length),
  };
}

/** The numbers of the training images of a fold. The file has a line of numbers from 0 for each. */
function readFold(path: string, fold: string): Set<number> {
  if (!/^[0-9]$/.test(fold)) {
    throw new UserError(`stl10: fold=${fold} is no whole number from 0 to 9`);
  }
  const line = readText(path).split("\n")[Number(fold)]?.trim() ?? "";
  if (line === "") {
    throw new UserError(`${path}: no line ${Number(fold) + 1}, which is fold ${fold}`);
  }
  const indices = line.split(/\s+/);
  const wrong = indices.find((word) => !/^\d+$/.test(word) || Number(word) >= ORIGINAL.train);
  if (wrong !== undefined) {
    throw new UserError(
      `${path}:${Number(fold) + 1}: "${wrong}" is no whole number below ${ORIGINAL.train}`,
    );
  }
  return new Set(indices.map(Number));
}
