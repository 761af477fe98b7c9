import assert from "node:assert/strict";
import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { backward } from "../src/autograd.ts";
import type { Dataset, Example } from "../src/data/dataset.ts";
import { decodeAll } from "../src/data/decode/decode_all.ts";
import { openDataset } from "../src/data/open.ts";
import { samplePatients } from "../src/data/operations.ts";
import { UserError } from "../src/errors.ts";
import {
  createOptimizers,
  finetune,
  type FinetuneConfig,
  type FinetuneData,
} from "../src/finetune.ts";
import {
  chooseLoss,
  type FinetuneSplits,
  finetuneSplits,
  isSingleLabel,
  labelBalance,
  labelProblems,
  positiveWeights,
} from "../src/finetune_data.ts";
import { Classifier, lossFunction, lossNames } from "../src/methods/supervised.ts";
import { ModelState } from "../src/nn/model_state.ts";
import { RunFolder } from "../src/run_folder.ts";
import { assertClose } from "./support/assert.ts";
import { withFiles } from "./support/files.ts";
import { readFixture } from "./support/fixture.ts";
import { gpu, randomTensor } from "./support/op.ts";

/** Examples with these labels; two images a patient. */
function study(labels: readonly string[], rows: readonly (readonly number[])[], split = "train") {
  const examples = rows.map((values, i): Example => ({
    id: `${split}-${i}`,
    split: split as Example["split"],
    patient: `${split} ${i >> 1}`,
    source: null,
    view: null,
    license: null,
    file: null,
    labels: Float32Array.from(values),
  }));
  const dataset: Dataset = {
    spec: "a study",
    labels,
    examples,
    load: () => Promise.reject(new Error("no pixels")),
  };
  return dataset;
}

/** All of a study, to train and to validate on. */
function both(dataset: Dataset): FinetuneSplits {
  const all = [...dataset.examples.keys()];
  return { dataset, train: all, val: all, apart: [] };
}

Deno.test("20 steps of fine-tuning follow PyTorch", async () => {
  const fixture = await readFixture("finetune");
  const x = fixture.tensor("x");
  const targets = fixture.tensor("targets");
  const options = { arch: "resnet18", width: 4, stem: "3x3", channels: 1 } as const;
  const model = new Classifier(options, targets.shape[1]!);
  const state = new ModelState(gpu, model);
  const arrays = await state.arrays();
  for (const name of fixture.names("param.")) {
    const short = name.slice("param.".length);
    const { shape, data } = fixture.tensor(name);
    arrays.set(short.startsWith("fc.") ? short : `encoder.${short}`, {
      dtype: "F32",
      shape,
      data: data as Float32Array<ArrayBuffer>,
    });
  }
  await state.load(arrays, "the fixture");
  const optimizers = createOptimizers(state, { layerDecay: 1, weightDecay: 0.05, freeze: false });
  const loss = lossFunction(gpu, {
    loss: "bce",
    posWeight: [...fixture.tensor("posWeight").data],
    labelSmoothing: 0,
  });
  const expected = fixture.tensor("losses").data;
  const losses: number[] = [];
  const [images, batch] = [x.shape[0]!, 8];
  for (let step = 0; step < expected.length; step++) {
    const start = batch * step % images;
    const part = ({ shape, data }: typeof x) => {
      const width = data.length / shape[0]!;
      return gpu.tensor(data.subarray(start * width, (start + batch) * width), [
        batch,
        ...shape.slice(1),
      ]);
    };
    const value = gpu.step(() => {
      const [views, labels] = [part(x), part(targets)];
      state.zeroGrad();
      const value = loss(model.forward(views), labels);
      backward(value);
      for (const { optimizer, scale } of optimizers) optimizer.step(3e-4 * scale);
      return value;
    });
    losses.push((await value.data())[0]!);
    value.dispose();
  }
  // PyTorch in f32 strays as far as 3e-5 from itself in f64, and at a rate of 1e-3 as far as 1e-3.
  assertClose(losses, expected, { atol: 1e-4 }, "losses");
  // The same images, four passes later.
  assert.ok(losses[16]! < 0.7 * losses[0]!, `it learns: ${losses}`);
});

Deno.test("every loss falls, with an image that has no label", async () => {
  const options = { arch: "resnet18", width: 4, stem: "3x3", channels: 1 } as const;
  const x = randomTensor([6, 16, 16, 1], "supervised");
  const classes = [0, 1, 2, 0, 1, 2];
  const oneHot = classes.flatMap((c) => [0, 1, 2].map((label) => Number(label === c)));
  for (const loss of lossNames) {
    const isMulti = loss !== "cross-entropy";
    // The last image knows nothing.
    const targets = oneHot.map((value, i) => isMulti && i >= 15 ? NaN : value);
    const model = new Classifier(options, 3);
    const state = new ModelState(gpu, model, { seed: 2 });
    const optimizers = createOptimizers(state, { layerDecay: 0.7, weightDecay: 0, freeze: false });
    const compute = lossFunction(gpu, { loss, posWeight: null, labelSmoothing: 0 });
    const losses: number[] = [];
    for (let step = 0; step < 10; step++) {
      const value = gpu.step(() => {
        const labels = gpu.tensor(targets, [6, 3]);
        state.zeroGrad();
        const value = compute(model.forward(x), labels);
        backward(value);
        for (const { optimizer, scale } of optimizers) optimizer.step(3e-3 * scale);
        return value;
      });
      losses.push((await value.data())[0]!);
      value.dispose();
    }
    assert.ok(losses.at(-1)! < 0.6 * losses[0]!, `${loss}: ${losses}`);
  }
});

Deno.test("layer decay slows the stages, --freeze stops all but the head", async () => {
  const options = { arch: "resnet18", width: 4, stem: "3x3", channels: 1 } as const;
  const x = randomTensor([4, 16, 16, 1], "layer decay");
  const moved = async (layerDecay: number, freeze: boolean) => {
    const model = new Classifier(options, 2);
    const state = new ModelState(gpu, model, { seed: 1 });
    const before = await state.values.data();
    const optimizers = createOptimizers(state, { layerDecay, weightDecay: 0, freeze });
    gpu.step(() => {
      const labels = gpu.tensor([1, 0, 0, 1, 1, 0, 0, 1], [4, 2]);
      state.zeroGrad();
      backward(
        lossFunction(gpu, { loss: "bce", posWeight: null, labelSmoothing: 0 })(
          model.forward(x),
          labels,
        ),
      );
      for (const { optimizer, scale } of optimizers) optimizer.step(1e-2 * scale);
    });
    const after = await state.values.data();
    // The first step of Adam moves every value that has a gradient by the rate.
    return Object.fromEntries(state.segments.map(({ name, offset, size }) => {
      let most = 0;
      for (let i = offset; i < offset + size; i++) {
        most = Math.max(most, Math.abs(after[i]! - before[i]!));
      }
      return [name, most];
    }));
  };
  const decayed = await moved(0.5, false);
  for (
    const [name, depth] of [
      ["fc.weight", 0],
      ["fc.bias", 0],
      ["encoder.layer4.1.bn2.bias", 1],
      ["encoder.layer4.0.conv1.weight", 1],
      ["encoder.layer3.0.conv1.weight", 2],
      ["encoder.layer2.1.bn2.bias", 3],
      ["encoder.layer1.0.conv1.weight", 4],
      ["encoder.conv1.weight", 5],
      ["encoder.bn1.bias", 5],
    ] as const
  ) {
    assertClose([decayed[name]!], [1e-2 * 0.5 ** depth], { rtol: 1e-2 }, name);
  }
  const frozen = await moved(1, true);
  for (const [name, most] of Object.entries(frozen)) {
    assert.equal(most > 0, name.startsWith("fc."), name);
  }
});

Deno.test("samplePatients() keeps patients whole and the shares of labels", async () => {
  const dataset = await openDataset("phantom:n=2000");
  const { train } = finetuneSplits(dataset, { fraction: 1, seed: 0 });
  const patients = (indices: readonly number[]) =>
    new Set(indices.map((index) => dataset.examples[index]!.patient));
  const part = samplePatients(dataset, train, 0.1, 0);
  assert.ok(Math.abs(patients(part).size - 0.1 * patients(train).size) <= 1);
  const chosen = patients(part);
  assert.deepEqual(part, train.filter((index) => chosen.has(dataset.examples[index]!.patient)));
  assert.deepEqual(samplePatients(dataset, train, 0.1, 0), part);
  assert.notDeepEqual(samplePatients(dataset, train, 0.1, 1), part);
  assert.deepEqual(samplePatients(dataset, train, 1, 7), train);
});

Deno.test("samplePatients() takes its share of every combination of labels", () => {
  // 40 patients without, 20 with a and 20 with b, two images each.
  const rows = Array.from(
    { length: 160 },
    (_, i) => [Number(i >= 80 && i < 120), Number(i >= 120)],
  );
  const dataset = study(["a", "b"], rows);
  for (const seed of [0, 1, 2, 3]) {
    const part = samplePatients(dataset, [...rows.keys()], 0.1, seed);
    const [a, b] = labelBalance(dataset, part);
    assert.deepEqual([part.length, a!.positive, b!.positive], [16, 4, 4]);
  }
});

Deno.test("fraction= in a SPEC trains on the images of --label-fraction with seed 0", async () => {
  const whole = await openDataset("phantom:n=600");
  const part = await openDataset("phantom:n=600?fraction=0.1");
  const { train } = finetuneSplits(whole, { fraction: 0.1, seed: 0 });
  assert.ok(train.length > 10);
  assert.deepEqual(finetuneSplits(part, { fraction: 1, seed: 0 }).train, train);
});

Deno.test("labels with one class or none are told, and none at all is an error", () => {
  const dataset = study(["good", "always", "never", "unknown"], [
    [1, 1, 0, NaN],
    [0, 1, 0, NaN],
    [NaN, 1, NaN, NaN],
  ]);
  const splits = both(dataset);
  assert.deepEqual(labelProblems(splits), [
    "always holds for all of the 3 training images: it cannot be learnt",
    "never holds for none of the 3 training images: it cannot be learnt",
    "unknown is known of none of the 3 training images: it cannot be learnt",
    "always holds for all of the 3 validation images: it has no part in the choice",
    "never holds for none of the 3 validation images: it has no part in the choice",
    "unknown is known of none of the 3 validation images: it has no part in the choice",
  ]);
  assert.deepEqual(positiveWeights(splits), [1, 1, 1, 1]);
  assert.deepEqual(labelBalance(dataset, [0, 1, 2])[0], {
    label: "good",
    positive: 1,
    negative: 1,
    missing: 1,
  });
  const hopeless = both(study(["always"], [[1], [1]]));
  assert.throws(() => labelProblems(hopeless), (error: Error) => {
    assert.ok(error instanceof UserError);
    assert.match(error.message, /no label both holds and fails among the 2 training images/);
    return true;
  });
});

Deno.test("labels are exclusive where every image has exactly one", () => {
  const exclusive = both(study(["a", "b", "c"], [[1, 0, 0], [0, 1, 0], [0, 0, 1]]));
  const several = both(study(["a", "b", "c"], [[1, 0, 0], [0, 1, 1], [0, 0, 1]]));
  assert.deepEqual([isSingleLabel(exclusive), isSingleLabel(several)], [true, false]);
  assert.equal(isSingleLabel(both(study(["a"], [[1], [1]]))), false, "one label is no choice");
  assert.equal(chooseLoss(exclusive, undefined), "cross-entropy");
  assert.equal(chooseLoss(several, undefined), "bce");
  assert.equal(chooseLoss(exclusive, "focal"), "focal");
  assert.throws(
    () => chooseLoss(several, "cross-entropy"),
    /wants one label an image, but train-1 has 2$/,
  );
});

const config: FinetuneConfig = {
  method: "finetune",
  data: "phantom:n=64",
  arch: "resnet18",
  width: 4,
  stem: "3x3",
  channels: 1,
  imageSize: 16,
  augment: "light",
  normalization: { mean: [0.5], std: [0.25] },
  batch: 8,
  accumulate: 1,
  recompute: false,
  precision: "f32",
  epochs: 2,
  lr: 1e-3,
  weightDecay: 0.05,
  layerDecay: 1,
  freeze: false,
  labelFraction: 1,
  select: "auroc",
  loss: "bce",
  posWeight: null,
  labelSmoothing: 0,
  patience: 0,
  seed: 0,
  init: null,
};
const quiet = { compiling: () => {}, progress: () => {}, validated: () => {} };

/** The data of `config`, with at most so many validation images. */
async function decoded(validation = Infinity): Promise<FinetuneData> {
  const dataset = await openDataset(config.data);
  const splits = finetuneSplits(dataset, { fraction: 1, seed: 0 });
  const val = splits.val.slice(0, validation);
  const decode = (indices: readonly number[]) =>
    decodeAll(dataset, indices, { size: 16, channels: 1 });
  return {
    ...splits,
    val,
    images: await decode(splits.train),
    validationImages: await decode(val),
  };
}

Deno.test("finetune() without a label to choose by says so; --select loss does without", async () => {
  const data = await decoded(1);
  const never = new AbortController().signal;
  await withFiles({}, async (dir) => {
    const run = new RunFolder(dir);
    await assert.rejects(finetune(gpu, config, data, run, quiet, never), (error: Error) => {
      assert.ok(error instanceof UserError);
      assert.match(
        error.message,
        /^--select auroc: no label both holds and fails among the 1 validation images/,
      );
      return true;
    });
    const { status, best, last } = await finetune(
      gpu,
      { ...config, select: "loss" },
      data,
      run,
      quiet,
      never,
    );
    assert.equal(status, "done");
    assert.equal(last!.epoch, 2);
    assert.ok(Number.isNaN(last!.auroc));
    assert.ok(best!.loss <= last!.loss);
    // What is not defined is null in the metrics.
    const row = run.readMetrics().find(({ validation }) => validation !== undefined)!;
    assert.deepEqual(row.validation, { auroc: null, map: null });
  });
});

Deno.test("finetune() with recomputed activations gives the same bits; accumulated batches are larger steps", async () => {
  const data = await decoded();
  const never = new AbortController().signal;
  const tuned = async (changes: Partial<FinetuneConfig>) => {
    let result: { losses: unknown[]; model: Uint8Array };
    await withFiles({}, async (dir) => {
      const run = new RunFolder(dir);
      await finetune(gpu, { ...config, epochs: 1, ...changes }, data, run, quiet, never);
      const losses = run.readMetrics().flatMap(({ loss }) => loss ?? []);
      result = { losses, model: run.read("last") };
    });
    return result!;
  };
  const plain = await tuned({});
  assert.deepEqual(await tuned({ recompute: true }), plain);
  const steps = Math.floor(data.images.count / 8);
  assert.equal(plain.losses.length, steps);
  assert.equal((await tuned({ accumulate: 2 })).losses.length, Math.floor(steps / 2));
});

Deno.test("finetune() in f16 trains every stage, and validates in f32", {
  ignore: !gpu.hasHalves,
}, async () => {
  const data = await decoded();
  await withFiles({}, async (dir) => {
    const run = new RunFolder(dir);
    const changes = { precision: "f16", epochs: 1, layerDecay: 0.7, accumulate: 2 } as const;
    const never = new AbortController().signal;
    const { status, last } = await finetune(
      gpu,
      { ...config, ...changes },
      data,
      run,
      quiet,
      never,
    );
    assert.equal(status, "done");
    assert.ok(last!.loss > 0 && last!.loss < 1);
    const rows = run.readMetrics().filter(({ loss }) => loss !== undefined);
    assert.ok(rows.length > 0 && rows.every(({ loss_scale }) => loss_scale === 2 ** 15));
  });
});

Deno.test("finetune() that was stopped goes on to the same bits", async () => {
  const data = await decoded();
  for (const changes of [{ layerDecay: 0.5 }, { freeze: true, augment: "none" } as const]) {
    const whole = { ...config, ...changes, select: "loss" } as const;
    await withFiles({}, async (dir) => {
      const runs = ["whole", "parts"].map((name) => {
        mkdirSync(join(dir, name));
        return new RunFolder(join(dir, name));
      });
      const never = new AbortController().signal;
      const expected = await finetune(gpu, whole, data, runs[0]!, quiet, never);

      // Stopped within the first epoch, then after it, as if the process had ended each time.
      for (const where of ["progress", "validated"] as const) {
        const enough = new AbortController();
        const reporter = { ...quiet, [where]: () => enough.abort() };
        const outcome = await finetune(gpu, whole, data, runs[1]!, reporter, enough.signal);
        assert.equal(outcome.status, "interrupted");
        assert.equal(outcome.last?.epoch ?? 0, where === "progress" ? 0 : 1);
      }
      assert.deepEqual(await finetune(gpu, whole, data, runs[1]!, quiet, never), expected);
      const [one, other] = runs.map((run) => ({
        files: (["model", "last", "encoder", "checkpoint"] as const).map((file) => run.read(file)),
        metrics: run.readMetrics().map(({ images_per_s: _s, gpu_bytes: _b, ...rest }) => rest),
      }));
      assert.deepEqual(other, one);

      // What is done has nothing more to do.
      assert.deepEqual(await finetune(gpu, whole, data, runs[1]!, quiet, never), expected);
    });
  }
});

Deno.test("finetune() stops after the step at hand", async () => {
  await withFiles({}, async (dir) => {
    const run = new RunFolder(dir);
    const outcome = await finetune(gpu, config, await decoded(), run, quiet, AbortSignal.abort());
    assert.deepEqual(outcome, { status: "interrupted", best: null, last: null });
    assert.deepEqual(run.readMetrics().map(({ step }) => step), [1]);
    assert.ok(!run.has("model"));
  });
});

Deno.test("finetuneSplits() wants two images to train on, and some to validate on", async () => {
  const one = study(["a"], [[1]]);
  assert.throws(
    () => finetuneSplits(one, { fraction: 1, seed: 0 }),
    /^UserError: a study: 1 labelled images to train on, it takes two$/,
  );
  const many = study(["a"], [[1], [0], [1], [0]]);
  assert.throws(
    () => finetuneSplits(many, { fraction: 1e-9, seed: 0 }),
    /0 labelled images to train on \(4 before --label-fraction 1e-9\), it takes two$/,
  );
  assert.throws(
    () => finetuneSplits(many, { fraction: 1, seed: 0 }),
    /no labelled image in the val/,
  );
  // Unlabelled images take no part.
  const dataset = await openDataset("phantom:n=64");
  const { train, val } = finetuneSplits(dataset, { fraction: 1, seed: 0 });
  const splits = (indices: readonly number[]) =>
    new Set(indices.map((index) => dataset.examples[index]!.split));
  assert.deepEqual([splits(train), splits(val)], [new Set(["train"]), new Set(["val"])]);
});
