/**
 * ONNX files: a graph of operators and its weights. IR version 8, operator set 17.
 * Format: https://github.com/onnx/onnx/blob/main/docs/IR.md, fields: onnx/onnx.proto there.
 */
import { PbfWriter } from "./protobuf.ts";

/** An operator of https://onnx.ai/onnx/operators/ with one output. */
export interface OnnxNode {
  /** Its type: Conv, Relu, … */
  readonly op: string;
  /** Names the node and its output. */
  readonly name: string;
  /** Names of nodes, initialisers and inputs of the graph. */
  readonly inputs: readonly string[];
  /** Integers, or lists of them. */
  readonly attributes: Readonly<Record<string, number | readonly number[]>>;
}

/** A float32 tensor that stays as it is. */
export interface OnnxInitializer {
  /** Sizes of the axes. */
  readonly shape: readonly number[];
  /** The values in row-major order. */
  readonly data: Float32Array;
}

/** A float32 input or output of the graph. */
export interface OnnxValue {
  /** Its name; of an output, that of a node. */
  readonly name: string;
  /** Sizes of the axes; a word stands for any size. */
  readonly shape: readonly (number | string)[];
  /** What it holds. */
  readonly doc: string;
}

/** The content of a file. */
export interface OnnxModel {
  /** Name of the graph. */
  readonly name: string;
  /** The program that made it, and its version. */
  readonly producer: { readonly name: string; readonly version: string };
  /** Free-form text by name. */
  readonly metadata: Readonly<Record<string, string>>;
  /** Each after those that it takes its inputs from. */
  readonly nodes: readonly OnnxNode[];
  /** Weights by name. */
  readonly initializers: ReadonlyMap<string, OnnxInitializer>;
  /** What is given. */
  readonly inputs: readonly OnnxValue[];
  /** What comes out. */
  readonly outputs: readonly OnnxValue[];
}

const irVersion = 8;
const opsetVersion = 17;
/** TensorProto.DataType.FLOAT */
const float32 = 1;
/** AttributeProto.AttributeType */
const attributeType = { int: 2, ints: 7 };

/** Writes a model to the bytes of an .onnx file. */
export function encodeOnnx(model: OnnxModel): Uint8Array {
  const pbf = new PbfWriter();
  pbf.writeVarintField(1, irVersion);
  pbf.writeStringField(2, model.producer.name);
  pbf.writeStringField(3, model.producer.version);
  pbf.writeMessage(7, writeGraph, model);
  pbf.writeMessage(8, (version, opset) => opset.writeVarintField(2, version), opsetVersion);
  for (const entry of Object.entries(model.metadata)) {
    pbf.writeMessage(14, ([key, value], property) => {
      property.writeStringField(1, key);
      property.writeStringField(2, value);
    }, entry);
  }
  return pbf.finish();
}

function writeGraph(model: OnnxModel, pbf: PbfWriter): void {
  for (const node of model.nodes) pbf.writeMessage(1, writeNode, node);
  pbf.writeStringField(2, model.name);
  for (const entry of model.initializers) pbf.writeMessage(5, writeInitializer, entry);
  for (const value of model.inputs) pbf.writeMessage(11, writeValue, value);
  for (const value of model.outputs) pbf.writeMessage(12, writeValue, value);
}

function writeNode({ op, name, inputs, attributes }: OnnxNode, pbf: PbfWriter): void {
  for (const input of inputs) pbf.writeStringField(1, input);
  pbf.writeStringField(2, name);
  pbf.writeStringField(3, name);
  pbf.writeStringField(4, op);
  for (const entry of Object.entries(attributes)) {
    pbf.writeMessage(5, ([key, value], attribute) => {
      attribute.writeStringField(1, key);
      if (typeof value === "number") attribute.writeVarintField(3, value);
      else for (const item of value) attribute.writeVarintField(8, item);
      attribute.writeVarintField(20, attributeType[typeof value === "number" ? "int" : "ints"]);
    }, entry);
  }
}

function writeInitializer(
  [name, { shape, data }]: readonly [string, OnnxInitializer],
  pbf: PbfWriter,
): void {
  for (const size of shape) pbf.writeVarintField(1, size);
  pbf.writeVarintField(2, float32);
  pbf.writeStringField(8, name);
  pbf.writeBytesField(9, new Uint8Array(data.buffer, data.byteOffset, data.byteLength));
}

function writeValue({ name, shape, doc }: OnnxValue, pbf: PbfWriter): void {
  pbf.writeStringField(1, name);
  pbf.writeMessage(2, (shape, type) => type.writeMessage(1, writeTensorType, shape), shape);
  pbf.writeStringField(3, doc);
}

function writeTensorType(shape: OnnxValue["shape"], pbf: PbfWriter): void {
  pbf.writeVarintField(1, float32);
  pbf.writeMessage(2, (sizes, message) => {
    for (const size of sizes) {
      message.writeMessage(1, (size, dimension) => {
        if (typeof size === "number") dimension.writeVarintField(1, size);
        else dimension.writeStringField(2, size);
      }, size);
    }
  }, shape);
}
