import assert from "node:assert/strict";
import { backward } from "../src/autograd.ts";
import { UserError } from "../src/errors.ts";
import { Autoencoder } from "../src/methods/autoencoder.ts";
import { MICLe } from "../src/methods/micle.ts";
import { ntXentFloor, SimCLR } from "../src/methods/simclr.ts";
import type { Method } from "../src/methods/method.ts";
import { ModelState } from "../src/nn/model_state.ts";
import type { ResNetOptions } from "../src/nn/resnet.ts";
import { addNoise, maskPatches } from "../src/ops/dropout.ts";
import { AdamW } from "../src/optim.ts";
import { Random } from "../src/random.ts";
import { assertReleases, gpu, randomTensor } from "./support/op.ts";

const encoder: ResNetOptions = { arch: "resnet18", width: 4, stem: "3x3", channels: 1 };
const contrast = { temperature: 0.2, head: "v1" } as const;

/** Losses of steps on one batch. */
async function descend(method: Method, steps: number): Promise<number[]> {
  const state = new ModelState(gpu, method);
  const optimizer = new AdamW(state);
  const views = randomTensor([8 * method.viewsPerImage, 16, 16, 1], "views");
  const losses: number[] = [];
  for (let step = 0; step < steps; step++) {
    const loss = gpu.step(() => {
      state.zeroGrad();
      const { loss } = method.loss(views, step);
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

Deno.test("MICLe says so when a patient has more images than an epoch has steps", () => {
  const method = new MICLe(encoder, contrast, Array.from({ length: 8 }, () => "only"));
  assert.throws(
    () => method.order(8, 4, new Random(0, "order")),
    (error) =>
      error instanceof UserError && /one patient has 8 .* an epoch has 2 steps/.test(error.message),
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
