/** A trained network as an ONNX graph that takes pixels as they are. */
import type { ClassifierFormat } from "./classifier.ts";
import { architectureOf, type ImageFormat } from "./encoder.ts";
import { UserError } from "./errors.ts";
import type { OnnxInitializer, OnnxModel, OnnxNode, OnnxValue } from "./formats/onnx.ts";
import { type SafeTensor, toFloat32 } from "./formats/safetensors.ts";
import { version } from "./version.ts";

/**
 * An encoder (`images` → `features`) or, if the format names labels, a classifier (`images` → `logits`,
 * `probabilities`), for any number of images at a time. The normalisation is part of the graph, what else
 * the format says stands in the metadata. Weights are named as torchvision names them.
 *
 * @param arrays of an encoder's or a classifier's file
 * @param file name for messages
 * @throws {UserError} if the arrays are no ResNet, or one is missing
 */
export function onnxModel(
  arrays: ReadonlyMap<string, SafeTensor>,
  format: ImageFormat | ClassifierFormat,
  file: string,
): OnnxModel {
  const { arch, stem, channels } = architectureOf(arrays, file);
  const graph = new Graph(arrays, file);
  const { mean, std } = format.normalization;
  let x = graph.node("Sub", "centered", ["images", graph.perChannel("normalization.mean", mean)]);
  x = graph.node("Div", "normalized", [x, graph.perChannel("normalization.std", std)]);

  x = graph.node("Relu", "relu", [graph.convBn(x, "conv1", "bn1", stem === "7x7" ? 2 : 1)]);
  if (stem === "7x7") x = graph.node("MaxPool", "maxpool", [x], window(3, 2));
  for (const layer of [1, 2, 3, 4]) {
    for (let i = 0; arrays.has(`layer${layer}.${i}.conv1.weight`); i++) {
      x = graph.block(x, `layer${layer}.${i}`, i === 0 && layer > 1 ? 2 : 1);
    }
  }
  x = graph.node("Flatten", "features", [graph.node("GlobalAveragePool", "avgpool", [x])]);

  const outputs: OnnxValue[] = [];
  const output = (name: string, width: number, doc: string) =>
    outputs.push({ name, shape: ["N", width], doc });
  if ("labels" in format) {
    const { labels, kind } = format;
    const head = [graph.weight("fc.weight"), graph.weight("fc.bias")];
    const logits = graph.node("Gemm", "logits", [x, ...head], { transB: 1 });
    output(logits, labels.length, "one a label, in the order of the metadata's labels");
    const [op, doc] = kind === "single-label"
      ? ["Softmax", "of exclusive classes: the most probable is predicted"]
      : ["Sigmoid", "of each label by itself: it is predicted from its threshold on"];
    output(graph.node(op, "probabilities", [logits]), labels.length, doc);
  } else {
    const width = graph.initializers.get("bn1.weight")!.shape[0]!;
    output(x, (arch === "resnet50" ? 32 : 8) * width, "the pooled feature vectors");
  }
  const text = (value: unknown) => typeof value === "string" ? value : JSON.stringify(value);
  return {
    name: arch,
    producer: { name: "wgrad", version },
    metadata: {
      wgrad: version,
      ...Object.fromEntries(Object.entries(format).map(([key, value]) => [key, text(value)])),
    },
    nodes: graph.nodes,
    initializers: graph.initializers,
    inputs: [{
      name: "images",
      shape: ["N", channels, format.size, format.size],
      doc: `${channels === 1 ? "gray" : "red, green, blue"} / 255, in [0, 1] and not normalised: ` +
        `the shorter side resized to ${format.size} with antialiasing, the middle cut out`,
    }],
    outputs,
  };
}

/** The attributes of a square window that is padded to keep the size, but for the stride. */
function window(kernel: number, stride: number): OnnxNode["attributes"] {
  const padding = (kernel - 1) / 2;
  return {
    kernel_shape: [kernel, kernel],
    strides: [stride, stride],
    pads: [padding, padding, padding, padding],
  };
}

/** A graph in the making. What adds to it returns the name of the result. */
class Graph {
  readonly nodes: OnnxNode[] = [];
  readonly initializers = new Map<string, OnnxInitializer>();
  readonly #arrays: ReadonlyMap<string, SafeTensor>;
  readonly #file: string;

  constructor(arrays: ReadonlyMap<string, SafeTensor>, file: string) {
    this.#arrays = arrays;
    this.#file = file;
  }

  node(
    op: string,
    name: string,
    inputs: readonly string[],
    attributes: OnnxNode["attributes"] = {},
  ): string {
    this.nodes.push({ op, name, inputs, attributes });
    return name;
  }

  perChannel(name: string, values: readonly number[]): string {
    const data = Float32Array.from(values);
    this.initializers.set(name, { shape: [1, data.length, 1, 1], data });
    return name;
  }

  weight(name: string): string {
    const array = this.#arrays.get(name);
    if (array === undefined) throw new UserError(`${this.#file}: ${name} is missing`);
    this.initializers.set(name, { shape: array.shape, data: toFloat32(array) });
    return name;
  }

  /** A convolution without bias and the normalisation after it, whose ε of 1e-5 is ONNX's default. */
  convBn(x: string, conv: string, bn: string, stride: number): string {
    const weight = this.weight(`${conv}.weight`);
    const kernel = this.initializers.get(weight)!.shape[2]!;
    const y = this.node("Conv", conv, [x, weight], window(kernel, stride));
    const statistics = ["weight", "bias", "running_mean", "running_var"].map((name) =>
      this.weight(`${bn}.${name}`)
    );
    return this.node("BatchNormalization", bn, [y, ...statistics]);
  }

  /** A block of two convolutions, of which the first has the stride, or of three, of which the second. */
  block(x: string, name: string, stride: number): string {
    const has = (part: string) => this.#arrays.has(`${name}.${part}.weight`);
    const convolutions = has("conv3") ? 3 : 2;
    let y = x;
    for (let i = 1; i <= convolutions; i++) {
      if (i > 1) y = this.node("Relu", `${name}.relu${i - 1}`, [y]);
      const own = i === convolutions - 1 ? stride : 1;
      y = this.convBn(y, `${name}.conv${i}`, `${name}.bn${i}`, own);
    }
    const shortcut = has("downsample.0")
      ? this.convBn(x, `${name}.downsample.0`, `${name}.downsample.1`, stride)
      : x;
    return this.node("Relu", `${name}.relu${convolutions}`, [
      this.node("Add", `${name}.add`, [y, shortcut]),
    ]);
  }
}
