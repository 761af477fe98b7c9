/** `deno task bench`: every kernel's speed and its share of what the adapter reaches, as a table. */
import { parseArgs } from "node:util";
import { Gpu } from "../src/gpu/gpu.ts";
import { rows as augment } from "./augment_bench.ts";
import { rows as batchNorm } from "./batch_norm_bench.ts";
import { rows as conv2d } from "./conv2d_bench.ts";
import { rows as matmul } from "./matmul_bench.ts";
import { rows as ntXent } from "./nt_xent_bench.ts";
import { rows as optim } from "./optim_bench.ts";
import { peaks, type Row } from "./support.ts";

const { values: { json } } = parseArgs({ args: Deno.args, options: { json: { type: "boolean" } } });
const gpu = await Gpu.open();
const peak = await peaks(gpu);
const adapter = `${
  gpu.adapter.description || gpu.adapter.device
}, subgroups of ${gpu.subgroupSize}`;
if (!json) {
  console.log(adapter);
  console.log(`peak: ${peak["GFLOP/s"].toFixed(0)} GFLOP/s, ${peak["GB/s"].toFixed(1)} GB/s\n`);
}

const all: Row[] = [];
for (const rows of [conv2d, matmul, batchNorm, ntXent, optim, augment]) {
  const measured = await rows(gpu);
  all.push(...measured);
  if (!json) measured.forEach((row) => console.log(format(row)));
}
if (json) console.log(JSON.stringify({ adapter, peak, rows: all }, null, 2));
gpu.close();

function format({ name, shape, unit, value }: Row): string {
  const share = unit === "ms" ? "" : `${(100 * value / peak[unit]).toFixed(0)} %`.padStart(6);
  return `${name.padEnd(24)} ${shape.padEnd(24)} ${value.toFixed(1).padStart(9)} ${
    unit.padEnd(7)
  }` +
    share;
}
