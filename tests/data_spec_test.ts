import assert from "node:assert/strict";
import { resolve } from "node:path";
import { UserError } from "../src/errors.ts";
import { formatSpec, parseSpec, resolveSpec, type Source } from "../src/data/spec.ts";
import { SPLITS } from "../src/data/dataset.ts";
import { Random } from "../src/random.ts";

const bare = {
  options: {},
  resplit: null,
  map: null,
  split: null,
  views: null,
  licenses: null,
  having: null,
  labels: null,
  limit: null,
  fraction: null,
};

Deno.test("parseSpec() reads readers, paths and keys", () => {
  assert.deepEqual(
    parseSpec(
      "csv:a/b.csv?split=train,val&labels=Edema,No Finding&views=PA&licenses=CC0,CC BY 4.0&limit=10" +
        "&having=Edema&fraction=.5&resplit=7&map=a:Edema,b:,c%3Ad:e%2Cf+folder:pile",
    ),
    [
      {
        reader: "csv",
        path: "a/b.csv",
        options: {},
        resplit: 7,
        map: { a: "Edema", b: null, "c:d": "e,f" },
        split: ["train", "val"],
        views: ["PA"],
        licenses: ["CC0", "CC BY 4.0"],
        having: ["Edema"],
        labels: ["Edema", "No Finding"],
        limit: 10,
        fraction: 0.5,
      },
      { ...bare, reader: "folder", path: "pile" },
    ],
  );
});

Deno.test("parseSpec() keeps a drive letter and other colons in the path", () => {
  assert.equal(parseSpec("csv:C:\\x\\y.csv")[0]!.path, "C:\\x\\y.csv");
  assert.equal(parseSpec("folder:/mnt/a:b")[0]!.path, "/mnt/a:b");
});

Deno.test("parseSpec() decodes percent escapes", () => {
  const spec = "csv:a%2Bb%3F%26%25%20c.csv?labels=x%2Cy,z";
  assert.deepEqual(parseSpec(spec), [
    { ...bare, reader: "csv", path: "a+b?&% c.csv", labels: ["x,y", "z"] },
  ]);
  assert.equal(formatSpec(parseSpec(spec)), "csv:a%2Bb%3F%26%25 c.csv?labels=x%2Cy,z");
});

Deno.test("parseSpec() reads phantom's keys after a colon, common ones anywhere", () => {
  const options = { n: "200", seed: "3" };
  assert.deepEqual(parseSpec("phantom"), [{ ...bare, reader: "phantom", path: null }]);
  for (const spec of ["phantom:seed=3,n=200", "phantom?n=200&seed=3", "phantom:n=200?seed=3"]) {
    assert.deepEqual(parseSpec(spec), [{ ...bare, reader: "phantom", path: null, options }]);
    assert.equal(formatSpec(parseSpec(spec)), "phantom:n=200,seed=3");
  }
  assert.equal(formatSpec(parseSpec("phantom:n=9,limit=3")), "phantom:n=9?limit=3");
});

Deno.test("formatSpec() writes one canonical form of synonyms and orders", () => {
  assert.equal(
    formatSpec(parseSpec("csv:x.csv?limit=007&split=Validation,valid,unlabelled")),
    "csv:x.csv?split=val,unlabeled&limit=7",
  );
  assert.equal(
    formatSpec(parseSpec("csv:x.csv?fraction=0.10&labels=C&map=A:C,B:,%43:%44%3A&resplit=007")),
    "csv:x.csv?resplit=7&map=A:C,B:,C:D%3A&labels=C&fraction=0.1",
  );
});

Deno.test("parseSpec() reads back what formatSpec() writes, for random sources", () => {
  const random = new Random(0, "spec test");
  const alphabet = [..."ab/\\:.=?&+%,~#| \"'é漢🫁\n0"];
  const word = () =>
    Array.from(
      { length: 1 + random.integer(12) },
      () => alphabet[random.integer(alphabet.length)]!,
    ).join("");
  const words = () => [...new Set(Array.from({ length: 1 + random.integer(3) }, word))];
  const maybe = <T>(make: () => T) => random.integer(2) === 0 ? null : make();
  const source = (): Source => {
    const common = {
      resplit: maybe(() => random.u32()),
      map: maybe(() =>
        Object.fromEntries(words().map((old) => [old, maybe(word)] as [string, string | null]))
      ),
      split: maybe(() => random.shuffle([...SPLITS]).slice(0, 1 + random.integer(4))),
      labels: maybe(words),
      views: maybe(words),
      licenses: maybe(words),
      having: maybe(words),
      limit: maybe(() => 1 + random.integer(1e9)),
      fraction: maybe(() => (1 - random.uniform()) * 10 ** -random.integer(9)),
    };
    const n = maybe(word);
    const seed = maybe(word);
    return random.integer(3) > 0
      ? { reader: ["csv", "folder"][random.integer(2)]!, path: word(), options: {}, ...common }
      : {
        reader: "phantom",
        path: null,
        options: { ...(n === null ? {} : { n }), ...(seed === null ? {} : { seed }) },
        ...common,
      };
  };
  for (let trial = 0; trial < 2000; trial++) {
    const sources = Array.from({ length: 1 + random.integer(3) }, source);
    const spec = formatSpec(sources);
    assert.deepEqual(parseSpec(spec), sources, spec);
    assert.equal(formatSpec(parseSpec(spec)), spec);
  }
});

Deno.test("parseSpec() names the source, the key and the value that are wrong", () => {
  const mistakes: [string, RegExp][] = [
    ["", /data "": no reader ""; there are .*csv:FILE, folder:DIR, .*phantom\[:n=…\]/],
    ["/data/x.csv", /data "\/data\/x.csv": no reader "\/data\/x.csv"/],
    ["constructor:x", /no reader "constructor"/],
    ["csv", /data "csv": no path; write csv:FILE/],
    ["csv:", /no path/],
    ["phantom+csv:", /data "csv:": no path/],
    ["csv:x?y?z=1", /second "\?"/],
    [
      "csv:x?foo=1",
      /no key "foo" in csv; there are resplit, map, split, views, licenses, having, labels, limit, fraction/,
    ],
    ["phantom:width=3", /no key "width" in phantom; there are n, seed, resplit, map, split/],
    ["phantom:n", /"n" is no key=value/],
    ["csv:x?limit", /"limit" is no key=value/],
    ["csv:x?limit=", /"limit" has no value/],
    ["csv:x?limit=0", /limit=0/],
    ["csv:x?limit=1e3", /limit=1e3/],
    ["csv:x?limit=-1", /limit=-1/],
    ["csv:x?limit=9007199254740993", /limit=9007199254740993 is no whole number/],
    ["csv:x?resplit=-1", /resplit=-1 is no seed/],
    ["csv:x?resplit=4294967296", /resplit=4294967296 is no seed/],
    ["csv:x?resplit=0.5", /resplit=0.5 is no seed/],
    ["csv:x?fraction=0", /fraction=0 is no number above 0 and up to 1/],
    ["csv:x?fraction=1.01", /fraction=1.01 is no number/],
    ["csv:x?fraction=..5", /fraction=..5 is no number/],
    ["csv:x?fraction=10%25", /fraction=10%25 is no number/],
    ["csv:x?map=A", /map=A: "A" is no OLD:NEW/],
    ["csv:x?map=A:B:C", /"A:B:C" is no OLD:NEW.*%3A/],
    ["csv:x?map=A:B,:C", /":C" is no OLD:NEW/],
    ["csv:x?map=A:B,A:C", /map=A:B,A:C names "A" twice/],
    ["csv:x?having=A,", /having=A, holds an empty name/],
    ["csv:x?split=trian", /split=trian is none of train, val, test, unlabeled/],
    ["csv:x?labels=a,,b", /labels=a,,b holds an empty name/],
    ["csv:x?limit=1&limit=2", /"limit" is given twice/],
    ["csv:100%.csv", /"100%\.csv" holds a "%" that starts no escape; write "%25"/],
  ];
  for (const [spec, message] of mistakes) {
    assert.throws(
      () => parseSpec(spec),
      (error) => error instanceof UserError && message.test(error.message),
      spec,
    );
  }
});

Deno.test("resolveSpec() puts relative paths below a folder and leaves others alone", () => {
  const base = resolve("some", "where");
  const absolute = resolve("/data/x.csv");
  assert.deepEqual(
    resolveSpec(parseSpec(`csv:../a.csv+folder:b+csv:${absolute}+phantom`), base).map((s) =>
      s.path
    ),
    [resolve("some", "a.csv"), resolve(base, "b"), absolute, null],
  );
});
