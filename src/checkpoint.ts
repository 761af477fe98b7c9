/** The state of a run between two steps, as a safetensors file. */
import { UserError } from "./errors.ts";
import {
  decodeSafetensors,
  encodeSafetensors,
  type SafeTensor,
  toFloat32,
} from "./formats/safetensors.ts";

/** All that the next step depends on, besides the configuration. */
export interface Checkpoint {
  /** Steps done. */
  readonly step: number;
  /** Parameters and running statistics by their names. */
  readonly model: ReadonlyMap<string, SafeTensor>;
  /** The optimiser's moments, each over the flat parameters, and the scale of the loss where it has one. */
  readonly optimizer: ReadonlyMap<string, Float32Array>;
  /** What the method keeps besides. */
  readonly method: ReadonlyMap<string, Float32Array>;
  /** The moving average of the flat parameters, where one is kept. */
  readonly ema: Float32Array | null;
}

/** The bytes of a checkpoint: `model.*`, `optimizer.*`, `method.*` and `ema`, the step in the metadata. */
export function encodeCheckpoint(
  { step, model, optimizer, method, ema }: Checkpoint,
): Uint8Array<ArrayBuffer> {
  const flat = (data: Float32Array): SafeTensor => ({
    dtype: "F32",
    shape: [data.length],
    data: data as Float32Array<ArrayBuffer>,
  });
  const tensors = new Map<string, SafeTensor>();
  for (const [name, array] of model) tensors.set(`model.${name}`, array);
  for (const [name, data] of optimizer) tensors.set(`optimizer.${name}`, flat(data));
  for (const [name, data] of method) tensors.set(`method.${name}`, flat(data));
  if (ema !== null) tensors.set("ema", flat(ema));
  return encodeSafetensors(tensors, { step: String(step) });
}

/**
 * Reads a checkpoint.
 *
 * @throws {UserError} naming the file, if it is none
 */
export function decodeCheckpoint(bytes: Uint8Array, path: string): Checkpoint {
  const { tensors, metadata } = decodeSafetensors(bytes, path);
  const step = Number(metadata.step);
  if (!Number.isInteger(step) || step < 0) {
    throw new UserError(`${path}: no checkpoint of a run (step is ${metadata.step})`);
  }
  const part = (prefix: string) =>
    [...tensors].filter(([name]) => name.startsWith(prefix)).map((
      [name, tensor],
    ) => [name.slice(prefix.length), tensor] as const);
  const arrays = (prefix: string) =>
    new Map(part(prefix).map(([name, tensor]) => [name, toFloat32(tensor)]));
  const ema = tensors.get("ema");
  return {
    step,
    model: new Map(part("model.")),
    optimizer: arrays("optimizer."),
    method: arrays("method."),
    ema: ema === undefined ? null : toFloat32(ema),
  };
}
