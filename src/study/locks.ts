/**
 * Locks of cells, so that any number of processes can work on one folder: a file a lock, created exclusively and touched every few seconds. One that nobody has touched for a
 * minute was left by a process that is gone, and is taken over.
 */
import {
  existsSync,
  linkSync,
  mkdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { errorCode } from "../files.ts";
import type { Heartbeat } from "./heartbeat_worker.ts";

/** A lock that this process holds. */
export interface Lock {
  /** Aborted when another process has taken the lock over, this one having slept for too long. */
  readonly lost: AbortSignal;
  /** Gives it back. */
  release(): void;
}

/** The locks of a folder. */
export class Locks {
  readonly #folder: string;
  readonly #staleAfter: number;
  readonly #held = new Map<string, AbortController>();
  #heart: Worker | null = null;

  /**
   * @param folder made if it is not there
   * @param options.staleAfter milliseconds without a sign of life after which a lock is taken over
   */
  constructor(folder: string, { staleAfter = 60_000 } = {}) {
    this.#folder = folder;
    this.#staleAfter = staleAfter;
    mkdirSync(folder, { recursive: true });
  }

  /** Takes a lock; null if another process, or this one, holds it. */
  take(name: string): Lock | null {
    const path = join(this.#folder, name);
    const content = JSON.stringify({
      process: crypto.randomUUID(),
      pid: Deno.pid,
      since: new Date().toISOString(),
    });
    if (!create(path, content) && !(this.#clear(path) && create(path, content))) return null;
    const lost = new AbortController();
    this.#held.set(path, lost);
    this.#beat(path, content);
    return {
      lost: lost.signal,
      release: () => {
        this.#beat(path, null);
        this.#held.delete(path);
        if (read(path) === content) rmSync(path, { force: true });
      },
    };
  }

  /** Whether a lock is held, or was left. */
  isHeld(name: string): boolean {
    return existsSync(join(this.#folder, name));
  }

  /** Ends the worker that shows signs of life; locks that are held go stale. */
  close(): void {
    this.#heart?.terminate();
    this.#heart = null;
  }

  #beat(path: string, content: string | null): void {
    if (this.#heart === null) {
      const url = new URL("./heartbeat_worker.ts", import.meta.url);
      this.#heart = new Worker(url, { type: "module" });
      this.#heart.onmessage = ({ data }: MessageEvent<string>) => this.#held.get(data)?.abort();
    }
    const heartbeat: Heartbeat = { path, content, interval: this.#staleAfter / 6 };
    this.#heart.postMessage(heartbeat);
  }

  /**
   * Removes a lock whose process is gone. Of several processes that see it stale at once, the one that
   * renames it first has it; another may then have renamed the new lock of the first, and puts it back.
   */
  #clear(path: string): boolean {
    const before = read(path);
    if (before === null) return true;
    if (Date.now() - modified(path) < this.#staleAfter) return false;
    const aside = `${path}.${crypto.randomUUID()}`;
    try {
      renameSync(path, aside);
    } catch (error) {
      if (errorCode(error) === "ENOENT") return true;
      throw error;
    }
    const taken = read(aside) === before;
    try {
      if (!taken) linkSync(aside, path);
    } catch (error) {
      if (errorCode(error) !== "EEXIST") throw error;
    } finally {
      rmSync(aside, { force: true });
    }
    return taken;
  }
}

/** Creates a file; false if there is one. */
function create(path: string, content: string): boolean {
  try {
    writeFileSync(path, content, { flag: "wx" });
    return true;
  } catch (error) {
    if (errorCode(error) === "EEXIST") return false;
    throw error;
  }
}

/** The content of a lock; null if there is none. */
function read(path: string): string | null {
  try {
    return readFileSync(path, "utf8");
  } catch (error) {
    if (errorCode(error) === "ENOENT") return null;
    throw error;
  }
}

/** When a file was last touched, in milliseconds since 1970; Infinity if it is gone. */
function modified(path: string): number {
  return statSync(path, { throwIfNoEntry: false })?.mtimeMs ?? Infinity;
}
