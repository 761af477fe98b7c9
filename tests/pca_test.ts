import assert from "node:assert/strict";
import { symmetricEigen, whiten } from "../src/pca.ts";
import { Random } from "../src/random.ts";
import { assertClose } from "./support/assert.ts";
import { readFixture } from "./support/fixture.ts";

Deno.test("whiten() agrees with NumPy", async () => {
  const fixture = await readFixture("pca");
  for (const name of fixture.cases()) {
    const { data, shape } = fixture.tensor(`${name}.x`);
    const dimensions = fixture.integer(`${name}.dimensions`);
    const whitened = whiten(data, shape[1]!, { dimensions });
    assert.equal(whitened.dimensions, dimensions);
    assertClose(whitened.values, fixture.tensor(`${name}.whitened`).data, { atol: 2e-5 }, name);
  }
});

Deno.test("whiten() keeps no more dimensions than the rows span", () => {
  const random = new Random(0, "span");
  const rows = Array.from({ length: 50 }, () => {
    const [a, b] = [random.normal(), random.normal()];
    return [a, 2 * a - b, 7, b, 3 * b + 1];
  });
  const { dimensions, values } = whiten(Float32Array.from(rows.flat()), 5, { dimensions: 5 });
  assert.equal(dimensions, 2);
  const moment = (i: number, j: number) =>
    rows.reduce((sum, _, row) => sum + values[2 * row + i]! * values[2 * row + j]!, 0) / 49;
  assertClose([moment(0, 0), moment(0, 1), moment(1, 1)], [1, 0, 1], { atol: 1e-5 }, "covariance");

  assert.equal(whiten(new Float32Array(12).fill(3), 4, { dimensions: 4 }).dimensions, 0);
  assert.equal(whiten(Float32Array.of(1, 2, 3), 3, { dimensions: 3 }).dimensions, 0);
});

Deno.test("symmetricEigen() takes a matrix apart and puts it together", () => {
  for (const d of [1, 2, 3, 17, 64]) {
    const random = new Random(d, "symmetric");
    const matrix = new Float64Array(d * d);
    for (let i = 0; i < d; i++) {
      for (let j = 0; j <= i; j++) matrix[i * d + j] = matrix[j * d + i] = random.normal();
    }
    const { values, vectors } = symmetricEigen(matrix, d);
    assert.deepEqual([...values], [...values].sort((a, b) => b - a));
    const product = (weight: (k: number) => number, at: (k: number, i: number) => number) =>
      Float64Array.from({ length: d * d }, (_, ij) => {
        const [i, j] = [Math.floor(ij / d), ij % d];
        let sum = 0;
        for (let k = 0; k < d; k++) sum += weight(k) * at(k, i) * at(k, j);
        return sum;
      });
    const again = product((k) => values[k]!, (k, i) => vectors[k * d + i]!);
    assertClose(again, matrix, { atol: 1e-12 * d }, `[${d},${d}]`);
    const identity = matrix.map((_, ij) => +(ij % (d + 1) === 0));
    assertClose(
      product(() => 1, (k, i) => vectors[i * d + k]!),
      identity,
      { atol: 1e-13 * d },
      "vᵀv",
    );
  }
  const diagonal = symmetricEigen(Float64Array.of(2, 0, 0, 0, 5, 0, 0, 0, 2), 3);
  assert.deepEqual([...diagonal.values], [5, 2, 2]);
  assert.throws(() => symmetricEigen(Float64Array.of(1, NaN, NaN, 1), 2), /not finite/);
});

Deno.test("whiten() refuses what is no matrix", () => {
  assert.throws(
    () => whiten(new Float32Array(7), 3, { dimensions: 2 }),
    /7 values are no rows of 3/,
  );
});
