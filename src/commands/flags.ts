/**
 * Flags as a table: each entry names a type, a default and a range, and from the table come the
 * typed values, the errors and the `--help` text.
 *
 * @example
 * ```ts
 * const flags = {
 *   method: choice({ of: ["simclr", "supervised"], default: "simclr", help: "what to train by" }),
 *   epochs: integer({ min: 1, default: 20, help: "passes over the data" }),
 *   imageSize: integer({ min: 16, max: 512, default: 64, help: "side of the images, in pixels" }),
 *   out: path({ kind: "DIR", otherwise: "the next free runs/<method>-<n>", help: "run folder" }),
 *   config: configFile(),
 * };
 * const { values, given } = parseFlags(flags, ["--epochs", "3", "--image-size=32"]);
 * values.epochs; // 3, a number
 * values.method; // "simclr", of type "simclr" | "supervised"
 * values.out; // undefined, of type string | undefined
 * given.has("epochs"); // true: set by the user, not by default
 * ```
 *
 * A table's keys are camelCase; on the command line and in a configuration file they are
 * kebab-case (`imageSize` ↔ `--image-size` ↔ `"image-size": 32`).
 */

import { dirname, join } from "node:path";
import { parseArgs } from "node:util";
import { UserError } from "../errors.ts";
import { readJsonc } from "../formats/jsonc.ts";

/** One flag: what it accepts and how help describes it. Made by {@linkcode integer} and friends. */
export interface Flag<T> {
  /** What follows the flag in the usage line (`N`, `DIR`); empty for a switch. */
  readonly placeholder: string;
  /** What is accepted, as an error says it: `an integer ≥ 1`. */
  readonly expected: string;
  /** One line that says what the flag does. */
  readonly help: string;
  /** What help shows for an absent flag; empty to show nothing. */
  readonly otherwise: string;
  /** The value of an absent flag. */
  readonly default: T;
  /** Whether an absent flag is an error. */
  readonly required: boolean;
  /** Reads the text after the flag; the result is still to be checked by `accepts`. */
  read(text: string): unknown;
  /** Whether a value, from the command line or from JSON, is of this flag's type and range. */
  accepts(value: unknown): boolean;
  /** Rewrites an accepted value that came from a configuration file in `directory`. */
  rebase(value: T, directory: string): T;
}

/** Flags by their camelCase names. */
// deno-lint-ignore no-explicit-any
export type FlagTable = Record<string, Flag<any>>;

/** The values of a table: `{ epochs: number, out: string | undefined, … }`. */
export type Values<F extends FlagTable> = {
  readonly [K in keyof F]: F[K] extends Flag<infer T> ? T : never;
};

/** What every flag is declared with. */
export interface FlagOptions<T> {
  /** One line that says what the flag does. */
  readonly help: string;
  /** Value of an absent flag; without it the flag's type includes `undefined`. */
  readonly default?: T;
  /** What an absent flag means, for help, where that is not a fixed `default`. */
  readonly otherwise?: string;
  /** Makes an absent flag an error. */
  readonly required?: true;
}

/** The type of a flag's value: `T` where it is always set, else `T | undefined`. */
type ValueOf<T, O> = O extends { readonly default: unknown } | { readonly required: true } ? T
  : T | undefined;

/** Range of a number, bounds included unless said otherwise. */
export interface Range {
  /** Least value. */
  readonly min?: number;
  /** Greatest value. */
  readonly max?: number;
  /** Excludes `min` itself. */
  readonly above?: number;
  /** Excludes `max` itself. */
  readonly below?: number;
}

/** A switch: `--json`, or `--no-json` where the default is true. */
export function boolean(options: FlagOptions<boolean>): Flag<boolean> {
  return {
    ...described(options),
    placeholder: "",
    expected: "true or false",
    otherwise: options.otherwise ?? (options.default ? "on" : ""),
    default: options.default ?? false,
    read: (text) => text,
    accepts: (value) => typeof value === "boolean",
  };
}

/** Text; `kind` is the placeholder in help (default `TEXT`). */
export function string<const O extends FlagOptions<string> & { readonly kind?: string }>(
  options: O,
): Flag<ValueOf<string, O>> {
  return valued<string, O>(options, {
    placeholder: options.kind ?? "TEXT",
    expected: "text",
    read: (text) => text,
    accepts: (value) => typeof value === "string" && value !== "",
  });
}

/** A path; in a configuration file it is relative to that file. `kind` is `FILE` by default. */
export function path<const O extends FlagOptions<string> & { readonly kind?: string }>(
  options: O,
): Flag<ValueOf<string, O>> {
  return {
    ...string<O>({ ...options, kind: options.kind ?? "FILE" }),
    expected: "a path",
    rebase: (value, directory) => (value && join(directory, value)) as ValueOf<string, O>,
  };
}

/** A whole number within a range. */
export function integer<const O extends FlagOptions<number> & Range>(
  options: O,
): Flag<ValueOf<number, O>> {
  return valued<number, O>(options, {
    placeholder: "N",
    expected: `an integer${rangeText(options)}`,
    read: readNumber,
    accepts: (value) => Number.isSafeInteger(value) && inRange(value as number, options),
  });
}

/** A finite number within a range. */
export function number<const O extends FlagOptions<number> & Range>(
  options: O,
): Flag<ValueOf<number, O>> {
  return valued<number, O>(options, {
    placeholder: "X",
    expected: `a number${rangeText(options)}`,
    read: readNumber,
    accepts: (value) => Number.isFinite(value) && inRange(value as number, options),
  });
}

/** One of a few words or numbers; the value's type is their union. */
export function choice<
  const C extends string | number,
  const O extends FlagOptions<NoInfer<C>>,
>(options: O & { readonly of: readonly C[] }): Flag<ValueOf<C, O>> {
  const words = options.of.map(String);
  return valued<C, O>(options, {
    placeholder: words.join("|"),
    expected: `one of ${words.join(", ")}`,
    read: (text) => options.of[words.indexOf(text)] ?? text,
    accepts: (value) => options.of.includes(value as C),
  });
}

/**
 * `--config FILE`: a JSON file, comments and trailing commas allowed, whose keys are the table's
 * other flags. Flags on the command line win over the file, the file over the defaults.
 */
export function configFile(): Flag<string | undefined> {
  const help = "JSON file of these flags, by name; the command line wins over it";
  return { ...path({ help }), rebase: CONFIG_FILE };
}

/** What the command line and the configuration file said. */
export interface ParsedFlags<F extends FlagTable> {
  /** A value for every flag of the table. */
  readonly values: Values<F>;
  /** The flags the user set, on the command line or in a configuration file. */
  readonly given: ReadonlySet<keyof F & string>;
  /** The arguments that are no flags. */
  readonly positionals: readonly string[];
}

/**
 * Parses a command line against a table.
 *
 * @throws {UserError} for an unknown flag (with the nearest known one), a missing or bad value, and
 * likewise, with file and key, for a configuration file.
 */
export function parseFlags<F extends FlagTable>(
  table: F,
  args: readonly string[],
): ParsedFlags<F> {
  const entries = Object.entries(table).map(([key, flag]) => ({ key, name: kebab(key), flag }));
  const byName = new Map(entries.map((entry) => [entry.name, entry]));
  const find = (name: string, prefix: string) => {
    const entry = byName.get(name);
    if (entry) return entry;
    const meant = suggestion(name, byName.keys(), prefix);
    throw new UserError(`unknown ${prefix ? "flag" : "key"} ${prefix}${name}${meant}`);
  };
  const check = (flag: Flag<unknown>, label: string, value: unknown) => {
    if (flag.accepts(value)) return value;
    throw new UserError(`${label}: expected ${flag.expected}, got ${JSON.stringify(value)}`);
  };

  const { tokens } = parseArgs({
    args: [...args],
    options: Object.fromEntries(
      entries.map(({ name, flag }) => [name, { type: flag.placeholder ? "string" : "boolean" }]),
    ),
    strict: false,
    tokens: true,
  });

  const fromArgs = new Map<string, unknown>();
  const positionals: string[] = [];
  for (const token of tokens) {
    if (token.kind === "positional") positionals.push(token.value);
    if (token.kind !== "option") continue;
    const negated = negatable(token.name, byName);
    const { key, flag } = find(negated ?? token.name, token.rawName.startsWith("--") ? "--" : "-");
    if (!flag.placeholder) {
      if (token.value !== undefined) throw new UserError(`${token.rawName} takes no value`);
      fromArgs.set(key, negated === undefined);
    } else if (token.value === undefined || isFlag(token)) {
      throw new UserError(`${token.rawName} needs a value: ${flag.expected}`);
    } else {
      fromArgs.set(key, check(flag, token.rawName, flag.read(token.value)));
    }
  }

  const fromFile = new Map<string, unknown>();
  const configKey = entries.find(({ flag }) => flag.rebase === CONFIG_FILE)?.key;
  const config = configKey && fromArgs.get(configKey);
  if (typeof config === "string") {
    for (const [name, value] of Object.entries(readJsonc(config, "flags"))) {
      try {
        const { key, flag } = find(name, "");
        if (key === configKey) throw new UserError(`${name}: a configuration file names no other`);
        fromFile.set(key, flag.rebase(check(flag, name, value), dirname(config)));
      } catch (error) {
        if (error instanceof UserError) throw new UserError(`${config}: ${error.message}`);
        throw error;
      }
    }
  }

  const given = new Set([...fromFile.keys(), ...fromArgs.keys()]);
  for (const { key, name, flag } of entries) {
    if (flag.required && !given.has(key)) throw new UserError(`--${name} is required`);
  }
  const values = Object.fromEntries(
    entries.map(({ key, flag }) => [
      key,
      fromArgs.has(key) ? fromArgs.get(key) : fromFile.has(key) ? fromFile.get(key) : flag.default,
    ]),
  );
  return { values: values as Values<F>, given, positionals };
}

/** The flags of a table as aligned help lines: usage, meaning, range and default. */
export function helpLines(table: FlagTable): string[] {
  const rows = Object.entries(table).map(([key, flag]) => {
    const negation = flag.default === true ? "[no-]" : "";
    const usage = `--${negation}${kebab(key)} ${flag.placeholder}`.trimEnd();
    const range = /^(an integer|a number) (.+)$/.exec(flag.expected)?.[2];
    const absent = flag.required ? "required" : flag.otherwise && `default ${flag.otherwise}`;
    const notes = [range, absent].filter(Boolean).join("; ");
    return { usage, text: flag.help + (notes && ` (${notes})`) };
  });
  const short = rows.map(({ usage }) => usage.length).filter((length) => length <= 24);
  const width = Math.max(0, ...short);
  return rows.flatMap(({ usage, text }) =>
    usage.length <= width
      ? [`  ${usage.padEnd(width)}  ${text}`]
      : [`  ${usage}`, `  ${" ".repeat(width)}  ${text}`]
  );
}

/** `imageSize` → `image-size`. */
export function kebab(key: string): string {
  return key.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`);
}

/** `; did you mean --epochs?` where a known name is near enough to be a slip, else nothing. */
export function suggestion(name: string, known: Iterable<string>, prefix = ""): string {
  const [nearest] = [...known]
    .map((candidate) => ({ candidate, distance: editDistance(name, candidate) }))
    .filter(({ candidate, distance }) => distance <= Math.max(1, candidate.length / 3))
    .sort((a, b) => a.distance - b.distance);
  return nearest ? `; did you mean ${prefix}${nearest.candidate}?` : "";
}

/** Marks the one flag that `parseFlags` reads a configuration file from. */
const CONFIG_FILE = (value: string | undefined) => value;

function described<T>(options: FlagOptions<T>) {
  return {
    help: options.help,
    required: options.required ?? false,
    rebase: (value: never) => value,
  };
}

function valued<T, O extends FlagOptions<T>>(
  options: O,
  type: Pick<Flag<T>, "placeholder" | "expected" | "read" | "accepts">,
): Flag<ValueOf<T, O>> {
  return {
    ...described(options),
    ...type,
    otherwise: options.otherwise ?? String(options.default ?? ""),
    default: options.default as ValueOf<T, O>,
  };
}

/** The number that a text spells, or the text itself where it spells none. */
function readNumber(text: string): number | string {
  const value = Number(text);
  return text.trim() === "" || isNaN(value) ? text : value;
}

function inRange(value: number, { min, max, above, below }: Range): boolean {
  return value >= (min ?? -Infinity) && value <= (max ?? Infinity) &&
    value > (above ?? -Infinity) && value < (below ?? Infinity);
}

function rangeText({ min, max, above, below }: Range): string {
  const bounds = [
    min !== undefined && `≥ ${min}`,
    above !== undefined && `> ${above}`,
    max !== undefined && `≤ ${max}`,
    below !== undefined && `< ${below}`,
  ].filter(Boolean);
  return bounds.length ? ` ${bounds.join(" and ")}` : "";
}

/** `json` for `no-json`, where json is a switch. */
function negatable(
  name: string,
  flags: ReadonlyMap<string, { flag: Flag<unknown> }>,
): string | undefined {
  const positive = name.startsWith("no-") ? name.slice(3) : "";
  return flags.get(positive)?.flag.placeholder === "" ? positive : undefined;
}

/** Whether the value of `--out --json` is a flag that the shell user forgot a value before. */
function isFlag(token: { value?: string | undefined; inlineValue?: boolean | undefined }): boolean {
  return !token.inlineValue && /^--?[a-z]/i.test(token.value ?? "");
}

/** Levenshtein distance: insertions, deletions and substitutions from `a` to `b`. */
function editDistance(a: string, b: string): number {
  let row = Array.from({ length: b.length + 1 }, (_, j) => j);
  for (let i = 0; i < a.length; i++) {
    const next = [i + 1];
    for (let j = 0; j < b.length; j++) {
      const substituted = row[j]! + (a[i] === b[j] ? 0 : 1);
      next.push(Math.min(substituted, row[j + 1]! + 1, next[j]! + 1));
    }
    row = next;
  }
  return row[b.length]!;
}
