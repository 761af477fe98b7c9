/** Text in columns. */

/**
 * The lines of a table: the first `words` columns flush left, the others, numbers, flush right.
 * Every row has as many cells as the first.
 */
export function tableLines(rows: readonly (readonly string[])[], words = 1): string[] {
  const widths = rows[0]!.map((_, column) => Math.max(...rows.map((row) => row[column]!.length)));
  return rows.map((row) =>
    row.map((cell, column) =>
      column < words ? cell.padEnd(widths[column]!) : cell.padStart(widths[column]!)
    ).join("  ").trimEnd()
  );
}
