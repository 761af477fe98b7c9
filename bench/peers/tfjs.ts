/** TensorFlow.js on its WebGPU backend. */
import { medianOf, type Peer, type Run, waves, type Work } from "./peer.ts";

// deno-lint-ignore no-explicit-any
type Any = any;

/** Held in variables so that the packages are fetched only when peers are asked for. */
const CORE = "npm:@tensorflow/tfjs@4.22.0";
const BACKEND = "npm:@tensorflow/tfjs-backend-webgpu@4.22.0";

/** The peer. */
export async function openTfjs(): Promise<Peer> {
  const tf: Any = await import(CORE);
  await import(BACKEND);
  if (!await tf.setBackend("webgpu")) throw new Error("tfjs: no WebGPU backend");
  return {
    name: "tfjs",
    async seconds(work) {
      tf.engine().startScope();
      const run = runOf(tf, work);
      const seconds = run && await medianOf(run);
      tf.engine().endScope();
      return seconds;
    },
  };
}

function runOf(tf: Any, work: Work): Run | null {
  const array = (shape: number[]) => tf.tensor(waves(shape.reduce((a, b) => a * b, 1)), shape);
  // One value is read, so that all of the work is done.
  const done = async (make: () => Any, times: number) => {
    const result = tf.tidy(() => {
      for (let i = 1; i < times; i++) tf.tidy(() => void make());
      return tf.sum(make());
    });
    await result.data();
    result.dispose();
  };
  switch (work.op) {
    case "step":
      return trainingStep(tf, work);
    case "matmul": {
      const { m, k, n, transposeA, transposeB } = work;
      const a = array(transposeA ? [k, m] : [m, k]);
      const b = array(transposeB ? [n, k] : [k, n]);
      return (times) => done(() => tf.matMul(a, b, transposeA, transposeB), times);
    }
    case "conv2d": {
      const { direction, n, size, inputs, outputs, kernel, stride } = work;
      const x = array([n, size, size, inputs]);
      const w = array([kernel, kernel, inputs, outputs]);
      const pad = kernel >> 1;
      const forward = () => tf.conv2d(x, w, stride, pad);
      if (direction === "forward") return (times) => done(forward, times);
      const dy = array(tf.tidy(() => forward().shape));
      const attributes = {
        strides: [stride, stride],
        pad,
        dataFormat: "NHWC",
        dimRoundingMode: "floor",
      };
      const [name, of, shape] = direction === "input gradient"
        ? ["Conv2DBackpropInput", { dy, filter: w }, { inputShape: x.shape }]
        : ["Conv2DBackpropFilter", { x, dy }, { filterShape: w.shape }];
      return (times) =>
        done(() => tf.engine().runKernel(name, of, { ...attributes, ...shape }), times);
    }
    case "ntXent": {
      const { rows, d, temperature } = work;
      const h = array([rows, d]);
      const mask = tf.eye(rows).mul(-1e9);
      const targets = tf.oneHot(
        tf.tensor1d(Array.from({ length: rows }, (_, i) => (i + rows / 2) % rows), "int32"),
        rows,
      ).toFloat();
      const gradient = tf.grad((h: Any) => {
        const z = h.div(tf.sqrt(tf.sum(tf.square(h), 1, true)));
        const logits = tf.matMul(z, z, false, true).div(temperature).add(mask);
        return tf.mean(tf.sum(tf.logSoftmax(logits).mul(targets), 1)).neg();
      });
      return (times) => done(() => gradient(h), times);
    }
    case "kmeans":
      return null;
  }
}

/** The training step of bench/step_bench.ts: the same network and batch, plain SGD. */
function trainingStep(
  tf: Any,
  { width, batch }: Extract<Work, { op: "step" }>,
): Run {
  const variable = (shape: number[], scale: number) =>
    tf.variable(
      tf.tensor(waves(shape.reduce((a, b) => a * b, 1)).map((v) => scale * v), shape),
    );
  const conv = (inputs: number, outputs: number, k: number, stride: number) => {
    const w = variable([k, k, inputs, outputs], Math.sqrt(2 / (outputs * k * k)));
    const [gamma, beta] = [tf.variable(tf.ones([outputs])), tf.variable(tf.zeros([outputs]))];
    return (x: Any) => {
      const y = tf.conv2d(x, w, stride, k >> 1);
      const { mean, variance } = tf.moments(y, [0, 1, 2], true);
      return y.sub(mean).div(tf.sqrt(variance.add(1e-5))).mul(gamma).add(beta);
    };
  };
  const stem = conv(3, width, 3, 1);
  let inputs = width;
  const blocks = [0, 1, 2, 3].flatMap((stage) =>
    [0, 1].map((block) => {
      const outputs = width * 2 ** stage;
      const stride = stage > 0 && block === 0 ? 2 : 1;
      const [first, second] = [conv(inputs, outputs, 3, stride), conv(outputs, outputs, 3, 1)];
      const shortcut = stride === 2 ? conv(inputs, outputs, 1, 2) : (x: Any) => x;
      inputs = outputs;
      return (x: Any) => tf.relu(second(tf.relu(first(x))).add(shortcut(x)));
    })
  );
  const weight = variable([inputs, 10], 1 / Math.sqrt(inputs));
  const images = tf.tensor(waves(batch * 32 * 32 * 3), [batch, 32, 32, 3]);
  const targets = tf.oneHot(
    tf.tensor1d(Array.from({ length: batch }, (_, i) => i % 10), "int32"),
    10,
  ).toFloat();
  const optimizer = tf.train.sgd(0.01);
  return async () => {
    const loss = optimizer.minimize(() => {
      const h = blocks.reduce((x, block) => block(x), tf.relu(stem(images)));
      const logits = tf.matMul(tf.mean(h, [1, 2]), weight);
      return tf.mean(tf.sum(tf.logSoftmax(logits).mul(targets), 1)).neg();
    }, true);
    const [value] = await loss.data();
    loss.dispose();
    if (!Number.isFinite(value)) throw new Error("tfjs: the loss is not finite");
  };
}
