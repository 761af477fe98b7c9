/**
 * DeepCluster: deep clustering for unsupervised learning of visual features (Caron et al. 2018, arXiv
 * 1807.05520).
 *
 * Before every epoch, the features of all images are whitened by PCA, normalised and clustered by K-means;
 * for the epoch, an image's cluster is its class, and encoder and a new linear head learn to tell it:
 *
 *     loss = −log softmax( head(f(view)) )[cluster of the image].
 *
 * Images are drawn uniformly over clusters, so that one large cluster does not pay.
 */
import { UserError } from "../errors.ts";
import { Linear } from "../nn/layers.ts";
import type { ResNetOptions } from "../nn/resnet.ts";
import { crossEntropy } from "../ops/losses.ts";
import { whiten } from "../pca.ts";
import type { Random } from "../random.ts";
import type { Measure } from "../run_folder.ts";
import type { Tensor } from "../tensor.ts";
import type { Epoch, StepResult } from "./method.ts";
import { type DeepClusterOptions, PseudoLabels } from "./pseudo_labels.ts";

/** Largest number of principal components that are clustered. */
const maxDimensions = 256;
/** Images for each component, at least: whitening turns those of few images into noise as large as the rest. */
const imagesPerDimension = 16;
/** Iterations of K-means. */
const iterations = 20;

/** An encoder with a linear head for pseudo-classes. */
export class DeepCluster extends PseudoLabels {
  /** It does not: the head is as new in the last epoch as in the first. */
  override readonly rateFalls = false;
  /** The classifier of an epoch. */
  readonly head: Linear;
  /** Of the features. */
  readonly embeddingSize: number;

  /** Builds both; `ModelState` places them on a GPU. */
  constructor(encoder: ResNetOptions, options: DeepClusterOptions) {
    super(encoder, options);
    this.embeddingSize = this.encoder.features;
    this.head = new Linear(this.encoder.features, options.clusters, { deviation: 0.01 });
  }

  /**
   * Clusters all images and starts a new head.
   *
   * @returns sizes of the clusters, and how much the last epoch's tell of them
   * @throws {UserError} if the encoder has collapsed
   */
  override async beginEpoch(epoch: Epoch): Promise<Readonly<Record<string, Measure>>> {
    const features = await epoch.features();
    const images = features.length / this.embeddingSize;
    const { values, dimensions } = whiten(features, this.embeddingSize, {
      dimensions: Math.min(maxDimensions, Math.ceil(images / imagesPerDimension)),
    });
    if (dimensions === 0) {
      throw new UserError(
        `kmeans: before epoch ${epoch.index + 1} the encoder gives all images the same features`,
      );
    }
    normalizeRows(values, dimensions);
    const { measures } = await this.cluster(epoch, values, dimensions, { iterations });
    epoch.renew("head.");
    return measures;
  }

  /** As many images of each cluster: of a large one a part, those of a small one again and again. */
  override order(images: number, _batch: number, random: Random): readonly number[] {
    const filled = this.members().filter(({ length }) => length > 0);
    const each = Math.ceil(images / filled.length);
    const drawn = filled.flatMap((members) =>
      Array.from({ length: Math.ceil(each / members.length) }, () => random.shuffle([...members]))
        .flat().slice(0, each)
    );
    return random.shuffle(drawn).slice(0, images);
  }

  /** The cross-entropy of the pseudo-classes. */
  loss(views: Tensor, _step: number, images: readonly number[]): StepResult {
    const embeddings = this.encoder.forward(views);
    const classes = this.classes(views.gpu, images);
    return { loss: crossEntropy(this.head.forward(embeddings), classes), embeddings };
  }
}

/** Scales rows to length 1, in place. */
function normalizeRows(values: Float32Array, d: number): void {
  for (let begin = 0; begin < values.length; begin += d) {
    const row = values.subarray(begin, begin + d);
    const length = Math.sqrt(row.reduce((sum, v) => sum + v * v, 0));
    for (let i = 0; i < d; i++) row[i]! /= length || 1;
  }
}
