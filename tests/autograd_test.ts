import assert from "node:assert/strict";
import {
  backward,
  detach,
  gradFor,
  type GradientSlot,
  isRecomputing,
  isRecording,
  keep,
  noGrad,
  recompute,
  record,
  setGradientSlot,
} from "../src/autograd.ts";
import { add, mul, sub } from "../src/ops/binary.ts";
import { crossEntropy } from "../src/ops/losses.ts";
import { linear } from "../src/ops/matmul.ts";
import { mean, sum } from "../src/ops/reduce.ts";
import { reshape, slice } from "../src/ops/shape.ts";
import { exp, relu, square } from "../src/ops/unary.ts";
import type { Tensor } from "../src/tensor.ts";
import { assertClose } from "./support/assert.ts";
import { gpu, randomArray, randomTensor } from "./support/op.ts";

function leaf(values: readonly number[]): Tensor<"f32"> {
  const tensor = gpu.tensor(values);
  tensor.requiresGrad = true;
  return tensor;
}

/** The gradient of sum(fn(…)) by each leaf. */
async function gradients(fn: (...x: Tensor[]) => Tensor, ...leaves: Tensor[]): Promise<number[][]> {
  gpu.step(() => backward(sum(fn(...leaves))));
  return await Promise.all(leaves.map(async ({ grad }) => [...await grad!.data() as Float32Array]));
}

Deno.test("backward() adds up the paths of a diamond", async () => {
  const diamond = (x: Tensor) => {
    const left = square(x);
    const right = mul(x, 3);
    return mul(left, right);
  };
  // 3x³
  assert.deepEqual(await gradients(diamond, leaf([1, 2, -1])), [[9, 36, 9]]);
  const deep = (x: Tensor) => {
    const shared = square(x);
    return add(mul(shared, shared), add(shared, x));
  };
  // x⁴ + x² + x
  assert.deepEqual(await gradients(deep, leaf([1, 2, -1])), [[7, 37, -5]]);
});

Deno.test("backward() hands an op that takes two parts of its gradient both, and the sum of more", async () => {
  const given: number[] = [];
  const twice = (x: Tensor) =>
    record("twice", [x], mul(x, 2), [], (dy, _needs, more) => {
      given.push(more === undefined ? 1 : 2);
      return [mul(more === undefined ? dy : add(dy, more), 2)];
    }, { takesTwo: true });
  const used = (times: number) => (x: Tensor) => {
    const y = twice(x);
    return Array.from({ length: times }, (_, i) => mul(y, i + 1)).reduce((a, b) => add(a, b));
  };
  for (const [times, slope] of [[1, 2], [2, 6], [3, 12]]) {
    assert.deepEqual(await gradients(used(times!), leaf([1, 2])), [[slope, slope]]);
  }
  assert.deepEqual(await gradients((x) => add(twice(x), twice(x)), leaf([3])), [[4]]);
  const same = (x: Tensor) => {
    const y = twice(x);
    return add(y, y);
  };
  assert.deepEqual(await gradients(same, leaf([5])), [[4]]);
  assert.deepEqual(given, [1, 2, 1, 1, 1, 2]);
});

Deno.test("backward() adds up what one op takes twice", async () => {
  assert.deepEqual(await gradients((x) => add(x, x), leaf([1, 2])), [[2, 2]]);
  assert.deepEqual(await gradients((x) => sub(x, x), leaf([1, 2])), [[0, 0]]);
  assert.deepEqual(await gradients((x) => mul(x, x), leaf([1, 2])), [[2, 4]]);
  const five = (x: Tensor) => [x, x, x, x].reduce((sum, x) => add(sum, x), x);
  assert.deepEqual(await gradients(five, leaf([1, 2])), [[5, 5]]);
  const inside = (x: Tensor) => five(exp(x));
  assertClose((await gradients(inside, leaf([0, 1])))[0]!, [5, 5 * Math.E], { rtol: 1e-6 }, "5eˣ");
});

Deno.test("backward() goes through views, of leaves and of results", async () => {
  const viewed = (x: Tensor) => {
    const rows = reshape(x, [2, 2]);
    return mul(reshape(mul(rows, rows), [4]), x);
  };
  assert.deepEqual(await gradients(viewed, leaf([1, 2, 3, -1])), [[3, 12, 27, 3]]);
  assert.deepEqual(await gradients((x) => reshape(x, [2, 1]), leaf([1, 2])), [[1, 1]]);
});

Deno.test("gradients are replaced by the next backward(), and no two leaves share theirs", async () => {
  const [a, b] = [leaf([1, 2]), leaf([3, 4])];
  assert.deepEqual(await gradients(add, a, b), [[1, 1], [1, 1]]);
  assert.deepEqual(await gradients((a) => mul(a, 5), a), [[5, 5]]);
  assert.deepEqual([...await b.grad!.data() as Float32Array], [1, 1]);
});

Deno.test("a leaf whose gradient is the constant 1 gets one of its own", async () => {
  const x = gpu.tensor([2], []);
  x.requiresGrad = true;
  for (let i = 0; i < 2; i++) {
    gpu.step(() => backward(reshape(x, [1])));
    assert.equal(await x.grad!.item(), 1);
  }
  assert.equal(await gpu.one.item(), 1);
});

Deno.test("backward() asks an op only for what is needed, and skips what leads nowhere", () => {
  const x = leaf([1, 2]);
  const constant = gpu.tensor([3, 4]);
  const asked: string[] = [];
  const spy = (name: string, inputs: Tensor[]) =>
    record(name, inputs, gpu.empty([2]), [], (_, needs) => {
      asked.push(`${name} ${needs}`);
      return inputs.map((input, i) => needs[i] ? gradFor(input) : null);
    });
  gpu.step(() => {
    const used = spy("used", [x, constant]);
    spy("unused", [used]);
    assert.equal(spy("constant", [constant]).node, null);
    backward(sum(spy("last", [constant, used])));
  });
  assert.deepEqual(asked, ["last false,true", "used true,false"]);
});

Deno.test("noGrad() records nothing, also where it throws inside", () => {
  const x = leaf([1, 2]);
  gpu.step(() => {
    noGrad(() => {
      assert.equal(isRecording(), false);
      noGrad(() => {});
      assert.equal(exp(x).node, null);
    });
    assert.throws(() => noGrad(() => assert.fail("inside")), /inside/);
    assert.equal(isRecording(), true);
    assert.notEqual(exp(x).node, null);
  });
});

Deno.test("detach() cuts the history", async () => {
  const fn = (x: Tensor) => mul(x, detach(mul(x, 2)));
  assert.deepEqual(await gradients(fn, leaf([1, 2])), [[2, 4]]);
});

Deno.test("backward() wants one value with a history, once", () => {
  const x = leaf([1, 2]);
  gpu.step(() => {
    assert.throws(() => backward(exp(x)), /backward: the loss has shape \[2\], not one value/);
    assert.throws(() => backward(sum(detach(x))), /backward: nothing that requires a gradient/);
    const y = exp(x);
    const loss = sum(y);
    backward(loss);
    assert.throws(() => backward(loss), /backward: sum was already walked/);
    assert.throws(
      () => backward(sum(mul(y, 2))),
      /was released at the end of its scope or by backward/,
    );
    const kept = keep(exp(x));
    backward(sum(kept));
    assert.throws(() => backward(sum(mul(kept, 2))), /backward: exp was already walked/);
  });
});

Deno.test("backward() refuses a gradient of another shape", () => {
  const x = leaf([1, 2]);
  gpu.step(() => {
    const y = record("wrong", [x], gpu.empty([]), [], () => [gpu.empty([3])]);
    assert.throws(() => backward(y), /backward: wrong gives input 0 \[2\] a gradient \[3\]/);
  });
});

Deno.test("backward() walks a tape of any depth", async () => {
  const deep = (x: Tensor) => {
    let y = x;
    for (let i = 0; i < 15000; i++) y = reshape(y, [2]);
    return y;
  };
  assert.deepEqual(await gradients(deep, leaf([1, 2])), [[1, 1]]);
});

Deno.test("keep() holds a result past backward(), which otherwise releases it", async () => {
  const x = leaf([1, 2]);
  const [kept, lost] = gpu.step(() => {
    const kept = keep(mul(x, 2));
    const lost = exp(kept);
    backward(sum(lost));
    return [kept, lost];
  });
  assert.deepEqual([...await kept!.data() as Float32Array], [2, 4]);
  await assert.rejects(() => lost!.data(), /tensor \[2\] was released/);
  kept!.dispose();
});

Deno.test("a gradient slot is overwritten first and added to then, until it is said to be unwritten", async () => {
  const flat = gpu.tensor([7, 7, 7, 7]);
  const w = leaf([1, 2, 3, 4]);
  const slot: GradientSlot = { tensor: flat, written: false };
  setGradientSlot(w, slot);
  const held = async () => [...await flat.data()];
  const step = (fn: (w: Tensor) => Tensor) => gpu.step(() => backward(sum(fn(w))));

  step((w) => mul(w, 2));
  assert.deepEqual(await held(), [2, 2, 2, 2]);
  step((w) => mul(w, 3));
  assert.deepEqual(await held(), [5, 5, 5, 5]);

  slot.written = false;
  step((w) => mul(w, w));
  assert.deepEqual(await held(), [2, 4, 6, 8], "the slot and a second gradient of the same op");

  slot.written = false;
  step((w) => add(w, w));
  assert.deepEqual(await held(), [2, 2, 2, 2], "a gradient that was passed on");

  slot.written = false;
  step((w) => add(mul(slice(w, [0], [2]), 5), slice(w, [2], [4])));
  assert.deepEqual(await held(), [5, 5, 1, 1], "two ops");

  slot.written = false;
  step((w) => reshape(w, [2, 2]));
  assert.deepEqual(await held(), [1, 1, 1, 1], "a view");
  assert.equal(w.grad, flat);
});

Deno.test("a leaf's gradient lives as long as the leaf", () => {
  gpu.step(() => backward(sum(leaf([1]))));
  const { live } = gpu.memory;
  gpu.step(() => {
    const inner = leaf(new Array(4096).fill(1));
    backward(sum(exp(inner)));
    assert.notEqual(inner.grad!.buffer, null);
  });
  assert.equal(gpu.memory.live, live);
  const outer = leaf([1, 2]);
  gpu.step(() => backward(sum(exp(outer))));
  assert.equal(gpu.memory.live, live + 32, "the leaf and its gradient, 16 bytes each");
});

Deno.test("inner scopes free at once what no backward reads, and keep what one does", async () => {
  const x = leaf([0, 1]);
  gpu.step(() => backward(sum(exp(x))));
  const { live } = gpu.memory;
  gpu.step(() => {
    const added = gpu.scope(() => add(add(add(x, 1), 2), 3));
    assert.equal(gpu.memory.live, live + 16, "one of three sums");
    const y = gpu.scope(() => exp(exp(added)));
    assert.equal(gpu.memory.live, live + 48, "both exponentials");
    backward(sum(gpu.scope(() => mul(y, 0.5))));
    assert.equal(gpu.memory.live, live + 16, "the loss");
  });
  assert.equal(gpu.memory.live, live);
  const expected = [0, 1].map((v) => 0.5 * Math.exp(v + 6) * Math.exp(Math.exp(v + 6)));
  assertClose(
    await x.grad!.data() as Float32Array,
    expected.map(Math.fround),
    { rtol: 2e-4 },
    "dx",
  );
});

Deno.test("saved tensors go back as the walk passes them", () => {
  const size = 1 << 16;
  const x = leaf(new Array(size).fill(0.01));
  const chain = (length: number) =>
    gpu.step(() => {
      let y: Tensor = x;
      for (let i = 0; i < length; i++) y = exp(mul(y, 0.1));
      const before = gpu.memory.live;
      const loss = mean(y);
      const seen: number[] = [];
      const watch = record(
        "watch",
        [loss],
        gpu.empty([]),
        [],
        (dy) => (seen.push(gpu.memory.live), [dy]),
      );
      backward(watch);
      assert.ok(seen[0]! <= before + 64, "nothing is taken before the walk");
      assert.ok(gpu.memory.live < before - 4 * size * length, "all results are given back");
    });
  chain(6);
});

Deno.test("training takes no more memory after 1000 steps than after 10", async () => {
  const shapes = [[6, 16], [16], [16, 3], [3]];
  const weights = shapes.map((shape, i) => randomTensor(shape, `weight ${i}`, 0.3));
  for (const weight of weights) weight.requiresGrad = true;
  const inputs = [0, 1].map((i) => randomTensor([32, 6], `batch ${i}`));
  const labels = gpu.tensor(Uint32Array.from(randomArray([32], "labels"), (v) => v > 0 ? 1 : 0));
  const step = (i: number) =>
    gpu.step(() => {
      const hidden = relu(linear(inputs[i % 2]!, weights[0]!, weights[1]!));
      const loss = crossEntropy(linear(hidden, weights[2]!, weights[3]!), labels);
      backward(loss);
      noGrad(() => {
        for (const weight of weights) gpu.copy(sub(weight, mul(weight.grad!, 0.1)), weight);
      });
      return loss;
    });
  const first = step(0);
  const start = await first.item();
  first.dispose();
  for (let i = 1; i < 10; i++) step(i).dispose();
  const after10 = gpu.memory;
  for (let i = 10; i < 1000; i++) step(i).dispose();
  const last = step(1000);
  assert.ok(await last.item() < 0.5 * start, "the loss falls");
  last.dispose();
  assert.deepEqual(gpu.memory, after10);
});

Deno.test("recompute() gives the gradients of what it wraps, nested and with paths that join", async () => {
  const inner = (x: Tensor) => mul(square(x), exp(x));
  const plain = (x: Tensor, w: Tensor) => add(mul(inner(x), w), mul(x, w));
  const wrapped = (x: Tensor, w: Tensor) =>
    recompute((x) => add(mul(recompute(inner, x), w), mul(x, w)), x, [w]);
  const values = [leaf([1, -2, 0.5]), leaf([3, 1, -1])];
  const expected = await gradients(plain, ...values);
  assert.deepEqual(await gradients(wrapped, ...values), expected);
  // The same where only one of the two wants a gradient.
  const [x, w] = [gpu.tensor([1, -2, 0.5]), values[1]!];
  assert.deepEqual(await gradients((w) => wrapped(x, w), w), [expected[1]]);
});

Deno.test("recompute() runs its function twice, the second time knowingly", async () => {
  const seen: boolean[] = [];
  const fn = (x: Tensor) => {
    seen.push(isRecomputing());
    return square(x);
  };
  assert.deepEqual(await gradients((x) => recompute(fn, x), leaf([3])), [[6]]);
  assert.deepEqual(seen, [false, true]);
  noGrad(() => gpu.scope(() => void recompute(fn, gpu.tensor([1]))));
  assert.deepEqual(seen, [false, true, false]);
  assert.equal(isRecomputing(), false);
});

Deno.test("recompute() whose function throws on the way back leaves recording as it was", () => {
  let calls = 0;
  const fn = (x: Tensor) => {
    if (calls++ > 0) throw new Error("the second time");
    return square(x);
  };
  assert.throws(() => gpu.scope(() => backward(sum(recompute(fn, leaf([1]))))), /the second time/);
  assert.equal(isRecording(), true);
  assert.equal(isRecomputing(), false);
});

Deno.test("recompute() keeps nothing but its input", () => {
  const x = leaf([1, 2, 3, 4]);
  const chain = (x: Tensor) => [1, 2, 3, 4, 5].reduce((y) => exp(mul(y, 0.1)), x);
  const live = (fn: (x: Tensor) => Tensor) =>
    gpu.scope(() => {
      const before = gpu.memory.live;
      const y = fn(x);
      const kept = gpu.memory.live - before;
      backward(sum(y));
      return kept;
    });
  assert.equal(live((x) => recompute(chain, x)), 16);
  assert.ok(live(chain) > 16 * 4);
  x.grad?.dispose();
});
