import assert from "node:assert/strict";
import type { Picture } from "../src/data/decode/picture.ts";
import { fit, resize } from "../src/data/decode/resize.ts";
import { Random } from "../src/random.ts";
import { readFixture } from "./support/fixture.ts";

function picture(shape: readonly number[], pixels: Uint8Array): Picture {
  const [height, width, channels] = shape as [number, number, 1 | 3];
  return { width, height, channels, pixels };
}

function noise(height: number, width: number, channels: 1 | 3): Picture {
  const random = new Random(0, "resize test", height * width);
  const pixels = Uint8Array.from(
    { length: height * width * channels },
    () => random.integer(256),
  );
  return { width, height, channels, pixels };
}

Deno.test("resize() gives the bytes of Pillow", async () => {
  const fixture = await readFixture("resize");
  const cases = fixture.cases().filter((name) => !name.startsWith("jpeg_"));
  assert.equal(cases.length, 6);
  for (const name of cases) {
    const x = fixture.bytes(`${name}.x`);
    const y = fixture.bytes(`${name}.y`);
    const [height, width] = y.shape as [number, number];
    assert.deepEqual(resize(picture(x.shape, x.data), width, height).pixels, y.data, name);
  }
});

Deno.test("fit() cuts the middle out of the resized picture", () => {
  for (const [height, width] of [[50, 31], [31, 50], [17, 17], [40, 10], [5, 64]] as const) {
    for (const channels of [1, 3] as const) {
      for (const size of [1, 8, 19]) {
        const x = noise(height, width, channels);
        const shorter = Math.min(height, width);
        const whole = resize(
          x,
          Math.floor((size * width) / shorter),
          Math.floor((size * height) / shorter),
        );
        const left = Math.floor((whole.width - size) / 2);
        const top = Math.floor((whole.height - size) / 2);
        const expected: number[] = [];
        for (let y = top; y < top + size; y++) {
          const at = (y * whole.width + left) * channels;
          expected.push(...whole.pixels.subarray(at, at + size * channels));
        }
        assert.deepEqual(
          [...fit(x, size)],
          expected,
          `${height}x${width}x${channels} to ${size}`,
        );
      }
    }
  }
});

Deno.test("fit() leaves a square of the right size as it is", () => {
  const x = noise(16, 16, 3);
  assert.deepEqual(fit(x, 16), x.pixels);
});

Deno.test("resize() fades a fine checkerboard to gray", () => {
  const pixels = Uint8Array.from({ length: 64 * 64 }, (_, i) => ((i + (i >> 6)) & 1) * 255);
  const { pixels: small } = resize({ width: 64, height: 64, channels: 1, pixels }, 8, 8);
  for (const value of small) assert.ok(Math.abs(value - 127.5) < 3, `${value}`);
});
