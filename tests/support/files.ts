/** Folders for tests of what reads files. */

import { dirname, join } from "node:path";
import { encodePng } from "../../src/data/decode/png.ts";

/** Runs a test in a fresh folder that holds `files`, and removes it. */
export async function withFiles(
  files: Readonly<Record<string, string | Uint8Array>>,
  test: (dir: string) => Promise<void> | void,
): Promise<void> {
  const dir = await Deno.makeTempDir();
  try {
    for (const [name, content] of Object.entries(files)) {
      const path = join(dir, name);
      await Deno.mkdir(dirname(path), { recursive: true });
      if (typeof content === "string") await Deno.writeTextFile(path, content);
      else await Deno.writeFile(path, content);
    }
    await test(dir);
  } finally {
    await Deno.remove(dir, { recursive: true });
  }
}

/** A small gray PNG of one level. */
export function flatPng(level: number, size = 4): Uint8Array {
  const pixels = new Uint8Array(size * size).fill(level);
  return encodePng({ width: size, height: size, channels: 1, pixels });
}
