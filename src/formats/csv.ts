/**
 * Comma-separated values (RFC 4180: quotes, quoted line breaks, CRLF, UTF-8 with or without a byte
 * order mark), and tables in them whose header names the columns, in any order and case.
 */

import { UserError } from "../errors.ts";
import { readBytes } from "../files.ts";

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

/** A row of a table whose columns have the names `C`. */
export interface CsvRow<C extends string> {
  /** The line on which it begins, from 1. */
  readonly line: number;
  /** What stands under a name, without space around it; null where nothing does. */
  cell(name: C): string | null;
  /** Throws a UserError that names file, line and column. */
  fail(name: C, why: string): never;
}

/** A table with a header. */
export interface CsvTable<C extends string> {
  /** The names in the header, trimmed and in lower case. */
  readonly columns: readonly string[];
  /** What is below it. */
  readonly rows: readonly CsvRow<C>[];
}

/**
 * Reads a file whose header has the columns `required`, in any order and case, and perhaps those of
 * `optional`; others are not looked at.
 *
 * @param ragged whether rows may be longer or shorter than the header, where columns that are not
 *   looked at hold commas: those that are must then lie to their left
 * @throws UserError with file, line and column of what is wrong
 */
export function readCsvTable<R extends string, O extends string = never>(
  path: string,
  required: readonly R[],
  optional: readonly O[] = [],
  { ragged = false }: { readonly ragged?: boolean } = {},
): CsvTable<R | O> {
  const [header, ...records] = parseCsv(readText(path), path);
  if (!header || records.length === 0) throw new UserError(`${path}: no rows below a header`);
  const columns = header.fields.map((name) => name.trim().toLowerCase());
  const places = new Map<string, number>();
  for (const name of [...required, ...optional]) {
    const place = columns.indexOf(name);
    if (place !== columns.lastIndexOf(name)) {
      throw new UserError(`${path}:${header.line}: two columns are named "${name}"`);
    }
    if (place >= 0) places.set(name, place);
    else if (required.some((other) => other === name)) {
      throw new UserError(`${path}:${header.line}: no column "${name}" (there are ${columns})`);
    }
  }
  const least = ragged ? Math.max(...places.values()) + 1 : columns.length;

  const rows = records.map(({ line, fields }): CsvRow<R | O> => {
    if (ragged ? fields.length < least : fields.length !== least) {
      throw new UserError(
        `${path}:${line}: ${fields.length} fields, but the header has ${columns.length}`,
      );
    }
    return {
      line,
      cell(name) {
        const place = places.get(name);
        return place === undefined ? null : fields[place]!.trim() || null;
      },
      fail(name, why) {
        throw new UserError(`${path}:${line}: column ${places.get(name)! + 1}, "${name}": ${why}`);
      },
    };
  });
  return { columns, rows };
}

function readText(path: string): string {
  const bytes = readBytes(path);
  try {
    return new TextDecoder("utf-8", { fatal: true }).decode(bytes);
  } catch {
    throw new UserError(`${path}: is not UTF-8 text`);
  }
}
