/** Decoding images one after another, each with what is wrong with it: the work of a thread. */

import { UserError } from "../../errors.ts";
import type { Film } from "../dataset.ts";
import { expose } from "../readers/phantom_film.ts";
import { decodeFile, readImage } from "./decode.ts";
import { contentKey } from "./pixel_cache.ts";

/** What an image is made from by itself: a file to decode, or a phantom to draw. */
export type Origin = string | Film;

/** Images to decode. */
export interface DecodeRequest {
  readonly origins: readonly Origin[];
  readonly size: number;
  readonly channels: 1 | 3;
}

/** Pixels, with the key of the file that they were decoded from, or what is wrong with the image. */
export type Decoded =
  | { readonly pixels: Uint8Array; readonly key: string | null }
  | { readonly reason: string };

/** What became of each image, in their order. */
export async function decodeOrigins(
  { origins, size, channels }: DecodeRequest,
): Promise<Decoded[]> {
  const decoded: Decoded[] = [];
  for (const origin of origins) {
    const load = async () => {
      if (typeof origin !== "string") return { pixels: expose(origin, size, channels), key: null };
      const bytes = readImage(origin);
      // The key of these very bytes: the file may hold others by now than when it was looked up.
      return { pixels: await decodeFile(origin, bytes, size, channels), key: contentKey(bytes) };
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
