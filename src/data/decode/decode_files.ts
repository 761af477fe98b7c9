/** Decoding files one after another, each with what is wrong with it: the work of a thread. */

import { UserError } from "../../errors.ts";
import { decodeFile, readImage } from "./decode.ts";
import { contentKey } from "./pixel_cache.ts";

/** Files to decode. */
export interface DecodeRequest {
  readonly files: readonly string[];
  readonly size: number;
  readonly channels: 1 | 3;
}

/** Pixels, with the key of the file that they were decoded from, or what is wrong with the image. */
export type Decoded =
  | { readonly pixels: Uint8Array; readonly key: string | null }
  | { readonly reason: string };

/** What became of each file, in their order. */
export async function decodeFiles({ files, size, channels }: DecodeRequest): Promise<Decoded[]> {
  const decoded: Decoded[] = [];
  for (const file of files) {
    const load = async () => {
      const bytes = readImage(file);
      // The key of these very bytes: the file may hold others by now than when it was looked up.
      return { pixels: await decodeFile(file, bytes, size, channels), key: contentKey(bytes) };
    };
    decoded.push(await settle(load));
  }
  return decoded;
}

/** What came of one image; an error that is not the user's goes on. */
export async function settle(load: () => Promise<Decoded>): Promise<Decoded> {
  try {
    return await load();
  } catch (error) {
    if (error instanceof UserError) return { reason: error.message };
    throw error;
  }
}
