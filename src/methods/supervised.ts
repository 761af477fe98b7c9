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
import { Method, type StepResult } from "./method.ts";

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

/** Supervised pretraining: the classifier's loss on labelled views; what is kept is its encoder. */
export class Supervised extends Method {
  /** One. */
  readonly viewsPerImage = 1;
  /** What is kept. */
  readonly encoder: ResNet;
  /** What is thrown away. */
  readonly fc: Linear;
  /** Of the pooled features. */
  readonly embeddingSize: number;
  readonly #loss: LossName;
  readonly #labels: Float32Array;
  readonly #classes: number;

  /**
   * Builds encoder and linear layer; `ModelState` places them on a GPU.
   *
   * @param labels of the images to train on, [images, classes]: 1, 0 or NaN
   */
  constructor(encoder: ResNetOptions, loss: LossName, labels: Float32Array, classes: number) {
    super();
    this.encoder = new ResNet(encoder);
    this.fc = new Linear(this.encoder.features, classes);
    this.embeddingSize = this.encoder.features;
    this.#loss = loss;
    this.#labels = labels;
    this.#classes = classes;
  }

  /**
   * The loss of the predicted labels.
   *
   * @param views [n, size, size, channels], one of each of `images`
   */
  loss(views: Tensor, _step: number, images: readonly number[]): StepResult {
    const k = this.#classes;
    const targets = new Float32Array(images.length * k);
    images.forEach((image, row) =>
      targets.set(this.#labels.subarray(image * k, (image + 1) * k), row * k)
    );
    // The upload submits the kernels of the views, which are all that was recorded until here.
    const known = views.gpu.tensor(targets, [images.length, k]);
    const embeddings = this.encoder.forward(views);
    const criterion = lossFunction(views.gpu, {
      loss: this.#loss,
      posWeight: null,
      labelSmoothing: 0,
    });
    return { loss: criterion(this.fc.forward(embeddings), known), embeddings };
  }
}
