/**
 * Downloads that survive being cut: what has come stays in a .part file, beside it a note of where
 * it came from, and the next try asks for the rest (RFC 9110, 14: Range, If-Range, Content-Range).
 */

import { existsSync, rmSync, statSync, truncateSync } from "node:fs";
import { basename, join } from "node:path";
import { UserError } from "../../errors.ts";
import { asUserError, readText, writeAtomically } from "../../files.ts";
import { type Archive, hostsOf, largest } from "./catalog.ts";

/** How patient a download is. */
export interface Patience {
  /** Tries in a row that may bring nothing new. */
  readonly tries: number;
  /** Milliseconds before the second try; each further one waits twice as long. */
  readonly delay: number;
  /** Milliseconds without a byte after which a connection counts as cut. */
  readonly stall: number;
}

/** Half a minute of trying, for a server that is up and a line that is not. */
export const PATIENCE: Patience = { tries: 6, delay: 1000, stall: 60_000 };

/** Hears how a long work goes on. */
export interface Listener {
  /** `done` of `total` bytes of a stage; null if nobody knows the total. */
  progress(stage: string, done: number, total: number | null): void;
  /** Something that happened, in a line. */
  note(text: string): void;
}

const MAX_REDIRECTS = 5;
const REDIRECTS = [301, 302, 303, 307, 308];
/** Answers of a server that may answer otherwise in a while. */
const PASSING = [408, 425, 429];

/** What another try may mend. */
class Interruption extends Error {}

/** What is known of a .part file. */
interface Origin {
  readonly url: string;
  /** A strong ETag or a date by which the server knows its file again; null if it gave neither. */
  readonly validator: string | null;
  /** Length of the whole; null until known. */
  readonly total: number | null;
}

/** The file that a download has begun, complete once {@linkcode download} has returned it. */
export class Part {
  /** Where its bytes lie. */
  readonly path: string;
  readonly #note: string;

  /** The file of an archive in a folder. */
  constructor(folder: string, { url }: Archive) {
    this.path = join(folder, `${basename(new URL(url).pathname)}.part`);
    this.#note = `${this.path}.json`;
  }

  /** Bytes that have come. */
  get size(): number {
    return statSync(this.path, { throwIfNoEntry: false })?.size ?? 0;
  }

  /** Where they came from; null where there is no file, or one that nobody knows. */
  get origin(): Origin | null {
    return this.size > 0 && existsSync(this.#note) ? JSON.parse(readText(this.#note)) : null;
  }

  /** Notes where the bytes come from; those of another origin are dropped. */
  begin(origin: Origin, keep: number): void {
    // In this order: bytes must never lie beside the note of another origin.
    if (existsSync(this.path)) truncateSync(this.path, keep);
    writeAtomically(this.#note, JSON.stringify(origin));
  }

  /** Forgets it. */
  discard(): void {
    for (const path of [this.path, this.#note]) rmSync(path, { force: true });
  }
}

/**
 * Downloads an archive into a folder, going on from what an earlier call left there. What has come
 * is not compared with the digest.
 *
 * @throws UserError if the server refuses, offers another length, redirects to a stranger, or is cut
 *   off too often; what has come stays for the next call where it may still be of use
 */
export async function download(
  archive: Archive,
  folder: string,
  listener: Listener,
  patience: Patience = PATIENCE,
): Promise<Part> {
  const part = new Part(folder, archive);
  let [tries, furthest] = [0, part.size];
  while (true) {
    try {
      await attempt(archive, part, listener, patience.stall);
      return part;
    } catch (error) {
      if (!(error instanceof Interruption)) throw asUserError(part.path, error);
      const { size } = part;
      if (size > furthest) [tries, furthest] = [0, size];
      if (++tries >= patience.tries) {
        throw new UserError(
          `${archive.url}: ${error.message}, ${tries} times in a row; ${size} bytes are kept, ` +
            "and the same command goes on from there",
        );
      }
      const wait = patience.delay * 2 ** (tries - 1);
      listener.note(`${error.message}; trying again in ${wait / 1000} s`);
      await new Promise((resolve) => setTimeout(resolve, wait));
    }
  }
}

/** One connection: asks for what is missing and appends it. */
async function attempt(archive: Archive, part: Part, listener: Listener, stall: number) {
  const known = part.origin?.url === archive.url ? part.origin : null;
  if (known !== null && known.total === part.size) return;

  const watch = new AbortController();
  const cut = () => watch.abort(new Interruption(`nothing came for ${stall / 1000} s`));
  let timer = setTimeout(cut, stall);
  try {
    const headers = new Headers({ "accept-encoding": "identity" });
    if (known !== null && known.validator !== null) {
      headers.set("range", `bytes=${part.size}-`);
      headers.set("if-range", known.validator);
    }
    const response = await request(archive, headers, watch.signal);
    try {
      const { start, origin } = interpret(response, archive, part, known);
      part.begin(origin, start);
      const { total } = origin;
      const limit = total ?? largest(archive);
      let done = start;
      using file = await Deno.open(part.path, { create: true, append: true });
      for await (const chunk of bodyOf(response)) {
        clearTimeout(timer);
        timer = setTimeout(cut, stall);
        done += chunk.length;
        if (done > limit) {
          part.discard();
          throw new UserError(`${archive.url}: sends more than ${limit} bytes`);
        }
        await writeAll(file, chunk);
        listener.progress("downloading", done, total);
      }
      if (done < (total ?? 0)) throw new Interruption("the connection was cut");
      await file.sync();
      part.begin({ ...origin, total: done }, done);
    } finally {
      await response.body?.cancel().catch(() => {});
    }
  } finally {
    clearTimeout(timer);
  }
}

/** Writes all of the bytes, where one call may write a part. */
export async function writeAll(file: Deno.FsFile, bytes: Uint8Array): Promise<void> {
  for (let at = 0; at < bytes.length;) at += await file.write(bytes.subarray(at));
}

/** Asks for an archive, following redirects among its hosts. */
async function request(archive: Archive, headers: Headers, signal: AbortSignal): Promise<Response> {
  const hosts = hostsOf(archive);
  let url = new URL(archive.url);
  for (let hops = 0; hops <= MAX_REDIRECTS; hops++) {
    const response = await fetch(url, { headers, signal, redirect: "manual" })
      .catch((error) => {
        throw asInterruption(error);
      });
    const location = response.headers.get("location");
    if (!REDIRECTS.includes(response.status) || location === null) return response;
    await response.body?.cancel();
    const next = new URL(location, url);
    if (!hosts.includes(next.host) || (url.protocol === "https:" && next.protocol !== "https:")) {
      throw new UserError(`${archive.url}: redirects to ${next.origin}, which is not trusted`);
    }
    url = next;
  }
  throw new UserError(`${archive.url}: redirects more than ${MAX_REDIRECTS} times`);
}

/** What an answer brings: the bytes of `origin` from `start`. */
function interpret(
  response: Response,
  archive: Archive,
  part: Part,
  known: Origin | null,
): { start: number; origin: Origin } {
  const { status, headers } = response;
  const { url, bytes } = archive;
  if (status === 206 || status === 416) {
    const range = /^bytes (\d+)-(\d+)\/(\d+)$/.exec(headers.get("content-range") ?? "");
    const [start, end, total] = (range ?? []).slice(1).map(Number);
    const same = known !== null && start === part.size && end === total! - 1 &&
      (known.total ?? total) === total &&
      (validatorOf(response) ?? known.validator) === known.validator;
    if (same) return { start, origin: { ...known, total: total! } };
    part.discard();
    throw new Interruption("the server answered with other bytes than those asked for");
  }
  if (PASSING.includes(status) || status >= 500) {
    throw new Interruption(`the server answered ${status}`);
  }
  if (status !== 200) {
    throw new UserError(`${url}: the server answered ${status}; it may have moved`);
  }
  const length = headers.get("content-length");
  const exact = "exact" in bytes ? bytes.exact : null;
  const total = length === null ? exact : Number(length);
  if (total !== null && (total > largest(archive) || total !== (exact ?? total))) {
    const expected = exact === null ? `at most ${largest(archive)}` : String(exact);
    throw new UserError(`${url}: has ${total} bytes, expected ${expected}: it has changed`);
  }
  return { start: 0, origin: { url, validator: validatorOf(response), total } };
}

/** What If-Range may hold: RFC 9110, 13.1.5 wants no weak ETag. */
function validatorOf({ headers }: Response): string | null {
  const tag = headers.get("etag");
  return tag !== null && !tag.startsWith("W/") ? tag : headers.get("last-modified");
}

async function* bodyOf(response: Response): AsyncGenerator<Uint8Array<ArrayBuffer>> {
  try {
    yield* response.body ?? [];
  } catch (error) {
    throw asInterruption(error);
  }
}

/** Failures of the network are TypeErrors of fetch. */
function asInterruption(error: unknown): unknown {
  if (!(error instanceof TypeError)) return error;
  const { cause, message } = error;
  return new Interruption(
    `the connection failed (${cause instanceof Error ? cause.message : message})`,
  );
}
