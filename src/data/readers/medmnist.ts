/**
 * `medmnist:FILE.npz`: a two-dimensional set of MedMNIST (https://medmnist.com), such as
 * `chestmnist.npz` or `pneumoniamnist_64.npz`. The file is a zip of NumPy arrays, for each split
 * of train, val and test
 *
 *     <split>_images.npy    u8 [n, side, side] or [n, side, side, 3], side 28, 64, 128 or 224
 *     <split>_labels.npy    integers [n, labels]
 *
 * Several columns of labels are independent findings, 0 or 1: those of ChestMNIST by name, others
 * `label_0`, `label_1`, …. A single column holds classes that exclude one another, from 0: by name
 * where the file is called like a set whose names are known, `class_0`, `class_1`, … elsewhere.
 * MedMNIST tells nothing of patients, although its splits respect them.
 *
 * All images are held in memory in their own size, and while the file is read the file too: up to
 * 2 GiB each, which leaves out the largest sets at 128 and 224.
 */

import { basename } from "node:path";
import { UserError } from "../../errors.ts";
import { fileSize, readBytes } from "../../files.ts";
import { decodeNpy, type NpyArray } from "../../formats/npy.ts";
import { isZip, readZip } from "../../formats/zip.ts";
import { type Archive, type Block, oneHot } from "./blocks.ts";

const SPLITS = ["train", "val", "test"] as const;
const SIDES: readonly number[] = [28, 64, 128, 224];
/** The most bytes of a file, and of what is in it. */
const LIMIT = 2 ** 31;
/** The most classes of a set whose names are not known: its labels are bytes. */
const MAX_CLASSES = 256;

/** The findings of ChestMNIST. */
const FINDINGS: readonly string[] = [
  ...["atelectasis", "cardiomegaly", "effusion", "infiltration", "mass", "nodule", "pneumonia"],
  ...["pneumothorax", "consolidation", "edema", "emphysema", "fibrosis", "pleural", "hernia"],
];

const ORGANS: readonly string[] = [
  ...["bladder", "femur-left", "femur-right", "heart", "kidney-left", "kidney-right", "liver"],
  ...["lung-left", "lung-right", "pancreas", "spleen"],
];

/** Names of classes by set, as in MedMNIST's own info.py. */
const CLASSES: Readonly<Record<string, readonly string[]>> = {
  pathmnist: [
    ...["adipose", "background", "debris", "lymphocytes", "mucus", "smooth muscle"],
    ...["normal colon mucosa", "cancer-associated stroma", "colorectal adenocarcinoma epithelium"],
  ],
  dermamnist: [
    ...["actinic keratoses and intraepithelial carcinoma", "basal cell carcinoma"],
    ...["benign keratosis-like lesions", "dermatofibroma", "melanoma", "melanocytic nevi"],
    "vascular lesions",
  ],
  octmnist: ["choroidal neovascularization", "diabetic macular edema", "drusen", "normal"],
  pneumoniamnist: ["normal", "pneumonia"],
  breastmnist: ["malignant", "normal, benign"],
  bloodmnist: [
    ...["basophil", "eosinophil", "erythroblast", "immature granulocytes", "lymphocyte"],
    ...["monocyte", "neutrophil", "platelet"],
  ],
  tissuemnist: [
    ...["Collecting Duct, Connecting Tubule", "Distal Convoluted Tubule"],
    ...["Glomerular endothelial cells", "Interstitial endothelial cells", "Leukocytes"],
    ...["Podocytes", "Proximal Tubule Segments", "Thick Ascending Limb"],
  ],
  organamnist: ORGANS,
  organcmnist: ORGANS,
  organsmnist: ORGANS,
};

/** The arrays of a split. */
interface Part {
  readonly split: typeof SPLITS[number];
  readonly count: number;
  readonly side: number;
  readonly channels: 1 | 3;
  /** [count, side, side, channels]. */
  readonly pixels: Uint8Array;
  readonly columns: number;
  /** [count, columns]. */
  readonly values: Float64Array;
}

/**
 * Reads images and labels.
 *
 * @throws UserError naming the file, the array in it and what is wrong there
 */
export function readMedmnist(path: string): Archive {
  const arrays = unpack(path);
  const parts = SPLITS.map((split) => readPart(path, split, arrays));
  const { labels, columns } = nameLabels(path, parts);
  const blocks = parts.map(({ split, count, side, channels, pixels, values }): Block => ({
    name: split,
    count,
    splitOf: () => split,
    labelsOf: (index) =>
      columns === 1
        ? oneHot(values[index]!, labels.length)
        : Float32Array.from(values.subarray(index * columns, (index + 1) * columns)),
    pictureOf(index) {
      const bytes = side * side * channels;
      const own = pixels.slice(index * bytes, (index + 1) * bytes);
      return { width: side, height: side, channels, pixels: own };
    },
  }));
  return { labels, blocks, notes: [] };
}

/** The label names, once all values are among what they name. */
function nameLabels(path: string, parts: readonly Part[]) {
  const set = /^[a-z]+/.exec(basename(path).toLowerCase())?.[0] ?? "";
  const columns = parts[0]!.columns;
  if (columns > 1) {
    checkLabels(path, parts, 2);
    const known = set === "chestmnist" && columns === FINDINGS.length;
    return { columns, labels: known ? FINDINGS : numbered("label", columns) };
  }
  const known = Object.hasOwn(CLASSES, set) ? CLASSES[set]! : null;
  const largest = checkLabels(path, parts, known?.length ?? MAX_CLASSES);
  return { columns, labels: known ?? numbered("class", largest + 1) };
}

const numbered = (word: string, count: number) =>
  Array.from({ length: count }, (_, i) => `${word}_${i}`);

/** Refuses labels from `limit` on, and splits with unlike columns; gives the largest label. */
function checkLabels(path: string, parts: readonly Part[], limit: number): number {
  let largest = 0;
  const { columns } = parts[0]!;
  for (const part of parts) {
    const name = `${path}: ${part.split}_labels.npy`;
    if (part.columns !== columns) {
      throw new UserError(`${name}: ${part.columns} columns, but ${columns} in train_labels.npy`);
    }
    part.values.forEach((value, i) => {
      if (value < 0 || value >= limit) {
        const image = Math.floor(i / columns);
        throw new UserError(
          `${name}: label ${value} of image ${image}, expected 0 to ${limit - 1}`,
        );
      }
      largest = Math.max(largest, value);
    });
  }
  return largest;
}

/** The files in the archive by name. */
function unpack(path: string): Map<string, Uint8Array> {
  const size = fileSize(path);
  if (size > LIMIT) {
    throw new UserError(
      `${path}: ${size} bytes, but only ${LIMIT} are read; take the set in a smaller size`,
    );
  }
  const bytes = readBytes(path);
  if (!isZip(bytes)) throw new UserError(`${path}: is no .npz file, which would begin like a zip`);
  try {
    return readZip(bytes, LIMIT);
  } catch (error) {
    if (error instanceof UserError) throw new UserError(`${path}: ${error.message}`);
    throw error;
  }
}

/** Reads the arrays of a split, and takes them out of the archive. */
function readPart(path: string, split: Part["split"], arrays: Map<string, Uint8Array>): Part {
  const read = (name: string): NpyArray => {
    const bytes = arrays.get(name);
    if (bytes === undefined) throw new UserError(`${path}: there is no ${name} in it`);
    arrays.delete(name);
    return decodeNpy(bytes, `${path}: ${name}`);
  };
  const refuse = (name: string, { shape, data }: NpyArray, wanted: string): never => {
    const kind = data.constructor.name.replace("Array", "");
    throw new UserError(`${path}: ${name}: ${kind} [${shape.join(", ")}], expected ${wanted}`);
  };

  const images = read(`${split}_images.npy`);
  const [count = 0, height, side = 0, depth] = images.shape;
  const layers = images.shape.length === 3 || (images.shape.length === 4 && depth === 3);
  if (
    !(images.data instanceof Uint8Array) || height !== side || !SIDES.includes(side) || !layers
  ) {
    return refuse(
      `${split}_images.npy`,
      images,
      `Uint8 [n, side, side] or [n, side, side, 3], side ${SIDES.join(", ")}`,
    );
  }
  const labels = read(`${split}_labels.npy`);
  const [rows, columns = 0] = labels.shape;
  const whole = !/^Float/.test(labels.data.constructor.name);
  if (!whole || labels.shape.length !== 2 || rows !== count || columns === 0) {
    return refuse(`${split}_labels.npy`, labels, `integers [${count}, labels]`);
  }
  return {
    ...{ split, count, side, columns, pixels: images.data },
    channels: depth === 3 ? 3 : 1,
    values: Float64Array.from(labels.data, Number),
  };
}
