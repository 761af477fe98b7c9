import assert from "node:assert/strict";
import { noGrad } from "../src/autograd.ts";
import { readEncoderFile, saveEncoder } from "../src/encoder.ts";
import { ModelState } from "../src/nn/model_state.ts";
import { ResNet } from "../src/nn/resnet.ts";
import { assertRelative } from "./support/assert.ts";
import { withFiles } from "./support/files.ts";
import { gpu, randomTensor } from "./support/op.ts";
import { embedWithTorch, findTorch, NO_TORCH } from "./support/python.ts";

const python = await findTorch();
if (python === null) console.log(`skipped: torchvision reads what wgrad writes: ${NO_TORCH}`);

Deno.test({
  name: "torchvision reads a width-64 encoder.safetensors and computes the same features",
  ignore: python === null,
  fn: () =>
    withFiles({}, async (dir) => {
      const encoder = new ResNet({ arch: "resnet18", width: 64, stem: "7x7", channels: 3 });
      const state = new ModelState(gpu, encoder, { seed: 1 });
      const forward = async (x: ReturnType<typeof randomTensor>) => {
        const h = gpu.step(() => noGrad(() => encoder.forward(x)));
        return await h.data() as Float32Array;
      };
      // Running statistics of one batch: those of a new network would hide a mix-up.
      await forward(randomTensor([4, 64, 64, 3], "other images", 2));
      const file = `${dir}/encoder.safetensors`;
      const normalization = { mean: [0, 0, 0], std: [1, 1, 1] };
      saveEncoder(file, await state.arrays(), { size: 64, normalization });

      const x = randomTensor([4, 64, 64, 3], "images");
      const data = await x.data() as Float32Array;
      const torch = await embedWithTorch(python!, "resnet18", file, { shape: x.shape, data });
      assert.deepEqual(torch.missing, ["fc.weight", "fc.bias"]);
      assert.deepEqual(torch.unexpected, []);
      assertRelative(await forward(x), torch.h, 1e-4, "features in training");
      await state.load(readEncoderFile(file).arrays, file);
      encoder.train(false);
      assertRelative(await forward(x), torch.evalH, 1e-4, "features in evaluation");
    }),
});
