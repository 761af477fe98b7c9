/** Matrix products: square ones, all transposes, and those of a projection head. */
import { matmul } from "../src/ops/matmul.ts";
import { type Case, checkSome, random, register } from "./support.ts";

interface Product {
  readonly m: number;
  readonly k: number;
  readonly n: number;
  readonly transposeA?: boolean;
  readonly transposeB?: boolean;
}

const products: readonly Product[] = [
  { m: 256, k: 256, n: 256 },
  { m: 512, k: 512, n: 512 },
  { m: 512, k: 512, n: 512, transposeB: true },
  { m: 512, k: 512, n: 512, transposeA: true },
  { m: 512, k: 512, n: 512, transposeA: true, transposeB: true },
  { m: 1024, k: 1024, n: 1024 },
  { m: 128, k: 512, n: 128 },
];

function caseOf({ m, k, n, transposeA = false, transposeB = false }: Product): Case {
  return {
    name: "matmul",
    shape: `${m}×${k}${transposeA ? "ᵀ" : ""} · ${k}×${n}${transposeB ? "ᵀ" : ""}`,
    unit: "GFLOP/s",
    work: 2 * m * k * n,
    peer: { op: "matmul", m, k, n, transposeA, transposeB },
    async prepare(gpu) {
      const a = random(gpu, transposeA ? [k, m] : [m, k], "a");
      const b = random(gpu, transposeB ? [n, k] : [k, n], "b");
      const run = () => matmul(a.tensor, b.tensor, { transposeA, transposeB });
      const y = run();
      await checkSome("y", y, (index) => {
        const row = Math.floor(index / n);
        const column = index % n;
        let sum = 0;
        for (let i = 0; i < k; i++) {
          sum += a.data[transposeA ? i * m + row : row * k + i]! *
            b.data[transposeB ? column * k + i : i * n + column]!;
        }
        return sum;
      });
      return { run, tensors: [a.tensor, b.tensor, y] };
    },
  };
}

/** Every product. */
export const cases: readonly Case[] = products.map(caseOf);

register("matmul", cases);
