/**
 * The data sets that `deno task data get` knows: where they lie, how large they are, how a download
 * is checked, and under what licence they come. No archive was downloaded to write this table: sizes
 * and digests are those that each entry's `source` states.
 */

/** A digest as published. MD5 finds a damaged download, not one that was forged. */
export interface Digest {
  /** Its name in node:crypto. */
  readonly algorithm: "sha256" | "md5";
  /** The digest in lower-case hexadecimal digits. */
  readonly hex: string;
}

/** A file to download. */
export interface Archive {
  /** Its address. */
  readonly url: string;
  /** Hosts, beside the address's own, that it may redirect to. */
  readonly redirects: readonly string[];
  /** Its length in bytes, or a bound where nobody states it. */
  readonly bytes: { readonly exact: number } | { readonly atMost: number };
  /** Null where none is published. */
  readonly digest: Digest | null;
  /** Where length and digest are stated. */
  readonly source: string;
  /** The day, YYYY-MM-DD, on which `source` was read. */
  readonly read: string;
  /** The day of the last download that succeeded; null if there was none. */
  readonly tried: string | null;
  /**
   * The folder in the .tar.gz that is the data set, and the most bytes that all may unpack to; null
   * where the file itself is the data set.
   */
  readonly unpack: { readonly root: string; readonly atMost: number } | null;
}

/** A data set of the catalog. */
export interface Entry {
  /** The word that calls it, and its folder. */
  readonly name: string;
  /** What it is, in a line. */
  readonly title: string;
  /** The licence, or where it is told. */
  readonly license: string;
  /** Its own page. */
  readonly homepage: string;
  /** Reader of the SPEC, and the path below the data set's folder that it is given. */
  readonly spec: { readonly reader: string; readonly path: string };
}

/** A data set that anybody may download. */
export interface Downloadable extends Entry {
  /** The file that holds it. */
  readonly archive: Archive;
  /** Files and folders that must be there in the end, below the data set's folder. */
  readonly holds: readonly string[];
}

/** A data set whose owner asks for something first. */
export interface ByHand extends Entry {
  /** What to do to get it. */
  readonly instead: string;
}

const READ = "2026-11-23";

/** The last state of the collection that could be looked at: 481 patients in metadata.csv. */
const COVID_COMMIT = "6a4242344473ccb5ed0d2148d8c7bfb1691e4ed8";

/** ChestMNIST at one of its sizes. */
function chestMnist(
  name: string,
  side: number,
  file: string,
  { bytes, md5, source }: { bytes: Archive["bytes"]; md5: string; source: string },
): Downloadable {
  return {
    name,
    title:
      `ChestMNIST at ${side}×${side}: 112 120 gray chest X-rays of NIH ChestX-ray14, 14 findings`,
    license: "CC BY 4.0",
    homepage: "https://medmnist.com/",
    spec: { reader: "medmnist", path: file },
    holds: [file],
    archive: {
      url: `https://zenodo.org/records/10519652/files/${file}?download=1`,
      redirects: [],
      bytes,
      digest: { algorithm: "md5", hex: md5 },
      source,
      read: READ,
      tried: null,
      unpack: null,
    },
  };
}

/** The catalog. */
export const CATALOG: readonly (Downloadable | ByHand)[] = [
  {
    name: "stl10",
    title: "STL-10: 113 000 colour photographs of 96×96, 13 000 of them in 10 classes",
    license: "none stated; the images are from ImageNet",
    homepage: "https://cs.stanford.edu/~acoates/stl10/",
    spec: { reader: "stl10", path: "" },
    holds: [
      ...["train_X.bin", "train_y.bin", "test_X.bin", "test_y.bin", "unlabeled_X.bin"],
      "class_names.txt",
    ],
    archive: {
      url: "https://cs.stanford.edu/~acoates/stl10/stl10_binary.tar.gz",
      redirects: ["ai.stanford.edu"],
      bytes: { exact: 2_640_397_119 },
      digest: {
        algorithm: "sha256",
        hex: "f31fd99273a1acb8609c8db427cebb1de3f71de77758cdc0e22956e1289b9866",
      },
      source: "tensorflow/datasets, datasets/stl10/checksums.tsv at 90b66237",
      read: READ,
      tried: null,
      unpack: { root: "stl10_binary", atMost: 3_200_000_000 },
    },
  },
  {
    name: "cifar10",
    title: "CIFAR-10: 60 000 colour photographs of 32×32 in 10 classes",
    license: "none stated; its page asks to cite the technical report",
    homepage: "https://www.cs.toronto.edu/~kriz/cifar.html",
    spec: { reader: "cifar10", path: "" },
    holds: [
      ...[1, 2, 3, 4, 5].map((i) => `data_batch_${i}.bin`),
      "test_batch.bin",
      "batches.meta.txt",
    ],
    archive: {
      url: "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
      redirects: ["cave.cs.toronto.edu"],
      bytes: { exact: 170_052_171 },
      digest: {
        algorithm: "sha256",
        hex: "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
      },
      source: "tensorflow/datasets, url_checksums/cifar10.txt at 333639b3",
      read: READ,
      tried: null,
      unpack: { root: "cifar-10-batches-bin", atMost: 200_000_000 },
    },
  },
  {
    name: "cifar100",
    title: "CIFAR-100: 60 000 colour photographs of 32×32 in 100 classes",
    license: "none stated; its page asks to cite the technical report",
    homepage: "https://www.cs.toronto.edu/~kriz/cifar.html",
    spec: { reader: "cifar100", path: "" },
    holds: ["train.bin", "test.bin", "fine_label_names.txt", "coarse_label_names.txt"],
    archive: {
      url: "https://www.cs.toronto.edu/~kriz/cifar-100-binary.tar.gz",
      redirects: ["cave.cs.toronto.edu"],
      bytes: { exact: 168_513_733 },
      digest: {
        algorithm: "sha256",
        hex: "58a81ae192c23a4be8b1804d68e518ed807d710a4eb253b1f2a199162a40d8ec",
      },
      source: "tensorflow/datasets, url_checksums/cifar100.txt at 333639b3",
      read: READ,
      tried: null,
      unpack: { root: "cifar-100-binary", atMost: 200_000_000 },
    },
  },
  {
    name: "covid",
    title: "COVID-19 image data collection: chest X-rays and CT of pneumonia, 481 patients",
    license: "each image's own, in metadata.csv; the rest CC BY-NC-SA 4.0",
    homepage: "https://github.com/ieee8023/covid-chestxray-dataset",
    spec: { reader: "covid", path: "" },
    holds: ["metadata.csv", "images"],
    archive: {
      url: `https://codeload.github.com/ieee8023/covid-chestxray-dataset/tar.gz/${COVID_COMMIT}`,
      redirects: [],
      // GitHub packs it anew for who asks, so neither length nor digest is fixed.
      bytes: { atMost: 1_500_000_000 },
      digest: null,
      source: "the collection's repository; its length is a guess",
      read: READ,
      tried: null,
      unpack: { root: `covid-chestxray-dataset-${COVID_COMMIT}`, atMost: 2_000_000_000 },
    },
  },
  chestMnist("medmnist-chest", 28, "chestmnist.npz", {
    bytes: { atMost: 100_000_000 },
    md5: "02c8a6516a18b556561a56cbdd36c4a8",
    source: "MedMNIST/MedMNIST, medmnist/info.py; its length is bounded by that of the pixels",
  }),
  chestMnist("medmnist-chest-64", 64, "chestmnist_64.npz", {
    bytes: { atMost: 500_000_000 },
    md5: "9de6cd0b934ebb5b7426cfba5efbae16",
    source: "MedMNIST/MedMNIST, medmnist/info.py; its length is bounded by that of the pixels",
  }),
  {
    name: "nih",
    title: "NIH ChestX-ray14: 112 120 chest X-rays of 30 805 patients, 14 findings",
    license: "free to use; its page asks to cite the paper and to name the NIH Clinical Center",
    homepage: "https://nihcc.app.box.com/v/ChestXray-NIHCC",
    spec: { reader: "nih", path: "" },
    instead: "take Data_Entry_2017_v2020.csv, the two lists and as many images_*.tar.gz as you " +
      "want from its page, and unpack them into one folder",
  },
  {
    name: "chexpert",
    title: "CheXpert: 224 316 chest X-rays of 65 240 patients, 14 observations with doubts",
    license: "Stanford's research use agreement; no commercial use",
    homepage: "https://stanfordmlgroup.github.io/competitions/chexpert/",
    spec: { reader: "chexpert", path: "" },
    instead: "register on its page, agree to the terms, and unpack what the link in the mail gives",
  },
];

/** Whether it can be downloaded without asking anybody. */
export function isDownloadable(entry: Downloadable | ByHand): entry is Downloadable {
  return "archive" in entry;
}

/** The hosts that may be asked for an archive; a port is part of its host. */
export function hostsOf({ url, redirects }: Archive): string[] {
  return [new URL(url).host, ...redirects];
}

/** The most bytes that an archive may have. */
export function largest({ bytes }: Archive): number {
  return "exact" in bytes ? bytes.exact : bytes.atMost;
}
