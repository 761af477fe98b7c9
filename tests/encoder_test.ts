import assert from "node:assert/strict";
import { join } from "node:path";
import { ImageSet } from "../src/data/image_set.ts";
import {
  architectureOf,
  embed,
  type ImageFormat,
  imageNet,
  loadEncoder,
  readEncoderFile,
  saveEncoder,
} from "../src/encoder.ts";
import { UserError } from "../src/errors.ts";
import { encodeSafetensors, type SafeTensor } from "../src/formats/safetensors.ts";
import { Gpu } from "../src/gpu/gpu.ts";
import { ModelState } from "../src/nn/model_state.ts";
import { ResNet, type ResNetOptions } from "../src/nn/resnet.ts";
import { Random } from "../src/random.ts";
import { assertRelative } from "./support/assert.ts";
import { withFiles } from "./support/files.ts";
import { gpu } from "./support/op.ts";

const small: ResNetOptions = { arch: "resnet18", width: 4, stem: "3x3", channels: 1 };
const format: ImageFormat = { size: 16, normalization: { mean: [0.5], std: [0.25] } };

const arraysOf = (options: ResNetOptions) => new ModelState(gpu, new ResNet(options)).arrays();

/** Five images of noise. */
const noise = new Random(0, "encoder test");
const images = {
  count: 5,
  size: 16,
  channels: 1 as const,
  pixels: Uint8Array.from({ length: 5 * 16 * 16 }, () => noise.integer(256)),
};

Deno.test("architectureOf() finds the architecture in names and shapes", async () => {
  for (const arch of ["resnet18", "resnet34", "resnet50"] as const) {
    const options = { arch, width: 2, stem: "7x7", channels: 3 } as const;
    assert.deepEqual(architectureOf(await arraysOf(options), "file"), options);
  }
  assert.deepEqual(architectureOf(await arraysOf(small), "file"), small);
});

Deno.test("architectureOf() says what it found instead of a ResNet", async () => {
  const refuses = (arrays: Map<string, SafeTensor>, message: RegExp) =>
    assert.throws(() => architectureOf(arrays, "file"), (error: Error) => {
      assert.ok(error instanceof UserError);
      assert.match(error.message, message);
      return true;
    });
  refuses(new Map(), /^file: no ResNet-18, 34 or 50 \(conv1\.weight missing, blocks 0,0,0,0\)$/);
  const arrays = await arraysOf(small);
  for (const name of [...arrays.keys()]) if (name.startsWith("layer4.1.")) arrays.delete(name);
  refuses(arrays, /\(conv1\.weight \[4,1,3,3\], blocks 2,2,2,1\)$/);
});

Deno.test("saveEncoder() → loadEncoder() keeps every bit and the image format", async () => {
  const arrays = await arraysOf(small);
  await withFiles({}, async (dir) => {
    const file = join(dir, "encoder.safetensors");
    saveEncoder(file, arrays, format);
    const loaded = await loadEncoder(gpu, file);
    assert.deepEqual(loaded.format, format);
    assert.deepEqual(loaded.encoder.options, small);
    assert.deepEqual(await loaded.state.arrays(), arrays);
  });
});

Deno.test("readEncoderFile() leaves out the classifier of another program's file", async () => {
  const arrays = await arraysOf(small);
  const fc: SafeTensor = { dtype: "F32", shape: [1], data: Float32Array.of(1) };
  const file = encodeSafetensors(new Map([...arrays, ["fc.weight", fc], ["fc.bias", fc]]));
  await withFiles({ "torch.safetensors": file }, (dir) => {
    const read = readEncoderFile(join(dir, "torch.safetensors"));
    assert.equal(read.format, null);
    assert.deepEqual([...read.arrays.keys()].sort(), [...arrays.keys()].sort());
  });
});

Deno.test("readEncoderFile() takes colour weights that say nothing for ImageNet's", async () => {
  const file = encodeSafetensors(await arraysOf({ ...small, channels: 3 }));
  await withFiles({ "torch.safetensors": file }, (dir) => {
    assert.deepEqual(readEncoderFile(join(dir, "torch.safetensors")).format, imageNet);
  });
});

Deno.test("readEncoderFile() refuses an image format that it cannot read", () =>
  withFiles({}, (dir) => {
    for (
      const wgrad of [
        ...["{", "null", '{"size":16}', '{"size":1,"normalization":{"mean":1,"std":[1]}}'],
        ...[0, -16, 1e6, "16"].map((size) =>
          JSON.stringify({ size, normalization: { mean: [0], std: [1] } })
        ),
        ...[{ mean: [0], std: [0] }, { mean: [0, 0], std: [1, 1] }, { mean: [0], std: [1, 1, 1] }]
          .map((normalization) => JSON.stringify({ size: 16, normalization })),
      ]
    ) {
      const file = join(dir, "encoder.safetensors");
      Deno.writeFileSync(file, encodeSafetensors({}, { wgrad }));
      assert.throws(() => readEncoderFile(file), (error: Error) => {
        assert.ok(error instanceof UserError);
        assert.equal(error.message, `${file}: the image format is not readable: ${wgrad}`);
        return true;
      });
    }
  }));

Deno.test("embed() gives an image the same features in any batch, order and binding limit", async () => {
  // The stem's output of two images fits, that of five does not.
  const limits = { maxStorageBufferBindingSize: 2 ** 18 };
  const narrow = await Gpu.open({ limits });
  try {
    const features = async (on: Gpu, size: number, rows: readonly number[], batch: number) => {
      const encoder = new ResNet({ ...small, width: 4 });
      new ModelState(on, encoder);
      const pixels = new Uint8Array(5 * size * size).map((_, i) => images.pixels[i % 1280]!);
      const set = new ImageSet(on, { ...images, size, pixels });
      return await embed(encoder, set, rows, { normalization: format.normalization, batch });
    };
    const all = await features(gpu, 88, [0, 1, 2, 3, 4], 5);
    assert.equal(all.length, 5 * 32);
    assertRelative(await features(gpu, 88, [0, 1, 2, 3, 4], 2), all, 1e-5, "batches of two");
    assertRelative(await features(narrow, 88, [0, 1, 2, 3, 4], 5), all, 1e-5, "a low limit");
    const [third, first] = [all.slice(2 * 32, 3 * 32), all.slice(0, 32)];
    const chosen = await features(gpu, 88, [2, 0], 5);
    assertRelative(chosen, [...third, ...first], 1e-5, "chosen rows");
    await assert.rejects(features(narrow, 160, [0], 1), /a tensor \[1,160,160,4\]/);
  } finally {
    narrow.close();
  }
});

Deno.test("embed() leaves the encoder in training, with its running statistics", async () => {
  const encoder = new ResNet(small);
  const state = new ModelState(gpu, encoder);
  const before = await state.statistics.data();
  await embed(encoder, new ImageSet(gpu, images), [0, 1], { normalization: format.normalization });
  assert.ok(encoder.training);
  assert.deepEqual(await state.statistics.data(), before);
  assert.equal(encoder.bn1.batches, 0);
});
