/** What an operation costs the CPU: shape checks, the tape, the pool, and recording its dispatch. */
import assert from "node:assert/strict";
import { backward } from "../src/autograd.ts";
import { mul } from "../src/ops/binary.ts";
import { sum } from "../src/ops/reduce.ts";
import { type Case, register } from "./support.ts";

/** Operations recorded between two submissions. */
const operations = 1000;

const chain: Case = {
  name: "host time an op",
  shape: `${operations} products, forward and backward`,
  unit: "µs",
  work: 2 * operations,
  async prepare(gpu) {
    const x = gpu.tensor([1, 2, 3, 4]);
    x.requiresGrad = true;
    const record = () => {
      let y = mul(x, 1);
      for (let i = 1; i < operations; i++) y = mul(y, 1);
      backward(sum(y));
    };
    gpu.step(record);
    assert.deepEqual([...await x.grad!.data()], [1, 1, 1, 1]);
    return { run: record, recordedOnly: true, tensors: [x] };
  },
};

/** One chain. */
export const cases: readonly Case[] = [chain];

register("host", cases);
