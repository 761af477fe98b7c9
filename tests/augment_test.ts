import assert from "node:assert/strict";
import {
  type Augmentation,
  type ColourOperation,
  drawView,
  drawViews,
  measureNormalization,
  type Normalization,
  plainViews,
  presets,
  renderViews,
  type Transform,
  type View,
} from "../src/data/augment.ts";
import type { Images } from "../src/data/dataset.ts";
import { ImageSet } from "../src/data/image_set.ts";
import { Random } from "../src/random.ts";
import type { Tensor } from "../src/tensor.ts";
import { naiveView } from "./reference/naive_augment.ts";
import { assertClose } from "./support/assert.ts";
import { readFixture } from "./support/fixture.ts";
import { gpu } from "./support/op.ts";

const identity: Transform = [1, 0, 0, 0, 1, 0];
const unchanged: View = {
  image: 0,
  transform: identity,
  jitter: new Map(),
  gamma: 1,
  gray: false,
  sigma: 0,
};
const unit: Normalization = { mean: [0, 0, 0], std: [1, 1, 1] };
const imagenet: Normalization = { mean: [0.485, 0.456, 0.406], std: [0.229, 0.224, 0.225] };
/** Odd and even sizes, below, at and above a tile of the shader. */
const sizes = [4, 16, 33, 64];

/** Slow waves with noise on them, the same for the same arguments. */
function testImages(count: number, size: number, channels: 1 | 3): Images {
  const random = new Random(5, "images", size * channels);
  const pixels = Uint8Array.from({ length: count * size * size * channels }, (_, i) => {
    const [x, y] = [Math.floor(i / channels) % size, Math.floor(i / channels / size)];
    const wave = Math.sin(x / 5 + i % channels) + Math.cos(y / 7 - 2 * (i % channels));
    return 128 + 45 * wave + random.uniform(-30, 30);
  });
  return { count, size, channels, pixels };
}

function upload({ count, size, channels, pixels }: Images): Tensor<"u8"> {
  return gpu.tensor(pixels, [count, size, size, channels]);
}

/** What `fn` makes of images on the GPU, on the CPU. */
async function pixelsOf(
  images: Images,
  fn: (images: Tensor<"u8">) => Tensor<"f32">,
): Promise<Float32Array> {
  const views = gpu.step(() => fn(upload(images)));
  const values = await views.data();
  views.dispose();
  return values;
}

function render(
  images: Images,
  views: readonly View[],
  normalization = unit,
): Promise<Float32Array> {
  return pixelsOf(images, (on) => renderViews(on, views, normalization));
}

function naive(images: Images, views: readonly View[], normalization = unit): number[] {
  return views.flatMap((view) => naiveView(images, view, normalization));
}

Deno.test("plainViews() and the recipe none give the pixels, normalised", async () => {
  const rows = [2, 0, 0, 1];
  for (const size of sizes) {
    for (const channels of [1, 3] as const) {
      const images = testImages(3, size, channels);
      images.pixels.set([0, 255], 0);
      const length = size * size * channels;
      for (const normalization of [unit, imagenet]) {
        const { mean, std } = normalization;
        const expected = rows.flatMap((row) =>
          Array.from(images.pixels.subarray(row * length, (row + 1) * length), (value, i) => {
            const c = i % channels;
            return (value / 255 - mean[c]!) / std[c]!;
          })
        );
        const options = { recipe: presets.none, normalization, seed: 1, counter: 2 };
        const tolerance = { atol: normalization === unit ? 1e-6 : 2e-6, rtol: 1e-6 };
        const label = `${size}² in ${channels}`;
        const plain = await pixelsOf(images, (on) => plainViews(on, rows, normalization));
        assertClose(plain, expected, tolerance, `plain ${label}`);
        const none = await pixelsOf(images, (on) => drawViews(on, rows, options));
        assertClose(none, expected, tolerance, `none ${label}`);
      }
    }
  }
});

Deno.test("renderViews() resamples as bicubic interpolation with repeated edges", async () => {
  const [cos, sin] = [Math.cos(0.3), Math.sin(0.3)];
  for (const size of sizes) {
    const transforms: Transform[] = [
      [0.5, 0, 0.2 * size, 0, 0.3, 0.6 * size],
      [-0.7, 0, 0.9 * size, 0, 0.7, 0.1 * size],
      [0.8 * cos, -0.8 * sin, 0.3 * size, 0.8 * sin, 0.8 * cos, -0.1 * size],
      // Turned a little: over the left upper edge, mirrored over the right lower one, and in great steps.
      [0.9, -0.15, 0.1 * size, 0.2, 0.8, -0.1 * size],
      [-0.6, 0.1, 0.9 * size, -0.3, 1, 0.5 * size],
      [1, 0.19, -0.1 * size, 0.1, 1.9, -0.5 * size],
      // Enlarged, reflected in the diagonal, and mostly outside.
      [1.9, 0, -0.4 * size, 0, 1.9, -0.5 * size],
      [0, 1, 0, 1, 0, 0],
      [1, 0, 0.8 * size, 0, 1, -1.2 * size],
    ];
    for (const channels of [1, 3] as const) {
      const images = testImages(2, size, channels);
      // Black beside white, where bicubic interpolation leaves [0, 1] and is cut.
      images.pixels.fill(255, 0, 3 * channels).fill(0, 3 * channels, 6 * channels);
      const views = transforms.map((transform, i) => ({ ...unchanged, transform, image: i % 2 }));
      const label = `${size}² in ${channels}`;
      const together = await render(images, views);
      assertClose(together, naive(images, views), { atol: 2e-5 }, label);
      // Upright views, and those turned a little, have ways of their own where no others are beside them.
      const length = size * size * channels;
      for (const [i, view] of views.entries()) {
        const alone = await render(images, [view]);
        assert.deepEqual(alone, together.slice(i * length, (i + 1) * length), `${i} of ${label}`);
      }
    }
  }
});

Deno.test("renderViews() changes colours and blurs as torchvision", async () => {
  const fixture = await readFixture("augment");
  const names: ColourOperation[] = ["brightness", "contrast", "saturation", "hue"];
  for (const name of fixture.cases()) {
    const x = fixture.bytes(`${name}.x`);
    const y = fixture.tensor(`${name}.y`);
    const factors = fixture.tensor(`${name}.factors`).data;
    const operations = fixture.integers(`${name}.operations`);
    const gray = fixture.integer(`${name}.gray`) === 1;
    const view: View = {
      ...unchanged,
      jitter: new Map(operations.map((operation, i) => [names[operation]!, factors[i]!])),
      gamma: fixture.scalar(`${name}.gamma`),
      gray,
      sigma: fixture.scalar(`${name}.sigma`),
    };
    // torchvision's red of 0.2989 for BT.601's 0.299 moves the luma of a red pixel by 1e-4.
    const usesLuma = x.shape[2] === 3 &&
      (gray || view.jitter.has("contrast") || view.jitter.has("saturation"));
    const [size, , channels] = x.shape as [number, number, 1 | 3];
    const actual = await render({ count: 1, size, channels, pixels: x.data }, [view]);
    assertClose(actual, y.data, { atol: usesLuma ? 1.5e-4 : 3e-6 }, name);
  }
});

Deno.test("renderViews() applies the jitter in every order", async () => {
  const factors = [["brightness", 1.5], ["contrast", 0.6], ["saturation", 1.7], ["hue", 0.15]];
  const orders = permutations(factors as [ColourOperation, number][]);
  assert.equal(orders.length, 24);
  const views = orders.map((order) => ({ ...unchanged, jitter: new Map(order) }));
  for (const channels of [1, 3] as const) {
    const images = testImages(1, 8, channels);
    const actual = await render(images, views);
    assertClose(actual, naive(images, views), { atol: 1e-5 }, `in ${channels}`);
    const length = 8 * 8 * channels;
    const different = new Set(
      views.map((_, i) => actual.slice(i * length, (i + 1) * length).join()),
    );
    assert.equal(different.size, channels === 3 ? 24 : 2);
  }
});

Deno.test("renderViews() applies a part of the jitter, gamma and gray alone", async () => {
  const images = testImages(1, 16, 3);
  const views: View[] = [
    { ...unchanged, jitter: new Map([["hue", 0.3], ["brightness", 0.7]]) },
    { ...unchanged, jitter: new Map([["brightness", 1.3], ["saturation", 0.3], ["hue", -0.1]]) },
    { ...unchanged, jitter: new Map([["saturation", 1.6]]), gamma: 1.2 },
    { ...unchanged, jitter: new Map([["contrast", 1]]), gray: true },
    { ...unchanged, gamma: 0.8, sigma: 0.9 },
    { ...unchanged, jitter: new Map([["brightness", 0.8]]), sigma: 1.1 },
  ];
  assertClose(
    await render(images, views, imagenet),
    naive(images, views, imagenet),
    { atol: 2e-5 },
    "views",
  );
});

Deno.test("drawn views are what their definitions say", async () => {
  for (const size of [16, 30, 33, 64, 68]) {
    for (const [preset, channels] of [["simclr", 3], ["medical", 1], ["simclr", 1]] as const) {
      for (const count of [1, 5]) {
        const images = testImages(2, size, channels);
        const views = Array.from(
          { length: count },
          (_, i) => drawView(presets[preset], new Random(7, preset, i), i % 2, size),
        );
        assertClose(
          await render(images, views, imagenet),
          naive(images, views, imagenet),
          { atol: 1e-4 },
          `${count} ${preset} views of ${size}² in ${channels}`,
        );
      }
    }
  }
});

Deno.test("a blur leaves constant images alone", async () => {
  for (const size of [16, 64]) {
    const flat = { ...testImages(1, size, 1), pixels: new Uint8Array(size * size).fill(102) };
    const blurred = await render(flat, [{ ...unchanged, sigma: 2 }]);
    assertClose(blurred, new Array(size * size).fill(0.4), { atol: 1e-6 }, `constant ${size}²`);
  }
});

Deno.test("drawViews() depends on seed, counter and position alone", async () => {
  const images = testImages(3, 33, 3);
  const rows = [0, 1, 2, 1, 1];
  const draw = (rows: number[], seed: number, counter: number) =>
    pixelsOf(
      images,
      (on) =>
        drawViews(on, rows, { recipe: presets.simclr, normalization: imagenet, seed, counter }),
    );
  const views = await draw(rows, 3, 10);
  assert.deepEqual(await draw(rows, 3, 10), views);
  assert.notDeepEqual(await draw(rows, 4, 10), views);
  assert.notDeepEqual(await draw(rows, 3, 11), views);
  // The first views are the same whatever follows, and so is each view whatever precedes it.
  const length = 33 * 33 * 3;
  assert.deepEqual(await draw(rows.slice(0, 2), 3, 10), views.slice(0, 2 * length));
  const others = await draw([2, 2, 2, 1, 0], 3, 10);
  assert.deepEqual(others.slice(3 * length, 4 * length), views.slice(3 * length, 4 * length));
  // Two views of one image in a batch are two draws.
  assert.notDeepEqual(views.slice(3 * length, 4 * length), views.slice(4 * length));
});

/** Views of four images of 33 pixels. */
const viewsOfFour = (length: number, name: string) =>
  Array.from(
    { length },
    (_, i) => drawView(presets.simclr, new Random(9, name, i), i % 4, 33),
  );

Deno.test("a view does not depend on those beside it", async () => {
  const images = testImages(4, 33, 3);
  const views = viewsOfFour(6, "beside");
  const together = await render(images, views, imagenet);
  const length = 33 * 33 * 3;
  for (const [i, view] of views.entries()) {
    const alone = await render(images, [view], imagenet);
    assert.deepEqual(alone, together.slice(i * length, (i + 1) * length), `view ${i}`);
  }
});

Deno.test("a view does not depend on how many there are", async () => {
  const images = testImages(4, 33, 3);
  const views = viewsOfFour(400, "many");
  const together = await render(images, views, imagenet);
  // Software adapters make them in parts.
  const length = 33 * 33 * 3;
  for (let i = 0; i < views.length; i += 25) {
    const few = await render(images, views.slice(i, i + 25), imagenet);
    assert.deepEqual(few, together.slice(i * length, (i + 25) * length), `from view ${i}`);
  }
});

Deno.test("images that do not stay on the GPU give the same bits, and are waited for", async () => {
  const images = testImages(5, 33, 1);
  const views = async (residentBytes: number) => {
    const set = new ImageSet(gpu, images, { residentBytes });
    const isResident = residentBytes >= images.pixels.length;
    const before = set.uploadSeconds;
    assert.equal(before > 0, isResident);
    const values = gpu.step(() => {
      const part = set.batch([4, 1, 2]);
      return drawViews(part.images, [...part.rows, ...part.rows], {
        recipe: presets.medical,
        normalization: imagenet,
        seed: 0,
        counter: 5,
      });
    });
    assert.equal(set.uploadSeconds > before, !isResident);
    const result = await values.data();
    values.dispose();
    set.dispose();
    return result;
  };
  assert.deepEqual(await views(images.pixels.length - 1), await views(images.pixels.length));
});

Deno.test("the memory of views does not grow with the steps", async () => {
  const images = upload(testImages(4, 16, 3));
  const step = (counter: number) =>
    gpu.step(() => {
      const rows = Array.from({ length: 64 }, (_, i) => i % 4);
      drawViews(images, rows, {
        recipe: presets.simclr,
        normalization: imagenet,
        seed: 0,
        counter,
      });
    });
  for (let counter = 0; counter < 3; counter++) step(counter);
  const { live, allocated } = gpu.memory;
  for (let counter = 3; counter < 30; counter++) step(counter);
  await gpu.idle();
  assert.deepEqual([gpu.memory.live, gpu.memory.allocated], [live, allocated]);
  images.dispose();
});

Deno.test("renderViews() refuses images below 4×4 and too many views", () => {
  const tooMany = Array.from({ length: 65536 }, () => unchanged);
  assert.throws(
    () => gpu.step(() => renderViews(upload(testImages(1, 3, 1)), [unchanged], unit)),
    /images \[1,3,3,1\] are smaller than 4×4/,
  );
  assert.throws(
    () => gpu.step(() => renderViews(upload(testImages(1, 4, 1)), tooMany, unit)),
    /65536 at once, at most 65535/,
  );
});

const draws = 4000;
const side = 64;

function drawMany(recipe: Augmentation): View[] {
  return Array.from(
    { length: draws },
    (_, i) => drawView(recipe, new Random(0, "draws", i), 0, side),
  );
}

/** Fails unless the mean of draws is within four standard errors of what is expected. */
function assertMean(values: readonly number[], expected: number, label: string): void {
  const mean = average(values);
  const variance = average(values.map((value) => (value - mean) ** 2));
  const error = 4 * Math.sqrt(variance / values.length);
  assert.ok(
    Math.abs(mean - expected) <= error,
    `${label}: ${mean}, expected ${expected} ± ${error}`,
  );
}

function average(values: readonly number[]): number {
  return values.reduce((sum, value) => sum + value, 0) / values.length;
}

/** Signed: negative for a mirrored crop. */
function areaOf({ transform: [xx, xy, , yx, yy] }: View): number {
  return xx * yy - xy * yx;
}

function assertWithin(values: readonly number[], [low, high]: readonly number[], label: string) {
  const [smallest, largest] = [Math.min(...values), Math.max(...values)];
  const slack = 0.05 * (high! - low!);
  assert.ok(smallest >= low! && largest <= high!, `${label}: ${smallest} to ${largest}`);
  assert.ok(smallest < low! + slack && largest > high! - slack, `${label} reaches its bounds`);
}

Deno.test("crops are those of the random resized crop", () => {
  const { area, aspect } = presets.simclr;
  const views = drawMany(presets.simclr);
  const areas = views.map((view) => Math.abs(areaOf(view)));
  const ratios = views.map(({ transform: [xx, , , , yy] }) => Math.log(Math.abs(xx) / yy));
  const spread = Math.log(aspect[1]);
  assertWithin(areas, area, "area");
  assertWithin(ratios, [-spread, spread], "logarithm of the aspect");
  assertMean(ratios, 0, "logarithm of the aspect");
  // A crop of area a fits at an aspect between a and 1/a, and is drawn again if it does not.
  const steps = Array.from({ length: 1000 }, (_, i) => area[0] + (1 - area[0]) * (i + 0.5) / 1000);
  const fits = steps.map((a) => Math.min(1, -Math.log(a) / spread));
  const expected = average(steps.map((a, i) => a * fits[i]!)) / average(fits);
  assertMean(areas, expected, "area");

  const corners = views.map(({ transform: [xx, , x0, , yy, y0] }) => {
    const [x1, y1] = [xx * side + x0, yy * side + y0];
    return { left: Math.min(x0, x1), right: Math.max(x0, x1), top: y0, bottom: y1 };
  });
  const edge = 1e-9;
  for (const { left, right, top, bottom } of corners) {
    assert.ok(left > -edge && right < side + edge && top > -edge && bottom < side + edge);
  }
  assertMean(corners.map(({ left, right }) => (left + right) / 2), side / 2, "centre");
  assertMean(corners.map(({ top, bottom }) => (top + bottom) / 2), side / 2, "centre");
});

Deno.test("flips, jitter, gray and blur come as often as the recipe says", () => {
  const recipe = presets.simclr;
  const views = drawMany(recipe);
  const share = (matches: (view: View) => boolean) => views.map((view) => matches(view) ? 1 : 0);
  assertMean(share((view) => areaOf(view) < 0), recipe.flip, "flips");
  assertMean(share(({ jitter }) => jitter.size === 4), recipe.jitter, "jitter");
  assertMean(share(({ jitter }) => jitter.size === 0), 1 - recipe.jitter, "no jitter");
  assertMean(share(({ gray }) => gray), recipe.gray, "gray");
  assertMean(share(({ sigma }) => sigma > 0), recipe.blur, "blur");
  assertWithin(views.map(({ sigma }) => sigma).filter((sigma) => sigma > 0), [0.1, 2], "sigma");

  const jittered = views.map(({ jitter }) => jitter).filter(({ size }) => size > 0);
  for (const operation of ["brightness", "contrast", "saturation"] as const) {
    const factors = jittered.map((jitter) => jitter.get(operation)!);
    assertWithin(factors, [1 - recipe[operation], 1 + recipe[operation]], operation);
    assertMean(factors, 1, operation);
  }
  const hues = jittered.map((jitter) => jitter.get("hue")!);
  assertWithin(hues, [-recipe.hue, recipe.hue], "hue");
  assertMean(hues, 0, "hue");

  const orders = jittered.map((jitter) => [...jitter.keys()].join());
  for (const order of permutations(["brightness", "contrast", "saturation", "hue"])) {
    assertMean(orders.map((drawn) => drawn === order.join() ? 1 : 0), 1 / 24, order.join());
  }
});

Deno.test("medical views are never mirrored, gray or turned by more than 10 degrees", () => {
  const recipe = presets.medical;
  const views = drawMany(recipe);
  assert.ok(views.every((view) => areaOf(view) > 0 && !view.gray));
  assertWithin(views.map(areaOf), recipe.area, "area");
  const angles = views.map(({ transform: [xx, , , yx] }) => Math.atan2(yx, xx) * 180 / Math.PI);
  assertWithin(angles, [-recipe.rotation, recipe.rotation], "angle");
  assertMean(angles, 0, "angle");
  const jittered = views.filter(({ jitter }) => jitter.size > 0);
  const gammas = jittered.map(({ gamma }) => gamma);
  assertWithin(gammas, recipe.gamma, "gamma");
  assertMean(gammas.map(Math.log), 0, "logarithm of gamma");
  for (const { jitter } of jittered) {
    assert.deepEqual([jitter.get("saturation"), jitter.get("hue")], [1, 0]);
  }
});

Deno.test("measureNormalization() is mean and deviation of each channel", () => {
  const gray = measureNormalization(Uint8Array.of(0, 51, 102, 255), 1);
  assertClose(gray.mean, [0.4], { rtol: 1e-12 }, "mean");
  assertClose(gray.std, [Math.sqrt((0.16 + 0.04 + 0 + 0.36) / 4)], { rtol: 1e-12 }, "std");
  const rgb = measureNormalization(Uint8Array.of(0, 255, 51, 0, 0, 153), 3);
  assertClose(rgb.mean, [0, 0.5, 0.4], { atol: 1e-12 }, "means");
  // Flat channels are not divided by zero.
  assertClose(rgb.std, [1e-3, 0.5, 0.2], { rtol: 1e-12 }, "deviations");
});

function permutations<T>(items: readonly T[]): T[][] {
  if (items.length === 0) return [[]];
  return items.flatMap((item, i) =>
    permutations(items.toSpliced(i, 1)).map((rest) => [item, ...rest])
  );
}
