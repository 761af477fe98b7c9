import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import { join } from "node:path";
import { crc32 } from "node:zlib";
import { decodeImage, loadImage } from "../src/data/decode/decode.ts";
import { decodePng, encodePng } from "../src/data/decode/png.ts";
import { type Picture, toGray } from "../src/data/decode/picture.ts";
import { UserError } from "../src/errors.ts";
import { Random } from "../src/random.ts";
import { flatPng, withFiles } from "./support/files.ts";
import { readFixture } from "./support/fixture.ts";
import { PNG_CHANNELS, type PngImage, writePng } from "./support/png.ts";

/** What a PNG should decode to, straight from the definition. */
function expected(image: PngImage): Picture {
  const { width, height, colorType, depth, samples, palette, transparency } = image;
  const channels = PNG_CHANNELS[colorType];
  const max = 2 ** depth - 1;
  const pixels: number[] = [];
  for (let i = 0; i < width * height; i++) {
    const pixel = Array.from({ length: channels }, (_, c) => samples[i * channels + c]!);
    let color = pixel.map((sample) => Math.round((sample * 255) / max));
    let alpha = 255;
    if (colorType === 4 || colorType === 6) alpha = color.pop()!;
    if (colorType === 3) {
      color = palette!.slice(3 * pixel[0]!, 3 * pixel[0]! + 3);
      alpha = transparency?.[pixel[0]!] ?? 255;
    } else if (transparency !== undefined) {
      const key = pixel.map((_, c) => 256 * transparency[2 * c]! + transparency[2 * c + 1]!);
      if (pixel.every((sample, c) => sample === key[c])) alpha = 0;
    }
    pixels.push(...color.map((value) => Math.round((value * alpha) / 255)));
  }
  const gray = colorType === 0 || colorType === 4;
  return { width, height, channels: gray ? 1 : 3, pixels: Uint8Array.from(pixels) };
}

const FORMATS = [
  { colorType: 0, depths: [1, 2, 4, 8, 16] },
  { colorType: 2, depths: [8, 16] },
  { colorType: 3, depths: [1, 2, 4, 8] },
  { colorType: 4, depths: [8, 16] },
  { colorType: 6, depths: [8, 16] },
] as const;

Deno.test("decodePng() reads every color type, depth and interlacing", () => {
  const random = new Random(0, "png test");
  let count = 0;
  for (const { colorType, depths } of FORMATS) {
    for (const depth of depths) {
      for (const interlaced of [false, true]) {
        for (const transparent of [false, true]) {
          for (const [width, height] of [[13, 9], [1, 1], [3, 21]] as const) {
            const channels = PNG_CHANNELS[colorType];
            const samples = Array.from(
              { length: width * height * channels },
              () => random.integer(2 ** depth),
            );
            const colors = 2 ** depth;
            const bytes = (n: number) => Array.from({ length: n }, () => random.integer(256));
            // For gray and RGB the first pixel's color is the transparent one.
            const key = samples.slice(0, channels).flatMap((s) => [s >> 8, s & 255]);
            const image: PngImage = {
              ...{ width, height, colorType, depth, samples, interlaced },
              ...(colorType === 3 ? { palette: bytes(3 * colors) } : {}),
              ...(transparent && colorType < 4
                ? { transparency: colorType === 3 ? bytes(colors) : key }
                : {}),
            };
            assert.deepEqual(
              decodePng(writePng(image)),
              expected(image),
              `type ${colorType}, ${depth} bit, interlaced ${interlaced}, ${width}x${height}`,
            );
            count++;
          }
        }
      }
    }
  }
  assert.equal(count, 180);
});

Deno.test("decodePng() reads back what encodePng() writes", () => {
  const pixels = Uint8Array.from({ length: 5 * 7 * 3 }, (_, i) => (i * 37) & 255);
  for (const channels of [1, 3] as const) {
    const picture = { width: 5 * (3 / channels), height: 7, channels, pixels };
    assert.deepEqual(decodePng(encodePng(picture)), picture);
  }
});

Deno.test("decodeImage() reads gray, color and progressive JPEG as Pillow does", async () => {
  const fixture = await readFixture("resize");
  for (const name of ["jpeg_gray", "jpeg_rgb", "jpeg_progressive"]) {
    const y = fixture.bytes(`${name}.y`);
    const { width, height, channels, pixels } = await decodeImage(
      fixture.bytes(`${name}.file`).data,
    );
    assert.deepEqual([height, width, channels], y.shape, name);
    const worst = Math.max(...pixels.map((value, i) => Math.abs(value - y.data[i]!)));
    assert.ok(worst <= 2, `${name}: off by ${worst}`);
  }
});

Deno.test("toGray() is Rec. 601 luma and keeps every gray level", () => {
  const gray = Array.from({ length: 256 }, (_, v) => [v, v, v]).flat();
  const colors = [255, 0, 0, 0, 255, 0, 0, 0, 255];
  const pixels = Uint8Array.from([...gray, ...colors]);
  assert.deepEqual(
    [...toGray({ width: 259, height: 1, channels: 3, pixels }).pixels],
    [...Array(256).keys(), 76, 150, 29],
  );
});

Deno.test("loadImage() turns gray into RGB and RGB into gray", async () => {
  const file = await Deno.makeTempFile({ suffix: ".png" });
  try {
    const gray = Uint8Array.from([10, 20, 30, 40]);
    await Deno.writeFile(file, encodePng({ width: 2, height: 2, channels: 1, pixels: gray }));
    assert.deepEqual(await loadImage(file, 2, 1), gray);
    assert.deepEqual([...await loadImage(file, 2, 3)], [...gray].flatMap((v) => [v, v, v]));
    const red = Uint8Array.from([255, 0, 0]);
    await Deno.writeFile(file, encodePng({ width: 1, height: 1, channels: 3, pixels: red }));
    assert.deepEqual([...await loadImage(file, 1, 1)], [76]);
    assert.deepEqual(await loadImage(file, 1, 3), red);
  } finally {
    await Deno.remove(file);
  }
});

Deno.test("loadImage() says which file is bad and why", async () => {
  const png = writePng({ width: 9, height: 9, colorType: 0, depth: 8, samples: Array(81).fill(7) });
  const jpeg = (await readFixture("resize")).bytes("jpeg_rgb.file").data;
  const patched = (bytes: Uint8Array, at: number, ...values: number[]) => {
    const copy = bytes.slice();
    copy.set(values, at);
    return copy;
  };
  const frame = jpeg.findIndex((byte, i) => byte === 0xff && jpeg[i + 1] === 0xc0);
  const scan = jpeg.findLastIndex((byte, i) => byte === 0xff && jpeg[i + 1] === 0xda);
  /** A PNG with the checksums of its chunks made right again, and some chunks left out. */
  const withChunks = (bytes: Uint8Array, without: readonly string[] = []) => {
    const file = Buffer.from(bytes);
    const parts = [file.subarray(0, 8)];
    for (let at = 8; at < file.length;) {
      const end = at + 8 + file.readUInt32BE(at);
      file.writeUInt32BE(crc32(file.subarray(at + 4, end)), end);
      const name = file.toString("latin1", at + 4, at + 8);
      if (!without.includes(name)) parts.push(file.subarray(at, end + 4));
      at = end + 4;
    }
    return Uint8Array.from(Buffer.concat(parts));
  };
  const resized = (width: number, height: number) =>
    withChunks(patched(png, 18, width >> 8, width & 255, 0, 0, height >> 8, height & 255));
  const interlaced = withChunks(patched(png, 28, 1));
  const depth3 = withChunks(patched(png, 24, 3));
  const beyond = writePng({
    ...{ width: 3, height: 3, colorType: 3, depth: 4, samples: Array(9).fill(7) },
    palette: [1, 2, 3, 4, 5, 6],
  });
  const bad: [string, Uint8Array, RegExp][] = [
    ["empty", new Uint8Array(0), /empty/],
    ["text", new TextEncoder().encode("<html>"), /neither PNG, JPEG nor DICOM \(.* 3c 68 74 6d\)/],
    ["short PNG header", png.slice(0, 20), /PNG is truncated/],
    ["half a PNG", png.slice(0, 50), /PNG is truncated/],
    ["PNG without end", png.slice(0, -6), /PNG is truncated/],
    ["PNG with a flipped byte", patched(png, 45, png[45]! ^ 255), /PNG is damaged/],
    ["huge PNG", patched(png, 16, 0, 0, 0x40, 1), /PNG header says 16385 × 9 pixels/],
    ["vast PNG", patched(png, 16, 0, 0, 0x40, 0, 0, 0, 0x40, 0), /16384 × 16384 pixels/],
    ["PNG with too few rows", resized(9, 10), /: the PNG is truncated$/],
    ["PNG with too many rows", resized(9, 8), /PNG is damaged \(it holds too much data\)/],
    ["PNG that says far more than it holds", resized(16_000, 8_000), /PNG is truncated/],
    ["interlaced PNG that holds less", interlaced, /PNG is truncated/],
    ["PNG with a color beyond its palette", beyond, /color [2-9]\d* of a palette of 2/],
    ["PNG without its palette", withChunks(beyond, ["PLTE"]), /PNG has no palette/],
    ["PNG without data", withChunks(png, ["IDAT"]), /PNG is truncated/],
    ["PNG of an odd depth", depth3, /header says color type 0 of 3 bits/],
    [
      "JPEG that says far more than it holds",
      patched(jpeg, frame + 5, 31, 64, 62, 128),
      /truncated/,
    ],
    ["PNG of width 0", patched(png, 16, 0, 0, 0, 0), /says 0 × 9 pixels/],
    ["half a JPEG", jpeg.slice(0, scan + 40), /JPEG is truncated/],
    ["JPEG header", jpeg.slice(0, 12), /JPEG is truncated/],
    ["huge JPEG", patched(jpeg, frame + 7, 0x40, 1), /JPEG header says 16385 × 24 pixels/],
    ["CMYK JPEG", patched(jpeg, frame + 9, 4), /CMYK/],
    ["JPEG with no tables", patched(jpeg, frame + 1, 0xc3), /JPEG cannot be decoded \(.+\)/],
  ];
  const file = await Deno.makeTempFile({ suffix: ".png" });
  try {
    for (const [what, bytes, reason] of bad) {
      await Deno.writeFile(file, bytes);
      await assert.rejects(
        loadImage(file, 8, 1),
        (error) =>
          error instanceof UserError && error.message.startsWith(`${file}: `) &&
          reason.test(error.message),
        what,
      );
    }
  } finally {
    await Deno.remove(file);
  }
  await assert.rejects(loadImage(file, 8, 1), new UserError(`${file}: no such file`));
});

Deno.test("decodeImage() reads a good JPEG after a damaged one", async () => {
  const jpeg = (await readFixture("resize")).bytes("jpeg_gray.file").data;
  const frame = jpeg.findIndex((byte, i) => byte === 0xff && jpeg[i + 1] === 0xc0);
  const damaged = jpeg.slice();
  damaged[frame + 1] = 0xc3;
  await assert.rejects(decodeImage(damaged), UserError);
  assert.equal((await decodeImage(jpeg)).channels, 1);
});

Deno.test("loadImage() names what is no readable file", async () => {
  await withFiles({ "x.png": "", "secret.png": flatPng(1) }, async (dir) => {
    const path = (name: string) => join(dir, name);
    const refuses = (name: string, message: string) =>
      assert.rejects(loadImage(path(name), 8, 1), new UserError(`${path(name)}${message}`));
    await refuses("nothing.png", ": no such file");
    await refuses("", ": is a folder, expected a file");
    await refuses("x.png/y.png", ": no such file: a part of its path is not a folder");
    await refuses(`${"n".repeat(300)}.png`, ": the name is too long");
    await Deno.symlink(path("b.png"), path("a.png"));
    await Deno.symlink(path("a.png"), path("b.png"));
    await refuses("a.png", ": a circle of links");
    await Deno.truncate(path("x.png"), 2 ** 30 + 1);
    await refuses("x.png", ": 1073741825 bytes; images of up to 1073741824 are read");
    await Deno.chmod(path("secret.png"), 0);
    const isReadable = await Deno.readFile(path("secret.png")).then(() => true, () => false);
    // The superuser reads everything.
    if (!isReadable) await refuses("secret.png", ": permission denied");
  });
});
