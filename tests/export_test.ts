import assert from "node:assert/strict";
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { withFiles } from "./support/files.ts";
import { Message } from "./support/protobuf.ts";
import { run, succeed } from "./support/task.ts";

/** The outputs of the graph in a file, and its metadata. */
function readOnnx(path: string) {
  const model = new Message(readFileSync(path));
  const [graph] = model.messages(7);
  return {
    outputs: graph!.messages(12).map((value) => value.strings(1)[0]),
    metadata: Object.fromEntries(
      model.messages(14).map((entry) => [entry.strings(1)[0], entry.strings(2)[0]!]),
    ),
  };
}

Deno.test("the command line exports classifiers and encoders", async (t) => {
  await withFiles({}, async (dir) => {
    const size = ["--image-size", "16", "--width", "4", "--stem", "3x3", "--batch", "16"];
    const small = ["--data", "phantom:n=64", ...size];
    const [encoder, classifier] = [join(dir, "encoder"), join(dir, "classifier")];
    await succeed("train", ...small, "--epochs", "1", "--out", encoder);
    await succeed("finetune", "--init", "none", ...small, "--epochs", "2", "--out", classifier);
    const bytes = (folder: string, file: string) => readFileSync(join(folder, file));

    await t.step("ONNX, into the run unless told where", async () => {
      const file = join(classifier, "export.onnx");
      assert.equal(
        await succeed("export", "--run", classifier),
        `${file}: images [N, 1, 16, 16] → logits [N, 6], probabilities [N, 6]\n`,
      );
      const { outputs, metadata } = readOnnx(file);
      assert.deepEqual(outputs, ["logits", "probabilities"]);
      assert.equal(JSON.parse(metadata.labels!).length, 6);

      const out = join(dir, "features.onnx");
      assert.equal(
        await succeed("export", "--run", encoder, "--out", out),
        `${out}: images [N, 1, 16, 16] → features [N, 32]\n`,
      );
      assert.deepEqual(readOnnx(out).outputs, ["features"]);
    });

    await t.step("safetensors, as the run holds it", async () => {
      const weights = ["--format", "safetensors"];
      const out = join(dir, "last.safetensors");
      await succeed("export", "--run", classifier, ...weights, "--epoch", "last", "--out", out);
      assert.ok(readFileSync(out).equals(bytes(classifier, "last.safetensors")));
      await succeed("export", "--run", classifier, ...weights);
      assert.ok(
        bytes(classifier, "export.safetensors").equals(bytes(classifier, "model.safetensors")),
      );
      await succeed("export", "--run", encoder, ...weights);
      assert.ok(
        bytes(encoder, "export.safetensors").equals(bytes(encoder, "encoder.safetensors")),
      );
    });

    await t.step("mistakes in one line", async () => {
      const refuses = async (args: string[], message: string) =>
        assert.deepEqual(await run("export", ...args), {
          code: 2,
          out: "",
          err: `error: ${message}\n`,
        });
      await refuses(
        ["--run", encoder, "--epoch", "last"],
        `--epoch last: ${encoder} is no run of finetune, it has one encoder`,
      );
      await refuses(["--run", join(dir, "none")], `${join(dir, "none")}: no such run folder`);
      const nowhere = join(dir, "no", "such.onnx");
      await refuses(
        ["--run", encoder, "--out", nowhere],
        `${nowhere}: its folder does not exist`,
      );
      assert.ok(!existsSync(nowhere));
    });
  });
});
