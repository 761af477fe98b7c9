import assert from "node:assert/strict";
import { join } from "node:path";
import { RecordFile } from "../src/data/readers/records.ts";
import { withFiles } from "./support/files.ts";

/** Records of 1 MiB, four of which make a window; each is filled with its index. */
const MIB = 1 << 20;
const records = (count: number) =>
  Uint8Array.from({ length: count * MIB }, (_, at) => Math.floor(at / MIB));

async function levelOf(file: RecordFile, index: number): Promise<number> {
  const record = await file.read(index);
  assert.equal(record.length, file.recordBytes);
  assert.equal(record[0], record.at(-1));
  return record[0]!;
}

Deno.test("RecordFile.read() finds every record, in any order, across windows", async () => {
  await withFiles({ x: records(11) }, async (dir) => {
    const file = new RecordFile(join(dir, "x"), MIB);
    assert.equal(file.count, 11);
    const orders = [
      [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10],
      [10, 9, 8, 0, 3, 4, 5, 9, 10, 2],
      [0, 2, 4, 5, 6, 6, 5, 10],
    ];
    for (const order of orders) {
      for (const index of order) assert.equal(await levelOf(file, index), index);
    }
    const all = orders.flat();
    assert.deepEqual(await Promise.all(all.map((index) => levelOf(file, index))), all);
  });
});

Deno.test("RecordFile.read() reads ahead only where records follow one another", async () => {
  await withFiles({ x: records(6) }, async (dir) => {
    const path = join(dir, "x");
    const file = new RecordFile(path, MIB);
    assert.equal(await levelOf(file, 1), 1);
    assert.equal(await levelOf(file, 3), 3);
    assert.equal(await levelOf(file, 4), 4);
    await Deno.writeFile(path, new Uint8Array(6 * MIB).fill(99));
    assert.equal(await levelOf(file, 5), 5, "came along with record 4");
    assert.equal(await levelOf(file, 3), 99, "was not kept");
  });
});

Deno.test("RecordFile names a file that is missing, empty, cut short, or shrinks", async () => {
  await withFiles({ x: new Uint8Array(30), empty: "", folder: "" }, async (dir) => {
    const path = join(dir, "x");
    const open = (name: string, bytes: number) => new RecordFile(join(dir, name), bytes);
    assert.throws(() => open("none", 10), /^UserError: .*none: no such file$/);
    assert.throws(() => open("empty", 10), /^UserError: .*empty: is empty$/);
    assert.throws(() => open(".", 10), /^UserError: .*: is no file$/);
    assert.throws(() => open("x", 7), /^UserError: .*x: 30 bytes are no whole number of .* of 7;/);
    const file = open("x", 10);
    await Deno.truncate(path, 25);
    await assert.rejects(file.read(2), /^UserError: .*x: ends before byte 30$/);
  });
});
