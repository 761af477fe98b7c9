/** Data sets whose images lie one after the other in large files, not each in a file of its own. */

import { UserError } from "../../errors.ts";
import { readText } from "../../files.ts";
import type { Dataset, Example, Split } from "../dataset.ts";
import { square } from "../decode/decode.ts";
import type { Picture } from "../decode/picture.ts";

/** Images that lie together. */
export interface Block {
  /** What the ids of the images begin with: image 7 of `train` is `train/7`. */
  readonly name: string;
  /** How many there are. */
  readonly count: number;
  /** The split of an image; null leaves it out. */
  splitOf(index: number): Split | null;
  /** What is known of an image, in the order of the labels. */
  labelsOf(index: number): Float32Array;
  /** An image, in its own size; its pixels are the caller's. */
  pictureOf(index: number): Picture | Promise<Picture>;
}

/** What the reader of an archive finds in it. */
export interface Archive {
  /** The label names. */
  readonly labels: readonly string[];
  /** The images. */
  readonly blocks: readonly Block[];
  /** See {@linkcode Dataset.notes}. */
  readonly notes: readonly string[];
}

/** The data set of an archive, in the order of its blocks. */
export function ofBlocks(spec: string, { labels, blocks, notes }: Archive): Dataset {
  const places: { block: Block; index: number }[] = [];
  const examples: Example[] = [];
  for (const block of blocks) {
    for (let index = 0; index < block.count; index++) {
      const split = block.splitOf(index);
      if (split === null) continue;
      places.push({ block, index });
      examples.push({
        id: idOf(block.name, index),
        split,
        ...{ patient: null, source: null, view: null, license: null, file: null },
        labels: block.labelsOf(index),
      });
    }
  }
  return {
    spec,
    labels,
    examples,
    notes,
    async load(index, size, channels) {
      const { block, index: inner } = places[index]!;
      return square(await block.pictureOf(inner), size, channels);
    },
    async pixelSize(index) {
      const { block, index: inner } = places[index]!;
      const { width, height } = await block.pictureOf(inner);
      return { width, height };
    },
  };
}

/** The id of an image of a block. */
export function idOf(block: string, index: number): string {
  return `${block}/${index}`;
}

/** The labels of an image of one class among `count`; they exclude one another. */
export function oneHot(index: number, count: number): Float32Array {
  return Float32Array.from({ length: count }, (_, i) => Number(i === index));
}

/**
 * The names in a text file, one on a line.
 *
 * @throws UserError if there is none, or one twice
 */
export function readNames(path: string): string[] {
  const names = readText(path).split("\n").map((name) => name.trim()).filter((name) => name !== "");
  if (names.length === 0) throw new UserError(`${path}: no names in it`);
  const twice = names.find((name, i) => names.indexOf(name) < i);
  if (twice !== undefined) throw new UserError(`${path}: "${twice}" is there twice`);
  return names;
}

/** A note for every count that is not the original's, as those of a part of a collection are. */
export function countNotes(
  counts: Iterable<readonly [file: string, count: number, original: number]>,
): string[] {
  return [...counts].filter(([, count, original]) => count !== original).map(
    ([file, count, original]) => `${file}: ${count} images, ${original} in the original`,
  );
}
