/** The contrastive loss with its gradient, at batches of SimCLR. */
import { ntXent } from "../src/ops/nt_xent.ts";
import { type Case, checkClose, dot, random, register } from "./support.ts";

function caseOf(rows: number, d: number): Case {
  const temperature = 0.5;
  return {
    name: "ntXent + gradient",
    shape: `${rows}×${d}`,
    unit: "ms",
    work: 1,
    peer: { op: "ntXent", rows, d, temperature },
    async prepare(gpu) {
      const h = random(gpu, [rows, d], "h");
      h.tensor.requiresGrad = true;
      const loss = ntXent(h.tensor, { temperature });
      const [dh] = loss.node!.backward(gpu.one, [true]);
      checkClose("loss", await loss.item(), naive(h.data, rows, d, temperature), 1);
      // The loss does not depend on the length of the embeddings.
      const gradient = await dh!.data() as Float32Array;
      const scale = Math.sqrt(dot(gradient, gradient) * dot(h.data, h.data));
      checkClose("dh", dot(gradient, h.data), 0, scale);
      const run = () => ntXent(h.tensor, { temperature }).node!.backward(gpu.one, [true]);
      return { run, tensors: [h.tensor, loss, dh!] };
    },
  };
}

function naive(h: Float32Array, rows: number, d: number, temperature: number): number {
  const row = (i: number) => h.subarray(i * d, (i + 1) * d);
  const norms = Array.from({ length: rows }, (_, i) => Math.sqrt(dot(row(i), row(i))));
  const similarity = (i: number, j: number) =>
    dot(row(i), row(j)) / (norms[i]! * norms[j]! * temperature);
  let total = 0;
  for (let i = 0; i < rows; i++) {
    let sum = 0;
    for (let j = 0; j < rows; j++) if (j !== i) sum += Math.exp(similarity(i, j));
    total += Math.log(sum) - similarity(i, (i + rows / 2) % rows);
  }
  return total / rows;
}

/** Every batch. */
export const cases: readonly Case[] = [256, 512, 1024].map((rows) => caseOf(rows, 128));

register("nt_xent", cases);
