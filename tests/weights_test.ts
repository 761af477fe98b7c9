import assert from "node:assert/strict";
import { join } from "node:path";
import { ImageSet } from "../src/data/image_set.ts";
import { embed, imageNet, loadEncoder } from "../src/encoder.ts";
import { UserError } from "../src/errors.ts";
import { encodeSafetensors } from "../src/formats/safetensors.ts";
import { decodeWeights, readWeights } from "../src/formats/weights.ts";
import { Random } from "../src/random.ts";
import { assertRelative } from "./support/assert.ts";
import { withFiles } from "./support/files.ts";
import { FIXTURES } from "./support/fixture.ts";
import { gpu } from "./support/op.ts";
import { findTorch, NO_TORCH, saveWithTorch } from "./support/python.ts";

const python = await findTorch();
if (python === null) console.log(`skipped: weights that PyTorch saved: ${NO_TORCH}`);

Deno.test("decodeWeights() tells the kinds of files apart by their content", () => {
  const read = (name: string) => decodeWeights(Deno.readFileSync(new URL(name, FIXTURES)));
  assert.equal(read("weights_zip.pth").metadata.format, "PyTorch zip");
  assert.equal(read("weights_legacy.pth").metadata.format, "PyTorch legacy");
  assert.equal(read("weights.safetensors").metadata.script, "tests/reference/weights.py");
  // Its header is 128 bytes long: the first byte is that of a pickle too.
  const { length } = JSON.stringify({ __metadata__: { x: "" } });
  const file = encodeSafetensors({}, { x: "x".repeat(128 - length) });
  assert.equal(file[0], 0x80);
  assert.equal(decodeWeights(file).tensors.size, 0);
});

Deno.test("readWeights() names a file of another kind, and what it begins with", () =>
  withFiles({ "page.pth": "<!DOCTYPE html>", "empty.pth": "" }, (dir) => {
    const refuses = (name: string, message: string) =>
      assert.throws(() => readWeights(join(dir, name)), (error: Error) => {
        assert.ok(error instanceof UserError);
        assert.equal(error.message, `${join(dir, name)}: ${message}`);
        return true;
      });
    refuses("page.pth", "neither safetensors nor PyTorch (it begins with bytes 3c 21 44 4f)");
    refuses("empty.pth", "neither safetensors nor PyTorch (the file is empty)");
    refuses("missing.pth", "no such file");
  }));

Deno.test({
  name: "a torchvision ResNet-18 saved by PyTorch gives the same features of gray images",
  ignore: python === null,
  fn: () =>
    withFiles({}, async (dir) => {
      const [count, size] = [2, 64];
      const random = new Random(0, "gray images");
      const levels = Uint8Array.from({ length: count * size * size }, () => random.integer(256));
      const expected = await saveWithTorch(python!, "resnet18", dir, {
        shape: [count, size, size],
        data: Float32Array.from(levels),
      });
      const pixels = Uint8Array.from({ length: 3 * levels.length }, (_, i) =>
        levels[Math.floor(i / 3)]!);
      const images = new ImageSet(gpu, { count, size, channels: 3, pixels });
      for (const name of ["zip.pth", "legacy.pth"]) {
        const { encoder, format } = await loadEncoder(gpu, join(dir, name));
        assert.deepEqual(format, imageNet);
        const features = await embed(encoder, images, [0, 1], imageNet);
        assertRelative(features, expected, 1e-4, name);
      }
    }),
});
