/** jax-js, the other trainer on WebGPU, its functions jitted. */
import { medianOf, type Peer, type Run, waves, type Work } from "./peer.ts";

// deno-lint-ignore no-explicit-any
type Any = any;

/** Held in a variable so that the package is fetched only when peers are asked for. */
const PACKAGE = "npm:@jax-js/jax@0.1.25";

/** The peer on its WebGPU backend. */
export async function openJaxJs(): Promise<Peer> {
  const jax: Any = await import(PACKAGE);
  await jax.init("webgpu");
  jax.defaultDevice("webgpu");
  return {
    name: "jax-js",
    async seconds(work) {
      const run = runOf(jax, work);
      return run && await medianOf(run);
    },
  };
}

function runOf(jax: Any, work: Work): Run | null {
  const { jit, grad, blockUntilReady, lax, numpy: np } = jax;
  const array = (shape: number[]) =>
    np.array(waves(shape.reduce((a, b) => a * b, 1))).reshape(shape);
  // One sum depends on all that is done, so that none of it can be left out.
  const done = async (make: () => Any, times: number) => {
    const sums = Array.from({ length: times }, () => np.sum(make()));
    const total = sums.reduce((a, b) => a.add(b));
    await blockUntilReady(total);
    total.dispose();
  };
  switch (work.op) {
    case "step":
      return trainingStep(jax, work);
    case "matmul": {
      const { m, k, n, transposeA, transposeB } = work;
      if (transposeA || transposeB) return null;
      const [a, b] = [array([m, k]), array([k, n])];
      const product = jit((a: Any, b: Any) => np.matmul(a, b));
      return (times) => done(() => product(a.ref, b.ref), times);
    }
    case "conv2d": {
      const { direction, n, size, inputs, outputs, kernel, stride } = work;
      const [x, w] = [array([n, inputs, size, size]), array([outputs, inputs, kernel, kernel])];
      const around = [kernel >> 1, kernel >> 1];
      const convolve = (x: Any, w: Any) =>
        lax.convGeneralDilated(x, w, [stride, stride], [around, around]);
      if (direction === "forward") {
        const forward = jit(convolve);
        return (times) => done(() => forward(x.ref, w.ref), times);
      }
      const side = Math.floor((size + 2 * around[0]! - kernel) / stride) + 1;
      const dy = array([n, outputs, side, side]);
      const gradient = jit(grad(
        (x: Any, w: Any, dy: Any) => np.sum(convolve(x, w).mul(dy)),
        { argnums: direction === "input gradient" ? 0 : 1 },
      ));
      return (times) => done(() => gradient(x.ref, w.ref, dy.ref), times);
    }
    case "ntXent": {
      const { rows, d, temperature } = work;
      const h = array([rows, d]);
      const half = rows / 2;
      const mask = np.eye(rows).mul(-1e9);
      const targets = jax.nn.oneHot(
        np.array(Array.from({ length: rows }, (_, i) => (i + half) % rows)).astype(np.int32),
        rows,
      );
      const gradient = jit(grad((h: Any, mask: Any, targets: Any) => {
        const norms = np.sqrt(np.sum(np.square(h.ref), [1], { keepdims: true }));
        const z = h.div(norms);
        const similarities = np.matmul(z.ref, np.transpose(z)).mul(1 / temperature).add(mask);
        return np.mean(np.sum(jax.nn.logSoftmax(similarities, -1).mul(targets), 1)).mul(-1);
      }));
      return (times) => done(() => gradient(h.ref, mask.ref, targets.ref), times);
    }
    case "kmeans":
      return null;
  }
}

/** The training step of bench/step_bench.ts: the same network and batch, plain SGD. */
function trainingStep(
  jax: Any,
  { width, batch }: Extract<Work, { op: "step" }>,
): Run {
  const { jit, valueAndGrad, blockUntilReady, tree, lax, nn, numpy: np } = jax;
  const array = (shape: number[], scale: number) => {
    const size = shape.reduce((a, b) => a * b, 1);
    return np.array(waves(size).map((v) => scale * v)).reshape(shape);
  };
  const conv = (inputs: number, outputs: number, k: number) => ({
    w: array([outputs, inputs, k, k], Math.sqrt(2 / (outputs * k * k))),
    gamma: np.ones([1, outputs, 1, 1]),
    beta: np.zeros([1, outputs, 1, 1]),
  });
  const convolve = (x: Any, { w, gamma, beta }: Any, stride: number, padding: number) => {
    const y = lax.convGeneralDilated(x, w, [stride, stride], [[padding, padding], [
      padding,
      padding,
    ]]);
    const centred = y.ref.sub(np.mean(y, [0, 2, 3], { keepdims: true }));
    const variance = np.mean(np.square(centred.ref), [0, 2, 3], { keepdims: true });
    return centred.div(np.sqrt(variance.add(1e-5))).mul(gamma).add(beta);
  };

  const strides: number[] = [];
  const blocks: Any[] = [];
  let inputs = width;
  for (let stage = 0; stage < 4; stage++) {
    for (let block = 0; block < 2; block++) {
      const outputs = width * 2 ** stage;
      const stride = stage > 0 && block === 0 ? 2 : 1;
      strides.push(stride);
      blocks.push({
        first: conv(inputs, outputs, 3),
        second: conv(outputs, outputs, 3),
        ...(stride === 2 ? { shortcut: conv(inputs, outputs, 1) } : {}),
      });
      inputs = outputs;
    }
  }
  let parameters: Any = {
    stem: conv(3, width, 3),
    blocks,
    weight: array([inputs, 10], 1 / Math.sqrt(inputs)),
  };
  const images = array([batch, 3, 32, 32], 1);
  const targets = nn.oneHot(
    np.array(Array.from({ length: batch }, (_, i) => i % 10)).astype(np.int32),
    10,
  );

  const loss = (p: Any, x: Any, y: Any) => {
    let h = nn.relu(convolve(x, p.stem, 1, 1));
    p.blocks.forEach((block: Any, i: number) => {
      const residual = block.shortcut ? convolve(h.ref, block.shortcut, strides[i]!, 0) : h.ref;
      const inner = nn.relu(convolve(h, block.first, strides[i]!, 1));
      h = nn.relu(convolve(inner, block.second, 1, 1).add(residual));
    });
    const logits = np.matmul(np.mean(h, [2, 3]), p.weight);
    return np.mean(np.sum(nn.logSoftmax(logits, -1).mul(y), 1)).mul(-1);
  };
  const step = jit((p: Any, x: Any, y: Any) => {
    const [value, gradients] = valueAndGrad(loss)(tree.ref(p), x, y);
    return [value, tree.map((w: Any, g: Any) => w.sub(g.mul(0.01)), p, gradients)];
  });

  return async () => {
    const [value, updated] = step(parameters, images.ref, targets.ref);
    parameters = updated;
    await blockUntilReady(value);
    if (!Number.isFinite(await value.jsAsync())) throw new Error("jax-js: the loss is not finite");
  };
}
