import assert from "node:assert/strict";
import { Gpu } from "../../src/gpu/gpu.ts";
import { compileAll } from "./shaders.ts";

const valid = `// Doubles.
// @compile double WIDTH=4
const WIDTH = 2u;
@group(0) @binding(0) var<storage, read_write> x: array<f32>;
@compute @workgroup_size(1)
fn double() {
  var sum = 0.0;
  // @unroll
  for (var i = 0u; i < WIDTH; i++) {
    sum += 1.0;
  }
  x[0] *= sum;
}
`;

Deno.test("compileAll() compiles each entry point with its declared constants", async () => {
  const gpu = await Gpu.open();
  assert.deepEqual(await compileAll(gpu, "shaders/two.wgsl", valid), {
    kernels: ["two.double", "two.double WIDTH=4"],
    problems: [],
  });
  gpu.close();
});

Deno.test("compileAll() gives file, line and column of the file, not of what is compiled", async () => {
  const gpu = await Gpu.open();
  const broken = valid.replace("x[0] *= sum;", "x[0] *= total;");
  const { problems } = await compileAll(gpu, "shaders/two.wgsl", broken);
  assert.equal(problems.length, 2);
  for (const problem of problems) {
    assert.match(problem, /^shaders\/two\.wgsl:12:11: two\.double.*total/s);
  }
  gpu.close();
});

Deno.test("compileAll() reports pipelines, constants and declarations that do not fit", async () => {
  const gpu = await Gpu.open();
  const problems = async (source: string) =>
    (await compileAll(gpu, "shaders/two.wgsl", source)).problems;
  const unbound = valid.replace("@group(0)", "@group(3)").replace("// @compile", "// compile");
  assert.match((await problems(unbound))[0]!, /^shaders\/two\.wgsl: two\.double: .*layout/s);
  assert.deepEqual(await problems(valid.replace("WIDTH=4", "DEPTH=4")), [
    "shaders/two.wgsl: two.wgsl declares no constant DEPTH",
  ]);
  assert.deepEqual(await problems(valid.replace("WIDTH=4", "WIDTH=four")), [
    "shaders/two.wgsl: 1 malformed @compile lines",
  ]);
  gpu.close();
});
