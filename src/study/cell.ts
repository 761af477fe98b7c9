/**
 * What a study has measured. A study is a folder:
 *
 * ```
 * study.json                 the configuration, written once
 * target.json                the labels and test images that all cells share
 * cells/<id>.json            one finished cell each; never rewritten
 * locks/<id>                 a cell at work
 * pretrain/<arm>.s<seed>/    the run folders of pretraining, weights included
 * finetune/<id>/<rate>/      those of fine-tuning, until the cell is finished
 * pictures/                  what fine-tuned classifiers look at: <arm>.gradcam.png
 * report.html, table.md, results.csv, differences.csv, figures/
 * ```
 *
 * Cells hold no pixels and no weights: `study.json`, `target.json` and `cells/` are all that the report
 * needs, and all that is worth publishing.
 */
import type { JsonObject } from "../run_folder.ts";

/** How an encoder is judged: all of it trained on, or frozen below a classifier. */
export type Protocol = "finetune" | "linear" | "knn";

/** The protocols in the order of the report. */
export const PROTOCOLS: readonly Protocol[] = ["finetune", "linear", "knn"];

/** Where the weights of an encoder come from: a row of the table, in one of its columns. */
export interface Arm {
  /** Part of file names: `simclr-stl10`, `scratch`, `imagenet`, `pixels`. */
  readonly name: string;
  /** simclr, micle, autoencoder, kmeans or supervised; or scratch, imagenet or pixels, which take no pretraining here. */
  readonly method: string;
  /** The pretraining set by its name in the configuration; null for an arm without one. */
  readonly set: string | null;
  /** Channels of the first stage. */
  readonly width: number;
}

/** The images that every cell is scored on, and what is known without any model. */
export interface Target {
  /** Canonical SPEC of the data. */
  readonly data: string;
  /** Label names, in the order of every matrix here. */
  readonly labels: readonly string[];
  /** Labels that are part of no mean, being negations of others. */
  readonly apart: readonly string[];
  /** How many images and patients train, with all of the labels. */
  readonly training: { readonly images: number; readonly patients: number };
  /** The share of positives of each label among the training images, which a constant predictor gives. */
  readonly prevalence: readonly number[];
  /**
   * The same share by source, null where no image of a source has the label known: what a predictor gives that
   * knows only where an image is from. Absent where the sources of the training images are unknown.
   */
  readonly sourcePrevalence?: Readonly<Record<string, readonly (number | null)[]>>;
  /** The test images: patients and sources by number, in the order in which they occur; null for unknown. */
  readonly test: {
    readonly ids: readonly string[];
    readonly patients: readonly (number | null)[];
    readonly sources: readonly (string | null)[];
    /** [images, labels] row by row: 1, 0 or null for unknown. */
    readonly targets: readonly (number | null)[];
  };
}

/** Where and with what a cell was computed. */
export interface Origin {
  readonly adapter: string;
  readonly wgrad: string;
  readonly deno: string;
  /** ISO 8601, when it was finished. */
  readonly finished: string;
  /**
   * Wall time. Of a pretraining, which may have been stopped in between, that of its steps; of a fine-tuning that
   * was, since it last went on.
   */
  readonly seconds: number;
}

/** A pretraining. */
export interface PretrainCell {
  readonly kind: "pretrain";
  readonly arm: Arm;
  readonly seed: number;
  /** Views of images that the encoder was trained on, in all. */
  readonly views: number;
  /** Images of the pretraining set. */
  readonly images: number;
  readonly steps: number;
  /** Views a second while training. */
  readonly viewsPerSecond: number;
  /** [step, loss], thinned. */
  readonly loss: readonly (readonly [step: number, loss: number])[];
  /** config.json of the run. */
  readonly config: JsonObject;
  readonly origin: Origin;
}

/** What a classifier says of the test images. */
export interface Scored {
  /** [images, labels] row by row. */
  readonly probabilities: readonly number[];
  /** From which a label counts as found; chosen on the validation images. */
  readonly thresholds: readonly number[];
  /** Macro AUROC on the validation images. */
  readonly validation: number;
  /** Epochs trained; null for frozen features. */
  readonly epoch: number | null;
}

/** A classifier on top of an encoder. */
export interface ScoreCell {
  readonly kind: Protocol;
  readonly arm: Arm;
  readonly seed: number;
  /** Part of the labelled training patients. */
  readonly fraction: number;
  /** Labelled images trained on. */
  readonly images: number;
  /** The settings that were tried, with the macro AUROC on the validation images that chose among them; empty if they were chosen before. */
  readonly search: readonly { readonly setting: number; readonly validation: number }[];
  /** Learning rate of fine-tuning, penalty of the linear probe, neighbours of kNN. */
  readonly setting: number;
  /** Of fine-tuning the epoch chosen on validation; else the only one. */
  readonly best: Scored;
  /** Of fine-tuning the last epoch; else null. */
  readonly last: Scored | null;
  /** Of fine-tuning, after every epoch; `loss` is the mean of its training steps. */
  readonly curve: readonly {
    readonly epoch: number;
    readonly loss: number;
    readonly validation: number;
  }[];
  /** Of kNN with all labels: places [images, 2] of the test images in maps of their features; else null. */
  readonly maps: { readonly pca: readonly number[]; readonly umap: readonly number[] } | null;
  readonly origin: Origin;
}

/** A finished cell. */
export type Cell = PretrainCell | ScoreCell;

/** What names a cell before it is computed. */
export type CellKey =
  | Pick<PretrainCell, "kind" | "arm" | "seed">
  | Pick<ScoreCell, "kind" | "arm" | "seed" | "fraction">;

/** Its name in files: `simclr-stl10.pretrain.s0`, `scratch.finetune.10%.s2` written `scratch.finetune.10.s2`. */
export function cellId(key: CellKey): string {
  const part = "fraction" in key ? `.${Number((100 * key.fraction).toPrecision(6))}` : "";
  return `${key.arm.name}.${key.kind}${part}.s${key.seed}`;
}
