/** Decoding many examples at once, on all cores, or reading them from a cache on disk. */

import { UserError } from "../../errors.ts";
import type { Dataset, Images } from "../dataset.ts";
import { readImage } from "./decode.ts";
import { type Decoded, decodeFiles, type DecodeRequest, settle } from "./decode_files.ts";
import type { DecodeReply } from "./decode_worker.ts";
import { contentKey, PixelCache } from "./pixel_cache.ts";

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
  /**
   * Folder of decoded images, by the content of their files: what it holds is read, what it lacks is
   * added. It takes up to 8 GiB and may be shared and deleted; null, the default, is none.
   */
  readonly cache?: string | null;
  /** Called where that folder cannot be written, which stops nothing. */
  readonly onNote?: (note: string) => void;
}

/** {@linkcode DecodeOptions}, and what happens to a bad image. */
export interface LoadOptions extends DecodeOptions {
  /** Leave out images that cannot be read, instead of throwing for the first; false by default. */
  readonly skipBad?: boolean;
}

/** An image that was left out. */
export interface BadImage {
  /** Which example of the data set. */
  readonly index: number;
  /** One line: its path and what is wrong with it. */
  readonly reason: string;
}

/** What {@linkcode loadImages} could read: row `i` of `images` is example `indices[i]`. */
export interface LoadedImages {
  /** u8 [indices.length, size, size, channels] */
  readonly images: Images;
  /** Examples of the data set, in the order asked for. */
  readonly indices: readonly number[];
  /** The others, in that order too. */
  readonly bad: readonly BadImage[];
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
  options: DecodeOptions,
): Promise<Images> {
  return (await loadImages(dataset, indices, options)).images;
}

/**
 * {@linkcode decodeAll} that can leave out bad images. Labels and patients follow from `indices`.
 *
 * @throws UserError naming an unreadable file and the reason; with `skipBad` only if all of them are
 */
export async function loadImages(
  dataset: Dataset,
  indices: readonly number[],
  { size, channels, workers = defaultWorkers(), onProgress, skipBad, cache, onNote }: LoadOptions,
): Promise<LoadedImages> {
  const stride = size * size * channels;
  const pixels = new Uint8Array(indices.length * stride);
  const rowAt = (position: number) => pixels.subarray(position * stride, (position + 1) * stride);
  const files = indices.map((index) => dataset.examples[index]!.file);
  const fresh = new Map<string, Uint8Array>();
  const reasons = new Map<number, string>();
  let done = 0;
  const take = (position: number, decoded: Decoded) => {
    if ("pixels" in decoded) {
      rowAt(position).set(decoded.pixels);
      if (decoded.key !== null) fresh.set(decoded.key, rowAt(position));
    } else if (skipBad) reasons.set(position, decoded.reason);
    else throw new UserError(decoded.reason);
    onProgress?.(++done, indices.length);
  };

  const store = cache ? new PixelCache(cache, size, channels) : null;
  const missing: number[] = [];
  for (const [position, file] of files.entries()) {
    if (file === null) {
      const load = () => dataset.load(indices[position]!, size, channels);
      take(position, await settle(async () => ({ pixels: await load(), key: null })));
    } else if (store?.size && isStored(store, file, rowAt(position))) {
      onProgress?.(++done, indices.length);
    } else missing.push(position);
  }
  store?.close();

  try {
    await decodeEach(missing.map((position) => ({ position, file: files[position]! })), {
      ...{ size, channels, workers },
      onDecoded: take,
    });
  } finally {
    // Also where a bad image ends it: once that is mended, the others need not be decoded again.
    try {
      store?.write(fresh);
    } catch (error) {
      onNote?.(`decoded images are not kept: ${(error as Error).message}`);
    }
  }

  const [good, bad] = [false, true].map((isBad) =>
    indices.keys().filter((position) => reasons.has(position) === isBad).toArray()
  ) as [number[], number[]];
  if (bad.length > 0 && good.length === 0) {
    throw new UserError(`none of ${bad.length} images can be read; ${reasons.get(bad[0]!)}`);
  }
  if (bad.length > 0) {
    good.forEach((position, row) =>
      pixels.copyWithin(row * stride, position * stride, (position + 1) * stride)
    );
  }
  const left = pixels.subarray(0, good.length * stride);
  return {
    images: { count: good.length, size, channels, pixels: left },
    indices: good.map((position) => indices[position]!),
    bad: bad.map((position) => ({ index: indices[position]!, reason: reasons.get(position)! })),
  };
}

/** Copies the pixels of a file to `into`, if they are in the cache. */
function isStored(cache: PixelCache, file: string, into: Uint8Array): boolean {
  try {
    return cache.read(contentKey(readImage(file)), into);
  } catch (error) {
    // Decoding will say what is wrong with it.
    if (error instanceof UserError) return false;
    throw error;
  }
}

const defaultWorkers = () => Math.min(navigator.hardwareConcurrency, 8);

/** A file, and whose pixels it holds. */
interface Job {
  readonly position: number;
  readonly file: string;
}

/** Decodes files here, or in workers, each of which takes the next chunk as soon as it is free. */
async function decodeEach(
  jobs: readonly Job[],
  { workers, onDecoded, ...settings }: Omit<DecodeRequest, "files"> & {
    readonly workers: number;
    readonly onDecoded: (position: number, decoded: Decoded) => void;
  },
): Promise<void> {
  const threads = Math.min(workers, Math.floor(jobs.length / WORTH_A_WORKER));
  const chunks = function* (length: number) {
    for (let at = 0; at < jobs.length; at += length) yield jobs.slice(at, at + length);
  };
  const requestOf = (chunk: readonly Job[]) => ({
    ...settings,
    files: chunk.map(({ file }) => file),
  });
  const take = (chunk: readonly Job[], decoded: readonly Decoded[]) =>
    chunk.forEach(({ position }, i) => onDecoded(position, decoded[i]!));
  if (threads < 2) {
    for (const chunk of chunks(1)) take(chunk, await decodeFiles(requestOf(chunk)));
    return;
  }
  const queue = chunks(CHUNK);
  const url = new URL("./decode_worker.ts", import.meta.url);
  const pool = Array.from({ length: threads }, () => new Worker(url, { type: "module" }));
  try {
    await Promise.all(pool.map(async (worker) => {
      for (const chunk of queue) take(chunk, await decodeBy(worker, requestOf(chunk)));
    }));
  } finally {
    for (const worker of pool) worker.terminate();
  }
}

function decodeBy(worker: Worker, request: DecodeRequest): Promise<readonly Decoded[]> {
  return new Promise((resolve, reject) => {
    worker.onmessage = ({ data }: MessageEvent<DecodeReply>) => {
      if ("decoded" in data) resolve(data.decoded);
      else reject(new Error(data.message));
    };
    worker.onerror = (event) => {
      event.preventDefault();
      reject(new Error(`a decoding worker failed: ${event.message}`));
    };
    worker.postMessage(request);
  });
}
