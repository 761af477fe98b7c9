/** From the last feature map of a ResNet back to an image. */
import { upsample } from "../ops/upsample.ts";
import type { Tensor } from "../tensor.ts";
import { BatchNorm, Conv2d } from "./layers.ts";
import { Module } from "./module.ts";
import type { ResNet, Stem } from "./resnet.ts";

/** Channels of the stages at width 64. */
const widths = [256, 128, 64, 64, 32] as const;

/** How many times an encoder halves the side of its images. */
export function halvings(stem: Stem): number {
  return stem === "7x7" ? 5 : 3;
}

/**
 * The mirror of an encoder: each stage doubles the side by repeating pixels and smooths by a 3×3
 * convolution, which leaves no checkerboard (Odena et al. 2016, doi 10.23915/distill.00003).
 */
export class Decoder extends Module {
  /** One 3×3 convolution a stage. */
  readonly convs: readonly Conv2d[];
  /** Their normalisations. */
  readonly norms: readonly BatchNorm[];
  /** The 3×3 convolution to the channels of the image. */
  readonly output: Conv2d;

  /** A decoder for the maps of an encoder. */
  constructor({ features, options: { width, stem, channels } }: ResNet) {
    super();
    const outputs = widths.slice(0, halvings(stem)).map((w) =>
      Math.max(1, Math.round(w * width / 64))
    );
    const inputs = [features, ...outputs];
    this.convs = outputs.map((n, i) => new Conv2d(inputs[i]!, n, 3, { padding: 1 }));
    this.norms = outputs.map((n) => new BatchNorm(n));
    this.output = new Conv2d(outputs.at(-1)!, channels, 3, { padding: 1, isLast: true });
  }

  /** [n, h, w, features] → [n, h · 2^stages, w · 2^stages, channels] */
  forward(map: Tensor): Tensor {
    let y = map;
    for (const [i, conv] of this.convs.entries()) {
      y = this.norms[i]!.after(conv, upsample(y), { relu: true });
    }
    return this.output.forward(y);
  }
}
