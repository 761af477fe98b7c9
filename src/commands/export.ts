/** `deno task export`: the network of a run for other programs. */
import { join } from "node:path";
import { readClassifierFile } from "../classifier.ts";
import { readEncoderFile } from "../encoder.ts";
import { UserError } from "../errors.ts";
import { readBytes, writeAtomically } from "../files.ts";
import { encodeOnnx, type OnnxValue } from "../formats/onnx.ts";
import { onnxModel } from "../onnx_model.ts";
import { openRun } from "../run_folder.ts";
import { defineCommand } from "./command.ts";
import { modelFile } from "./eval.ts";
import { choice, path } from "./flags.ts";
import { initFile } from "./init.ts";

/** The command. */
export const command = defineCommand({
  name: "export",
  summary: "Writes the network of a run for other programs, as ONNX or safetensors",
  flags: {
    run: path({ kind: "RUN", required: true, help: "run folder of train or finetune" }),
    format: choice({
      of: ["onnx", "safetensors"],
      default: "onnx",
      help: "a graph to run, or weights for torchvision",
    }),
    epoch: choice({ of: ["best", "last"], default: "best", help: "which weights of finetune" }),
    out: path({
      kind: "FILE",
      otherwise: "export.onnx or export.safetensors in the run",
      help: "file to write",
    }),
  },
  notes:
    "A run of finetune is exported as classifier, any other as encoder. ONNX (operator set 17) takes images\n" +
    "float32 [N, channels, size, size], pixels / 255 in [0, 1], and normalises them itself; out come logits\n" +
    "and probabilities, or features. Labels, thresholds and image size are in its metadata.",
  run({ run: folder, format, epoch, out = join(folder, `export.${format}`) }, { given }) {
    const isClassifier = openRun(folder).has("last");
    if (!isClassifier && given.has("epoch")) {
      throw new UserError(`--epoch ${epoch}: ${folder} is no run of finetune, it has one encoder`);
    }
    const file = isClassifier ? modelFile(folder, epoch) : initFile(folder);
    const { arrays, format: images } = isClassifier
      ? readClassifierFile(file)
      : readEncoderFile(file);
    if (format === "safetensors") {
      // What a run holds is by torchvision's names already.
      writeAtomically(out, readBytes(file));
      console.log(`${out}: ${arrays.size} tensors by torchvision's names`);
      return;
    }
    if (images === null) {
      throw new UserError(`${file}: says nothing of the size and normalisation of its images`);
    }
    const model = onnxModel(arrays, images, file);
    writeAtomically(out, encodeOnnx(model));
    const list = (values: readonly OnnxValue[]) =>
      values.map(({ name, shape }) => `${name} [${shape.join(", ")}]`).join(", ");
    console.log(`${out}: ${list(model.inputs)} → ${list(model.outputs)}`);
  },
});
