/**
 * Supervised learning: an encoder with a linear layer on its pooled features, trained on labels.
 *
 * Labels are independent (a sigmoid each, missing ones masked) or exclusive classes (one softmax).
 */
import type { Gpu } from "../gpu/gpu.ts";
import { Linear } from "../nn/layers.ts";
import { Module } from "../nn/module.ts";
import { ResNet, type ResNetOptions } from "../nn/resnet.ts";
import { asymmetricLoss, bceWithLogits, crossEntropy, focalLoss } from "../ops/losses.ts";
import type { Tensor } from "../tensor.ts";

/** An encoder and a linear layer; with the encoder's prefix dropped, torchvision's names. */
export class Classifier extends Module {
  /** Images to features. */
  readonly encoder: ResNet;
  /** Features to one logit a label. */
  readonly fc: Linear;

  /** Builds both; `ModelState` places them on a GPU. */
  constructor(encoder: ResNetOptions, labels: number) {
    super();
    this.encoder = new ResNet(encoder);
    this.fc = new Linear(this.encoder.features, labels);
  }

  /** Images [n, size, size, channels] → logits [n, labels]. */
  forward(images: Tensor): Tensor {
    return this.fc.forward(this.encoder.forward(images));
  }
}

/** The losses by name; all but cross-entropy are of independent labels. */
export const lossNames = ["bce", "focal", "asymmetric", "cross-entropy"] as const;
/** One of them. */
export type LossName = (typeof lossNames)[number];

/** A loss with its settings. */
export interface Objective {
  /** Which loss. */
  readonly loss: LossName;
  /** How much more a positive of each label counts in bce; null for no weights. */
  readonly posWeight: readonly number[] | null;
  /** ε of cross-entropy. */
  readonly labelSmoothing: number;
}

/** Logits [n, labels] and targets [n, labels] (NaN for missing) to a scalar. */
export type LossFunction = (logits: Tensor, targets: Tensor) => Tensor;

/** The loss of an objective; its weights are placed on the GPU once. */
export function lossFunction(
  gpu: Gpu,
  { loss, posWeight, labelSmoothing }: Objective,
): LossFunction {
  switch (loss) {
    case "bce": {
      if (posWeight === null) return bceWithLogits;
      const weights = gpu.unscoped(() => gpu.tensor([...posWeight]));
      return (logits, targets) => bceWithLogits(logits, targets, { posWeight: weights });
    }
    case "focal":
      return focalLoss;
    case "asymmetric":
      return asymmetricLoss;
    case "cross-entropy":
      return (logits, targets) => crossEntropy(logits, targets, { labelSmoothing });
  }
}
