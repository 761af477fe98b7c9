/**
 * `deno task bench`: the speed of everything, as a table, beside what was stored for the same adapter.
 *
 *     --only TEXT    cases whose name or shape holds it
 *     --peers        jax-js, TensorFlow.js and PyTorch on the CPU do the same, each right after the case
 *     --json         an array of {name, shape, unit, value, peer}
 *     --save         stores the figures, and the roofline of a training step, in bench/adapters/
 */
import { parseArgs } from "node:util";
import { Gpu } from "../src/gpu/gpu.ts";
import { cases as augment } from "./augment_bench.ts";
import { cases as batchNorm } from "./batch_norm_bench.ts";
import { cases as conv2d } from "./conv2d_bench.ts";
import { cases as data } from "./data_bench.ts";
import { cases as host } from "./host_bench.ts";
import { cases as kmeans } from "./kmeans_bench.ts";
import { cases as matmul } from "./matmul_bench.ts";
import { cases as ntXent } from "./nt_xent_bench.ts";
import { cases as optim } from "./optim_bench.ts";
import { openJaxJs } from "./peers/jax_js.ts";
import type { Peer } from "./peers/peer.ts";
import { openTfjs } from "./peers/tfjs.ts";
import { openTorch } from "./peers/torch.ts";
import { roofline } from "./roofline.ts";
import { shares } from "./shares.ts";
import { cases as simclr } from "./simclr_bench.ts";
import { cases as step } from "./step_bench.ts";
import { readStored, save } from "./stored.ts";
import { measure, peaks, profile, type Row, speedup } from "./support.ts";

const { json, peers, only = "", save: saving } = readFlags();
const say = (text: string) => {
  if (!json) console.log(text);
};

const gpu = await Gpu.open();
const peak = await peaks(gpu);
const stored = readStored(gpu.adapter);
say(`${gpu.adapter.description || gpu.adapter.device}, subgroups of ${gpu.subgroupSize}`);
say(`peak: ${peak["GFLOP/s"].toFixed(0)} GFLOP/s, ${peak["GB/s"].toFixed(1)} GB/s`);
if (stored !== null) say(`"now" is against the figures of ${stored.date}, ×2 being twice as fast`);
say("");

const groups = [
  step,
  simclr,
  conv2d,
  matmul,
  batchNorm,
  ntXent,
  kmeans,
  optim,
  augment,
  data,
  host,
];
const cases = groups.flat().filter(({ name, shape }) => `${name} ${shape}`.includes(only));
const others = peers
  ? [await openJaxJs(), await openTfjs(), await openTorch()].filter((it) => it !== null)
  : [];
const rows: Row[] = [];
for await (const row of measure(gpu, cases, others)) {
  rows.push(row);
  say(format(row, others));
}
const steps = cases.filter((one) => simclr.includes(one));
if (steps.length > 0 && gpu.features.has("timestamp-query")) {
  say("\nwhat steps spend on neither products of matrices nor pooling nor loss:");
  for (const step of steps) {
    const { byGroup, overhead } = shares(await profile(gpu, step));
    const { shape } = step;
    const row: Row = { name: "SimCLR overhead", shape, unit: "%", value: overhead, peer: null };
    rows.push(row);
    say(format(row, others));
    say(`    ${[...byGroup].map(([name, share]) => `${name} ${share.toFixed(1)} %`).join(", ")}`);
  }
}
const { kernels } = await profile(gpu, step[0]!);
say(`\nwhere the time of a training step goes, and what bounds it:`);
const { lines, svg } = await roofline(kernels, peak);
lines.forEach(say);
if (json) console.log(JSON.stringify(rows, null, 2));
if (saving) say(`\nstored in ${save(gpu.adapter, rows, svg).join(" and ")}`);
gpu.close();
Deno.exit();

/** The flags; of what is none of them, one line and exit code 2. */
function readFlags() {
  try {
    return parseArgs({
      args: Deno.args,
      options: {
        json: { type: "boolean" },
        peers: { type: "boolean" },
        only: { type: "string" },
        save: { type: "boolean" },
      },
    }).values;
  } catch (error) {
    console.error(`error: ${(error as Error).message}`);
    Deno.exit(2);
  }
}

/** Name, shape, value, share of the peak, against what was stored, and how many times as fast as each peer. */
function format({ name, shape, unit, value, peer }: Row, peers: readonly Peer[]): string {
  const best: number | undefined = unit in peak ? peak[unit as keyof typeof peak] : undefined;
  const share = best === undefined ? "" : `${(100 * value / best).toFixed(0)} %`;
  const before = stored?.rows.find((row) => row.name === name && row.shape === shape);
  const now = before === undefined ? "" : `now ×${speedup(unit, value, before.value).toFixed(2)}`;
  const against = peers.flatMap(({ name }) => {
    const other = peer?.[name];
    if (other === undefined) return [];
    return [`${name} ${amount(other)} (×${Number(speedup(unit, value, other).toPrecision(2))})`];
  });
  return [
    name.padEnd(30),
    shape.padEnd(34),
    `${amount(value).padStart(6)} ${unit}`.padEnd(15),
    share.padStart(5),
    now.padStart(9),
    against.join(", "),
  ].join(" ").trimEnd();
}

function amount(value: number): string {
  return value >= 100 ? value.toFixed(0) : value.toPrecision(3);
}
