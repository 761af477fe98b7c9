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
import { kmeans, tensorsOfRows } from "../kmeans.ts";
import { normalizedMutualInformation } from "../metrics.ts";
import { Linear } from "../nn/layers.ts";
import { ResNet, type ResNetOptions } from "../nn/resnet.ts";
import { crossEntropy } from "../ops/losses.ts";
import { whiten } from "../pca.ts";
import { Random } from "../random.ts";
import type { Measure } from "../run_folder.ts";
import type { Tensor } from "../tensor.ts";
import {
  type Epoch,
  Method,
  type ReferenceLine,
  samplesInLine,
  type StepResult,
} from "./method.ts";

/** What DeepCluster leaves open. */
export interface DeepClusterOptions {
  /** Number of pseudo-classes. */
  readonly clusters: number;
  /** Of K-means. */
  readonly seed: number;
}

/** Largest number of principal components that are clustered. */
const maxDimensions = 256;
/** Images for each component, at least: whitening turns those of few images into noise as large as the rest. */
const imagesPerDimension = 16;
/** Iterations of K-means. */
const iterations = 20;
/** Clusters that the report shows. */
const clustersShown = 6;

/** An encoder with a linear head for pseudo-classes. */
export class DeepCluster extends Method {
  /** One. */
  readonly viewsPerImage = 1;
  /** It does not: the head is as new in the last epoch as in the first. */
  override readonly rateFalls = false;
  /** f, what is kept. */
  readonly encoder: ResNet;
  /** The classifier of an epoch. */
  readonly head: Linear;
  /** Of the features. */
  readonly embeddingSize: number;
  readonly #options: DeepClusterOptions;
  /** The cluster of each image; none before the first epoch. */
  #labels = new Uint32Array();
  /** The squared distance of each image to the centroid. */
  #distances = new Float32Array();

  /** Builds both; `ModelState` places them on a GPU. */
  constructor(encoder: ResNetOptions, options: DeepClusterOptions) {
    super();
    this.encoder = new ResNet(encoder);
    this.embeddingSize = this.encoder.features;
    this.head = new Linear(this.encoder.features, options.clusters, { deviation: 0.01 });
    this.#options = options;
  }

  /**
   * Clusters all images and starts a new head.
   *
   * @returns sizes of the clusters, and how much the last epoch's tell of them
   * @throws {UserError} if the encoder has collapsed
   */
  override async beginEpoch(epoch: Epoch): Promise<Readonly<Record<string, Measure>>> {
    const { clusters: k, seed } = this.#options;
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
    const x = tensorsOfRows(epoch.gpu, values, dimensions);
    const { labels, squaredDistances } = await kmeans(x, {
      k,
      init: "random",
      iterations,
      tolerance: 0,
      seed: new Random(seed, "clusters", epoch.index).u32(),
    });
    for (const tensor of x) tensor.dispose();
    // Training never asks for buffers of these sizes.
    epoch.gpu.trim();
    epoch.renew("head.");
    const last = this.#labels;
    this.#labels = labels;
    this.#distances = squaredDistances;
    const sizes = this.#members().map(({ length }) => length).sort((a, b) => a - b);
    return {
      ...(last.length > 0 ? { nmi: normalizedMutualInformation(last, labels) } : {}),
      cluster_size: { smallest: sizes[0]!, median: sizes[k >> 1]!, largest: sizes[k - 1]! },
    };
  }

  /** As many images of each cluster: of a large one a part, those of a small one again and again. */
  override order(images: number, _batch: number, random: Random): readonly number[] {
    const filled = this.#members().filter(({ length }) => length > 0);
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
    const targets = views.gpu.tensor(Uint32Array.from(images, (image) => this.#labels[image] ?? 0));
    return { loss: crossEntropy(this.head.forward(embeddings), targets), embeddings };
  }

  /** The clusters, by which a run goes on in the midst of an epoch. */
  override state(): ReadonlyMap<string, Float32Array> {
    if (this.#labels.length === 0) return new Map();
    return new Map([
      ["labels", Float32Array.from(this.#labels)],
      ["distances", this.#distances],
    ]);
  }

  /** Takes the clusters back. */
  override restore(state: ReadonlyMap<string, Float32Array>): void {
    this.#labels = Uint32Array.from(state.get("labels") ?? []);
    this.#distances = Float32Array.from(state.get("distances") ?? []);
  }

  /** Of the lines. */
  override readonly samplesCaption: string =
    "Clusters of the last epoch, from large to small: the images nearest to the centroid of each.";

  /** The images nearest to the centroid, a line for each of a few clusters. */
  override samples(_images: number, view: (images: readonly number[]) => Tensor): Tensor[] {
    const bySize = this.#members().filter(({ length }) => length > 0)
      .sort((a, b) => b.length - a.length);
    const lines = Math.min(clustersShown, bySize.length);
    return Array.from({ length: lines }, (_, line) => {
      const members = bySize[Math.floor(line * bySize.length / lines)]!;
      members.sort((a, b) => this.#distances[a]! - this.#distances[b]!);
      return view(members.slice(0, samplesInLine));
    });
  }

  /** Where every epoch starts. */
  override referenceLines(): readonly ReferenceLine[] {
    const { clusters } = this.#options;
    return [{ label: "all clusters alike: log k", value: Math.log(clusters) }];
  }

  /** The images of each cluster. */
  #members(): number[][] {
    const members: number[][] = Array.from({ length: this.#options.clusters }, () => []);
    this.#labels.forEach((label, image) => members[label]!.push(image));
    return members;
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
