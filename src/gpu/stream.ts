/**
 * Commands in the order they are given: one open compute pass, one submit a flush.
 *
 * What costs time on WebGPU is submitting and creating objects, so dispatches are recorded into an
 * open pass, bind groups are cached by the buffers they hold, and parameters go into a ring of
 * uniforms with dynamic offsets that is uploaded once a flush.
 */
import { createPipeline, paramBytes, uniformLayout } from "./pipeline.ts";
import type { PooledBuffer } from "./pool.ts";
import type { Precompiler } from "./precompiler.ts";
import type { Profile } from "./profile.ts";
import type { Kernel } from "./shader.ts";

/** A range of a buffer, bound to a kernel. */
export interface BufferRange {
  /** Where it lies. */
  readonly buffer: PooledBuffer;
  /** Its first byte. */
  readonly offset: number;
  /** Its length. */
  readonly bytes: number;
}

/** Workgroups in x, y and z. */
export type Grid = readonly [number, number, number];

interface Compiled {
  readonly pipeline: GPUComputePipeline;
  readonly layout: GPUBindGroupLayout;
  /** By the hash of what they bind. */
  readonly bindGroups: Map<number, Bound[]>;
}

/** A bind group and the buffer, offset and bytes of each of its ranges. */
interface Bound {
  readonly group: GPUBindGroup;
  readonly ranges: readonly number[];
}

const ringBytes = 1 << 20;
/** Milliseconds a kernel that submits wait for those before, above which the driver seems to compile anew. */
const slow = 75;

/** Records, caches and submits the commands of a device. */
export class Stream {
  profile: Profile | null = null;
  readonly #device: GPUDevice;
  readonly #compiled = new Map<Kernel, Compiled>();
  readonly #ring: GPUBuffer;
  readonly #ringData = new ArrayBuffer(ringBytes);
  readonly #ringView = new DataView(this.#ringData);
  readonly #uniformGroup: GPUBindGroup;
  /** The place in the ring of the dispatch that is being recorded. */
  readonly #uniformOffset = new Uint32Array(1);
  readonly #alignment: number;
  #ringUsed = 0;
  #encoder: GPUCommandEncoder | null = null;
  #pass: GPUComputePassEncoder | null = null;
  #onCompile: (label: string) => void = () => {};
  readonly #precompilers: readonly Pick<Precompiler, "compile">[];
  /** What the commands that are recorded use for the first time, once the driver turned out to be slow. */
  #fresh: Kernel[] | null = null;
  /** Kernels that were compiled since the last flush, and milliseconds of waiting in between. */
  #compiles = 0;
  #waited = 0;

  /** @param precompilers to help a driver that compiles one kernel after another */
  constructor(device: GPUDevice, precompilers: readonly Pick<Precompiler, "compile">[] = []) {
    this.#device = device;
    this.#precompilers = precompilers;
    // Offsets that every device accepts.
    this.#alignment = Math.max(paramBytes, device.limits.minUniformBufferOffsetAlignment);
    this.#ring = device.createBuffer({
      size: ringBytes,
      usage: GPUBufferUsage.UNIFORM | GPUBufferUsage.COPY_DST,
    });
    this.#uniformGroup = device.createBindGroup({
      layout: uniformLayout(device),
      entries: [{ binding: 0, resource: { buffer: this.#ring, size: paramBytes } }],
    });
  }

  /** Called with a kernel's label before it is compiled (milliseconds to seconds the first time). */
  set onCompile(callback: (label: string) => void) {
    this.#onCompile = callback;
  }

  /** Whether commands were recorded that are not submitted yet. */
  get recording(): boolean {
    return this.#encoder !== null;
  }

  /** Records one dispatch; `ranges` are in the order of `kernel.bindings`. */
  dispatch(
    kernel: Kernel,
    ranges: readonly BufferRange[],
    params: Readonly<Record<string, number>>,
    grid: Grid,
    flops: number,
  ): void {
    const [x, y, z] = grid;
    if (x === 0 || y === 0 || z === 0) return;
    if (x > 65535 || y > 65535 || z > 65535) {
      throw new RangeError(`${kernel.label}: [${grid}] groups, more than 65535 along an axis`);
    }
    const compiled = this.#compiled.get(kernel) ?? this.#compile(kernel);
    if (this.#ringUsed + this.#alignment > ringBytes || this.profile?.full) this.flush();
    const bindGroup = this.#bindGroup(kernel, compiled, ranges);
    this.#uniformOffset[0] = this.#writeParams(kernel, params);
    const pass = this.#openPass(kernel, ranges, flops);
    pass.setPipeline(compiled.pipeline);
    pass.setBindGroup(0, bindGroup);
    if (kernel.fields.length > 0) {
      pass.setBindGroup(1, this.#uniformGroup, this.#uniformOffset, 0, 1);
    }
    pass.dispatchWorkgroups(x, y, z);
    if (this.profile !== null) this.#endPass();
  }

  /** Records a copy of `bytes` between buffers. */
  copy(from: GPUBuffer, fromOffset: number, to: GPUBuffer, toOffset: number, bytes: number): void {
    this.#endPass();
    this.#open().copyBufferToBuffer(from, fromOffset, to, toOffset, bytes);
  }

  /** Records setting a range to zero. */
  clear(range: BufferRange): void {
    this.#endPass();
    this.#open().clearBuffer(range.buffer.buffer, range.offset, range.bytes);
  }

  /** Uploads data at once; what was recorded before is submitted first, to keep the order. */
  write(range: BufferRange, data: ArrayBufferView<ArrayBuffer>): void {
    // Deno 2.9 panics on an ArrayBuffer of no bytes.
    if (data.byteLength === 0) return;
    if (this.recording) this.flush();
    this.#device.queue.writeBuffer(range.buffer.buffer, range.offset, data);
  }

  /** Submits everything recorded. */
  flush(): void {
    this.#submit();
    if (this.#fresh !== null) this.#shareOut(this.#fresh);
    this.#fresh = null;
    this.#compiles = 0;
    this.#waited = 0;
  }

  /** Drops everything recorded and not yet submitted. */
  discard(): void {
    this.#endPass();
    this.#encoder = null;
    this.#ringUsed = 0;
  }

  /** Forgets cached bind groups, which hold buffers that are about to be destroyed. */
  forgetBuffers(): void {
    for (const { bindGroups } of this.#compiled.values()) bindGroups.clear();
  }

  #submit(): void {
    if (this.#encoder === null) return;
    this.#endPass();
    this.profile?.resolve(this.#encoder);
    if (this.#ringUsed > 0) {
      this.#device.queue.writeBuffer(this.#ring, 0, this.#ringData, 0, this.#ringUsed);
    }
    this.#device.queue.submit([this.#encoder.finish()]);
    this.#encoder = null;
    this.#ringUsed = 0;
  }

  #open(): GPUCommandEncoder {
    return this.#encoder ??= this.#device.createCommandEncoder();
  }

  #openPass(kernel: Kernel, ranges: readonly BufferRange[], flops: number): GPUComputePassEncoder {
    if (this.#pass === null) {
      const timestampWrites = this.profile?.begin({
        label: kernel.label,
        flops,
        bytes: ranges.reduce((sum, range) => sum + range.bytes, 0),
      });
      this.#pass = this.#open().beginComputePass(timestampWrites ? { timestampWrites } : {});
    }
    return this.#pass;
  }

  #endPass(): void {
    this.#pass?.end();
    this.#pass = null;
  }

  /** Writes the parameters of a kernel into the ring, as the struct that it reads, and returns where. */
  #writeParams({ fields, label }: Kernel, params: Readonly<Record<string, number>>): number {
    const start = this.#ringUsed;
    if (fields.length === 0) return start;
    let at = start;
    for (const { name, type } of fields) {
      const value = params[name];
      if (value === undefined) throw new RangeError(`${label}: parameter ${name} is missing`);
      if (type === "f32") this.#ringView.setFloat32(at, value, true);
      else if (type === "i32") this.#ringView.setInt32(at, value, true);
      else this.#ringView.setUint32(at, value, true);
      at += 4;
    }
    this.#ringUsed += this.#alignment;
    return start;
  }

  #bindGroup(kernel: Kernel, compiled: Compiled, ranges: readonly BufferRange[]): GPUBindGroup {
    let hash = 0;
    for (const { buffer, offset, bytes } of ranges) {
      hash = Math.imul(hash ^ buffer.id, 0x01000193) ^ offset;
      hash = Math.imul(hash, 0x01000193) ^ bytes;
    }
    const alike = compiled.bindGroups.get(hash) ?? [];
    for (const bound of alike) if (binds(bound, ranges)) return bound.group;
    checkSharing(kernel, ranges);
    const group = this.#device.createBindGroup({
      label: kernel.label,
      layout: compiled.layout,
      entries: kernel.bindings.map(({ binding }, i) => ({
        binding,
        resource: {
          buffer: ranges[i]!.buffer.buffer,
          offset: ranges[i]!.offset,
          size: ranges[i]!.bytes,
        },
      })),
    });
    const bound = { group, ranges: ranges.flatMap((r) => [r.buffer.id, r.offset, r.bytes]) };
    compiled.bindGroups.set(hash, [...alike, bound]);
    return group;
  }

  #compile(kernel: Kernel): Compiled {
    if (this.#fresh === null) {
      // So that the GPU works while the CPU compiles.
      const start = performance.now();
      this.#submit();
      this.#waited += performance.now() - start;
      this.#compiles++;
      const isSlow = this.#waited > slow * this.#compiles;
      if (isSlow && this.#precompilers.length > 0) this.#fresh = [];
    }
    this.#onCompile(kernel.label);
    const { pipeline, layout } = createPipeline(this.#device, kernel);
    const compiled = { pipeline, layout, bindGroups: new Map() };
    this.#compiled.set(kernel, compiled);
    this.#fresh?.push(kernel);
    return compiled;
  }

  /**
   * Deals kernels out to the helpers, the last one first: the driver itself compiles them in the order of their
   * use, until it meets those that the helpers have done.
   */
  #shareOut(fresh: readonly Kernel[]): void {
    const backwards = fresh.toReversed();
    this.#precompilers.forEach((precompiler, own, { length }) => {
      precompiler.compile(backwards.filter((_, i) => i % length === own));
    });
  }
}

/** Whether a bind group holds just these ranges. */
function binds(bound: Bound, ranges: readonly BufferRange[]): boolean {
  for (let i = 0; i < ranges.length; i++) {
    const { buffer, offset, bytes } = ranges[i]!;
    if (bound.ranges[3 * i] !== buffer.id) return false;
    if (bound.ranges[3 * i + 1] !== offset || bound.ranges[3 * i + 2] !== bytes) return false;
  }
  return true;
}

/** @throws {RangeError} if a kernel would read a buffer that it writes, which WebGPU does not allow. */
function checkSharing({ label, bindings }: Kernel, ranges: readonly BufferRange[]): void {
  bindings.forEach((written, i) => {
    if (!written.writable) return;
    bindings.forEach((read, j) => {
      if (read.writable || ranges[i]!.buffer !== ranges[j]!.buffer) return;
      throw new RangeError(
        `${label}: ${read.name} and ${written.name}, which is written, are in one buffer`,
      );
    });
  });
}
