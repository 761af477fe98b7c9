import assert from "node:assert/strict";
import { backward } from "../src/autograd.ts";
import { toFloat32 } from "../src/formats/safetensors.ts";
import { BatchNorm, Conv2d, Linear } from "../src/nn/layers.ts";
import { ModelState } from "../src/nn/model_state.ts";
import { Module } from "../src/nn/module.ts";
import { crossEntropy } from "../src/ops/losses.ts";
import { globalAvgPool, maxPool2d } from "../src/ops/pool.ts";
import { Adam, AdamW, Ema, type FlatParameters, LARS, SGD } from "../src/optim.ts";
import type { Tensor } from "../src/tensor.ts";
import { assertClose, assertRelative } from "./support/assert.ts";
import { type Fixture, readFixture } from "./support/fixture.ts";
import { gpu } from "./support/op.ts";

/** The network of `tests/reference/curves.py`. */
class Network extends Module {
  readonly conv = new Conv2d(3, 8, 3, { padding: 1 });
  readonly bn = new BatchNorm(8);
  readonly fc = new Linear(8, 4);

  forward(x: Tensor): Tensor {
    const y = this.bn.forward(this.conv.forward(x), { relu: true });
    return this.fc.forward(globalAvgPool(maxPool2d(y, { kernel: 3, stride: 2, padding: 1 })));
  }
}

/** The network with the reference's first weights. */
async function start(fixture: Fixture): Promise<{ network: Network; state: ModelState }> {
  const network = new Network();
  const state = new ModelState(gpu, network);
  const arrays = await state.arrays();
  for (const [name, array] of arrays) {
    const { shape, data } = fixture.has(`problem.param.${name}`)
      ? fixture.tensor(`problem.param.${name}`)
      : { shape: array.shape, data: toFloat32(array) };
    arrays.set(name, { dtype: "F32", shape, data: new Float32Array(data) });
  }
  await state.load(arrays, "curves");
  return { network, state };
}

/** The optimiser of a case, with the case's options. */
function optimizer(fixture: Fixture, name: string, state: ModelState) {
  const option = (key: string) => fixture.scalar(`${name}.${key}`);
  const excludes = fixture.integer(`${name}.exclude`) === 1;
  const parameters: FlatParameters = excludes ? state : {
    gpu,
    values: state.values,
    gradients: state.gradients,
    segments: state.segments.map((segment) => ({ ...segment, decay: true })),
  };
  const clip = fixture.has(`${name}.max_norm`) ? option("max_norm") : 0;
  const options = { weightDecay: option("weight_decay"), clip };
  const [type] = name.split("_");
  switch (type) {
    case "sgd": {
      const nesterov = fixture.integer(`${name}.nesterov`) === 1;
      return new SGD(parameters, { ...options, momentum: option("momentum"), nesterov });
    }
    case "lars":
      return new LARS(parameters, { ...options, momentum: option("momentum"), eta: option("eta") });
    default: {
      const betas = [option("beta1"), option("beta2")] as const;
      const Type = type === "adam" ? Adam : AdamW;
      return new Type(parameters, { ...options, betas, epsilon: option("epsilon") });
    }
  }
}

const fixture = await readFixture("curves");

for (const name of fixture.cases().filter((name) => name !== "problem")) {
  Deno.test(`ten steps of ${name} follow PyTorch's`, async () => {
    const { network, state } = await start(fixture);
    const rule = optimizer(fixture, name, state);
    const ema = fixture.has(`${name}.ema_decay`)
      ? new Ema(state, fixture.scalar(`${name}.ema_decay`))
      : null;
    const x = fixture.tensor("problem.x");
    const labels = fixture.integers("problem.labels");
    const [steps, ...image] = x.shape as [number, number, number, number, number];
    const [pixels, batch] = [x.data.length / steps, image[0]];
    const losses: number[] = [];
    for (let step = 0; step < steps; step++) {
      const loss = gpu.step(() => {
        const images = gpu.tensor(x.data.slice(step * pixels, (step + 1) * pixels), image);
        const targets = gpu.tensor(
          Uint32Array.from(labels.slice(step * batch, (step + 1) * batch)),
        );
        state.zeroGrad();
        const loss = crossEntropy(network.forward(images), targets);
        backward(loss);
        rule.step(fixture.scalar(`${name}.lr`));
        ema?.update();
        return loss;
      });
      losses.push((await loss.data())[0]!);
      loss.dispose();
    }
    assertClose(losses, fixture.tensor(`${name}.losses`).data, { rtol: 1e-3 }, "losses");

    const compare = async (values: Tensor<"f32">, prefix: string) => {
      const arrays = await state.arrays(values);
      const names = fixture.names(`${name}.${prefix}.`);
      assert.ok(names.length >= 3);
      for (const full of names.filter((name) => !name.endsWith("num_batches_tracked"))) {
        const array = arrays.get(full.slice(`${name}.${prefix}.`.length))!;
        assertRelative(toFloat32(array), fixture.tensor(full).data, 1e-3, full);
      }
    };
    await compare(state.values, "param");
    await compare(state.values, "buffer");
    if (ema !== null) await compare(ema.values, "ema");
  });
}
