/**
 * What a data set is: examples with labels, a split and a patient, whose pixels are decoded on
 * demand. Readers (csv, folder, stl10, …) make them, {@linkcode openDataset} opens them by name.
 */

/**
 * The part of a study an example belongs to. Pretraining sees `train` and `unlabeled`, supervised
 * training `train`; `val` chooses settings, `test` is looked at once.
 */
export type Split = "train" | "val" | "test" | "unlabeled";

/** The splits in the order in which they are reported. */
export const SPLITS: readonly Split[] = ["train", "val", "test", "unlabeled"];

/** One image and what is known of it. */
export interface Example {
  /** A name unique within its reader: the file name as written in a CSV, or below a folder. */
  readonly id: string;
  /** The part of the study it belongs to. */
  readonly split: Split;
  /** Whose image it is; null when unknown, and then the image counts as a patient of its own. */
  readonly patient: string | null;
  /** The collection it comes from, for figures within one source. */
  readonly source: string | null;
  /** The projection (PA, AP, lateral…), null when unknown. */
  readonly view: string | null;
  /** The terms the image may be used under, as its collection writes them; null when unknown. */
  readonly license: string | null;
  /** The image file, which a worker can decode by itself; null where {@linkcode Dataset.load} makes the pixels. */
  readonly file: string | null;
  /** The phantom film that the image is, which a worker can draw by itself; absent of other images. */
  readonly film?: Film;
  /** One value for each label of the data set: 1, 0, or NaN where it is not known. */
  readonly labels: Float32Array;
}

/** What a phantom film is drawn from, see readers/phantom_film.ts. */
export interface Film {
  /** Of the data set. */
  readonly seed: number;
  /** The patient's number, which determines the anatomy. */
  readonly patient: number;
  /** The film's number, which determines all else. */
  readonly image: number;
}

/** Examples under a fixed list of labels. */
export interface Dataset {
  /**
   * The canonical SPEC that opens the same data set again, with absolute paths; of one that was
   * changed by the operations of operations.ts, the SPEC that it was made from.
   */
  readonly spec: string;
  /** The label names, in the order of {@linkcode Example.labels}. */
  readonly labels: readonly string[];
  /** All examples, in a fixed order. */
  readonly examples: readonly Example[];
  /** What whoever opened the data should know of it, a line each: counts that differ from the original's. */
  readonly notes?: readonly string[];
  /**
   * Decodes example `index` to u8 [size, size, channels]: antialiased resize of the shorter side to
   * `size`, then a centre crop. Throws a UserError that names the file.
   */
  load(index: number, size: number, channels: 1 | 3): Promise<Uint8Array>;
  /** The size of example `index` as it is stored; null, or no such method, where pixels are made at any size. */
  pixelSize?(index: number): Promise<PixelSize | null>;
}

/** Width and height in pixels. */
export interface PixelSize {
  /** Columns. */
  readonly width: number;
  /** Rows. */
  readonly height: number;
}

/** Decoded images, u8 [count, size, size, channels]. */
export interface Images {
  /** How many. */
  readonly count: number;
  /** Side in pixels. */
  readonly size: number;
  /** 1 for gray, 3 for RGB. */
  readonly channels: 1 | 3;
  /** Row-major values, one image after the other. */
  readonly pixels: Uint8Array;
}

/** Whether anything is known of an example: an unlabelled one is NaN under every label. */
export function isLabelled(example: Example): boolean {
  return example.labels.some((value) => !Number.isNaN(value));
}

/** The indices of the examples in any of the splits, in the order of the data set. */
export function indicesOf(dataset: Dataset, splits: readonly Split[]): number[] {
  const indices: number[] = [];
  dataset.examples.forEach((example, index) => {
    if (splits.includes(example.split)) indices.push(index);
  });
  return indices;
}

/** What self-supervised pretraining may see: train and unlabeled, never val or test. */
export function pretrainingIndices(dataset: Dataset): number[] {
  return indicesOf(dataset, ["train", "unlabeled"]);
}

/** Counts of a selection of examples, as they go into config.json. */
export interface Usage {
  /** How many examples. */
  readonly images: number;
  /** Distinct patients; images without a patient id are not counted. */
  readonly patients: number;
  /** Examples in each split. */
  readonly splits: Readonly<Record<Split, number>>;
}

/** Counts the examples at `indices`, by default all. */
export function usage(
  dataset: Dataset,
  indices: readonly number[] = dataset.examples.keys().toArray(),
): Usage {
  const splits: Record<Split, number> = { train: 0, val: 0, test: 0, unlabeled: 0 };
  const patients = new Set<string>();
  for (const index of indices) {
    const example = dataset.examples[index]!;
    splits[example.split]++;
    if (example.patient !== null) patients.add(example.patient);
  }
  return { images: indices.length, patients: patients.size, splits };
}
