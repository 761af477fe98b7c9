import assert from "node:assert/strict";
import {
  Adam,
  AdamW,
  constant,
  Ema,
  type FlatParameters,
  LARS,
  type Optimizer,
  type OptimizerOptions,
  SGD,
  stepDecay,
  warmupCosine,
} from "../src/optim.ts";
import { assertClose } from "./support/assert.ts";
import { readFixture } from "./support/fixture.ts";
import { gpu, randomArray } from "./support/op.ts";

const sizes = [200, 5, 64, 1, 131];
const decays = [true, false, true, false, true];

/** Parameters of odd sizes; the padding holds what a kernel's ragged end may have left there. */
function parameters(): FlatParameters {
  let total = 0;
  const segments = sizes.map((size, i) => {
    const offset = total;
    total += 64 * Math.ceil(size / 64);
    return { offset, size, decay: decays[i]! };
  });
  return {
    gpu,
    values: gpu.tensor(randomArray([total], "values")),
    gradients: gpu.tensor(randomArray([total], "gradients").map((v) => 3 * v)),
    segments,
  };
}

/** One parameter tensor of the reference, in float64. */
interface Weights {
  readonly w: Float64Array;
  readonly decay: boolean;
  readonly moments: [Float64Array, Float64Array];
}

/** An update of all tensors by their gradients at step t (from 1). */
type Rule = (all: readonly Weights[], gradients: readonly Float64Array[], t: number) => void;

const norm = (v: Float64Array) => Math.hypot(...v);

/** A rule from what it does with one value; weight decay (λ) is added to the gradient. */
function elementwise(
  lambda: number,
  rule: (w: number, g: number, m: number, v: number, t: number) => [number, number, number],
): Rule {
  return (all, gradients, t) =>
    all.forEach(({ w, decay, moments: [m, v] }, k) =>
      w.forEach((value, i) => {
        const g = gradients[k]![i]! + (decay ? lambda * value : 0);
        [w[i], m[i], v[i]] = rule(value, g, m[i]!, v[i]!, t);
      })
    );
}

/** Runs five steps on the GPU and in float64, and compares the parameters. */
async function compare(
  label: string,
  create: (p: FlatParameters) => Optimizer,
  lr: number,
  rule: Rule,
): Promise<void> {
  const p = parameters();
  const optimizer = create(p);
  const values = await p.values.data() as Float32Array;
  const cut = (flat: ArrayLike<number>) =>
    p.segments.map(({ offset, size }) => Float64Array.from(flat).slice(offset, offset + size));
  const expected = cut(values).map((w, k) => ({
    w,
    decay: decays[k]!,
    moments: [new Float64Array(w.length), new Float64Array(w.length)] as Weights["moments"],
  }));
  for (let t = 1; t <= 5; t++) {
    const gradients = randomArray([p.values.size], `${label} ${t}`);
    gpu.write(p.gradients, gradients);
    gpu.step(() => optimizer.step(lr));
    rule(expected, cut(gradients), t);
  }
  const actual = cut(await p.values.data() as Float32Array);
  expected.forEach(({ w }, k) =>
    assertClose(actual[k]!, w, { rtol: 1e-5, atol: 1e-5 }, `${label}, segment ${k}`)
  );
}

Deno.test("SGD agrees with its definition in float64", async () => {
  await compare(
    "plain",
    (p) => new SGD(p, { momentum: 0 }),
    0.1,
    elementwise(0, (w, g) => [w - 0.1 * g, 0, 0]),
  );
  for (const nesterov of [false, true]) {
    await compare(
      `nesterov ${nesterov}`,
      (p) => new SGD(p, { momentum: 0.8, nesterov, weightDecay: 0.3 }),
      0.1,
      elementwise(0.3, (w, g, m) => {
        const next = 0.8 * m + g;
        return [w - 0.1 * (nesterov ? g + 0.8 * next : next), next, 0];
      }),
    );
  }
});

Deno.test("Adam and AdamW agree with their definitions in float64", async () => {
  for (const decoupled of [false, true]) {
    const [lr, lambda, beta1, beta2] = [0.05, 0.2, 0.8, 0.95];
    const options = { weightDecay: lambda, betas: [beta1, beta2], epsilon: 1e-6 } as const;
    const inner = elementwise(decoupled ? 0 : lambda, (w, g, m, v, t) => {
      m += (1 - beta1) * (g - m);
      v += (1 - beta2) * (g * g - v);
      const step = m / (1 - beta1 ** t) / (Math.sqrt(v / (1 - beta2 ** t)) + 1e-6);
      return [w - lr * step, m, v];
    });
    await compare(
      `decoupled ${decoupled}`,
      (p) => decoupled ? new AdamW(p, options) : new Adam(p, options),
      lr,
      (all, gradients, t) => {
        if (decoupled) {
          for (const { w, decay } of all) {
            if (decay) w.forEach((value, i) => w[i] = value * (1 - lr * lambda));
          }
        }
        inner(all, gradients, t);
      },
    );
  }
});

Deno.test("LARS agrees with its definition in float64", async () => {
  const [lr, lambda, eta] = [2, 0.3, 0.02];
  await compare(
    "lars",
    (p) => new LARS(p, { weightDecay: lambda, eta }),
    lr,
    (all, gradients) =>
      all.forEach(({ w, decay, moments: [m] }, k) => {
        const g = gradients[k]!.map((value, i) => value + (decay ? lambda * w[i]! : 0));
        const trust = decay ? eta * norm(w) / norm(g) : 1;
        g.forEach((value, i) => {
          m[i] = 0.9 * m[i]! + lr * trust * value;
          w[i]! -= m[i]!;
        });
      }),
  );
});

Deno.test("LARS takes the plain step where a tensor or its gradient is zero", async () => {
  for (const zero of ["values", "gradients"] as const) {
    const p = parameters();
    gpu.clear(p[zero]);
    const before = await p.values.data() as Float32Array;
    const g = await p.gradients.data() as Float32Array;
    gpu.step(() => new LARS(p).step(0.5));
    const after = await p.values.data() as Float32Array;
    const expected = before.map((w, i) => w - 0.5 * g[i]!);
    for (const { offset, size } of p.segments) {
      assertClose(
        after.subarray(offset, offset + size),
        expected.subarray(offset, offset + size),
        { atol: 1e-6 },
        `zero ${zero}, offset ${offset}`,
      );
    }
  }
});

Deno.test("clipping scales the gradient to a global norm, and leaves a smaller one alone", async () => {
  for (const [clip, scales] of [[2.5, true], [1000, false]] as const) {
    await compare(
      `clip ${clip}`,
      (p) => new SGD(p, { momentum: 0, clip, weightDecay: 0.1 }),
      0.1,
      (all, gradients) => {
        const global = Math.hypot(...gradients.map(norm));
        assert.equal(global > clip, scales);
        const scale = Math.min(1, clip / (global + 1e-6));
        all.forEach(({ w, decay }, k) =>
          w.forEach((value, i) => {
            w[i] = value - 0.1 * (scale * gradients[k]![i]! + (decay ? 0.1 * value : 0));
          })
        );
      },
    );
  }
});

Deno.test("norms over a million parameters", async () => {
  const total = 64 * 15626;
  const gradients = randomArray([total], "many");
  const p: FlatParameters = {
    gpu,
    values: gpu.zeros([total]),
    gradients: gpu.tensor(gradients),
    segments: [{ offset: 0, size: 1_000_003, decay: true }],
  };
  gpu.step(() => new SGD(p, { momentum: 0, clip: 1 }).step(1));
  const global = Math.sqrt(gradients.subarray(0, 1_000_003).reduce((sum, g) => sum + g * g, 0));
  const expected = gradients.map((g) => -g / global);
  const values = (await p.values.data() as Float32Array).subarray(0, 1_000_003);
  assertClose(values, expected.subarray(0, 1_000_003), { rtol: 2e-6, atol: 1e-10 }, "values");
});

Deno.test("Ema follows the parameters", async () => {
  const p = parameters();
  const ema = new Ema(p, 0.75);
  const first = await p.values.data() as Float32Array;
  assert.deepEqual(await ema.values.data(), first);
  const second = randomArray([p.values.size], "second");
  gpu.write(p.values, second);
  gpu.step(() => ema.update());
  const expected = first.map((w, i) => 0.75 * w + 0.25 * second[i]!);
  assertClose(await ema.values.data(), expected, { atol: 1e-6 }, "average");
});

Deno.test("an optimiser goes on from its saved moments to the same bits", async () => {
  type Create = (p: FlatParameters, options: OptimizerOptions) => Optimizer;
  const creators: Create[] = [SGD, Adam, AdamW, LARS].map((T) => (p, options) => new T(p, options));
  for (const create of creators) {
    const options = { weightDecay: 0.1, clip: 10 };
    const p = parameters();
    const one = create(p, options);
    for (let i = 0; i < 3; i++) gpu.step(() => one.step(0.1));
    const q: FlatParameters = { ...p, values: gpu.tensor(await p.values.data() as Float32Array) };
    const other = create(q, options);
    other.load(await one.arrays(), 3);
    gpu.step(() => one.step(0.1));
    gpu.step(() => other.step(0.1));
    assert.deepEqual(await q.values.data(), await p.values.data());
  }
});

Deno.test("load() refuses missing moments by name", () => {
  const optimizer = new Adam(parameters());
  assert.throws(() => optimizer.load(new Map(), 1), /mean has no values, the model 640/);
  const short = new Map([["mean", new Float32Array(640)], ["square", new Float32Array(3)]]);
  assert.throws(() => optimizer.load(short, 1), /square has 3 values, the model 640/);
});

Deno.test("schedules follow PyTorch's", async () => {
  const fixture = await readFixture("schedule");
  for (const name of fixture.cases()) {
    const scalar = (key: string) => fixture.scalar(`${name}.${key}`);
    const integer = (key: string) => fixture.integer(`${name}.${key}`);
    const lr = scalar("lr");
    const values = Array.from(
      { length: integer("total") },
      (_, step) =>
        name.startsWith("cosine")
          ? warmupCosine(step, {
            lr,
            warmup: integer("warmup"),
            steps: integer("total"),
            minimum: scalar("minimum"),
          })
          : stepDecay(step, { lr, every: integer("every"), gamma: scalar("gamma") }),
    );
    const expected = fixture.tensor(`${name}.values`).data;
    assertClose(values, expected, { rtol: 1e-6, atol: 1e-9 }, name);
  }
  assert.equal(constant(7, { lr: 0.3 }), 0.3);
});
