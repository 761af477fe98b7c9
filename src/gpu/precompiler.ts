/**
 * Compilation beside the device. A software driver compiles a kernel at its first dispatch, in the one thread
 * of the device's queue, while the other cores wait. It keeps what it compiled in a cache on disk, and looks
 * there first: so a second device can compile for the first.
 */
import { createPipeline, paramBytes, uniformLayout } from "./pipeline.ts";
import type { Kernel } from "./shader.ts";

/** A device, opened like the one it helps, that only compiles. */
export class Precompiler {
  readonly #device: GPUDevice;

  constructor(device: GPUDevice) {
    this.#device = device;
    // The device that it helps reports the same.
    device.onuncapturederror = (event) => event.preventDefault();
  }

  /** Begins to compile kernels, by dispatches of no workgroups. */
  compile(kernels: readonly Kernel[]): void {
    const device = this.#device;
    const buffers: GPUBuffer[] = [];
    const resource = (usage: number) => {
      const buffer = device.createBuffer({ size: paramBytes, usage });
      buffers.push(buffer);
      return { buffer, size: paramBytes };
    };
    const encoder = device.createCommandEncoder();
    const pass = encoder.beginComputePass();
    for (const kernel of kernels) {
      const { pipeline, layout } = createPipeline(device, kernel);
      const tensors = device.createBindGroup({
        layout,
        entries: kernel.bindings.map(({ binding }) => ({
          binding,
          resource: resource(GPUBufferUsage.STORAGE),
        })),
      });
      const struct = device.createBindGroup({
        layout: uniformLayout(device),
        entries: [{ binding: 0, resource: resource(GPUBufferUsage.UNIFORM) }],
      });
      pass.setPipeline(pipeline);
      pass.setBindGroup(0, tensors);
      pass.setBindGroup(1, struct, [0]);
      pass.dispatchWorkgroups(0);
    }
    pass.end();
    device.queue.submit([encoder.finish()]);
    for (const buffer of buffers) buffer.destroy();
  }

  /** Destroys the device. */
  close(): void {
    this.#device.destroy();
  }
}
