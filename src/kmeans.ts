/**
 * K-means on the GPU (Lloyd 1982): points go to the nearest centroid, centroids to the mean of their points.
 *
 * What is large stays there: points, centroids, the scan of all pairs. Labels and counts come to the CPU
 * once an iteration, which sorts the points by cluster, so that the GPU adds them up in one order: the same
 * input gives the same bits.
 */
import source from "../shaders/kmeans.wgsl" with { type: "text" };
import { noGrad } from "./autograd.ts";
import type { Gpu } from "./gpu/gpu.ts";
import { foldGroups, grid1d, Shader } from "./gpu/shader.ts";
import { mean } from "./ops/reduce.ts";
import { Random } from "./random.ts";
import type { Tensor } from "./tensor.ts";

const shader = new Shader("kmeans", source);

/** Points that one invocation adds up. */
const segmentLength = 256;
/** Centroids in a tile of the assignment. */
const tileColumns = 64;
/** Loop iterations of an invocation in a dispatch, about; some drivers stop without a word after 65 535. */
const maxIterations = 16384;

/** What {@linkcode kmeans} leaves open. */
export interface KMeansOptions {
  /** Number of clusters, 1 … n. */
  readonly k: number;
  /**
   * Where the centroids start: at points drawn by k-means++ (Arthur and Vassilvitskii 2007; default) or
   * uniformly, or at the rows of an array [k, d].
   */
  readonly init?: "k-means++" | "random" | Float32Array;
  /** Iterations at most (default 100); 0 only assigns. */
  readonly iterations?: number;
  /**
   * Ends when the squared shifts of all centroids sum to at most this part of the mean variance of a
   * dimension (default 1e-4, as scikit-learn's), or to 0.
   */
  readonly tolerance?: number;
  /** Points and centroids are scaled to length 1, so that cosines are compared (default false). */
  readonly spherical?: boolean;
  /** Of the start (default 0). */
  readonly seed?: number;
}

/** What {@linkcode kmeans} found. */
export interface Clustering {
  /** [k, d] */
  readonly centroids: Float32Array<ArrayBuffer>;
  /** The nearest centroid of each point, the first of equally near ones: [n]. */
  readonly labels: Uint32Array<ArrayBuffer>;
  /** Of each point to its centroid: [n]. */
  readonly squaredDistances: Float32Array<ArrayBuffer>;
  /** Their sum. */
  readonly inertia: number;
  /** Iterations done. */
  readonly iterations: number;
}

/**
 * Clusters points. Distances are never held as a matrix; memory is that of the points twice, and of the
 * centroids.
 *
 * A cluster that loses all its points takes half of the largest: the centroid is doubled, and the two moved
 * apart by ±1/1024 of it, as in Faiss.
 *
 * @param x f32 [n, d]; more points than one tensor can hold come in several, one below the other
 * @throws {RangeError} naming what does not fit together
 */
export async function kmeans(
  x: Tensor | readonly Tensor[],
  options: KMeansOptions,
): Promise<Clustering> {
  const { iterations = 100, tolerance = 1e-4 } = options;
  const state = await prepare(Array.isArray(x) ? x : [x as Tensor], options);
  try {
    const limit = tolerance * state.variance;
    await start(state, options);
    let labels = await assign(state);
    let done = 0;
    for (let shift = Infinity; done < iterations && shift > limit; done++) {
      const shifts = update(state, labels);
      labels = await assign(state);
      shift = sum(await shifts.data());
      shifts.dispose();
    }
    return { ...await result(state), labels, iterations: done };
  } finally {
    for (const tensor of state.owned) tensor.dispose();
  }
}

/** Rows as tensors [rows, d] of at most the size that the adapter can bind. */
export function tensorsOfRows(gpu: Gpu, values: Float32Array, d: number): Tensor<"f32">[] {
  // Kernels work on rows of whole vec4.
  const most = Math.floor(gpu.maxTensorBytes / (16 * Math.ceil(d / 4)));
  return Array.from({ length: Math.ceil(values.length / d / most) }, (_, i) => {
    const part = values.subarray(i * most * d, (i + 1) * most * d);
    return gpu.tensor(part, [part.length / d, d]);
  });
}

/** Points of one buffer. */
interface Part {
  /** [rows, 4 · quads], centred or of length 1. */
  readonly z: Tensor;
  /** Number of its first point. */
  readonly start: number;
  readonly rows: number;
  /** Nearest centroids, [rows], and their scores. */
  readonly labels: Tensor<"u32">;
  readonly best: Tensor;
}

interface State {
  readonly gpu: Gpu;
  readonly parts: readonly Part[];
  readonly n: number;
  readonly d: number;
  readonly k: number;
  readonly quads: number;
  readonly SPHERICAL: 0 | 1;
  /** What was subtracted from all points: [d]. */
  readonly center: Float32Array;
  /** Mean variance of a dimension. */
  readonly variance: number;
  /** [k, 4 · quads] */
  centroids: Tensor;
  /** Those of the iteration before, to be overwritten. */
  spare: Tensor;
  readonly halfNorms: Tensor;
  /** All tensors above. */
  readonly owned: readonly Tensor[];
}

const noParameters = {
  rows: 0,
  d: 0,
  quads: 0,
  k: 0,
  first: 0,
  end: 0,
  start: 0,
  base: 0,
  seed: 0,
  from_cluster: 0,
  to_cluster: 0,
};

/** Workgroups of the kernels that go along rows. */
const byRow = (rows: number) => foldGroups(Math.ceil(rows / 8));

async function prepare(
  tensors: readonly Tensor[],
  { k, init, spherical = false, iterations = 0, tolerance = 0 }: KMeansOptions,
): Promise<State> {
  const [n, d] = check(tensors, k, init);
  if (!(iterations >= 0 && tolerance >= 0)) {
    throw new RangeError(`kmeans: iterations ${iterations}, tolerance ${tolerance}`);
  }
  const { gpu } = tensors[0]!;
  const quads = Math.ceil(d / 4);
  const SPHERICAL = spherical ? 1 : 0;
  const params = { ...noParameters, d, quads, k };
  // Distances are differences of products, which lose their digits far from the origin.
  const center = spherical ? new Float32Array(d) : await meanOf(tensors, n, d);
  const { parts, squares, centroids, spare, halfNorms } = gpu.step(() => {
    const centerTensor = gpu.tensor(center);
    let start = 0;
    const squares: Tensor<"f32">[] = [];
    const parts = tensors.map((x): Part => {
      const rows = x.shape[0]!;
      const z = gpu.empty([rows, 4 * quads]);
      const norms = gpu.empty([rows]);
      gpu.run(
        shader.kernel("prepare", { SPHERICAL }),
        { x, center: centerTensor, z_elements: z, squares: norms },
        { ...params, rows },
        byRow(rows),
      );
      squares.push(norms);
      start += rows;
      const labels = gpu.empty([rows], "u32");
      return { z, start: start - rows, rows, labels, best: gpu.empty([rows]) };
    });
    return {
      parts,
      squares,
      centroids: gpu.empty([k, 4 * quads]),
      spare: gpu.empty([k, 4 * quads]),
      halfNorms: gpu.empty([Math.ceil(k / tileColumns) * tileColumns]),
    };
  });
  let total = 0;
  for (const tensor of squares) {
    total += sum(await tensor.data());
    tensor.dispose();
  }
  const owned = [
    ...parts.flatMap(({ z, labels, best }) => [z, labels, best]),
    centroids,
    spare,
    halfNorms,
  ];
  const variance = total / (n * d);
  return {
    ...{ gpu, parts, n, d, k, quads, SPHERICAL, center, variance, centroids, spare, halfNorms },
    owned,
  };
}

function check(
  tensors: readonly Tensor[],
  k: number,
  init: KMeansOptions["init"],
): [n: number, d: number] {
  if (tensors.length === 0) throw new RangeError("kmeans: no points");
  const d = tensors[0]!.shape[1] ?? 0;
  let n = 0;
  for (const { shape, dtype, size } of tensors) {
    if (shape.length !== 2 || shape[1] !== d || dtype !== "f32" || size === 0) {
      throw new RangeError(`kmeans: ${dtype} [${shape}] is not f32 [n,${d}]`);
    }
    n += shape[0]!;
  }
  if (!(Number.isInteger(k) && k >= 1 && k <= n)) {
    throw new RangeError(`kmeans: ${k} clusters of ${n} points`);
  }
  if (init instanceof Float32Array && init.length !== k * d) {
    throw new RangeError(`kmeans: init has ${init.length} values, not [${k},${d}]`);
  }
  return [n, d];
}

async function meanOf(
  tensors: readonly Tensor[],
  n: number,
  d: number,
): Promise<Float32Array<ArrayBuffer>> {
  const total = new Float64Array(d);
  for (const x of tensors) {
    const part = x.gpu.step(() => noGrad(() => mean(x, { axes: [0] })));
    (await part.data()).forEach((value, i) => total[i]! += value * x.shape[0]!);
    // The mean of a single row is that row itself.
    if (part.storage !== x.storage) part.dispose();
  }
  return Float32Array.from(total, (value) => value / n);
}

/** Places the first centroids. */
async function start(state: State, { init = "k-means++", seed = 0 }: KMeansOptions): Promise<void> {
  const { gpu, n, d, k, quads, center } = state;
  if (init instanceof Float32Array) {
    const padded = new Float32Array(k * 4 * quads);
    for (let j = 0; j < k; j++) {
      for (let i = 0; i < d; i++) padded[j * 4 * quads + i] = init[j * d + i]! - center[i]!;
    }
    gpu.write(state.centroids, padded);
  } else if (init === "random") {
    const random = new Random(seed, "kmeans");
    const chosen = random.shuffle(Array.from({ length: n }, (_, i) => i)).slice(0, k);
    gpu.step(() => pick(state, gpu.tensor(Uint32Array.from(chosen)), 0, k));
  } else {
    plusPlus(state, seed);
  }
  measure(state).dispose();
  await gpu.idle();
}

/** Draws points one after another, each with a probability by its distance to those before. */
function plusPlus(state: State, seed: number): void {
  const { gpu, parts, k, quads } = state;
  gpu.step(() => {
    const groups = parts.reduce((count, { rows }) => count + Math.ceil(rows / 8), 0);
    const weights = parts.map(({ rows }) => gpu.empty([rows]));
    const drawn = gpu.empty([groups]);
    const drawnAt = gpu.empty([groups], "u32");
    const chosen = gpu.empty([k], "u32");
    for (let first = 0; first < k; first++) {
      let base = 0;
      parts.forEach(({ z, rows, start }, i) => {
        gpu.run(
          shader.kernel("draw"),
          {
            z,
            c: state.centroids,
            weights: weights[i]!,
            new_drawn: drawn,
            new_drawn_at: drawnAt,
          },
          { ...noParameters, quads, rows, start, first, base, seed },
          byRow(rows),
        );
        base += Math.ceil(rows / 8);
      });
      gpu.run(
        shader.kernel("choose"),
        { drawn, drawn_at: drawnAt, new_chosen: chosen },
        { ...noParameters, rows: groups, first },
        [1, 1, 1],
      );
      pick(state, chosen, first, first + 1);
    }
  });
}

/** Copies chosen points into the centroids `first` to before `end`. */
function pick({ gpu, parts, quads, centroids }: State, chosen: Tensor, first: number, end: number) {
  for (const { z, rows, start } of parts) {
    gpu.run(
      shader.kernel("pick"),
      { z, chosen, new_c: centroids },
      { ...noParameters, quads, rows, start, first, end },
      grid1d((end - first) * quads, 64),
    );
  }
}

/** Makes the norms of the centroids; returns their squared shifts from the spare ones, [k]. */
function measure({ gpu, k, quads, SPHERICAL, centroids, spare, halfNorms }: State): Tensor<"f32"> {
  return gpu.step(() => {
    const shifts = gpu.empty([k]);
    gpu.run(
      shader.kernel("measure", { SPHERICAL }),
      { new_c: centroids, old_c: spare, new_half_norms: halfNorms, shifts },
      { ...noParameters, rows: halfNorms.size, quads, k },
      byRow(halfNorms.size),
    );
    return shifts;
  });
}

/** Finds the nearest centroid of every point. */
async function assign(state: State): Promise<Uint32Array<ArrayBuffer>> {
  const { gpu, parts, n, k, quads, centroids, halfNorms } = state;
  const bySubgroup = gpu.subgroupSize === 8;
  const kernel = shader.kernel(bySubgroup ? "assign" : "assign_tile");
  const columns = tileColumns * Math.max(1, Math.floor(maxIterations / (quads + tileColumns)));
  for (const { z, rows, labels, best } of parts) {
    for (let first = 0; first < k; first += columns) {
      const end = Math.min(k, first + columns);
      gpu.run(
        kernel,
        { z, c: centroids, half_norms: halfNorms, best, labels },
        { ...noParameters, rows, quads, k, first, end },
        foldGroups(Math.ceil(rows / 32)),
        2 * rows * (end - first) * 4 * quads,
      );
    }
  }
  const all = new Uint32Array(n);
  for (const { start, labels } of parts) all.set(await labels.data(), start);
  return all;
}

/** Moves every centroid to the mean of its points; returns the squared shifts, [k]. */
function update(state: State, labels: Uint32Array): Tensor<"f32"> {
  const { gpu, parts, k, quads } = state;
  [state.centroids, state.spare] = [state.spare, state.centroids];
  const { centroids } = state;
  const { order, counts, offsets, segments } = sortByCluster(labels, k, parts);
  gpu.step(() => {
    const orderTensor = gpu.tensor(order);
    const sums = gpu.empty([offsets[k]!, 4 * quads]);
    parts.forEach(({ z, start }, i) => {
      const count = segments[i]!.length / 3;
      if (count === 0) return;
      gpu.run(
        shader.kernel("segment_sums"),
        {
          z,
          order: orderTensor,
          segments: gpu.tensor(Uint32Array.from(segments[i]!)),
          new_sums: sums,
        },
        { ...noParameters, rows: count, quads, start },
        grid1d(count * quads, 64),
      );
    });
    gpu.run(
      shader.kernel("means"),
      { sums, offsets: gpu.tensor(offsets), counts: gpu.tensor(counts), new_c: centroids },
      { ...noParameters, quads, k },
      grid1d(k * quads, 64),
    );
    for (const { empty, donor } of splits(counts)) {
      gpu.run(
        shader.kernel("split"),
        { new_c: centroids },
        { ...noParameters, quads, from_cluster: donor, to_cluster: empty },
        [Math.ceil(quads / 64), 1, 1],
      );
    }
  });
  return measure(state);
}

/** Points sorted by cluster, and how they are added up. */
interface Sorted {
  /** Points by cluster, then by number: [n]. */
  readonly order: Uint32Array;
  /** Points of each cluster: [k]. */
  readonly counts: Uint32Array;
  /** The first sum of each cluster: [k + 1]. */
  readonly offsets: Uint32Array;
  /** Of each part: begin and end in the order, and place of the sum. */
  readonly segments: readonly number[][];
}

function sortByCluster(labels: Uint32Array, k: number, parts: readonly Part[]): Sorted {
  const counts = new Uint32Array(k);
  for (const label of labels) counts[label]!++;
  const next = new Uint32Array(k);
  for (let j = 1; j < k; j++) next[j] = next[j - 1]! + counts[j - 1]!;
  const order = new Uint32Array(labels.length);
  labels.forEach((label, point) => order[next[label]!++] = point);

  const offsets = new Uint32Array(k + 1);
  const segments: number[][] = parts.map(() => []);
  let [at, place] = [0, 0];
  for (let j = 0; j < k; j++) {
    offsets[j] = place;
    for (let part = 0; at < next[j]!;) {
      const { start, rows } = parts[part]!;
      const begin = at;
      const end = Math.min(next[j]!, begin + segmentLength);
      while (at < end && order[at]! < start + rows) at++;
      if (at > begin) segments[part]!.push(begin, at, place++);
      if (at < end) part++;
    }
  }
  offsets[k] = place;
  return { order, counts, offsets, segments };
}

/** Which cluster gives half of its points to which empty one: one of the largest at that time. */
function splits(counts: Uint32Array): { empty: number; donor: number }[] {
  const bySize = Map.groupBy(counts.keys(), (j) => counts[j]!);
  const empty = bySize.get(0) ?? [];
  const put = (j: number, size: number) => {
    const group = bySize.get(size);
    if (group === undefined) bySize.set(size, [j]);
    else group.push(j);
  };
  const pairs: { empty: number; donor: number }[] = [];
  let size = empty.length === 0 ? 0 : counts.reduce((most, count) => Math.max(most, count), 0);
  for (const j of empty) {
    while (!bySize.get(size)?.length) size--;
    const donor = bySize.get(size)!.pop()!;
    const half = Math.floor(size / 2);
    put(donor, size - half);
    put(j, half);
    pairs.push({ empty: j, donor });
  }
  return pairs;
}

/** Centroids in the place of the points, and how far these are from them. */
async function result({ gpu, parts, n, d, k, quads, center, centroids }: State) {
  const found = new Float32Array(k * d);
  const padded = await centroids.data() as Float32Array;
  for (let j = 0; j < k; j++) {
    for (let i = 0; i < d; i++) found[j * d + i] = padded[j * 4 * quads + i]! + center[i]!;
  }
  const squaredDistances = new Float32Array(n);
  for (const { z, rows, start, labels } of parts) {
    const distances = gpu.step(() => {
      const squares = gpu.empty([rows]);
      gpu.run(
        shader.kernel("distances"),
        { z, c: centroids, nearest: labels, squared_distances: squares },
        { ...noParameters, rows, quads },
        byRow(rows),
      );
      return squares;
    });
    squaredDistances.set(await distances.data(), start);
    distances.dispose();
  }
  return { centroids: found, squaredDistances, inertia: sum(squaredDistances) };
}

function sum(values: Float32Array): number {
  return values.reduce((total, value) => total + value, 0);
}
