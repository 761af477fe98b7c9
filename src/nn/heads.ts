/** What stands on an encoder while it is trained. */
import type { Tensor } from "../tensor.ts";
import { BatchNorm, Linear } from "./layers.ts";
import { Module } from "./module.ts";

/** Size of the embeddings that a projection head makes. */
export const embeddingDimensions = 128;

/**
 * SimCLR's projection head: linear, BN, ReLU (once in v1, Chen et al. 2020; twice in v2, Chen et al.
 * 2020b), then linear and BN to the embedding. No layer has a bias: a normalisation follows each.
 */
export class ProjectionHead extends Module {
  /** Layers [features → features]. */
  readonly hidden: readonly Linear[];
  /** Their normalisations. */
  readonly hiddenNorms: readonly BatchNorm[];
  /** The layer [features → dimensions]. */
  readonly output: Linear;
  /** Its normalisation. */
  readonly outputNorm: BatchNorm;

  /** A head for features of a size. */
  constructor(features: number, { version = 1 as 1 | 2, dimensions = embeddingDimensions } = {}) {
    super();
    const layers = Array.from({ length: version });
    this.hidden = layers.map(() => new Linear(features, features, { bias: false }));
    this.hiddenNorms = layers.map(() => new BatchNorm(features));
    this.output = new Linear(features, dimensions, { bias: false });
    this.outputNorm = new BatchNorm(dimensions);
  }

  /** h [n, features] → z [n, dimensions], not normalised. */
  forward(h: Tensor): Tensor {
    let y = h;
    for (const [i, layer] of this.hidden.entries()) {
      y = this.hiddenNorms[i]!.forward(layer.forward(y), { relu: true });
    }
    return this.outputNorm.forward(this.output.forward(y));
  }
}
