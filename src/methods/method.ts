/** What the training loop asks of a way to train an encoder. */
import type { Gpu } from "../gpu/gpu.ts";
import { Module } from "../nn/module.ts";
import type { ResNet } from "../nn/resnet.ts";
import type { Random } from "../random.ts";
import type { Measure } from "../run_folder.ts";
import type { Tensor } from "../tensor.ts";

/** A horizontal line that gives a curve of losses its scale. */
export interface ReferenceLine {
  /** What the line means. */
  readonly label: string;
  /** Where it lies. */
  readonly value: number;
}

/** Images in a line of {@linkcode Method.samples}. */
export const samplesInLine = 8;

/** What a step came to. */
export interface StepResult {
  /** The scalar to minimise. */
  readonly loss: Tensor;
  /** The vectors [rows, d] that are watched for collapse. */
  readonly embeddings: Tensor;
}

/** What a method may ask for before an epoch. */
export interface Epoch {
  /** Where the model is. */
  readonly gpu: Gpu;
  /** Counts the epochs from 0. */
  readonly index: number;
  /** The encoder's features of all images to train on, plain views in evaluation mode: [n, features]. */
  features(): Promise<Float32Array>;
  /** Starts the parameters below a name again: other initial values in every epoch, and no past. */
  renew(prefix: string): void;
}

/** A model with its loss, and how its batches are drawn. */
export abstract class Method extends Module {
  /** What is kept of the training. */
  abstract readonly encoder: ResNet;
  /** Size of the embeddings that are watched for collapse. */
  abstract readonly embeddingSize: number;
  /** How many views of each image make up a batch. */
  abstract readonly viewsPerImage: number;

  /** Whether the learning rate falls to 0 in the course of a run, or stays after its warm-up. */
  readonly rateFalls: boolean = true;

  /**
   * Called before the first step of an epoch.
   *
   * @returns measures to log with that step
   */
  beginEpoch(_epoch: Epoch): Promise<Readonly<Record<string, Measure>>> {
    return Promise.resolve({});
  }

  /** What the steps depend on besides parameters and step, for the checkpoint; by name. */
  state(): ReadonlyMap<string, Float32Array> {
    return new Map();
  }

  /** Goes on from what {@linkcode state} gave. */
  restore(_state: ReadonlyMap<string, Float32Array>): void {}

  /**
   * The images of an epoch in the order in which its steps take them, `batch` each.
   *
   * @returns at least steps · batch images, each at most once unless the method draws with repetition
   */
  order(images: number, _batch: number, random: Random): readonly number[] {
    return random.shuffle(Array.from({ length: images }, (_, i) => i));
  }

  /**
   * The image of each view of a step: [first views; second views; …], viewsPerImage · n.
   *
   * @param rows the images of the step
   */
  views(rows: readonly number[], _random: Random): readonly number[] {
    return Array.from({ length: this.viewsPerImage }, () => rows).flat();
  }

  /**
   * The loss of a step.
   *
   * @param views [viewsPerImage · n, size, size, channels]
   * @param step counts the steps, for what is random in the model
   * @param images the images of the step
   */
  abstract loss(views: Tensor, step: number, images: readonly number[]): StepResult;

  /** What {@linkcode Method.samples} shows, from the first line to the last; empty if nothing. */
  readonly samplesCaption: string = "";

  /**
   * What the model makes of a few images, for the report.
   *
   * @param images their number in all
   * @param view gives plain views of some of them, [n, size, size, channels]
   * @returns lines of at most {@linkcode samplesInLine} images, in that shape
   */
  samples(_images: number, _view: (images: readonly number[]) => Tensor): Tensor[] {
    return [];
  }

  /** What is worth noting of the data, for config.json. */
  facts(): Readonly<Record<string, number>> {
    return {};
  }

  /** Values that the loss of a batch of n images is read against. */
  referenceLines(_n: number): readonly ReferenceLine[] {
    return [];
  }
}
