/**
 * Trains image encoders on any GPU, with hand-written WGSL compute shaders through WebGPU.
 *
 * - **GPU**: {@linkcode Gpu} opens a device, makes tensors and runs kernels.
 * - **Autograd**: ops record themselves, {@linkcode backward} walks the tape.
 * - **Networks**: {@linkcode Module}, {@linkcode ResNet}, layers, optimisers, schedules.
 * - **Methods**: {@linkcode SimCLR}, {@linkcode MICLe}, {@linkcode Autoencoder}.
 * - **Classifiers**: {@linkcode Classifier}, {@linkcode loadClassifier}, {@linkcode gradCam}.
 * - **Data**: {@linkcode openDataset}, {@linkcode decodeAll}, augmentation on the GPU.
 * - **Files**: safetensors, PyTorch's .pth (read) and npy.
 * - **Scores**: metrics with intervals, {@linkcode scoreMultiLabel}, kNN, {@linkcode fitLinearProbe}.
 *
 * Activations are NHWC, convolution weights [kh, kw, in, out], linear weights [in, out]; files keep
 * PyTorch's names and layouts. Importing this module opens no device.
 *
 * @example Fit a line
 * ```ts
 * import { add, backward, Gpu, Linear, ModelState, mse, SGD } from "./mod.ts";
 *
 * const gpu = await Gpu.open();
 * const model = new Linear(1, 1);
 * const state = new ModelState(gpu, model);
 * const optimizer = new SGD(state, { momentum: 0.9 });
 * const x = gpu.tensor([0, 1, 2, 3], [4, 1]);
 * const y = gpu.tensor([1, 3, 5, 7], [4, 1]);
 * for (let i = 0; i < 300; i++) {
 *   gpu.step(() => {
 *     state.zeroGrad();
 *     backward(mse(model.forward(x), y));
 *     optimizer.step(0.02);
 *   });
 * }
 * console.log(await model.weight.tensor.data(), await model.bias!.tensor.data()); // about 2 and 1
 * gpu.close();
 * ```
 *
 * @module
 */
export * from "./src/errors.ts";
export * from "./src/random.ts";

export * from "./src/gpu/gpu.ts";
export {
  type Binding,
  type Field,
  foldGroups,
  grid1d,
  type Kernel,
  Shader,
  type Variant,
} from "./src/gpu/shader.ts";
export type { Constants } from "./src/gpu/unroll.ts";
export type { KernelTime } from "./src/gpu/profile.ts";
export type { MemoryStats, PooledBuffer } from "./src/gpu/pool.ts";
export type { BufferRange, Grid } from "./src/gpu/stream.ts";
export * from "./src/tensor.ts";
export * from "./src/autograd.ts";

export * from "./src/ops/batch_norm.ts";
export {
  add,
  broadcastTo,
  div,
  equal,
  maximum,
  minimum,
  mul,
  type Operand,
  pow,
  sub,
} from "./src/ops/binary.ts";
export { cast, type Float } from "./src/ops/cast.ts";
export * from "./src/ops/conv2d.ts";
export * from "./src/ops/dropout.ts";
export * from "./src/ops/gather.ts";
export * from "./src/ops/losses.ts";
export * from "./src/ops/matmul.ts";
export * from "./src/ops/nt_xent.ts";
export * from "./src/ops/pool.ts";
export { max, mean, type ReduceOptions, sum, sumTo } from "./src/ops/reduce.ts";
export { concat, pad, reshape, slice, transpose } from "./src/ops/shape.ts";
export { l2Normalize, logSoftmax, softmax } from "./src/ops/softmax.ts";
export * from "./src/ops/unary.ts";
export * from "./src/ops/upsample.ts";

export * from "./src/nn/convert.ts";
export * from "./src/nn/decoder.ts";
export * from "./src/nn/heads.ts";
export * from "./src/nn/layers.ts";
export * from "./src/nn/model_state.ts";
export * from "./src/nn/module.ts";
export * from "./src/nn/resnet.ts";
export * from "./src/optim.ts";
export { checkHalves } from "./src/precision.ts";

export * from "./src/methods/autoencoder.ts";
export * from "./src/methods/kmeans.ts";
export * from "./src/methods/kmeans_v2.ts";
export * from "./src/methods/method.ts";
export * from "./src/methods/micle.ts";
export * from "./src/methods/pseudo_labels.ts";
export * from "./src/methods/simclr.ts";
export * from "./src/methods/supervised.ts";

export * from "./src/data/augment.ts";
export * from "./src/data/dataset.ts";
export * from "./src/data/decode/decode_all.ts";
export { type DuplicateOptions, nearDuplicates, THUMBNAIL } from "./src/data/duplicates.ts";
export * from "./src/data/image_set.ts";
export * from "./src/data/open.ts";
export * from "./src/data/operations.ts";
export {
  type Decoding,
  type SizeSummary,
  type SplitSummary,
  summarize,
  type Summary,
  type Tally,
} from "./src/data/summary.ts";
export * from "./src/classifier.ts";
export * from "./src/encoder.ts";
export * from "./src/formats/npy.ts";
export * from "./src/formats/pth.ts";
export * from "./src/formats/safetensors.ts";
export * from "./src/formats/weights.ts";
export { gradCam, type Heat } from "./src/gradcam.ts";
export * from "./src/kmeans.ts";
export * from "./src/knn.ts";
export * from "./src/linear_probe.ts";
export * from "./src/metrics.ts";
export * from "./src/pca.ts";
export type { Measure } from "./src/run_folder.ts";
export * from "./src/scores.ts";
