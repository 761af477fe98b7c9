/**
 * What every benchmark shares: cases whose results are checked before they are timed, the time of
 * recorded work, and what the adapter reaches at most, to hold against.
 */
import assert from "node:assert/strict";
import { Gpu } from "../src/gpu/gpu.ts";
import type { KernelTime } from "../src/gpu/profile.ts";
import { grid1d, Shader } from "../src/gpu/shader.ts";
import { Random } from "../src/random.ts";
import { type Shape, sizeOf, type Tensor } from "../src/tensor.ts";
import type { Peer, Work } from "./peers/peer.ts";

/** What a case is counted in; ms where neither operations nor bytes say much, % for a part of a case. */
export type Unit = "GFLOP/s" | "GB/s" | "images/s" | "ms" | "µs" | "%";

/** Units of which less is better, as % is. */
const durations: Partial<Record<Unit, number>> = { ms: 1e3, µs: 1e6 };

/** What the work of other units is divided by: giga. */
const scales: Partial<Record<Unit, number>> = { "GFLOP/s": 1e9, "GB/s": 1e9 };

/** One thing to measure. */
export interface Case {
  readonly name: string;
  readonly shape: string;
  readonly unit: Unit;
  /** Floating-point operations, bytes or images of one run; for a duration, how often it is done. */
  readonly work: number;
  /** The same for other libraries. */
  readonly peer?: Work;
  /** Makes the inputs, checks one run against the CPU, and returns what to time. */
  prepare(gpu: Gpu): Promise<Prepared>;
}

/** A case that is ready to be timed. */
export interface Prepared {
  /** Records the work of one run; what waits for the GPU by itself returns a promise. */
  run(): unknown;
  /** Whether only the recording is timed: nothing of it is submitted, so that the steady state is soon reached. */
  readonly recordedOnly?: true;
  /** What to give back afterwards. */
  readonly tensors: readonly Tensor[];
}

/** What came out. */
export interface Row {
  readonly name: string;
  readonly shape: string;
  readonly unit: Unit;
  readonly value: number;
  /** What peers reach, in the same unit, by their names; null where none was asked or can do it. */
  readonly peer: Readonly<Record<string, number>> | null;
}

/** Measures cases one after another, each right before its peers. */
export async function* measure(
  gpu: Gpu,
  cases: readonly Case[],
  peers: readonly Peer[] = [],
): AsyncGenerator<Row> {
  for (const { name, shape, unit, work, peer, prepare } of cases) {
    const valueOf = (seconds: number) =>
      unit in durations ? durations[unit]! * seconds / work : work / seconds / (scales[unit] ?? 1);
    const prepared = await prepare(gpu);
    const value = valueOf(await medianTime(gpu, prepared));
    for (const tensor of prepared.tensors) tensor.dispose();
    gpu.trim();
    const others: Record<string, number> = {};
    for (const { name, seconds } of peer === undefined ? [] : peers) {
      const time = await seconds(peer!);
      // Peers are asked for the time of the work done once.
      if (time !== null) others[name] = valueOf(unit in durations ? time * work : time);
    }
    yield { name, shape, unit, value, peer: Object.keys(others).length > 0 ? others : null };
  }
}

/** How many times as fast `value` is as `other`. */
export function speedup(unit: Unit, value: number, other: number): number {
  return unit in durations || unit === "%" ? other / value : value / other;
}

/** Registers cases with `deno bench`, which reports the time of one run each. */
export function register(group: string, cases: readonly Case[]): void {
  let opened: Promise<Gpu> | undefined;
  for (const { name, shape, prepare } of cases) {
    let prepared: Promise<Prepared> | undefined;
    Deno.bench({ group, name: `${name} ${shape}`, n: 10, warmup: 2 }, async (b) => {
      const gpu = await (opened ??= Gpu.open());
      const ready = await (prepared ??= prepare(gpu));
      await runOnce(gpu, ready, b);
    });
  }
}

/** The median time of one run in seconds, once everything is compiled and warm. */
export async function medianTime(gpu: Gpu, prepared: Prepared): Promise<number> {
  const times: number[] = [];
  let started = 0;
  const clock: Clock = {
    start: () => started = performance.now(),
    end: () => times.push((performance.now() - started) / 1000),
  };
  await runOnce(gpu, prepared, clock);
  await runOnce(gpu, prepared, clock);
  // What is only recorded waits for nothing.
  const repeats = prepared.recordedOnly
    ? 1
    : Math.max(1, Math.min(10, Math.floor(steady / times[1]!)));
  times.length = 0;
  for (const begin = performance.now(); times.length < 5 || performance.now() - begin < 500;) {
    await runOnce(gpu, prepared, clock, repeats);
  }
  return times.sort((a, b) => a - b)[times.length >> 1]! / repeats;
}

/** Seconds of work between two waits, about, where a run is shorter: after a wait all is cold. */
const steady = 0.1;

/** What some runs of a case took, in ms; the sum is what they take at most, as a GPU runs what was recorded before. */
export interface CaseProfile {
  /** None where the adapter has no clock. */
  readonly kernels: readonly KernelTime[];
  /** Recording and submitting: as long as it takes while no kernel runs and none is timed. */
  readonly host: number;
}

/** Runs of a case to time the kernels by. */
const profiledRuns = 5;
/**
 * Runs to time the host by: JavaScript is compiled as it runs, so only those after tens of them are like all
 * later ones.
 */
const recordedRuns = 60;
/** Milliseconds that these may take together; where runs are so long, the host hardly counts. */
const recordingTime = 20_000;

/** Times the host of a case, then its kernels; from then on all that is recorded is slower by the timing. */
export async function profile(gpu: Gpu, { prepare }: Case): Promise<CaseProfile> {
  const prepared = await prepare(gpu);
  const run = async () => {
    const started = performance.now();
    gpu.scope(() => void prepared.run());
    gpu.flush();
    const ms = performance.now() - started;
    await gpu.idle();
    return ms;
  };
  const recordings: number[] = [];
  const end = performance.now() + recordingTime;
  do {
    recordings.push(await run());
  } while (recordings.length < recordedRuns && performance.now() < end);
  // As the median goes: whatever else the machine does can make one of them several times as long.
  const settled = recordings.slice(recordings.length >> 1).sort((a, b) => a - b);
  const host = profiledRuns * settled[settled.length >> 1]!;
  gpu.startProfile();
  for (let i = 0; i < profiledRuns; i++) await run();
  const kernels = await gpu.profile();
  for (const tensor of prepared.tensors) tensor.dispose();
  gpu.trim();
  return { kernels, host };
}

/** What is told when a run starts and ends. */
interface Clock {
  start(): void;
  end(): void;
}

/**
 * Runs once, or several times with one wait at the end. Deno waits for the GPU inside the call that asks to
 * wait, and then sleeps for 10 ms before it settles the promise; so the end is that of the call, unless the
 * run waits by itself.
 */
async function runOnce(
  gpu: Gpu,
  { run, recordedOnly }: Prepared,
  clock: Clock,
  repeats = 1,
): Promise<void> {
  clock.start();
  for (let i = 0; i < repeats; i++) {
    let waiting: Promise<unknown> | undefined;
    gpu.scope(() => {
      const result = run();
      if (result instanceof Promise) waiting = result;
    });
    if (waiting !== undefined) await waiting;
  }
  if (recordedOnly) {
    clock.end();
    return gpu.discard();
  }
  gpu.flush();
  const done = gpu.device.queue.onSubmittedWorkDone();
  clock.end();
  await done;
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
  const [multiply, copy] = await Array.fromAsync(measure(gpu, [fusedMultiplyAdd, copying]));
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
