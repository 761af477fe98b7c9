import { readBytes } from "../files.ts";
import { type SafeTensor, toFloat32 } from "../formats/safetensors.ts";
import { decodeWeights } from "../formats/weights.ts";
import { defineCommand } from "./command.ts";
import { boolean } from "./flags.ts";

/** Statistics over the values of a tensor that are not NaN; themselves NaN where there are none. */
export interface Statistics {
  /** Least value. */
  readonly min: number;
  /** Greatest value. */
  readonly max: number;
  /** Arithmetic mean. */
  readonly mean: number;
  /** Standard deviation, with the number of values as divisor. */
  readonly std: number;
  /** How many values are NaN. */
  readonly nan: number;
}

/** What `deno task inspect` tells about one tensor. */
export interface TensorReport extends Statistics {
  /** Name in the file. */
  readonly name: string;
  /** As the file calls it: F32, I64, … */
  readonly dtype: string;
  /** Sizes of the axes. */
  readonly shape: readonly number[];
}

/** What `deno task inspect` tells about a file. */
export interface FileReport {
  /** Its path. */
  readonly file: string;
  /** Free-form text by name. */
  readonly metadata: Readonly<Record<string, string>>;
  /** In the order of their names, numbers within names by value: layer2 before layer10. */
  readonly tensors: readonly TensorReport[];
  /** Sums over all tensors; `bytes` is the size of the file. */
  readonly total: {
    readonly tensors: number;
    readonly values: number;
    readonly nan: number;
    readonly bytes: number;
  };
}

/** `deno task inspect FILE` */
export const command = defineCommand({
  name: "inspect",
  summary: "Prints the tensors of a file of weights: names, shapes, types, statistics",
  flags: { json: boolean({ help: "print one JSON object; a number that is not finite is null" }) },
  positionals: ["FILE"],
  notes: "Reads safetensors and PyTorch's .pth, .pt and .th. Nothing in a file is executed.",
  run({ json }, { positionals: [file] }) {
    const report = inspectFile(file!);
    console.log(json ? JSON.stringify(report, null, 2) : formatReport(report));
  },
});

/**
 * Reads a file of weights and summarises its tensors.
 *
 * @throws UserError if the file cannot be read or holds no weights.
 */
export function inspectFile(file: string): FileReport {
  const bytes = readBytes(file);
  const { tensors, metadata } = decodeWeights(bytes, file);
  const reports = [...tensors].map(([name, tensor]): TensorReport => {
    const { dtype, shape } = tensor;
    return { name, dtype, shape, ...statistics(tensor) };
  });
  reports.sort((a, b) => a.name.localeCompare(b.name, "en", { numeric: true }));
  const total = {
    tensors: reports.length,
    values: [...tensors.values()].reduce((n, { data }) => n + data.length, 0),
    nan: reports.reduce((n, { nan }) => n + nan, 0),
    bytes: bytes.length,
  };
  return { file, metadata, tensors: reports, total };
}

function statistics(tensor: SafeTensor): Statistics {
  const values = tensor.dtype === "BF16" ? toFloat32(tensor) : tensor.data;
  const size = values.length;
  let [min, max, sum, nan] = [Infinity, -Infinity, 0, 0];
  for (let i = 0; i < size; i++) {
    const value = Number(values[i]);
    if (Number.isNaN(value)) {
      nan++;
      continue;
    }
    if (value < min) min = value;
    if (value > max) max = value;
    sum += value;
  }
  if (nan === size) return { min: NaN, max: NaN, mean: NaN, std: NaN, nan };
  const mean = sum / (size - nan);
  let squares = 0;
  for (let i = 0; i < size; i++) {
    const value = Number(values[i]);
    if (!Number.isNaN(value)) squares += (value - mean) ** 2;
  }
  return { min, max, mean, std: Math.sqrt(squares / (size - nan)), nan };
}

function formatReport({ metadata, tensors, total }: FileReport): string {
  const header = ["name", "dtype", "shape", "min", "max", "mean", "std", "NaN"];
  const rows = tensors.map(({ name, dtype, shape, min, max, mean, std, nan }) => [
    name,
    dtype,
    `[${shape.join(", ")}]`,
    ...[min, max, mean, std].map(significant),
    String(nan),
  ]);
  const words = header.map((_, i) => i < 3);
  const widths = header.map((title, i) =>
    Math.max(...[title, ...rows.map((r) => r[i]!)].map((cell) => cell.length))
  );
  const line = (cells: string[]) =>
    cells.map((cell, i) => words[i] ? cell.padEnd(widths[i]!) : cell.padStart(widths[i]!))
      .join("  ");
  const count = (n: number) => n.toLocaleString("en-US");
  return [
    line(header),
    ...rows.map(line),
    "",
    `${count(total.tensors)} tensors, ${count(total.values)} values, ${count(total.nan)} NaN, ` +
    `${count(total.bytes)} bytes`,
    ...Object.entries(metadata).map(([key, value]) => `${key}: ${value}`),
  ].join("\n");
}

/** Four significant digits, without zeros that say nothing. */
function significant(value: number): string {
  return String(Number(value.toPrecision(4)));
}
