/** Getting a data set of the catalog: download, digest, unpacking, and a folder that is whole. */

import { createHash } from "node:crypto";
import { existsSync } from "node:fs";
import { join } from "node:path";
import { UserError } from "../../errors.ts";
import { asUserError, readText, writeAtomically } from "../../files.ts";
import type { Digest, Downloadable } from "./catalog.ts";
import { download, type Listener, type Part, PATIENCE, type Patience } from "./download.ts";
import { BadArchive, unpackTarGz } from "./unpack.ts";

/** The file in a data set's folder that says where it came from, and that it is whole. */
const ORIGIN = "origin.json";

/**
 * Downloads and unpacks a data set into `<out>/<name>`. That folder appears when all is in it; until
 * then the work lies in the hidden `<out>/.<name>`, and a later call goes on from there. Of several
 * processes with one `out`, one works and the others wait for their turn.
 *
 * @returns its folder, and whether it was there before
 * @throws UserError as {@linkcode download} and {@linkcode unpackTarGz}, for another digest, for a
 *   file that is missing in the end, and for a folder of this name that came from elsewhere
 */
export async function getDataset(
  entry: Downloadable,
  out: string,
  listener: Listener,
  patience: Patience = PATIENCE,
): Promise<{ folder: string; found: boolean }> {
  const folder = join(out, entry.name);
  const work = join(out, `.${entry.name}`);
  try {
    await Deno.mkdir(out, { recursive: true });
    using turn = await Deno.open(join(out, ".lock"), { create: true, write: true });
    if (!await turn.tryLock(true)) {
      listener.note(`waiting: another process gets data into ${out}`);
      await turn.lock(true);
    }
    const found = isFinished(entry, folder);
    if (!found) await make(entry, folder, work, listener, patience);
    if (existsSync(work)) await Deno.remove(work, { recursive: true });
    return { folder, found };
  } catch (error) {
    throw asUserError(out, error);
  }
}

async function make(
  { archive, holds, name, license }: Downloadable,
  folder: string,
  work: string,
  listener: Listener,
  patience: Patience,
) {
  const fresh = join(work, "unpacked");
  await Deno.mkdir(work, { recursive: true });
  if (existsSync(fresh)) await Deno.remove(fresh, { recursive: true });

  const part = await download(archive, work, listener, patience);
  if (archive.digest !== null) await compare(part, archive.digest, listener);
  await Deno.mkdir(fresh);
  const { unpack } = archive;
  const root = join(fresh, unpack?.root ?? "");
  if (unpack === null) {
    await Deno.rename(part.path, join(fresh, holds[0]!));
  } else {
    const total = part.size;
    const onRead = (bytes: number) => listener.progress("unpacking", bytes, total);
    await unpackTarGz(part.path, fresh, { limit: unpack.atMost, onRead }).catch((error) => {
      if (error instanceof BadArchive) part.discard();
      throw error;
    });
  }
  for (const path of holds) {
    if (existsSync(join(root, path))) continue;
    part.discard();
    throw new UserError(`${archive.url}: "${path}" is not in it, so it is not ${name}`);
  }
  const { url, digest } = archive;
  const date = new Date().toISOString();
  const origin = JSON.stringify({ url, digest, license, date }, null, 2);
  writeAtomically(join(root, ORIGIN), `${origin}\n`);
  await Deno.rename(root, folder);
}

/** Compares a file with its digest, and drops it if they differ. */
async function compare(part: Part, { algorithm, hex }: Digest, listener: Listener) {
  const hash = createHash(algorithm);
  const { size } = part;
  let done = 0;
  for await (const chunk of (await Deno.open(part.path)).readable) {
    hash.update(chunk);
    listener.progress("checking", done += chunk.length, size);
  }
  const found = hash.digest("hex");
  if (found === hex) return;
  const { path } = part;
  part.discard();
  throw new UserError(
    `${path}: its ${algorithm} is ${found}, expected ${hex}: damaged on its way or changed at its ` +
      "source; it is removed, and the same command downloads it again",
  );
}

function isFinished({ archive: { url }, name }: Downloadable, folder: string): boolean {
  if (!existsSync(folder)) return false;
  const origin = join(folder, ORIGIN);
  if (existsSync(origin) && JSON.parse(readText(origin)).url === url) return true;
  throw new UserError(`${folder}: is not ${name} of ${url}; remove it, or choose another --out`);
}
