/** Arrays on the GPU: storage, shape and their place in the tape. */
import type { Gpu } from "./gpu/gpu.ts";
import type { PooledBuffer } from "./gpu/pool.ts";
import type { BufferRange } from "./gpu/stream.ts";
import type { Node } from "./autograd.ts";

/**
 * Element types. u8 is packed four to a 32-bit word. f16 is for activations and their gradients: kernels
 * load it as 32-bit floats, compute with these and round what they store.
 */
export type DType = "f32" | "f16" | "u32" | "u8";

/** Bytes of an element. */
const elementBytes: Readonly<Record<DType, number>> = { f32: 4, f16: 2, u32: 4, u8: 1 };

/** Sizes of the axes, outermost first; row-major, so the last axis is contiguous. */
export type Shape = readonly number[];

/** What {@linkcode Tensor.data} gives for each element type. */
export interface TypedArrays {
  /** 32-bit floating point. */
  f32: Float32Array<ArrayBuffer>;
  /** 16-bit floating point, as the same numbers in 32 bits. */
  f16: Float32Array<ArrayBuffer>;
  /** 32-bit unsigned integers: labels, indices. */
  u32: Uint32Array<ArrayBuffer>;
  /** Bytes: images. */
  u8: Uint8Array<ArrayBuffer>;
}

/**
 * A buffer and who holds it. What the tape made goes back to the pool when its op was walked and
 * nobody holds it, everything else when its scope ends.
 */
export interface Storage {
  /** Where the elements are. */
  readonly buffer: PooledBuffer;
  /** How often it is saved for a backward, or as a gradient on its way. */
  holds: number;
  /** Made by a recorded op, so nobody but the tape needs it after the backward. */
  taped: boolean;
  /** Whether the memory was given back. */
  released: boolean;
  /** The scope that gives it back at its end; null for none. */
  scope: Scope | null;
}

/** The storages that go when it ends: those whose `scope` it is, as they may have passed to another. */
export type Scope = Storage[];

/** An n-dimensional array on a {@linkcode Gpu}. Immutable by convention: ops make new tensors. */
export class Tensor<D extends DType = DType> implements BufferRange {
  /** Where it lives. */
  readonly gpu: Gpu;
  /** Sizes of its axes. */
  readonly shape: Shape;
  /** Type of its elements. */
  readonly dtype: D;
  /** Number of elements. */
  readonly size: number;
  /** Its memory, which views share. */
  readonly storage: Storage;
  /** Start in the storage's buffer, in bytes. */
  readonly offset: number;
  /** Whether {@linkcode backward} computes a gradient for it. */
  requiresGrad = false;
  /** The gradient of a leaf with `requiresGrad`, after `backward()`. */
  grad: Tensor | null = null;
  /** The op that made it, while recording. */
  node: Node | null = null;

  /** Use `gpu.tensor()`, `gpu.empty()`, …; the constructor makes a view of existing storage. */
  constructor(gpu: Gpu, storage: Storage, shape: Shape, dtype: D, offset = 0) {
    this.gpu = gpu;
    this.storage = storage;
    this.shape = shape;
    this.dtype = dtype;
    this.size = sizeOf(shape);
    this.offset = offset;
  }

  /** The buffer that holds it; throws if the memory was given back. */
  get buffer(): PooledBuffer {
    if (this.storage.released) {
      throw new Error(
        `tensor [${this.shape}] was released at the end of its scope or by backward(); ` +
          "return it from the scope, or keep() it before backward()",
      );
    }
    return this.storage.buffer;
  }

  /** Bytes bound to kernels: the elements, rounded up to whole vec4 of 16 bytes. */
  get bytes(): number {
    return Math.max(16, Math.ceil(this.size * elementBytes[this.dtype] / 16) * 16);
  }

  /** Copies the elements to the CPU. Waits for the GPU (≥ 10 ms): never inside a step. */
  data(): Promise<TypedArrays[D]> {
    return this.gpu.read(this);
  }

  /** The value of a tensor of one element. Waits for the GPU, as `data()` does. */
  async item(): Promise<number> {
    if (this.size !== 1) {
      throw new RangeError(`item: tensor [${this.shape}] has ${this.size} elements`);
    }
    return (await this.data())[0]!;
  }

  /** Gives the memory back now; only for tensors that left every scope. */
  dispose(): void {
    this.gpu.release(this.storage);
  }
}

/** Number of elements of a shape; 1 for a scalar. */
export function sizeOf(shape: Shape): number {
  let size = 1;
  for (const n of shape) size *= n;
  return size;
}

/** Bytes of the elements of a shape. */
export function byteLength(shape: Shape, dtype: DType): number {
  return sizeOf(shape) * elementBytes[dtype];
}

/** Whether two shapes are the same. */
export function sameShape(a: Shape, b: Shape): boolean {
  return a.length === b.length && a.every((n, i) => n === b[i]);
}

/** The elements of a tensor under another shape of the same size, without its history. */
export function view<D extends DType>(tensor: Tensor<D>, shape: Shape): Tensor<D> {
  return new Tensor(tensor.gpu, tensor.storage, shape, tensor.dtype, tensor.offset);
}
