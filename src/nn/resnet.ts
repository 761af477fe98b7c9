/**
 * Residual networks (He et al. 2016, arXiv 1512.03385) as torchvision builds them, with a width
 * multiplier, one or three input channels, and a stem for large or small images.
 */
import { isRecording, recompute } from "../autograd.ts";
import { cast, type Float } from "../ops/cast.ts";
import { globalAvgPool } from "../ops/pool.ts";
import type { Tensor } from "../tensor.ts";
import { BatchNorm, Conv2d } from "./layers.ts";
import { Module } from "./module.ts";

/** Depths that are built. */
export type Arch = "resnet18" | "resnet34" | "resnet50";
/** 7×7 stride 2 with max-pool (ImageNet), or 3×3 stride 1 without (CIFAR and other small images). */
export type Stem = "7x7" | "3x3";

/** What an encoder is made of. */
export interface ResNetOptions {
  /** Depth and kind of blocks. */
  readonly arch: Arch;
  /** Channels of the first stage: 64 is the original. */
  readonly width: number;
  /** First layers. */
  readonly stem: Stem;
  /** Of the images. */
  readonly channels: 1 | 3;
}

/** Blocks a stage. */
const depths: Record<Arch, readonly [number, number, number, number]> = {
  resnet18: [2, 2, 2, 2],
  resnet34: [3, 4, 6, 3],
  resnet50: [3, 4, 6, 3],
};

/** 1×1 convolution and normalisation, where a shortcut changes shape. */
class Downsample extends Module {
  readonly 0: Conv2d;
  readonly 1: BatchNorm;

  constructor(inputs: number, outputs: number, stride: number) {
    super();
    this[0] = new Conv2d(inputs, outputs, 1, { stride });
    this[1] = new BatchNorm(outputs);
  }

  forward(x: Tensor): Tensor {
    return this[1].after(this[0], x);
  }
}

/** Two 3×3 convolutions (ResNet-18 and 34). */
class BasicBlock extends Module {
  static readonly expansion = 1;
  readonly conv1: Conv2d;
  readonly bn1: BatchNorm;
  readonly conv2: Conv2d;
  readonly bn2: BatchNorm;
  readonly downsample: Downsample | null;

  constructor(inputs: number, planes: number, stride: number) {
    super();
    this.conv1 = new Conv2d(inputs, planes, 3, { stride, padding: 1 });
    this.bn1 = new BatchNorm(planes);
    this.conv2 = new Conv2d(planes, planes, 3, { padding: 1 });
    this.bn2 = new BatchNorm(planes);
    this.downsample = stride !== 1 || inputs !== planes
      ? new Downsample(inputs, planes, stride)
      : null;
  }

  forward(x: Tensor): Tensor {
    const residual = this.downsample?.forward(x) ?? x;
    const y = this.bn1.between(this.conv1, x);
    return this.bn2.after(this.conv2, y, { relu: true, residual });
  }
}

/** 1×1, 3×3, 1×1 with four times the channels out (ResNet-50); the stride is in the 3×3. */
class Bottleneck extends Module {
  static readonly expansion = 4;
  readonly conv1: Conv2d;
  readonly bn1: BatchNorm;
  readonly conv2: Conv2d;
  readonly bn2: BatchNorm;
  readonly conv3: Conv2d;
  readonly bn3: BatchNorm;
  readonly downsample: Downsample | null;

  constructor(inputs: number, planes: number, stride: number) {
    super();
    const outputs = planes * Bottleneck.expansion;
    this.conv1 = new Conv2d(inputs, planes, 1);
    this.bn1 = new BatchNorm(planes);
    this.conv2 = new Conv2d(planes, planes, 3, { stride, padding: 1 });
    this.bn2 = new BatchNorm(planes);
    this.conv3 = new Conv2d(planes, outputs, 1);
    this.bn3 = new BatchNorm(outputs);
    this.downsample = stride !== 1 || inputs !== outputs
      ? new Downsample(inputs, outputs, stride)
      : null;
  }

  forward(x: Tensor): Tensor {
    const residual = this.downsample?.forward(x) ?? x;
    let y = this.bn1.between(this.conv1, x);
    y = this.bn2.between(this.conv2, y);
    return this.bn3.after(this.conv3, y, { relu: true, residual });
  }
}

/** What stages are made of: x [n, h, w, in] → [n, h', w', out]. */
export type Block = Module & { forward(x: Tensor): Tensor };

/** An encoder: images [n, h, w, channels] → features. It has no `fc`. */
export class ResNet extends Module {
  /** What it was built from. */
  readonly options: ResNetOptions;
  /** Keeps only what goes from block to block for the backward, which computes the rest again. */
  recompute = false;
  /** Of activations and their gradients in training: half the memory as f16. Evaluation is in f32. */
  precision: Float = "f32";
  /** Size of the feature vector: 8 × width, or 32 × width for ResNet-50. */
  readonly features: number;
  /** The stem's convolution. */
  readonly conv1: Conv2d;
  /** The stem's normalisation. */
  readonly bn1: BatchNorm;
  /** width channels */
  readonly layer1: readonly Block[];
  /** 2 × width channels, half the side */
  readonly layer2: readonly Block[];
  /** 4 × width channels, half the side again */
  readonly layer3: readonly Block[];
  /** 8 × width channels, half the side again */
  readonly layer4: readonly Block[];

  /** Builds the tree; `ModelState` places it on a GPU. */
  constructor(options: ResNetOptions) {
    super();
    const { arch, width, stem, channels } = options;
    this.options = options;
    this.conv1 = stem === "7x7"
      ? new Conv2d(channels, width, 7, { stride: 2, padding: 3 })
      : new Conv2d(channels, width, 3, { padding: 1 });
    this.bn1 = new BatchNorm(width);

    const Block = arch === "resnet50" ? Bottleneck : BasicBlock;
    let inputs = width;
    const stage = (index: 0 | 1 | 2 | 3): Block[] => {
      const planes = width * 2 ** index;
      return Array.from({ length: depths[arch][index] }, (_, i) => {
        const block = new Block(inputs, planes, i === 0 && index > 0 ? 2 : 1);
        inputs = planes * Block.expansion;
        return block;
      });
    };
    this.layer1 = stage(0);
    this.layer2 = stage(1);
    this.layer3 = stage(2);
    this.layer4 = stage(3);
    this.features = inputs;
  }

  /** The last feature map [n, h', w', features] of f32, before pooling. */
  map(images: Tensor): Tensor {
    const x = cast(images, this.training ? this.precision : "f32");
    const pool = this.options.stem === "7x7" && { pool: { kernel: 3, stride: 2, padding: 1 } };
    let y = this.#run(
      [this.conv1, this.bn1],
      (x) => this.bn1.after(this.conv1, x, { relu: true, ...pool }),
      x,
    );
    for (const layer of [this.layer1, this.layer2, this.layer3, this.layer4]) {
      for (const block of layer) y = this.#run([block], (x) => block.forward(x), y);
    }
    return cast(y, "f32");
  }

  /** Runs a part of the network, which reads the parameters of some modules. */
  #run(modules: readonly Module[], part: (x: Tensor) => Tensor, x: Tensor): Tensor {
    // What a part leaves behind and no tape holds goes back as soon as it is done.
    if (!isRecording() || !this.recompute) return x.gpu.scope(() => part(x));
    const parameters = modules.flatMap((module) => [...module.parameters()])
      .filter(([, { trainable }]) => trainable);
    return recompute(part, x, parameters.map(([, { tensor }]) => tensor));
  }

  /** The pooled feature vectors [n, features]. */
  forward(x: Tensor): Tensor {
    return globalAvgPool(this.map(x));
  }
}
