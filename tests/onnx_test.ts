import assert from "node:assert/strict";
import {
  type ClassifierFormat,
  classify,
  encodeClassifier,
  type LabelKind,
  probabilities,
} from "../src/classifier.ts";
import { ImageSet } from "../src/data/image_set.ts";
import { embed } from "../src/encoder.ts";
import { UserError } from "../src/errors.ts";
import { encodeOnnx } from "../src/formats/onnx.ts";
import { decodeSafetensors, type SafeTensor, toFloat32 } from "../src/formats/safetensors.ts";
import { Classifier } from "../src/methods/supervised.ts";
import { ModelState } from "../src/nn/model_state.ts";
import type { ResNetOptions } from "../src/nn/resnet.ts";
import { onnxModel } from "../src/onnx_model.ts";
import { Random } from "../src/random.ts";
import { version } from "../src/version.ts";
import { assertClose } from "./support/assert.ts";
import { missingOnnxRuntime, runOnnx } from "./support/onnx.ts";
import { gpu } from "./support/op.ts";
import { Message } from "./support/protobuf.ts";

const missing = await missingOnnxRuntime();
if (missing !== null) console.log(`skipped: ONNX Runtime runs what wgrad writes: ${missing}`);

const size = 32;
const labels = ["Effusion", "Größe", "c"];

/** A classifier whose running statistics are those of no data, as trained ones are, and its file. */
async function createClassifier(options: ResNetOptions, kind: LabelKind) {
  const { arch, width, channels } = options;
  const model = new Classifier(options, labels.length);
  const state = new ModelState(gpu, model, { seed: 5 });
  const random = new Random(5, `statistics of ${arch}`);
  const arrays = await state.arrays();
  for (const [name, { shape, data }] of arrays) {
    const draw = name.endsWith("running_mean") || /bn\d\.bias$/.test(name)
      ? () => 0.3 * random.normal()
      : name.endsWith("running_var")
      ? () => random.uniform(0.5, 2)
      : null;
    if (draw === null) continue;
    arrays.set(name, { dtype: "F32", shape, data: Float32Array.from(data as Float32Array, draw) });
  }
  await state.load(arrays, `${arch} of width ${width}`);
  model.train(false);
  const format: ClassifierFormat = {
    size,
    normalization: channels === 1
      ? { mean: [0.4], std: [0.2] }
      : { mean: [0.3, 0.4, 0.5], std: [0.1, 0.2, 0.3] },
    labels,
    kind,
    thresholds: [0.25, 0.5, 0.75],
    constant: [0, 1, 0],
    apart: [],
    epoch: 7,
  };
  const file = decodeSafetensors(encodeClassifier(arrays, format));
  return { model, format, arrays: file.tensors };
}

/** Three images of noise as wgrad holds them, and the first few of them as the graph takes them. */
function createImages(channels: 1 | 3) {
  const random = new Random(channels, "images for ONNX");
  const [count, area] = [3, size * size];
  const pixels = Uint8Array.from({ length: count * area * channels }, () => random.integer(256));
  const planes = (count: number) => {
    const data = new Float32Array(count * channels * area);
    for (let at = 0; at < data.length; at++) {
      const [pixel, plane] = [at % area, Math.floor(at / area)];
      const image = Math.floor(plane / channels);
      data[at] = pixels[(image * area + pixel) * channels + plane % channels]! / 255;
    }
    return { shape: [count, channels, size, size], data };
  };
  return { images: new ImageSet(gpu, { count, size, channels, pixels }), planes };
}

const cases: [ResNetOptions, LabelKind][] = [
  [{ arch: "resnet18", width: 8, stem: "7x7", channels: 1 }, "multi-label"],
  [{ arch: "resnet18", width: 4, stem: "3x3", channels: 3 }, "single-label"],
  [{ arch: "resnet34", width: 4, stem: "3x3", channels: 1 }, "single-label"],
  [{ arch: "resnet50", width: 8, stem: "7x7", channels: 3 }, "multi-label"],
  [{ arch: "resnet50", width: 4, stem: "3x3", channels: 1 }, "multi-label"],
];

for (const [options, kind] of cases) {
  const { arch, width, stem, channels } = options;
  Deno.test({
    name: `ONNX Runtime agrees on ${kind} ${arch}, width ${width}, ${stem}, channels ${channels}`,
    ignore: missing !== null,
    async fn() {
      const { model, format, arrays } = await createClassifier(options, kind);
      const { images, planes } = createImages(channels);
      const file = encodeOnnx(onnxModel(arrays, format, "model"));
      for (const count of [1, 3]) {
        const expected = await classify(model, images, [0, 1, 2].slice(0, count), format);
        assert.ok(expected.some((logit) => Math.abs(logit) > 0.01), `${expected}`);
        const outputs = await runOnnx(file, { images: planes(count) });
        const [logits, scores] = [outputs.get("logits")!, outputs.get("probabilities")!];
        assert.deepEqual([logits.shape, scores.shape], Array(2).fill([count, labels.length]));
        assertClose(logits.data, expected, { atol: 1e-4 }, "logits");
        assertClose(scores.data, probabilities(expected, format), { atol: 1e-4 }, "probabilities");
      }
      images.dispose();
    },
  });
}

Deno.test({
  name: "ONNX Runtime agrees on the features of an encoder",
  ignore: missing !== null,
  async fn() {
    const { model, format, arrays } = await createClassifier(cases[0]![0], "multi-label");
    const { images, planes } = createImages(1);
    const encoder = new Map([...arrays].filter(([name]) => !name.startsWith("fc.")));
    const { normalization } = format;
    const file = encodeOnnx(onnxModel(encoder, { size, normalization }, "encoder"));
    const outputs = await runOnnx(file, { images: planes(3) });
    assert.deepEqual([...outputs.keys()], ["features"]);
    const { shape, data } = outputs.get("features")!;
    assert.deepEqual(shape, [3, 64]);
    const expected = await embed(model.encoder, images, [0, 1, 2], { normalization });
    assertClose(data, expected, { atol: 1e-4 }, "features");
    images.dispose();
  },
});

Deno.test("an ONNX file holds torchvision's names, and all that a classifier's file says", async () => {
  const { format, arrays } = await createClassifier(cases[0]![0], "multi-label");
  const model = new Message(encodeOnnx(onnxModel(arrays, format, "model")));
  assert.deepEqual([model.integers(1), model.strings(2), model.strings(3)], [[8], ["wgrad"], [
    version,
  ]]);
  const [opset] = model.messages(8);
  assert.deepEqual([opset!.integers(2), opset!.strings(1)], [[17], []]);
  const metadata = Object.fromEntries(
    model.messages(14).map((entry) => [entry.strings(1)[0], entry.strings(2)[0]!]),
  );
  assert.equal(metadata.wgrad, version);
  assert.equal(metadata.kind, "multi-label");
  for (const key of ["labels", "thresholds", "size", "normalization", "epoch"] as const) {
    assert.deepEqual(JSON.parse(metadata[key]!), format[key]);
  }

  const [graph] = model.messages(7);
  const weights = new Map(
    graph!.messages(5).map((tensor) => [tensor.strings(8)[0]!, tensor] as const),
  );
  assert.deepEqual(
    [...weights.keys()].filter((name) => !name.startsWith("normalization.")).sort(),
    [...arrays.keys()].filter((name) => !name.endsWith("num_batches_tracked")).sort(),
  );
  for (const [name, tensor] of weights) {
    assert.deepEqual(tensor.integers(2), [1], name);
    const array = arrays.get(name);
    if (array === undefined) continue;
    assert.deepEqual(tensor.integers(1), array.shape, name);
    const raw = Uint8Array.from(tensor.bytes(9)[0]!);
    assert.deepEqual(new Float32Array(raw.buffer), toFloat32(array), name);
  }
  const described = graph!.messages(11).map((value) => {
    const [shape] = value.messages(2)[0]!.messages(1)[0]!.messages(2);
    const sizes = shape!.messages(1).map((size) => size.integers(1)[0] ?? size.strings(2)[0]);
    return [value.strings(1)[0], sizes];
  });
  assert.deepEqual(described, [["images", ["N", 1, size, size]]]);
});

Deno.test("onnxModel() names the file and the tensor that it lacks", async () => {
  const { format, arrays } = await createClassifier(cases[0]![0], "multi-label");
  const refuses = (arrays: ReadonlyMap<string, SafeTensor>, message: RegExp) =>
    assert.throws(() => onnxModel(arrays, format, "model"), (error: Error) => {
      assert.ok(error instanceof UserError);
      assert.match(error.message, message);
      return true;
    });
  arrays.delete("layer3.1.bn2.running_var");
  refuses(arrays, /^model: layer3\.1\.bn2\.running_var is missing$/);
  arrays.delete("conv1.weight");
  refuses(arrays, /^model: no ResNet-18, 34 or 50/);
});
