import assert from "node:assert/strict";
import { backward, noGrad, record } from "../src/autograd.ts";
import { UserError } from "../src/errors.ts";
import { type SafeTensor, toFloat32 } from "../src/formats/safetensors.ts";
import { ModelState } from "../src/nn/model_state.ts";
import { ResNet, type ResNetOptions } from "../src/nn/resnet.ts";
import { relativeError } from "./support/assert.ts";
import { type Fixture, readFixture } from "./support/fixture.ts";
import { gpu, randomArray, randomTensor } from "./support/op.ts";

const small: ResNetOptions = { arch: "resnet18", width: 8, stem: "7x7", channels: 3 };

/** The float tensors of a fixture whose names begin with `prefix`, by the rest of the name. */
function part(fixture: Fixture, prefix: string): Map<string, SafeTensor> {
  return new Map(
    fixture.names(prefix).filter((name) => !name.endsWith("num_batches_tracked")).map((name) => {
      const { shape, data } = fixture.tensor(name);
      return [
        name.slice(prefix.length),
        { dtype: "F32", shape, data: data as Float32Array<ArrayBuffer> },
      ];
    }),
  );
}

for (const stem of ["7x7", "3x3"] as const) {
  Deno.test(`ResNet with stem ${stem} follows torchvision through a training step`, async () => {
    const fixture = await readFixture(`resnet18_${stem}`);
    const x = fixture.tensor("x");
    const channels = x.shape[3] as 1 | 3;
    const encoder = new ResNet({ ...small, stem, channels });
    const state = new ModelState(gpu, encoder);
    const initial = await state.arrays();
    const statistics = [...initial].filter(([name]) => name.includes("running_"));
    await state.load(new Map([...statistics, ...part(fixture, "param.")]), "fixture");

    const images = gpu.tensor(x.data, x.shape);
    const dy = fixture.tensor("dy");
    const h = gpu.step(() => {
      state.zeroGrad();
      const features = encoder.forward(images);
      const copy = gpu.empty(features.shape);
      gpu.copy(features, copy);
      const upstream = gpu.tensor(dy.data, dy.shape);
      backward(record("upstream", [features], gpu.zeros([]), [], () => [upstream]));
      return copy;
    });
    assert.ok(relativeError(await h.data(), fixture.tensor("h").data) < 1e-4, "features");
    const gradients = await state.arrays(state.gradients);
    for (const [name, expected] of part(fixture, "grad.")) {
      const error = relativeError(toFloat32(gradients.get(name)!), toFloat32(expected));
      assert.ok(error <= 1e-4, `gradient of ${name}: relative error ${error}`);
    }
    const after = await state.arrays();
    for (const [name, expected] of part(fixture, "buffer.")) {
      const error = relativeError(toFloat32(after.get(name)!), toFloat32(expected));
      assert.ok(error <= 1e-4, `${name}: relative error ${error}`);
    }
    assert.equal(after.get("bn1.num_batches_tracked")!.data[0], 1n);

    encoder.train(false);
    const evaluated = gpu.step(() => noGrad(() => encoder.forward(images)));
    const error = relativeError(await evaluated.data(), fixture.tensor("eval_h").data);
    assert.ok(error <= 1e-4, `evaluation: relative error ${error}`);
  });
}

Deno.test("ResNet names and shapes are torchvision's", async () => {
  const arrays = await new ModelState(gpu, new ResNet({ ...small, arch: "resnet50" })).arrays();
  assert.deepEqual(arrays.get("conv1.weight")!.shape, [8, 3, 7, 7]);
  assert.deepEqual(arrays.get("layer1.0.downsample.0.weight")!.shape, [32, 8, 1, 1]);
  assert.deepEqual(arrays.get("layer4.2.conv3.weight")!.shape, [256, 64, 1, 1]);
  assert.deepEqual(arrays.get("layer4.2.bn3.running_var")!.shape, [256]);
  assert.deepEqual(arrays.get("layer3.5.bn2.num_batches_tracked")!.shape, []);
  // 161 tensors with gradients in ResNet-50, two of them of the fc; 53 norms with three statistics.
  assert.equal(arrays.size, 159 + 3 * 53);
});

Deno.test("ModelState initialises as PyTorch does, by seed and name alone", async () => {
  const values = async (seed: number) => {
    const encoder = new ResNet({ ...small, width: 32 });
    return (await new ModelState(gpu, encoder, { seed }).arrays()).get("layer2.0.conv2.weight")!;
  };
  const [first, again, other] = [await values(3), await values(3), await values(4)];
  assert.deepEqual(first.data, again.data);
  assert.notDeepEqual(first.data, other.data);
  const data = toFloat32(first);
  const std = Math.sqrt(data.reduce((sum, v) => sum + v * v, 0) / data.length);
  const expected = Math.sqrt(2 / (64 * 9));
  assert.ok(Math.abs(std / expected - 1) < 0.02, `standard deviation ${std}, He: ${expected}`);
});

Deno.test("ModelState.load() lists what does not fit, and changes nothing", async () => {
  const state = new ModelState(gpu, new ResNet(small));
  const before = await state.values.data();
  const refuse = (arrays: ReadonlyMap<string, SafeTensor>, message: string) =>
    assert.rejects(state.load(arrays, "weights.safetensors"), new UserError(message));
  const narrow = await new ModelState(gpu, new ResNet({ ...small, width: 4 }), { seed: 1 })
    .arrays();
  const arrays = await new ModelState(gpu, new ResNet(small), { seed: 1 }).arrays();
  arrays.set("conv1.weight", narrow.get("conv1.weight")!);
  arrays.delete("bn1.weight");
  arrays.set("fc.weight", arrays.get("bn1.bias")!);
  const problems = [
    "conv1.weight is [4,3,7,7], the model has [8,3,7,7]",
    "missing bn1.weight [8]",
    "unknown fc.weight [8]",
  ];
  await refuse(arrays, `weights.safetensors does not fit the model: ${problems.join("; ")}`);
  // Of many, the first five.
  await refuse(
    narrow,
    "weights.safetensors does not fit the model: " + [
      "conv1.weight is [4,3,7,7], the model has [8,3,7,7]",
      ...["weight", "bias", "running_mean", "running_var"].map((name) =>
        `bn1.${name} is [4], the model has [8]`
      ),
      `and ${narrow.size - 20 - 5} more`,
    ].join("; "),
  );
  assert.deepEqual(await state.values.data(), before);
});

Deno.test("ModelState.arrays() → load() keeps every bit", async () => {
  const from = new ModelState(gpu, new ResNet(small), { seed: 5 });
  const to = new ModelState(gpu, new ResNet(small), { seed: 6 });
  await to.load(await from.arrays(), "arrays");
  assert.deepEqual(await to.values.data(), await from.values.data());
  assert.deepEqual(await to.statistics.data(), await from.statistics.data());
});

Deno.test("ResNet in evaluation gives each image the same features in any batch", async () => {
  const encoder = new ResNet(small).train(false);
  new ModelState(gpu, encoder);
  const x = randomTensor([3, 40, 40, 3], "images");
  const forward = async (images: typeof x) =>
    await gpu.step(() => noGrad(() => encoder.forward(images))).data();
  const all = await forward(x);
  const last = (await x.data()).slice(2 * 40 * 40 * 3);
  const one = await forward(gpu.tensor(last, [1, 40, 40, 3]));
  assert.ok(relativeError(one, all.slice(2 * 64)) < 1e-5);
});

Deno.test("ResNet: a step leaves the pool as it found it, and makes nothing new on the GPU", () => {
  const encoder = new ResNet(small);
  const state = new ModelState(gpu, encoder);
  const x = randomTensor([4, 32, 32, 3], "images");
  const step = () =>
    gpu.step(() => {
      state.zeroGrad();
      const h = encoder.forward(x);
      backward(record("upstream", [h], gpu.zeros([]), [], () => [h]));
    });
  step();
  const { live, allocated } = gpu.memory;
  const made: string[] = [];
  const device = GPUDevice.prototype;
  const { createBuffer, createBindGroup, createComputePipeline } = device;
  device.createBuffer = function (it) {
    made.push("buffer");
    return createBuffer.call(this, it);
  };
  device.createBindGroup = function (it) {
    made.push(`bind group of ${it.label}`);
    return createBindGroup.call(this, it);
  };
  device.createComputePipeline = function (it) {
    made.push(`pipeline of ${it.label}`);
    return createComputePipeline.call(this, it);
  };
  try {
    for (let i = 0; i < 5; i++) step();
  } finally {
    Object.assign(device, { createBuffer, createBindGroup, createComputePipeline });
  }
  assert.deepEqual(made, []);
  assert.equal(gpu.memory.live, live);
  assert.equal(gpu.memory.allocated, allocated);
});

Deno.test("ResNet that recomputes gives the same bits in less memory", async () => {
  const images = randomTensor([8, 32, 32, 3], "images");
  const upstream = randomArray([8, 64], "upstream");
  const run = async (recompute: boolean) => {
    const encoder = new ResNet(small);
    encoder.recompute = recompute;
    const state = new ModelState(gpu, encoder);
    const { live } = gpu.memory;
    // What is kept for the backward is most of what is live at its start.
    let kept = 0;
    for (let step = 0; step < 2; step++) {
      gpu.step(() => {
        const dy = gpu.tensor(upstream, [8, 64]);
        state.zeroGrad();
        const h = encoder.forward(images);
        kept = gpu.memory.live - live;
        backward(record("upstream", [h], gpu.zeros([]), [], () => [dy]));
      });
    }
    assert.equal(gpu.memory.live, live);
    const gradients = await state.gradients.data();
    return { kept, gradients, arrays: await state.arrays() };
  };
  const [whole, part] = [await run(false), await run(true)];
  assert.deepEqual(part.gradients, whole.gradients);
  assert.deepEqual(part.arrays, whole.arrays);
  assert.ok(part.kept < 0.4 * whole.kept, `${part.kept} of ${whole.kept} bytes`);
});
