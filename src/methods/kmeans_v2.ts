/**
 * DeepCluster-v2 (Caron et al. 2020, arXiv 2006.09882, appendix).
 *
 * Before every epoch, the embeddings z = g(f(image)) / ‖g(f(image))‖ of all images are clustered by
 * spherical K-means. The centroids c are the prototypes of the epoch, which no gradient moves; so classes
 * need no new head, and encoder and projection go on from epoch to epoch:
 *
 *     loss = −log softmax( z · cᵀ / τ )[cluster of the image],  z of a view.
 *
 * The paper clusters what the last epoch's steps left in a memory, of several crops each; here it is the
 * embeddings of whole images in evaluation mode, at the start of the epoch, and one crop is learnt from.
 */
import { noGrad } from "../autograd.ts";
import { UserError } from "../errors.ts";
import type { Gpu } from "../gpu/gpu.ts";
import { tensorsOfRows } from "../kmeans.ts";
import { embeddingDimensions, ProjectionHead } from "../nn/heads.ts";
import { Parameter } from "../nn/module.ts";
import type { ResNetOptions } from "../nn/resnet.ts";
import { mul } from "../ops/binary.ts";
import { crossEntropy } from "../ops/losses.ts";
import { matmul } from "../ops/matmul.ts";
import { l2Normalize } from "../ops/softmax.ts";
import type { Measure } from "../run_folder.ts";
import type { Tensor } from "../tensor.ts";
import type { Epoch, StepResult } from "./method.ts";
import { type DeepClusterOptions, PseudoLabels } from "./pseudo_labels.ts";

/** Iterations of K-means. */
const iterations = 10;
/** τ */
const temperature = 0.1;

/** An encoder with a projection head and the centroids of its embeddings. */
export class DeepClusterV2 extends PseudoLabels {
  /** Of the projections. */
  readonly embeddingSize: number = embeddingDimensions;
  /** g, what is thrown away. */
  readonly projection: ProjectionHead;
  /** c, [clusters, dimensions], of length 1 each; zeros before the first epoch. */
  readonly prototypes: Parameter;

  /** Builds all three; `ModelState` places them on a GPU. */
  constructor(encoder: ResNetOptions, options: DeepClusterOptions) {
    super(encoder, options);
    this.projection = new ProjectionHead(this.encoder.features);
    const shape = [options.clusters, embeddingDimensions];
    this.prototypes = new Parameter(shape, "vector", () => 0, { trainable: false });
  }

  /**
   * Clusters all images; the centroids are the new prototypes.
   *
   * @returns sizes of the clusters, and how much the last epoch's tell of them
   * @throws {UserError} if the model has collapsed
   */
  override async beginEpoch(epoch: Epoch): Promise<Readonly<Record<string, Measure>>> {
    const embeddings = await this.#project(epoch.gpu, await epoch.features());
    const first = embeddings.subarray(0, embeddingDimensions);
    if (embeddings.every((v, i) => v === first[i % embeddingDimensions])) {
      throw new UserError(
        `kmeans: before epoch ${epoch.index + 1} the model gives all images the same embeddings`,
      );
    }
    const { centroids, measures } = await this.cluster(epoch, embeddings, embeddingDimensions, {
      iterations,
      spherical: true,
    });
    epoch.gpu.write(this.prototypes.tensor, centroids);
    return measures;
  }

  /** The cross-entropy of the pseudo-classes. */
  loss(views: Tensor, _step: number, images: readonly number[]): StepResult {
    const embeddings = l2Normalize(this.projection.forward(this.encoder.forward(views)));
    const cosines = matmul(embeddings, this.prototypes.tensor, { transposeB: true });
    const classes = this.classes(views.gpu, images);
    return { loss: crossEntropy(mul(cosines, 1 / temperature), classes), embeddings };
  }

  /** z of features [n, features], in evaluation mode: [n, dimensions]. */
  async #project(gpu: Gpu, features: Float32Array): Promise<Float32Array> {
    const { features: d } = this.encoder;
    const embeddings = new Float32Array(features.length / d * embeddingDimensions);
    let start = 0;
    const { training } = this.projection;
    this.projection.train(false);
    for (const h of tensorsOfRows(gpu, features, d)) {
      const z = gpu.step(() => noGrad(() => l2Normalize(this.projection.forward(h))));
      embeddings.set(await z.data() as Float32Array, start);
      start += z.size;
      h.dispose();
      z.dispose();
    }
    this.projection.train(training);
    return embeddings;
  }
}
