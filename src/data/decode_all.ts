/** Decoding many examples at once, on all cores. */

import { UserError } from "../errors.ts";
import type { Dataset, Images } from "./dataset.ts";
import type { DecodeReply, DecodeRequest } from "./decode_worker.ts";

/** How to decode. */
export interface DecodeOptions {
  /** Side of the square images. */
  readonly size: number;
  /** 1 for gray, 3 for RGB. */
  readonly channels: 1 | 3;
  /** Worker threads; by default one for each core up to 8. */
  readonly workers?: number;
  /** Called as images come in. */
  readonly onProgress?: (done: number, total: number) => void;
}

/** Images a worker takes at a time. */
const CHUNK = 32;

/** With fewer images for each worker, starting it takes longer than it saves. */
const WORTH_A_WORKER = 128;

/**
 * Decodes the examples at `indices` to u8 [n, size, size, channels], in that order. Image files are
 * decoded by workers if there are enough of them; other examples, and few files, right here.
 *
 * @throws UserError naming an unreadable file and the reason
 */
export async function decodeAll(
  dataset: Dataset,
  indices: readonly number[],
  { size, channels, workers = Math.min(navigator.hardwareConcurrency, 8), onProgress }:
    DecodeOptions,
): Promise<Images> {
  const stride = size * size * channels;
  const pixels = new Uint8Array(indices.length * stride);
  const fileOf = (position: number) => dataset.examples[indices[position]!]!.file;

  const all = indices.keys().toArray();
  const inFiles = all.filter((position) => fileOf(position) !== null);
  const threads = Math.min(workers, Math.floor(inFiles.length / WORTH_A_WORKER));
  const remote = threads > 1 ? inFiles : [];
  const local = threads > 1 ? all.filter((position) => fileOf(position) === null) : all;

  let done = 0;
  const requests = Array.from({ length: Math.ceil(remote.length / CHUNK) }, (_, chunk) => {
    const positions = remote.slice(chunk * CHUNK, (chunk + 1) * CHUNK);
    return { positions, files: positions.map((position) => fileOf(position)!), size, channels };
  });
  await decodeInWorkers(threads, requests, ({ positions }, decoded) => {
    positions.forEach((position, i) => {
      pixels.set(decoded.subarray(i * stride, (i + 1) * stride), position * stride);
    });
    onProgress?.(done += positions.length, indices.length);
  });
  for (const position of local) {
    pixels.set(await dataset.load(indices[position]!, size, channels), position * stride);
    onProgress?.(++done, indices.length);
  }
  return { count: indices.length, size, channels, pixels };
}

/** Hands the requests to `threads` workers, each the next one as soon as it is free. */
async function decodeInWorkers<R extends DecodeRequest>(
  threads: number,
  requests: readonly R[],
  onDecoded: (request: R, pixels: Uint8Array) => void,
): Promise<void> {
  if (requests.length === 0) return;
  const queue = requests.values();
  const url = new URL("./decode_worker.ts", import.meta.url);
  const pool = Array.from({ length: threads }, () => new Worker(url, { type: "module" }));
  try {
    await Promise.all(pool.map(async (worker) => {
      for (const request of queue) onDecoded(request, await decodeBy(worker, request));
    }));
  } finally {
    for (const worker of pool) worker.terminate();
  }
}

function decodeBy(worker: Worker, { files, size, channels }: DecodeRequest): Promise<Uint8Array> {
  return new Promise((resolve, reject) => {
    worker.onmessage = ({ data }: MessageEvent<DecodeReply>) => {
      if ("pixels" in data) resolve(data.pixels);
      else reject(data.mistake ? new UserError(data.message) : new Error(data.message));
    };
    worker.onerror = (event) => {
      event.preventDefault();
      reject(new Error(`a decoding worker failed: ${event.message}`));
    };
    worker.postMessage({ files, size, channels });
  });
}
