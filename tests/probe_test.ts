import assert from "node:assert/strict";
import type { Dataset, Example, Split } from "../src/data/dataset.ts";
import { ImageSet } from "../src/data/image_set.ts";
import { UserError } from "../src/errors.ts";
import { knn } from "../src/knn.ts";
import { accuracy, atThresholds, auroc, macroMean, perLabel } from "../src/metrics.ts";
import {
  constantAccuracy,
  type Features,
  labelsOf,
  pixelFeatures,
  probeData,
  probeKnn,
  probeLinear,
} from "../src/probe.ts";
import { Random } from "../src/random.ts";
import { assertClose } from "./support/assert.ts";
import { gpu } from "./support/op.ts";

/** Two images of each patient, under two labels and the negation of the first. */
function dataset(splits: readonly Split[], images = 200): Dataset {
  const random = new Random(1, "probe");
  const examples = Array.from({ length: images }, (_, i): Example => {
    const [a, b] = [random.integer(2), random.uniform() < 0.2 ? NaN : random.integer(2)];
    return {
      id: `${i}`,
      split: splits[(i >> 1) % splits.length]!,
      patient: `patient ${i >> 1}`,
      source: null,
      view: null,
      license: null,
      file: null,
      labels: i === 7 ? new Float32Array(3).fill(NaN) : Float32Array.of(a, b, 1 - a),
    };
  });
  const load = () => Promise.reject(new Error("no pixels"));
  return { spec: "made up", labels: ["a", "b", "No Finding"], examples, load };
}

/** Features that show the labels through noise. */
function drawFeatures(data: ReturnType<typeof probeData>, name: string, noise: number): Features {
  const random = new Random(2, name);
  const dimensions = 8;
  const draw = (indices: readonly number[]) =>
    Float32Array.from({ length: indices.length * dimensions }, (_, i) => {
      const { labels } = data.dataset.examples[indices[Math.floor(i / dimensions)]!]!;
      return (labels[i % dimensions] || 0) + noise * random.normal();
    });
  return { name, dimensions, train: draw(data.train), val: draw(data.val), test: draw(data.test) };
}

Deno.test("probeData() takes the labelled images of each split, and says what is missing", () => {
  const set = dataset(["train", "train", "val", "test"]);
  const splitOf = (indices: readonly number[]) => [
    ...new Set(indices.map((i) => set.examples[i]!.split)),
  ];
  const data = probeData(set, "test");
  assert.deepEqual([data.train, data.val, data.test].map(splitOf), [["train"], ["val"], ["test"]]);
  assert.equal(data.test.length, 49);
  assert.deepEqual(data.apart, [{ label: "No Finding", of: "a" }]);
  const onVal = probeData(set, "val");
  assert.deepEqual(onVal.val, []);
  assert.deepEqual(splitOf(onVal.test), ["val"]);
  assert.throws(
    () => probeData(dataset(["train"]), "test"),
    new UserError("made up: no labelled image in the test split"),
  );
});

Deno.test("probeKnn() scores what kNN predicts, without the label that is apart", () => {
  const data = probeData(dataset(["train", "test"]), "test");
  const features = [drawFeatures(data, "noise", 3), drawFeatures(data, "signal", 0.4)];
  const scores = probeKnn(data, features, { k: 5, resamples: 50 });
  const targets = labelsOf(data.dataset, data.test).map((t, i) => i % 3 === 2 ? NaN : t);
  scores.forEach(({ name, auroc: area, accuracy: share, gain }, i) => {
    const { dimensions, train, test } = features[i]!;
    const labels = labelsOf(data.dataset, data.train);
    const predicted = knn(
      { values: train, dimensions, labels, classes: 3 },
      { values: test, dimensions },
      { k: 5 },
    );
    const expected = macroMean(perLabel(auroc, predicted, targets, 3)).mean;
    assert.equal(name, features[i]!.name);
    assertClose([area.estimate], [expected], { rtol: 1e-12 }, "auroc");
    assert.equal(share.estimate, accuracy(atThresholds(predicted, [0.5, 0.5, 0.5]), targets));
    assert.equal(gain.estimate, area.estimate - scores[0]!.auroc.estimate);
  });
  assert.ok(scores[1]!.gain.low > 0.1);
  assert.ok(constantAccuracy(data, 50).high < scores[1]!.accuracy.low);
});

Deno.test("probeLinear() finds what the features show, with and without a val split", () => {
  for (const splits of [["train", "val", "test"], ["train", "test"]] as const) {
    const data = probeData(dataset(splits), "test");
    const features = [drawFeatures(data, "noise", 30), drawFeatures(data, "signal", 0.4)];
    const [noise, signal] = probeLinear(data, features, { resamples: 50 });
    assert.ok(signal!.auroc.low > 0.9, `${signal!.auroc.low}`);
    assert.ok(noise!.auroc.low < 0.6);
    assert.ok(signal!.gain.low > 0.2);
    assert.ok(noise!.l2 > signal!.l2, `${noise!.l2}, ${signal!.l2}`);
  }
});

Deno.test("probeLinear() never learns from the images that it is scored on", () => {
  const data = probeData(dataset(["train", "val"]), "val");
  const features = drawFeatures(data, "noise", 30);
  const probe = (data: ReturnType<typeof probeData>) => probeLinear(data, [features])[0]!.l2;
  const examples = data.dataset.examples.map((example) =>
    example.split === "val" ? { ...example, labels: Float32Array.of(1, 1, 0) } : example
  );
  assert.equal(probe({ ...data, dataset: { ...data.dataset, examples } }), probe(data));
});

Deno.test("probeLinear() without a val split wants two patients", () => {
  const data = probeData(dataset(["train", "test"], 4), "test");
  assert.throws(
    () => probeLinear(data, [drawFeatures(data, "noise", 1)]),
    new UserError("made up: a linear probe needs a val split or training images of two patients"),
  );
});

Deno.test("pixelFeatures() are normalised pixels, shrunk where there are too many", () => {
  const set = (...levels: number[]) => {
    const pixels = Uint8Array.from(levels.flatMap((level) => new Array<number>(16).fill(level)));
    return new ImageSet(gpu, { count: levels.length, size: 4, channels: 1, pixels });
  };
  const images = { train: set(51, 255), val: set(), test: set(0) };
  const normalization = { mean: [0.5], std: [0.25] };
  const full = pixelFeatures(images, normalization);
  assert.deepEqual([full.name, full.dimensions], ["raw pixels", 16]);
  assertClose(full.train.subarray(14, 18), [-1.2, -1.2, 2, 2], { atol: 1e-6 }, "train");
  assert.deepEqual(pixelFeatures(images, normalization, { size: 9 }), full);
  const small = pixelFeatures(images, normalization, { size: 2 });
  assert.deepEqual([small.name, small.dimensions], ["raw pixels, 2²", 4]);
  assertClose(small.train, [-1.2, -1.2, -1.2, -1.2, 2, 2, 2, 2], { atol: 1e-6 }, "shrunk");
  assert.deepEqual([small.val.length, small.test.length], [0, 4]);
  for (const part of Object.values(images)) part.dispose();
});

Deno.test("deno task probe scores the baselines by both probes, or by the one that is asked for", async () => {
  const probe = async (...args: string[]) => {
    const { code, stdout, stderr } = await new Deno.Command("deno", {
      args: ["run", "-q", "-P=train", "cli.ts", "probe", ...args, "--resamples", "20"].concat(
        ["--data", "phantom:n=60", "--image-size", "16"],
      ),
      env: { NO_COLOR: "1" },
    }).output();
    assert.equal(code, 0, new TextDecoder().decode(stderr));
    return new TextDecoder().decode(stdout);
  };
  const text = await probe("--init", "none");
  assert.match(text, /kNN, k = 20 +macro AUROC/);
  assert.match(text, /logistic regression +macro AUROC/);
  assert.equal(text.match(/^untrained encoder +\d/gm)?.length, 2);
  assert.equal(text.match(/^raw pixels +\d/gm)?.length, 2);
  const result = JSON.parse(await probe("--init", "pixels", "--probe", "linear", "--json"));
  assert.equal(result.knn, undefined);
  assert.deepEqual(result.linear.scores.map(({ name }: { name: string }) => name), ["raw pixels"]);
  assert.ok(result.linear.scores[0].auroc.estimate >= 0);
});
