/** Kernels as pipelines of a device. */
import type { Kernel } from "./shader.ts";

/** Bytes of a struct of parameters, at most: 64 scalars. */
export const paramBytes = 256;

/** What is compiled for a kernel; the extensions stand on its first line, so that errors keep their lines. */
export function codeOf(kernel: Kernel, enablesSubgroups: boolean): string {
  return (kernel.usesSubgroups && enablesSubgroups ? "enable subgroups; " : "") +
    (kernel.usesHalves ? "enable f16; " : "") + kernel.shader.expand(kernel);
}

/** The layout of group 1 of every kernel: its parameters, at an offset that each dispatch gives. */
export function uniformLayout(device: GPUDevice): GPUBindGroupLayout {
  return device.createBindGroupLayout({
    entries: [{
      binding: 0,
      visibility: GPUShaderStage.COMPUTE,
      buffer: { type: "uniform", hasDynamicOffset: true },
    }],
  });
}

/** A pipeline and what it was made of. */
export interface Pipeline {
  readonly pipeline: GPUComputePipeline;
  /** The layout of group 0: its buffers. */
  readonly layout: GPUBindGroupLayout;
  readonly module: GPUShaderModule;
}

/** Compiles a kernel. Errors go to the device's error scope, labelled with the kernel. */
export function createPipeline(device: GPUDevice, kernel: Kernel): Pipeline {
  const { shader, entry, constants, label, bindings } = kernel;
  const layout = device.createBindGroupLayout({
    label,
    entries: bindings.map(({ binding, writable }) => ({
      binding,
      visibility: GPUShaderStage.COMPUTE,
      buffer: { type: writable ? "storage" : "read-only-storage" },
    })),
  });
  // Where subgroups are no extension to enable, naga rejects the directive.
  const isExtension = navigator.gpu.wgslLanguageFeatures.has("subgroup_id");
  const module = device.createShaderModule({ label, code: codeOf(kernel, isExtension) });
  const pipeline = device.createComputePipeline({
    label,
    layout: device.createPipelineLayout({ bindGroupLayouts: [layout, uniformLayout(device)] }),
    compute: { module, entryPoint: entry, constants: shader.overrides(constants) },
  });
  return { pipeline, layout, module };
}
