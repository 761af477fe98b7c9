/** PyTorch beside the tests, where it is installed. */

import { fileURLToPath } from "node:url";
import { decodeSafetensors, encodeSafetensors, toFloat32 } from "../../src/formats/safetensors.ts";

/** A python3 of a virtual environment often lacks the packages of the system's, so both are tried. */
const INTERPRETERS = ["python3", "/usr/bin/python3"];

/** Says what to install where {@linkcode findTorch} finds nothing. */
export const NO_TORCH = `no torch and torchvision in ${INTERPRETERS.join(" or ")}; on Debian and ` +
  "Ubuntu: apt-get install python3-torch python3-torchvision python3-sklearn";

/** Runs a Python script to its end and returns its output; throws with stderr if it fails. */
export async function runPython(interpreter: string, args: readonly string[]): Promise<string> {
  const { success, stdout, stderr } = await new Deno.Command(interpreter, { args: [...args] })
    .output();
  const text = new TextDecoder();
  if (!success) throw new Error(`${[interpreter, ...args].join(" ")}\n${text.decode(stderr)}`);
  return text.decode(stdout);
}

/** The first Python interpreter that has torch and torchvision, or null. */
export async function findTorch(): Promise<string | null> {
  for (const interpreter of INTERPRETERS) {
    try {
      await runPython(interpreter, ["-c", "import torch, torchvision"]);
      return interpreter;
    } catch {
      // Not installed, not permitted or without torch: the next one.
    }
  }
  return null;
}

/** What torchvision makes of an encoder file. */
export interface TorchEncoder {
  /** The names that torchvision's network has and the file lacks. */
  readonly missing: string[];
  /** The names that the file has and torchvision's network lacks. */
  readonly unexpected: string[];
  /** The features [n,d] of `x` in training, and in evaluation with the file's running statistics. */
  readonly h: Float32Array;
  readonly evalH: Float32Array;
}

/**
 * Loads `encoder` (the path of a safetensors file in torchvision's names and layouts) into torchvision's
 * full-width `arch` and embeds the images x [n,h,w,3] in float64.
 */
export async function embedWithTorch(
  interpreter: string,
  arch: "resnet18" | "resnet34" | "resnet50",
  encoder: string,
  x: { readonly shape: readonly number[]; readonly data: Float32Array },
): Promise<TorchEncoder> {
  const script = fileURLToPath(new URL("../reference/torch_parity.py", import.meta.url));
  const folder = await Deno.makeTempDir();
  try {
    const [input, output] = [`${folder}/x.safetensors`, `${folder}/h.safetensors`];
    const tensor = { dtype: "F32", shape: x.shape, data: new Float32Array(x.data) } as const;
    await Deno.writeFile(input, encodeSafetensors({ x: tensor }));
    const report = await runPython(interpreter, ["-B", script, arch, encoder, input, output]);
    const { tensors } = decodeSafetensors(await Deno.readFile(output), output);
    return {
      ...JSON.parse(report),
      h: toFloat32(tensors.get("h")!),
      evalH: toFloat32(tensors.get("eval_h")!),
    };
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

/**
 * Saves torchvision's `arch` of random weights into `folder`: `zip.pth`, a state_dict, and `legacy.pth`, a
 * checkpoint of DataParallel.
 *
 * @param levels gray levels of 0 to 255, [n,h,w]
 * @returns the features [n,d] of the levels in three channels, normalised as ImageNet, in evaluation
 */
export async function saveWithTorch(
  interpreter: string,
  arch: "resnet18" | "resnet34" | "resnet50",
  folder: string,
  levels: { readonly shape: readonly number[]; readonly data: Float32Array<ArrayBuffer> },
): Promise<Float32Array> {
  const script = fileURLToPath(new URL("../reference/torch_save.py", import.meta.url));
  const [input, output] = [`${folder}/x.safetensors`, `${folder}/h.safetensors`];
  await Deno.writeFile(input, encodeSafetensors({ x: { dtype: "F32", ...levels } }));
  await runPython(interpreter, ["-B", script, arch, input, folder]);
  const { tensors } = decodeSafetensors(await Deno.readFile(output), output);
  return toFloat32(tensors.get("h")!);
}
