/** A worker of {@linkcode loadImages}: takes lists of images, gives back their pixels. */

import { type Decoded, decodeOrigins, type DecodeRequest } from "./decode_files.ts";

/** What became of each image, or the error of the program that ended the work. */
export type DecodeReply =
  | { readonly decoded: readonly Decoded[] }
  | { readonly message: string };

/** The part of a worker's global scope that is used here; the checker knows only a window's. */
const scope = globalThis as unknown as {
  onmessage: (event: MessageEvent<DecodeRequest>) => void;
  postMessage(reply: DecodeReply, transfer?: Transferable[]): void;
};

scope.onmessage = async ({ data }) => {
  try {
    const decoded = await decodeOrigins(data);
    const buffers = decoded.flatMap((one) => "pixels" in one ? [one.pixels.buffer] : []);
    scope.postMessage({ decoded }, buffers as ArrayBuffer[]);
  } catch (error) {
    scope.postMessage({ message: error instanceof Error ? error.message : String(error) });
  }
};
