/** `deno task embed`: the features of a data set by an encoder, as a NumPy file. */
import { writeAtomically } from "../files.ts";
import { type Example, type Split, SPLITS } from "../data/dataset.ts";
import { measureNormalization } from "../data/augment.ts";
import { ImageSet } from "../data/image_set.ts";
import { embed, loadEncoder } from "../encoder.ts";
import { UserError } from "../errors.ts";
import { encodeNpy } from "../formats/npy.ts";
import { Gpu } from "../gpu/gpu.ts";
import { defineCommand } from "./command.ts";
import { choice, integer, path, string } from "./flags.ts";
import { imageFlags, ImageLoader } from "./images.ts";
import { initFile } from "./init.ts";

/** The command. */
export const command = defineCommand({
  name: "embed",
  summary: "Writes the features of a data set by an encoder as .npy",
  flags: {
    init: path({
      kind: "RUN|FILE",
      required: true,
      help: "the encoder: a run, safetensors, or PyTorch's .pth of a ResNet",
    }),
    data: string({ kind: "SPEC", required: true, help: "the images, as for train" }),
    split: choice({ of: ["all", ...SPLITS], default: "all", help: "which of them" }),
    out: path({ kind: "F.npy", required: true, help: "file to write: float32 [images, features]" }),
    imageSize: integer({
      min: 16,
      max: 1024,
      otherwise: "what the encoder was trained at, 224 where the file does not say",
      help: "side of the images in pixels",
    }),
    batch: integer({ min: 1, max: 65536, default: 256, help: "images at a time" }),
    ...imageFlags,
  },
  notes:
    "The rows are in the order of the data set, which a .csv beside the file names: id, split, labels.",
  async run({ init, data: spec, split, out, imageSize, batch, ...flags }) {
    const gpu = await Gpu.open();
    try {
      const { encoder, format } = await loadEncoder(gpu, initFile(init));
      const { channels } = encoder.options;
      const loader = new ImageLoader(flags);
      const dataset = await loader.open(spec);
      const wanted = [...dataset.examples.keys()].filter((i) =>
        split === "all" || dataset.examples[i]!.split === split as Split
      );
      if (wanted.length === 0) throw new UserError(`${spec}: no image in --split ${split}`);
      const { images, indices } = await loader.load(dataset, wanted, {
        size: imageSize ?? format?.size ?? 224,
        channels,
      });
      loader.report();
      const features = await embed(encoder, new ImageSet(gpu, images), [...indices.keys()], {
        batch,
        normalization: format?.normalization ?? measureNormalization(images.pixels, channels),
      });
      const shape = [indices.length, encoder.features];
      writeAtomically(out, encodeNpy({ shape, data: features }));
      const rows = indices.map((i) => dataset.examples[i]!);
      writeAtomically(`${out.replace(/\.npy$/, "")}.csv`, describeRows(dataset.labels, rows));
      console.log(`${out}: float32 [${shape.join(", ")}]`);
    } finally {
      gpu.close();
    }
  },
});

/** A CSV with a line an embedding: id, split and a column of 1, 0 or nothing a label. */
function describeRows(labels: readonly string[], examples: readonly Example[]): string {
  const quote = (text: string) => /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
  const line = (cells: readonly string[]) => cells.map(quote).join(",") + "\n";
  const value = (label: number) => Number.isNaN(label) ? "" : String(label);
  return line(["id", "split", ...labels]) +
    examples.map(({ id, split, labels }) => line([id, split, ...[...labels].map(value)])).join("");
}
