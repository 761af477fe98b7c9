/** Decoding many examples at once, on all cores, or reading them from a cache on disk. */

import { UserError } from "../../errors.ts";
import type { Dataset, Images } from "../dataset.ts";
import { readImage } from "./decode.ts";
import {
  type Decoded,
  decodeOrigins,
  type DecodeRequest,
  type Origin,
  settle,
} from "./decode_files.ts";
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
 * Decodes the examples at `indices` to u8 [n, size, size, channels], in that order. Files and
 * phantoms are decoded by workers if there are enough of them; other examples, and few, right here.
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
  options: LoadOptions,
): Promise<LoadedImages> {
  return (await loadParts(dataset, { indices }, options)).indices;
}

/**
 * {@linkcode loadImages} of several parts of a data set, all at once.
 *
 * @throws UserError naming an unreadable file and the reason; with `skipBad` only if a part has no other
 */
export async function loadParts<Name extends string>(
  dataset: Dataset,
  parts: Readonly<Record<Name, readonly number[]>>,
  { size, channels, workers = defaultWorkers(), onProgress, skipBad, cache, onNote }: LoadOptions,
): Promise<Record<Name, LoadedImages>> {
  const indices = Object.values<readonly number[]>(parts).flat();
  const stride = size * size * channels;
  const pixels = new Uint8Array(indices.length * stride);
  const rowAt = (position: number) => pixels.subarray(position * stride, (position + 1) * stride);
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
  const missing: Job[] = [];
  for (const [position, index] of indices.entries()) {
    const { file, film } = dataset.examples[index]!;
    const origin = film ?? file;
    if (origin === null) {
      const load = () => dataset.load(index, size, channels);
      take(position, await settle(async () => ({ pixels: await load(), key: null })));
    } else if (file !== null && store?.size && isStored(store, file, rowAt(position))) {
      onProgress?.(++done, indices.length);
    } else missing.push({ position, origin });
  }
  store?.close();

  try {
    await decodeEach(missing, {
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

  let end = 0;
  const gather = (part: readonly number[]): LoadedImages => {
    const start = end;
    end += part.length;
    const [good, bad] = [false, true].map((isBad) =>
      part.keys().filter((row) => reasons.has(start + row) === isBad).toArray()
    ) as [number[], number[]];
    if (bad.length > 0 && good.length === 0) {
      throw new UserError(`none of ${bad.length} images can be read; ${reasons.get(start)}`);
    }
    const own = pixels.subarray(start * stride, end * stride);
    if (bad.length > 0) {
      good.forEach((from, row) => own.copyWithin(row * stride, from * stride, (from + 1) * stride));
    }
    return {
      images: { count: good.length, size, channels, pixels: own.subarray(0, good.length * stride) },
      indices: good.map((row) => part[row]!),
      bad: bad.map((row) => ({ index: part[row]!, reason: reasons.get(start + row)! })),
    };
  };
  const loaded = Object.entries<readonly number[]>(parts).map(([name, part]) => [
    name,
    gather(part),
  ]);
  return Object.fromEntries(loaded) as Record<Name, LoadedImages>;
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

/** What to decode, and whose pixels it holds. */
interface Job {
  readonly position: number;
  readonly origin: Origin;
}

/** Decodes images here, or in workers, each of which takes the next chunk as soon as it is free. */
async function decodeEach(
  jobs: readonly Job[],
  { workers, onDecoded, ...settings }: Omit<DecodeRequest, "origins"> & {
    readonly workers: number;
    readonly onDecoded: (position: number, decoded: Decoded) => void;
  },
): Promise<void> {
  const url = new URL("./decode_worker.ts", import.meta.url);
  const threads = await mayStart(url)
    ? Math.min(workers, Math.floor(jobs.length / WORTH_A_WORKER))
    : 1;
  const chunks = function* (length: number) {
    for (let at = 0; at < jobs.length; at += length) yield jobs.slice(at, at + length);
  };
  const requestOf = (chunk: readonly Job[]) => ({
    ...settings,
    origins: chunk.map(({ origin }) => origin),
  });
  const take = (chunk: readonly Job[], decoded: readonly Decoded[]) =>
    chunk.forEach(({ position }, i) => onDecoded(position, decoded[i]!));
  if (threads < 2) {
    for (const chunk of chunks(1)) take(chunk, await decodeOrigins(requestOf(chunk)));
    return;
  }
  const queue = chunks(CHUNK);
  const pool = Array.from({ length: threads }, () => new Worker(url, { type: "module" }));
  try {
    await Promise.all(pool.map(async (worker) => {
      for (const chunk of queue) take(chunk, await decodeBy(worker, requestOf(chunk)));
    }));
  } finally {
    for (const worker of pool) worker.terminate();
  }
}

/** Whether a worker may be started, which reads its module: phantoms are drawn without any permission. */
async function mayStart(module: URL): Promise<boolean> {
  if (module.protocol !== "file:") return true;
  return (await Deno.permissions.query({ name: "read", path: module })).state === "granted";
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
