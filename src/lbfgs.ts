/**
 * Minimises a smooth convex function: limited-memory BFGS (Liu & Nocedal 1989; Nocedal & Wright 2006,
 * algorithms 7.4 and 7.5) with halved steps until the value falls enough or, near the minimum where its
 * digits no longer tell, the slope does (Hager & Zhang 2005, equation 4.2). Deterministic.
 */

/** Computes the value at `x` and writes the gradient into `gradient`. */
export type Objective = (x: Float64Array, gradient: Float64Array) => number;

/** When to stop. */
export interface MinimizeOptions {
  /** The largest component of the gradient at the end; default 1e-5. */
  readonly tolerance?: number;
  /** Steps at most; default 1000. */
  readonly iterations?: number;
}

/** Where the search ended. */
export interface Minimum {
  /** The place. */
  readonly x: Float64Array;
  /** Steps taken. */
  readonly iterations: number;
  /** Whether the gradient is within the tolerance there. */
  readonly converged: boolean;
}

/** Steps that the model of the curvature remembers. */
const MEMORY = 10;

/** A step, the change of the gradient over it, and 1 / (their dot product). */
interface Correction {
  readonly step: Float64Array;
  readonly change: Float64Array;
  readonly scale: number;
}

/** Searches from `start`, which it leaves alone. */
export function minimize(
  objective: Objective,
  start: Float64Array,
  { tolerance = 1e-5, iterations = 1000 }: MinimizeOptions = {},
): Minimum {
  let x = start.slice();
  let gradient = new Float64Array(x.length);
  let value = objective(x, gradient);
  const memory: Correction[] = [];
  for (let iteration = 0;; iteration++) {
    const converged = gradient.every((slope) => Math.abs(slope) <= tolerance);
    if (converged || iteration === iterations) return { x, iterations: iteration, converged };
    const direction = descent(gradient, memory);
    const slope = dot(gradient, direction);
    const next = new Float64Array(x.length);
    const nextGradient = new Float64Array(x.length);
    let length = memory.length > 0 ? 1 : Math.min(1, 1 / norm(gradient));
    let nextValue = NaN;
    for (; length > 1e-12; length /= 2) {
      for (let i = 0; i < x.length; i++) next[i] = x[i]! + length * direction[i]!;
      nextValue = objective(next, nextGradient);
      if (nextValue <= value + 1e-4 * length * slope) break;
      const isLevel = nextValue <= value + 1e-14 * Math.abs(value);
      if (isLevel && dot(nextGradient, direction) <= (2e-4 - 1) * slope) break;
    }
    if (length <= 1e-12) return { x, iterations: iteration, converged };
    const step = next.map((place, i) => place - x[i]!);
    const change = nextGradient.map((component, i) => component - gradient[i]!);
    const curvature = dot(step, change);
    if (curvature > 0) memory.push({ step, change, scale: 1 / curvature });
    if (memory.length > MEMORY) memory.shift();
    [x, gradient, value] = [next, nextGradient, nextValue];
  }
}

/** −H·gradient, H being the inverse curvature that the corrections tell (the two-loop recursion). */
function descent(gradient: Float64Array, memory: readonly Correction[]): Float64Array {
  const direction = gradient.map((component) => -component);
  const weights = memory.map(() => 0);
  for (let i = memory.length - 1; i >= 0; i--) {
    const { step, change, scale } = memory[i]!;
    weights[i] = scale * dot(step, direction);
    addScaled(direction, -weights[i]!, change);
  }
  const last = memory.at(-1);
  if (last !== undefined) {
    const initial = 1 / (last.scale * dot(last.change, last.change));
    for (let i = 0; i < direction.length; i++) direction[i]! *= initial;
  }
  memory.forEach(({ step, change, scale }, i) =>
    addScaled(direction, weights[i]! - scale * dot(change, direction), step)
  );
  return direction;
}

function addScaled(x: Float64Array, factor: number, y: Float64Array): void {
  for (let i = 0; i < x.length; i++) x[i]! += factor * y[i]!;
}

function dot(x: Float64Array, y: Float64Array): number {
  let sum = 0;
  for (let i = 0; i < x.length; i++) sum += x[i]! * y[i]!;
  return sum;
}

function norm(x: Float64Array): number {
  return Math.sqrt(dot(x, x));
}
