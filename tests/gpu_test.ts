import assert from "node:assert/strict";
import {
  BindingLimitError,
  DeviceLostError,
  Gpu,
  GpuError,
  NoAdapterError,
} from "../src/gpu/gpu.ts";
import { Pool } from "../src/gpu/pool.ts";
import { foldGroups, grid1d, Shader } from "../src/gpu/shader.ts";
import { accumulate, add, mul } from "../src/ops/binary.ts";
import { exp, relu } from "../src/ops/unary.ts";
import { Tensor } from "../src/tensor.ts";
import { gpu } from "./support/op.ts";

async function values(tensor: Tensor): Promise<number[]> {
  return [...await tensor.data() as Float32Array];
}

Deno.test("tensors come back as they went, in every type and at ragged lengths", async () => {
  for (const length of [1, 3, 4, 5, 17]) {
    const numbers = Array.from({ length }, (_, i) => i * 50);
    assert.deepEqual(await gpu.tensor(numbers).data(), Float32Array.from(numbers));
    assert.deepEqual(
      await gpu.tensor(Float32Array.from(numbers)).data(),
      Float32Array.from(numbers),
    );
    assert.deepEqual(await gpu.tensor(Uint32Array.from(numbers)).data(), Uint32Array.from(numbers));
    assert.deepEqual(await gpu.tensor(Uint8Array.from(numbers)).data(), Uint8Array.from(numbers));
  }
  const x = gpu.tensor([1, 2, 3, 4, 5, 6], [2, 3]);
  assert.deepEqual([x.shape, x.size, x.dtype, x.bytes], [[2, 3], 6, "f32", 32]);
  assert.deepEqual(await values(gpu.zeros([2, 2])), [0, 0, 0, 0]);
  assert.equal(await gpu.tensor([7], []).item(), 7);
  await assert.rejects(() => x.item(), /item: tensor \[2,3\] has 6 elements/);
  assert.throws(() => gpu.tensor([1, 2], [3]), /tensor: 2 values for shape \[3\]/);
});

Deno.test("the pool hands out what it got back, last in first out, by exact size", () => {
  const pool = new Pool(gpu.device);
  const [a, b, c] = [pool.acquire(100), pool.acquire(112), pool.acquire(113)];
  assert.deepEqual([a.bytes, b.bytes, c.bytes], [112, 112, 128]);
  assert.deepEqual(pool.stats, { live: 352, peak: 352, allocated: 352 });
  [a, b, c].forEach((buffer) => pool.release(buffer));
  assert.deepEqual(pool.stats, { live: 0, peak: 352, allocated: 352 });
  assert.equal(pool.acquire(112), b);
  assert.equal(pool.acquire(97), a);
  assert.equal(pool.acquire(128), c);
  assert.equal(pool.acquire(1).bytes, 16);
  assert.deepEqual(pool.stats, { live: 368, peak: 368, allocated: 368 });
  pool.release(c);
  pool.trim();
  assert.deepEqual(pool.stats, { live: 240, peak: 368, allocated: 240 });
});

Deno.test("a scope gives back what is made inside, but not what it returns", () => {
  const { live } = gpu.memory;
  const inUse = () => gpu.memory.live - live;
  const outside = gpu.empty([4]);
  gpu.scope(() => void gpu.empty([100]));
  assert.equal(inUse(), 16);
  const [first, { second }] = gpu.scope(() => {
    gpu.empty([100]);
    const third = gpu.empty([4]);
    return [gpu.empty([4]), { second: third, count: 3 }] as const;
  });
  assert.equal(inUse(), 48);
  gpu.scope(() => {
    const passed = gpu.scope(() => gpu.scope(() => gpu.empty([4])));
    assert.equal(inUse(), 64, "through two scopes");
    assert.notEqual(passed.buffer, null);
  });
  assert.equal(inUse(), 48);
  assert.throws(() => gpu.scope(() => assert.fail(`${gpu.empty([100]).shape}`)), /100/);
  assert.equal(inUse(), 48, "after an error");
  const kept = gpu.scope(() => gpu.unscoped(() => gpu.empty([4])));
  assert.equal(inUse(), 64, "made in no scope");
  for (const tensor of [outside, first, second, kept]) tensor.dispose();
  first.dispose();
  assert.equal(inUse(), 0, "disposed of, one of them twice");
});

Deno.test("a tensor that left no scope says so when it is used", async () => {
  const lost: Tensor[] = [];
  gpu.scope(() => void lost.push(gpu.tensor([1, 2])));
  assert.throws(() => relu(lost[0]!), /tensor \[2\] was released at the end of its scope/);
  await assert.rejects(() => lost[0]!.data(), /tensor \[2\] was released/);
});

Deno.test("trim() destroys free buffers, and what is in use goes on", async () => {
  const x = gpu.tensor([1, 2]);
  gpu.step(() => void exp(relu(x)));
  gpu.trim();
  assert.equal(gpu.memory.allocated, gpu.memory.live);
  assert.deepEqual(await values(gpu.step(() => mul(x, 2))), [2, 4]);
});

Deno.test("a step gets the buffers of the step before, in whichever order that gave them back", () => {
  const step = () => {
    const buffers: number[] = [];
    const make = () => void buffers.push(gpu.empty([1234]).buffer.id);
    gpu.step(() => {
      make();
      gpu.scope(make);
      gpu.scope(() => [make, make, make].forEach((make) => make()));
      make();
    });
    return buffers;
  };
  step();
  const second = step();
  assert.deepEqual(step(), second);
  assert.deepEqual(step(), second);
});

Deno.test("commands and uploads keep their order", async () => {
  const x = gpu.tensor([1, 2]);
  const doubled = mul(x, 2);
  gpu.write(x, Float32Array.of(10, 20));
  const tripled = mul(x, 3);
  const copy = gpu.empty([2]);
  gpu.copy(tripled, copy);
  gpu.clear(tripled);
  gpu.copyScalar(doubled, tripled, 1);
  assert.deepEqual(await values(doubled), [2, 4]);
  assert.deepEqual(await values(copy), [30, 60]);
  assert.deepEqual(await values(tripled), [0, 2]);
  assert.throws(() => gpu.copy(x, gpu.empty([5])), /copy: \[2\] into \[5\]/);
});

Deno.test("one step takes more commands than the ring of parameters holds", async () => {
  const y = gpu.zeros([2]);
  gpu.step(() => {
    const x = mul(gpu.one, 0.5);
    for (let i = 0; i < 5000; i++) accumulate(x, y);
  });
  assert.equal((await y.data())[0], 2500);
});

Deno.test("discard() drops what was recorded", async () => {
  const y = gpu.tensor([1]);
  gpu.flush();
  accumulate(gpu.one, y);
  gpu.discard();
  assert.deepEqual(await values(y), [1]);
});

const indexShader = new Shader(
  "index",
  `struct Params { n: u32 }
@group(0) @binding(0) var<storage, read_write> y: array<u32>;
@group(1) @binding(0) var<uniform> p: Params;
@compute @workgroup_size(1)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u) {
  let i = group.x + group.y * groups.x;
  if (i < p.n) {
    y[i] = i + 1;
  }
}
`,
);

Deno.test("a grid past 65 535 groups folds and misses none", async () => {
  assert.deepEqual(foldGroups(65535), [65535, 1, 1]);
  assert.deepEqual(foldGroups(65536), [32768, 2, 1]);
  assert.deepEqual(grid1d(0, 256), [0, 0, 1]);
  assert.deepEqual(grid1d(257, 256), [2, 1, 1]);
  const n = 70001;
  const y = gpu.empty([n], "u32");
  gpu.run(indexShader.kernel("main"), { y }, { n }, grid1d(n, 1));
  assert.deepEqual(await y.data(), Uint32Array.from({ length: n }, (_, i) => i + 1));
});

Deno.test("a dispatch that cannot be names the kernel", () => {
  const kernel = indexShader.kernel("main");
  const y = gpu.empty([4], "u32");
  assert.throws(() => gpu.run(kernel, {}, { n: 4 }, [1, 1, 1]), /index\.main: tensor y is missing/);
  assert.throws(() => gpu.run(kernel, { y }, {}, [1, 1, 1]), /index\.main: parameter n is missing/);
  assert.throws(
    () => gpu.run(kernel, { y }, { n: 4 }, [65536, 1, 1]),
    /index\.main: \[65536,1,1\] groups/,
  );
  assert.throws(() => accumulate(y, y), /binary\.accumulate: a and y, .* are in one buffer/);
  assert.throws(() => indexShader.kernel("other"), /index\.wgsl has no entry point other \(main\)/);
  assert.throws(() => indexShader.kernel("main", { N: 1 }), /index\.wgsl declares no constant N/);
});

Deno.test("an error of the GPU comes with the kernel's label, and only once", async () => {
  const x = gpu.empty([1000]);
  const misaligned = new Tensor(gpu, x.storage, [3], "f32", 4);
  gpu.step(() => void relu(misaligned));
  await assert.rejects(() => gpu.idle(), (error) => {
    assert.ok(error instanceof GpuError);
    assert.match(error.message, /offset 4/);
    assert.match(error.message, /unary\.forward OP=7/);
    return true;
  });
  await gpu.idle();
  const broken = new Shader(
    "broken",
    "@compute @workgroup_size(1)\nfn main() {\n  nothing();\n}\n",
  );
  gpu.step(() => gpu.run(broken.kernel("main"), {}, {}, [1, 1, 1]));
  await assert.rejects(() => gpu.idle(), /broken\.main[\s\S]*nothing/);
  assert.match(
    (await gpu.check(broken.kernel("main")))[0]!,
    /^shaders\/broken\.wgsl:3:3: .*nothing/s,
  );
});

Deno.test("a tensor over the binding limit is refused with the largest batch that fits", async () => {
  const limit = 1 << 20;
  const small = await Gpu.open({ limits: { maxStorageBufferBindingSize: limit } });
  const row = [16, 16, 4];
  const x = small.tensor(new Float32Array(limit / 4).fill(2), [256, ...row]);
  const y = await small.step(() => mul(x, 3)).data();
  assert.ok(y.every((v) => v === 6), "the largest tensor works to its end");
  assert.throws(() => small.empty([257, ...row]), (error) => {
    assert.ok(error instanceof BindingLimitError);
    assert.deepEqual([error.shape, error.largestFirst], [[257, ...row], 256]);
    assert.match(error.message, /\[257,16,16,4\] has 1\.0 MiB.* 1\.0 MiB .* fits is 256/);
    return true;
  });
  const twice = small.empty([2, 1, 1, 1, 1]);
  assert.throws(() => add(x, twice), /\[2,256,16,16,4\] .* first axis that fits is 1$/);
  small.close();
});

Deno.test("a lost device is a DeviceLostError, wherever it is met", async () => {
  const doomed = await Gpu.open();
  const x = doomed.tensor([1, 2]);
  doomed.device.destroy();
  await assert.rejects(() => x.data(), DeviceLostError);
  await assert.rejects(() => doomed.idle(), DeviceLostError);
  assert.throws(() => doomed.step(() => void relu(x)), DeviceLostError);
});

Deno.test("no adapter is a NoAdapterError that says what to run", async () => {
  const { gpu } = navigator;
  const original = gpu.requestAdapter;
  gpu.requestAdapter = () => Promise.resolve(null);
  try {
    await assert.rejects(() => Gpu.open(), (error) => {
      assert.ok(error instanceof NoAdapterError);
      assert.match(error.message, /deno task doctor/);
      return true;
    });
  } finally {
    gpu.requestAdapter = original;
  }
});

Deno.test("a GPU opened without subgroups works", async () => {
  const plain = await Gpu.open({ subgroups: false });
  assert.equal(plain.subgroupSize, 0);
  assert.ok(!plain.features.has("subgroups"));
  assert.deepEqual(await values(plain.step(() => mul(plain.tensor([1, 2]), 2))), [2, 4]);
  plain.close();
});

Deno.test("a profile counts calls and operations by kernel", async () => {
  const timed = await Gpu.open();
  const compiled: string[] = [];
  timed.onCompile = (label) => compiled.push(label);
  const x = timed.tensor(new Float32Array(1000));
  // What an earlier profile has left is not counted.
  timed.startProfile();
  timed.step(() => relu(x));
  const canTime = timed.startProfile();
  assert.equal(canTime, timed.features.has("timestamp-query"));
  timed.step(() => {
    for (let i = 0; i < 3; i++) relu(x);
    mul(x, 2);
  });
  assert.deepEqual(compiled, ["unary.forward OP=7", "binary.apply OP=2 A=0 B=1"]);
  const times = await timed.profile();
  timed.close();
  if (!canTime) return assert.deepEqual(times, []);
  const byLabel = new Map(times.map((time) => [time.label, time]));
  assert.equal(byLabel.size, 2);
  assert.deepEqual([byLabel.get(compiled[0]!)!.calls, byLabel.get(compiled[1]!)!.calls], [3, 1]);
  assert.equal(byLabel.get(compiled[0]!)!.bytes, 3 * 2 * 4000);
  assert.ok(times.every(({ ms }) => ms >= 0) && times.some(({ ms }) => ms > 0));
  assert.ok(times[0]!.ms >= times[1]!.ms, "longest first");
});
