import assert from "node:assert/strict";
import { Shader } from "../src/gpu/shader.ts";
import { evaluate, unroll, UnrollError } from "../src/gpu/unroll.ts";
import { gpu, randomArray } from "./support/op.ts";

/** Text without indentation and line breaks. */
function flat(text: string): string {
  return text.replace(/\s+/g, " ").trim();
}

Deno.test("unroll() writes a marked loop out", () => {
  const source = `
    // @unroll
    for (var i = 0u; i < N; i++) {
      total += x[i];
    }
    for (var i = 0u; i < N; i++) { total += 1.0; }
  `;
  assert.equal(
    flat(unroll(source, { N: 3 })),
    "{ total += x[0u]; } { total += x[1u]; } { total += x[2u]; } " +
      "for (var i = 0u; i < N; i++) { total += 1.0; }",
  );
});

Deno.test("unroll() writes loops within loops out, the bounds of one from the other", () => {
  const source = `
    // @unroll
    for (var i: i32 = 1; i < 6; i += 2 * STEP) {
      // @unroll
      for (var j = 0; j < i; j++) { f(i, j); }
    }
  `;
  assert.equal(
    flat(unroll(source, { STEP: 2 })),
    "{ { f(1, 0); } } { { f(5, 0); } { f(5, 1); } { f(5, 2); } { f(5, 3); } { f(5, 4); } }",
  );
});

Deno.test("unroll() leaves members and longer names alone", () => {
  const source = `
    // @unroll
    for (var x = 0u; x < 1u; x++) { v.x += w[x].x + xx + x; }
  `;
  assert.equal(flat(unroll(source, {})), "{ v.x += w[0u].x + xx + 0u; }");
});

Deno.test("unroll() takes only a line of its own for a marker", () => {
  const source = "// loops marked // @unroll are written out\nfor (;;) {}\n";
  assert.equal(unroll(source, {}), source);
});

Deno.test("unroll() makes scalars of an array whose every index is constant", () => {
  const source = `fn f() {
    var a: array<vec4f, N * 2u>;
    // @unroll
    for (var i = 0u; i < N; i++) { a[i + N] = b.a[i] + vec4f(a[N - 1u - i].x); }
  } fn g(a: f32) {}`;
  assert.equal(
    flat(unroll(source, { N: 2 })),
    "fn f() { var a_0: vec4f; var a_1: vec4f; var a_2: vec4f; var a_3: vec4f; " +
      "{ a_2 = b.a[0u] + vec4f(a_1.x); } { a_3 = b.a[1u] + vec4f(a_0.x); } } fn g(a: f32) {}",
  );
});

Deno.test("unroll() keeps an array that is used as a whole or at a variable index", () => {
  for (const use of ["a[k] = 1.0;", "a[0] = 1.0; b = a;", "a[b[0]] = 1.0;"]) {
    const source = `fn f() { var a: array<f32, 4>; ${use} }`;
    assert.equal(unroll(source, {}), source);
  }
});

Deno.test("unroll() refuses what it cannot write out", () => {
  const refused = (loop: string) => {
    try {
      unroll(`// @unroll\n${loop}`, { N: 2 });
    } catch (error) {
      assert(error instanceof UnrollError);
      return error.message;
    }
    assert.fail(`expanded: ${loop}`);
  };
  assert.equal(refused("while (true) {}"), "@unroll: not a counted loop: while (true) {}");
  assert.match(refused("for (var i = 0u; i <= N; i++) {}"), /not a counted loop/);
  assert.match(refused("for (var i = 0u; i < p.n; i++) {}"), /bounds are no integer constants/);
  assert.match(refused("for (var i = 0u; i < N; i += 0u) {}"), /bounds are no integer constants/);
  assert.match(refused("for (var i = 0u; i < N; i++) { let i = 1; }"), /i is declared again/);
  assert.match(refused("for (var i = 0u; i < N; i++) { f(i);"), /unbalanced/);
});

Deno.test("evaluate() computes integer expressions of WGSL", () => {
  const constants = { N: 5, ROWS: 32 };
  for (
    const [expression, value] of [
      ["7", 7],
      ["7u + 2i * N", 17],
      ["(7 - 2) * (N + 1)", 30],
      ["ROWS / 4u % 5", 3],
      ["20 - 4 - 3", 13],
      ["1 << N", 32],
      ["ROWS >> 2", 8],
      ["M", undefined],
      ["p.n", undefined],
      ["4 / (N - 5)", undefined],
      ["(4", undefined],
      ["", undefined],
    ] as const
  ) {
    assert.equal(evaluate(expression, constants), value, expression);
  }
});

/** The results of one shader as it is and with all its loops left to the compiler. */
async function bothWays(
  name: string,
  source: string,
  run: (shader: Shader) => Promise<Float32Array>,
): Promise<[expanded: Float32Array, plain: Float32Array]> {
  const plain = source.replaceAll("// @unroll", "//");
  assert.notEqual(plain, source);
  return [await run(new Shader(name, source)), await run(new Shader(name, plain))];
}

Deno.test("an expanded kernel computes what the file says", async () => {
  const source = `
const N = 4u;
struct Params { scale: f32 }
@group(0) @binding(0) var<storage, read> x: array<vec4f>;
@group(0) @binding(1) var<storage, read_write> y: array<vec4f>;
@group(1) @binding(0) var<uniform> p: Params;
@compute @workgroup_size(64)
fn transposed(@builtin(global_invocation_id) id: vec3u) {
  var rows: array<vec4f, N>;
  // @unroll
  for (var i = 0u; i < N; i++) {
    rows[i] = p.scale * x[id.x * N + i];
  }
  // @unroll
  for (var i = 0u; i < N; i++) {
    var column: vec4f;
    // @unroll
    for (var j = 0u; j < N; j++) { column[j] = rows[j][i]; }
    y[id.x * N + i] = column;
  }
}`;
  const data = randomArray([64, 4, 4], "x");
  const x = gpu.tensor(data, [64, 4, 4]);
  const [expanded, plain] = await bothWays("transposed", source, async (shader) => {
    const y = gpu.empty([64, 4, 4]);
    gpu.run(shader.kernel("transposed"), { x, y }, { scale: 2 }, [1, 1, 1]);
    return await y.data();
  });
  const expected = data.map((_, i) => 2 * data[i - i % 16 + i % 4 * 4 + (i % 16 >> 2)]!);
  assert.deepEqual(expanded, expected);
  assert.deepEqual(plain, expected);
});

Deno.test("gemm computes the same bits expanded and unexpanded", async () => {
  const source = await Deno.readTextFile(new URL("../shaders/gemm.wgsl", import.meta.url));
  const [n, size, inner, columns] = [2, 8, 32, 20];
  const a = gpu.tensor(randomArray([n, size, size, inner], "a"), [n, size, size, inner]);
  const b = gpu.tensor(randomArray([3, 3, inner, columns], "b"), [3, 3, inner, columns]);
  const dy = gpu.tensor(randomArray([n, size, size, columns], "dy"), [n, size, size, columns]);
  const params = {
    images: n,
    source_h: size,
    source_w: size,
    result_h: size,
    result_w: size,
    kernel_h: 3,
    kernel_w: 3,
    stride: 1,
    padding: 1,
    pixel: inner,
    inner,
    columns,
    phases: 1,
    splits: 1,
    steps: 1000,
    a_batch: 0,
    b_batch: 0,
    y_batch: 0,
    y_split: 0,
    has_bias: 0,
    coefficients: 0,
  };
  const lanes = { LANES: gpu.subgroupSize };
  const families = gpu.subgroupSize === 8
    ? [
      ["", 32, lanes],
      ["_short", 64, { ...lanes, STEPS: inner / 4 }],
      ["_narrow", 64, { ...lanes, BLOCKS: 8 }],
      ["_line", 64, { ...lanes, BLOCKS: 8 }],
      ["_tile", 64, {}],
    ] as const
    : [["_tile", 64, {}]] as const;
  for (const [family, tile, constants] of families) {
    for (const product of family === "_short" ? ["image"] : ["image", "weights"]) {
      const [right, rows] = product === "image" ? [b, n * size * size] : [dy, 9 * inner];
      const tiles = Math.ceil(rows / tile);
      const [expanded, plain] = await bothWays("gemm", source, async (shader) => {
        const y = gpu.empty([rows, columns]);
        const kernel = shader.kernel(product + family, constants);
        const tensors = { a, b: right, bias: right, y };
        gpu.run(kernel, tensors, { ...params, tiles, rows: tile, shares_rows: 0 }, [tiles, 1, 1]);
        return await y.data();
      });
      assert(expanded.some((value) => value !== 0));
      assert.deepEqual(expanded, plain, product + family);
    }
  }
});
