import assert from "node:assert/strict";
import { type Embeddings, knn, type LabelledEmbeddings } from "../src/knn.ts";
import { Random } from "../src/random.ts";
import { assertClose } from "./support/assert.ts";

function embeddings(random: Random, rows: number, dimensions: number): Embeddings {
  const values = Float32Array.from({ length: rows * dimensions }, () => random.normal());
  return { values, dimensions };
}

/** The definition: all cosines, a full sort, a vote per class. */
function naive(
  { values, dimensions, labels, classes }: LabelledEmbeddings,
  queries: Embeddings,
  k: number,
  temperature: number,
): number[] {
  const rows = (x: Float32Array, width: number) =>
    Array.from({ length: x.length / width }, (_, i) => [...x.subarray(i * width, (i + 1) * width)]);
  const dot = (a: number[], b: number[]) => a.reduce((sum, v, i) => sum + v * b[i]!, 0);
  const cosine = (a: number[], b: number[]) => dot(a, b) / Math.sqrt(dot(a, a) * dot(b, b));
  const train = rows(values, dimensions);
  const known = rows(labels, classes);
  return rows(queries.values, dimensions).flatMap((query) => {
    const nearest = train.map((row, i) => ({ weight: cosine(query, row), labels: known[i]! }))
      .sort((a, b) => b.weight - a.weight).slice(0, k);
    return Array.from({ length: classes }, (_, c) => {
      const voters = nearest.filter(({ labels }) => !Number.isNaN(labels[c]));
      const weights = voters.map(({ weight }) => Math.exp(weight / temperature));
      const votes = weights.reduce((sum, w, i) => sum + w * voters[i]!.labels[c]!, 0);
      return votes / weights.reduce((sum, w) => sum + w, 0);
    });
  });
}

for (
  const [rows, queries, dimensions, k, temperature] of [
    [50, 9, 7, 20, 0.1],
    [301, 13, 33, 200, 0.1],
    [5, 4, 3, 20, 0.5],
    [40, 1, 1, 1, 0.1],
  ] as const
) {
  Deno.test(`knn() equals its definition: ${rows} rows, ${queries} queries, k ${k}`, () => {
    const random = new Random(rows, "knn");
    const labels = Float32Array.from({ length: rows * 3 }, () => random.integer(2));
    for (let i = 0; i < labels.length; i++) if (random.uniform() < 0.3) labels[i] = NaN;
    // A single neighbour must know its labels for the definition to hold.
    if (k === 1) labels.fill(1, 0, 60).fill(0, 60);
    const train = { ...embeddings(random, rows, dimensions), labels, classes: 3 };
    const asked = embeddings(random, queries, dimensions);
    const expected = naive(train, asked, k, temperature);
    assert.ok(expected.every(Number.isFinite));
    assertClose(
      knn(train, asked, { k, temperature }),
      expected,
      { rtol: 1e-6, atol: 1e-6 },
      "scores",
    );
  });
}

Deno.test("knn() of a training row with k = 1 returns its labels", () => {
  const random = new Random(1, "knn");
  const labels = Float32Array.from({ length: 60 }, () => random.integer(2));
  const train = { ...embeddings(random, 30, 5), labels, classes: 2 };
  assert.deepEqual(knn(train, train, { k: 1 }), labels);
});

Deno.test("knn() does not depend on the length of embeddings", () => {
  const random = new Random(2, "knn");
  const labels = Float32Array.from({ length: 40 }, () => random.integer(2));
  const train = { ...embeddings(random, 40, 6), labels, classes: 1 };
  const queries = embeddings(random, 8, 6);
  const scale = (x: Embeddings) => ({ ...x, values: x.values.map((v, i) => v * 2 ** (i / 6 | 0)) });
  const shifted = { ...train, ...scale(train) };
  assertClose(knn(shifted, scale(queries)), knn(train, queries), { atol: 1e-6 }, "scores");
});

Deno.test("knn() takes the first of equally near rows", () => {
  const train = {
    values: Float32Array.of(1, 0, 1, 0, 1, 0, -1, 0),
    dimensions: 2,
    labels: Float32Array.of(1, 0, 0, 0),
    classes: 1,
  };
  const queries = { values: Float32Array.of(3, 0), dimensions: 2 };
  assert.deepEqual(knn(train, queries, { k: 1 }), Float32Array.of(1));
  assert.deepEqual(knn(train, queries, { k: 2 }), Float32Array.of(0.5));
});

Deno.test("knn() falls back to the share of a label where every neighbour misses it", () => {
  const train = {
    values: Float32Array.of(1, 0, 0, 1, 0, 1, 0, 1),
    dimensions: 2,
    labels: Float32Array.of(NaN, NaN, 1, NaN, 1, NaN, 0, NaN),
    classes: 2,
  };
  const queries = { values: Float32Array.of(1, 0), dimensions: 2 };
  assertClose(knn(train, queries, { k: 1 }), [2 / 3, NaN], { rtol: 1e-7 }, "scores");
});

Deno.test("knn() stays finite at a small temperature and for embeddings of zeros", () => {
  const train = {
    values: Float32Array.of(1, 0, 0.9, 0.1, 0, 0),
    dimensions: 2,
    labels: Float32Array.of(1, 0, 0),
    classes: 1,
  };
  const queries = { values: Float32Array.of(1, 0, 0, 0), dimensions: 2 };
  const scores = knn(train, queries, { temperature: 1e-5 });
  assertClose(scores, [1, 1 / 3], { atol: 1e-7 }, "scores");
});

Deno.test("knn() refuses sizes that do not fit and embeddings that are not finite", () => {
  const train = {
    values: new Float32Array(6).fill(1),
    dimensions: 2,
    labels: new Float32Array(3),
    classes: 1,
  };
  const query = (values: number[], dimensions: number) => ({
    values: Float32Array.from(values),
    dimensions,
  });
  assert.throws(() => knn(train, query([1, 2, 3], 3)), /3 dimensions, training rows 2/);
  assert.throws(() => knn(train, query([1, 2, 3], 2)), /3 values of queries are no rows of 2/);
  assert.throws(
    () => knn({ ...train, classes: 2 }, query([1, 2], 2)),
    /3 labels for 3 rows of 2 classes/,
  );
  assert.throws(
    () => knn(train, query([1, 2, NaN, 0], 2)),
    /embedding 1 of queries is not finite/,
  );
});
