import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import { createHash } from "node:crypto";
import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { gzipSync } from "node:zlib";
import { packTar } from "npm:modern-tar@0.8.6";
import { runCommand } from "../src/commands/command.ts";
import { command } from "../src/commands/data.ts";
import { describeEntry } from "../src/commands/data_get.ts";
import {
  type Archive,
  CATALOG,
  type Downloadable,
  hostsOf,
  isDownloadable,
} from "../src/data/get/catalog.ts";
import type { Listener, Patience } from "../src/data/get/download.ts";
import { getDataset } from "../src/data/get/get.ts";
import { addressOf, parseSpec, READERS } from "../src/data/spec.ts";
import { UserError } from "../src/errors.ts";
import { withFiles } from "./support/files.ts";
import { type Answer, type Asked, withServer } from "./support/http.ts";

type TarEntry = Parameters<typeof packTar>[0][number];

const quiet: Listener = { progress() {}, note() {} };
const patience: Patience = { tries: 3, delay: 1, stall: 10_000 };

/** Bytes that gzip cannot shorten, so that a cut in the archive is a cut in them. */
const noise = (length: number) => {
  const blocks = Array.from(
    { length: Math.ceil(length / 32) },
    (_, i) => createHash("sha256").update(String(i)).digest(),
  );
  return new Uint8Array(Buffer.concat(blocks)).subarray(0, length);
};
const IMAGES = noise(5000);
const LABELS = new TextEncoder().encode("1\n2\n3\n");

const file = (name: string, body: Uint8Array): TarEntry => ({
  header: { name, size: body.length },
  body,
});
const GOOD = [
  { header: { name: "./toy/", type: "directory", size: 0 } },
  file("toy/train_X.bin", IMAGES),
  file("toy/more/train_y.bin", LABELS),
  file("._elsewhere", LABELS),
] satisfies TarEntry[];
const tarGz = async (entries: TarEntry[]) => new Uint8Array(gzipSync(await packTar(entries)));
const sha256 = (bytes: Uint8Array) => createHash("sha256").update(bytes).digest("hex");

/** An entry of a catalog for `bytes` at a host. */
function toy(host: string, bytes: Uint8Array, changes: Partial<Archive> = {}): Downloadable {
  return {
    name: "toy",
    title: "a toy",
    license: "CC0",
    homepage: `http://${host}/`,
    spec: { reader: "toy", path: "" },
    holds: ["train_X.bin", "more"],
    archive: {
      url: `http://${host}/files/toy.tar.gz?download=1`,
      redirects: [],
      bytes: { exact: bytes.length },
      digest: { algorithm: "sha256", hex: sha256(bytes) },
      source: "this test",
      read: "2026-11-23",
      tried: null,
      unpack: { root: "toy", atMost: 6000 },
      ...changes,
    },
  };
}

/** Runs a test with the good archive, a server of it, and a folder. */
async function withToy(
  answer: (bytes: Uint8Array, asked: Asked, count: number) => Answer | Promise<Answer>,
  test: (toy: Downloadable, out: string, asked: Asked[]) => Promise<void>,
  { bytes, ...changes }: Partial<Archive> & { bytes?: Archive["bytes"] } = {},
): Promise<void> {
  const archive = await tarGz(GOOD);
  const all = bytes === undefined ? changes : { bytes, ...changes };
  await withServer(
    (asked, count) => answer(archive, asked, count),
    (host, asked) => withFiles({}, (out) => test(toy(host, archive, all), out, asked)),
  );
}

/** Answers a Range as RFC 9110 wants it; without one, or if the ETag is another, with the whole. */
function serveAs(etag: string, bytes: Uint8Array, { headers }: Asked): Answer {
  const start = /^bytes=(\d+)-$/.exec(headers.get("range") ?? "")?.[1];
  if (start === undefined || headers.get("if-range") !== etag) {
    return { headers: { etag }, body: bytes };
  }
  return {
    status: 206,
    headers: { etag, "content-range": `bytes ${start}-${bytes.length - 1}/${bytes.length}` },
    body: bytes.subarray(Number(start)),
  };
}

const serve = (bytes: Uint8Array, asked: Asked) => serveAs('"1"', bytes, asked);

function assertWhole(out: string): void {
  assert.deepEqual(readdirSync(out).sort(), [".lock", "toy"]);
  assert.deepEqual(readdirSync(join(out, "toy")).sort(), ["more", "origin.json", "train_X.bin"]);
  assert.deepEqual(new Uint8Array(readFileSync(join(out, "toy/train_X.bin"))), IMAGES);
  assert.deepEqual(new Uint8Array(readFileSync(join(out, "toy/more/train_y.bin"))), LABELS);
}

const rejects = (promise: Promise<unknown>, message: RegExp) =>
  assert.rejects(
    promise,
    (error) => error instanceof UserError && message.test(error.message),
    String(message),
  );
const ranges = (asked: Asked[]) => asked.map(({ headers }) => headers.get("range"));
const part = (out: string) => join(out, ".toy/toy.tar.gz.part");

Deno.test("data get downloads and unpacks, and does nothing the second time", () =>
  withToy(serve, async (toy, out, asked) => {
    const stages = new Set<string>();
    const listener = { progress: (stage: string) => stages.add(stage), note() {} };
    const folder = join(out, "toy");
    assert.deepEqual(await getDataset(toy, out, listener, patience), { folder, found: false });
    assertWhole(out);
    assert.deepEqual([...stages], ["downloading", "checking", "unpacking"]);
    const { url, license } = JSON.parse(readFileSync(join(folder, "origin.json"), "utf8"));
    assert.deepEqual([url, license], [toy.archive.url, "CC0"]);
    assert.deepEqual(await getDataset(toy, out, quiet, patience), { folder, found: true });
    assert.equal(asked.length, 1);
  }));

Deno.test("data get asks for the rest where a connection was cut", () =>
  withToy(
    (bytes, asked, count) => ({
      ...serve(bytes, asked),
      ...(count < 4 ? { cutAfter: 1000 } : {}),
    }),
    async (toy, out, asked) => {
      // Each try brings something new, so that all four are made where three are allowed.
      await getDataset(toy, out, quiet, patience);
      assertWhole(out);
      assert.deepEqual(ranges(asked), [null, "bytes=1000-", "bytes=2000-", "bytes=3000-"]);
      assert.equal(asked[1]!.headers.get("if-range"), '"1"');
      assert.equal(asked[0]!.headers.get("accept-encoding"), "identity");
    },
  ));

Deno.test("data get goes on where an earlier call ended", () =>
  withToy(
    (bytes, asked, count) => ({
      ...serve(bytes, asked),
      ...(count === 1 ? { cutAfter: 2000 } : count < 4 ? { cutAfter: 0 } : {}),
    }),
    async (toy, out, asked) => {
      await rejects(
        getDataset(toy, out, quiet, patience),
        /toy\.tar\.gz.*3 times in a row; 2000 bytes are kept, and the same command goes on/,
      );
      assert.equal(existsSync(join(out, "toy")), false);
      await getDataset(toy, out, quiet, patience);
      assertWhole(out);
      assert.deepEqual(ranges(asked), [null, "bytes=2000-", "bytes=2000-", "bytes=2000-"]);
    },
  ));

Deno.test("data get starts over where the file has changed between two tries", () =>
  withToy(
    (bytes, asked, count) =>
      count === 1
        ? { ...serveAs('"old"', noise(bytes.length), asked), cutAfter: 1000 }
        : serveAs('"new"', bytes, asked),
    async (toy, out, asked) => {
      await getDataset(toy, out, quiet, patience);
      assertWhole(out);
      assert.deepEqual(ranges(asked), [null, "bytes=1000-"]);
    },
  ));

Deno.test("data get starts over with a server that ignores Range", () =>
  withToy(
    (bytes, _, count) => ({
      headers: { etag: '"1"' },
      body: bytes,
      ...(count === 1 ? { cutAfter: 1000 } : {}),
    }),
    async (toy, out, asked) => {
      await getDataset(toy, out, quiet, patience);
      assertWhole(out);
      assert.equal(asked.length, 2);
    },
  ));

Deno.test("data get starts over where other bytes come than it asked for", async () => {
  const wrong: ((bytes: Uint8Array) => Answer)[] = [
    (bytes) => ({ headers: { "content-range": `bytes 0-${bytes.length - 1}/${bytes.length}` } }),
    (bytes) => ({ headers: { "content-range": `bytes 1000-${bytes.length}/${bytes.length + 1}` } }),
    (bytes) => ({ headers: { "content-range": `bytes 1000-1999/${bytes.length}` } }),
    () => ({ headers: { "content-range": "bytes 1000-1999/*" } }),
    () => ({ headers: {} }),
    (bytes) => ({
      headers: {
        etag: '"2"',
        "content-range": `bytes 1000-${bytes.length - 1}/${bytes.length}`,
      },
    }),
  ];
  for (const answer of wrong) {
    await withToy((bytes, asked, count) => {
      if (count === 1) return { ...serve(bytes, asked), cutAfter: 1000 };
      if (count === 2) return { status: 206, body: noise(bytes.length - 1000), ...answer(bytes) };
      return serve(bytes, asked);
    }, async (toy, out, asked) => {
      await getDataset(toy, out, quiet, patience);
      assertWhole(out);
      assert.deepEqual(ranges(asked), [null, "bytes=1000-", null]);
    });
  }
});

Deno.test("data get starts over where the server refuses the range", () =>
  withToy((bytes, asked, count) => {
    if (count === 2) return { status: 416, headers: { "content-range": "bytes */12" } };
    return { ...serve(bytes, asked), ...(count === 1 ? { cutAfter: 1000 } : {}) };
  }, async (toy, out, asked) => {
    await getDataset(toy, out, quiet, patience);
    assertWhole(out);
    assert.deepEqual(ranges(asked), [null, "bytes=1000-", null]);
  }));

Deno.test("data get resumes by date, and never by a weak ETag alone", async () => {
  const date = "Mon, 23 Nov 2026 07:00:00 GMT";
  for (const validators of [{ etag: 'W/"1"', "last-modified": date }, { etag: 'W/"1"' }]) {
    await withToy((bytes, asked, count) => {
      if (count === 1) return { headers: validators, body: bytes, cutAfter: 1000 };
      return serveAs(date, bytes, asked);
    }, async (toy, out, asked) => {
      await getDataset(toy, out, quiet, patience);
      assertWhole(out);
      const resumed = "last-modified" in validators ? "bytes=1000-" : null;
      assert.deepEqual(ranges(asked), [null, resumed]);
    });
  }
});

Deno.test("data get goes on after a server that was out of order", () =>
  withToy((bytes, asked, count) => {
    if (count === 1) return { ...serve(bytes, asked), cutAfter: 1000 };
    return count < 4 ? { status: [503, 429][count - 2]! } : serve(bytes, asked);
  }, async (toy, out, asked) => {
    await getDataset(toy, out, quiet, { ...patience, tries: 4 });
    assertWhole(out);
    assert.deepEqual(ranges(asked), [null, "bytes=1000-", "bytes=1000-", "bytes=1000-"]);
  }));

Deno.test("data get asks again where a server falls silent", () =>
  withToy((bytes, asked, count) => ({
    ...serve(bytes, asked),
    ...(count === 1 ? { silentAfter: 1000 } : {}),
  }), async (toy, out, asked) => {
    // A slow machine may take a living connection for a silent one, and ask more than twice.
    await getDataset(toy, out, quiet, { tries: 20, delay: 1, stall: 200 });
    assertWhole(out);
    assert.ok(asked.length > 1);
  }));

Deno.test("data get drops a file with another digest and says both", () =>
  withToy(
    (bytes, asked, count) => serve(count === 1 ? noise(bytes.length) : bytes, asked),
    async (toy, out, asked) => {
      const { length } = await tarGz(GOOD);
      const [found, expected] = [sha256(noise(length)), toy.archive.digest!.hex];
      await rejects(
        getDataset(toy, out, quiet, patience),
        new RegExp(`sha256 is ${found}, expected ${expected}.*is removed`),
      );
      assert.deepEqual(readdirSync(join(out, ".toy")), []);
      await getDataset(toy, out, quiet, patience);
      assertWhole(out);
      assert.deepEqual(ranges(asked), [null, null]);
    },
  ));

Deno.test("data get refuses a file of another length", async () => {
  const chunked = { headers: { "transfer-encoding": "chunked", "content-length": "" } };
  const frame = (bytes: Uint8Array) => {
    const head = new TextEncoder().encode(`${bytes.length.toString(16)}\r\n`);
    return new Uint8Array([...head, ...bytes, 13, 10, 48, 13, 10, 13, 10]);
  };
  const cases: [(bytes: Uint8Array) => Answer, Partial<Archive>, RegExp][] = [
    [(bytes) => ({ body: bytes.subarray(1) }), {}, /has \d+ bytes, expected \d+: it has changed/],
    [(bytes) => ({ body: new Uint8Array([...bytes, 0]) }), {}, /has \d+ bytes, expected \d+/],
    [(bytes) => ({ body: bytes }), { bytes: { atMost: 99 } }, /expected at most 99: it has/],
    [
      (bytes) => ({ ...chunked, body: frame(new Uint8Array([...bytes, 0])) }),
      {},
      /sends more than \d+ bytes/,
    ],
    [(bytes) => ({ ...chunked, body: frame(bytes) }), { bytes: { atMost: 99 } }, /more than 99/],
    [(bytes) => ({ ...chunked, body: frame(bytes.subarray(1)) }), {}, /connection was cut/],
  ];
  for (const [answer, changes, message] of cases) {
    await withToy(answer, async (toy, out) => {
      await rejects(getDataset(toy, out, quiet, patience), message);
      assert.equal(existsSync(join(out, "toy")), false);
    }, changes);
  }
  // Nobody states the length, and the server neither: the end of the chunks is the end.
  await withToy((bytes) => ({ ...chunked, body: frame(bytes) }), async (toy, out) => {
    await getDataset(toy, out, quiet, patience);
    assertWhole(out);
  }, { bytes: { atMost: 9999 }, digest: null });
});

Deno.test("data get says what a server answers", async () => {
  for (const [status, requests] of [[404, 1], [403, 1], [500, 3]] as const) {
    await withToy(() => ({ status }), async (toy, out, asked) => {
      await rejects(
        getDataset(toy, out, quiet, patience),
        new RegExp(`^http://127.*toy\\.tar\\.gz.*: the server answered ${status}`),
      );
      assert.equal(asked.length, requests);
    });
  }
});

Deno.test("data get follows redirects among its own hosts alone", async () => {
  await withToy(
    (bytes, asked) =>
      asked.path === "/elsewhere"
        ? serve(bytes, asked)
        : { status: 302, headers: { location: "/elsewhere" } },
    async (toy, out) => {
      await getDataset(toy, out, quiet, patience);
      assertWhole(out);
    },
  );
  await withToy((bytes, asked) => serve(bytes, asked), async (toy, out, stranger) => {
    const location = toy.archive.url;
    await withToy(() => ({ status: 301, headers: { location } }), async (toy, out) => {
      const host = new URL(location).host;
      await rejects(
        getDataset(toy, out, quiet, patience),
        new RegExp(`redirects to http://${host}, which is not trusted`),
      );
      assert.equal(stranger.length, 0);
      const archive = { ...toy.archive, redirects: [host] };
      await getDataset({ ...toy, archive }, out, quiet, patience);
      assertWhole(out);
    });
    assert.equal(existsSync(join(out, "toy")), false);
  });
  await withToy(
    (_, { path }) => ({ status: 302, headers: { location: path } }),
    (toy, out) => rejects(getDataset(toy, out, quiet, patience), /redirects more than 5 times/),
  );
});

Deno.test("data get unpacks nothing outside its folder, and no links", async () => {
  const link = (type: "symlink" | "link", name: string, linkname: string): TarEntry => ({
    header: { name, type, linkname, size: 0 },
  });
  const device: TarEntry = { header: { name: "toy/null", type: "character-device", size: 0 } };
  const bad: [TarEntry[], RegExp][] = [
    [[file("../escaped", LABELS)], /"\.\.\/escaped" in it leads out of its folder/],
    [[file("toy/../../../escaped", LABELS)], /leads out/],
    [[file("/tmp/wgrad-escaped", LABELS)], /leads out/],
    [[file("toy\\..\\..\\escaped", LABELS)], /leads out/],
    [[file("C:escaped", LABELS)], /leads out/],
    [[link("symlink", "toy/up", "../..")], /"toy\/up" in it is a symlink/],
    [[link("link", "toy/hard", "/etc/passwd")], /"toy\/hard" in it is a link/],
    [[device], /is a character-device/],
    [[file("toy/train_X.bin", IMAGES)], /"more" is not in it, so it is not toy/],
    [[file("other/train_X.bin", IMAGES)], /"train_X\.bin" is not in it/],
  ];
  for (const [entries, message] of bad) {
    const bytes = await tarGz([
      ...GOOD.slice(0, message.source.includes("not in") ? 0 : 3),
      ...entries,
    ]);
    await withServer(
      (asked) => serve(bytes, asked),
      (host) =>
        withFiles({ "out/keep": "" }, async (dir) => {
          await rejects(getDataset(toy(host, bytes), join(dir, "out"), quiet, patience), message);
          assert.deepEqual(readdirSync(dir), ["out"]);
          assert.deepEqual(readdirSync(join(dir, "out")).sort(), [".lock", ".toy", "keep"]);
          assert.equal(existsSync(part(join(dir, "out"))), false, "the archive is of no use");
          assert.equal(existsSync("/tmp/wgrad-escaped"), false);
        }),
    );
  }
});

Deno.test("data get stops at decompression bombs and damaged archives", async () => {
  const good = await tarGz(GOOD);
  // 64 MiB of zeros in 64 KiB; and files of which each alone is small enough.
  const zeros = new Uint8Array(3000);
  const big = await tarGz([file("toy/zeros", new Uint8Array(1 << 26))]);
  const many = await tarGz(Array.from({ length: 50 }, (_, i) => file(`toy/${i}`, zeros)));
  assert.ok(big.length < 1 << 17 && many.length < 1 << 17);
  const bad: [Uint8Array, RegExp][] = [
    [big, /unpacks to more than 6000 bytes/],
    [many, /unpacks to more than 6000 bytes/],
    [good.subarray(0, 3000), /damaged or cut short/],
    [good.subarray(0, good.length - 9), /damaged or cut short/],
    [good.with(3000, good[3000]! ^ 1), /damaged or cut short/],
    [noise(4000), /damaged or cut short/],
    [new Uint8Array(gzipSync(noise(4000))), /damaged or cut short/],
    [new Uint8Array(gzipSync((await packTar(GOOD)).subarray(0, 3000))), /damaged or cut short/],
  ];
  for (const [bytes, message] of bad) {
    await withServer((asked) => serve(bytes, asked), (host) =>
      withFiles({}, async (out) => {
        // Without a digest, the archive itself must tell.
        const entry = toy(host, bytes, { digest: null });
        await rejects(getDataset(entry, out, quiet, patience), message);
        assert.deepEqual(readdirSync(out).sort(), [".lock", ".toy"]);
        const left = readdirSync(join(out, ".toy"), { recursive: true, encoding: "utf8" });
        const sizes = left.map((name) => Deno.statSync(join(out, ".toy", name)))
          .map(({ isFile, size }) => isFile ? size : 0);
        assert.ok(sizes.reduce((a, b) => a + b, 0) <= 6000, `${left}`);
        assert.equal(existsSync(part(out)), false);
      }));
  }
});

Deno.test("data get begins to unpack anew after it was killed", () =>
  withToy(serve, async (toy, out, asked) => {
    const { code } = await runScript(
      `
        import { getDataset } from "./src/data/get/get.ts";
        const [toy, out] = Deno.args;
        const progress = (stage, done) => stage === "unpacking" && done > 0 && Deno.exit(9);
        await getDataset(JSON.parse(toy), out, { progress, note() {} });
      `,
      ["-P=test"],
      [JSON.stringify(toy), out],
    );
    assert.equal(code, 9);
    assert.equal(existsSync(join(out, "toy")), false);
    writeFileSync(join(out, ".toy/unpacked/half a file"), "");
    await getDataset(toy, out, quiet, patience);
    assertWhole(out);
    assert.equal(asked.length, 1, "the archive is not downloaded again");
  }));

Deno.test("data get works once for two that call it at the same time", () => {
  const waiting = Promise.withResolvers<string>();
  return withToy(async (bytes, asked) => {
    assert.match(await waiting.promise, /^waiting: another process gets data into/);
    return serve(bytes, asked);
  }, async (toy, out, asked) => {
    const listener = { progress() {}, note: waiting.resolve };
    const both = [1, 2].map(() => getDataset(toy, out, listener, patience));
    const results = await Promise.all(both);
    assert.deepEqual(results.map(({ found }) => found).sort(), [false, true]);
    assertWhole(out);
    assert.equal(asked.length, 1);
  });
});

Deno.test("data get leaves a folder alone that it did not make", () =>
  withToy(serve, async (toy, out, asked) => {
    const mine = join(out, "toy/mine.txt");
    mkdirSync(dirname(mine));
    writeFileSync(mine, "mine");
    await rejects(
      getDataset(toy, out, quiet, patience),
      /is not toy of http.*remove it, or choose/,
    );
    assert.equal(readFileSync(mine, "utf8"), "mine");
    assert.equal(asked.length, 0);
  }));

Deno.test("data get keeps a file that is no archive as it is", () =>
  withToy(serve, async (toy, out) => {
    const entry = { ...toy, holds: ["toy.npz"], archive: { ...toy.archive, unpack: null } };
    await getDataset(entry, out, quiet, patience);
    assert.deepEqual(readdirSync(join(out, "toy")).sort(), ["origin.json", "toy.npz"]);
    const { hex } = toy.archive.digest!;
    assert.equal(sha256(readFileSync(join(out, "toy/toy.npz"))), hex);
  }));

Deno.test("the data task may reach the hosts of the catalog and no others", () => {
  const { permissions, tasks } = JSON.parse(readFileSync("deno.json", "utf8"));
  const hosts = CATALOG.filter(isDownloadable).flatMap(({ archive }) => hostsOf(archive));
  assert.deepEqual(permissions.data.net, [...new Set(hosts)].sort());
  assert.match(tasks.data.command, / -P=data /);
  const others = Object.keys(permissions).filter((name) => name !== "data" && name !== "test");
  assert.deepEqual(others.filter((name) => "net" in permissions[name]), []);
});

Deno.test("the catalog names readers that there are, and what they read", () => {
  for (const { spec: { reader, path }, name } of CATALOG) {
    const [source] = parseSpec(addressOf(reader, join("data", name, path)));
    assert.equal(READERS[source!.reader]!.path, path === "" ? "DIR" : "FILE", name);
  }
});

Deno.test("the catalog is in order", () => {
  const names = CATALOG.map(({ name }) => name);
  assert.equal(new Set(names).size, names.length);
  for (const entry of CATALOG) {
    assert.match(entry.name, /^[a-z0-9-]+$/);
    const lines = describeEntry(entry, "data").join("\n");
    assert.match(lines, /^ {2}licence .+$/m);
    if (!isDownloadable(entry)) {
      assert.match(lines, /^ {2}by hand .+$/m);
      continue;
    }
    const { url, digest, source, tried } = entry.archive;
    assert.equal(new URL(url).protocol, "https:");
    if (digest) {
      assert.match(digest.hex, digest.algorithm === "md5" ? /^[0-9a-f]{32}$/ : /^[0-9a-f]{64}$/);
    }
    assert.ok(lines.includes(url) && lines.includes(source));
    assert.match(lines, /^ {2}digest +(md5|sha256|none) /m);
    assert.equal(tried === null, /^ {2}tried +never/m.test(lines));
    assert.ok(entry.holds.length > 0);
  }
});

Deno.test("data get names what is wrong on its command line", async () => {
  const mistakes: [string[], RegExp][] = [
    [["get"], /NAME is missing; --list/],
    [["get", "stl11"], /no "stl11" in the catalog; did you mean stl10\?/],
    [["get", "imagenet"], /no "imagenet" in the catalog; there are stl10, /],
    [["get", "stl10", "cifar10"], /unexpected argument "cifar10"/],
    [["get", "nih"], /https:\/\/nihcc\.app\.box\.com.*then use nih:DIR/],
    [["get", "chexpert"], /register.*https:\/\/.*then use chexpert:DIR/],
  ];
  for (const [args, message] of mistakes) await rejects(runCommand(command, args), message);
});

Deno.test("data show gives up the network", () =>
  withFiles({}, async (dir) => {
    const script = `
      import { command } from "./src/commands/data.ts";
      import { runCommand } from "./src/commands/command.ts";
      const net = { name: "net", host: "zenodo.org" };
      const before = Deno.permissions.querySync(net).state;
      await runCommand(command, ["show", "phantom:n=1", "--out", Deno.args[0]]);
      console.log(before, Deno.permissions.querySync(net).state);
    `;
    const { out } = await runScript(script, ["-P=data"], [join(dir, "sheet.png")]);
    assert.match(out, /\ngranted prompt\n$/);
  }));

/** Runs TypeScript from the project's folder in a process of its own. */
async function runScript(script: string, flags: string[], args: string[]) {
  const child = new Deno.Command("deno", {
    args: ["run", "-q", "--no-prompt", "--ext=ts", ...flags, "-", ...args],
    stdin: "piped",
    stdout: "piped",
  }).spawn();
  const writer = child.stdin.getWriter();
  await writer.write(new TextEncoder().encode(script));
  await writer.close();
  const { code, stdout } = await child.output();
  return { code, out: new TextDecoder().decode(stdout) };
}
