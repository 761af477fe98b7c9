/** One update of all parameters, as many as ResNet-18 of width 16 has, by each optimiser. */
import assert from "node:assert/strict";
import { createOptimizer, type OptimizerName } from "../src/optim.ts";
import { type Case, random, register } from "./support.ts";

const total = 700_032;

/** Reads and writes of a value in one update, those for norms included. */
const accesses: Record<OptimizerName, number> = { sgd: 5, adam: 7, adamw: 7, lars: 7 };

function caseOf(name: OptimizerName, clip: number): Case {
  return {
    name: `${name}${clip > 0 ? " + clipping" : ""}`,
    shape: `${total}`,
    unit: "GB/s",
    work: 4 * total * (accesses[name] + (clip > 0 ? 2 : 0)),
    async prepare(gpu) {
      const values = random(gpu, [total], "values");
      const gradients = random(gpu, [total], "gradients");
      const segments = [{ offset: 0, size: total, decay: true }];
      const optimizer = createOptimizer(
        name,
        { gpu, values: values.tensor, gradients: gradients.tensor, segments },
        { weightDecay: 1e-4, clip },
      );
      optimizer.step(1e-3);
      const after = await values.tensor.data();
      // Whatever the rule, the first step goes against the gradient.
      const moved = (i: number) => (after[i]! - values.data[i]!) * Math.sign(gradients.data[i]!);
      const wrong = gradients.data.findIndex((g, i) => Math.abs(g) > 0.1 && moved(i) > 0);
      assert.equal(wrong, -1, `${name}: value ${wrong} moved along its gradient`);
      return {
        run: () => optimizer.step(1e-3),
        tensors: [values.tensor, gradients.tensor],
      };
    },
  };
}

/** Every optimiser. */
export const cases: readonly Case[] = [
  ...(["sgd", "adamw", "lars"] as const).map((name) => caseOf(name, 0)),
  caseOf("adamw", 1),
];

register("optim", cases);
