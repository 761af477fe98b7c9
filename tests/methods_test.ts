import assert from "node:assert/strict";
import { backward, keep } from "../src/autograd.ts";
import { UserError } from "../src/errors.ts";
import { Autoencoder } from "../src/methods/autoencoder.ts";
import { DeepCluster } from "../src/methods/kmeans.ts";
import { DeepClusterV2 } from "../src/methods/kmeans_v2.ts";
import { MICLe } from "../src/methods/micle.ts";
import { ntXentFloor, SimCLR } from "../src/methods/simclr.ts";
import type { Epoch, Method } from "../src/methods/method.ts";
import { Supervised } from "../src/methods/supervised.ts";
import { ModelState } from "../src/nn/model_state.ts";
import type { ResNetOptions } from "../src/nn/resnet.ts";
import { addNoise, maskPatches } from "../src/ops/dropout.ts";
import { AdamW } from "../src/optim.ts";
import { Random } from "../src/random.ts";
import { assertClose } from "./support/assert.ts";
import { assertReleases, gpu, randomArray, randomTensor } from "./support/op.ts";

const encoder: ResNetOptions = { arch: "resnet18", width: 4, stem: "3x3", channels: 1 };
const contrast = { temperature: 0.2, head: "v1" } as const;

/** Losses of steps on one batch, in an epoch where the method wants one. */
async function descend(method: Method, steps: number, epoch?: Epoch): Promise<number[]> {
  const state = new ModelState(gpu, method);
  if (epoch !== undefined) await method.beginEpoch(epoch);
  const optimizer = new AdamW(state);
  const views = randomTensor([8 * method.viewsPerImage, 16, 16, 1], "views");
  const losses: number[] = [];
  for (let step = 0; step < steps; step++) {
    const loss = gpu.step(() => {
      state.zeroGrad();
      const { loss } = method.loss(views, step, [0, 1, 2, 3, 4, 5, 6, 7]);
      backward(loss);
      optimizer.step(3e-3);
      return loss;
    });
    losses.push(await loss.item());
    loss.dispose();
  }
  return losses;
}

Deno.test("SimCLR and Autoencoder learn a batch by heart", async () => {
  for (
    const method of [
      new SimCLR(encoder, contrast),
      new Autoencoder(encoder, 16, { kind: "noise", strength: 0.1, seed: 0 }),
      new Autoencoder(encoder, 16, { kind: "mask", strength: 0.25, seed: 0 }),
    ]
  ) {
    const losses = await descend(method, 40);
    const [first, last] = [losses[0]!, losses.at(-1)!];
    assert.ok(last < 0.8 * first, `${method.constructor.name}: ${first} → ${last}`);
  }
});

Deno.test("Supervised learns labels by heart, missing ones masked", async () => {
  const labels = Float32Array.from({ length: 16 }, (_, i) => i === 3 ? NaN : (i * 7 % 5) % 2);
  const method = new Supervised(encoder, "bce", labels, 2);
  const images = [...Array(8).keys()];
  const state = new ModelState(gpu, method);
  const optimizer = new AdamW(state);
  const views = randomTensor([8, 16, 16, 1], "views");
  const losses: number[] = [];
  for (let step = 0; step < 30; step++) {
    const loss = gpu.step(() => {
      state.zeroGrad();
      const { loss } = method.loss(views, step, images);
      backward(loss);
      optimizer.step(3e-3);
      return loss;
    });
    losses.push(await loss.item());
    loss.dispose();
  }
  assert.ok(losses.at(-1)! < 0.3 * losses[0]!, `${losses[0]} → ${losses.at(-1)}`);
});

Deno.test("SimCLR's floor is that of the simplex", () => {
  // 64 pairs at τ = 0.5.
  assert.ok(Math.abs(ntXentFloor(64, 0.5) - 2.86) < 0.01);
  assert.equal(ntXentFloor(1, 0.5), 0);
});

/** Patients a (4 images), b (2), c (1), then images that belong to nobody. */
const patients = ["a", "a", "b", "a", "c", "b", "a", ...Array.from({ length: 17 }, () => null)];

Deno.test("MICLe takes each image once an epoch, and a patient at most once a batch", () => {
  const method = new MICLe(encoder, contrast, patients);
  for (let epoch = 0; epoch < 50; epoch++) {
    const order = method.order(24, 6, new Random(0, "order", epoch));
    assert.deepEqual([...order].sort((a, b) => a - b), [...patients.keys()]);
    for (let step = 0; step < 4; step++) {
      const known = order.slice(6 * step, 6 * step + 6).map((i) => patients[i]).filter((p) =>
        p !== null
      );
      assert.equal(new Set(known).size, known.length, `${known}`);
    }
  }
});

Deno.test("MICLe drops what fills no batch, another part in every epoch", () => {
  const method = new MICLe(encoder, contrast, patients);
  const epochs = Array.from(
    { length: 20 },
    (_, i) => method.order(24, 5, new Random(0, "order", i)),
  );
  for (const order of epochs) assert.equal(new Set(order).size, 20);
  assert.equal(new Set(epochs.flat()).size, 24);
});

Deno.test("MICLe pairs an image with each other image of its patient alike, or with itself", () => {
  const method = new MICLe(encoder, contrast, patients);
  const counts = new Map<number, number>();
  const random = new Random(0, "pairs");
  for (let i = 0; i < 600; i++) {
    const [image, alone, partner, self] = method.views([0, 4], random);
    assert.deepEqual([image, alone, self], [0, 4, 4]);
    counts.set(partner!, (counts.get(partner!) ?? 0) + 1);
  }
  assert.deepEqual([...counts.keys()].sort(), [1, 3, 6]);
  // Five standard deviations of a third of 600.
  for (const count of counts.values()) assert.ok(Math.abs(count - 200) < 58, `${count}`);
  assert.equal(method.facts().pairedShare, 6 / 24);
});

Deno.test("MICLe leaves for other epochs what a patient has beyond one image a step", () => {
  const many = [...Array(5).fill("a"), ...Array(13).fill(null)];
  const method = new MICLe(encoder, contrast, many);
  const epochs = Array.from(
    { length: 20 },
    (_, i) => method.order(18, 5, new Random(0, "order", i)),
  );
  for (const order of epochs) {
    assert.equal(new Set(order).size, 15);
    for (let step = 0; step < 3; step++) {
      const batch = order.slice(5 * step, 5 * step + 5);
      assert.ok(batch.filter((image) => many[image] === "a").length <= 1, `${batch}`);
    }
  }
  assert.equal(new Set(epochs.flat()).size, 18);
});

Deno.test("MICLe says so when one patient cannot fill the batches", () => {
  const method = new MICLe(encoder, contrast, Array.from({ length: 8 }, () => "only"));
  assert.throws(
    () => method.order(8, 4, new Random(0, "order")),
    (error) =>
      error instanceof UserError &&
      /1 patients give 2 of the 8 images of 2 steps; lower --batch 4/.test(error.message),
  );
});

Deno.test("Autoencoder gives images at their size, or refuses the size", () => {
  for (const stem of ["3x3", "7x7"] as const) {
    const size = stem === "3x3" ? 24 : 64;
    const method = new Autoencoder({ ...encoder, stem, channels: 3 }, size, {
      kind: "noise",
      strength: 0.2,
      seed: 0,
    });
    new ModelState(gpu, method);
    const { shape } = gpu.scope(() =>
      method.decoder.forward(method.encoder.map(gpu.zeros([2, size, size, 3])))
    );
    assert.deepEqual(shape, [2, size, size, 3]);
  }
  const wrong = () => new Autoencoder(encoder, 30, { kind: "noise", strength: 0.2, seed: 0 });
  assert.throws(
    wrong,
    (error) => error instanceof UserError && /multiples of 8/.test(error.message),
  );
});

/** Before an epoch of DeepCluster with given features. */
const epochOf = (features: Float32Array, index = 0, renew = (_prefix: string) => {}) => ({
  gpu,
  index,
  features: () => Promise.resolve(features),
  renew,
});

/** Features of images in three places far apart, in two of the dimensions: 17, 5 and 2 images. */
function threePlaces(dimensions: number): Float32Array {
  const features = new Float32Array(24 * dimensions);
  const noise = randomArray([24, 2], "places", 0.01);
  for (let i = 0; i < 24; i++) {
    const angle = i < 17 ? 0 : i < 22 ? 2 : 4;
    features[i * dimensions] = Math.cos(angle) + noise[2 * i]!;
    features[i * dimensions + 1] = Math.sin(angle) + noise[2 * i + 1]!;
  }
  return features;
}

Deno.test("DeepCluster learns the clusters of a batch by heart", async () => {
  const method = new DeepCluster(encoder, { clusters: 4, seed: 0 });
  const features = randomArray([8, method.embeddingSize], "features");
  const losses = await descend(method, 40, epochOf(features));
  const [first, last] = [losses[0]!, losses.at(-1)!];
  assert.ok(Math.abs(first - Math.log(4)) < 0.2, `${first} of a new head`);
  assert.ok(last < 0.5 * first, `${first} → ${last}`);
});

Deno.test("DeepCluster draws alike from clusters, draws a new head and compares with the last epoch", async () => {
  const method = new DeepCluster(encoder, { clusters: 3, seed: 0 });
  const features = threePlaces(method.embeddingSize);
  const renewed: string[] = [];
  const first = await method.beginEpoch(epochOf(features, 0, (prefix) => renewed.push(prefix)));
  assert.deepEqual(renewed, ["head."]);
  assert.equal(first.nmi, undefined);
  const clusters = [...method.state().get("labels")!];
  for (let epoch = 0; epoch < 5; epoch++) {
    const order = method.order(24, 6, new Random(0, "order", epoch));
    assert.equal(order.length, 24);
    for (const cluster of [0, 1, 2]) {
      const drawn = order.filter((image) => clusters[image] === cluster);
      assert.equal(drawn.length, 8);
      // Without repetition as far as there are images enough.
      const size = clusters.filter((other) => other === cluster).length;
      assert.equal(new Set(drawn).size, Math.min(size, 8));
    }
  }
  const again = await method.beginEpoch(epochOf(features, 1));
  assert.ok(typeof again.nmi === "number" && again.nmi > 0.5 && again.nmi <= 1, `${again.nmi}`);

  const other = new DeepCluster(encoder, { clusters: 3, seed: 0 });
  other.restore(method.state());
  assert.deepEqual(other.state(), method.state());
});

Deno.test("DeepCluster shows the images nearest to a centroid, clusters from large to small", async () => {
  const method = new DeepCluster(encoder, { clusters: 3, seed: 0 });
  const shown = (method: DeepCluster) => {
    const lines: (readonly number[])[] = [];
    method.samples(24, (images) => {
      lines.push(images);
      return gpu.zeros([images.length, 4, 4, 1]);
    }).forEach((line) => line.dispose());
    return lines;
  };
  assert.deepEqual(shown(method), []);
  await method.beginEpoch(epochOf(threePlaces(method.embeddingSize)));
  const { labels, distances } = Object.fromEntries(method.state());
  const lines = shown(method);
  const sizes = lines.map(([first]) => labels!.filter((label) => label === labels![first!]).length);
  assert.equal(new Set(lines.map(([first]) => labels![first!])).size, 3);
  assert.deepEqual(sizes, sizes.toSorted((a, b) => b - a));
  lines.forEach((line, i) => {
    const cluster = labels![line[0]!]!;
    const members = [...labels!.keys()].filter((image) => labels![image] === cluster);
    assert.equal(line.length, Math.min(8, sizes[i]!));
    assert.ok(line.every((image) => members.includes(image)));
    const nearest = members.map((image) => distances![image]!).sort((a, b) => a - b);
    assert.deepEqual(line.map((image) => distances![image]), nearest.slice(0, 8));
  });

  const other = new DeepCluster(encoder, { clusters: 3, seed: 0 });
  other.restore(method.state());
  assert.deepEqual(shown(other), lines);
});

Deno.test("DeepCluster goes on with an empty cluster, and says so when the encoder has collapsed", async () => {
  const method = new DeepCluster(encoder, { clusters: 4, seed: 0 });
  // Two images, each eight times: at most two clusters can have any.
  const two = Float32Array.from(
    { length: 16 * method.embeddingSize },
    (_, i) => +(Math.floor(i / method.embeddingSize) % 2 === i % method.embeddingSize),
  );
  const { cluster_size: sizes } = await method.beginEpoch(epochOf(two));
  assert.deepEqual(sizes, { smallest: 0, median: 8, largest: 8 });
  const order = method.order(16, 4, new Random(0, "order"));
  assert.equal(order.filter((image) => image % 2 === 0).length, 8);
  await assert.rejects(
    method.beginEpoch(epochOf(new Float32Array(two.length).fill(0.5), 6)),
    (error) =>
      error instanceof UserError &&
      error.message === "kmeans: before epoch 7 the encoder gives all images the same features",
  );
});

Deno.test("DeepClusterV2 learns its clusters by heart, from prototypes that do not move", async () => {
  const method = new DeepClusterV2(encoder, { clusters: 4, seed: 0 });
  const features = randomArray([8, method.encoder.features], "features");
  await descend(method, 0, epochOf(features));
  const prototypes = await method.prototypes.tensor.data() as Float32Array;
  const losses = await descend(method, 40, epochOf(features));
  assert.deepEqual(await method.prototypes.tensor.data(), prototypes);
  const [first, last] = [losses[0]!, losses.at(-1)!];
  assert.ok(last < 0.5 * first, `${first} → ${last}`);

  const images = [5, 0, 7];
  const result = gpu.step(() => {
    const { loss, embeddings } = method.loss(randomTensor([3, 16, 16, 1], "three"), 0, images);
    return [loss, keep(embeddings)] as const;
  });
  const [loss, z] = [await result[0].item(), await result[1].data() as Float32Array];
  for (const tensor of result) tensor.dispose();
  const { labels } = Object.fromEntries(method.state());
  const d = method.embeddingSize;
  const dot = (a: Float32Array, i: number, b: Float32Array, j: number) =>
    a.subarray(i * d, (i + 1) * d).reduce((sum, v, at) => sum + v * b[j * d + at]!, 0);
  for (let j = 0; j < 4; j++) {
    assertClose([dot(prototypes, j, prototypes, j)], [1], { atol: 1e-5 }, "length");
  }
  const terms = images.map((image, i) => {
    const exponentials = [0, 1, 2, 3].map((j) => Math.exp(dot(z, i, prototypes, j) / 0.1));
    return -Math.log(exponentials[labels![image]!]! / exponentials.reduce((a, b) => a + b));
  });
  assertClose([loss], [terms.reduce((a, b) => a + b) / 3], { rtol: 1e-4 }, "loss");
});

Deno.test("DeepClusterV2 clusters directions of embeddings, and says so when they are all alike", async () => {
  const method = new DeepClusterV2(encoder, { clusters: 3, seed: 1 });
  new ModelState(gpu, method);
  const features = threePlaces(method.encoder.features);
  const renewed: string[] = [];
  const first = await method.beginEpoch(epochOf(features, 0, (prefix) => renewed.push(prefix)));
  assert.deepEqual([renewed, first.nmi], [[], undefined]);
  assert.ok(method.projection.training);
  const { distances } = Object.fromEntries(method.state());
  // Of points of length 1 to a centroid of length 1 in their midst.
  assert.ok(distances!.every((distance) => distance >= 0 && distance < 2), `${distances}`);
  // Images are drawn as they are: all of them once.
  const order = method.order(24, 6, new Random(0, "order"));
  assert.equal(new Set(order).size, 24);
  const again = await method.beginEpoch(epochOf(features, 1));
  assert.ok(typeof again.nmi === "number" && again.nmi > 0 && again.nmi <= 1, `${again.nmi}`);
  await assert.rejects(
    method.beginEpoch(epochOf(new Float32Array(features.length).fill(0.5), 6)),
    (error) =>
      error instanceof UserError &&
      error.message === "kmeans: before epoch 7 the model gives all images the same embeddings",
  );
});

Deno.test("addNoise() adds standard normal numbers, other ones in every step", async () => {
  const n = 40001;
  const draw = async (index: number) =>
    await gpu.step(() =>
      addNoise(gpu.tensor(new Float32Array(n).fill(2)), {
        deviation: 0.5,
        seed: 1,
        stream: "noise",
        index,
      })
    ).data() as Float32Array;
  const noise = (await draw(0)).map((v) => (v - 2) / 0.5);
  const moment = (power: number) => noise.reduce((sum, v) => sum + v ** power, 0) / n;
  // Five standard deviations of each moment.
  const bound = (variance: number) => 5 * Math.sqrt(variance / n);
  assert.ok(Math.abs(moment(1)) < bound(1), `mean ${moment(1)}`);
  assert.ok(Math.abs(moment(2) - 1) < bound(2), `variance ${moment(2)}`);
  assert.ok(Math.abs(moment(3)) < bound(15), `third moment ${moment(3)}`);
  assert.ok(Math.abs(moment(4) - 3) < bound(96), `fourth moment ${moment(4)}`);
  assert.deepEqual((await draw(0)).map((v) => (v - 2) / 0.5), noise);
  assert.notDeepEqual((await draw(1)).map((v) => (v - 2) / 0.5), noise);
});

Deno.test("maskPatches() masks whole patches, through all channels, at its rate", async () => {
  const [images, size, channels, side] = [40, 30, 3, 8];
  const shape = [images, size, size, channels];
  const y = await gpu.step(() =>
    maskPatches(gpu.tensor(new Float32Array(shape.reduce((a, b) => a * b)).fill(1), shape), {
      rate: 0.4,
      size: side,
      seed: 1,
      stream: "mask",
      index: 0,
    })
  ).data() as Float32Array;
  const patches = new Map<string, number>();
  for (let i = 0; i < y.length; i++) {
    const pixel = Math.floor(i / channels);
    const [column, row] = [pixel % size, Math.floor(pixel / size) % size];
    const image = Math.floor(pixel / (size * size));
    const patch = `${image} ${Math.floor(row / side)} ${Math.floor(column / side)}`;
    assert.equal(patches.get(patch) ?? y[i], y[i], `patch ${patch} is half masked`);
    patches.set(patch, y[i]!);
  }
  assert.equal(patches.size, images * 16);
  const masked = [...patches.values()].filter((v) => v === 0).length / patches.size;
  assert.ok(Math.abs(masked - 0.4) < 5 * Math.sqrt(0.24 / patches.size), `${masked}`);
});

Deno.test("addNoise() leaves no memory behind", () => {
  assertReleases((x) => addNoise(x, { deviation: 1, seed: 0, stream: "s", index: 0 }), [
    2,
    8,
    8,
    4,
  ]);
});
