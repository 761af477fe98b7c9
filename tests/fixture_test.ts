import assert from "node:assert/strict";
import type { SafeTensor, Safetensors } from "../src/formats/safetensors.ts";
import { differences } from "./reference/run.ts";
import { Fixture, FIXTURES, readFixture } from "./support/fixture.ts";

Deno.test("the fixtures name script, torch version and seed, and hold at most 5 MB together", async () => {
  let bytes = 0;
  for (const { name } of Deno.readDirSync(FIXTURES)) {
    const content = await Deno.readFile(new URL(name, FIXTURES));
    bytes += content.length;
    if (name.endsWith(".pth")) continue;
    const { script, torch, seed } = new Fixture(name, content).metadata;
    assert.ok(Deno.statSync(new URL(`../${script}`, import.meta.url)).isFile, name);
    assert.match(torch!, /^\d+\.\d+/, name);
    assert.match(seed!, /^\d+$/, name);
  }
  assert.ok(bytes <= 5_000_000, `${bytes} bytes`);
});

Deno.test("a Fixture gives tensors and options by name and refuses what is not there", async () => {
  const fixture = await readFixture("conv2d");
  assert.ok(fixture.cases().includes("k3_stride2_odd"));
  assert.deepEqual(fixture.tensor("k3_stride2_odd.x").shape, [2, 7, 9, 8]);
  assert.equal(fixture.tensor("k3_stride2_odd.x").data.length, 2 * 7 * 9 * 8);
  assert.equal(fixture.integer("k3_stride2_odd.stride"), 2);
  assert.deepEqual(
    fixture.names("k3_bias.d").sort(),
    ["db", "dw", "dx", "dy"].map((n) => `k3_bias.${n}`),
  );
  assert.ok(fixture.has("k3_bias.b") && !fixture.has("k3.b"));
  assert.throws(() => fixture.tensor("k3.b"), /fixture conv2d: there is no k3\.b/);
  assert.throws(() => fixture.tensor("k3.stride"), /k3\.stride is I64, not F32/);
  assert.throws(() => fixture.integers("k3.x"), /k3\.x is F32, not I64/);
  assert.throws(() => fixture.scalar("k3.x"), /k3\.x has 240 elements, not 1/);
});

Deno.test("differences() passes rounding and reports values, shapes, names and seeds", () => {
  const file = (tensors: Record<string, SafeTensor>, seed = "1"): Safetensors => ({
    tensors: new Map(Object.entries(tensors)),
    metadata: { script: "x.py", torch: "2", seed },
  });
  const floats = (...values: number[]): SafeTensor => ({
    dtype: "F32",
    shape: [values.length],
    data: new Float32Array(values),
  });
  const integers = (...values: bigint[]): SafeTensor => ({
    dtype: "I64",
    shape: [values.length],
    data: new BigInt64Array(values),
  });
  const committed = file({ a: floats(1, 1e-9, NaN), n: integers(2000n) });
  const change = (tensors: Record<string, SafeTensor>) =>
    differences(committed, file({ a: floats(1, 1e-9, NaN), n: integers(2000n), ...tensors }));

  assert.deepEqual(change({ a: floats(1 + 5e-7, 2e-9, NaN) }), []);
  assert.match(change({ a: floats(1 + 3e-6, 1e-9, NaN) })[0]!, /a at 0 is 1, now 1\.00000/);
  assert.match(change({ a: floats(1, 1e-9, 0) })[0]!, /a at 2 is NaN, now 0/);
  assert.match(change({ a: floats(1, NaN, NaN) })[0]!, /a at 1/);
  assert.match(change({ a: floats(1, 1e-9) })[0]!, /a is F32 \[3\], now F32 \[2\]/);
  assert.match(change({ n: integers(2001n) })[0]!, /n at 0 is 2000, now 2001/);
  assert.match(change({ b: floats(1) })[0]!, /b is not in the committed file/);
  assert.deepEqual(differences(committed, file({ n: integers(2000n) }, "2")), [
    "metadata seed is 1, now 2",
    "a is no longer written",
  ]);
});
