import assert from "node:assert/strict";
import { Random } from "../src/random.ts";
import { fuzz } from "./fuzz.ts";
import { mutate } from "./support/mutate.ts";

Deno.test("every reader makes a value or a UserError of 12 000 damaged files", async () => {
  const { cases, failures, values } = await fuzz({ cases: 12_000, seed: 1 });
  assert.deepEqual(failures, []);
  assert.ok(cases >= 12_000);
  for (const [name, count] of Object.entries(values)) {
    assert.ok(count > 0, `${name} refuses everything`);
  }
});

Deno.test("mutate() is a function of the random numbers, and damages", () => {
  const corpus = [new Uint8Array(100).map((_, i) => i), new TextEncoder().encode("a=1&b=22")];
  const make = (i: number) => mutate({ corpus, tokens: ["x"] }, new Random(0, "mutate", i));
  const mutants = Array.from({ length: 300 }, (_, i) => make(i));
  mutants.forEach((mutant, i) => assert.deepEqual(mutant, make(i)));
  const names = mutants.map((mutant) => mutant.join(","));
  const whole = corpus.map((bytes) => bytes.join(","));
  assert.ok(names.filter((name) => whole.includes(name)).length < 15);
  assert.ok(new Set(names).size > 250);
  assert.deepEqual(corpus[0], new Uint8Array(100).map((_, i) => i), "the corpus stays whole");
});
