/** `study.jsonc`: what a study compares. */
import type { ResNetOptions } from "../nn/resnet.ts";
import type { Arm, Protocol } from "./cell.ts";

/** A set of images to pretrain on. */
export interface PretrainingSet {
  /** How the report calls it. */
  readonly title: string;
  /** SPEC; training sees its splits train and unlabeled. */
  readonly data: string;
  /** What a reader of the table should know of it. */
  readonly note?: string;
}

/** Flags of `train` by their names in a configuration file: what a method is run with. */
export type TrainFlags = Readonly<Record<string, string | number | boolean>>;

/** The configuration of a study, defaults filled in; `study.json` in its folder. */
export interface StudyConfig {
  readonly title: string;
  /** SPEC of the labelled images: train to learn from, val to choose on, test to score. */
  readonly target: string;
  /** Pretraining sets by name, in the order of the table's columns. */
  readonly sets: Readonly<Record<string, PretrainingSet>>;
  /** Depth, stem, width and channels of every encoder but those of width 64. */
  readonly encoder: ResNetOptions;
  /** Side of all images in pixels. */
  readonly imageSize: number;
  readonly pretraining: {
    /** Views of images for every arm. */
    readonly views: number;
    /** Methods in the order of the table's rows: the sets each runs on, and flags of `train`. */
    readonly methods: Readonly<
      Record<string, { readonly on: readonly string[]; readonly flags: TrainFlags }>
    >;
  };
  /** Published weights of a ResNet-18 of width 64, judged beside a scratch row of that width; null leaves both rows unrun. */
  readonly imagenet: { readonly weights: string | null };
  readonly finetuning: {
    /** Learning rates to choose from, on validation with the first seed. */
    readonly rates: readonly number[];
    readonly weightDecay: number;
  };
  /** Parts of the labels, and how long fine-tuning lasts with them. */
  readonly fractions: readonly {
    readonly fraction: number;
    readonly epochs: number;
    readonly batch: number;
  }[];
  readonly protocols: readonly Protocol[];
  readonly seeds: readonly number[];
}

/** The arms of a study: first those without pretraining, then methods by sets, in the order of the table. */
export function armsOf({ sets, encoder, pretraining }: StudyConfig): Arm[] {
  const { width } = encoder;
  return [
    { name: "pixels", method: "pixels", set: null, width },
    { name: "scratch", method: "scratch", set: null, width },
    { name: "scratch-64", method: "scratch", set: null, width: 64 },
    { name: "imagenet", method: "imagenet", set: null, width: 64 },
    ...Object.entries(pretraining.methods).flatMap(([method, { on }]) =>
      Object.keys(sets).filter((set) => on.includes(set)).map((set) => ({
        ...{ name: `${method}-${set}`, method, set, width },
      }))
    ),
  ];
}
