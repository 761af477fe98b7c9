/**
 * K-means: an iteration of Lloyd's algorithm, assignment and means, on points without clusters: the first five,
 * in which 100 centroids move all the time, and of 1000 a third and less from the second on.
 */
import assert from "node:assert/strict";
import { kmeans } from "../src/kmeans.ts";
import { type Case, dot, random, register } from "./support.ts";

/** Enough of them to hide the start and the end. */
const iterations = 5;

function caseOf(n: number, d: number, k: number): Case {
  return {
    name: "kmeans iteration",
    shape: `n ${n}, d ${d}, k ${k}`,
    unit: "ms",
    work: iterations,
    peer: { op: "kmeans", n, d, k },
    async prepare(gpu) {
      const x = random(gpu, [n, d], "x");
      const init = x.data.slice(0, k * d);
      const options = { k, init, tolerance: 0 };
      const { centroids, labels } = await kmeans(x.tensor, { ...options, iterations: 1 });
      const row = (matrix: Float32Array, i: number) => matrix.subarray(i * d, (i + 1) * d);
      for (let i = 0; i < n; i += Math.ceil(n / 16)) {
        const distances = Array.from({ length: k }, (_, c) => {
          const centroid = row(centroids, c);
          return dot(centroid, centroid) - 2 * dot(centroid, row(x.data, i));
        });
        const nearest = Math.min(...distances);
        assert(distances[labels[i]!]! - nearest < 1e-3, `point ${i} is in cluster ${labels[i]}`);
      }
      return { run: () => kmeans(x.tensor, { ...options, iterations }), tensors: [x.tensor] };
    },
  };
}

/** Features of ResNets of width 16 and 64. */
export const cases: readonly Case[] = [
  caseOf(10_000, 128, 100),
  caseOf(10_000, 512, 100),
  caseOf(10_000, 128, 1000),
  caseOf(10_000, 512, 1000),
];

register("kmeans", cases);
