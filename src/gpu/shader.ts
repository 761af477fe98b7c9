/**
 * Hand-written WGSL files as kernels: what an entry point binds, which parameters it takes, and the
 * source with its constants filled in.
 */
import type { DType } from "../tensor.ts";
import { prune } from "./prune.ts";
import { type Constants, evaluate, matchBrace, unroll } from "./unroll.ts";

/** A storage buffer that an entry point reads or writes. */
export interface Binding {
  /** The WGSL variable. */
  readonly name: string;
  /** Its `@binding` in group 0. */
  readonly binding: number;
  /** Whether the kernel may write to it. */
  readonly writable: boolean;
}

/** A 4-byte scalar of an entry point's uniform struct. */
export interface Field {
  /** The name in the struct. */
  readonly name: string;
  /** The WGSL type. */
  readonly type: "u32" | "i32" | "f32";
}

/** An entry point with its constants: one compute pipeline. */
export interface Kernel {
  /** The file it comes from. */
  readonly shader: Shader;
  /** The entry point. */
  readonly entry: string;
  /** Values of the constants that differ from the file. */
  readonly constants: Constants;
  /** `file.entry NAME=value …`, in errors and profiles. */
  readonly label: string;
  /** Buffers in the order of their numbers. */
  readonly bindings: readonly Binding[];
  /** Parameters in the order of the struct. */
  readonly fields: readonly Field[];
  /** The aliases that name the elements of the buffers, in the same order; null for other elements. */
  readonly elements: readonly (string | null)[];
  /** Whether it needs an adapter with subgroup operations. */
  readonly usesSubgroups: boolean;
  /** Whether it needs an adapter with 16-bit floats. */
  readonly usesHalves: boolean;
}

/** A combination of constants that a file declares by `// @compile entry NAME=value …`. */
export interface Variant {
  /** The entry point. */
  readonly entry: string;
  /** Values of its constants. */
  readonly constants: Constants;
}

interface Function {
  readonly name: string;
  readonly isEntry: boolean;
  /** Where it stands in the source, attributes included. */
  readonly start: number;
  readonly end: number;
}

/**
 * One `.wgsl` file: complete, valid WGSL with one family of entry points.
 *
 * - storage: `@group(0) @binding(i) var<storage, read|read_write> name: …;`
 * - parameters: a struct of u32, i32 and f32 at `@group(1) @binding(0) var<uniform>`;
 * - `override NAME = …;` and `const NAME = …;` can be set by {@linkcode Shader.kernel}; a `const` is
 *   for what WGSL wants as a constant expression: array sizes, bounds of unrolled loops;
 * - `alias Name = vec4f;`, `vec2f` or `f32` for elements of storage that may be 16-bit floats: set to 16,
 *   it names `vec4h`, `vec2h` or `f16`; set to 4, `vec4f`. Code loads by `vec4f(x[i])` and stores by
 *   `y[i] = Name(v)`, which fit all;
 * - `// @unroll` before a loop writes it out (see unroll.ts).
 *
 * Only the functions that an entry point reaches are compiled with it, so entry points with subgroup
 * operations can stand beside those for adapters without; and of branches on constants, only those that are
 * taken. A kernel binds no more than what is left.
 */
export class Shader {
  /** The name of the file, without `.wgsl`. */
  readonly name: string;
  /** Its text. */
  readonly source: string;
  /** Names of the entry points, in file order. */
  readonly entries: readonly string[];
  readonly #code: string;
  readonly #functions: readonly Function[];
  readonly #kernels = new Map<string, Kernel>();

  /** Reads a file; nothing is compiled. */
  constructor(name: string, source: string) {
    this.name = name;
    this.source = source;
    this.#code = stripComments(source);
    this.#functions = parseFunctions(this.#code);
    this.entries = this.#functions.filter((f) => f.isEntry).map((f) => f.name);
  }

  /** The combinations of constants declared by `// @compile` lines. */
  get variants(): Variant[] {
    return [...this.source.matchAll(/^\/\/ @compile (\w+)((?: +\w+=\d+)+) *$/gm)].map((match) => ({
      entry: match[1]!,
      constants: Object.fromEntries(
        match[2]!.trim().split(/ +/).map((pair) => {
          const [name, value] = pair.split("=");
          return [name!, Number(value)];
        }),
      ),
    }));
  }

  /**
   * The kernel of an entry point with constants; the same object for the same arguments.
   *
   * @throws {RangeError} for an entry point or a constant that the file does not have.
   */
  kernel(entry: string, constants: Constants = {}): Kernel {
    let key = entry;
    for (const name in constants) key += ` ${name}=${constants[name]}`;
    let kernel = this.#kernels.get(key);
    if (kernel === undefined) {
      kernel = this.#parseKernel(entry, constants, `${this.name}.${key}`);
      this.#kernels.set(key, kernel);
    }
    return kernel;
  }

  /**
   * The kernel for buffers of these element types: the aliases of those that hold f16 are set to 16.
   *
   * @param types in the order of `kernel.bindings`
   * @throws {RangeError} for f16 in a buffer whose elements have no alias, or share it with f32
   */
  kernelFor(kernel: Kernel, types: readonly DType[]): Kernel {
    if (!types.includes("f16")) return kernel;
    const constants = { ...kernel.constants };
    kernel.bindings.forEach(({ name }, i) => {
      const alias = kernel.elements[i]!;
      const bits = types[i] === "f16" ? 16 : 32;
      if (alias === null ? bits === 16 : (constants[alias] ??= bits) !== bits) {
        throw new RangeError(
          `${kernel.label}: ${name} is ${types[i]}, which it does not take here`,
        );
      }
    });
    return this.kernel(kernel.entry, constants);
  }

  /** The source to compile for a kernel; with `tagged`, every line begins with its number in the file. */
  expand({ entry, constants }: Variant, tagged = false): string {
    let text = this.#reachableSource(entry, constants);
    for (const name in constants) {
      const declaration = new RegExp(
        `^(const\\s+${name}\\s*(?::\\s*\\w+\\s*)?=)[^;]*?([iu]?)\\s*;`,
        "m",
      );
      text = text.replace(declaration, `$1 ${constants[name]}$2;`);
      const alias = new RegExp(`^(alias\\s+${name}\\s*=\\s*)(\\w+)\\s*;`, "m");
      text = text.replace(
        alias,
        (_, left, type) => `${left}${elementType(type, constants[name]!)};`,
      );
    }
    text = text.split("\n").map((line, i) => bare(line, tagged ? i + 1 : 0)).join("\n");
    const values = this.#integerConstants(constants);
    return unroll(prune(text, values), values);
  }

  /** The line of the file from which a line of the expanded source comes (both 1-based). */
  sourceLine(kernel: Variant, expandedLine: number): number {
    const lines = this.expand(kernel, true).split("\n").slice(0, expandedLine);
    return Number([...lines.join("\n").matchAll(/\/\*@(\d+)\*\//g)].at(-1)?.[1] ?? expandedLine);
  }

  /** The pipeline constants (`override`) among the constants of a kernel. */
  overrides(constants: Constants): Record<string, number> {
    return Object.fromEntries(
      Object.entries(constants).filter(([name]) => declares(this.#code, "override", name)),
    );
  }

  #integerConstants(constants: Constants): Constants {
    const values: Record<string, number> = {};
    for (
      const match of this.#code.matchAll(
        /^(?:const|override)\s+(\w+)\s*(?::\s*\w+\s*)?=\s*([^;]+);/gm,
      )
    ) {
      const value = constants[match[1]!] ?? evaluate(match[2]!, values);
      if (value !== undefined) values[match[1]!] = value;
    }
    return values;
  }

  #parseKernel(entry: string, constants: Constants, label: string): Kernel {
    if (!this.entries.includes(entry)) {
      throw new RangeError(`${this.name}.wgsl has no entry point ${entry} (${this.entries})`);
    }
    for (const name in constants) {
      if (!(["const", "override", "alias"] as const).some((k) => declares(this.#code, k, name))) {
        throw new RangeError(`${this.name}.wgsl declares no constant ${name}`);
      }
    }
    const words = this.#reachableWords(entry, constants);
    const bindings: Binding[] = [];
    const elements = new Map<string, string>();
    let fields: Field[] = [];
    const variable = /@group\((\d)\)\s*@binding\((\d+)\)\s*var<([^>]+)>\s*(\w+)\s*:\s*([^;]+);/g;
    for (const [, group, binding, space, name, type] of this.#code.matchAll(variable)) {
      if (!words.has(name!)) continue;
      if (group === "0") {
        bindings.push({
          name: name!,
          binding: Number(binding),
          writable: space!.includes("read_write"),
        });
        const element = /^array<(\w+)>$/.exec(type!.trim())?.[1];
        if (element !== undefined && declares(this.#code, "alias", element)) {
          elements.set(name!, element);
        }
      } else {
        fields = this.#parseFields(type!.trim());
      }
    }
    bindings.sort((a, b) => a.binding - b.binding);
    const usesSubgroups = [...words].some((word) => /^subgroup[A-Z]/.test(word));
    return {
      shader: this,
      entry,
      constants,
      label,
      bindings,
      fields,
      elements: bindings.map(({ name }) => elements.get(name) ?? null),
      usesSubgroups,
      usesHalves: [...elements.values()].some((element) => constants[element] === 16),
    };
  }

  #parseFields(struct: string): Field[] {
    const body = new RegExp(`struct\\s+${struct}\\s*\\{([^}]*)\\}`).exec(this.#code)?.[1] ?? "";
    return [...body.matchAll(/(\w+)\s*:\s*(\w+)/g)].map(([, name, type]) => {
      if (type !== "u32" && type !== "i32" && type !== "f32") {
        throw new RangeError(`${this.name}.wgsl: ${struct}.${name} is a ${type}, not a scalar`);
      }
      return { name: name!, type };
    });
  }

  /** The file without the functions that an entry point does not reach; lines stay in place. */
  #reachableSource(entry: string, constants: Constants): string {
    const words = this.#reachableWords(entry, constants);
    let text = "";
    let done = 0;
    for (const { name, start, end } of this.#functions) {
      if (name === entry || words.has(name)) continue;
      text += this.source.slice(done, start) + this.source.slice(start, end).replace(/[^\n]/g, "");
      done = end;
    }
    return text + this.source.slice(done);
  }

  /** Every identifier in the entry point and in the functions that it calls. */
  #reachableWords(entry: string, constants: Constants): Set<string> {
    const code = prune(this.#code, this.#integerConstants(constants));
    const words = new Set<string>();
    const visit = ({ start, end }: Function) => {
      for (const [word] of code.slice(start, end).matchAll(/(?<![.\w])[A-Za-z_]\w*/g)) {
        if (words.has(word)) continue;
        words.add(word);
        const callee = this.#functions.find((g) => g.name === word);
        if (callee !== undefined) visit(callee);
      }
    };
    visit(this.#functions.find((f) => f.name === entry)!);
    return words;
  }
}

/** Workgroups for one invocation an element, folded to 2-D past 65 535 groups. */
export function grid1d(threads: number, workgroupSize: number): [number, number, number] {
  return foldGroups(Math.ceil(threads / workgroupSize));
}

/** A 1-D count of workgroups as a 2-D grid: group = x + y · num_workgroups.x. */
export function foldGroups(groups: number): [number, number, number] {
  const rows = Math.ceil(groups / 65535);
  return [Math.ceil(groups / Math.max(rows, 1)), rows, 1];
}

/** What an alias of `type` names when it is set: the same of 16-bit floats by 16, a vec4 of it by 4. */
function elementType(type: string, setting: number): string {
  if (setting === 4) return "vec4f";
  return setting === 16 ? type.replace("f32", "f16").replace(/^(vec\d)f$/, "$1h") : type;
}

function declares(code: string, keyword: "const" | "override" | "alias", name: string): boolean {
  return new RegExp(`^${keyword}\\s+${name}\\b`, "m").test(code);
}

/** A line without its comment (unless that is an `@unroll` marker), tagged with its number unless 0. */
function bare(line: string, number: number): string {
  if (/^\s*\/\/ @unroll\s*$/.test(line)) return line;
  const code = line.replace(/\/\/.*/, "");
  return number === 0 ? code : `/*@${number}*/ ${code}`;
}

/** The source with comments blanked out: everything else stays where it is. */
function stripComments(source: string): string {
  return source.replace(/\/\*[\s\S]*?\*\/|\/\/[^\n]*/g, (text) => text.replace(/[^\n]/g, " "));
}

function parseFunctions(code: string): Function[] {
  return [...code.matchAll(/((?:@[^;{}]*\s)?)\bfn\s+(\w+)\s*\(/g)].map((match) => {
    const parameters = matchBrace(code, match.index + match[0].length - 1);
    const open = code.indexOf("{", parameters);
    const end = matchBrace(code, open) + 1;
    return {
      name: match[2]!,
      isEntry: match[1]!.includes("@compute"),
      start: match.index,
      end,
    };
  });
}
