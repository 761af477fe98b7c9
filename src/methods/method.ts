/** What the training loop asks of a way to train an encoder. */
import type { Module } from "../nn/module.ts";
import type { ResNet } from "../nn/resnet.ts";
import type { Tensor } from "../tensor.ts";

/** A horizontal line that gives a curve of losses its scale. */
export interface ReferenceLine {
  /** What the line means. */
  readonly label: string;
  /** Where it lies. */
  readonly value: number;
}

/** A model with its loss. */
export interface Method extends Module {
  /** What is kept of the training. */
  readonly encoder: ResNet;
  /** How many views of each image make up a batch: [first views; second views; …]. */
  readonly viewsPerImage: number;
  /**
   * The loss of a batch of views [viewsPerImage · n, size, size, channels], and the embeddings [rows,
   * d] that are watched for collapse.
   */
  loss(views: Tensor): { loss: Tensor; embeddings: Tensor };
  /** Values that the loss of a batch of n images is read against. */
  referenceLines(n: number): readonly ReferenceLine[];
}
