/** Convolutions of ResNets: forward, gradient by the input, gradient by the weights. */
import { noGrad } from "../src/autograd.ts";
import { conv2d } from "../src/ops/conv2d.ts";
import { type Case, checkClose, checkSome, dot, random, register } from "./support.ts";

interface Layer {
  readonly n: number;
  /** Height and width. */
  readonly size: number;
  readonly inputs: number;
  readonly outputs: number;
  readonly kernel: number;
  readonly stride: number;
}

/** ResNet-18 of width 64 at 32×32 and batch 32; a bottleneck; stems; width 16 at 64×64 and batch 64 twice. */
const layers: readonly Layer[] = [
  { n: 32, size: 32, inputs: 64, outputs: 64, kernel: 3, stride: 1 },
  { n: 32, size: 16, inputs: 128, outputs: 128, kernel: 3, stride: 1 },
  { n: 32, size: 8, inputs: 256, outputs: 256, kernel: 3, stride: 1 },
  { n: 32, size: 4, inputs: 512, outputs: 512, kernel: 3, stride: 1 },
  { n: 32, size: 32, inputs: 64, outputs: 128, kernel: 3, stride: 2 },
  { n: 32, size: 8, inputs: 256, outputs: 512, kernel: 3, stride: 2 },
  { n: 32, size: 16, inputs: 64, outputs: 256, kernel: 1, stride: 1 },
  { n: 32, size: 64, inputs: 3, outputs: 64, kernel: 7, stride: 2 },
  { n: 32, size: 32, inputs: 3, outputs: 64, kernel: 3, stride: 1 },
  { n: 128, size: 32, inputs: 3, outputs: 16, kernel: 3, stride: 1 },
  { n: 128, size: 64, inputs: 1, outputs: 16, kernel: 7, stride: 2 },
  { n: 128, size: 16, inputs: 16, outputs: 16, kernel: 3, stride: 1 },
  { n: 128, size: 8, inputs: 32, outputs: 32, kernel: 3, stride: 1 },
];

/** What is timed; the operations are the same. */
type Direction = "forward" | "input gradient" | "weight gradient";

function caseOf(layer: Layer, direction: Direction): Case {
  const { n, size, inputs, outputs, kernel, stride } = layer;
  const padding = kernel >> 1;
  const out = Math.floor((size + 2 * padding - kernel) / stride) + 1;
  const stepping = stride > 1 ? ` /${stride}` : "";
  return {
    name: `conv2d ${direction}`,
    shape: `${inputs}→${outputs} ${kernel}×${kernel}${stepping} ${size}² n${n}`,
    unit: "GFLOP/s",
    work: 2 * n * out * out * kernel * kernel * inputs * outputs,
    peer: { op: "conv2d", direction, ...layer },
    async prepare(gpu) {
      const x = random(gpu, [n, size, size, inputs], "x");
      const w = random(gpu, [kernel, kernel, inputs, outputs], "w");
      const dy = random(gpu, [n, out, out, outputs], "dy");
      const forward = () => conv2d(x.tensor, w.tensor, { stride, padding });
      w.tensor.requiresGrad = true;
      const y = forward();
      const backward = y.node!.backward;

      await checkSome("y", y, (index) => {
        const o = index % outputs;
        const ox = Math.floor(index / outputs) % out;
        const oy = Math.floor(index / outputs / out) % out;
        const i = Math.floor(index / outputs / out / out);
        let sum = 0;
        for (let tap = 0; tap < kernel * kernel; tap++) {
          const yy = oy * stride + Math.floor(tap / kernel) - padding;
          const xx = ox * stride + tap % kernel - padding;
          if (yy < 0 || yy >= size || xx < 0 || xx >= size) continue;
          for (let c = 0; c < inputs; c++) {
            sum += x.data[((i * size + yy) * size + xx) * inputs + c]! *
              w.data[(tap * inputs + c) * outputs + o]!;
          }
        }
        return sum;
      });
      // y is linear in both: its product with dy is that of each gradient with its operand.
      const [dx, dw] = backward(dy.tensor, [true, true]);
      const product = dot(await y.data(), dy.data);
      const scale = Math.sqrt(dot(dy.data, dy.data) * kernel * kernel * inputs);
      checkClose("dx", dot(await dx!.data(), x.data), product, scale);
      checkClose("dw", dot(await dw!.data(), w.data), product, scale);

      const runs: Record<Direction, () => void> = {
        "forward": () => noGrad(forward),
        "input gradient": () => backward(dy.tensor, [true, false]),
        "weight gradient": () => backward(dy.tensor, [false, true]),
      };
      return { run: runs[direction], tensors: [x.tensor, w.tensor, dy.tensor, y, dx!, dw!] };
    },
  };
}

/** Every layer in every direction. */
export const cases: readonly Case[] = layers.flatMap((layer) =>
  (["forward", "input gradient", "weight gradient"] as const).map((it) => caseOf(layer, it))
);

register("conv2d", cases);
