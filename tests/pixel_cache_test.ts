import assert from "node:assert/strict";
import {
  readdirSync,
  readFileSync,
  renameSync,
  statSync,
  utimesSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { loadImages } from "../src/data/decode/decode_all.ts";
import { openDataset } from "../src/data/open.ts";
import { contentKey, DECODER_VERSION, PixelCache } from "../src/data/decode/pixel_cache.ts";
import { encodePng } from "../src/data/decode/png.ts";
import { UserError } from "../src/errors.ts";
import { Random } from "../src/random.ts";
import { flatPng, withFiles } from "./support/files.ts";
import { readFixture } from "./support/fixture.ts";

/** Image i is flat gray of level 10 i. */
const images = (count: number) =>
  Object.fromEntries(Array.from({ length: count }, (_, i) => [`${i}.png`, flatPng(10 * i)]));

/** Loads all images of a folder through a cache beside it; the first value of each, and the packs. */
async function load(dir: string, { size = 4, channels = 1 as 1 | 3, workers = 0 } = {}) {
  const dataset = await openDataset(`folder:${join(dir, "data")}`);
  const cache = join(dir, "cache");
  const indices = dataset.examples.keys().toArray();
  const { images } = await loadImages(dataset, indices, { size, channels, workers, cache });
  const stride = size * size * channels;
  return {
    levels: indices.map((i) => images.pixels[i * stride]!),
    pixels: images.pixels,
    packs: readdirSync(cache).sort(),
  };
}

async function inFolder(count: number, test: (dir: string) => Promise<void>): Promise<void> {
  const files = Object.entries(images(count)).map(([name, png]) => [`data/${name}`, png]);
  await withFiles(Object.fromEntries(files), test);
}

/** Overwrites a byte of a file, and keeps its date. */
function damage(path: string, at: number): void {
  const bytes = readFileSync(path);
  bytes[at < 0 ? bytes.length + at : at]! ^= 1;
  writeFileSync(path, bytes);
}

Deno.test("loadImages() decodes an image once for all runs", async () => {
  await inFolder(5, async (dir) => {
    const first = await load(dir);
    assert.deepEqual(first.levels, [0, 10, 20, 30, 40]);
    assert.equal(first.packs.length, 1);
    // A pack that says otherwise shows that the second run reads it: gray 10 becomes 77.
    const cache = new PixelCache(join(dir, "cache"), 4, 1);
    assert.equal(cache.size, 5);
    cache.close();
    const key = contentKey(flatPng(10));
    renameSync(join(dir, "cache", first.packs[0]!), join(dir, "cache", "away"));
    new PixelCache(join(dir, "cache"), 4, 1).write(new Map([[key, new Uint8Array(16).fill(77)]]));
    assert.deepEqual((await load(dir)).levels, [0, 77, 20, 30, 40]);
  });
});

Deno.test("loadImages() keeps what workers decode", async () => {
  const random = new Random(0, "pixel cache test");
  const files = Object.fromEntries(Array.from({ length: 300 }, (_, i) => {
    const pixels = Uint8Array.from({ length: 25 }, () => random.integer(256));
    return [`data/${i}.png`, encodePng({ width: 5, height: 5, channels: 1, pixels })];
  }));
  await withFiles(files, async (dir) => {
    const plain = await openDataset(`folder:${join(dir, "data")}`);
    const all = plain.examples.keys().toArray();
    const expected = await loadImages(plain, all, { size: 3, channels: 3, workers: 0 });
    const fresh = await load(dir, { size: 3, channels: 3, workers: 2 });
    assert.deepEqual(fresh.pixels, expected.images.pixels);
    const again = await load(dir, { size: 3, channels: 3 });
    assert.deepEqual(again, fresh);
  });
});

Deno.test("loadImages() decodes only what a cache lacks, and of one content once", async () => {
  await inFolder(3, async (dir) => {
    const first = await load(dir);
    writeFileSync(join(dir, "data", "3.png"), flatPng(99));
    writeFileSync(join(dir, "data", "4.png"), flatPng(99));
    const second = await load(dir);
    assert.deepEqual(second.levels, [0, 10, 20, 99, 99]);
    const added = second.packs.filter((pack) => !first.packs.includes(pack));
    assert.equal(added.length, 1);
    const bytes = (pack: string) => statSync(join(dir, "cache", pack)).size;
    // One image is a hash, a checksum and 16 pixels.
    assert.equal(bytes(first.packs[0]!) - bytes(added[0]!), 2 * (36 + 16));
    assert.deepEqual((await load(dir)).packs, second.packs);
  });
});

Deno.test("loadImages() decodes a file anew whose content changed under its name and date", async () => {
  await inFolder(2, async (dir) => {
    const path = join(dir, "data", "1.png");
    const { mtime } = statSync(path);
    await load(dir);
    writeFileSync(path, flatPng(200));
    utimesSync(path, mtime, mtime);
    assert.deepEqual((await load(dir)).levels, [0, 200]);
    writeFileSync(path, flatPng(10));
    assert.deepEqual((await load(dir)).levels, [0, 10]);
  });
});

Deno.test("loadImages() keeps sizes and channels apart", async () => {
  await inFolder(2, async (dir) => {
    await load(dir);
    assert.equal((await load(dir, { size: 2 })).packs.length, 2);
    // As many bytes an image as 6 × 6 of one channel have.
    assert.equal((await load(dir, { size: 6 })).packs.length, 3);
    const color = await load(dir, { size: 6, channels: 3 });
    assert.equal(color.packs.length, 4);
    assert.deepEqual(color.levels, [0, 10]);
    assert.ok(color.packs.every((pack) => pack.startsWith(`v${DECODER_VERSION}-`)));
  });
});

Deno.test("loadImages() never trusts a damaged pack, and replaces it", async () => {
  await inFolder(3, async (dir) => {
    const { packs } = await load(dir);
    const path = join(dir, "cache", packs[0]!);
    const whole = readFileSync(path);
    const damages: Record<string, () => void> = {
      "a flipped pixel": () => damage(path, -1),
      "a flipped pixel of the first image": () => damage(path, -3 * 16),
      "a flipped hash": () => damage(path, 24),
      "a flipped count": () => damage(path, 16),
      "a flipped size": () => damage(path, 20),
      "another magic": () => damage(path, 0),
      "cut short": () => writeFileSync(path, whole.subarray(0, -1)),
      "cut in the header": () => writeFileSync(path, whole.subarray(0, 30)),
      "empty": () => writeFileSync(path, ""),
      "longer": () => writeFileSync(path, Uint8Array.of(...whole, 0)),
      "zeros": () => writeFileSync(path, new Uint8Array(whole.length)),
    };
    for (const [what, spoil] of Object.entries(damages)) {
      spoil();
      assert.deepEqual((await load(dir)).levels, [0, 10, 20], what);
      // What was lost is there again, one run later at most.
      await load(dir);
      const cache = new PixelCache(join(dir, "cache"), 4, 1);
      const pixels = new Uint8Array(16);
      for (const level of [0, 10, 20]) {
        assert.ok(cache.read(contentKey(flatPng(level)), pixels), what);
        assert.deepEqual(pixels, new Uint8Array(16).fill(level), what);
      }
      cache.close();
      for (const pack of readdirSync(join(dir, "cache"))) Deno.removeSync(join(dir, "cache", pack));
      writeFileSync(path, whole);
    }
  });
});

Deno.test("loadImages() keeps what it decoded before a bad image", async () => {
  await inFolder(3, async (dir) => {
    writeFileSync(join(dir, "data", "2.png"), "no image");
    await assert.rejects(load(dir), UserError);
    assert.equal(new PixelCache(join(dir, "cache"), 4, 1).size, 2);
  });
});

Deno.test("loadImages() goes on where the cache cannot be written, and says so", async () => {
  await inFolder(2, async (dir) => {
    writeFileSync(join(dir, "cache"), "a file in the way");
    const dataset = await openDataset(`folder:${join(dir, "data")}`);
    const notes: string[] = [];
    const { images } = await loadImages(dataset, [0, 1], {
      ...{ size: 1, channels: 1, cache: join(dir, "cache") },
      onNote: (note) => notes.push(note),
    });
    assert.deepEqual([...images.pixels], [0, 10]);
    assert.equal(notes.length, 1);
    assert.match(notes[0]!, /^decoded images are not kept: .*cache/);
  });
});

Deno.test("PixelCache deletes packs that were unused for longest, and unfinished ones", async () => {
  await withFiles({}, (dir) => {
    const key = (i: number) => contentKey(Uint8Array.of(i));
    const pixels = (i: number) => new Uint8Array(100).fill(i);
    const packBytes = 24 + 36 + 4 + 100;
    const open = () => new PixelCache(dir, 10, 1, 3 * packBytes);
    const age = (days: number) => {
      const date = new Date(Date.now() - days * 24 * 3600 * 1000);
      for (const name of readdirSync(dir)) utimesSync(join(dir, name), date, date);
    };
    writeFileSync(join(dir, "x.pack.7.tmp"), "");
    for (const i of [0, 1, 2]) {
      age(3 - i);
      open().write(new Map([[key(i), pixels(i)]]));
    }
    assert.equal(readdirSync(dir).length, 3, "the unfinished one is gone");
    age(1);
    const cache = open();
    assert.ok(cache.read(key(0), new Uint8Array(100)));
    cache.write(new Map([[key(3), pixels(3)]]));
    cache.write(new Map([[key(4), pixels(4)]]));
    cache.close();
    const left = open();
    assert.equal(left.size, 3);
    assert.ok([0, 3, 4].every((i) => left.read(key(i), new Uint8Array(100))));
    left.close();
    // More than all that fits is not kept, and drives nothing out.
    open().write(new Map([5, 6, 7, 8].map((i) => [key(i), pixels(i)])));
    assert.equal(open().size, 3);
  });
});

/** Loads a folder through a cache, and prints a sum of the pixels. */
const child = `
import { loadImages } from ${
  JSON.stringify(import.meta.resolve("../src/data/decode/decode_all.ts"))
};
import { openDataset } from ${JSON.stringify(import.meta.resolve("../src/data/open.ts"))};
const [data, cache] = Deno.args;
const dataset = await openDataset("folder:" + data);
let sum = 0;
for (let i = 0; i < 20; i++) {
  const { images } = await loadImages(dataset, [...dataset.examples.keys()], { size: 8, channels: 1, workers: 0, cache });
  sum += images.pixels.reduce((a, b) => a + b, 0);
  // The next turn has to write again, in the way of the other process.
  for (const { name } of Deno.readDirSync(cache)) {
    try { Deno.removeSync(cache + "/" + name); } catch { /* the other was faster */ }
  }
}
console.log(sum);
`;

Deno.test("two processes share a cache, even while it is being deleted", async () => {
  await inFolder(20, async (dir) => {
    writeFileSync(join(dir, "child.ts"), child);
    const config = fileURLToPath(new URL("../deno.json", import.meta.url));
    const start = () =>
      new Deno.Command("deno", {
        args: [
          ...["run", "-q", "--no-prompt", "--allow-read", "--allow-write", "--config", config],
          ...[join(dir, "child.ts"), join(dir, "data"), join(dir, "cache")],
        ],
        stdout: "piped",
        stderr: "piped",
      }).output();
    const sum = 20 * 64 * Array.from({ length: 20 }, (_, i) => 10 * i).reduce((a, b) => a + b, 0);
    for (const { code, stdout, stderr } of await Promise.all([start(), start()])) {
      assert.equal(code, 0, new TextDecoder().decode(stderr));
      assert.equal(new TextDecoder().decode(stdout), `${sum}\n`);
    }
  });
});

Deno.test("the decoder's version goes with the pixels that it makes", async () => {
  const fixture = await readFixture("resize");
  const random = new Random(0, "decoder version");
  const pixels = Uint8Array.from({ length: 3 * 63 }, () => random.integer(256));
  const files = {
    "data/0.png": encodePng({ width: 9, height: 7, channels: 3, pixels }),
    "data/1.png": encodePng({ width: 21, height: 9, channels: 1, pixels }),
    ...Object.fromEntries(
      ["gray", "rgb", "progressive"].map((name) => [
        `data/${name}.jpg`,
        fixture.bytes(`jpeg_${name}.file`).data,
      ]),
    ),
  };
  await withFiles(files, async (dir) => {
    const hashes = await Promise.all(
      ([1, 3] as const).map(async (channels) =>
        contentKey((await load(dir, { size: 5, channels })).pixels).slice(0, 16)
      ),
    );
    // Other hashes call for another version: what caches hold is no longer what would be decoded.
    assert.deepEqual([DECODER_VERSION, ...hashes], [1, "84b97e2668bafbba", "0ba6d64a9b12711e"]);
  });
});

Deno.test("loadImages() with skipBad leaves rows and indices aligned", async () => {
  const csv = "filename,labels\n" +
    Array.from({ length: 12 }, (_, i) => `${i}.png,${i % 2 ? "odd" : "even"}\n`).join("");
  const files = { ...images(12), "3.png": "no image", "7.png": new Uint8Array(0), "x.csv": csv };
  await withFiles(files, async (dir) => {
    Deno.removeSync(join(dir, "10.png"));
    const spec = `csv:${join(dir, "x.csv")}`;
    await assert.rejects(openDataset(spec), /no image .*10\.png/);
    const dataset = await openDataset(spec, { checkFiles: false });
    const indices = [11, 10, 7, 5, 3, 2, 0];
    const options = { size: 2, channels: 3, cache: join(dir, "cache") } as const;
    await assert.rejects(loadImages(dataset, indices, options), UserError);
    // Decoded, then out of the cache.
    for (const _ of [1, 2]) {
      const loaded = await loadImages(dataset, indices, { ...options, skipBad: true });
      assert.deepEqual(loaded.indices, [11, 5, 2, 0]);
      assert.equal(loaded.images.count, 4);
      assert.equal(loaded.images.pixels.length, 4 * 12);
      assert.deepEqual(
        [0, 1, 2, 3].map((row) => loaded.images.pixels[row * 12]),
        [110, 50, 20, 0],
      );
      assert.deepEqual(loaded.bad, [
        { index: 10, reason: `${join(dir, "10.png")}: no such file` },
        { index: 7, reason: `${join(dir, "7.png")}: the file is empty` },
        {
          index: 3,
          reason: `${
            join(dir, "3.png")
          }: neither PNG, JPEG nor DICOM (it begins with bytes 6e 6f 20 69)`,
        },
      ]);
    }
    await assert.rejects(
      loadImages(dataset, [3, 7], { ...options, skipBad: true }),
      /^UserError: none of 2 images can be read; .*3\.png: neither PNG/,
    );
    const none = await loadImages(dataset, [], { ...options, skipBad: true });
    assert.equal(none.images.count, 0);
  });
});

Deno.test("loadImages() with skipBad and workers", async () => {
  await withFiles(images(25), async (dir) => {
    for (let i = 25; i < 300; i++) writeFileSync(join(dir, `${i}.png`), flatPng(i % 25 * 10));
    for (const i of [0, 31, 32, 299]) writeFileSync(join(dir, `${i}.png`), "bad");
    const dataset = await openDataset(`folder:${dir}`);
    const indices = dataset.examples.keys().toArray();
    const options = { size: 1, channels: 1, skipBad: true } as const;
    const remote = await loadImages(dataset, indices, { ...options, workers: 2 });
    assert.deepEqual(remote, await loadImages(dataset, indices, { ...options, workers: 0 }));
    assert.equal(remote.bad.length, 4);
    for (const [row, index] of remote.indices.entries()) {
      const number = parseInt(dataset.examples[index]!.id);
      assert.equal(remote.images.pixels[row], number % 25 * 10);
    }
  });
});
