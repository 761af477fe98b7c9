/** Time per kernel by timestamp queries: one compute pass a dispatch while it is on. */

/** What was measured of one kernel. */
export interface KernelTime {
  /** `file.entry NAME=value …`. */
  readonly label: string;
  /** Dispatches. */
  calls: number;
  /** GPU time in milliseconds. */
  ms: number;
  /** Floating-point operations, where the op states them. */
  flops: number;
  /** Bytes of all buffers bound: an upper bound of what was moved once. */
  bytes: number;
}

const capacity = 2048;

interface Sample {
  readonly label: string;
  readonly flops: number;
  readonly bytes: number;
}

/** Collects begin and end timestamps of dispatches. */
export class Profile {
  readonly #device: GPUDevice;
  readonly #queries: GPUQuerySet;
  readonly #resolved: GPUBuffer;
  readonly #pending: { staging: GPUBuffer; samples: Sample[] }[] = [];
  readonly #times = new Map<string, KernelTime>();
  #samples: Sample[] = [];

  constructor(device: GPUDevice) {
    this.#device = device;
    this.#queries = device.createQuerySet({ type: "timestamp", count: 2 * capacity });
    this.#resolved = device.createBuffer({
      size: 16 * capacity,
      usage: GPUBufferUsage.QUERY_RESOLVE | GPUBufferUsage.COPY_SRC,
    });
  }

  /** Whether the next dispatch has a pair of queries left before a flush. */
  get full(): boolean {
    return this.#samples.length === capacity;
  }

  /** The timestamp writes for the pass of one dispatch. */
  begin(sample: Sample): GPUComputePassTimestampWrites {
    const first = 2 * this.#samples.length;
    this.#samples.push(sample);
    return {
      querySet: this.#queries,
      beginningOfPassWriteIndex: first,
      endOfPassWriteIndex: first + 1,
    };
  }

  /** Records the readback of what was sampled, at the end of a command encoder. */
  resolve(encoder: GPUCommandEncoder): void {
    const count = this.#samples.length;
    if (count === 0) return;
    const staging = this.#device.createBuffer({
      size: 16 * count,
      usage: GPUBufferUsage.MAP_READ | GPUBufferUsage.COPY_DST,
    });
    encoder.resolveQuerySet(this.#queries, 0, 2 * count, this.#resolved, 0);
    encoder.copyBufferToBuffer(this.#resolved, 0, staging, 0, 16 * count);
    this.#pending.push({ staging, samples: this.#samples });
    this.#samples = [];
  }

  /** Waits for the GPU and returns the times so far, longest first. */
  async collect(): Promise<KernelTime[]> {
    for (const { staging, samples } of this.#pending.splice(0)) {
      await staging.mapAsync(GPUMapMode.READ);
      const stamps = new BigUint64Array(staging.getMappedRange());
      samples.forEach(({ label, flops, bytes }, i) => {
        let time = this.#times.get(label);
        if (time === undefined) {
          this.#times.set(label, time = { label, calls: 0, ms: 0, flops: 0, bytes: 0 });
        }
        time.calls++;
        time.ms += Number(stamps[2 * i + 1]! - stamps[2 * i]!) / 1e6;
        time.flops += flops;
        time.bytes += bytes;
      });
      staging.unmap();
      staging.destroy();
    }
    return [...this.#times.values()].sort((a, b) => b.ms - a.ms);
  }

  /** Forgets what was measured so far. */
  reset(): void {
    for (const { staging } of this.#pending.splice(0)) staging.destroy();
    this.#times.clear();
  }
}
