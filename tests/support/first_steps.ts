/** Some steps of training that run in Deno and in a browser alike. */
import { backward } from "../../src/autograd.ts";
import { Gpu } from "../../src/gpu/gpu.ts";
import { ModelState } from "../../src/nn/model_state.ts";
import { ResNet } from "../../src/nn/resnet.ts";
import { ntXent } from "../../src/ops/nt_xent.ts";
import { AdamW } from "../../src/optim.ts";
import { Random } from "../../src/random.ts";

/** The losses of a small ResNet in its first three steps, on numbers drawn by a seed. */
export async function firstLosses(): Promise<number[]> {
  const gpu = await Gpu.open();
  const model = new ResNet({ arch: "resnet18", width: 8, stem: "7x7", channels: 1 });
  const state = new ModelState(gpu, model);
  const optimizer = new AdamW(state);
  const random = new Random(0, "first steps");
  const pixels = Float32Array.from({ length: 8 * 32 * 32 }, () => 2 * random.uniform() - 1);
  const images = gpu.tensor(pixels, [8, 32, 32, 1]);
  const losses: number[] = [];
  for (let step = 0; step < 3; step++) {
    let values!: Promise<Iterable<number>>;
    gpu.step(() => {
      state.zeroGrad();
      const loss = ntXent(model.forward(images), { temperature: 0.2 });
      values = loss.data();
      backward(loss);
      optimizer.step(1e-3);
    });
    losses.push(...await values);
  }
  gpu.close();
  return losses;
}
