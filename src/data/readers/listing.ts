/** What tables that list images have in common. */

import { isFile } from "../../files.ts";

/** A row that names an image. */
export interface Listed {
  /** Its line in the table, from 1. */
  readonly line: number;
  /** The name as the table writes it. */
  readonly id: string;
  /** Where the image is. */
  readonly file: string;
  /** Throws a UserError that names the cell with the image's name. */
  fail(why: string): never;
}

/**
 * Sees that no image is listed twice and, unless that is left to decoding, that every one is there.
 *
 * @throws UserError with the line of the first that is wrong, and the names of some that are missing
 */
export function checkListed(rows: readonly Listed[], { checkFiles = true } = {}): void {
  const lines = new Map<string, number>();
  for (const { line, id, file, fail } of rows) {
    if (lines.has(file)) fail(`${id} is also on line ${lines.get(file)}`);
    lines.set(file, line);
  }
  const missing = rows.filter(({ file }) => checkFiles && !isFile(file));
  if (missing.length === 0) return;
  const [{ file, fail }, ...others] = missing as [Listed, ...Listed[]];
  const names = others.slice(0, 3).map(({ id }) => id).join(", ");
  fail(
    `no image ${file}` +
      (names === "" ? "" : `; ${missing.length} of ${rows.length} are missing (next ${names})`),
  );
}
