/**
 * `deno task bench`: every kernel's speed and its share of what the adapter reaches, as a table. With
 * `--peers`, the training step beside jax-js and PyTorch on the CPU, in the same run.
 */
import { parseArgs } from "node:util";
import { fileURLToPath } from "node:url";
import { Gpu } from "../src/gpu/gpu.ts";
import { findTorch, runPython } from "../tests/support/python.ts";
import { rows as augment } from "./augment_bench.ts";
import { rows as batchNorm } from "./batch_norm_bench.ts";
import { rows as conv2d } from "./conv2d_bench.ts";
import { rows as matmul } from "./matmul_bench.ts";
import { rows as ntXent } from "./nt_xent_bench.ts";
import { rows as optim } from "./optim_bench.ts";
import { trainingStep as jaxStep } from "./peers/jax_js.ts";
import { batch, rows as step, widths } from "./step_bench.ts";
import { peaks, type Row } from "./support.ts";

const { values: { json, peers } } = parseArgs({
  args: Deno.args,
  options: { json: { type: "boolean" }, peers: { type: "boolean" } },
});
const gpu = await Gpu.open();
const peak: Partial<Record<string, number>> = await peaks(gpu);
const adapter = `${
  gpu.adapter.description || gpu.adapter.device
}, subgroups of ${gpu.subgroupSize}`;
if (!json) {
  console.log(adapter);
  console.log(`peak: ${peak["GFLOP/s"]!.toFixed(0)} GFLOP/s, ${peak["GB/s"]!.toFixed(1)} GB/s\n`);
}

const all: Row[] = [];
const add = (measured: readonly Row[]) => {
  all.push(...measured);
  if (!json) measured.forEach((row) => console.log(format(row)));
};
for (const rows of [step, conv2d, matmul, batchNorm, ntXent, optim, augment]) add(await rows(gpu));
gpu.close();
if (peers) { for (const width of widths) add(await peersOf(width)); }
if (json) console.log(JSON.stringify({ adapter, peak, rows: all }, null, 2));

/** The training step of a width by others, each with how many times faster it is here. */
async function peersOf(width: number): Promise<Row[]> {
  const here = all[widths.indexOf(width as typeof widths[number])]!;
  const seconds = new Map([["jax-js", await jaxStep(width, batch, 3)]]);
  const python = await findTorch();
  if (python !== null) {
    const script = fileURLToPath(new URL("peers/torch_step.py", import.meta.url));
    const output = await runPython(python, [script, String(width), String(batch), "5"]);
    seconds.set("PyTorch on the CPU", Number(output));
  }
  return [...seconds].map(([name, time]) => {
    const value = batch / time;
    return { ...here, name: `${name}; here ×${(here.value / value).toPrecision(2)}`, value };
  });
}

function format({ name, shape, unit, value }: Row): string {
  const best = peak[unit];
  const share = best === undefined ? "" : `${(100 * value / best).toFixed(0)} %`.padStart(6);
  const amount = value.toFixed(value < 10 ? 2 : 1).padStart(9);
  return `${name.padEnd(32)} ${shape.padEnd(34)} ${amount} ${unit.padEnd(8)}${share}`.trimEnd();
}
