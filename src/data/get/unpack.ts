/** Unpacks a .tar.gz of a stranger: files and folders below one folder, and no more than expected. */

import { dirname, join } from "node:path";
import { UserError } from "../../errors.ts";
import { writeAll } from "./download.ts";

/** An archive that is damaged, or holds what none should: no use to keep. */
export class BadArchive extends UserError {}

const MAX_ENTRIES = 100_000;

/**
 * Unpacks a .tar.gz as a stream. Owners, dates and permissions in it are passed over.
 *
 * @param into a folder that exists; whatever is in it may be replaced
 * @param limit bytes that all files together may take
 * @param onRead hears how many bytes of the archive have been read
 * @throws BadArchive if it is damaged or cut, unpacks to more than `limit`, holds a link or device, or
 *   a path that leads out of the folder
 */
export async function unpackTarGz(
  path: string,
  into: string,
  { limit, onRead }: { readonly limit: number; readonly onRead: (bytes: number) => void },
): Promise<void> {
  const { createTarDecoder } = await import("npm:modern-tar@0.8.6");
  let read = 0;
  const counter = new TransformStream<Uint8Array<ArrayBuffer>, Uint8Array<ArrayBuffer>>({
    transform(chunk, controller) {
      onRead(read += chunk.length);
      controller.enqueue(chunk);
    },
  });
  const entries = (await Deno.open(path)).readable
    .pipeThrough(counter)
    .pipeThrough(new DecompressionStream("gzip"))
    .pipeThrough(createTarDecoder({ strict: true }));

  let [count, bytes] = [0, 0];
  const account = (size: number) => {
    if ((bytes += size) > limit) throw new BadArchive(`unpacks to more than ${limit} bytes`);
  };
  try {
    for await (const { header: { name, type }, body } of entries) {
      if (++count > MAX_ENTRIES) throw new BadArchive(`holds more than ${MAX_ENTRIES} entries`);
      const target = join(into, safePath(name));
      if (type === "directory") {
        await Deno.mkdir(target, { recursive: true });
        await body.cancel();
      } else if (type === "file") {
        await Deno.mkdir(dirname(target), { recursive: true });
        using file = await Deno.open(target, { create: true, write: true, truncate: true });
        for await (const chunk of body) {
          account(chunk.length);
          await writeAll(file, chunk);
        }
        await file.sync();
      } else {
        throw new BadArchive(`"${name}" in it is a ${type}; only files and folders are unpacked`);
      }
    }
  } catch (error) {
    if (error instanceof BadArchive) throw new BadArchive(`${path}: ${error.message}`);
    // The streams tell damage by plain errors; those of the file system have a code.
    if (error instanceof Error && !("code" in error)) {
      throw new BadArchive(`${path}: damaged or cut short (${error.message})`);
    }
    throw error;
  }
}

/** The path of an entry without what means nothing in it. */
function safePath(name: string): string {
  const parts = name.split("/").filter((part) => part !== "" && part !== ".");
  if (/^\/|^[a-z]:|[\\\0]/i.test(name) || parts.includes("..")) {
    throw new BadArchive(`${JSON.stringify(name)} in it leads out of its folder`);
  }
  return parts.join("/");
}
