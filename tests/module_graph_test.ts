import assert from "node:assert/strict";
import {
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join, resolve } from "node:path";

const root = resolve(import.meta.dirname!, "..");

/** What must run in a browser: no Deno, no Node, no files. */
const CORE = ["src/gpu", "src/tensor.ts", "src/autograd.ts", "src/ops", "src/nn", "src/optim.ts"];

async function deno(args: string[], options: Deno.CommandOptions = {}): Promise<string> {
  const { code, stdout, stderr } = await new Deno.Command("deno", { ...options, args }).output();
  const decoder = new TextDecoder();
  assert.equal(code, 0, decoder.decode(stderr));
  return decoder.decode(stdout);
}

async function inFolder(body: (folder: string) => Promise<void>): Promise<void> {
  const folder = mkdtempSync(join(tmpdir(), "wgrad-graph-"));
  try {
    await body(folder);
  } finally {
    rmSync(folder, { recursive: true });
  }
}

Deno.test("mod.ts reaches no npm package but fflate and pngjs", async () => {
  const info = JSON.parse(await deno(["info", "--json", "mod.ts"], { cwd: root }));
  // Not `info.npmPackages`: that lists the whole of deno.lock.
  const specifiers: string[] = info.modules.map((module: { specifier: string }) =>
    module.specifier
  );
  const remote = specifiers.filter((specifier) => /^(npm|jsr|https?):/.test(specifier));
  assert.deepEqual(remote.filter((name) => !/^npm:\/(fflate|pngjs)@[\d.]+$/.test(name)), []);
  assert.ok(specifiers.some((specifier) => specifier.endsWith(".wgsl")), "shaders come along");
});

Deno.test("every npm package is pinned in deno.lock, and its version named in one file", () => {
  const locked = Object.keys(JSON.parse(readFileSync(join(root, "deno.lock"), "utf8")).specifiers);
  const users = new Map<string, string[]>();
  for (const file of readdirSync(join(root, "src"), { recursive: true, encoding: "utf8" })) {
    if (!file.endsWith(".ts")) continue;
    const source = readFileSync(join(root, "src", file), "utf8");
    for (const [, specifier] of source.matchAll(/"(npm:(?:@[^/"]+\/)?[^/"]+)/g)) {
      assert.match(specifier!, /@\d+\.\d+\.\d+$/, `${file}: ${specifier} is not pinned`);
      assert.ok(locked.includes(specifier!), `${file}: ${specifier} is not in deno.lock`);
      users.set(specifier!, [...users.get(specifier!) ?? [], file]);
    }
  }
  assert.ok(users.size > 0);
  for (const [specifier, files] of users) assert.equal(files.length, 1, `${specifier}: ${files}`);
});

Deno.test("a stranger's project imports mod.ts by URL with --allow-import alone", () =>
  inFolder(async (folder) => {
    const server = Deno.serve({ hostname: "127.0.0.1", port: 0, onListen() {} }, ({ url }) => {
      const { pathname } = new URL(url);
      const type = pathname.endsWith(".ts") ? "application/typescript" : "text/plain";
      try {
        const headers = { "content-type": type };
        return new Response(readFileSync(join(root, pathname)), { headers });
      } catch {
        return new Response(null, { status: 404 });
      }
    });
    const host = `127.0.0.1:${server.addr.port}`;
    // A cache of its own, but for npm's packages, which this test is not about.
    const { npmCache } = JSON.parse(await deno(["info", "--json"]));
    mkdirSync(join(folder, "cache"));
    symlinkSync(npmCache, join(folder, "cache", "npm"));
    writeFileSync(
      join(folder, "main.ts"),
      `import { add, Gpu } from "http://${host}/mod.ts";
const gpu = await Gpu.open();
const x = gpu.tensor([1, 2, 3]);
console.log([...await add(x, x).data()].join(" "));
gpu.close();
`,
    );
    try {
      const output = await deno(
        ["run", "--check", "--no-prompt", `--allow-import=${host}`, "main.ts"],
        { cwd: folder, env: { DENO_DIR: join(folder, "cache") } },
      );
      assert.equal(output, "2 4 6\n");
    } finally {
      await server.shutdown();
    }
  }));

Deno.test("the core bundles for browsers, without Deno and Node", () =>
  inFolder(async (folder) => {
    const files = CORE.flatMap((path) =>
      path.endsWith(".ts") ? [path] : readdirSync(join(root, path)).map((file) => join(path, file))
    );
    assert.ok(files.length > 10);
    const entry = join(folder, "core.ts");
    const line = (file: string, i: number) => `export * as m${i} from "${join(root, file)}";\n`;
    writeFileSync(entry, files.map(line).join(""));
    await deno(["bundle", "-q", "--platform", "browser", "-o", join(folder, "core.js"), entry], {
      cwd: dirname(entry),
    });
    const bundle = readFileSync(join(folder, "core.js"), "utf8");
    assert.match(bundle, /requestAdapter/);
    assert.match(bundle, /@compute/);
    assert.deepEqual(bundle.match(/.*(\bDeno\.|["']node:).*/g), null);
  }));
