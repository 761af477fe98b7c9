/** Reading and writing files, with errors that name the file. */

import {
  closeSync,
  fsyncSync,
  openSync,
  readFileSync,
  renameSync,
  rmSync,
  type Stats,
  statSync,
  writeSync,
} from "node:fs";
import { open } from "node:fs/promises";
import { pid } from "node:process";
import { UserError } from "./errors.ts";

const PROBLEMS: Readonly<Record<string, string>> = {
  ENOENT: "no such file",
  EISDIR: "is a folder, expected a file",
  ENOTDIR: "no such file: a part of its path is not a folder",
  EACCES: "permission denied",
  ELOOP: "a circle of links",
  ENAMETOOLONG: "the name is too long",
  ENOSPC: "no space left on the device",
};

/** A system's error with a file's name and words for it; any other error as it is. */
export function asUserError(path: string, error: unknown): unknown {
  const code = errorCode(error);
  return code === undefined ? error : new UserError(`${path}: ${PROBLEMS[code] ?? code}`);
}

/** The system's code of a failed call on files, such as `ENOENT`; undefined for any other error. */
export function errorCode(error: unknown): string | undefined {
  return error instanceof Error ? (error as NodeJS.ErrnoException).code : undefined;
}

/**
 * What is at a path, links followed; null if nothing is.
 *
 * @throws UserError naming the path if that cannot be known.
 */
export function infoOf(path: string): Stats | null {
  try {
    return statSync(path, { throwIfNoEntry: false }) ?? null;
  } catch (error) {
    if (errorCode(error) === "ENOTDIR") return null;
    throw asUserError(path, error);
  }
}

/**
 * The bytes of a file.
 *
 * @throws UserError naming the file if it cannot be read.
 */
export function readBytes(path: string): Uint8Array<ArrayBuffer> {
  try {
    const { buffer, byteOffset, byteLength } = readFileSync(path);
    return new Uint8Array(buffer as ArrayBuffer, byteOffset, byteLength);
  } catch (error) {
    throw asUserError(path, error);
  }
}

/**
 * The length of a file in bytes.
 *
 * @throws UserError naming the file if it is none.
 */
export function fileSize(path: string): number {
  try {
    const status = statSync(path);
    if (!status.isFile()) throw new UserError(`${path}: is no file`);
    return status.size;
  } catch (error) {
    throw asUserError(path, error);
  }
}

/**
 * Bytes `position`, …, `position + length − 1` of a file, of which nothing else is read.
 *
 * @throws UserError naming the file if it cannot be read, or ends before.
 */
export async function readRange(
  path: string,
  position: number,
  length: number,
): Promise<Uint8Array<ArrayBuffer>> {
  const bytes = new Uint8Array(length);
  try {
    const file = await open(path);
    try {
      for (let at = 0; at < length;) {
        const { bytesRead } = await file.read(bytes, at, length - at, position + at);
        if (bytesRead === 0) throw new UserError(`${path}: ends before byte ${position + length}`);
        at += bytesRead;
      }
    } finally {
      await file.close();
    }
    return bytes;
  } catch (error) {
    throw asUserError(path, error);
  }
}

/**
 * The text of a UTF-8 file.
 *
 * @throws UserError naming the file if it cannot be read.
 */
export function readText(path: string): string {
  return new TextDecoder().decode(readBytes(path));
}

/**
 * Whether there is a file of this name, or a link to one.
 *
 * @throws UserError naming it if that cannot be found out.
 */
export function isFile(path: string): boolean {
  return infoOf(path)?.isFile() ?? false;
}

/**
 * Writes a file so that other processes, and this one after a crash, see the old content or the
 * new one and never a part: into a temporary file beside it, which is then renamed. Of two processes
 * that write the same file, the later one wins.
 *
 * @param content all of it, or its parts one after another
 * @throws UserError naming the file if it cannot be written.
 */
export function writeAtomically(
  path: string,
  content: Uint8Array | string | readonly Uint8Array[],
): void {
  const whole = typeof content === "string" ? new TextEncoder().encode(content) : content;
  const temporary = `${path}.${pid}.tmp`;
  try {
    const file = openSync(temporary, "w");
    try {
      for (const part of whole instanceof Uint8Array ? [whole] : whole) {
        for (let at = 0; at < part.length;) at += writeSync(file, part, at);
      }
      fsyncSync(file);
    } finally {
      closeSync(file);
    }
    renameSync(temporary, path);
  } catch (error) {
    rmSync(temporary, { force: true });
    if (errorCode(error) === "ENOENT") throw new UserError(`${path}: its folder does not exist`);
    throw asUserError(path, error);
  }
}
