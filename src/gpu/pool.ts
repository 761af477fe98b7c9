/** GPU memory: whole buffers, kept by exact size and handed out last in, first out. */

/** A buffer with the identity by which bind groups are cached. */
export interface PooledBuffer {
  /** Different for every buffer. */
  readonly id: number;
  /** The WebGPU buffer. */
  readonly buffer: GPUBuffer;
  /** Its size. */
  readonly bytes: number;
}

/** Bytes of GPU memory. */
export interface MemoryStats {
  /** In tensors now. */
  readonly live: number;
  /** The most that was ever live at once. */
  readonly peak: number;
  /** Held from the driver: live and free buffers. */
  readonly allocated: number;
}

const usage = GPUBufferUsage.STORAGE | GPUBufferUsage.COPY_SRC | GPUBufferUsage.COPY_DST;

/**
 * The pool of a device. A step that asks for the same sizes in the same order as the one before gets the same
 * buffers, so nothing is allocated in the steady state and cached bind groups stay valid.
 */
export class Pool {
  readonly #device: GPUDevice;
  readonly #free = new Map<number, PooledBuffer[]>();
  #nextId = 0;
  #live = 0;
  #peak = 0;
  #allocated = 0;

  constructor(device: GPUDevice) {
    this.#device = device;
  }

  get stats(): MemoryStats {
    return { live: this.#live, peak: this.#peak, allocated: this.#allocated };
  }

  /** A buffer of at least `bytes`, rounded up to 16 so that any tensor can be read as vec4. */
  acquire(bytes: number): PooledBuffer {
    const size = Math.max(16, Math.ceil(bytes / 16) * 16);
    this.#live += size;
    this.#peak = Math.max(this.#peak, this.#live);
    const free = this.#free.get(size)?.pop();
    if (free !== undefined) return free;
    this.#allocated += size;
    return { id: this.#nextId++, buffer: this.#device.createBuffer({ size, usage }), bytes: size };
  }

  /** Gives a buffer back; commands already recorded may still use it. */
  release(buffer: PooledBuffer): void {
    this.#live -= buffer.bytes;
    const free = this.#free.get(buffer.bytes);
    if (free === undefined) this.#free.set(buffer.bytes, [buffer]);
    else free.push(buffer);
  }

  /** Hands out free buffers in the order of their making from here on: a step begins like the one before. */
  rewind(): void {
    for (const list of this.#free.values()) list.sort((a, b) => b.id - a.id);
  }

  /** Destroys all free buffers; only after every recorded command was submitted. */
  trim(): void {
    for (const list of this.#free.values()) {
      for (const { buffer, bytes } of list) {
        buffer.destroy();
        this.#allocated -= bytes;
      }
    }
    this.#free.clear();
  }
}
