/** The labelled images that all cells of a study learn from, choose on and are scored on. */
import { ImageLoader } from "../commands/images.ts";
import { type Dataset, type Images, indicesOf, isLabelled } from "../data/dataset.ts";
import { UserError } from "../errors.ts";
import type { FinetuneData } from "../finetune.ts";
import { type FinetuneSplits, finetuneSplits } from "../finetune_data.ts";
import { auroc, macroMean, type Numbers, perLabel } from "../metrics.ts";
import { labelsOf, type Parts } from "../probe.ts";
import { withoutLabels } from "../scores.ts";
import type { Target } from "./cell.ts";

/** The target of a study, its images decoded when they are first asked for. */
export class StudyTarget {
  readonly dataset: Dataset;
  /** Indices of the labelled images. */
  readonly parts: Parts<readonly number[]>;
  /** Labels that are part of no mean. */
  readonly apart: FinetuneSplits["apart"];
  readonly #size: number;
  readonly #loader: ImageLoader;
  readonly #decoded = new Map<1 | 3, Promise<Parts<Images>>>();

  /**
   * @param spec the data
   * @param size side of the images in pixels
   * @throws {UserError} if one of the three splits has no labelled image
   */
  static async open(spec: string, size: number): Promise<StudyTarget> {
    const loader = new ImageLoader({ skipBad: false, cache: true });
    const dataset = await loader.open(spec);
    const { train, val, apart } = finetuneSplits(dataset, { fraction: 1, seed: 0 });
    const test = indicesOf(dataset, ["test"]).filter((i) => isLabelled(dataset.examples[i]!));
    if (test.length === 0) {
      throw new UserError(`${dataset.spec}: no labelled image in the test split to score`);
    }
    return new StudyTarget(dataset, { train, val, test }, apart, size, loader);
  }

  private constructor(
    dataset: Dataset,
    parts: Parts<readonly number[]>,
    apart: FinetuneSplits["apart"],
    size: number,
    loader: ImageLoader,
  ) {
    this.dataset = dataset;
    this.parts = parts;
    this.apart = apart;
    this.#size = size;
    this.#loader = loader;
  }

  /** All images of the three parts. */
  images(channels: 1 | 3): Promise<Parts<Images>> {
    const load = async () => {
      const options = { size: this.#size, channels };
      const { train, val, test } = await this.#loader.loadParts(this.dataset, this.parts, options);
      return { train: train.images, val: val.images, test: test.images };
    };
    if (!this.#decoded.has(channels)) this.#decoded.set(channels, load());
    return this.#decoded.get(channels)!;
  }

  /** The rows of the training part that a seed draws for a fraction of the labels: the same for all arms. */
  rows(fraction: number, seed: number): number[] {
    const { train } = finetuneSplits(this.dataset, { fraction, seed });
    const rows = new Map(this.parts.train.map((index, row) => [index, row]));
    return train.map((index) => rows.get(index)!);
  }

  /** What fine-tuning with a fraction of the labels learns from. */
  async finetuneData(fraction: number, seed: number, channels: 1 | 3): Promise<FinetuneData> {
    const { train: images, val: validationImages } = await this.images(channels);
    const rows = this.rows(fraction, seed);
    return {
      dataset: this.dataset,
      train: rows.map((row) => this.parts.train[row]!),
      val: this.parts.val,
      apart: this.apart,
      images: takeImages(images, rows),
      validationImages,
    };
  }

  /** The labels of the images of a part, [images, labels]. */
  labels(part: keyof Parts<unknown>): Float32Array {
    return labelsOf(this.dataset, this.parts[part]);
  }

  /** Macro AUROC of scores of the validation images, over the labels that are not apart. */
  validationAuroc(scores: Numbers): number {
    const { labels } = this.dataset;
    const left = new Set(this.apart.map(({ label }) => label));
    const targets = withoutLabels(this.labels("val"), labels, left);
    return macroMean(perLabel(auroc, scores, targets, labels.length)).mean;
  }

  /**
   * `target.json`.
   *
   * @param data how the SPEC is written there
   */
  describe(data: string): Target {
    const { dataset: { labels, examples }, parts, apart } = this;
    const width = labels.length;
    const prevalence = (indices: readonly number[]) =>
      labels.map((_, label) => {
        const known = indices.map((index) => examples[index]!.labels[label]!)
          .filter((value) => !Number.isNaN(value));
        return known.length === 0 ? null : known.reduce((sum, value) => sum + value) / known.length;
      });
    const sources = Map.groupBy(parts.train, (index) => examples[index]!.source);
    const test = parts.test.map((index) => examples[index]!);
    const patients = new Map<string, number>();
    for (const { patient } of test) {
      if (patient !== null && !patients.has(patient)) patients.set(patient, patients.size);
    }
    return {
      data,
      labels,
      apart: apart.map(({ label }) => label),
      training: {
        images: parts.train.length,
        patients: new Set(parts.train.map((index) => examples[index]!.patient ?? index)).size,
      },
      prevalence: prevalence(parts.train).map((share) => share ?? 0),
      ...(!sources.has(null) && {
        sourcePrevalence: Object.fromEntries(
          [...sources].map(([source, indices]) => [source, prevalence(indices)]),
        ),
      }),
      test: {
        ids: test.map(({ id }) => id),
        patients: test.map(({ patient }) => patients.get(patient ?? "") ?? null),
        sources: test.map(({ source }) => source),
        targets: Array.from(
          { length: test.length * width },
          (_, i) => test[Math.floor(i / width)]!.labels[i % width]!,
        ).map((value) => Number.isNaN(value) ? null : value),
      },
    };
  }
}

function takeImages({ size, channels, pixels }: Images, rows: readonly number[]): Images {
  const bytes = size * size * channels;
  const taken = new Uint8Array(rows.length * bytes);
  rows.forEach((row, i) => taken.set(pixels.subarray(row * bytes, (row + 1) * bytes), i * bytes));
  return { count: rows.length, size, channels, pixels: taken };
}
