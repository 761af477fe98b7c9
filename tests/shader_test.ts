import assert from "node:assert/strict";
import { foldGroups, grid1d, Shader } from "../src/gpu/shader.ts";
import { gpu } from "./support/op.ts";

const source = `// A file with two entry points.
// @compile scale WIDTH=4 FACTOR=3
// @compile total WIDTH=8
const WIDTH = 2u;
const TWICE = 2u * WIDTH;
override FACTOR: u32 = 1u;

struct Params {
  n: u32, // how many
  shift: i32,
  scale: f32,
}

@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read_write> y: array<f32>;
@group(0) @binding(0) var<storage, read> pairs: array<vec2f>;
@group(1) @binding(0) var<uniform> p: Params;

/* fn unseen() { x[0] } */
fn factor(i: u32) -> f32 {
  return p.scale * f32(FACTOR) * x[i];
}

fn pair(i: u32) -> vec2f {
  return pairs[i];
}

@compute @workgroup_size(64)
fn scale(@builtin(global_invocation_id) id: vec3u) {
  // @unroll
  for (var k = 0u; k < TWICE; k++) {
    let i = id.x * TWICE + k;
    if (i < p.n) {
      y[i] = factor(i) + f32(p.shift);
    }
  }
}

@compute @workgroup_size(1) fn total() {
  y[0] = subgroupAdd(pair(0u).x) + f32(WIDTH);
}
`;

Deno.test("Shader finds what each entry point binds, through the functions it calls", () => {
  const shader = new Shader("two", source);
  assert.deepEqual(shader.entries, ["scale", "total"]);
  const scale = shader.kernel("scale");
  assert.deepEqual(scale.bindings, [
    { name: "x", binding: 0, writable: false },
    { name: "y", binding: 1, writable: true },
  ]);
  assert.deepEqual(scale.fields, [
    { name: "n", type: "u32" },
    { name: "shift", type: "i32" },
    { name: "scale", type: "f32" },
  ]);
  assert.equal(scale.usesSubgroups, false);
  const total = shader.kernel("total");
  assert.deepEqual(total.bindings.map(({ name }) => name), ["pairs", "y"]);
  assert.deepEqual(total.fields, []);
  assert.equal(total.usesSubgroups, true);
});

Deno.test("Shader compiles only what an entry point reaches, every line in its place", () => {
  const shader = new Shader("two", source);
  const scale = shader.expand({ entry: "scale", constants: {} });
  assert.match(scale, /fn factor\(/);
  assert.doesNotMatch(scale, /fn pair\(|subgroupAdd|@workgroup_size\(1\)/);
  const total = shader.expand({ entry: "total", constants: {} });
  assert.doesNotMatch(total, /fn factor\(|fn scale\(|@workgroup_size\(64\)/);
  const lineOf = (text: string) => text.split("\n").findIndex((l) => l.includes("fn total("));
  assert.equal(lineOf(total), lineOf(source));
});

Deno.test("Shader leaves out branches on constants that are not taken, and what they bind", () => {
  const text = `const MORE = 0u;
override PARTS: u32 = 1u;
@group(0) @binding(0) var<storage, read_write> y: array<f32>;
@group(0) @binding(1) var<storage, read> more: array<f32>;
@group(0) @binding(2) var<storage, read> part: array<f32>;
fn sum_of_more() -> f32 { return subgroupAdd(more[0]); }
@compute @workgroup_size(1) fn f() {
  var sum = 0.0;
  if (MORE == 1u) {
    // An if within (
    if (PARTS > 0u) { sum += sum_of_more(); }
  }
  if (PARTS != 1u) { sum += part[0]; }
  if (PARTS < 2u) { sum += 1.0; } else { sum += part[1]; }
  y[0] = sum;
}`;
  const shader = new Shader("branches", text);
  const names = (constants = {}) => shader.kernel("f", constants).bindings.map(({ name }) => name);
  assert.deepEqual(names(), ["y", "part"]);
  assert.deepEqual(names({ MORE: 1, PARTS: 3 }), ["y", "more", "part"]);
  assert.equal(shader.kernel("f").usesSubgroups, false);
  assert.equal(shader.kernel("f", { MORE: 1 }).usesSubgroups, true);
  const expanded = shader.expand({ entry: "f", constants: { PARTS: 2 } });
  assert.doesNotMatch(expanded, /sum_of_more/);
  assert.match(expanded, /part\[0\].*\n.*if \(PARTS < 2u\) .* else .*part\[1\]/);
  assert.equal(expanded.split("\n").length, text.split("\n").length);
});

Deno.test("Shader fills constants in, keeping their types", () => {
  const text = "const A = 1u;\nconst B: i32 = 2i;\nconst C : u32 = 3;\noverride D: u32 = 4u;\n" +
    "@compute @workgroup_size(1) fn f() {}";
  const shader = new Shader("constants", text);
  const constants = { A: 5, B: 6, C: 7, D: 8 };
  const expanded = shader.expand({ entry: "f", constants }).split("\n").slice(0, 4);
  assert.deepEqual(expanded, [
    "const A = 5u;",
    "const B: i32 = 6i;",
    "const C : u32 = 7;",
    "override D: u32 = 4u;",
  ]);
  assert.deepEqual(shader.overrides(constants), { D: 8 });
});

Deno.test("Shader.kernel() gives one object for one choice of constants", () => {
  const shader = new Shader("two", source);
  const kernel = shader.kernel("scale", { WIDTH: 4 });
  assert.equal(shader.kernel("scale", { WIDTH: 4 }), kernel);
  assert.notEqual(shader.kernel("scale", { WIDTH: 8 }), kernel);
  assert.equal(kernel.label, "two.scale WIDTH=4");
});

Deno.test("Shader reads the combinations that a file declares", () => {
  assert.deepEqual(new Shader("two", source).variants, [
    { entry: "scale", constants: { WIDTH: 4, FACTOR: 3 } },
    { entry: "total", constants: { WIDTH: 8 } },
  ]);
});

Deno.test("Shader names what a file does not have", () => {
  const shader = new Shader("two", source);
  assert.throws(() => shader.kernel("sum"), {
    name: "RangeError",
    message: "two.wgsl has no entry point sum (scale,total)",
  });
  assert.throws(() => shader.kernel("scale", { WIDHT: 4 }), {
    name: "RangeError",
    message: "two.wgsl declares no constant WIDHT",
  });
  // A local of that name is no constant of the module.
  assert.throws(() => shader.kernel("scale", { i: 4 }), /declares no constant i/);
  const vector = source.replace("scale: f32,", "scale: vec4f,");
  assert.throws(() => new Shader("two", vector).kernel("scale"), /Params\.scale is a vec4f/);
});

Deno.test("a kernel computes with the constants it was made with", async () => {
  const shader = new Shader("two", source);
  const x = gpu.tensor([1, 2, 3, 4, 5, 6, 7, 8]);
  for (const [constants, per] of [[{}, 4], [{ WIDTH: 4, FACTOR: 3 }, 8]] as const) {
    const y = gpu.tensor(new Float32Array(8));
    const params = { n: 7, shift: -1, scale: 0.5 };
    gpu.run(shader.kernel("scale", constants), { x, y }, params, grid1d(8 / per, 64));
    const factor = "FACTOR" in constants ? 1.5 : 0.5;
    const expected = [1, 2, 3, 4, 5, 6, 7].map((v) => v * factor - 1);
    assert.deepEqual([...await y.data()], [...expected, 0]);
  }
});

Deno.test("errors of the compiler name the line of the file, past expanded loops", async () => {
  assert.deepEqual(await gpu.check(new Shader("two", source).kernel("scale")), []);
  for (
    const [right, wrong] of [
      ["let i = id.x * TWICE + k;", "let i = id.x * TWICE + missing;"],
      ["y[i] = factor(i) + f32(p.shift);", "y[i] = factor(i) + p.shift;"],
      ["return p.scale * f32(FACTOR) * x[i];", "return p.scale *;"],
    ] as const
  ) {
    const text = source.replace(right, wrong);
    const line = text.split("\n").findIndex((code) => code.includes(wrong)) + 1;
    const [message] = await gpu.check(new Shader("two", text).kernel("scale"));
    assert.match(
      message ?? "no error",
      new RegExp(`^shaders/two\\.wgsl:${line}:\\d+: .*two\\.scale`, "s"),
    );
  }
});

Deno.test("grid1d() folds past 65 535 workgroups", () => {
  assert.deepEqual(grid1d(0, 64), [0, 0, 1]);
  assert.deepEqual(grid1d(1, 64), [1, 1, 1]);
  assert.deepEqual(grid1d(65_535 * 64, 64), [65_535, 1, 1]);
  assert.deepEqual(grid1d(65_535 * 64 + 1, 64), [32_768, 2, 1]);
  for (const groups of [1, 65_536, 131_071, 10_000_019]) {
    const [x, y, z] = foldGroups(groups);
    assert(x <= 65_535 && y <= 65_535 && z === 1);
    assert(x * y >= groups && (x - 1) * y < groups);
  }
});
