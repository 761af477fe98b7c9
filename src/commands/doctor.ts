/** `deno task doctor`: can this machine train, and if not, what is missing? */

import { Gpu, NoAdapterError } from "../gpu/gpu.ts";
import { conv2d } from "../ops/conv2d.ts";
import { matmul } from "../ops/matmul.ts";
import { sum } from "../ops/reduce.ts";
import type { Shape, Tensor } from "../tensor.ts";
import { defineCommand } from "./command.ts";
import { advice, describeMachine } from "./machine.ts";

/** The command. */
export const command = defineCommand({
  name: "doctor",
  summary: "Checks adapter, driver and kernels, and says what is missing",
  flags: {},
  async run() {
    const machine = describeMachine(Deno.build.os);
    const { deno, v8 } = Deno.version;
    print("Deno", `${deno}, V8 ${v8}, ${Deno.build.target}`);
    print("Hardware", machine.gpus.join(", ") || "no GPU that the kernel shows");
    if (machine.os === "linux") {
      print("Drivers", machine.drivers.join(", ") || "no Vulkan driver is installed");
    }
    try {
      const gpu = await Gpu.open();
      describeAdapter(gpu);
      const healthy = await selfTest(gpu);
      gpu.close();
      if (gpu.adapter.isFallback && machine.gpus.length > 0) {
        console.log("\nThere is a GPU, but Deno finds only a software adapter. What may help:");
        for (const line of advice(machine)) console.log(`  ${line}`);
      }
      console.log(healthy ? "\nAll is well." : "\nKernels compute wrong values on this adapter.");
      return healthy ? 0 : 1;
    } catch (error) {
      if (!(error instanceof NoAdapterError)) throw error;
      print("Adapter", "none");
      console.log("\nDeno finds no adapter, so nothing can be trained. What helps:");
      for (const line of advice(machine)) console.log(`  ${line}`);
      return 1;
    }
  },
});

function print(label: string, text: string): void {
  console.log(`${label.padEnd(9)} ${text}`);
}

function describeAdapter(gpu: Gpu): void {
  const { description, vendor, device, isFallback } = gpu.adapter;
  const { limits } = gpu.device;
  print("Adapter", `${description || `vendor ${vendor}, device ${device}`}, ${kind(isFallback)}`);
  const subgroups = gpu.subgroupSize ? `subgroups of ${gpu.subgroupSize}` : "no subgroups";
  print("Features", [subgroups, ...[...gpu.features].filter((f) => f !== "subgroups")].join(", "));
  print(
    "Limits",
    `tensor ${mib(gpu.maxTensorBytes)}, buffer ${mib(limits.maxBufferSize)}, ` +
      `workgroup ${limits.maxComputeInvocationsPerWorkgroup} invocations and ` +
      `${limits.maxComputeWorkgroupStorageSize / 1024} KiB`,
  );
}

function kind(isFallback: boolean): string {
  return isFallback ? "software on the CPU" : "hardware";
}

function mib(bytes: number): string {
  return `${Math.floor(bytes / 2 ** 20)} MiB`;
}

/**
 * Runs kernels and compares them with the CPU: on small whole numbers f32 is exact, so every value
 * must be equal. The sum is longer than the 65 535 steps after which some drivers end a loop.
 */
async function selfTest(gpu: Gpu): Promise<boolean> {
  const a = wholeNumbers(33 * 70);
  const b = wholeNumbers(70 * 17);
  const image = wholeNumbers(2 * 9 * 11 * 5);
  const weight = wholeNumbers(3 * 3 * 5 * 7);
  const long = wholeNumbers(70_001);
  const tests: [string, () => Tensor, Float64Array][] = [
    [
      "matmul",
      () => matmul(gpu.tensor(a, [33, 70]), gpu.tensor(b, [70, 17])),
      cpuMatmul(a, b, [33, 70, 17]),
    ],
    [
      "conv2d",
      () => {
        const x = gpu.tensor(image, [2, 9, 11, 5]);
        return conv2d(x, gpu.tensor(weight, [3, 3, 5, 7]), { stride: 2, padding: 1 });
      },
      cpuConv2d(image, [2, 9, 11, 5], weight, [3, 3, 5, 7]),
    ],
    ["sum", () => sum(gpu.tensor(long)), Float64Array.of(long.reduce((total, v) => total + v, 0))],
  ];
  let healthy = true;
  for (const [name, run, expected] of tests) {
    const actual = await gpu.step(run).data();
    const wrong = expected.reduce((count, v, i) => count + (actual[i] === v ? 0 : 1), 0);
    print("Kernel", `${name}: ${wrong ? `${wrong} of ${expected.length} values wrong` : "right"}`);
    healthy &&= wrong === 0;
  }
  return healthy;
}

/** -3 … 3, in an order without a short period. */
function wholeNumbers(count: number): Float32Array {
  return Float32Array.from({ length: count }, (_, i) => (i * i + 3 * (i >> 3)) % 7 - 3);
}

/** [m, k] · [k, n] */
function cpuMatmul(a: Float32Array, b: Float32Array, [m, k, n]: [number, number, number]) {
  const y = new Float64Array(m * n);
  for (let i = 0; i < m; i++) {
    for (let j = 0; j < n; j++) {
      for (let l = 0; l < k; l++) y[i * n + j]! += a[i * k + l]! * b[l * n + j]!;
    }
  }
  return y;
}

/** Stride 2, padding 1. */
function cpuConv2d(x: Float32Array, xShape: Shape, w: Float32Array, wShape: Shape): Float64Array {
  const [n, height, width, channels] = xShape as [number, number, number, number];
  const [kh, kw, , outputs] = wShape as [number, number, number, number];
  const outHeight = Math.floor((height + 2 - kh) / 2) + 1;
  const outWidth = Math.floor((width + 2 - kw) / 2) + 1;
  const y = new Float64Array(n * outHeight * outWidth * outputs);
  for (let at = 0; at < y.length; at++) {
    const o = at % outputs;
    const column = Math.floor(at / outputs) % outWidth;
    const row = Math.floor(at / outputs / outWidth) % outHeight;
    const image = Math.floor(at / outputs / outWidth / outHeight);
    for (let tap = 0; tap < kh * kw; tap++) {
      const i = 2 * row + Math.floor(tap / kw) - 1;
      const j = 2 * column + tap % kw - 1;
      if (i < 0 || i >= height || j < 0 || j >= width) continue;
      for (let c = 0; c < channels; c++) {
        const pixel = x[((image * height + i) * width + j) * channels + c]!;
        y[at]! += pixel * w[(tap * channels + c) * outputs + o]!;
      }
    }
  }
  return y;
}
