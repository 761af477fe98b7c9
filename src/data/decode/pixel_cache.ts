/**
 * Decoded images on disk, so that no later run decodes them again. A folder of packs; each holds the
 * images that one call of {@linkcode loadImages} had to decode, and is never changed:
 *
 *     v<decoder>-<size>x<size>x<channels>-<hash>.pack
 *
 *     "wgrad-pixels-1\\n\\0"                         16 bytes
 *     images, bytes an image                       u32 each, little-endian
 *     SHA-256 of the image file, CRC-32 of its pixels        36 bytes an image
 *     CRC-32 of all that
 *     pixels                                       u8 [images, size, size, channels]
 *
 * Images are found by the hash of their file's bytes, so a file that is renamed or copied is known and
 * one that was overwritten is not, whatever its name and date. To read and hash a file takes about a
 * twentieth of the time to decode it. Runs may share a folder: a pack appears whole, by rename, and is
 * found damaged by its length and checksums, then deleted.
 */

import { createHash } from "node:crypto";
import {
  closeSync,
  fstatSync,
  mkdirSync,
  openSync,
  readdirSync,
  readSync,
  rmSync,
  statSync,
  utimesSync,
} from "node:fs";
import { join } from "node:path";
import { crc32 } from "node:zlib";
import { writeAtomically } from "../../files.ts";

/** Goes up when the pixels of any file change: by another decoder, resize or rounding. */
export const DECODER_VERSION = 1;

/** What all packs of a folder may take; those unused for longest are deleted first. */
export const CACHE_BYTES = 8 * 2 ** 30;

const MAGIC = new TextEncoder().encode("wgrad-pixels-1\n\0");
const COUNTS_BYTES = MAGIC.length + 8;
const HASH_BYTES = 32;
const ENTRY_BYTES = HASH_BYTES + 4;
/** After this long an unfinished file is that of a process that was killed. */
const STALE_MS = 24 * 3600 * 1000;

/** Where an image is. */
interface Place {
  readonly pack: string;
  readonly offset: number;
  readonly crc: number;
}

/** The name of a file's content: its SHA-256 in hexadecimal digits. */
export function contentKey(bytes: Uint8Array): string {
  return createHash("sha256").update(bytes).digest("hex");
}

/** The images of one size in a folder, as far as they are there when it is opened. */
export class PixelCache {
  readonly #folder: string;
  readonly #prefix: string;
  readonly #stride: number;
  readonly #limit: number;
  readonly #places = new Map<string, Place>();
  /** The pack that was read last. */
  #open: { readonly pack: string; readonly file: number } | null = null;

  /**
   * Reads what the folder holds; one that is missing is empty.
   *
   * @param limit bytes that the packs of the folder may take after a {@linkcode write}
   */
  constructor(folder: string, size: number, channels: 1 | 3, limit: number = CACHE_BYTES) {
    this.#folder = folder;
    this.#prefix = `v${DECODER_VERSION}-${size}x${size}x${channels}-`;
    this.#stride = size * size * channels;
    this.#limit = limit;
    for (const pack of listFiles(folder)) {
      if (pack.startsWith(this.#prefix) && pack.endsWith(".pack")) this.#readIndex(pack);
    }
  }

  /** How many images it holds. */
  get size(): number {
    return this.#places.size;
  }

  /** Copies the pixels of an image to `into` and returns whether they are there and whole. */
  read(key: string, into: Uint8Array): boolean {
    const place = this.#places.get(key);
    if (place === undefined) return false;
    const isFirst = this.#open?.pack !== place.pack;
    try {
      const file = this.#openPack(place.pack);
      if (readFully(file, into, place.offset) && crc32(into) === place.crc) {
        if (isFirst) this.#markUsed(place.pack);
        return true;
      }
    } catch {
      // Deleted by another run since: decoded again, like one that is damaged.
    }
    this.#forget(place.pack);
    return false;
  }

  /**
   * Adds images by their keys as one pack, then deletes packs until the rest fits the limit. What is
   * larger than the limit is not kept.
   *
   * @throws UserError, or an error of the system, if the folder cannot be written
   */
  write(images: ReadonlyMap<string, Uint8Array>): void {
    const header = this.#headerOf(images);
    if (images.size === 0 || header.length + images.size * this.#stride > this.#limit) return;
    mkdirSync(this.#folder, { recursive: true });
    const name = `${this.#prefix}${contentKey(header).slice(0, 32)}.pack`;
    writeAtomically(join(this.#folder, name), [header, ...images.values()]);
    this.#prune(name);
  }

  /** Closes the file that is open. */
  close(): void {
    if (this.#open !== null) closeSync(this.#open.file);
    this.#open = null;
  }

  #headerOf(images: ReadonlyMap<string, Uint8Array>): Uint8Array {
    const header = new Uint8Array(COUNTS_BYTES + images.size * ENTRY_BYTES + 4);
    const view = new DataView(header.buffer);
    header.set(MAGIC);
    view.setUint32(MAGIC.length, images.size, true);
    view.setUint32(MAGIC.length + 4, this.#stride, true);
    let at = COUNTS_BYTES;
    for (const [key, pixels] of images) {
      header.set(Uint8Array.fromHex(key), at);
      view.setUint32(at + HASH_BYTES, crc32(pixels), true);
      at += ENTRY_BYTES;
    }
    view.setUint32(at, crc32(header.subarray(0, at)), true);
    return header;
  }

  #readIndex(pack: string): void {
    try {
      const file = this.#openPack(pack);
      const counts = new Uint8Array(COUNTS_BYTES);
      const whole = readFully(file, counts, 0) && MAGIC.every((byte, i) => counts[i] === byte);
      const view = new DataView(counts.buffer);
      const [count, stride] = [16, 20].map((at) => view.getUint32(at, true)) as [number, number];
      const begin = COUNTS_BYTES + count * ENTRY_BYTES + 4;
      const fits = stride === this.#stride && fstatSync(file).size === begin + count * stride;
      const header = new Uint8Array(whole && fits ? begin : 0);
      if (header.length === 0 || !readFully(file, header, 0)) return this.#forget(pack);
      const entries = new DataView(header.buffer);
      if (crc32(header.subarray(0, -4)) !== entries.getUint32(begin - 4, true)) {
        return this.#forget(pack);
      }
      for (let i = 0; i < count; i++) {
        const at = COUNTS_BYTES + i * ENTRY_BYTES;
        const key = header.subarray(at, at + HASH_BYTES).toHex();
        const crc = entries.getUint32(at + HASH_BYTES, true);
        this.#places.set(key, { pack, offset: begin + i * stride, crc });
      }
    } catch {
      // Deleted by another run since, or not readable: nothing of it is known.
    }
  }

  #openPack(pack: string): number {
    if (this.#open?.pack !== pack) {
      this.close();
      this.#open = { pack, file: openSync(join(this.#folder, pack), "r") };
    }
    return this.#open!.file;
  }

  #markUsed(pack: string): void {
    const now = new Date();
    attempt(() => utimesSync(join(this.#folder, pack), now, now));
  }

  /** Deletes a damaged pack; its images are decoded again. */
  #forget(pack: string): void {
    this.close();
    attempt(() => rmSync(join(this.#folder, pack), { force: true }));
    for (const [key, place] of this.#places) if (place.pack === pack) this.#places.delete(key);
  }

  #prune(newest: string): void {
    const files = listFiles(this.#folder).flatMap((name) => {
      const path = join(this.#folder, name);
      const info = statSync(path, { throwIfNoEntry: false });
      return info === undefined ? [] : [{ name, path, bytes: info.size, used: info.mtimeMs }];
    });
    const isStale = ({ name, used }: typeof files[number]) =>
      name.endsWith(".tmp") && Date.now() - used > STALE_MS;
    const packs = files.filter(({ name }) => name.endsWith(".pack"))
      .sort((a, b) => Number(b.name === newest) - Number(a.name === newest) || b.used - a.used);
    let total = 0;
    const tooMany = packs.filter(({ bytes }) => (total += bytes) > this.#limit);
    for (const { path } of [...files.filter(isStale), ...tooMany]) {
      attempt(() => rmSync(path, { force: true }));
    }
  }
}

/** Does what may fail where the folder cannot be written. */
function attempt(work: () => void): void {
  try {
    work();
  } catch {
    // A cache that cannot be kept in order is still right: every image is checked.
  }
}

/** The names in a folder; none where it cannot be read. */
function listFiles(folder: string): string[] {
  try {
    return readdirSync(folder);
  } catch {
    return [];
  }
}

/** Fills `into` from a place in a file; false if the file ends before. */
function readFully(file: number, into: Uint8Array, position: number): boolean {
  for (let done = 0; done < into.length;) {
    const count = readSync(file, into, done, into.length - done, position + done);
    if (count === 0) return false;
    done += count;
  }
  return true;
}
