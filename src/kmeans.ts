/**
 * K-means on the GPU (Lloyd 1982): points go to the nearest centroid, centroids to the mean of their points.
 *
 * Everything is done there: the points are sorted by cluster, so that they are added up in one order, and the
 * same input gives the same bits. The CPU looks after some iterations whether there is an end; those that were
 * recorded past it do nothing. A distance is computed again only where it can have changed the nearest centroid:
 * in small clusters most centroids soon rest.
 */
import source from "../shaders/kmeans.wgsl" with { type: "text" };
import { noGrad } from "./autograd.ts";
import type { Gpu } from "./gpu/gpu.ts";
import { foldGroups, grid1d, Shader } from "./gpu/shader.ts";
import { add, mul } from "./ops/binary.ts";
import { mean } from "./ops/reduce.ts";
import { Random } from "./random.ts";
import type { Tensor } from "./tensor.ts";

const shader = new Shader("kmeans", source);

/** How many vec4 of points an invocation adds up. */
const spread = 4;
/** Points and centroids (at most) in a tile of the assignment by subgroups, and through workgroup memory. */
const subgroupTile = { rows: 48, columns: 48 }, sharedTile = { rows: 32, columns: 64 };
/** Loop iterations of an invocation in a dispatch, about; some drivers stop without a word after 65 535. */
const maxIterations = 16384;
/** Blocks and pieces of a cluster at most, for the same reason. */
const mostParts = 32768;
/** Operations of the assignments between two looks at the status, about; each look costs 10 ms. */
const flopsBetweenLooks = 1e11;
/** The status of a run, and which centroids an assignment meets, as in the kernels. */
const RUNNING = 0, EMPTY = 2, ALL = 0, MOVED = 1, REST = 2;

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
 * centroids a few times.
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
  const { iterations = 100 } = options;
  const state = prepare(Array.isArray(x) ? x : [x as Tensor], options);
  const { gpu, n, d, k } = state;
  try {
    gpu.step(() => start(state, options));
    const ahead = Math.max(1, Math.min(32, Math.floor(flopsBetweenLooks / (2 * n * k * d))));
    let pairs: Split[] = [];
    for (let done = 0;;) {
      for (let i = 0; i < Math.min(ahead, iterations - done); i++) {
        gpu.step(() => iterate(state, options, i === 0 ? pairs : []));
      }
      const { status, counts, ...clustering } = await look(state);
      done = clustering.iterations;
      if (status !== EMPTY && (status !== RUNNING || done === iterations)) return clustering;
      pairs = [];
      if (status === EMPTY) {
        pairs = splits(counts);
        gpu.write(state.status, Uint32Array.of(RUNNING, done));
      }
    }
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
  /** How many points must meet the centroids that did not move, too, and which: [1 + rows]. */
  readonly open: Tensor;
}

interface State {
  readonly gpu: Gpu;
  readonly parts: readonly Part[];
  readonly n: number;
  readonly d: number;
  readonly k: number;
  readonly quads: number;
  readonly SPHERICAL: 0 | 1;
  /** Points and centroids in a tile of the assignment. */
  readonly tile: { readonly rows: number; readonly columns: number };
  /** Points in a block, that are sorted one after another, and in a piece of a cluster, that are added up so. */
  readonly block: number;
  readonly piece: number;
  /** What was subtracted from all points: [d]. */
  readonly center: Tensor;
  /** Mean of the squared lengths of the points. */
  readonly meanSquare: Tensor;
  /** [k, 4 · quads] */
  readonly centroids: Tensor;
  /** Where they are to go. */
  readonly means: Tensor;
  /** Half their squared lengths, and how far they went, squared: [k, 2]. */
  readonly norms: Tensor;
  /** How many went anywhere, and how many did not; which: [2 + k]. */
  readonly sequence: Tensor;
  /** Nearest centroids, [n], and their scores. */
  readonly labels: Tensor<"u32">;
  readonly best: Tensor;
  /** Points of each cluster in each block: [blocks, k]; of each cluster: [k]. */
  readonly tally: Tensor;
  readonly counts: Tensor<"u32">;
  /** Points by cluster, then by number: [n]; where each cluster begins: [k + 1]. */
  readonly order: Tensor;
  readonly offsets: Tensor;
  /** Of the points of a piece of a cluster: [pieces, 4 · quads]. */
  readonly sums: Tensor;
  /** Whether it goes on, and iterations done. */
  readonly status: Tensor<"u32">;
  /** All tensors above. */
  readonly owned: readonly Tensor[];
}

const noParameters = {
  n: 0,
  rows: 0,
  d: 0,
  quads: 0,
  k: 0,
  first: 0,
  end: 0,
  start: 0,
  meet: 0,
  base: 0,
  seed: 0,
  block: 0,
  piece: 0,
  splits: 0,
  tolerance: 0,
  from_cluster: 0,
  to_cluster: 0,
};

/** Workgroups of the kernels that go along rows. */
const byRow = (rows: number) => foldGroups(Math.ceil(rows / 8));

function prepare(
  tensors: readonly Tensor[],
  { k, init, spherical = false, iterations = 0, tolerance = 0 }: KMeansOptions,
): State {
  const [n, d] = check(tensors, k, init);
  if (!(iterations >= 0 && tolerance >= 0)) {
    throw new RangeError(`kmeans: iterations ${iterations}, tolerance ${tolerance}`);
  }
  const { gpu } = tensors[0]!;
  const quads = Math.ceil(d / 4);
  const SPHERICAL = spherical ? 1 : 0;
  const tile = gpu.subgroupSize === 8 ? tileFor(k) : sharedTile;
  // So few blocks that their tally is no larger than a few numbers a point.
  const block = Math.max(256, Math.ceil(Math.min(k, 1 << 17) / 4), Math.ceil(n / mostParts));
  const piece = Math.max(64, Math.ceil(n / mostParts));
  return gpu.step(() => {
    // Distances are differences of products, which lose their digits far from the origin.
    const center = spherical ? gpu.zeros([d]) : meanOf(tensors, n);
    const squares = gpu.empty([n]);
    let start = 0;
    const parts = tensors.map((x): Part => {
      const rows = x.shape[0]!;
      const z = gpu.empty([rows, 4 * quads]);
      gpu.run(
        shader.kernel("prepare", { SPHERICAL }),
        { x, center, new_z: z, squares },
        { ...noParameters, rows, d, quads, start },
        byRow(rows),
      );
      start += rows;
      return { z, start: start - rows, rows, open: gpu.empty([1 + rows], "u32") };
    });
    const tensorsOfState = {
      center,
      meanSquare: noGrad(() => mean(squares)),
      centroids: gpu.zeros([k, 4 * quads]),
      means: gpu.empty([k, 4 * quads]),
      norms: gpu.empty([k, 2]),
      sequence: gpu.tensor(new Uint32Array(2 + k)),
      labels: gpu.empty([n], "u32"),
      best: gpu.empty([n]),
      tally: gpu.empty([Math.ceil(n / block), k], "u32"),
      counts: gpu.empty([k], "u32"),
      order: gpu.empty([n], "u32"),
      offsets: gpu.empty([k + 1], "u32"),
      sums: gpu.empty([Math.ceil(n / piece) + k, 4 * quads]),
      status: gpu.tensor(Uint32Array.of(RUNNING, 0)),
    };
    return {
      ...{ gpu, parts, n, d, k, quads, SPHERICAL, tile, block, piece },
      ...tensorsOfState,
      owned: [...parts.flatMap(({ z, open }) => [z, open]), ...Object.values(tensorsOfState)],
    };
  });
}

/** As many tiles as of whole width, but no wider than needed. */
function tileFor(k: number): typeof subgroupTile {
  const { rows, columns } = subgroupTile;
  return { rows, columns: 8 * Math.ceil(k / Math.ceil(k / columns) / 8) };
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

function meanOf(tensors: readonly Tensor[], n: number): Tensor {
  return noGrad(() =>
    tensors.map((x) => mul(mean(x, { axes: [0] }), x.shape[0]! / n)).reduce((a, b) => add(a, b))
  );
}

/** Places the first centroids and assigns the points to them. */
function start(state: State, { init = "k-means++", seed = 0, k }: KMeansOptions): void {
  const { gpu, n, d, quads, center, means } = state;
  if (init instanceof Float32Array) {
    gpu.run(
      shader.kernel("prepare", { SPHERICAL: 0 }),
      { x: gpu.tensor(init, [k, d]), center, new_z: means, squares: gpu.empty([k]) },
      { ...noParameters, rows: k, d, quads },
      byRow(k),
    );
  } else if (init === "random") {
    const random = new Random(seed, "kmeans");
    const chosen = random.shuffle(Array.from({ length: n }, (_, i) => i)).slice(0, k);
    pick(state, gpu.tensor(Uint32Array.from(chosen)), 0, k);
  } else {
    plusPlus(state, seed);
  }
  shift(state);
  assign(state);
}

/** Draws points one after another, each with a probability by its distance to those before. */
function plusPlus(state: State, seed: number): void {
  const { gpu, parts, k, quads, means } = state;
  const groups = parts.reduce((count, { rows }) => count + Math.ceil(rows / 64), 0);
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
          c: means,
          weights: weights[i]!,
          new_drawn: drawn,
          new_drawn_at: drawnAt,
        },
        { ...noParameters, quads, rows, start, first, base, seed },
        grid1d(rows, 64),
      );
      base += Math.ceil(rows / 64);
    });
    gpu.run(
      shader.kernel("choose"),
      { drawn, drawn_at: drawnAt, new_chosen: chosen },
      { ...noParameters, rows: groups, first },
      [1, 1, 1],
    );
    pick(state, chosen, first, first + 1);
  }
}

/** Copies chosen points into the means `first` to before `end`. */
function pick({ gpu, parts, quads, means }: State, chosen: Tensor, first: number, end: number) {
  for (const { z, rows, start } of parts) {
    gpu.run(
      shader.kernel("pick"),
      { z, chosen, new_means: means },
      { ...noParameters, quads, rows, start, first, end },
      grid1d((end - first) * quads, 64),
    );
  }
}

/** Moves the centroids to the means. */
function shift(state: State): void {
  const { gpu, k, quads, SPHERICAL, means, centroids, norms, sequence, status } = state;
  gpu.run(
    shader.kernel("shift", { SPHERICAL }),
    { mean: means, new_c: centroids, new_norms: norms, new_sequence: sequence, status },
    { ...noParameters, quads, k },
    byRow(k),
  );
}

/**
 * Finds the nearest centroid of every point.
 *
 * @param again after an iteration: what has not changed by it is not computed again
 */
function assign(state: State, again = false): void {
  const { gpu, parts, k, quads, tile, centroids, norms, sequence, best, labels, status } = state;
  const kernel = gpu.subgroupSize === 8
    ? shader.kernel("assign", { COLUMNS: tile.columns })
    : shader.kernel("assign_tile");
  const tiles = Math.max(1, Math.floor(maxIterations / (quads + tile.columns)));
  const most = tiles * tile.columns;
  for (const { z, rows, start, open } of parts) {
    const groups = Math.ceil(rows / tile.rows);
    const tensors = { z, c: centroids, norms, best, labels, sequence, open, status };
    const meet = (meet: number, first: number, end: number, grid = foldGroups(groups)) =>
      gpu.run(
        kernel,
        tensors,
        { ...noParameters, rows, quads, k, start, meet, first, end },
        grid,
        // As if all were met.
        meet === REST ? 0 : 2 * rows * (end - first) * 4 * quads,
      );
    if (again && tile.columns < k && k <= most) {
      meet(MOVED, 0, k);
      gpu.run(
        shader.kernel("collect"),
        { nearest: labels, new_open: open, status },
        { ...noParameters, rows, start },
        grid1d(rows, 64),
      );
      // A power of 2, which the kernel scatters its tiles over.
      const bits = Math.max(1, Math.ceil(Math.log2(groups)));
      meet(REST, 0, k, [1 << (bits >> 1), 1 << (bits - (bits >> 1)), 1]);
    } else {
      for (let first = 0; first < k; first += most) meet(ALL, first, Math.min(k, first + most));
    }
  }
}

/** Moves every centroid to the mean of its points, and assigns these again. */
function iterate(state: State, { tolerance = 1e-4 }: KMeansOptions, pairs: readonly Split[]): void {
  const { gpu, parts, n, d, k, quads, block, piece, tally, counts, order, offsets, sums } = state;
  const { labels, means, norms, sequence, meanSquare, status } = state;
  const blocks = Math.ceil(n / block);
  const splits = pairs.length > 0 ? 1 : 0;
  const params = { ...noParameters, n, k, quads, block, piece, splits, rows: blocks };
  const run = (entry: string, tensors: Record<string, Tensor>, threads: number) =>
    gpu.run(shader.kernel(entry), { ...tensors, status }, params, grid1d(threads, 64));
  for (const tensor of [tally, sequence, ...parts.map(({ open }) => open)]) gpu.clear(tensor);
  run("count", { tally, nearest: labels }, blocks);
  run("rank_blocks", { tally, new_counts: counts }, k);
  gpu.run(
    shader.kernel("rank_clusters"),
    { counts, new_offsets: offsets, new_status: status },
    params,
    [1, 1, 1],
  );
  run("place", { tally, nearest: labels, offsets, new_order: order }, blocks);
  for (const { z, rows, start } of parts) {
    gpu.run(
      shader.kernel("piece_sums"),
      { z, order, offsets, new_sums: sums, status },
      { ...params, rows, start },
      grid1d((Math.ceil(n / piece) + k) * Math.ceil(quads / spread), 64),
    );
  }
  run("means", { sums, offsets, new_means: means }, k * quads);
  for (const { empty, donor } of pairs) {
    gpu.run(
      shader.kernel("split"),
      { new_means: means },
      { ...noParameters, quads, from_cluster: donor, to_cluster: empty },
      grid1d(quads, 64),
    );
  }
  shift(state);
  assign(state, true);
  gpu.run(
    shader.kernel("finish"),
    { norms, mean_square: meanSquare, new_status: status },
    { ...params, tolerance: tolerance / d },
    [1, 1, 1],
  );
}

/** A cluster without points, and that which gives it half of its own. */
interface Split {
  readonly empty: number;
  readonly donor: number;
}

/** Which cluster gives half of its points to which empty one: one of the largest at that time. */
function splits(counts: Uint32Array): Split[] {
  const bySize = Map.groupBy(counts.keys(), (j) => counts[j]!);
  const empty = bySize.get(0) ?? [];
  const put = (j: number, size: number) => {
    const group = bySize.get(size);
    if (group === undefined) bySize.set(size, [j]);
    else group.push(j);
  };
  const pairs: Split[] = [];
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

/** Waits for what was recorded, and reads where it has come to. */
async function look(state: State): Promise<Clustering & { status: number; counts: Uint32Array }> {
  const { gpu, parts, n, d, k, quads, centroids } = state;
  const distances = gpu.step(() => {
    const squares = gpu.empty([n]);
    for (const { z, rows, start } of parts) {
      gpu.run(
        shader.kernel("distances"),
        { z, c: centroids, nearest: state.labels, squared_distances: squares },
        { ...noParameters, rows, quads, start },
        byRow(rows),
      );
    }
    return squares;
  });
  // One wait for all.
  const [[status, iterations], counts, labels, padded, center, squaredDistances] = await Promise
    .all([
      state.status.data(),
      state.counts.data(),
      state.labels.data(),
      centroids.data(),
      state.center.data(),
      distances.data(),
    ]);
  distances.dispose();
  const found = new Float32Array(k * d);
  for (let j = 0; j < k; j++) {
    for (let i = 0; i < d; i++) found[j * d + i] = padded[j * 4 * quads + i]! + center[i]!;
  }
  return {
    status: status!,
    iterations: iterations!,
    counts,
    labels,
    centroids: found,
    squaredDistances,
    inertia: squaredDistances.reduce((total, value) => total + value, 0),
  };
}
