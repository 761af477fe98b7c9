/** The table of `--profile`. */
import type { KernelTime } from "../gpu/profile.ts";
import type { Outcome } from "../train.ts";

/** Kernel, calls, ms, GFLOP/s, GB/s and share as lines of text, longest time first. */
export function formatProfile(times: readonly KernelTime[]): string {
  const total = times.reduce((sum, { ms }) => sum + ms, 0);
  const width = Math.max(...times.map(({ label }) => label.length), "all kernels".length);
  const row = (cells: readonly string[]) =>
    cells.map((cell, i) => i === 0 ? cell.padEnd(width) : cell.padStart(10)).join("");
  const rows = times.map(({ label, calls, ms, flops, bytes }) => {
    const rate = (count: number) => count === 0 || ms === 0 ? "" : (count / ms / 1e6).toFixed(1);
    const share = `${(100 * ms / total).toFixed(1)} %`;
    return row([label, String(calls), ms.toFixed(1), rate(flops), rate(bytes), share]);
  });
  return [
    row(["kernel", "calls", "ms", "GFLOP/s", "GB/s", "share"]),
    ...rows,
    row(["all kernels", "", total.toFixed(1), "", "", ""]),
  ].join("\n");
}

/** What steps waited for images: decoded before the first, they are uploaded then or batch by batch. */
export function formatUploads({ before, during }: Outcome["uploads"]): string {
  const ms = (seconds: number) => `${(1000 * seconds).toFixed(1)} ms`;
  return `images: ${ms(before)} of upload before the first step, then steps waited ${ms(during)}`;
}
