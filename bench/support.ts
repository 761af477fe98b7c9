/**
 * What every benchmark shares: cases whose results are checked before they are timed, the time of
 * recorded work, and what the adapter reaches at most, to hold against.
 */
import assert from "node:assert/strict";
import { Gpu } from "../src/gpu/gpu.ts";
import { grid1d, Shader } from "../src/gpu/shader.ts";
import { Random } from "../src/random.ts";
import { type Shape, sizeOf, type Tensor } from "../src/tensor.ts";

/** What a case is counted in; ms where neither operations nor bytes say much. */
export type Unit = "GFLOP/s" | "GB/s" | "images/s" | "ms";

/** What the work of a case is divided by: giga. */
const scales: Partial<Record<Unit, number>> = { "GFLOP/s": 1e9, "GB/s": 1e9 };

/** One thing to measure. */
export interface Case {
  readonly name: string;
  readonly shape: string;
  readonly unit: Unit;
  /** Floating-point operations, bytes or images of one run; 1 for ms. */
  readonly work: number;
  /** Makes the inputs, checks one run against the CPU, and returns what to time. */
  prepare(gpu: Gpu): Promise<Prepared>;
}

/** A case that is ready to be timed. */
export interface Prepared {
  /** Records the work of one run. */
  run(): void;
  /** What to give back afterwards. */
  readonly tensors: readonly Tensor[];
}

/** What came out. */
export interface Row {
  readonly name: string;
  readonly shape: string;
  readonly unit: Unit;
  readonly value: number;
}

/** Measures cases one after another. */
export async function measure(gpu: Gpu, cases: readonly Case[]): Promise<Row[]> {
  const rows: Row[] = [];
  for (const { name, shape, unit, work, prepare } of cases) {
    const { run, tensors } = await prepare(gpu);
    const seconds = await medianTime(gpu, run);
    const value = unit === "ms" ? 1e3 * seconds : work / seconds / (scales[unit] ?? 1);
    rows.push({ name, shape, unit, value });
    for (const tensor of tensors) tensor.dispose();
    gpu.trim();
  }
  return rows;
}

/** Registers cases with `deno bench`, which reports the time of one run each. */
export function register(group: string, cases: readonly Case[]): void {
  let opened: Promise<Gpu> | undefined;
  for (const { name, shape, prepare } of cases) {
    let prepared: Promise<Prepared> | undefined;
    Deno.bench({ group, name: `${name} ${shape}`, n: 10, warmup: 2 }, async (b) => {
      const gpu = await (opened ??= Gpu.open());
      const { run } = await (prepared ??= prepare(gpu));
      b.start();
      const done = submit(gpu, run);
      b.end();
      await done;
    });
  }
}

/** The median time of one run in seconds, once everything is compiled and warm. */
export async function medianTime(gpu: Gpu, run: () => void): Promise<number> {
  await submit(gpu, run);
  const times: number[] = [];
  for (const start = performance.now(); times.length < 5 || performance.now() - start < 500;) {
    const begin = performance.now();
    const done = submit(gpu, run);
    times.push((performance.now() - begin) / 1e3);
    await done;
  }
  return times.sort((a, b) => a - b)[times.length >> 1]!;
}

/**
 * Runs something and waits for it. Deno waits inside the call and then sleeps for 10 ms before it
 * settles the promise, so the time is that of the call.
 */
function submit(gpu: Gpu, run: () => void): Promise<void> {
  // What a run returns does not outlive it.
  gpu.step(() => {
    run();
  });
  return gpu.device.queue.onSubmittedWorkDone();
}

/** A tensor of uniform numbers in [−1, 1), the same for the same name, and its elements. */
export function random(
  gpu: Gpu,
  shape: Shape,
  name: string,
): { tensor: Tensor<"f32">; data: Float32Array } {
  const numbers = new Random(0, name);
  const data = Float32Array.from({ length: sizeOf(shape) }, () => 2 * numbers.uniform() - 1);
  return { tensor: gpu.tensor(data, shape), data };
}

/** Σ aᵢ·bᵢ. */
export function dot(a: ArrayLike<number>, b: ArrayLike<number>): number {
  let sum = 0;
  for (let i = 0; i < a.length; i++) sum += a[i]! * b[i]!;
  return sum;
}

/** Fails unless two sums of terms whose root sum of squares is `scale` agree. */
export function checkClose(label: string, actual: number, expected: number, scale: number): void {
  const difference = Math.abs(actual - expected);
  assert(difference <= 1e-5 * scale, `${label}: ${actual}, expected ${expected}`);
}

/** Fails unless some elements of a result are what `expected` says of each. */
export async function checkSome(
  label: string,
  actual: Tensor,
  expected: (index: number) => number,
  tolerance = 1e-3,
): Promise<void> {
  const values = await actual.data();
  for (let i = 0; i < 16; i++) {
    const index = (i * 104_729 + 31) % values.length;
    const value = expected(index);
    const difference = Math.abs(values[index]! - value);
    assert(
      difference <= tolerance,
      `${label}: element ${index} is ${values[index]}, expected ${value}`,
    );
  }
}

/** What the adapter reaches at most: fused multiply-adds out of registers, and copying. */
export async function peaks(gpu: Gpu): Promise<Record<"GFLOP/s" | "GB/s", number>> {
  const [multiply, copy] = await measure(gpu, [fusedMultiplyAdd, copying]);
  return { "GFLOP/s": multiply!.value, "GB/s": copy!.value };
}

const invocations = 1 << 15;
const loops = 64;
const vectors = 1 << 21;

const peakShader = new Shader(
  "peak",
  `
struct Params { n: u32, factor: f32 }
@group(0) @binding(0) var<storage, read> x: array<vec4f>;
@group(0) @binding(1) var<storage, read_write> y: array<vec4f>;
@group(1) @binding(0) var<uniform> p: Params;

// ${loops} · 64 · 4 fused multiply-adds an invocation, in 32 chains that wait for nobody.
@compute @workgroup_size(64)
fn multiply_add(@builtin(global_invocation_id) id: vec3u) {
  let step = vec4f(f32(id.x));
  var sum: array<vec4f, 8>;
  for (var i = 0u; i < p.n; i++) {
    // @unroll
    for (var k = 0u; k < 64u; k++) {
      sum[k % 8u] = fma(sum[k % 8u], vec4f(p.factor), step);
    }
  }
  y[id.x] = sum[0] + sum[1] + sum[2] + sum[3] + sum[4] + sum[5] + sum[6] + sum[7];
}

@compute @workgroup_size(64)
fn copy(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) local: u32,
) {
  let i = (group.x + group.y * groups.x) * 64u + local;
  if (i < p.n) {
    y[i] = x[i];
  }
}
`,
);

const fusedMultiplyAdd: Case = {
  name: "multiply-add",
  shape: `${invocations} × ${loops * 256}`,
  unit: "GFLOP/s",
  work: invocations * loops * 64 * 4 * 2,
  prepare(gpu) {
    const y = gpu.empty([invocations, 4]);
    const kernel = peakShader.kernel("multiply_add");
    const grid = grid1d(invocations, 64);
    const run = () => gpu.run(kernel, { y }, { n: loops, factor: 0.5 }, grid);
    return Promise.resolve({ run, tensors: [y] });
  },
};

const copying: Case = {
  name: "copy",
  shape: `${vectors / 65536} MiB`,
  unit: "GB/s",
  work: 2 * 16 * vectors,
  prepare(gpu) {
    const [x, y] = [gpu.zeros([vectors, 4]), gpu.empty([vectors, 4])];
    const kernel = peakShader.kernel("copy");
    const grid = grid1d(vectors, 64);
    const run = () => gpu.run(kernel, { x, y }, { n: vectors, factor: 0 }, grid);
    return Promise.resolve({ run, tensors: [x, y] });
  },
};
