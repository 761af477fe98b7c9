/**
 * Protocol Buffers, for ONNX and TensorBoard. Nothing that `mod.ts` reaches imports this: its graph
 * stays free of the package.
 */
export { PbfWriter } from "npm:pbf@5.1.2";
