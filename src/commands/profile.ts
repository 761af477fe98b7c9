/** The table of `--profile`. */
import type { KernelTime } from "../gpu/profile.ts";

/** Prints kernel, calls, ms, GFLOP/s or GB/s and share, longest first. */
export function printProfile(times: readonly KernelTime[]): void {
  const total = times.reduce((sum, { ms }) => sum + ms, 0);
  const row = (cells: readonly string[]) =>
    cells.map((cell, i) => i === 0 ? cell.padEnd(44) : cell.padStart(12)).join("");
  console.log(row(["kernel", "calls", "ms", "GFLOP/s", "GB/s", "share"]));
  for (const { label, calls, ms, flops, bytes } of times) {
    const rate = (count: number) => count === 0 || ms === 0 ? "" : (count / ms / 1e6).toFixed(1);
    console.log(row([
      label,
      String(calls),
      ms.toFixed(1),
      rate(flops),
      rate(bytes),
      `${(100 * ms / total).toFixed(1)} %`,
    ]));
  }
  console.log(row(["all kernels", "", total.toFixed(1), "", "", ""]));
}
