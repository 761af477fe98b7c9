import assert from "node:assert/strict";
import { minimize, type Objective } from "../src/lbfgs.ts";
import { assertClose } from "./support/assert.ts";

/** Σ cᵢ (xᵢ − i)² / 2, with curvatures from 1 to 10 000. */
const n = 40;
const curvature = (i: number) => 10 ** (4 * i / (n - 1));
const quadratic: Objective = (x, gradient) =>
  x.reduce((sum, value, i) => {
    gradient[i] = curvature(i) * (value - i);
    return sum + curvature(i) * (value - i) ** 2 / 2;
  }, 0);
const optimum = Array.from({ length: n }, (_, i) => i);

Deno.test("minimize() finds the minimum of an ill-conditioned function and leaves its start alone", () => {
  const start = new Float64Array(n);
  // Steepest descent would take tens of thousands of steps.
  const { x, converged } = minimize(quadratic, start, { tolerance: 1e-8, iterations: 1200 });
  assert.ok(converged);
  assertClose(x, optimum, { atol: 1e-8 }, "x");
  assert.deepEqual(start, new Float64Array(n));
});

Deno.test("minimize() stops at once where the gradient is small, and when its steps are used up", () => {
  const there = minimize(quadratic, Float64Array.from(optimum));
  assert.deepEqual(there, { x: Float64Array.from(optimum), iterations: 0, converged: true });
  const short = minimize(quadratic, new Float64Array(n), { iterations: 3 });
  assert.equal(short.iterations, 3);
  assert.equal(short.converged, false);
});

Deno.test("minimize() follows the slope where rounding hides every descent", () => {
  const objective: Objective = ([x], gradient) => {
    gradient[0] = x! - 0.1;
    return 1e16 + (x! - 0.1) ** 2 / 2;
  };
  const { x, converged } = minimize(objective, Float64Array.of(1.7), { tolerance: 1e-12 });
  assertClose(x, [0.1], { atol: 1e-12 }, "x");
  assert.ok(converged);
});

Deno.test("minimize() gives up where no step along its gradient helps", () => {
  const wrong: Objective = ([x], gradient) => {
    gradient[0] = -x!;
    return x! ** 2 / 2;
  };
  const start = Float64Array.of(2);
  assert.deepEqual(minimize(wrong, start), { x: start, iterations: 0, converged: false });
});

Deno.test("minimize() takes no step that raises the value", () => {
  const values: number[] = [];
  // Flat far out and steep near 0: full steps overshoot.
  const objective: Objective = ([x], gradient) => {
    gradient[0] = x! / Math.sqrt(1 + x! ** 2);
    return Math.sqrt(1 + x! ** 2);
  };
  for (let iterations = 0; iterations < 8; iterations++) {
    const { x } = minimize(objective, Float64Array.of(50), { iterations });
    values.push(objective(x, new Float64Array(1)));
  }
  assert.deepEqual(values, values.toSorted((a, b) => b - a));
  assertClose([minimize(objective, Float64Array.of(50)).x[0]!], [0], { atol: 1e-5 }, "x");
});
