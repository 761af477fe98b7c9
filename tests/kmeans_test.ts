import assert from "node:assert/strict";
import { Gpu } from "../src/gpu/gpu.ts";
import { type Clustering, kmeans, type KMeansOptions } from "../src/kmeans.ts";
import { Random } from "../src/random.ts";
import type { Tensor } from "../src/tensor.ts";
import { assertClose, assertRelative } from "./support/assert.ts";
import { readFixture } from "./support/fixture.ts";
import { gpu, randomArray } from "./support/op.ts";

/** The same adapter without subgroups. */
const portable = await Gpu.open({ subgroups: false });

async function cluster(
  values: ArrayLike<number>,
  d: number,
  options: KMeansOptions,
  on = gpu,
): Promise<Clustering> {
  const x = on.tensor(Float32Array.from(values), [values.length / d, d]);
  try {
    return await kmeans(x, options);
  } finally {
    x.dispose();
  }
}

/** k points around each of some places, far apart. */
function blobs(places: readonly (readonly number[])[], each: number): Float32Array {
  const random = new Random(1, "blobs");
  return Float32Array.from(
    Array.from(
      { length: each },
      () => places.flatMap((place) => place.map((v) => v + 0.1 * random.normal())),
    )
      .flat(),
  );
}

Deno.test("kmeans() follows scikit-learn's Lloyd from the same centroids", async () => {
  const fixture = await readFixture("kmeans");
  for (const name of fixture.cases()) {
    const { data, shape } = fixture.tensor(`${name}.x`);
    const init = fixture.tensor(`${name}.init`);
    const options = {
      k: init.shape[0]!,
      init: init.data,
      iterations: fixture.integer(`${name}.iterations`),
      tolerance: fixture.scalar(`${name}.tolerance`),
    };
    for (const on of [gpu, portable]) {
      const found = await cluster(data, shape[1]!, options, on);
      assert.deepEqual([...found.labels], fixture.integers(`${name}.labels`), name);
      const inertia = fixture.scalar(`${name}.inertia`);
      assertClose([found.inertia], [inertia], { rtol: 1e-5 }, `${name} inertia`);
      const { data: centroids } = fixture.tensor(`${name}.centroids`);
      assertClose(found.centroids, centroids, { rtol: 1e-5, atol: 1e-5 }, `${name} centroids`);
      assert.equal(found.iterations, fixture.integer(`${name}.done`), `${name} iterations`);
    }
  }
});

Deno.test("kmeans() of a point alone, of as many clusters as points, and of one cluster", async () => {
  const one = await cluster([3, -4, 5], 3, { k: 1 });
  assert.deepEqual([...one.centroids], [3, -4, 5]);
  assert.deepEqual([[...one.labels], one.inertia], [[0], 0]);

  const x = randomArray([67, 3], "each its own");
  for (const init of ["k-means++", "random"] as const) {
    const { labels, inertia } = await cluster(x, 3, { k: 67, init });
    assert.equal(new Set(labels).size, 67, init);
    assert.ok(inertia < 1e-10, `${init}: ${inertia}`);
  }

  const all = await cluster(x, 3, { k: 1 });
  const mean = [0, 1, 2].map((i) => x.reduce((s, v, j) => j % 3 === i ? s + v / 67 : s, 0));
  assertClose(all.centroids, mean, { atol: 1e-6 }, "mean");
});

/** The lattice of whole numbers, `width` wide, and points in turn less than 0.4 away from each. */
function lattice(n: number, k: number, width: number) {
  const random = new Random(2, "lattice");
  const centroids = Float32Array.from(
    { length: 2 * k },
    (_, i) => i % 2 === 0 ? (i / 2) % width : Math.floor(i / 2 / width),
  );
  const labels = Uint32Array.from({ length: n }, (_, i) => i % k);
  const points = Float32Array.from(
    { length: 2 * n },
    (_, i) => centroids[2 * labels[i >> 1]! + i % 2]! + random.uniform(-0.28, 0.28),
  );
  return { centroids, labels, points };
}

Deno.test("kmeans() of 65 536 and 70 001 points and clusters finds what the CPU finds", async () => {
  for (
    const [n, k, width] of [[70001, 65536, 256], [65536, 70001 >> 4, 66], [70001, 3, 2]] as const
  ) {
    const { centroids, labels, points } = lattice(n, k, width);
    const none = await cluster(points, 2, { k, init: centroids, iterations: 0 });
    assert.deepEqual(none.labels, labels, `labels of ${n} points, ${k} clusters`);
    const squares = new Float32Array(n);
    points.forEach((v, i) =>
      squares[i >> 1]! += (v - centroids[2 * labels[i >> 1]! + i % 2]!) ** 2
    );
    assertClose(none.squaredDistances, squares, { rtol: 1e-3, atol: 1e-4 }, "squared distances");
    assertClose([none.inertia], [squares.reduce((a, b) => a + b)], { rtol: 1e-4 }, "inertia");
  }
});

Deno.test("kmeans() moves 70 001 centroids to their points, and one to the mean of 70 001 points", async () => {
  const { centroids: init, points } = lattice(70001, 70001, 265);
  const moved = await cluster(points, 2, { k: 70001, init, iterations: 1 });
  assertClose(moved.centroids, points, { atol: 1e-4 }, "points");
  assert.ok(moved.inertia < 1e-4, `${moved.inertia}`);

  const far = points.map((v, i) => v + 400 * (i % 2));
  const mean = [0, 1].map((i) => far.reduce((s, v, j) => j % 2 === i ? s + v / 70001 : s, 0));
  const { centroids } = await cluster(far, 2, { k: 1, init: Float32Array.of(9, 9), iterations: 1 });
  assertClose(centroids, mean, { rtol: 1e-6 }, "mean");
});

Deno.test("kmeans() by subgroups and by workgroup memory finds the same, dispatch by dispatch", async () => {
  // So many dimensions that the centroids take several dispatches.
  for (const [n, d, k] of [[33, 2050, 33], [70, 5, 65], [31, 1030, 30]] as const) {
    const x = randomArray([n, d], `families ${n}`);
    const options = { k, init: "random", iterations: 3 } as const;
    const [a, b] = [await cluster(x, d, options), await cluster(x, d, options, portable)];
    assert.deepEqual(a.labels, b.labels, `${n}, ${d}, ${k}`);
    assertRelative(a.centroids, b.centroids, 1e-6, `centroids of ${n}, ${d}, ${k}`);
  }
});

/** Each point and its opposite, so that their mean is 0, bit by bit. */
function opposites(n: number, d: number, value: (random: Random, place: number) => number) {
  const random = new Random(4, "opposites");
  return Float32Array.from(
    Array.from({ length: n / 2 }, (_, i) => {
      const point = Array.from({ length: d }, (_, j) => value(random, (i * 7 + j * 3) % 41));
      return [...point, ...point.map((v) => -v)];
    }).flat(),
  );
}

Deno.test("kmeans() finds after iterations what it finds from their centroids anew", async () => {
  const [n, d, k] = [1536, 3, 200];
  const kinds = {
    uniform: opposites(n, d, (random) => random.uniform(-1, 1)),
    "in clusters": opposites(n, d, (random, place) => place - 20 + 0.1 * random.normal()),
    // Points that are the same, and centroids as far from one.
    "in a lattice": opposites(n, d, (random) => Math.round(4 * random.normal())),
  };
  for (const [kind, x] of Object.entries(kinds)) {
    // Some of which are the same, so that clusters are empty.
    const init = x.slice(0, k * d).copyWithin(0, 4 * d, 12 * d);
    for (const on of [gpu, portable]) {
      const parts = [x.slice(0, 512 * d), x.slice(512 * d)].map((part) =>
        on.tensor(part, [part.length / d, d])
      );
      const unmoved: number[] = [];
      let last = init;
      for (let iterations = 1; iterations <= 8; iterations++) {
        const found = await kmeans(parts, { k, init, iterations, tolerance: 0 });
        const anew = await kmeans(parts, { k, init: found.centroids, iterations: 0 });
        assert.deepEqual(anew.labels, found.labels, `${kind}, ${iterations} iterations`);
        assert.deepEqual(anew.squaredDistances, found.squaredDistances, kind);
        const moved = new Set<number>();
        last.forEach((v, i) => v !== found.centroids[i] && moved.add(Math.floor(i / d)));
        unmoved.push(k - moved.size);
        last = found.centroids;
      }
      // Else nothing was left out.
      assert.ok(
        unmoved.some((count) => count > 64 && count < k),
        `${kind}: ${unmoved} did not move`,
      );
      for (const part of parts) part.dispose();
    }
  }
});

Deno.test("kmeans() gives a point the first of equally near centroids, moved or not", async () => {
  // Each alone with its centroid, and all around 0.
  const far = Array.from(
    { length: 100 },
    (_, i) => [60 + 20 * (i % 10), 60 + 20 * Math.floor(i / 10)],
  )
    .flatMap(([x, y]) => [[x!, y!], [-x!, -y!]]);
  far.push([300, 300], [-308, -305]);
  // The first centroid leaves the origin, the third comes as near as it was, as the second always is.
  const init = [[5, 0], [0, 5], [-9, 0], ...far];
  const x = [[0, 0], [18, 0], [0, 5], [-4, 0], [-6, 0], ...far];
  for (const on of [gpu, portable]) {
    const options = { k: init.length, init: Float32Array.from(init.flat()), iterations: 1 };
    const { labels, centroids } = await cluster(x.flat(), 2, options, on);
    assert.deepEqual([...centroids.subarray(0, 6)], [9, 0, 0, 5, -5, 0]);
    assert.deepEqual([...labels.subarray(0, 5)], [1, 0, 1, 2, 2]);
  }
});

Deno.test("kmeans() ends as if no iteration were recorded past the last", async () => {
  const x = randomArray([400, 7], "ahead");
  for (const on of [gpu, portable]) {
    for (const tolerance of [0, 1e-3]) {
      const options = { k: 9, tolerance, seed: 5 };
      const found = await cluster(x, 7, options, on);
      assert.ok(found.iterations > 2 && found.iterations < 100, `${found.iterations} iterations`);
      const { iterations } = found;
      assert.deepEqual(await cluster(x, 7, { ...options, iterations }, on), found);
    }
  }
});

Deno.test("kmeans() takes points in several tensors", async () => {
  const [n, d, k] = [1003, 6, 9];
  const x = randomArray([n, d], "parts", 2);
  const parts = [[0, 1], [1, 300], [300, 1003]].map(([begin, end]) =>
    gpu.tensor(x.slice(begin! * d, end! * d), [end! - begin!, d])
  );
  for (const init of ["k-means++", "random", x.slice(0, k * d)] as const) {
    const options = { k, init, iterations: 5 } as const;
    const [whole, pieces] = [await cluster(x, d, options), await kmeans(parts, options)];
    assert.deepEqual(pieces.labels, whole.labels);
    assertClose(pieces.centroids, whole.centroids, { atol: 1e-5 }, "centroids");
    assertClose([pieces.inertia], [whole.inertia], { rtol: 1e-5 }, "inertia");
    const { squaredDistances } = whole;
    assertClose(pieces.squaredDistances, squaredDistances, { rtol: 1e-4 }, "squared distances");
  }
  for (const part of parts) part.dispose();
});

Deno.test("kmeans() fills an empty cluster from the largest", async () => {
  const x = blobs([[0, 5], [30, 5]], 40);
  // Nothing is near the third centroid, nor the fourth.
  const init = Float32Array.of(0, 5, 30, 5, 1e3, 1e3, 2e3, 2e3);
  const { labels, iterations, centroids } = await cluster(x, 2, { k: 4, init });
  const counts = [0, 1, 2, 3].map((j) => labels.filter((label) => label === j).length);
  assert.ok(counts.every((count) => count >= 5), `${counts}`);
  assert.ok(iterations < 50, `${iterations} iterations`);
  assert.ok(centroids.every((v) => v < 40), `${centroids}`);

  const alike = await cluster(new Float32Array(24).fill(7), 2, { k: 5, iterations: 4 });
  assert.deepEqual([...alike.centroids], Array.from({ length: 10 }, () => 7));
  assert.equal(alike.inertia, 0);
});

Deno.test("kmeans() gives the same bits for a seed, and other starts for another", async () => {
  const x = randomArray([500, 9], "bits");
  for (const init of ["k-means++", "random"] as const) {
    const run = (seed: number) => cluster(x, 9, { k: 20, init, seed, iterations: 6 });
    const first = await run(1);
    assert.deepEqual(await run(1), first);
    assert.notDeepEqual((await run(2)).labels, first.labels);
  }
});

Deno.test("k-means++ draws by squared distance", async () => {
  // Points on axes of their own, 1 or 2 from the origin, where half of the points are: once one of these
  // is drawn, the others are as far from the centroids as from the origin.
  const each = 200;
  const d = 2 * each;
  const values = new Float32Array(4 * each * d);
  for (let i = 0; i < d; i++) values[(d + i) * d + i] = 1 + i % 2;
  const x = gpu.tensor(values, [4 * each, d]);
  const drawn = [0, 0, 0];
  const k = 25;
  for (let seed = 0; seed < 20; seed++) {
    const { centroids } = await kmeans(x, { k, seed, iterations: 0 });
    for (let j = 0; j < k; j++) {
      drawn[Math.round(Math.hypot(...centroids.subarray(j * d, (j + 1) * d)))]!++;
    }
  }
  x.dispose();
  // Far points come four times as often as near ones, as long as there are as many.
  let [near, far] = [0, 0];
  for (let draw = 1; draw < k; draw++) {
    const share = 4 * (each - far) / (4 * (each - far) + each - near);
    [near, far] = [near + 1 - share, far + share];
  }
  const [, ones, twos] = drawn as [number, number, number];
  const share = far / (k - 1);
  const bound = 5 * Math.sqrt(share * (1 - share) / (ones + twos));
  assert.ok(
    Math.abs(twos / (ones + twos) - share) < bound,
    `${drawn}, expected ${share} ± ${bound}`,
  );
  // Never a point, nor a place, twice.
  assert.equal(drawn[0], 20);
});

Deno.test("k-means++ starts in each of eight places far apart", async () => {
  const places = Array.from({ length: 8 }, (_, i) => [100 * (i & 1), 50 * (i & 2), 25 * (i & 4)]);
  const { inertia } = await cluster(blobs(places, 30), 3, { k: 8, seed: 3 });
  // 240 points of variance 0.01 in three dimensions.
  assert.ok(inertia < 8.5, `${inertia}`);
});

Deno.test("spherical kmeans() compares directions", async () => {
  const random = new Random(1, "directions");
  const angles = Array.from({ length: 90 }, (_, i) => (i % 3) * 2 + 0.05 * random.normal());
  const x = angles.flatMap((angle) => {
    const length = random.uniform(0.1, 100);
    return [length * Math.cos(angle), length * Math.sin(angle), 0];
  });
  const { labels, centroids, inertia } = await cluster(x, 3, { k: 3, spherical: true });
  angles.forEach((_, i) => assert.equal(labels[i], labels[i % 3]));
  assert.equal(new Set(labels).size, 3);
  for (let j = 0; j < 3; j++) {
    const [a, b, c] = centroids.subarray(3 * labels[j]!);
    assertClose([Math.cos(2 * j), Math.sin(2 * j), 0], [a!, b!, c!], { atol: 0.05 }, "direction");
    assert.ok(Math.abs(Math.hypot(a!, b!, c!) - 1) < 1e-6);
  }
  // 2 − 2 cos of what each angle is away from its mean.
  const means = [0, 1, 2].map((j) => {
    const own = angles.filter((_, i) => i % 3 === j);
    const sum = (f: (angle: number) => number) => own.reduce((total, a) => total + f(a), 0);
    return Math.atan2(sum(Math.sin), sum(Math.cos));
  });
  const expected = angles.reduce((sum, a, i) => sum + 2 - 2 * Math.cos(a - means[i % 3]!), 0);
  assertClose([inertia], [expected], { rtol: 1e-3 }, "inertia");
});

Deno.test("kmeans() gives back its memory", async () => {
  const x = gpu.tensor(randomArray([300, 5], "memory"), [300, 5]);
  const { live } = gpu.memory;
  for (const init of ["k-means++", "random"] as const) {
    await kmeans(x, { k: 7, init, iterations: 3 });
    assert.equal(gpu.memory.live, live, "bytes in use");
  }
  x.dispose();
});

Deno.test("kmeans() names what does not fit together", async () => {
  const x = gpu.tensor(new Float32Array(12), [6, 2]);
  const wide = gpu.tensor(new Float32Array(12), [4, 3]);
  const wrong: [Tensor | Tensor[], KMeansOptions, RegExp][] = [
    [x, { k: 7 }, /^kmeans: 7 clusters of 6 points$/],
    [x, { k: 0 }, /^kmeans: 0 clusters of 6 points$/],
    [x, { k: 1.5 }, /^kmeans: 1.5 clusters of 6 points$/],
    [x, { k: 2, init: new Float32Array(3) }, /^kmeans: init has 3 values, not \[2,2\]$/],
    [x, { k: 2, tolerance: NaN }, /^kmeans: iterations 0, tolerance NaN$/],
    [[x, wide], { k: 2 }, /^kmeans: f32 \[4,3\] is not f32 \[n,2\]$/],
    [[], { k: 2 }, /^kmeans: no points$/],
    [gpu.tensor(new Uint32Array(6), [3, 2]), { k: 2 }, /^kmeans: u32 \[3,2\] is not f32 \[n,2\]$/],
  ];
  for (const [points, options, message] of wrong) {
    await assert.rejects(kmeans(points, options), (error: Error) => {
      assert.ok(error instanceof RangeError);
      assert.match(error.message, message);
      return true;
    });
  }
});
