import assert from "node:assert/strict";
import { join } from "node:path";
import { UserError } from "../src/errors.ts";
import { parseCsv, readCsvTable } from "../src/formats/csv.ts";
import { Random } from "../src/random.ts";
import { withFiles } from "./support/files.ts";

function fieldsOf(text: string) {
  return parseCsv(text, "x.csv").map((record) => record.fields);
}

Deno.test("parseCsv() reads quotes, line breaks of all kinds and empty fields", () => {
  assert.deepEqual(fieldsOf('a,"b ""c""",\r\n"x\ny",,"p,q"\n,\rlast,2,3'), [
    ["a", 'b "c"', ""],
    ["x\ny", "", "p,q"],
    ["", ""],
    ["last", "2", "3"],
  ]);
  assert.deepEqual(fieldsOf('5" tube,it"s'), [['5" tube', 'it"s']]);
});

Deno.test("parseCsv() skips blank lines and counts lines inside quotes", () => {
  const records = parseCsv('a\n\n"1\r\n2\n"\r\n\n""\nz\n', "x.csv");
  assert.deepEqual(records.map(({ line, fields }) => [line, ...fields]), [
    [1, "a"],
    [3, "1\r\n2\n"],
    [7, ""],
    [8, "z"],
  ]);
  assert.deepEqual(fieldsOf(""), []);
  assert.deepEqual(fieldsOf("\n"), []);
});

Deno.test("parseCsv() keeps the last field after a comma at the end", () => {
  assert.deepEqual(fieldsOf("a,"), [["a", ""]]);
  assert.deepEqual(fieldsOf("a,\n"), [["a", ""]]);
});

Deno.test("parseCsv() reads back random tables", () => {
  const random = new Random(0, "csv test");
  const alphabet = [...'ab,"\r\n |é '];
  for (let trial = 0; trial < 500; trial++) {
    const columns = 1 + random.integer(4);
    const table = Array.from(
      { length: 1 + random.integer(5) },
      () =>
        Array.from({ length: columns }, () =>
          Array.from(
            { length: random.integer(6) },
            () => alphabet[random.integer(alphabet.length)]!,
          ).join("")),
    );
    const newline = ["\n", "\r\n"][random.integer(2)]!;
    const text = table.map((row) =>
      row.map((field) => `"${field.replaceAll('"', '""')}"`).join(",")
    ).join(newline);
    assert.deepEqual(fieldsOf(text + (random.integer(2) ? newline : "")), table, text);
  }
});

Deno.test("parseCsv() names line and column of a bad quote", () => {
  assert.throws(() => parseCsv('a,b\nc,"d\n\n', "x.csv"), /^UserError: x\.csv:2:3: this quoted/);
  assert.throws(() => parseCsv('"a"b,c', "x.csv"), /^UserError: x\.csv:1:1: this quoted/);
});

Deno.test("readCsvTable() finds columns by name; ragged rows may run past the header", async () => {
  const text =
    '\uFEFF View ,"File",Size[w,h]\r\n PA ,a.png,1,2\r\n,"b\n.png"\r\nAP,c.png,1,2,3\r\n';
  await withFiles({ "x.csv": text }, (dir) => {
    const path = join(dir, "x.csv");
    const { columns, rows } = readCsvTable(path, ["file"], ["view", "note"], { ragged: true });
    assert.deepEqual(columns, ["view", "file", "size[w", "h]"]);
    assert.deepEqual(
      rows.map(({ line, cell }) => [line, cell("view"), cell("file"), cell("note")]),
      [[2, "PA", "a.png", null], [3, null, "b\n.png", null], [5, "AP", "c.png", null]],
    );
    assert.throws(
      () => rows[1]!.fail("file", "is odd"),
      new UserError(`${path}:3: column 2, "file": is odd`),
    );
    assert.throws(
      () => readCsvTable(path, ["file"]),
      new UserError(`${path}:3: 2 fields, but the header has 4`),
    );
    assert.throws(
      () => readCsvTable(path, ["h]"], [], { ragged: true }),
      new UserError(`${path}:3: 2 fields, but the header has 4`),
    );
  });
});
