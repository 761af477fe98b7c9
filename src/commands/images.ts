/** How commands load images: the flags that say so, the cache, and what is told of bad ones. */
import type { Dataset } from "../data/dataset.ts";
import { type BadImage, type LoadedImages, loadParts } from "../data/decode/decode_all.ts";
import { openDataset } from "../data/open.ts";
import type { RunFolder } from "../run_folder.ts";
import { boolean, type Values } from "./flags.ts";
import type { Display } from "./progress.ts";

/** The flags of every command that reads images. */
export const imageFlags = {
  skipBad: boolean({ help: "leave out images that cannot be read, and name them" }),
  cache: boolean({ default: true, help: "keep decoded images in .cache/decoded for later runs" }),
};

/** Below the folder where the command runs: the only one that is surely its own. */
const cacheFolder = ".cache/decoded";

/** Bad images that are named where a file holds them all. */
const mostNamed = 5;

/** Opens data sets and loads their images by the flags, and remembers which were bad. */
export class ImageLoader {
  /** Whether bad images are left out. */
  readonly skipBad: boolean;
  readonly #cache: string | null;
  readonly #teller: Pick<Display, "stage" | "line">;
  readonly #bad: BadImage[] = [];
  #total = 0;

  /** Tells nothing but notes, on stderr, unless it is given a display. */
  constructor(
    { skipBad, cache }: Values<typeof imageFlags>,
    teller: Pick<Display, "stage" | "line"> = { stage() {}, line: console.error },
  ) {
    this.skipBad = skipBad;
    this.#cache = cache ? cacheFolder : null;
    this.#teller = teller;
  }

  /** Opens a data set, with images missing if bad ones are left out. */
  open(spec: string): Promise<Dataset> {
    this.#teller.stage(`reading ${spec}`);
    return openDataset(spec, { checkFiles: !this.skipBad });
  }

  /** {@linkcode loadParts}; `name` says what for. */
  async loadParts<Name extends string>(
    dataset: Dataset,
    parts: Readonly<Record<Name, readonly number[]>>,
    options: { readonly size: number; readonly channels: 1 | 3 },
    name = "images",
  ): Promise<Record<Name, LoadedImages>> {
    const loaded = await loadParts(dataset, parts, {
      ...options,
      skipBad: this.skipBad,
      cache: this.#cache,
      onProgress: (done, total) => this.#teller.stage(`${name} ${done}/${total}`),
      onNote: (note) => this.#teller.line(note),
    });
    for (const { indices, bad } of Object.values<LoadedImages>(loaded)) {
      this.#total += indices.length + bad.length;
      this.#bad.push(...bad);
    }
    return loaded;
  }

  /** The same of a single part. */
  async load(
    dataset: Dataset,
    indices: readonly number[],
    options: { readonly size: number; readonly channels: 1 | 3 },
    name?: string,
  ): Promise<LoadedImages> {
    return (await this.loadParts(dataset, { indices }, options, name)).indices;
  }

  /** Names the images that were left out; where there is a run, all of them in a file of it. */
  report(run: RunFolder | null = null): void {
    const bad = this.#bad.map(({ reason }) => reason);
    if (bad.length === 0) return;
    run?.write("skipped", bad.map((line) => `${line}\n`).join(""));
    const named = run === null ? bad : bad.slice(0, mostNamed);
    const rest = bad.length - named.length;
    this.#teller.line([
      `left out ${bad.length} of ${this.#total} images, which cannot be read:`,
      ...named.map((line) => `  ${line}`),
      ...(rest > 0 ? [`  and ${rest} more, see ${run!.pathOf("skipped")}`] : []),
    ].join("\n"));
  }
}
