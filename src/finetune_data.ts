/** What a classifier is trained and chosen on: which images, how often each label holds, which loss fits. */
import { type Dataset, indicesOf, isLabelled } from "./data/dataset.ts";
import { samplePatients } from "./data/operations.ts";
import { UserError } from "./errors.ts";
import type { LossName } from "./methods/supervised.ts";
import { columnOf } from "./metrics.ts";
import { labelsOf } from "./probe.ts";
import { type Negation, negations } from "./scores.ts";

/** The images of a fine-tuning. */
export interface FinetuneSplits {
  /** Whose images they are. */
  readonly dataset: Dataset;
  /** Labelled images to train on. */
  readonly train: readonly number[];
  /** Labelled images to choose the epoch and the thresholds on. */
  readonly val: readonly number[];
  /** Labels that are part of no mean, being negations of others. */
  readonly apart: readonly Negation[];
}

/** How often a label holds. */
export interface LabelBalance {
  readonly label: string;
  readonly positive: number;
  readonly negative: number;
  readonly missing: number;
}

/**
 * The images to train and to validate on.
 *
 * @param fraction of the labelled training patients, see {@linkcode samplePatients}
 * @throws {UserError} if there are none
 */
export function finetuneSplits(
  dataset: Dataset,
  { fraction, seed }: { readonly fraction: number; readonly seed: number },
): FinetuneSplits {
  const labelled = (split: "train" | "val") =>
    indicesOf(dataset, [split]).filter((i) => isLabelled(dataset.examples[i]!));
  const all = labelled("train");
  const [train, val] = [samplePatients(dataset, all, fraction, seed), labelled("val")];
  if (train.length < 2) {
    throw new UserError(
      `${dataset.spec}: ${train.length} labelled images to train on` +
        (fraction < 1 ? ` (${all.length} before --label-fraction ${fraction})` : "") +
        ", it takes two",
    );
  }
  if (val.length === 0) {
    throw new UserError(
      `${dataset.spec}: no labelled image in the val split, on which epoch and thresholds are chosen`,
    );
  }
  const apart = negations(dataset.labels, labelsOf(dataset, [...all, ...val]));
  return { dataset, train, val, apart };
}

/** How often each label holds among some images. */
export function labelBalance(dataset: Dataset, indices: readonly number[]): LabelBalance[] {
  const targets = labelsOf(dataset, indices);
  return dataset.labels.map((label, i) => {
    const column = columnOf(targets, dataset.labels.length, i);
    const count = (value: number) => column.filter((target) => target === value).length;
    const [positive, negative] = [count(1), count(0)];
    return { label, positive, negative, missing: column.length - positive - negative };
  });
}

/**
 * A sentence for each label that training or validation cannot do much with.
 *
 * @throws {UserError} if no label has both classes to train on
 */
export function labelProblems({ dataset, train, val }: FinetuneSplits): string[] {
  const what = ({ positive, negative }: LabelBalance) =>
    positive + negative === 0
      ? "is known of none of the"
      : positive === 0
      ? "holds for none of the"
      : negative === 0
      ? "holds for all of the"
      : null;
  const [trained, validated] = [labelBalance(dataset, train), labelBalance(dataset, val)];
  if (trained.every((balance) => what(balance) !== null)) {
    throw new UserError(
      `${dataset.spec}: nothing to learn: no label both holds and fails among the ` +
        `${train.length} training images (${dataset.labels.join(", ")})`,
    );
  }
  const sentences = (balances: readonly LabelBalance[], images: string, consequence: string) =>
    balances.flatMap((balance) => {
      const problem = what(balance);
      return problem === null ? [] : [`${balance.label} ${problem} ${images}: ${consequence}`];
    });
  return [
    ...sentences(trained, `${train.length} training images`, "it cannot be learnt"),
    ...sentences(validated, `${val.length} validation images`, "it has no part in the choice"),
  ];
}

/** Whether labels are exclusive classes: every labelled image is known to have exactly one. */
export function isSingleLabel({ dataset, train, val }: FinetuneSplits): boolean {
  return dataset.labels.length > 1 &&
    [...train, ...val].every((index) => positives(dataset, index) === 1);
}

/** The loss of the flags: cross-entropy where labels are exclusive, unless another is asked for. */
export function chooseLoss(splits: FinetuneSplits, wanted: LossName | undefined): LossName {
  if (wanted === undefined) return isSingleLabel(splits) ? "cross-entropy" : "bce";
  if (wanted !== "cross-entropy") return wanted;
  const { dataset, train, val } = splits;
  const wrong = [...train, ...val].find((index) => positives(dataset, index) !== 1);
  if (wrong !== undefined) {
    throw new UserError(
      `--loss cross-entropy wants one label an image, but ${dataset.examples[wrong]!.id} has ` +
        positives(dataset, wrong),
    );
  }
  return wanted;
}

function positives({ examples }: Dataset, index: number): number {
  return examples[index]!.labels.filter((value) => value === 1).length;
}

/** N₋/N₊ of each label, by which bce lets both classes count alike; 1 where one of them is absent. */
export function positiveWeights({ dataset, train }: FinetuneSplits): number[] {
  return labelBalance(dataset, train).map(({ positive, negative }) =>
    positive > 0 && negative > 0 ? negative / positive : 1
  );
}
