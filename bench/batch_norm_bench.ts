/** Batch normalisation with ReLU in training, at shapes of ResNets, with and without a residual. */
import { noGrad } from "../src/autograd.ts";
import { batchNorm } from "../src/ops/batch_norm.ts";
import { type Case, checkClose, checkSome, dot, random, register } from "./support.ts";

/** ResNet-18 of width 64 at 32×32 and batch 32; of width 32 at 64×64 and batch 64 twice. */
const shapes = [[32, 32, 32, 64], [32, 16, 16, 128], [32, 4, 4, 512], [128, 32, 32, 32]];

/** Passes over memory: x twice and y; dy and x twice and dx; one more for each use of a residual. */
const passes = { forward: 3, backward: 5 };

function caseOf(shape: readonly number[], direction: keyof typeof passes, added: boolean): Case {
  const c = shape.at(-1)!;
  const size = shape.reduce((product, length) => product * length, 1);
  const extra = added ? direction === "forward" ? 1 : 2 : 0;
  return {
    name: `batchNorm${added ? " + residual" : ""} ${direction}`,
    shape: shape.join("×"),
    unit: "GB/s",
    work: 4 * size * (passes[direction] + extra),
    async prepare(gpu) {
      const [x, residual, dy] = ["x", "residual", "dy"].map((name) => random(gpu, shape, name));
      const [weight, bias, runningMean, runningVar] = ["weight", "bias", "mean", "variance"].map(
        (name) => random(gpu, [c], name),
      );
      const inputs = [x!.tensor, weight!.tensor, bias!.tensor, residual!.tensor];
      for (const input of inputs) input.requiresGrad = true;
      const forward = () =>
        batchNorm(x!.tensor, {
          weight: weight!.tensor,
          bias: bias!.tensor,
          runningMean: runningMean!.tensor,
          runningVar: runningVar!.tensor,
          training: true,
          relu: true,
          ...(added && { residual: residual!.tensor }),
        });
      const y = forward();
      const needs = [true, true, true, true];
      const gradients = y.node!.backward(dy!.tensor, needs);

      const mean = new Float64Array(c);
      const variance = new Float64Array(c);
      x!.data.forEach((v, i) => mean[i % c]! += v * c / size);
      x!.data.forEach((v, i) => variance[i % c]! += (v - mean[i % c]!) ** 2 * c / size);
      await checkSome("y", y, (i) => {
        const normal = (x!.data[i]! - mean[i % c]!) / Math.sqrt(variance[i % c]! + 1e-5);
        const value = normal * weight!.data[i % c]! + bias!.data[i % c]!;
        return Math.max(0, value + (added ? residual!.data[i]! : 0));
      });
      // y grows in proportion with weight, bias and residual, and not with x.
      const [dx, dweight, dbias, dresidual] = await Promise.all(gradients.map((g) => g!.data()));
      const product = dot(await y.data(), dy!.data);
      const parts = dot(dweight!, weight!.data) + dot(dbias!, bias!.data) +
        (added ? dot(dresidual!, residual!.data) : 0);
      const scale = Math.sqrt(size);
      checkClose("dweight, dbias", parts, product, 10 * scale);
      checkClose("dx", dot(dx!, x!.data), 0, 10 * scale);

      const runs = {
        forward: () => noGrad(forward),
        backward: () => y.node!.backward(dy!.tensor, needs),
      };
      const all = [x, residual, dy, weight, bias, runningMean, runningVar].map((r) => r!.tensor);
      return { run: runs[direction], tensors: [...all, y, ...gradients.map((g) => g!)] };
    },
  };
}

/** Every shape, with and without a residual. */
export const cases: readonly Case[] = shapes.flatMap((shape) =>
  [false, true].flatMap((added) =>
    (["forward", "backward"] as const).map((direction) => caseOf(shape, direction, added))
  )
);

register("batch_norm", cases);
