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

/** Percent of the time by group, and of all that is {@linkcode overhead}. */
export function shares(
  { kernels, host }: CaseProfile,
): { byGroup: ReadonlyMap<string, number>; overhead: number } {
  const total = kernels.reduce((sum, { ms }) => sum + ms, host);
  const byGroup = new Map<string, number>();
  const add = (group: string, ms: number) =>
    byGroup.set(group, (byGroup.get(group) ?? 0) + 100 * ms / total);
  for (const { label, ms } of kernels) add(groups[label.split(".")[0]!] ?? "products", ms);
  add("host", host);
  return { byGroup, overhead: overhead.reduce((sum, name) => sum + (byGroup.get(name) ?? 0), 0) };
}
