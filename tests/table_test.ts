import assert from "node:assert/strict";
import { tableLines } from "../src/table.ts";

Deno.test("tableLines() puts words left and numbers right, without spaces at the end", () => {
  const rows = [["", "a", "number"], ["name", "1", "20"], ["n", "100", ""]];
  assert.deepEqual(tableLines(rows), [
    "        a  number",
    "name    1      20",
    "n     100",
  ]);
  assert.deepEqual(tableLines(rows, 3), ["      a    number", "name  1    20", "n     100"]);
});
