/**
 * A browser has another implementation of WebGPU, and its compiler holds to the standard where wgpu's is
 * lenient: above all, barriers and subgroup operations stand only where all invocations are sure to come.
 */
import assert from "node:assert/strict";
import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { Shader } from "../src/gpu/shader.ts";
import { codeOf } from "../src/gpu/pipeline.ts";
import { variantsOf } from "./gate/shaders.ts";
import { assertClose } from "./support/assert.ts";
import { findChromium, visit } from "./support/browser.ts";
import { withFiles } from "./support/files.ts";
import { firstLosses } from "./support/first_steps.ts";

const chromium = await findChromium();
if (chromium === null) {
  console.log("no Chromium on this machine: nothing runs in a browser");
}

const kernels = readdirSync("shaders").filter((file) => file.endsWith(".wgsl")).flatMap((file) => {
  const shader = new Shader(file.slice(0, -5), readFileSync(join("shaders", file), "utf8"));
  return variantsOf(shader).map(({ entry, constants }) => shader.kernel(entry, constants));
});

/** Errors by the kernel's label, and how many kernels were compiled: all but those of features that are not there. */
async function compileAll(kernels: readonly { label: string; code: string; needs: string[] }[]) {
  const adapter = await navigator.gpu.requestAdapter();
  const has = (feature: string) => adapter!.features.has(feature as GPUFeatureName);
  const requiredFeatures = ["subgroups", "shader-f16"].filter(has) as GPUFeatureName[];
  const device = await adapter!.requestDevice({ requiredFeatures });
  const errors: string[] = [];
  let compiled = 0;
  for (const { label, code, needs } of kernels) {
    if (!needs.every(has)) continue;
    compiled++;
    const module = device.createShaderModule({ code });
    for (const { type, lineNum, message } of (await module.getCompilationInfo()).messages) {
      if (type === "error") errors.push(`${label}, line ${lineNum}: ${message}`);
    }
  }
  return { compiled, errors };
}

Deno.test({
  name: "Chromium compiles every kernel",
  ignore: chromium === null,
  fn: () =>
    withFiles({ "page.html": "<!doctype html>" }, async (dir) => {
      const sources = kernels.map((kernel) => ({
        label: kernel.label,
        code: codeOf(kernel, true),
        needs: [
          ...kernel.usesSubgroups ? ["subgroups"] : [],
          ...kernel.usesHalves ? ["shader-f16"] : [],
        ],
      }));
      await visit(chromium!, join(dir, "page.html"), [{ width: 640 }], async (page) => {
        const result = await page.evaluate(`(${compileAll})(${JSON.stringify(sources)})`);
        const { compiled, errors } = result as Awaited<ReturnType<typeof compileAll>>;
        assert.deepEqual(errors, []);
        const plain = sources.filter(({ needs }) => needs.length === 0).length;
        assert.ok(compiled >= plain, `${compiled} kernels, ${plain} of which need nothing special`);
      });
    }),
});

Deno.test({
  name: "a ResNet trains in Chromium as it does here",
  ignore: chromium === null,
  fn: () => {
    const module = JSON.stringify(resolve("tests/support/first_steps.ts"));
    const entry =
      `import { firstLosses } from ${module}; Object.assign(globalThis, { firstLosses });`;
    return withFiles({ "entry.ts": entry }, async (dir) => {
      const [script, page] = [join(dir, "bundle.js"), join(dir, "page.html")];
      const args = ["bundle", "-q", "--platform", "browser", "-o", script, join(dir, "entry.ts")];
      const { code, stderr } = await new Deno.Command("deno", { args }).output();
      assert.equal(code, 0, new TextDecoder().decode(stderr));
      const bundle = readFileSync(script, "utf8");
      writeFileSync(page, `<!doctype html><script type="module">${bundle}</script>`);
      await visit(chromium!, page, [{ width: 640 }], async ({ evaluate }) => {
        const losses = await evaluate("firstLosses()") as number[];
        assertClose(losses, await firstLosses(), { rtol: 1e-5 }, "losses");
      });
    });
  },
});
