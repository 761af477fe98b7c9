/**
 * SimCLR: a simple framework for contrastive learning of visual representations (Chen et al. 2020,
 * arXiv 2002.05709; v2: arXiv 2006.10029).
 *
 * Two random views of every image pass through one encoder f and one projection head g. The loss
 * asks of each view to find the other view of its image among all 2N − 1 of the batch:
 *
 *     z = g(f(view)),  l(i, j) = −log( exp(cos(zᵢ, zⱼ)/τ) / Σ_{k≠i} exp(cos(zᵢ, zₖ)/τ) ),
 *
 * averaged over all 2N views. What is kept is f; the head is thrown away.
 */
import { embeddingDimensions, ProjectionHead } from "../nn/heads.ts";
import { ResNet, type ResNetOptions } from "../nn/resnet.ts";
import { ntXent } from "../ops/nt_xent.ts";
import type { Tensor } from "../tensor.ts";
import { Method, type ReferenceLine, type StepResult } from "./method.ts";

/** What SimCLR leaves open. */
export interface SimCLROptions {
  /** τ of the loss. */
  readonly temperature: number;
  /** Hidden layers of the projection head: one in v1, two in v2. */
  readonly head: "v1" | "v2";
}

/** An encoder with a projection head and the NT-Xent loss. */
export class SimCLR extends Method {
  /** A positive pair. */
  readonly viewsPerImage = 2;
  /** Of the projections. */
  readonly embeddingSize: number = embeddingDimensions;
  /** f, what is kept. */
  readonly encoder: ResNet;
  /** g, what is thrown away. */
  readonly projection: ProjectionHead;
  readonly #temperature: number;

  /** Builds both; `ModelState` places them on a GPU. */
  constructor(encoder: ResNetOptions, { temperature, head }: SimCLROptions) {
    super();
    this.encoder = new ResNet(encoder);
    this.projection = new ProjectionHead(this.encoder.features, { version: head === "v1" ? 1 : 2 });
    this.#temperature = temperature;
  }

  /**
   * The NT-Xent loss of the projected views.
   *
   * @param views [2n, size, size, channels]; row i and row i + n show the same image
   */
  loss(views: Tensor): StepResult {
    const embeddings = this.projection.forward(this.encoder.forward(views));
    return { loss: ntXent(embeddings, { temperature: this.#temperature }), embeddings };
  }

  /** Where the loss starts, and below which it cannot fall. */
  override referenceLines(n: number): readonly ReferenceLine[] {
    return [
      { label: "all views alike: log(2N − 1)", value: Math.log(2 * n - 1) },
      { label: "floor", value: ntXentFloor(n, this.#temperature) },
    ];
  }
}

/**
 * The least NT-Xent loss of n pairs: each pair in one point, the points spread as a simplex (in n − 1
 * dimensions or more), so that all other cosines are −1/(n − 1).
 */
export function ntXentFloor(n: number, temperature: number): number {
  if (n < 2) return 0;
  return Math.log1p((2 * n - 2) * Math.exp(-(1 + 1 / (n - 1)) / temperature));
}
