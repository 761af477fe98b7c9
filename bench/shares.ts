/** What a training step spends its time on, by groups of kernels. */
import type { CaseProfile } from "./support.ts";

/** By shader. All others are products of matrices, with the turning of operands and the joining of parts. */
const groups: Readonly<Record<string, string>> = {
  pool: "pooling",
  nt_xent: "loss",
  softmax: "loss",
  losses: "loss",
  batch_norm: "normalisation",
  augment: "augmentation",
  optim: "optimiser",
  binary: "elementwise",
  unary: "elementwise",
};

/** Groups that are neither the model's arithmetic nor its loss. */
const overhead = ["normalisation", "augmentation", "optimiser", "elementwise", "host"];

/** Percent of the time on the clock by group, and of all that is {@linkcode overhead}. */
export function shares(
  { kernels, ms }: CaseProfile,
): { byGroup: ReadonlyMap<string, number>; overhead: number } {
  const byGroup = new Map<string, number>();
  const add = (group: string, time: number) =>
    byGroup.set(group, (byGroup.get(group) ?? 0) + 100 * time / ms);
  for (const { label, ms } of kernels) add(groups[label.split(".")[0]!] ?? "products", ms);
  // When no kernel runs.
  add("host", ms - kernels.reduce((sum, { ms }) => sum + ms, 0));
  return { byGroup, overhead: overhead.reduce((sum, name) => sum + (byGroup.get(name) ?? 0), 0) };
}
