/**
 * Runs an ONNX file by ONNX Runtime, in a process of its own without deno.lock: Deno fetches all that
 * stands there for every command, and ONNX Runtime has 20 MB.
 *
 *     deno run --no-lock --allow-read onnx_runtime.ts MODEL.onnx INPUTS.safetensors > OUTPUTS.safetensors
 */
import {
  decodeSafetensors,
  encodeSafetensors,
  type SafeTensor,
} from "../../src/formats/safetensors.ts";

// deno-lint-ignore no-explicit-any
type Any = any;

/** Held in a variable so that `deno check` leaves it out of deno.lock. */
const PACKAGE = "npm:onnxruntime-web@1.22.0/wasm";

const ort: Any = await import(PACKAGE);
const [model, inputs] = Deno.args;
if (model !== undefined && inputs !== undefined) {
  ort.env.wasm.numThreads = 1;
  const session = await ort.InferenceSession.create(await Deno.readFile(model));
  const { tensors } = decodeSafetensors(await Deno.readFile(inputs), inputs);
  const feeds = [...tensors].map(([name, { shape, data }]) =>
    [name, new ort.Tensor("float32", data, shape)] as const
  );
  const results: Record<string, { dims: number[]; data: Float32Array }> = await session.run(
    Object.fromEntries(feeds),
  );
  const outputs = Object.entries(results).map(([name, { dims, data }]) =>
    [name, { dtype: "F32", shape: dims, data } satisfies SafeTensor] as const
  );
  await Deno.stdout.write(encodeSafetensors(new Map(outputs)));
}
