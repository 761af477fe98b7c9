/** `deno task data`: `show SPEC` is here, `get NAME` in data_get.ts. */

import { drawViews, type Preset, presets } from "../data/augment.ts";
import { contactSheet } from "../data/contact_sheet.ts";
import type { Images } from "../data/dataset.ts";
import { nearDuplicates, THUMBNAIL } from "../data/duplicates.ts";
import { evenlySpaced } from "../data/operations.ts";
import { READERS_USAGE } from "../data/spec.ts";
import { summarize } from "../data/summary.ts";
import { describe } from "../data/summary_text.ts";
import { writeAtomically } from "../files.ts";
import { Gpu } from "../gpu/gpu.ts";
import { type CommandGroup, defineCommand } from "./command.ts";
import { get } from "./data_get.ts";
import { boolean, choice, integer, path } from "./flags.ts";
import { imageFlags, ImageLoader } from "./images.ts";
import { createDisplay } from "./progress.ts";

/** Views beside each image, with `--views`. */
const VIEWS = 7;

const presetNames = Object.keys(presets) as Preset[];

/** `deno task data show SPEC` */
const show = defineCommand({
  name: "data show",
  summary: "Shows a data set: its counts, what is wrong with it, and a sheet of its images",
  flags: {
    duplicates: boolean({
      default: true,
      help: "look for copies of images, for which all are decoded",
    }),
    cache: imageFlags.cache,
    json: boolean({ help: "print one JSON object" }),
    out: path({ kind: "FILE", default: "contact-sheet.png", help: "PNG to write" }),
    imageSize: integer({ min: 8, max: 1024, default: 64, help: "side of the images in pixels" }),
    channels: choice({ of: [1, 3], default: 1, help: "gray or colour" }),
    count: integer({
      min: 1,
      max: 1000,
      otherwise: "64, or 12 with --views",
      help: "images on the sheet, evenly spaced over the data",
    }),
    views: boolean({ help: `${VIEWS} random views beside each image, as training sees them` }),
    augment: choice({
      of: presetNames,
      otherwise: "medical for 1 channel, simclr for 3",
      help: "recipe of the views",
    }),
    seed: integer({ min: 0, max: 0xffffffff, default: 0, help: "of the views" }),
  },
  positionals: ["SPEC"],
  notes: `SPEC is one of\n  ${READERS_USAGE.replaceAll(/(.{60,80}?), /g, "$1,\n  ")},\n` +
    "then ?KEY=VALUE&KEY=VALUE…, of which\n" +
    "  split=train,val   views=PA   licenses=CC0   having=LABEL,…   keep the images\n" +
    "  labels=LABEL,…    limit=N                                    keep labels, so many images\n" +
    "  map=OLD:NEW,…     renames and merges labels, OLD: drops one\n" +
    "  resplit=SEED      splits anew by patient, 70/10/20\n" +
    "  fraction=0.1      hides the labels of the other training patients\n" +
    "Several are joined by +.",
  async run(flags, { positionals: [spec] }) {
    // The task may use the network for `data get`; this one has no business there.
    await Deno.permissions.revoke({ name: "net" });
    const { imageSize: size, channels, out } = flags;
    const display = createDisplay({ json: false });
    const loader = new ImageLoader({ skipBad: true, cache: flags.cache }, display);
    const dataset = await loader.open(spec!);
    const total = dataset.examples.length;
    const indices = evenlySpaced(total, flags.count ?? (flags.views ? 12 : 64));
    const { images, bad } = await loader.load(dataset, indices, { size, channels });
    const gray = { size: THUMBNAIL, channels: 1 } as const;
    const thumbnails = flags.duplicates
      ? await loader.load(dataset, evenlySpaced(total, total), gray, "looking for duplicates")
      : null;
    display.close();
    const summary = await summarize(dataset, {
      duplicates: thumbnails && nearDuplicates(thumbnails),
      bad: thumbnails?.bad ?? bad,
    });
    if (!flags.json) console.log(describe(summary));

    let about = `${out}: ${images.count} images of ${size}×${size}`;
    if (flags.views) {
      const preset = flags.augment ?? (channels === 1 ? "medical" : "simclr");
      const rows = interleave(images, await renderViews(images, preset, flags.seed));
      writeAtomically(out, contactSheet(rows, { columns: 1 + VIEWS }));
      about += `, ${VIEWS} ${preset} views of each`;
    } else writeAtomically(out, contactSheet(images));
    console.log(flags.json ? JSON.stringify({ ...summary, sheet: out }) : `\n${about}`);
  },
});

/** `deno task data` */
export const command: CommandGroup = {
  name: "data",
  summary: "Downloads data sets, and shows what one holds",
  commands: { show, get },
};

/** Draws the views of all images on the GPU: u8 [count · VIEWS, size, size, channels]. */
async function renderViews(images: Images, preset: Preset, seed: number): Promise<Uint8Array> {
  const { count, size, channels, pixels } = images;
  const gpu = await Gpu.open();
  try {
    const source = gpu.tensor(pixels, [count, size, size, channels]);
    const rows = Array.from({ length: count * VIEWS }, (_, i) => Math.floor(i / VIEWS));
    // To [0, 255], not to mean 0: these are for eyes.
    const normalization = { mean: [0, 0, 0], std: [1 / 255, 1 / 255, 1 / 255] };
    const views = gpu.step(() =>
      drawViews(source, rows, { recipe: presets[preset], normalization, seed, counter: 0 })
    );
    return new Uint8Array(Uint8ClampedArray.from(await views.data()).buffer);
  } finally {
    gpu.close();
  }
}

/** Rows of an image and its views. */
function interleave(images: Images, views: Uint8Array): Images {
  const { count, size, channels, pixels } = images;
  const stride = size * size * channels;
  const row = (1 + VIEWS) * stride;
  const all = new Uint8Array(count * row);
  for (let i = 0; i < count; i++) {
    all.set(pixels.subarray(i * stride, (i + 1) * stride), i * row);
    all.set(views.subarray(i * VIEWS * stride, (i + 1) * VIEWS * stride), i * row + stride);
  }
  return { count: count * (1 + VIEWS), size, channels, pixels: all };
}
