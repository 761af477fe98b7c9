/**
 * A whole training step, forward, backward and SGD: ResNet-18 with the 3×3 stem on 32×32 colour images,
 * cross-entropy over ten classes. The peers in bench/peers do the same.
 */
import assert from "node:assert/strict";
import { backward } from "../src/autograd.ts";
import { Linear } from "../src/nn/layers.ts";
import { ModelState } from "../src/nn/model_state.ts";
import { Module } from "../src/nn/module.ts";
import { ResNet } from "../src/nn/resnet.ts";
import { crossEntropy } from "../src/ops/losses.ts";
import { SGD } from "../src/optim.ts";
import { type Case, random, register } from "./support.ts";

/** Images a step. */
const batch = 32;
/** Channels of the first stage. */
const widths = [64, 16] as const;

class Classifier extends Module {
  readonly encoder: ResNet;
  readonly fc: Linear;

  constructor(width: number) {
    super();
    this.encoder = new ResNet({ arch: "resnet18", width, stem: "3x3", channels: 3 });
    this.fc = new Linear(this.encoder.features, 10);
  }
}

function caseOf(width: number): Case {
  return {
    name: "training step",
    shape: `ResNet-18 width ${width}, ${batch}×32×32×3`,
    unit: "images/s",
    work: batch,
    peer: { op: "step", width, batch },
    async prepare(gpu) {
      const model = new Classifier(width);
      const state = new ModelState(gpu, model);
      const optimizer = new SGD(state);
      const { tensor: images } = random(gpu, [batch, 32, 32, 3], "images");
      const targets = gpu.tensor(Uint32Array.from({ length: batch }, (_, i) => i % 10));
      const step = () => {
        const loss = crossEntropy(model.fc.forward(model.encoder.forward(images)), targets);
        state.zeroGrad();
        backward(loss);
        optimizer.step(0.01);
        return loss;
      };
      const losses: number[] = [];
      for (let i = 0; i < 4; i++) {
        const loss = gpu.step(step);
        losses.push(await loss.item());
        loss.dispose();
      }
      assert(losses[3]! < losses[0]!, `the loss does not fall: ${losses}`);
      const kept = [state.values, state.gradients, state.statistics];
      return { run: step, tensors: [images, targets, ...kept] };
    },
  };
}

/** Every width. */
export const cases = widths.map(caseOf);

register("step", cases);
