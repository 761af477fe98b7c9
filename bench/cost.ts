/**
 * The cost model of docs/cost.md against measurement: `deno run -P=bench bench/cost.ts` trains ResNet-18
 * with the 7×7 stem at three sizes and prints a line of the table for each.
 */
import assert from "node:assert/strict";
import { backward } from "../src/autograd.ts";
import { Gpu } from "../src/gpu/gpu.ts";
import { Linear } from "../src/nn/layers.ts";
import { ModelState } from "../src/nn/model_state.ts";
import { Module } from "../src/nn/module.ts";
import { ResNet } from "../src/nn/resnet.ts";
import { crossEntropy } from "../src/ops/losses.ts";
import { AdamW } from "../src/optim.ts";
import { medianTime, random } from "./support.ts";

/** What a step is determined by. */
interface Size {
  readonly width: number;
  /** Side of the images in pixels. */
  readonly side: number;
  /** Views a step. */
  readonly views: number;
  readonly channels: 1 | 3;
}

/** Floating-point operations of a step: forward, and twice as many backward, but for the gradient by the images. */
export function operations({ width: w, side: s, views, channels: c }: Size): number {
  const stem = 24.5 * c * w * s ** 2;
  const stages = 16.5 * w ** 2 * s ** 2;
  return views * (3 * stages + 2 * stem);
}

/** Bytes of activations that are kept for the backward. */
export function activationBytes({ width: w, side: s, views }: Size): number {
  const stem = w * (s / 2) ** 2 + 2 * w * (s / 4) ** 2;
  const stages = (8 / 16 + 18 / 64 + 36 / 256 + 72 / 1024) * w * s ** 2;
  return 4 * views * (stem + stages);
}

class Classifier extends Module {
  readonly encoder: ResNet;
  readonly fc: Linear;

  constructor(width: number, channels: 1 | 3) {
    super();
    this.encoder = new ResNet({ arch: "resnet18", width, stem: "7x7", channels });
    this.fc = new Linear(this.encoder.features, 10);
  }
}

async function measure(size: Size): Promise<string> {
  const { width, side, views, channels } = size;
  const gpu = await Gpu.open();
  const model = new Classifier(width, channels);
  const state = new ModelState(gpu, model);
  const optimizer = new AdamW(state);
  const { tensor: images } = random(gpu, [views, side, side, channels], "images");
  const targets = gpu.tensor(Uint32Array.from({ length: views }, (_, i) => i % 10));
  const fixed = gpu.memory.live;
  let kept = 0;
  const run = () => {
    state.zeroGrad();
    const loss = crossEntropy(model.fc.forward(model.encoder.forward(images)), targets);
    kept = gpu.memory.live - fixed;
    backward(loss);
    optimizer.step(1e-3);
  };
  const seconds = await medianTime(gpu, { run, tensors: [] });
  assert(gpu.startProfile(), "this adapter has no clock");
  gpu.step(run);
  const counted = (await gpu.profile()).reduce((sum, { flops }) => sum + flops, 0);
  const { peak } = gpu.memory;
  gpu.close();
  const mega = (bytes: number) => (bytes / 1e6).toFixed(1);
  const giga = (count: number) => (count / 1e9).toFixed(2);
  return [
    "",
    `${width}, ${side}², ${views}`,
    giga(operations(size)),
    giga(counted),
    mega(activationBytes(size)),
    mega(kept),
    mega(peak),
    (1e3 * seconds).toFixed(0),
    (counted / seconds / 1e9).toFixed(1),
    "",
  ].join(" | ").trim();
}

if (import.meta.main) {
  const sizes: Size[] = [
    { width: 16, side: 64, views: 64, channels: 1 },
    { width: 16, side: 128, views: 32, channels: 1 },
    { width: 32, side: 64, views: 128, channels: 1 },
  ];
  for (const size of sizes) console.log(await measure(size));
  Deno.exit();
}
