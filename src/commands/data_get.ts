/** `deno task data get NAME`: downloads a data set of the catalog and says how to use it. */

import { join } from "node:path";
import {
  type ByHand,
  CATALOG,
  type Downloadable,
  isDownloadable,
  largest,
} from "../data/get/catalog.ts";
import type { Listener } from "../data/get/download.ts";
import { getDataset } from "../data/get/get.ts";
import { addressOf } from "../data/spec.ts";
import { UserError } from "../errors.ts";
import { defineCommand } from "./command.ts";
import { boolean, path, suggestion } from "./flags.ts";
import { createDisplay, formatBytes, formatDuration } from "./progress.ts";

/** Milliseconds between two drawings of the progress. */
const REDRAW = 100;

/** `deno task data get NAME` */
export const get = defineCommand({
  name: "data get",
  summary: "Downloads a data set, checks and unpacks it, and prints the SPEC to use",
  flags: {
    list: boolean({ help: "lists what there is: sizes, licences, addresses, digests" }),
    out: path({ kind: "DIR", default: "data", help: "folder of the data sets" }),
  },
  positionals: ["[NAME]"],
  notes: `NAME is one of ${CATALOG.map(({ name }) => name).join(", ")}.\n` +
    "A download that was cut goes on where it ended; what is there is not downloaded again.",
  async run({ list, out }, { positionals: [name] }) {
    if (list) {
      console.log(CATALOG.map((entry) => describeEntry(entry, out).join("\n")).join("\n\n"));
      return;
    }
    if (name === undefined) {
      throw new UserError("data get: NAME is missing; --list tells which data sets there are");
    }
    const entry = CATALOG.find((entry) => entry.name === name);
    if (entry === undefined) {
      const names = CATALOG.map(({ name }) => name);
      throw new UserError(
        `data get: no "${name}" in the catalog${
          suggestion(name, names) || `; there are ${names.join(", ")}`
        }`,
      );
    }
    if (!isDownloadable(entry)) {
      throw new UserError(
        `data get: ${name} is not for download by programs: ${entry.instead}: ${entry.homepage}; ` +
          `then use ${specOf(entry, "DIR")}`,
      );
    }
    console.log(describeEntry(entry, out).join("\n"));
    const display = new Meter();
    const { folder, found } = await getDataset(entry, out, display).finally(() => display.close());
    console.log(`\n${folder}/ ${found ? "was there" : "is complete"}; use it as`);
    console.log(`--data ${specOf(entry, folder)}`);
  },
});

function specOf({ spec: { reader, path } }: Downloadable | ByHand, folder: string): string {
  return addressOf(reader, join(folder, path));
}

/** What an entry of the catalog says, a line each; `out` is the folder of the data sets. */
export function describeEntry(entry: Downloadable | ByHand, out: string): string[] {
  const { name, title, license, homepage } = entry;
  const rows: [string, string][] = [["licence", license], ["page", homepage]];
  if (isDownloadable(entry)) {
    const { archive } = entry;
    const { bytes, digest, unpack, source, read, tried, url } = archive;
    const size = `${"exact" in bytes ? "" : "at most "}${formatBytes(largest(archive))}`;
    const unpacked = unpack && `, unpacked at most ${formatBytes(unpack.atMost)}`;
    rows.push(
      ["size", size + (unpacked ?? "")],
      ["from", url],
      [
        "digest",
        digest ? `${digest.algorithm} ${digest.hex}` : "none is published; gzip's own is compared",
      ],
      ["source", `${source}; read on ${read}`],
      ["tried", tried ?? "never: no download was tried when this was written"],
    );
  } else {
    rows.push(["by hand", entry.instead]);
  }
  rows.push(["use", specOf(entry, isDownloadable(entry) ? join(out, name) : "DIR")]);
  return [`${name}: ${title}`, ...rows.map(([key, text]) => `  ${key.padEnd(8)} ${text}`)];
}

/** Bytes, speed and time left, on the display that training uses. */
class Meter implements Listener {
  readonly #display = createDisplay({ json: false });
  #stage = "";
  #drawn = 0;
  #since = { time: 0, bytes: 0 };

  progress(stage: string, done: number, total: number | null): void {
    const now = performance.now();
    if (stage !== this.#stage) {
      this.#stage = stage;
      this.#since = { time: now, bytes: done };
    }
    if (now - this.#drawn < REDRAW && done !== total) return;
    this.#drawn = now;
    const speed = 1000 * (done - this.#since.bytes) / (now - this.#since.time);
    const parts = [
      total === null ? formatBytes(done) : `${formatBytes(done)} of ${formatBytes(total)}`,
    ];
    if (speed > 0) parts.push(`${formatBytes(speed)}/s`);
    if (speed > 0 && total !== null) parts.push(`${formatDuration((total - done) / speed)} left`);
    this.#display.stage(`${stage} ${parts.join(" · ")}`);
  }
  note(text: string): void {
    // After a cut the speed is measured anew.
    this.#stage = "";
    this.#display.line(text);
  }
  close(): void {
    this.#display.close();
  }
}
