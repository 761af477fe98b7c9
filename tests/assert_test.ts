import assert from "node:assert/strict";
import { assertClose, assertRelative, relativeError } from "./support/assert.ts";

Deno.test("assertClose() accepts within the tolerance and names the worst element beyond it", () => {
  assertClose([1, 2.001, NaN, Infinity], [1, 2, NaN, Infinity], { rtol: 1e-3 }, "y");
  assertClose([1e-9, -0], [0, 0], { atol: 1e-8 }, "y");
  assertClose([-0], [0], {}, "y");
  assert.throws(
    () => assertClose([1, 3, 2.1], [1, 2, 2], { rtol: 1e-3 }, "y"),
    /y: 2 of 3 elements differ .* worst at 1: 3, expected 2/,
  );
});

Deno.test("assertClose() fails on NaN, on infinities of the wrong kind and on lengths", () => {
  for (const [actual, expected] of [[NaN, 1], [1, NaN], [Infinity, 1], [1, Infinity]] as const) {
    assert.throws(() => assertClose([actual], [expected], { rtol: 1, atol: 1 }, "y"), /worst at 0/);
  }
  assert.throws(() => assertClose([1], [1, 2], {}, "y"), /1 elements, expected 2/);
});

Deno.test("relativeError() is a ratio of norms; assertRelative() bounds it", () => {
  assert.equal(relativeError([3, 4], [3, 4]), 0);
  assert.equal(relativeError([3, 9], [3, 4]), 1);
  assert.equal(relativeError([0, 2], [0, 0]), 2);
  assertRelative([3, 4.04], [3, 4], 0.01, "y");
  assert.throws(() => assertRelative([3, 9], [3, 4], 0.5, "y"), /y: relative error 1, at most 0.5/);
  assert.throws(() => assertRelative([NaN], [1], 0.5, "y"), /relative error NaN/);
  assert.throws(() => relativeError([1], [1, 2]), /1 elements, reference has 2/);
});
