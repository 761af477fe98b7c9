/** From files to what training reads: image files of 224², decoded or out of the cache, and weights. */
import assert from "node:assert/strict";
import { mkdirSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { loadImages } from "../src/data/decode/decode_all.ts";
import { openDataset } from "../src/data/open.ts";
import type { Picture } from "../src/data/decode/picture.ts";
import { encodePng } from "../src/data/decode/png.ts";
import { readEncoderFile } from "../src/encoder.ts";
import { encodeSafetensors } from "../src/formats/safetensors.ts";
import { Random } from "../src/random.ts";
import { type Case, register } from "./support.ts";

/** Below the folder of the project, where the cache of the commands is too. */
const root = ".cache/bench";
const size = 224;
const count = 1000;
/** Films that differ; drawing more of them takes longer than to decode them. */
const films = 50;

/** Phantom films, in colour with a tint and grain of their own in every channel. */
async function pictures(channels: 1 | 3): Promise<Picture[]> {
  const phantom = await openDataset(`phantom:n=${films}`);
  const random = new Random(0, "grain");
  return await Promise.all(phantom.examples.map(async (_, i) => {
    const pixels = await phantom.load(i, size, channels);
    if (channels === 3) {
      for (let k = 0; k < pixels.length; k++) {
        pixels[k] = Math.min(255, pixels[k]! + 8 * (k % 3) + random.integer(4));
      }
    }
    return { width: size, height: size, channels, pixels };
  }));
}

/** Decodes `count` files, checked against the pictures that were written to them. */
function loading(
  name: string,
  channels: 1 | 3,
  encode: (picture: Picture) => Promise<Uint8Array> | Uint8Array,
  { tolerance = 0, cached = false } = {},
): Case {
  return {
    name,
    shape: `${count} files of ${size}²×${channels}`,
    unit: "images/s",
    work: count,
    async prepare() {
      const folder = join(root, `${name.replaceAll(" ", "-")}-${channels}`);
      rmSync(folder, { recursive: true, force: true });
      mkdirSync(join(folder, "images"), { recursive: true });
      const sources = await pictures(channels);
      for (const [i, picture] of sources.entries()) {
        const bytes = await encode(picture);
        for (let copy = i; copy < count; copy += films) {
          // What follows the end of an image is not read: it makes every file another.
          const number = new Uint8Array(Uint32Array.of(copy).buffer);
          const path = join(folder, "images", `${String(copy).padStart(4, "0")}.img.png`);
          writeFileSync(path, new Uint8Array([...bytes, ...number]));
        }
      }
      const dataset = await openDataset(`folder:${join(folder, "images")}`);
      const indices = dataset.examples.keys().toArray();
      const cache = cached ? join(folder, "cache") : null;
      const load = () => loadImages(dataset, indices, { size, channels, cache });
      for (const { images: { pixels } } of [await load(), await load()]) {
        const length = size * size * channels;
        for (const i of [0, 1, films + 3, count - 1]) {
          const source = sources[i % films]!.pixels;
          const worst = source.reduce(
            (most, value, k) => Math.max(most, Math.abs(value - pixels[i * length + k]!)),
            0,
          );
          assert(worst <= tolerance, `${name}: image ${i} is off by ${worst}`);
        }
      }
      return { run: load, tensors: [] };
    },
  };
}

async function encodeJpeg({ width, height, pixels }: Picture): Promise<Uint8Array> {
  const { default: encode } = await import("@jsquash/jpeg/encode.js");
  const data = new Uint8ClampedArray(4 * width * height).fill(255);
  for (let i = 0; i < pixels.length; i++) data[4 * Math.floor(i / 3) + i % 3] = pixels[i]!;
  const image = { width, height, data, colorSpace: "srgb" as const };
  return new Uint8Array(await encode(image as ImageData, { quality: 95 }));
}

/** As many bytes as the weights of a ResNet-18 of width 64. */
const weights: Case = {
  name: "read safetensors",
  shape: "45 MB in 60 tensors",
  unit: "ms",
  work: 1,
  prepare() {
    mkdirSync(root, { recursive: true });
    const path = join(root, "weights.safetensors");
    const data = Float32Array.from({ length: 187_500 }, (_, i) => i);
    const names = Array.from({ length: 60 }, (_, i) => `layer.${i}.weight`);
    const tensor = { dtype: "F32", shape: [data.length], data } as const;
    writeFileSync(path, encodeSafetensors(new Map(names.map((name) => [name, tensor]))));
    const { arrays } = readEncoderFile(path);
    assert.deepEqual(arrays.get("layer.59.weight")!.data, data);
    return Promise.resolve({ run: () => void readEncoderFile(path), tensors: [] });
  },
};

/** Images and weights. */
export const cases: readonly Case[] = [
  loading("load PNG", 1, encodePng),
  loading("load PNG", 3, encodePng),
  loading("load JPEG", 3, encodeJpeg, { tolerance: 24 }),
  loading("load PNG from the cache", 1, encodePng, { cached: true }),
  loading("load PNG from the cache", 3, encodePng, { cached: true }),
  weights,
];

register("data", cases);
