import assert from "node:assert/strict";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { Gpu } from "../src/gpu/gpu.ts";
import { Precompiler } from "../src/gpu/precompiler.ts";
import { Shader } from "../src/gpu/shader.ts";
import { Stream } from "../src/gpu/stream.ts";

const gpu = await Gpu.open();
Deno.test.afterAll(() => gpu.close());

const shader = new Shader(
  "precompiled",
  `struct Params { count: u32, scale: f32 }
override POWER = 1u;
@group(0) @binding(0) var<storage, read> x: array<vec4f>;
@group(0) @binding(1) var<storage, read_write> y: array<vec4f>;
@group(1) @binding(0) var<uniform> p: Params;
@compute @workgroup_size(64)
fn scale(@builtin(global_invocation_id) id: vec3u) {
  if (id.x >= p.count) { return; }
  var value = x[id.x];
  for (var i = 0u; i < POWER; i++) { value *= p.scale; }
  y[id.x] = value;
}
`,
);
const kernels = [1, 2, 3, 4, 5, 6].map((POWER) => shader.kernel("scale", { POWER }));
const params = { count: 1, scale: 2 };

Deno.test("a slow driver is helped with what a recording is the first to use, from its end", async () => {
  const { queue } = gpu.device;
  const submit = queue.submit;
  const helped: string[][] = [];
  const compile = (fresh: readonly { label: string }[]) =>
    helped.push(fresh.map(({ label }) => label));
  const [x, y] = [gpu.tensor([1, 2, 3, 4]), gpu.empty([4])];
  gpu.flush();
  try {
    queue.submit = (commands) => {
      for (const start = performance.now(); performance.now() - start < 250;);
      submit.call(queue, commands);
    };
    const stream = new Stream(gpu.device, [{ compile }, { compile }]);
    const run = () => {
      for (const kernel of kernels) stream.dispatch(kernel, [x, y], params, [1, 1, 1], 0);
      stream.flush();
    };
    run();
    // The first is compiled before anything is slow.
    const [, b, c, d, e, f] = kernels.map(({ label }) => label);
    assert.deepEqual(helped, [[f, d, b], [e, c]]);
    run();
    assert.equal(helped.length, 2, "compiled only once");
  } finally {
    queue.submit = submit;
  }
  assert.deepEqual([...await y.data() as Float32Array], [64, 128, 192, 256]);
});

Deno.test("helpers compile every kernel without an error", async () => {
  gpu.device.pushErrorScope("validation");
  new Precompiler(gpu.device).compile(kernels);
  assert.equal(await gpu.device.popErrorScope(), null);
});

/** Compiles three kernels, for a device or as its helper, and prints how many shaders are in the cache then. */
const child = (module: (path: string) => string) =>
  `import { readdirSync } from "node:fs";
import { Gpu } from "${module("src/gpu/gpu.ts")}";
import { Precompiler } from "${module("src/gpu/precompiler.ts")}";
import { Shader } from "${module("src/gpu/shader.ts")}";
const [who, cache] = Deno.args;
const shader = new Shader("precompiled", ${JSON.stringify(shader.source)});
const kernels = [1, 2, 3].map((POWER) => shader.kernel("scale", { POWER }));
const params = ${JSON.stringify(params)};
const gpu = await Gpu.open();
if (who === "helper") {
  new Precompiler(gpu.device).compile(kernels);
} else {
  const [x, y] = [gpu.tensor([1, 2, 3, 4]), gpu.empty([4])];
  for (const kernel of kernels) gpu.run(kernel, { x, y }, params, [1, 1, 1]);
  console.log((await y.data()).join());
}
await gpu.idle();
// The driver writes files in a thread of its own.
const shaders = () =>
  readdirSync(cache, { recursive: true }).filter((path) => /[0-9a-f]{38}$/.test(path)).length;
for (let i = 0; i < 100 && shaders() < 3; i++) await new Promise((done) => setTimeout(done, 50));
console.log(shaders());
gpu.close();
`;

Deno.test({
  name: "what a helper compiles, llvmpipe finds in its cache",
  ignore: !gpu.adapter.description.includes("llvmpipe"),
  async fn() {
    const folder = await Deno.makeTempDir();
    try {
      const file = join(folder, "child.ts");
      writeFileSync(file, child((path) => new URL(`../${path}`, import.meta.url).href));
      const cache = join(folder, "cache");
      const run = async (who: string) => {
        const { code, stdout, stderr } = await new Deno.Command("deno", {
          args: ["run", "-q", "--no-prompt", "--allow-read", file, who, cache],
          env: { MESA_SHADER_CACHE_DIR: cache },
        }).output();
        assert.equal(code, 0, new TextDecoder().decode(stderr));
        return new TextDecoder().decode(stdout);
      };
      assert.equal(await run("helper"), "3\n");
      assert.equal(await run("device"), "8,16,24,32\n3\n");
    } finally {
      await Deno.remove(folder, { recursive: true });
    }
  },
});
