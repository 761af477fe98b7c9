/** The device: its limits and features, its memory and scopes, and the commands it is given. */
import { createPipeline } from "./pipeline.ts";
import { type MemoryStats, Pool } from "./pool.ts";
import { Precompiler } from "./precompiler.ts";
import { type KernelTime, Profile } from "./profile.ts";
import type { Kernel } from "./shader.ts";
import { type Grid, Stream } from "./stream.ts";
import {
  byteLength,
  type DType,
  type Scope,
  type Shape,
  sizeOf,
  type Storage,
  Tensor,
  type TypedArrays,
} from "../tensor.ts";

/** No adapter answered: there is no GPU, or no driver for it. */
export class NoAdapterError extends Error {
  /** Its class. */
  override readonly name = "NoAdapterError";
}

/** The GPU was lost: driver reset, machine asleep, out of memory. Nothing on it can be read again. */
export class DeviceLostError extends Error {
  /** Its class. */
  override readonly name = "DeviceLostError";
}

/** An error that the GPU reported for commands of an earlier flush. */
export class GpuError extends Error {
  /** Its class. */
  override readonly name = "GpuError";
}

/** A tensor larger than a kernel can bind on this adapter. */
export class BindingLimitError extends RangeError {
  /** Its class. */
  override readonly name = "BindingLimitError";
  /** Shape that was asked for. */
  readonly shape: Shape;
  /** The largest first axis (the batch, usually) with which it would fit. */
  readonly largestFirst: number;

  /** For a shape that is over a limit in bytes. */
  constructor(shape: Shape, dtype: DType, limit: number) {
    const bytes = byteLength(shape, dtype);
    const largestFirst = Math.floor((limit * (shape[0] ?? 1)) / bytes);
    super(
      `a tensor [${shape}] has ${mib(bytes)}, more than the ${
        mib(limit)
      } that this adapter can bind; ` +
        `the largest first axis that fits is ${largestFirst}`,
    );
    this.shape = shape;
    this.largestFirst = largestFirst;
  }
}

/** What to ask of the adapter. */
export interface GpuOptions {
  /** Which adapter, where there are several (default high-performance). */
  powerPreference?: GPUPowerPreference;
  /** Subgroup operations where available (default true). */
  subgroups?: boolean;
  /** 16-bit floats where available (default true). */
  halves?: boolean;
  /** Lower limits than the adapter's, for tests. */
  limits?: Record<string, number>;
}

/** Who the adapter is. */
export interface AdapterInfo {
  /** Who made it: a name or a number. */
  readonly vendor: string;
  /** Its family; empty where it is not told. */
  readonly architecture: string;
  /** Its model: a name or a number. */
  readonly device: string;
  /** A name for people. */
  readonly description: string;
  /** Software, on the CPU. */
  readonly isFallback: boolean;
}

/**
 * A GPU to compute on.
 *
 * @example
 * ```ts
 * import { Gpu } from "./gpu.ts";
 * const gpu = await Gpu.open();
 * const x = gpu.tensor([1, 2, 3, 4], [2, 2]);
 * console.log(x.shape, await x.data());
 * gpu.close();
 * ```
 */
export class Gpu {
  /** The WebGPU device. */
  readonly device: GPUDevice;
  /** What the device runs on. */
  readonly adapter: AdapterInfo;
  /** Optional WebGPU features that are on. */
  readonly features: ReadonlySet<string>;
  /** Invocations of a subgroup; 0 where subgroups are unavailable or their size varies. */
  readonly subgroupSize: number;
  /** The largest tensor in bytes. */
  readonly maxTensorBytes: number;
  readonly #pool: Pool;
  readonly #precompilers: readonly Precompiler[];
  readonly #stream: Stream;
  readonly #scopes: Scope[] = [];
  readonly #errors: string[] = [];
  #lost: string | null = null;
  #closed = false;
  #one: Tensor<"f32"> | null = null;

  private constructor(
    device: GPUDevice,
    precompilers: readonly Precompiler[],
    info: GPUAdapterInfo,
    subgroups: boolean,
    limits: Readonly<Record<string, number>>,
  ) {
    this.device = device;
    this.adapter = {
      vendor: info.vendor,
      architecture: info.architecture,
      device: info.device,
      description: info.description,
      isFallback: info.isFallbackAdapter,
    };
    this.features = new Set(device.features);
    const { subgroupMinSize, subgroupMaxSize } = info;
    this.subgroupSize = subgroups && subgroupMinSize === subgroupMaxSize ? subgroupMaxSize : 0;
    // A device has WebGPU's default limits at least, also where less was asked for.
    const limit = (name: "maxStorageBufferBindingSize" | "maxBufferSize") =>
      Math.min(device.limits[name], limits[name] ?? Infinity);
    this.maxTensorBytes = Math.min(limit("maxStorageBufferBindingSize"), limit("maxBufferSize"));
    this.#pool = new Pool(device);
    this.#precompilers = precompilers;
    this.#stream = new Stream(device, precompilers);
    device.onuncapturederror = (event) => {
      event.preventDefault();
      this.#errors.push(event.error.message);
    };
    device.lost.then(({ message, reason }) => {
      if (!this.#closed) this.#lost = message || reason;
    });
  }

  /**
   * Opens the default adapter with its own limits and the optional features that it has.
   *
   * @throws {NoAdapterError} where no adapter answers.
   */
  static async open(options: GpuOptions = {}): Promise<Gpu> {
    const { powerPreference = "high-performance", subgroups = true, halves = true, limits = {} } =
      options;
    const adapter = await navigator.gpu?.requestAdapter({ powerPreference });
    if (!adapter) throw new NoAdapterError("no WebGPU adapter answers: run `deno task doctor`");
    const features = [...(halves ? ["shader-f16"] : []), "timestamp-query"]
      .filter((name) => adapter.features.has(name));
    const open = async (names: string[], subgroups: boolean) => {
      const request = () =>
        adapter.requestDevice({
          requiredFeatures: names as GPUFeatureName[],
          requiredLimits: { ...adapterLimits(adapter.limits), ...limits },
        });
      const device = await request();
      const precompilers: Precompiler[] = [];
      // A software driver leaves the other cores alone while it compiles.
      const cores = adapter.info.isFallbackAdapter ? Math.min(navigator.hardwareConcurrency, 4) : 1;
      try {
        while (precompilers.length < cores - 1) precompilers.push(new Precompiler(await request()));
      } catch {
        // Browsers give one device an adapter.
      }
      return new Gpu(device, precompilers, adapter.info, subgroups, limits);
    };
    // Some adapters do subgroups without listing them, so they are asked for by trial.
    if (subgroups) {
      try {
        return await open([...features, "subgroups"], true);
      } catch {
        // Falls through to a device without subgroups.
      }
    }
    return await open(features, false);
  }

  /** Whether kernels can load and store f16; `checkHalves` in src/precision.ts tries how well. */
  get hasHalves(): boolean {
    return this.features.has("shader-f16");
  }

  /** Bytes in use and allocated. */
  get memory(): MemoryStats {
    return this.#pool.stats;
  }

  /** Called with a kernel's label before it is compiled. */
  set onCompile(callback: (label: string) => void) {
    this.#stream.onCompile = callback;
  }

  /** A tensor of numbers; Float32Array and number[] give f32, Uint32Array u32, Uint8Array u8. */
  tensor(data: readonly number[] | Float32Array, shape?: Shape): Tensor<"f32">;
  /** A tensor of u32. */
  tensor(data: Uint32Array, shape?: Shape): Tensor<"u32">;
  /** A tensor of u8, packed four to a word. */
  tensor(data: Uint8Array, shape?: Shape): Tensor<"u8">;
  tensor(
    data: readonly number[] | Float32Array | Uint32Array | Uint8Array,
    shape: Shape = [data.length],
  ): Tensor {
    if (sizeOf(shape) !== data.length) {
      throw new RangeError(`tensor: ${data.length} values for shape [${shape}]`);
    }
    const dtype = data instanceof Uint8Array ? "u8" : data instanceof Uint32Array ? "u32" : "f32";
    const tensor = this.empty(shape, dtype);
    this.write(tensor, Array.isArray(data) ? new Float32Array(data) : data as Float32Array);
    return tensor;
  }

  /**
   * A tensor with unspecified elements, for a kernel to fill.
   *
   * @throws {BindingLimitError} if no kernel could bind it.
   */
  empty(shape: Shape): Tensor<"f32">;
  /** The same of another type. */
  empty<D extends DType>(shape: Shape, dtype: D): Tensor<D>;
  empty(shape: Shape, dtype: DType = "f32"): Tensor {
    const bytes = byteLength(shape, dtype);
    if (bytes > this.maxTensorBytes) throw new BindingLimitError(shape, dtype, this.maxTensorBytes);
    const buffer = this.#pool.acquire(bytes);
    const storage: Storage = { buffer, holds: 0, taped: false, released: false, scope: null };
    enter(storage, this.#scopes.at(-1) ?? null);
    return new Tensor(this, storage, shape, dtype);
  }

  /** A tensor of zeros. */
  zeros(shape: Shape): Tensor<"f32"> {
    const tensor = this.empty(shape);
    this.clear(tensor);
    return tensor;
  }

  /** The scalar 1, made once. */
  get one(): Tensor<"f32"> {
    if (this.#one === null) {
      this.#one = this.unscoped(() => this.tensor([1], []));
    }
    return this.#one;
  }

  /**
   * Records a dispatch: tensors by the kernel's variable names, parameters by its struct's fields. A tensor that the
   * kernel, with its constants, does not bind may be null or undefined.
   *
   * @throws {RangeError} for a tensor of f16 where the kernel takes none
   */
  run(
    kernel: Kernel,
    tensors: Readonly<Record<string, Tensor | null | undefined>>,
    params: Readonly<Record<string, number>>,
    grid: Grid,
    flops = 0,
  ): void {
    const ranges: Tensor[] = [];
    for (const { name } of kernel.bindings) {
      const tensor = tensors[name] ?? null;
      if (tensor === null) throw new RangeError(`${kernel.label}: tensor ${name} is missing`);
      ranges.push(tensor);
    }
    const fitting = ranges.some(isHalf)
      ? kernel.shader.kernelFor(kernel, ranges.map(({ dtype }) => dtype))
      : kernel;
    this.#stream.dispatch(fitting, ranges, params, grid, flops);
  }

  /** Records setting every element to zero. */
  clear(tensor: Tensor): void {
    this.#stream.clear(tensor);
  }

  /** Records a copy of `from` into `to`, a tensor of the same number of bytes. */
  copy(from: Tensor, to: Tensor): void {
    if (from.bytes !== to.bytes) throw new RangeError(`copy: [${from.shape}] into [${to.shape}]`);
    this.#stream.copy(from.buffer.buffer, from.offset, to.buffer.buffer, to.offset, from.bytes);
  }

  /** Records a copy of a scalar into element `index` of `to`. */
  copyScalar(from: Tensor, to: Tensor, index: number): void {
    this.#stream.copy(from.buffer.buffer, from.offset, to.buffer.buffer, to.offset + 4 * index, 4);
  }

  /** Replaces the elements of a tensor. */
  write(tensor: Tensor, data: Float32Array | Uint32Array | Uint8Array): void {
    // Uploads are whole words; only u8 data can have a ragged end.
    const padded = data.byteLength % 4 === 0 ? data : padToWord(data as Uint8Array);
    this.#stream.write(tensor, padded as ArrayBufferView<ArrayBuffer>);
  }

  /** Submits everything recorded; throws what the GPU has reported until now. */
  flush(): void {
    this.#stream.flush();
    this.#check();
  }

  /** Drops what was recorded since the last flush. */
  discard(): void {
    this.#stream.discard();
  }

  /** Copies a tensor to the CPU. */
  async read<D extends DType>(tensor: Tensor<D>): Promise<TypedArrays[D]> {
    const bytes = tensor.bytes;
    const staging = this.device.createBuffer({
      size: bytes,
      usage: GPUBufferUsage.MAP_READ | GPUBufferUsage.COPY_DST,
    });
    this.#stream.copy(tensor.buffer.buffer, tensor.offset, staging, 0, bytes);
    let copy: ArrayBuffer;
    try {
      this.flush();
      await this.#done(staging.mapAsync(GPUMapMode.READ));
      copy = staging.getMappedRange().slice(0, byteLength(tensor.shape, tensor.dtype));
    } finally {
      staging.destroy();
    }
    const array = tensor.dtype === "f32"
      ? new Float32Array(copy)
      : tensor.dtype === "f16"
      ? new Float32Array(new Float16Array(copy))
      : tensor.dtype === "u32"
      ? new Uint32Array(copy)
      : new Uint8Array(copy);
    return array as TypedArrays[D];
  }

  /** Waits until the GPU has done everything that was recorded. */
  async idle(): Promise<void> {
    this.flush();
    await this.#done(this.device.queue.onSubmittedWorkDone());
  }

  /**
   * Runs `fn`, then gives back all tensors that were made inside and are not in what it returns (a
   * tensor, or arrays and plain objects of tensors). What the tape saved for `backward()` passes to
   * the enclosing scope.
   */
  scope<T>(fn: () => T extends PromiseLike<unknown> ? never : T): T {
    const scope: Scope = [];
    this.#scopes.push(scope);
    let result: T | undefined;
    try {
      return result = fn();
    } finally {
      this.#scopes.pop();
      const parent = this.#scopes.at(-1) ?? null;
      pass(result, scope, parent);
      for (const storage of scope) {
        if (storage.scope !== scope) continue;
        if (parent !== null && storage.holds > 0) enter(storage, parent);
        else this.release(storage);
      }
    }
  }

  /** A scope whose commands are submitted at its end: one training step. */
  step<T>(fn: () => T extends PromiseLike<unknown> ? never : T): T {
    const result = this.scope(fn);
    this.flush();
    this.#pool.rewind();
    return result;
  }

  /** Runs `fn` so that the tensors it makes belong to no scope: parameters, optimiser state. */
  unscoped<T>(fn: () => T): T {
    const scopes = this.#scopes.splice(0);
    try {
      return fn();
    } finally {
      this.#scopes.push(...scopes);
    }
  }

  /** Lets a storage live as long as another does: in the same scope, or in none. */
  attach(storage: Storage, to: Storage): void {
    enter(storage, to.scope);
  }

  /** Gives a storage back to the pool; a second time is no error. */
  release(storage: Storage): void {
    if (storage.released) return;
    storage.released = true;
    this.#pool.release(storage.buffer);
  }

  /** Destroys the buffers that no tensor uses. */
  trim(): void {
    this.flush();
    this.#stream.forgetBuffers();
    this.#pool.trim();
  }

  /** Starts timing every kernel; false where the adapter has no timestamps. */
  startProfile(): boolean {
    if (!this.features.has("timestamp-query")) return false;
    this.flush();
    this.#stream.profile ??= new Profile(this.device);
    this.#stream.profile.reset();
    return true;
  }

  /** Kernel times since {@linkcode startProfile}, longest first. */
  async profile(): Promise<KernelTime[]> {
    this.flush();
    return await this.#stream.profile?.collect() ?? [];
  }

  /** Compiles a kernel and returns the compiler's errors, by line and column of the `.wgsl` file. */
  async check(kernel: Kernel): Promise<string[]> {
    this.device.pushErrorScope("validation");
    const { module } = createPipeline(this.device, kernel);
    const error = await this.device.popErrorScope();
    const { shader, label } = kernel;
    const messages = (await module.getCompilationInfo()).messages.filter((m) => m.type === "error");
    const located = messages.map(({ lineNum, linePos, message }) =>
      `shaders/${shader.name}.wgsl:${
        shader.sourceLine(kernel, lineNum)
      }:${linePos}: ${message} (${label})`
    );
    return located.length > 0 || error === null ? located : [`${label}: ${error.message}`];
  }

  /** Destroys the device and everything on it. */
  close(): void {
    this.#closed = true;
    this.device.destroy();
    for (const precompiler of this.#precompilers) precompiler.close();
  }

  /** Waits for the GPU, then throws what it has reported. */
  async #done(work: Promise<unknown>): Promise<void> {
    try {
      await work;
    } catch (error) {
      // Why it failed is told a moment after that it failed.
      await new Promise((resolve) => setTimeout(resolve));
      this.#check();
      throw error;
    }
    this.#check();
  }

  #check(): void {
    if (this.#lost !== null) throw new DeviceLostError(`the GPU was lost: ${this.#lost}`);
    if (this.#errors.length > 0) {
      // One mistake is reported several times: where it was made, and by the kernel that met it.
      const messages = [...new Set(this.#errors.splice(0))];
      const more = messages.length > 3 ? `\n(and ${messages.length - 3} more)` : "";
      throw new GpuError(messages.slice(0, 3).join("\n") + more);
    }
  }
}

/** The limits worth raising to what the adapter has. */
function adapterLimits(limits: GPUSupportedLimits): Record<string, number> {
  return {
    maxStorageBufferBindingSize: limits.maxStorageBufferBindingSize,
    maxBufferSize: limits.maxBufferSize,
    maxComputeWorkgroupStorageSize: limits.maxComputeWorkgroupStorageSize,
    maxComputeInvocationsPerWorkgroup: limits.maxComputeInvocationsPerWorkgroup,
    maxComputeWorkgroupSizeX: limits.maxComputeWorkgroupSizeX,
    maxComputeWorkgroupSizeY: limits.maxComputeWorkgroupSizeY,
  };
}

function isHalf({ dtype }: Tensor): boolean {
  return dtype === "f16";
}

function enter(storage: Storage, scope: Scope | null): void {
  storage.scope = scope;
  scope?.push(storage);
}

/** Passes the storages of `from` that a value holds to the scope around it. */
function pass(value: unknown, from: Scope, to: Scope | null): void {
  if (value instanceof Tensor) {
    if (value.storage.scope === from) enter(value.storage, to);
    if (value.grad !== null) pass(value.grad, from, to);
  } else if (Array.isArray(value)) {
    for (const item of value) pass(item, from, to);
  } else if (
    value !== null && typeof value === "object" && Object.getPrototypeOf(value) === Object.prototype
  ) {
    for (const item of Object.values(value)) pass(item, from, to);
  }
}

function padToWord(data: Uint8Array): Uint8Array {
  const padded = new Uint8Array(Math.ceil(data.length / 4) * 4);
  padded.set(data);
  return padded;
}

function mib(bytes: number): string {
  return `${(bytes / 2 ** 20).toFixed(1)} MiB`;
}
