import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import type { Dataset } from "../src/data/dataset.ts";
import { openPhantom } from "../src/data/readers/phantom.ts";
import { UserError } from "../src/errors.ts";

/** One hash over images spread over the default set, so that every finding is among them. */
async function hashOf(size: number): Promise<string> {
  const phantom = openPhantom({});
  const hash = createHash("sha256");
  for (let index = 0; index < 2000; index += 71) hash.update(await phantom.load(index, size, 1));
  return hash.digest("hex");
}

/** The columns of the label matrix. */
function columns(phantom: Dataset): number[][] {
  return phantom.labels.map((_, k) => phantom.examples.map(({ labels }) => labels[k]!));
}

const mean = (values: readonly number[]) => values.reduce((a, b) => a + b, 0) / values.length;

/** The coefficient φ: Pearson's correlation of two binary variables. */
function phi(a: readonly number[], b: readonly number[]): number {
  const [p, q] = [mean(a), mean(b)];
  return (mean(a.map((x, i) => x * b[i]!)) - p * q) / Math.sqrt(p * (1 - p) * q * (1 - q));
}

Deno.test("phantom has the same bytes on every machine", async () => {
  assert.equal(
    await hashOf(32),
    "dba155d53a1d511fceddd55d510107044c69dada106728575178878823b8cf62",
  );
  assert.equal(
    await hashOf(64),
    "b7ee3c9c1abd79854c6f4caae90acffc29562e3f6743e31168dd0a84c11140d7",
  );
});

Deno.test("phantom images do not depend on the order of loading", async () => {
  const one = openPhantom({ n: "20" });
  const forward = await Promise.all([3, 7, 11].map((i) => one.load(i, 24, 1)));
  const other = openPhantom({ n: "20" });
  const backward = await Promise.all([11, 7, 3].map((i) => other.load(i, 24, 1)));
  assert.deepEqual(forward, backward.reverse());
  assert.notDeepEqual(forward[0], forward[1]);
});

Deno.test("phantom shows the same anatomy at every size", async () => {
  const phantom = openPhantom({ n: "40" });
  for (let index = 0; index < 40; index += 4) {
    const large = await phantom.load(index, 64, 1);
    const small = await phantom.load(index, 32, 1);
    const differences = Array.from(small, (gray, i) => {
      const at = 128 * Math.floor(i / 32) + 2 * (i % 32);
      return gray - (large[at]! + large[at + 1]! + large[at + 64]! + large[at + 65]!) / 4;
    });
    const rms = Math.sqrt(mean(differences.map((d) => d * d)));
    assert.ok(rms < 10, `image ${index}: rms difference ${rms} of 255`);
  }
});

Deno.test("phantom gives gray in every channel", async () => {
  const phantom = openPhantom({ n: "3" });
  const gray = await phantom.load(2, 17, 1);
  const rgb = await phantom.load(2, 17, 3);
  assert.equal(gray.length, 17 * 17);
  assert.deepEqual(rgb, Uint8Array.from({ length: 3 * 17 * 17 }, (_, i) => gray[i / 3 | 0]!));
});

Deno.test("phantom splits by patient, about 70/10/20", () => {
  for (const seed of ["0", "1"]) {
    const { examples } = openPhantom({ seed });
    const splitOf = new Map<string, string>();
    const films = new Map<string, number>();
    for (const { patient, split } of examples) {
      assert.equal(splitOf.get(patient!) ?? split, split, `${patient} is in two splits`);
      splitOf.set(patient!, split);
      films.set(patient!, (films.get(patient!) ?? 0) + 1);
    }
    assert.deepEqual([...new Set(films.values())].sort(), [1, 2, 3, 4]);
    const count = (split: string) => [...splitOf.values()].filter((s) => s === split).length;
    assert.ok(Math.abs(count("train") / splitOf.size - 0.7) < 0.01);
    assert.ok(Math.abs(count("val") / splitOf.size - 0.1) < 0.01);
    assert.ok(Math.abs(count("test") / splitOf.size - 0.2) < 0.01);
    assert.equal(new Set(examples.map(({ id }) => id)).size, examples.length);
  }
});

Deno.test("phantom findings are independent and neither rare nor common", () => {
  for (const seed of ["0", "1", "2"]) {
    const phantom = openPhantom({ seed });
    const findings = columns(phantom);
    findings.forEach((a, k) => {
      const prevalence = mean(a);
      assert.ok(prevalence > 0.2 && prevalence < 0.4, `${phantom.labels[k]}: ${prevalence}`);
      findings.slice(0, k).forEach((b, j) => {
        const value = phi(a, b);
        assert.ok(
          Math.abs(value) < 0.1,
          `φ(${phantom.labels[k]}, ${phantom.labels[j]}) = ${value}, seed ${seed}`,
        );
      });
    });
  }
});

Deno.test("phantom: cardiomegaly is the patient's, other findings the film's", () => {
  const phantom = openPhantom({});
  const varies = phantom.labels.map((_, k) => {
    const values = new Map<string, number>();
    return phantom.examples.some(({ patient, labels }) => {
      const first = values.get(patient!) ?? labels[k]!;
      values.set(patient!, first);
      return first !== labels[k]!;
    });
  });
  assert.deepEqual(
    Object.fromEntries(phantom.labels.map((label, k) => [label, varies[k]])),
    {
      consolidation: true,
      effusion: true,
      cardiomegaly: false,
      nodule: true,
      pneumothorax: true,
      device: true,
    },
  );
});

Deno.test("phantom: a smaller n is the beginning of a larger one, another seed another set", async () => {
  const [small, large] = [openPhantom({ n: "30" }), openPhantom({ n: "70" })];
  assert.equal(small.examples.length, 30);
  assert.deepEqual(small.examples, large.examples.slice(0, 30));
  assert.deepEqual(await small.load(29, 16, 1), await large.load(29, 16, 1));
  const other = openPhantom({ n: "30", seed: "1" });
  assert.notDeepEqual(columns(other), columns(small));
  assert.notDeepEqual(await other.load(0, 16, 1), await small.load(0, 16, 1));
});

Deno.test("phantom: the spec names n and seed, with their defaults", () => {
  assert.equal(openPhantom({}).spec, "phantom:n=2000,seed=0");
  assert.equal(openPhantom({ seed: "7", n: "5" }).spec, "phantom:n=5,seed=7");
});

Deno.test("phantom refuses unknown keys and bad numbers", () => {
  const refused = (options: Record<string, string>, message: RegExp) =>
    assert.throws(
      () => openPhantom(options),
      (error) => error instanceof UserError && message.test(error.message),
    );
  refused({ size: "64" }, /no key "size"; there are n, seed/);
  refused({ n: "0" }, /n=0 is no whole number from 1 to/);
  refused({ n: "12.5" }, /n=12\.5 is no/);
  refused({ n: "ten" }, /n=ten is no/);
  refused({ n: "1000001" }, /n=1000001 is no/);
  refused({ seed: "-1" }, /seed=-1 is no/);
  refused({ seed: "4294967296" }, /seed=4294967296 is no/);
});
