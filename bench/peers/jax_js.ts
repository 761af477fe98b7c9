/** The training step of bench/step_bench.ts in jax-js, the other trainer on WebGPU: the same network and batch. */

// deno-lint-ignore no-explicit-any
type Any = any;

/** Held in a variable so that the package is fetched only when peers are asked for. */
const PACKAGE = "npm:@jax-js/jax@0.1.25";

/**
 * Seconds of one training step (forward, backward, plain SGD, jitted) of a ResNet-18 with the 3×3 stem on
 * 32×32 images with three channels, the median of `steps`.
 */
export async function trainingStep(width: number, batch: number, steps: number): Promise<number> {
  const jax: Any = await import(PACKAGE);
  const { init, defaultDevice, jit, valueAndGrad, blockUntilReady, tree, lax, nn, numpy: np } = jax;
  await init("webgpu");
  defaultDevice("webgpu");

  const array = (shape: number[], scale: number) => {
    const size = shape.reduce((a, b) => a * b, 1);
    const values = Float32Array.from({ length: size }, (_, i) => scale * Math.sin(1.7 * i + size));
    return np.array(values).reshape(shape);
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

  const times: number[] = [];
  for (let i = 0; i <= steps; i++) {
    const start = performance.now();
    const [value, updated] = step(parameters, images.ref, targets.ref);
    parameters = updated;
    await blockUntilReady(value);
    if (!Number.isFinite(await value.jsAsync())) throw new Error("jax-js: the loss is not finite");
    // The first compiles.
    if (i > 0) times.push((performance.now() - start) / 1000);
  }
  return times.sort((a, b) => a - b)[times.length >> 1]!;
}

if (import.meta.main) {
  const [width = 16, batch = 32, steps = 3] = Deno.args.map(Number);
  const seconds = await trainingStep(width, batch, steps);
  console.log(`jax-js, width ${width}, batch ${batch}: ${(batch / seconds).toFixed(2)} images/s`);
}
