import assert from "node:assert/strict";
import type { Images } from "../src/data/dataset.ts";
import { loadImages } from "../src/data/decode/decode_all.ts";
import { closePairs, nearDuplicates, perceptualHashes } from "../src/data/duplicates.ts";
import { openDataset } from "../src/data/open.ts";
import { openPhantom } from "../src/data/readers/phantom.ts";
import { encodePng } from "../src/data/decode/png.ts";
import { resize } from "../src/data/decode/resize.ts";
import { Random } from "../src/random.ts";
import { withFiles } from "./support/files.ts";

const SIDE = 32;

/** Gray thumbnails as images. */
function stack(thumbnails: readonly ArrayLike<number>[]): Images {
  const pixels = Uint8Array.from(thumbnails.flatMap((thumbnail) => Array.from(thumbnail)));
  return { count: thumbnails.length, size: SIDE, channels: 1, pixels };
}

/** Near-duplicates among images, by their positions. */
const groupsOf = (images: Images, options?: Parameters<typeof nearDuplicates>[1]) =>
  nearDuplicates({ images, indices: [...Array(images.count).keys()] }, options);

/** A thumbnail of a function of x and y in 0…31. */
const draw = (gray: (x: number, y: number) => number) =>
  Array.from({ length: SIDE * SIDE }, (_, i) => gray(i % SIDE, Math.floor(i / SIDE)));

const phantom = openPhantom({ n: "120" });
const films = await Promise.all(phantom.examples.map((_, i) => phantom.load(i, 64, 1)));
const shrink = (film: Uint8Array, side = SIDE) =>
  resize({ width: 64, height: 64, channels: 1, pixels: film }, side, side).pixels;

function distance(hashes: Uint32Array, a: number, b: number): number {
  let bits = 0;
  for (const word of [0, 1]) {
    const difference = (hashes[2 * a + word]! ^ hashes[2 * b + word]!) >>> 0;
    bits += [...difference.toString(2)].filter((digit) => digit === "1").length;
  }
  return bits;
}

function naivePairs(hashes: Uint32Array, bits: number): string[] {
  const pairs: string[] = [];
  for (let b = 0; b < hashes.length / 2; b++) {
    for (let a = 0; a < b; a++) if (distance(hashes, a, b) <= bits) pairs.push(`${a} ${b}`);
  }
  return pairs.sort();
}

Deno.test("perceptualHashes() has bit 8(v−1)+u−1 for a cosine of u across and v down", () => {
  const cosine = (frequency: number, x: number) =>
    Math.cos(Math.PI * frequency * (2 * x + 1) / (2 * SIDE));
  for (const [u, v] of [[1, 1], [8, 1], [1, 8], [3, 5], [5, 3]] as const) {
    // Rounding to bytes leaves every other coefficient below 1 % of this one, of either sign.
    const wave = (sign: number) => draw((x, y) => 128 + sign * 120 * cosine(u, x) * cosine(v, y));
    const [up0, up1, down0, down1] = perceptualHashes(stack([wave(1), wave(-1)]));
    const bit = 8 * (v - 1) + u - 1;
    const has = (low: number, high: number) => ((bit < 32 ? low : high) >>> (bit & 31)) & 1;
    assert.deepEqual([has(up0!, up1!), has(down0!, down1!)], [1, 0], `${u}, ${v}`);
  }
});

Deno.test("perceptualHashes() does not see brightness nor contrast, nor anything in a flat image", () => {
  const random = new Random(0, "hash test");
  for (let trial = 0; trial < 20; trial++) {
    const image = draw(() => random.integer(100));
    const hashes = perceptualHashes(stack([
      image,
      image.map((gray) => gray + 50),
      image.map((gray) => 2 * gray),
      image.map((gray) => 2 * gray + 50),
    ]));
    for (const other of [1, 2, 3]) assert.equal(distance(hashes, 0, other), 0);
    // Half of the coefficients are above their median.
    assert.equal(distance(new Uint32Array([...hashes.slice(0, 2), 0, 0]), 0, 1), 32);
  }
  assert.deepEqual(perceptualHashes(stack([draw(() => 0), draw(() => 77)])), new Uint32Array(4));
  assert.throws(() => perceptualHashes({ ...stack([]), size: 16 }), RangeError);
});

Deno.test("perceptualHashes() of copies are near, of other films far", () => {
  const copies = [
    (film: Uint8Array) => shrink(film),
    (film: Uint8Array) =>
      resize({ width: 48, height: 48, channels: 1, pixels: shrink(film, 48) }, 32, 32).pixels,
    (film: Uint8Array) => shrink(film.map((gray) => Math.min(255, gray + 15))),
    (film: Uint8Array) => shrink(film.map((gray) => 255 * (gray / 255) ** 1.2)),
  ];
  const hashes = perceptualHashes(stack(films.flatMap((film) => copies.map((copy) => copy(film)))));
  for (let film = 0; film < films.length; film++) {
    for (const copy of [1, 2, 3]) {
      const bits = distance(hashes, 4 * film, 4 * film + copy);
      assert.ok(bits <= 8, `copy ${copy} of film ${film}: ${bits} bits`);
    }
  }
  const between = films.flatMap((_, b) =>
    films.slice(0, b).map((_, a) => distance(hashes, 4 * a, 4 * b))
  );
  assert.ok(between.toSorted((a, b) => a - b)[between.length >> 1]! > 16);
});

Deno.test("closePairs() finds what comparing all with all finds, each pair once", () => {
  const random = new Random(0, "pairs test");
  // A few clusters of hashes, up to eight bits from their centres, some of them equal.
  const centres = Array.from({ length: 12 }, () => [random.u32(), random.u32()]);
  const hashes = Uint32Array.from(
    Array.from({ length: 400 }, () => {
      const hash = [...centres[random.integer(12)]!];
      for (let flips = random.integer(9); flips > 0; flips--) {
        const bit = random.integer(64);
        hash[bit >> 5] = (hash[bit >> 5]! ^ (1 << (bit & 31))) >>> 0;
      }
      return hash;
    }).flat(),
  );
  for (const bits of [0, 1, 2, 3, 4, 6, 9]) {
    const found = [...closePairs(hashes, bits)].map((pair) => pair.join(" ")).sort();
    assert.deepEqual(found, naivePairs(hashes, bits), `${bits} bits`);
    assert.ok(found.length > 20);
  }
});

Deno.test("nearDuplicates() groups copies, and nothing else that hashes alike", () => {
  const some = [0, 30, 60, 90].map((film) => films[film]!);
  const images = stack([
    ...some.map((film) => shrink(film)),
    shrink(some[2]!.map((gray) => gray / 2)),
    shrink(some[0]!.map((gray) => gray + 1)),
    shrink(some[2]!.map((gray) => 255 * (gray / 255) ** 1.1)),
  ]);
  assert.deepEqual(groupsOf(images), [[0, 5], [2, 4, 6]]);
  assert.deepEqual(groupsOf(stack([])), []);
  // With any hash allowed only the correlation decides: an image and its negative are not one.
  const negative = some[0]!.map((gray) => 255 - gray);
  const mirror = stack([shrink(some[0]!), shrink(negative), draw(() => 9), draw(() => 200)]);
  assert.deepEqual(groupsOf(mirror, { bits: 63 }), [[2, 3]]);
  assert.deepEqual(groupsOf(mirror, { bits: 63, correlation: -1 }), [[0, 1, 2, 3]]);
});

Deno.test("nearDuplicates() of bits alone are the connected pairs", () => {
  const images = stack(films.map((film) => shrink(film)));
  const hashes = perceptualHashes(images);
  const bits = 14;
  const groups = films.map((_, i) => new Set([i]));
  for (const pair of naivePairs(hashes, bits)) {
    const [a, b] = pair.split(" ").map(Number) as [number, number];
    const union = groups[a]!.union(groups[b]!);
    for (const member of union) groups[member] = union;
  }
  const expected = [...new Set(groups)].filter(({ size }) => size > 1)
    .map((group) => [...group].sort((a, b) => a - b)).sort(([a], [b]) => a! - b!);
  assert.ok(expected.length > 1);
  assert.deepEqual(groupsOf(images, { bits, correlation: -1 }), expected);
});

Deno.test("nearDuplicates() finds a film again under another name, size and exposure", async () => {
  const png = (film: Uint8Array, side = 64) =>
    encodePng({ width: side, height: side, channels: 1, pixels: film });
  const files = {
    "train/a.png": png(films[0]!),
    "train/b.png": png(films[40]!),
    "test/c.png": png(films[80]!),
    "test/broken.png": "broken",
    "test/d.png": png(shrink(films[40]!.map((gray) => gray * 0.8), 48), 48),
  };
  await withFiles(files, async (dir) => {
    const dataset = await openDataset(`folder:${dir}`);
    const all = [...dataset.examples.keys()];
    const groups = nearDuplicates(
      await loadImages(dataset, all, { size: SIDE, channels: 1, skipBad: true }),
    );
    const names = groups.map((group) => group.map((index) => dataset.examples[index]!.id));
    assert.deepEqual(names, [["test/d.png", "train/b.png"]]);
  });
});
