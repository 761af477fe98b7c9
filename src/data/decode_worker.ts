/** A worker of {@linkcode decodeAll}: takes lists of files, gives back their pixels. */

import { UserError } from "../errors.ts";
import { loadImage } from "./decode.ts";

/** Files to decode. */
export interface DecodeRequest {
  readonly files: readonly string[];
  readonly size: number;
  readonly channels: 1 | 3;
}

/** The pixels, u8 [files, size, size, channels], or what went wrong with one of the files. */
export type DecodeReply =
  | { readonly pixels: Uint8Array<ArrayBuffer> }
  | { readonly message: string; readonly mistake: boolean };

/** The part of a worker's global scope that is used here; the checker knows only a window's. */
const scope = globalThis as unknown as {
  onmessage: (event: MessageEvent<DecodeRequest>) => void;
  postMessage(reply: DecodeReply, transfer?: Transferable[]): void;
};

scope.onmessage = async ({ data: { files, size, channels } }) => {
  try {
    const stride = size * size * channels;
    const pixels = new Uint8Array(files.length * stride);
    for (const [i, file] of files.entries()) {
      pixels.set(await loadImage(file, size, channels), i * stride);
    }
    scope.postMessage({ pixels }, [pixels.buffer]);
  } catch (error) {
    const message = error instanceof Error ? error.message : String(error);
    scope.postMessage({ message, mistake: error instanceof UserError });
  }
};
