/** Files of weights of any kind that is read: safetensors, and both of PyTorch's. */

import { UserError } from "../errors.ts";
import { readBytes } from "../files.ts";
import { decodePth, isPth } from "./pth.ts";
import { decodeSafetensors, type Safetensors } from "./safetensors.ts";

/** Where the header of a safetensors file begins, which is a JSON object. */
const HEADER_BEGIN = 8;

/**
 * Reads the bytes of a file of weights; its content tells the kind.
 *
 * @param file name for messages
 * @throws UserError naming the file and what is wrong with it
 */
export function decodeWeights(bytes: Uint8Array, file = "weights"): Safetensors {
  if (bytes[HEADER_BEGIN] === "{".charCodeAt(0)) return decodeSafetensors(bytes, file);
  if (isPth(bytes)) return decodePth(bytes, file);
  const start = Array.from(bytes.subarray(0, 4), (byte) => byte.toString(16).padStart(2, "0"));
  throw new UserError(
    `${file}: neither safetensors nor PyTorch ` +
      (bytes.length === 0 ? "(the file is empty)" : `(it begins with bytes ${start.join(" ")})`),
  );
}

/** Reads a file by {@linkcode decodeWeights}. */
export function readWeights(path: string): Safetensors {
  return decodeWeights(readBytes(path), path);
}
