/**
 * Compiles every shaders/*.wgsl × entry point × (default constants, and each `// @compile` line) on
 * this machine's adapter. Exit code 1 if any fails, each printed as `file:line:column: error`.
 */

import { readdirSync, readFileSync } from "node:fs";
import { Gpu } from "../../src/gpu/gpu.ts";
import { type Kernel, Shader, type Variant } from "../../src/gpu/shader.ts";
import { createPipeline } from "../../src/gpu/pipeline.ts";

/** What a file's compilation came to. */
export interface Compilation {
  /** Labels of the kernels that were compiled. */
  readonly kernels: readonly string[];
  /** `file:line:column: kernel: message` for each error. */
  readonly problems: readonly string[];
}

/** Every entry point as it stands, and what `// @compile` lines make of it. */
export function variantsOf(shader: Shader): readonly Variant[] {
  return [...shader.entries.map((entry) => ({ entry, constants: {} })), ...shader.variants];
}

/** Compiles all that a file declares, those of subgroups or 16-bit floats only where the adapter has them. */
export async function compileAll(gpu: Gpu, file: string, source: string): Promise<Compilation> {
  const name = file.replace(/^.*\/|\.wgsl$/g, "");
  const shader = new Shader(name, source);
  const kernels: string[] = [];
  const problems: string[] = [];

  const declared = source.split("\n").filter((line) => /^\s*\/\/\s*@compile\b/.test(line)).length;
  if (declared !== shader.variants.length) {
    problems.push(`${file}: ${declared - shader.variants.length} malformed @compile lines`);
  }
  if (shader.entries.length === 0) problems.push(`${file}: no entry point`);

  for (const { entry, constants } of variantsOf(shader)) {
    try {
      const kernel = shader.kernel(entry, constants);
      if (kernel.usesSubgroups && gpu.subgroupSize === 0) continue;
      if (kernel.usesHalves && !gpu.hasHalves) continue;
      kernels.push(kernel.label);
      problems.push(...await compile(gpu, file, kernel));
    } catch (error) {
      problems.push(`${file}: ${error instanceof Error ? error.message : error}`);
    }
  }
  return { kernels, problems };
}

async function compile({ device }: Gpu, file: string, kernel: Kernel): Promise<string[]> {
  device.pushErrorScope("validation");
  const { module } = createPipeline(device, kernel);
  const error = await device.popErrorScope();
  const { messages } = await module.getCompilationInfo();
  const located = messages.filter(({ type }) => type === "error").map((message) => {
    const line = kernel.shader.sourceLine(kernel, message.lineNum);
    return `${file}:${line}:${message.linePos}: ${kernel.label}: ${message.message.trim()}`;
  });
  return located.length || !error ? located : [`${file}: ${kernel.label}: ${error.message}`];
}

if (import.meta.main) {
  const gpu = await Gpu.open();
  const files = readdirSync("shaders").filter((file) => file.endsWith(".wgsl")).sort();
  let compiled = 0;
  let failed = 0;
  for (const file of files) {
    const path = `shaders/${file}`;
    const source = readFileSync(path, "utf8");
    const { kernels, problems } = await compileAll(gpu, path, source);
    compiled += kernels.length;
    failed += problems.length;
    for (const problem of problems) console.error(problem);
  }
  gpu.close();
  console.log(`Compiled ${compiled} kernels of ${files.length} shaders, ${failed} errors`);
  Deno.exit(failed ? 1 : 0);
}
