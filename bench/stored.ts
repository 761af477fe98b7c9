/** Figures of an adapter that were kept, to measure changes against: `bench/adapters/<adapter>.json`. */
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import type { AdapterInfo } from "../src/gpu/gpu.ts";
import { version } from "../src/version.ts";
import type { Row } from "./support.ts";

/** What is kept. */
export interface Stored {
  readonly adapter: AdapterInfo;
  readonly wgrad: string;
  readonly deno: string;
  /** Of the measurement: year, month and day. */
  readonly date: string;
  readonly rows: readonly Row[];
}

const folder = fileURLToPath(new URL("adapters/", import.meta.url));

/** The figures of the same adapter, or null where none were kept. */
export function readStored(adapter: AdapterInfo): Stored | null {
  try {
    return JSON.parse(readFileSync(`${folder}${fileName(adapter)}.json`, "utf8"));
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return null;
    throw error;
  }
}

/** Keeps figures and a roofline; returns the paths. */
export function save(adapter: AdapterInfo, rows: readonly Row[], svg: string): string[] {
  const stored: Stored = {
    adapter,
    wgrad: version,
    deno: Deno.version.deno,
    date: new Date().toISOString().slice(0, 10),
    rows,
  };
  mkdirSync(folder, { recursive: true });
  const base = `${folder}${fileName(adapter)}`;
  writeFileSync(`${base}.json`, JSON.stringify(stored, null, 2) + "\n");
  writeFileSync(`${base}.svg`, svg);
  return [`${base}.json`, `${base}.svg`];
}

function fileName({ vendor, description, device }: AdapterInfo): string {
  const name = (description || `${vendor} ${device}`).toLowerCase();
  return name.replace(/[^a-z0-9]+/g, "-").replace(/^-|-$/g, "");
}
