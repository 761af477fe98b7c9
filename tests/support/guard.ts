/**
 * Finds kernels that write past the end of a tensor. Of such writes WebGPU says only that they stay in the
 * buffer: some drivers drop them, others let them land on the last element.
 */
import assert from "node:assert/strict";

/** Bytes behind every buffer, which kernels can reach and must leave alone. */
const margin = 256;
const untouched = new Uint32Array(margin / 4).fill(0x7fc0_beef);

/** Puts a margin behind every storage buffer made from now on; what is returned checks them all. */
export function guard(device: GPUDevice): () => Promise<void> {
  /** Where the margin of a buffer begins. */
  const ends = new Map<GPUBuffer, number>();

  const createBuffer = device.createBuffer.bind(device);
  device.createBuffer = (descriptor) => {
    if (!(descriptor.usage & GPUBufferUsage.STORAGE)) return createBuffer(descriptor);
    const buffer = createBuffer({ ...descriptor, size: descriptor.size + margin });
    device.queue.writeBuffer(buffer, descriptor.size, untouched);
    ends.set(buffer, descriptor.size);
    const destroy = buffer.destroy.bind(buffer);
    buffer.destroy = () => {
      ends.delete(buffer);
      destroy();
    };
    return buffer;
  };

  const createBindGroup = device.createBindGroup.bind(device);
  device.createBindGroup = (descriptor) =>
    createBindGroup({
      ...descriptor,
      entries: [...descriptor.entries].map((entry) => {
        const range = entry.resource as GPUBufferBinding;
        if (!ends.has(range.buffer)) return entry;
        return { ...entry, resource: { ...range, size: range.size! + margin } };
      }),
    });

  return async () => {
    const margins = createBuffer({
      size: Math.max(1, ends.size) * margin,
      usage: GPUBufferUsage.MAP_READ | GPUBufferUsage.COPY_DST,
    });
    const encoder = device.createCommandEncoder();
    [...ends].forEach(([buffer, end], i) =>
      encoder.copyBufferToBuffer(buffer, end, margins, i * margin, margin)
    );
    device.queue.submit([encoder.finish()]);
    await margins.mapAsync(GPUMapMode.READ);
    const words = new Uint32Array(margins.getMappedRange().slice());
    margins.destroy();
    const written = [...ends.values()].filter((_, i) => {
      const own = words.subarray(i * untouched.length, (i + 1) * untouched.length);
      return own.some((word, k) => word !== untouched[k]);
    });
    assert.deepEqual(written, [], "kernels wrote past buffers of these sizes in bytes");
  };
}
