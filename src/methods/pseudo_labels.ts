/** What both versions of DeepCluster share: an image's class is the cluster that K-means put it in. */
import type { Gpu } from "../gpu/gpu.ts";
import { kmeans, type KMeansOptions, tensorsOfRows } from "../kmeans.ts";
import { normalizedMutualInformation } from "../metrics.ts";
import { ResNet, type ResNetOptions } from "../nn/resnet.ts";
import { Random } from "../random.ts";
import type { Measure } from "../run_folder.ts";
import type { Tensor } from "../tensor.ts";
import { type Epoch, Method, type ReferenceLine, samplesInLine } from "./method.ts";

/** What DeepCluster leaves open. */
export interface DeepClusterOptions {
  /** Number of pseudo-classes. */
  readonly clusters: number;
  /** Of K-means. */
  readonly seed: number;
}

/** Clusters that the report shows. */
const clustersShown = 6;

/** An encoder that learns to tell the cluster of an image; clusters are new in every epoch. */
export abstract class PseudoLabels extends Method {
  /** One. */
  readonly viewsPerImage = 1;
  /** f, what is kept. */
  readonly encoder: ResNet;
  readonly #options: DeepClusterOptions;
  /** The cluster of each image; none before the first epoch. */
  #labels = new Uint32Array();
  /** The squared distance of each image to the centroid. */
  #distances = new Float32Array();

  /** Builds the encoder. */
  constructor(encoder: ResNetOptions, options: DeepClusterOptions) {
    super();
    this.encoder = new ResNet(encoder);
    this.#options = options;
  }

  /**
   * Clusters all images for an epoch.
   *
   * @param points [n, d], one of each image
   * @returns centroids [clusters, d]; sizes of the clusters, and how much the last epoch's tell of them
   */
  protected async cluster(
    { gpu, index }: Epoch,
    points: Float32Array,
    d: number,
    options: Pick<KMeansOptions, "iterations" | "spherical">,
  ): Promise<{ centroids: Float32Array; measures: Readonly<Record<string, Measure>> }> {
    const { clusters: k, seed } = this.#options;
    const x = tensorsOfRows(gpu, points, d);
    const { centroids, labels, squaredDistances } = await kmeans(x, {
      ...options,
      k,
      init: "random",
      tolerance: 0,
      seed: new Random(seed, "clusters", index).u32(),
    });
    for (const tensor of x) tensor.dispose();
    // Training never asks for buffers of these sizes.
    gpu.trim();
    const last = this.#labels;
    this.#labels = labels;
    this.#distances = squaredDistances;
    const sizes = this.members().map(({ length }) => length).sort((a, b) => a - b);
    const measures = {
      ...(last.length > 0 ? { nmi: normalizedMutualInformation(last, labels) } : {}),
      cluster_size: { smallest: sizes[0]!, median: sizes[k >> 1]!, largest: sizes[k - 1]! },
    };
    return { centroids, measures };
  }

  /** The classes of the images of a step, u32 [n]. */
  protected classes(gpu: Gpu, images: readonly number[]): Tensor {
    return gpu.tensor(Uint32Array.from(images, (image) => this.#labels[image] ?? 0));
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
    const bySize = this.members().filter(({ length }) => length > 0)
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
  protected members(): number[][] {
    const members: number[][] = Array.from({ length: this.#options.clusters }, () => []);
    this.#labels.forEach((label, image) => members[label]!.push(image));
    return members;
  }
}
