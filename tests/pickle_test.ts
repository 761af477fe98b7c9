import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import { UserError } from "../src/errors.ts";
import { type Callable, unpickle } from "../src/formats/pickle.ts";

/** Bytes of opcodes (Latin-1 text) after PROTO 4. */
const pickle = (opcodes: string) => Uint8Array.from(Buffer.from(`\x80\x04${opcodes}`, "latin1"));

const sum: Callable = (args) => (args as number[]).reduce((a, b) => a + b, 0);
const rules = {
  globals: new Map<string, unknown>([["math.sum", sum], ["math.pi", { pi: Math.PI }]]),
  persistent: (id: unknown) => ({ id }),
};
const read = (opcodes: string) => unpickle(pickle(opcodes), 0, rules).value;

const refuses = (opcodes: string, message: RegExp) =>
  assert.throws(() => read(opcodes), (error: Error) => {
    assert.ok(error instanceof UserError, error.stack);
    assert.match(error.message, message);
    return true;
  });

Deno.test("unpickle() reads numbers, text and constants", () => {
  assert.equal(read("J\xff\xff\xff\xff."), -1);
  assert.equal(read("K\xff."), 255);
  assert.equal(read("M\x01\x02."), 513);
  assert.equal(read("\x8a\x00."), 0);
  assert.equal(read("\x8a\x02\x00\xff."), -256);
  assert.equal(read(`\x8a\xff${"\x7f".repeat(255)}.`), BigInt(`0x${"7f".repeat(255)}`));
  assert.equal(read(`\x8a\x09\x01${"\x00".repeat(7)}\x01.`), 2n ** 64n + 1n);
  assert.equal(read("G\x3f\xf8\x00\x00\x00\x00\x00\x00."), 1.5);
  assert.equal(read("X\x03\x00\x00\x00a\xc3\xa4."), "aä");
  assert.equal(read("\x8c\x03\xef\xbb\xbf."), "\ufeff");
  assert.equal(read("U\x01a."), "a");
  assert.deepEqual([read("N."), read("\x88."), read("\x89.")], [null, true, false]);
});

Deno.test("unpickle() builds lists, tuples and dicts, and shares what is memoised", () => {
  assert.deepEqual(read("]K\x01aK\x02a."), [1, 2]);
  assert.deepEqual(read("](K\x01K\x02e."), [1, 2]);
  assert.deepEqual(read("(K\x01)K\x02\x85K\x03K\x04\x86t."), [1, [], [2], [3, 4]]);
  assert.deepEqual(
    read("}K\x01Ns(K\x02\x88K\x03\x89u."),
    new Map([[1, null], [2, true], [3, false]]),
  );
  const [a, b, c, d] = read("(]q\x05h\x05}\x94j\x05\x00\x00\x00t.") as unknown[];
  assert.ok(a === b && a === d && c instanceof Map);
  const self = read("]q\x00h\x00a.") as unknown[];
  assert.equal(self[0], self);
});

Deno.test("unpickle() calls what the whitelist names, and nothing else", () => {
  assert.equal(read("cmath\nsum\nK\x01K\x02\x86R."), 3);
  assert.equal(read("\x8c\x04math\x8c\x03sum\x93K\x01K\x02\x86R."), 3);
  assert.deepEqual(read("K\x07Q."), { id: 7 });
  assert.deepEqual(read("}}b."), new Map(), "attributes of a dict are left out");
  refuses("cmath\npi\n)R.", /^the pickle calls an object with a list$/);
  refuses("X\x03\x00\x00\x00sum)R.", /^the pickle calls a string with a list$/);
  refuses("cmath\nsum\nNR.", /^the pickle calls a function with None$/);
});

Deno.test("unpickle() refuses every way to run a program by its name", () => {
  const call = "X\x02\x00\x00\x00id\x85";
  refuses(`cos\nsystem\n${call}R.`, /^pickle global os\.system is not allowed/);
  refuses(`\x8c\x05posix\x8c\x06system\x93${call}R.`, /^pickle global posix\.system is not/);
  refuses(`cbuiltins\neval\n${call}R.`, /^pickle global builtins\.eval is not allowed/);
  refuses("c__builtin__\ngetattr\n.", /^pickle global __builtin__\.getattr is not allowed/);
  refuses("ctorch._utils\n_rebuild_tensor_v2\n.", /global torch\._utils\._rebuild_tensor_v2/);
  refuses("cmath\nsum\x00\n.", /^pickle global "math\.sum\\u0000" is not allowed/);
  refuses("\x8c\x04math\x8c\x09__class__\x93.", /^pickle global math\.__class__ is not allowed/);
  refuses("\x8c\x00\x8c\x09__proto__\x93.", /^pickle global \.__proto__ is not allowed/);
  refuses("K\x01K\x02\x93.", /^the pickle names a global by a number and a number$/);
  refuses(`(${call}ios\nsystem\n.`, /^pickle opcode INST at byte \d+ is not allowed$/);
  refuses(`(cmath\nsum\n${call}o.`, /^pickle opcode OBJ /);
  refuses("cmath\nsum\n)\x81.", /^pickle opcode NEWOBJ /);
  refuses("cmath\nsum\n)}\x92.", /^pickle opcode NEWOBJ_EX /);
  refuses("cmath\nsum\n}b.", /^pickle opcode BUILD on a function is not allowed$/);
  refuses("cmath\npi\n}b.", /^pickle opcode BUILD on an object is not allowed$/);
  refuses("\x82\x01.", /^pickle opcode EXT1 at byte 2 is not allowed$/);
  refuses("\x83\x01\x00.", /^pickle opcode EXT2 /);
  refuses("\x84\x01\x00\x00\x00.", /^pickle opcode EXT4 /);
  refuses("Pos\n.", /^pickle opcode PERSID /);
  refuses("\x97.", /^pickle opcode NEXT_BUFFER /);
  refuses("\x8b\x01\x00\x00\x00\x01.", /^pickle opcode LONG4 /);
  refuses("I1\n.", /^pickle opcode INT /);
  refuses("\xff.", /^pickle opcode 0xff /);
});

Deno.test("unpickle() says where a damaged pickle breaks off", () => {
  refuses("", /^cut short: the pickle goes on after byte 2$/);
  refuses("X\xff\xff\xff\xffab", /^cut short/);
  refuses("cmath", /^cut short/);
  refuses("\x80\x06.", /^pickle protocol 6$/);
  refuses("X\x01\x00\x00\x00\xff.", /^the text at byte 7 of the pickle is not UTF-8$/);
  for (const opcodes of [".", "a.", "K\x01\x86.", "t.", "R.", "q\x00.", "Q.", "K\x01b."]) {
    refuses(opcodes, /^the pickle takes a value where there is none$/);
  }
  refuses("h\x09.", /^the pickle refers to its value 9, which is not there$/);
  refuses("NK\x01a.", /^pickle opcode APPEND on None$/);
  refuses("](K\x01K\x02u.", /^pickle opcode SETITEMS on a list$/);
  refuses("}(K\x01u.", /^pickle opcode SETITEMS: a key without a value$/);
  refuses("}".repeat(2 ** 20), /^the pickle has more than 1048576 opcodes$/);
});

Deno.test("unpickle() reads one of several pickles in a row", () => {
  const bytes = Uint8Array.from([
    ...pickle("K\x01."),
    ...pickle("\x95\x03\x00\x00\x00\x00\x00\x00\x00K\x02."),
  ]);
  const { value, end } = unpickle(bytes, 0, rules);
  assert.deepEqual([value, end], [1, 5]);
  assert.deepEqual(unpickle(bytes, end, rules), { value: 2, end: bytes.length });
});
