/**
 * `csv:FILE`: images listed in a comma-separated file (RFC 4180: quotes, quoted line breaks, CRLF,
 * UTF-8 with or without a byte order mark). The header names the columns, in any order and case:
 *
 * - `filename`: the image, relative to the CSV; required;
 * - `labels`: names separated by `|`; required, but a cell may be empty: nothing is then known of
 *   the image, which is not the same as "no finding";
 * - `split`: train, val (valid, validation), test or unlabeled, which is also what an empty cell of
 *   an unlabelled image means. Without this column patients are placed by {@linkcode splitByPatient};
 * - `patient_id`, `view`, `source`, `license`: optional, empty for unknown.
 *
 * The labels of the data set are all that occur in the file, sorted by UTF-16 code units: their
 * order depends neither on the order of the rows nor on what a SPEC selects.
 */

import { dirname, resolve } from "node:path";
import { UserError } from "../errors.ts";
import { readBytes } from "../files.ts";
import type { Example, Split } from "./dataset.ts";
import { checkSides, parseSplit, splitByPatient } from "./splits.ts";

/** A record of a CSV file. */
export interface CsvRecord {
  /** The line on which it begins, from 1. */
  readonly line: number;
  /** Its fields without quotes. */
  readonly fields: readonly string[];
}

/** A field, quoted or not, and what ends it. */
const FIELD = /(?:"([^"]*(?:""[^"]*)*)"|([^",\r\n][^,\r\n]*)?)(,|\r\n|\n|\r|$)/y;

/**
 * Splits CSV text into records; blank lines are skipped.
 *
 * @param name what to call the text in errors
 * @throws UserError with line and column where a quote is not closed or text follows a closing one
 */
export function parseCsv(text: string, name: string): CsvRecord[] {
  const records: CsvRecord[] = [];
  let fields: string[] = [];
  let line = 1;
  let start = 1;
  for (let at = 0, end = ","; at < text.length || end === ",";) {
    FIELD.lastIndex = at;
    const match = FIELD.exec(text);
    if (match === null) {
      const column = at - Math.max(text.lastIndexOf("\n", at - 1), text.lastIndexOf("\r", at - 1));
      throw new UserError(
        `${name}:${line}:${column}: this quoted field is not closed, or goes on after its end`,
      );
    }
    const [whole, quoted, plain = "", delimiter] = match;
    fields.push(quoted?.replaceAll('""', '"') ?? plain);
    at += whole.length;
    end = delimiter!;
    line += whole.match(/\r\n|\n|\r/g)?.length ?? 0;
    if (end === ",") continue;
    if (fields.length > 1 || quoted !== undefined || plain !== "") {
      records.push({ line: start, fields });
    }
    fields = [];
    start = line;
  }
  return records;
}

/**
 * Reads the examples of a CSV file and sees that every image is there.
 *
 * @throws UserError with file, line and column of what is wrong
 */
export function readCsv(path: string): { labels: string[]; examples: Example[] } {
  const [header, ...records] = parseCsv(readText(path), path);
  if (!header || records.length === 0) throw new UserError(`${path}: no rows below a header`);
  const names = header.fields.map((name) => name.trim().toLowerCase());
  const columnOf = (name: string): number | null => {
    const column = names.indexOf(name);
    if (column !== names.lastIndexOf(name)) {
      throw new UserError(`${path}:${header.line}: two columns are named "${name}"`);
    }
    return column < 0 ? null : column;
  };
  const required = (name: string): number => {
    const column = columnOf(name);
    if (column !== null) return column;
    throw new UserError(`${path}:${header.line}: no column "${name}" (there are ${names})`);
  };
  const columns = {
    filename: required("filename"),
    labels: required("labels"),
    split: columnOf("split"),
    patient: columnOf("patient_id"),
    view: columnOf("view"),
    source: columnOf("source"),
    license: columnOf("license"),
  };

  const lines = new Map<string, number>();
  const rows = records.map(({ line, fields }) => {
    if (fields.length !== names.length) {
      throw new UserError(
        `${path}:${line}: ${fields.length} fields, but the header has ${names.length}`,
      );
    }
    const cell = (column: number | null) => (column !== null && fields[column]!.trim()) || null;
    const fail = (column: number, why: string): never => {
      throw new UserError(`${path}:${line}: column ${column + 1}, "${names[column]}": ${why}`);
    };

    const id = cell(columns.filename) ?? fail(columns.filename, "no file name");
    const file = resolve(dirname(path), id);
    if (lines.has(file)) fail(columns.filename, `${id} is also on line ${lines.get(file)}`);
    lines.set(file, line);
    if (!isFile(file)) fail(columns.filename, `no image ${file}`);

    const found = (cell(columns.labels) ?? "").split("|").map((label) => label.trim())
      .filter((label) => label !== "");
    const labelled = found.length > 0;
    let split: Split | null = null;
    if (columns.split !== null) {
      const word = cell(columns.split) ?? (labelled ? "" : "unlabeled");
      split = parseSplit(word) ??
        fail(columns.split, `"${word}" is none of train, val, test, unlabeled`);
    }
    const patient = cell(columns.patient);
    return {
      ...{ id, file, found, labelled, split, patient },
      view: cell(columns.view),
      source: cell(columns.source),
      license: cell(columns.license),
    };
  });

  const labels = [...new Set(rows.flatMap((row) => row.found))].sort();
  const places = columns.split === null ? splitByPatient(rows) : rows.map((row) => row.split!);
  const examples = rows.map(({ found, labelled, ...row }, i): Example => ({
    ...row,
    split: places[i]!,
    labels: Float32Array.from(labels, (label) => labelled ? Number(found.includes(label)) : NaN),
  }));
  checkSides(path, "patient", examples.map(({ patient, split }) => [patient, split]));
  return { labels, examples };
}

function readText(path: string): string {
  const bytes = readBytes(path);
  try {
    return new TextDecoder("utf-8", { fatal: true }).decode(bytes);
  } catch {
    throw new UserError(`${path}: is not UTF-8 text`);
  }
}

function isFile(path: string): boolean {
  try {
    return Deno.statSync(path).isFile;
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return false;
    throw error;
  }
}
