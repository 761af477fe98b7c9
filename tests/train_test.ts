import assert from "node:assert/strict";
import { join } from "node:path";
import { decodeCheckpoint } from "../src/checkpoint.ts";
import { decodeAll } from "../src/data/decode/decode_all.ts";
import { indicesOf, pretrainingIndices } from "../src/data/dataset.ts";
import { decodePng } from "../src/data/decode/png.ts";
import { openDataset } from "../src/data/open.ts";
import { imageNet, readEncoderFile } from "../src/encoder.ts";
import { UserError } from "../src/errors.ts";
import { encodeSafetensors, toFloat32 } from "../src/formats/safetensors.ts";
import { Gpu } from "../src/gpu/gpu.ts";
import { foldStem } from "../src/nn/convert.ts";
import { ModelState } from "../src/nn/model_state.ts";
import { ResNet } from "../src/nn/resnet.ts";
import { RunFolder } from "../src/run_folder.ts";
import {
  type KnnScore,
  type Outcome,
  type Progress,
  type Reporter,
  train,
  type TrainConfig,
  type TrainData,
} from "../src/train.ts";
import { assertRelative } from "./support/assert.ts";
import { withFiles } from "./support/files.ts";
import { gpu } from "./support/op.ts";

/** 41 images to train on, so five steps of eight an epoch. */
const spec = "phantom:n=64";

const base: TrainConfig = {
  method: "simclr",
  data: spec,
  arch: "resnet18",
  width: 4,
  stem: "3x3",
  channels: 1,
  imageSize: 16,
  augment: "medical",
  blur: 0.5,
  normalization: { mean: [0.5], std: [0.25] },
  accumulate: 1,
  recompute: false,
  precision: "f32",
  batch: 8,
  epochs: 2,
  optimizer: "adamw",
  lr: 1e-3,
  weightDecay: 1e-4,
  warmup: 0.5,
  temperature: 0.2,
  head: "v1",
  corrupt: "noise",
  strength: 0.2,
  loss: "bce",
  kmeans: "v1",
  clusters: 4,
  clip: 0,
  ema: 0,
  knnEvery: 0,
  seed: 0,
  init: null,
};
const stepsPerEpoch = 5;

/** Decoded as `deno task train` does it. */
async function decode({ data, imageSize: size, channels }: TrainConfig): Promise<TrainData> {
  const dataset = await openDataset(data);
  const pretraining = pretrainingIndices(dataset);
  const validation = indicesOf(dataset, ["val"]);
  return {
    dataset,
    pretraining,
    images: await decodeAll(dataset, pretraining, { size, channels }),
    validation,
    validationImages: await decodeAll(dataset, validation, { size, channels }),
  };
}

const gray = await decode(base);

/** Stops the run at the first progress that `stop` wants it to. */
class Watcher implements Reporter {
  readonly scores = new Map<number, KnnScore>();
  readonly lines: string[] = [];
  readonly #stop: (progress: Progress) => boolean;
  readonly #controller = new AbortController();

  constructor(stop: (progress: Progress) => boolean) {
    this.#stop = stop;
  }
  get signal(): AbortSignal {
    return this.#controller.signal;
  }
  stage(): void {}
  compiling(): void {}
  progress(progress: Progress): void {
    if (this.#stop(progress)) this.#controller.abort();
  }
  knn(epoch: number, score: KnnScore): void {
    this.scores.set(epoch, score);
  }
  line(text: string): void {
    this.lines.push(text);
  }
}

interface Options {
  readonly data?: TrainData;
  readonly stop?: (progress: Progress) => boolean;
  readonly on?: Gpu;
}

/** Trains in a folder; again in the same folder goes on. */
async function trainIn(
  dir: string,
  changes: Partial<TrainConfig> = {},
  { data = gray, stop = () => false, on = gpu }: Options = {},
): Promise<{ run: RunFolder; outcome: Outcome; watcher: Watcher }> {
  const run = new RunFolder(dir);
  const watcher = new Watcher(stop);
  const outcome = await train(on, { ...base, ...changes }, data, run, watcher, watcher.signal);
  return { run, outcome, watcher };
}

/** Trains in a folder of its own and hands on what is left there. */
async function trained<T>(
  changes: Partial<TrainConfig>,
  look: (run: RunFolder, outcome: Outcome, watcher: Watcher) => T,
  options: Options = {},
): Promise<T> {
  let result: T;
  await withFiles({}, async (dir) => {
    const { run, outcome, watcher } = await trainIn(dir, changes, options);
    result = look(run, outcome, watcher);
  });
  return result!;
}

const encoderOf = (run: RunFolder) => run.read("encoder");
const losses = (run: RunFolder) =>
  run.readMetrics().flatMap(({ step, epoch, loss, lr, std }) =>
    loss === undefined ? [] : [{ step, epoch, loss, lr, std }]
  );

Deno.test("train() leaves metrics, a checkpoint and an encoder", async () => {
  await trained({ knnEvery: 1 }, (run, outcome, watcher) => {
    const rows = losses(run);
    assert.deepEqual(rows.map(({ step }) => step), [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]);
    assert.deepEqual(rows.map(({ epoch }) => epoch).slice(-2), [1.8, 2]);
    // Peak after half an epoch of warm-up; the rate of a step is the one it was done with.
    assert.deepEqual(rows.slice(0, 3).map(({ lr }) => lr), [4e-4, 8e-4, 1e-3]);
    for (const { loss, std } of rows) {
      assert.ok(loss! > 0.5 && loss! < 2 * Math.log(15), `loss ${loss}`);
      assert.ok(std! > 0.01 && std! < 1.1 / Math.sqrt(128), `std ${std}`);
    }
    const mean = rows.slice(5).reduce((sum, { loss }) => sum + loss! / 5, 0);
    assert.equal(outcome.status, "done");
    assert.ok(Math.abs(outcome.loss! - mean) < 1e-9);

    assert.deepEqual([...watcher.scores.keys()], [1, 2]);
    const score = watcher.scores.get(2)!;
    assert.deepEqual(run.readMetrics().at(-1), { step: 10, epoch: 2, knn: { ...score } });
    assert.ok(score.auroc > 0 && score.auroc < 1, `auroc ${score.auroc}`);

    const { step, model, ema } = decodeCheckpoint(run.read("checkpoint"), "last");
    assert.equal(step, 10);
    assert.equal(ema, null);
    const { arrays, format } = readEncoderFile(run.pathOf("encoder"));
    assert.deepEqual(format, { size: 16, normalization: base.normalization });
    assert.equal(arrays.get("bn1.num_batches_tracked")!.data[0], 10n);
    const names = [...model.keys()].filter((name) => name.startsWith("encoder."));
    assert.deepEqual([...arrays.keys()], names.map((name) => name.slice("encoder.".length)));
    for (const [name, { data }] of arrays) {
      assert.deepEqual(data, model.get(`encoder.${name}`)!.data, name);
    }
  });
});

Deno.test("train() stopped after every step goes on to the same bits", async () => {
  const changes = { ema: 0.9, clip: 1, knnEvery: 1 } as const;
  await withFiles({}, async (dir) => {
    const whole = await trainIn(join(dir, ""), changes);
    const [encoder, checkpoint] = [encoderOf(whole.run), whole.run.read("checkpoint")];
    const [metrics, scores] = [losses(whole.run), whole.run.readMetrics().filter((r) => r.knn)];
    await withFiles({}, async (dir) => {
      let steps = 0;
      for (let status = "interrupted"; status === "interrupted"; steps++) {
        const { outcome } = await trainIn(dir, changes, { stop: () => true });
        assert.equal(outcome.step, steps + 1);
        status = outcome.status;
      }
      assert.equal(steps, 2 * stepsPerEpoch);
      const run = new RunFolder(dir);
      assert.deepEqual(encoderOf(run), encoder);
      assert.deepEqual(run.read("checkpoint"), checkpoint);
      assert.deepEqual(losses(run), metrics);
      assert.deepEqual(run.readMetrics().filter((row) => row.knn), scores);
    });
  });
});

Deno.test("train() by kmeans, stopped after every step, goes on to the same bits", async () => {
  for (const kmeans of ["v1", "v2"] as const) await stopEveryStep(kmeans);
});

async function stopEveryStep(kmeans: "v1" | "v2"): Promise<void> {
  const changes = { method: "kmeans", kmeans, epochs: 3, ema: 0.9 } as const;
  const rows = (run: RunFolder) =>
    run.readMetrics().map(({ step, loss, nmi, cluster_size }) => ({
      step,
      loss,
      nmi,
      cluster_size,
    }));
  await withFiles({}, async (dir) => {
    const { run: whole } = await trainIn(dir, changes);
    const everything = (run: RunFolder) => [
      encoderOf(run),
      run.read("checkpoint"),
      run.read("samples"),
      rows(run),
    ];
    const found = everything(whole);
    // A line for each of 4 clusters, of at most 8 images.
    const { width, height } = decodePng(whole.read("samples"));
    assert.equal(height, 2 + 4 * (16 + 2));
    assert.ok(width > 2 + 16 && width <= 2 + 8 * (16 + 2), `${width}`);
    await withFiles({}, async (dir) => {
      for (let status = "interrupted"; status === "interrupted";) {
        status = (await trainIn(dir, changes, { stop: () => true })).outcome.status;
      }
      assert.deepEqual(everything(new RunFolder(dir)), found);
    });

    const begun = rows(whole).filter(({ cluster_size }) => cluster_size !== undefined);
    assert.deepEqual(begun.map(({ step }) => step), [1, 6, 11]);
    assert.deepEqual(begun.map(({ nmi }) => typeof nmi), ["undefined", "number", "number"]);
    // The head of an epoch of v1 is new, so that the loss starts at log k.
    if (kmeans === "v2") return;
    for (const { loss } of begun) assert.ok(Math.abs(loss! - Math.log(4)) < 0.25, `${loss}`);
  });
}

Deno.test("train() by kmeans learns its clusters, in memory that does not grow", async () => {
  for (const kmeans of ["v1", "v2"] as const) await learnClusters(kmeans);
});

async function learnClusters(kmeans: "v1" | "v2"): Promise<void> {
  // 22 steps an epoch: a new head needs some.
  const changes = {
    method: "kmeans",
    kmeans,
    data: "phantom:n=256",
    width: 8,
    epochs: 10,
    optimizer: "sgd",
    lr: 0.02,
    clusters: 8,
    augment: "none",
  } as const;
  const data = await decode({ ...base, ...changes });
  await trained(changes, (run) => {
    const rows = run.readMetrics();
    const perEpoch = rows.length / changes.epochs;
    const lastEpoch = rows.slice(-perEpoch).map(({ loss }) => loss!);
    const mean = lastEpoch.reduce((sum, loss) => sum + loss / perEpoch, 0);
    assert.ok(mean < 0.9 * Math.log(8), `${mean} in the last epoch`);
    const nmi = rows.map((row) => row.nmi as number).filter((value) => value !== undefined);
    assert.ok(nmi.at(-1)! > 2 * nmi[0]!, `${nmi}`);
    const bytes = rows.slice(perEpoch).map((row) => row.gpu_bytes);
    assert.equal(new Set(bytes).size, 1, `${[...new Set(bytes)]} bytes of GPU memory`);
    const stays = rows.slice(perEpoch).every(({ lr }) => lr === changes.lr);
    assert.equal(stays, kmeans === "v1", "the rate stays where the head is new");
  }, { data });
}

Deno.test("train() logs a step once, also if the run died after its checkpoint", async () => {
  await withFiles({}, async (dir) => {
    const { run } = await trainIn(dir, {}, { stop: ({ step }) => step >= 2 });
    const { step } = decodeCheckpoint(run.read("checkpoint"), "last");
    assert.ok(step < 2 * stepsPerEpoch);
    run.log({ step: step + 1, epoch: 9, loss: 9 });
    await trainIn(dir);
    assert.deepEqual(losses(run).map(({ step }) => step), [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]);
    assert.ok(losses(run).every(({ loss }) => loss! < 9));
  });
});

Deno.test("train() of a finished run changes nothing", async () => {
  await withFiles({}, async (dir) => {
    const { run } = await trainIn(dir, { epochs: 1 });
    const before = [encoderOf(run), run.read("checkpoint"), run.read("metrics")];
    const { outcome } = await trainIn(dir, { epochs: 1 });
    const { status, step, loss } = outcome;
    assert.deepEqual([status, step, loss], ["done", stepsPerEpoch, null]);
    assert.deepEqual([encoderOf(run), run.read("checkpoint"), run.read("metrics")], before);
  });
});

Deno.test("train() gives the same bits for a seed, and others for another", async () => {
  const [first, again, scored, other] = [
    await trained({ epochs: 1 }, encoderOf),
    await trained({ epochs: 1 }, encoderOf),
    await trained({ epochs: 1, knnEvery: 1 }, encoderOf),
    await trained({ epochs: 1, seed: 1 }, encoderOf),
  ];
  assert.deepEqual(again, first);
  assert.deepEqual(scored, first, "kNN scores are looked at, not trained on");
  assert.notDeepEqual(other, first);
});

Deno.test("train() starts from the encoder of --init, with a new head and a new optimiser", async () => {
  await withFiles({}, async (dir) => {
    const { run } = await trainIn(dir, { epochs: 1, seed: 5 });
    const init = run.pathOf("encoder");
    const weights = readEncoderFile(init).arrays;
    const stopped = AbortSignal.abort();
    await withFiles({}, async (dir) => {
      const run = new RunFolder(dir);
      await train(gpu, { ...base, init }, gray, run, new Watcher(() => false), stopped);
      const fresh = decodeCheckpoint(run.read("checkpoint"), "fresh");
      assert.equal(fresh.step, 0);
      for (const [name, { data }] of weights) {
        assert.deepEqual(fresh.model.get(`encoder.${name}`)!.data, data, name);
      }
      for (const [name, values] of fresh.optimizer) {
        assert.ok(values.every((value) => value === 0), `${name} starts at 0`);
      }
      const head = (checkpoint: typeof fresh) =>
        [...checkpoint.model].filter(([name]) => name.startsWith("projection."));
      const old = decodeCheckpoint(new RunFolder(join(init, "..")).read("checkpoint"), "old");
      assert.equal(head(fresh).length, head(old).length);
      assert.notDeepEqual(head(fresh), head(old));
    });
  });
});

Deno.test("train() says once that embeddings have collapsed", async () => {
  const black = { ...gray.images, pixels: new Uint8Array(gray.images.pixels.length) };
  for (const [images, times] of [[black, 1], [gray.images, 0]] as const) {
    await withFiles({}, async (dir) => {
      const watcher = new Watcher(() => false);
      const data = { ...gray, images };
      await train(gpu, base, data, new RunFolder(dir), watcher, watcher.signal);
      assert.equal(watcher.lines.length, times, watcher.lines.join());
      for (const line of watcher.lines) {
        assert.match(line, /collapsed at step 1: .* try a lower --lr/);
      }
    });
  }
});

Deno.test("train() averages from the weights of --init on", async () => {
  await withFiles({}, async (dir) => {
    const { run } = await trainIn(dir, { epochs: 1, seed: 5 });
    const init = run.pathOf("encoder");
    const before = readEncoderFile(init).arrays.get("conv1.weight")!;
    await withFiles({}, async (dir) => {
      const { run } = await trainIn(dir, { init, epochs: 1, ema: 0.9, lr: 1e-12 });
      const after = readEncoderFile(run.pathOf("encoder")).arrays.get("conv1.weight")!;
      assertRelative(toFloat32(after), toFloat32(before), 1e-5, "conv1.weight");
    });
  });
});

Deno.test("train() folds the stem of colour weights to one channel", async () => {
  const encoder = new ResNet({ ...base, channels: 3 });
  const weights = await new ModelState(gpu, encoder, { seed: 7 }).arrays();
  await withFiles({ "colour.safetensors": encodeSafetensors(weights) }, async (dir) => {
    const init = join(dir, "colour.safetensors");
    const run = new RunFolder(join(dir, "run"));
    await train(gpu, { ...base, init }, gray, run, new Watcher(() => false), AbortSignal.abort());
    const { model } = decodeCheckpoint(run.read("checkpoint"), "fresh");
    const folded = foldStem(weights, imageNet.normalization, base.normalization);
    for (const [name, { shape, data }] of folded) {
      const loaded = model.get(`encoder.${name}`)!;
      assert.deepEqual([loaded.shape, loaded.data], [shape, data], name);
    }
  });
});

Deno.test("train() refuses an encoder of another shape by name", async () => {
  await withFiles({}, async (dir) => {
    const { run } = await trainIn(dir, { epochs: 1 });
    const changes = { width: 8, init: run.pathOf("encoder") };
    await assert.rejects(trained(changes, encoderOf), (error: Error) => {
      assert.ok(error instanceof UserError);
      assert.match(error.message, /conv1\.weight is \[4,1,3,3\], the model has \[8,1,3,3\]/);
      return true;
    });
  });
});

Deno.test("train() keeps the average of the weights as the encoder where --ema asks for it", async () => {
  await trained({ epochs: 1, ema: 0.5 }, (run) => {
    const { model, ema } = decodeCheckpoint(run.read("checkpoint"), "last");
    const { arrays } = readEncoderFile(run.pathOf("encoder"));
    const weight = arrays.get("layer4.1.bn2.weight")!.data as Float32Array;
    assert.notDeepEqual(weight, model.get("encoder.layer4.1.bn2.weight")!.data);
    const at = ema!.findIndex((_, i) => weight.every((value, j) => value === ema![i + j]));
    assert.ok(at >= 0, "the encoder's weights stand in the average");
    assert.deepEqual(
      arrays.get("bn1.running_var")!.data,
      model.get("encoder.bn1.running_var")!.data,
    );
  });
});

Deno.test("train() knows head v2 and three channels", async () => {
  const changes = {
    channels: 3,
    head: "v2",
    augment: "simclr",
    stem: "7x7",
    epochs: 1,
    normalization: { mean: [0.5, 0.5, 0.5], std: [0.25, 0.25, 0.25] },
  } as const;
  const data = await decode({ ...base, ...changes });
  await trained(changes, (run) => {
    const { arrays } = readEncoderFile(run.pathOf("encoder"));
    assert.deepEqual(arrays.get("conv1.weight")!.shape, [4, 3, 7, 7]);
    const { model } = decodeCheckpoint(run.read("checkpoint"), "last");
    const linear = [...model.keys()].filter((name) =>
      /^projection\.(hidden|output)\b.*weight/.test(name)
    );
    assert.equal(linear.length, 3, `${linear}`);
    assert.ok(losses(run).every(({ loss }) => Number.isFinite(loss)));
  }, { data });
});

Deno.test("train() follows each optimiser its own way from the same first loss", async () => {
  const curves: number[][] = [];
  for (const optimizer of ["adamw", "adam", "sgd", "lars"] as const) {
    const changes = { optimizer, epochs: 1, weightDecay: 0.1, lr: 0.01 };
    curves.push(await trained(changes, (run) => losses(run).map(({ loss }) => loss!)));
  }
  assert.equal(new Set(curves.map(([first]) => first)).size, 1);
  assert.equal(new Set(curves.map((curve) => curve.at(-1))).size, 4);
  for (const curve of curves) assert.ok(curve.every((loss) => loss < 2 * Math.log(15)), `${curve}`);
});

Deno.test("train() stops at a loss that is no number, and says what to change", async () => {
  await assert.rejects(trained({ lr: 1e30 }, encoderOf), (error: Error) => {
    assert.ok(error instanceof UserError);
    assert.match(
      error.message,
      /^the loss is NaN at step \d+: try a lower --lr \(1e\+30\) or --clip 1$/,
    );
    return true;
  });
});

Deno.test("train() allocates nothing after its first steps, kNN scores included", async () => {
  const fresh = await Gpu.open();
  try {
    const bytes = await trained(
      { epochs: 8, knnEvery: 2 },
      (run) =>
        run.readMetrics().flatMap(({ step, gpu_bytes: bytes }) =>
          bytes === undefined ? [] : [[step, bytes]]
        ),
      { on: fresh },
    );
    const after = bytes.filter(([step]) => step! >= 10);
    assert.equal(after.length, 31);
    for (const [step, value] of after) {
      assert.equal(value, after[0]![1], `bytes after step ${step}, and after step 10`);
    }
  } finally {
    fresh.close();
  }
});

Deno.test("train() at the binding limit: one image more is refused, with the largest batch", async () => {
  // The largest tensor is the stem's output: two views an image, 16 × 16 pixels, 4 channels of 4 bytes.
  const perImage = 2 * 16 * 16 * 4 * 4;
  for (const [limit, largest] of [[30 * perImage, 30], [30 * perImage - 4, 29]] as const) {
    const small = await Gpu.open({ limits: { maxStorageBufferBindingSize: limit } });
    try {
      await trained({ epochs: 1, batch: largest }, (_run, outcome) => {
        assert.equal(outcome.status, "done");
      }, { on: small });
      for (const batch of [largest + 1, 41]) {
        await withFiles({}, async (dir) => {
          await assert.rejects(
            trainIn(dir, { batch }, { on: small }),
            (error: Error) => {
              assert.ok(error instanceof UserError);
              assert.match(
                error.message,
                new RegExp(
                  `^--batch ${batch}: a tensor \\[${2 * batch},.* is more than the 0.2 MiB that`,
                ),
              );
              assert.match(error.message, new RegExp(`the largest batch that fits is ${largest}$`));
              return true;
            },
          );
          assert.deepEqual([...Deno.readDirSync(dir)], [], "no step was done");
        });
      }
    } finally {
      small.close();
    }
  }
});

Deno.test("train() refuses a model that the adapter cannot hold", async () => {
  const small = await Gpu.open({ limits: { maxStorageBufferBindingSize: 2 ** 17 } });
  try {
    await assert.rejects(trained({}, encoderOf, { on: small }), (error: Error) => {
      assert.ok(error instanceof UserError);
      assert.match(
        error.message,
        /^--arch resnet18 --width 4: a tensor \[\d+\] is more than the 0\.1 MiB that/,
      );
      return true;
    });
  } finally {
    small.close();
  }
});

Deno.test("train() gives the same bits where the images do not all fit the adapter", async () => {
  const changes = {
    width: 2,
    stem: "7x7",
    imageSize: 64,
    batch: 4,
    epochs: 1,
    knnEvery: 1,
  } as const;
  const data = await decode({ ...base, ...changes });
  const small = await Gpu.open({ limits: { maxStorageBufferBindingSize: 2 ** 17 } });
  try {
    assert.ok(data.images.pixels.length > small.maxTensorBytes);
    assert.deepEqual(
      await trained(changes, encoderOf, { data, on: small }),
      await trained(changes, encoderOf, { data }),
    );
  } finally {
    small.close();
  }
});

Deno.test("train() with recomputed activations gives the same bits", async () => {
  const look = (run: RunFolder) => ({ losses: losses(run), encoder: encoderOf(run) });
  const changes = { epochs: 1 };
  assert.deepEqual(
    await trained({ ...changes, recompute: true }, look),
    await trained(changes, look),
  );
});

Deno.test("train() averages the gradients of accumulated batches", async () => {
  // With steps too small to change a weight, SGD's momentum tells the gradients of the batches.
  const changes = { optimizer: "sgd", lr: 1e-20, warmup: 0, weightDecay: 0, epochs: 1 } as const;
  // An epoch of two batches.
  const data = await decode({ ...base, data: `${spec}?split=train&limit=16` });
  const momentum = (accumulate: number, steps: number) =>
    trained({ ...changes, accumulate }, (run) => {
      const { optimizer, step } = decodeCheckpoint(run.read("checkpoint"), "checkpoint");
      assert.equal(step, steps);
      return [...optimizer.values()].flatMap((values) => [...values]);
    }, { data, stop: ({ step }) => step >= steps });
  const [first, second, both] = [
    await momentum(1, 1),
    await momentum(1, 2),
    await momentum(2, 1),
  ];
  const expected = first.map((g, i) => (g + (second[i]! - 0.9 * g)) / 2);
  assert.ok(both.some((v) => Math.abs(v) > 1e-3));
  assertRelative(both, expected, 1e-5, "momentum");
});
