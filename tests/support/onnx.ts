/** ONNX Runtime beside the tests, where npm's registry or cache has it. */
import { fileURLToPath } from "node:url";
import { decodeSafetensors, encodeSafetensors } from "../../src/formats/safetensors.ts";
import type { FixtureTensor } from "./fixture.ts";
import { withFiles } from "./files.ts";

const script = fileURLToPath(new URL("../reference/onnx_runtime.ts", import.meta.url));

async function execute(args: readonly string[]): Promise<Uint8Array> {
  const { success, stdout, stderr } = await new Deno.Command("deno", {
    args: ["run", "-q", "--no-config", "--no-lock", "--no-prompt", "--allow-read", script, ...args],
  }).output();
  if (!success) throw new Error(new TextDecoder().decode(stderr));
  return stdout;
}

/** Why ONNX Runtime cannot be had here; null if it can. */
export async function missingOnnxRuntime(): Promise<string | null> {
  try {
    await execute([]);
    return null;
  } catch (error) {
    // Whatever else goes wrong is for the tests to show.
    return /Failed loading \S+ for package "[^"]+"/.exec(`${error}`)?.[0] ?? null;
  }
}

/** The outputs of a model in the bytes of an .onnx file. */
export async function runOnnx(
  model: Uint8Array,
  inputs: Readonly<Record<string, FixtureTensor>>,
): Promise<ReadonlyMap<string, FixtureTensor>> {
  const tensors = Object.entries(inputs).map(([name, tensor]) =>
    [name, { dtype: "F32", ...tensor }] as const
  );
  const files = {
    "model.onnx": model,
    "inputs.safetensors": encodeSafetensors(new Map(tensors)),
  };
  let outputs: ReadonlyMap<string, FixtureTensor> = new Map();
  await withFiles(files, async (dir) => {
    const paths = Object.keys(files).map((name) => `${dir}/${name}`);
    const { tensors } = decodeSafetensors(await execute(paths), "outputs");
    outputs = tensors as ReadonlyMap<string, FixtureTensor>;
  });
  return outputs;
}
