/** Zip archives in memory, bounded by what the caller allows. Format: PKWARE's APPNOTE.TXT 6.3. */

import { unzipSync } from "npm:fflate@0.8.2";
import { UserError } from "../errors.ts";

const END_SIGNATURE = 0x06054b50;
const END_BYTES = 22;
const MAX_COMMENT_BYTES = 0xffff;

/** Whether a file begins like a zip archive with at least one entry. */
export function isZip(bytes: Uint8Array): boolean {
  return [0x50, 0x4b, 3, 4].every((byte, i) => bytes[i] === byte);
}

/**
 * The entries of a zip archive, by name; all are copies. Their checksums are not compared.
 *
 * @param limit bytes that all entries together may take
 * @throws UserError if it cannot be read, or unpacks to more
 */
export function readZip(bytes: Uint8Array, limit: number): Map<string, Uint8Array> {
  refuseZip64(bytes);
  let [total, packed] = [0, 0];
  try {
    const entries = unzipSync(bytes, {
      filter({ size, originalSize }) {
        total += originalSize;
        packed += size;
        // Entries that overlap can be packed into one another without end.
        if (packed > bytes.length) throw new UserError("entries of the zip overlap");
        if (total > limit) throw new UserError(`the zip unpacks to more than ${limit} bytes`);
        return true;
      },
    });
    return new Map(Object.entries(entries));
  } catch (error) {
    if (error instanceof UserError) throw error;
    throw new UserError(`the zip cannot be unpacked: ${(error as Error).message}`);
  }
}

/**
 * Archives with 65 535 entries or of 4 GB need a second directory, in which fflate 0.8.2 can loop
 * for ever if it is damaged. Smaller ones may have it, but it is not looked at then.
 */
function refuseZip64(bytes: Uint8Array): void {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const last = bytes.length - END_BYTES;
  for (let at = last; at >= 0 && last - at <= MAX_COMMENT_BYTES; at--) {
    if (view.getUint32(at, true) !== END_SIGNATURE) continue;
    if (view.getUint16(at + 8, true) === 0xffff || view.getUint32(at + 16, true) === 0xffffffff) {
      throw new UserError("a zip of more than 65 534 entries or 4 GB is not read");
    }
    return;
  }
  throw new UserError("cut short: the zip has no directory at its end");
}
