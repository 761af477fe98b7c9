/**
 * SPEC, the one way to name data on a command line or in a configuration:
 *
 *     SPEC   = SOURCE ("+" SOURCE)*
 *     SOURCE = READER ":" PATH ["?" KEY "=" VALUE ("&" KEY "=" VALUE)*]
 *            | "phantom" [":" KEY "=" VALUE ("," KEY "=" VALUE)*] ["?" …]
 *
 *     csv:xrays/labels.csv?split=train,val&views=PA+folder:more
 *
 * In paths and values `? & + %` are written `%3F %26 %2B %25`, and in values `,` is `%2C`; any other
 * percent escape is read too. A path may hold colons (`csv:C:\x\y.csv`). The keys of every reader,
 * in the order in which they are applied, wherever they stand:
 *
 * - `resplit=SEED`: split anew by patient, 70 % train, 10 % val, 20 % test, every combination of
 *   labels keeping its share. It is the first, so that no other key moves a patient;
 * - `map=OLD:NEW,OLD:NEW,…`: rename labels; those that get one name are merged, and without a new
 *   name (`map=OLD:`) a label is dropped. A colon in a name is `%3A`. The keys below know the new
 *   names only;
 * - `split`: keep these splits, separated by commas;
 * - `views`: keep these projections (PA, AP, …), upper or lower case; without it covid keeps the
 *   frontal ones;
 * - `licenses`: keep images under these licences (CC0, CC BY 4.0, …), upper or lower case;
 * - `having`: keep images that hold any of these labels;
 * - `labels`: keep these labels, in this order;
 * - `limit`: keep at most so many images, evenly spaced over what is left;
 * - `fraction=0.1`: keep the labels of a tenth of the labelled training patients, every combination
 *   of labels keeping its share, and make the others `unlabeled`.
 *
 * Keys of one reader are described at the top of its file: `n` and `seed` of phantom, `fold` of
 * stl10, `classes` of cifar100, `uncertain` of chexpert.
 */

import { resolve } from "node:path";
import { UserError } from "../errors.ts";
import type { Split } from "./dataset.ts";
import { parseSplit } from "./splits.ts";

/** What follows the name of a reader. */
export interface ReaderSyntax {
  /** What the path names, null for a reader without one. */
  readonly path: "FILE" | "DIR" | null;
  /** Keys beside the common ones. */
  readonly keys: readonly string[];
}

/** The readers there are. */
export const READERS: Readonly<Record<string, ReaderSyntax>> = {
  chexpert: { path: "DIR", keys: ["uncertain"] },
  covid: { path: "DIR", keys: [] },
  csv: { path: "FILE", keys: [] },
  folder: { path: "DIR", keys: [] },
  nih: { path: "DIR", keys: [] },
  stl10: { path: "DIR", keys: ["fold"] },
  cifar10: { path: "DIR", keys: [] },
  cifar100: { path: "DIR", keys: ["classes"] },
  medmnist: { path: "FILE", keys: [] },
  phantom: { path: null, keys: ["n", "seed"] },
};

/** How to name data with each of the readers, for messages. */
export const READERS_USAGE: string = Object.keys(READERS).map(usageOf).join(", ");

const COMMON_KEYS: readonly string[] = [
  ...["resplit", "map", "split", "views", "licenses", "having", "labels", "limit", "fraction"],
];

/** One reader with its path and keys; null stands for a key that was not given. */
export interface Source {
  /** A name in {@linkcode READERS}. */
  readonly reader: string;
  /** The file or folder; null for a reader without one. */
  readonly path: string | null;
  /** The reader's own keys. */
  readonly options: Readonly<Record<string, string>>;
  /** The seed of a new split. */
  readonly resplit: number | null;
  /** New names of labels, null for one that is dropped. */
  readonly map: Readonly<Record<string, string | null>> | null;
  /** Splits to keep. */
  readonly split: readonly Split[] | null;
  /** Projections to keep. */
  readonly views: readonly string[] | null;
  /** Licences to keep. */
  readonly licenses: readonly string[] | null;
  /** Labels of which a kept image holds one. */
  readonly having: readonly string[] | null;
  /** Labels to keep, in this order. */
  readonly labels: readonly string[] | null;
  /** The most images to keep. */
  readonly limit: number | null;
  /** The part of the labelled training patients whose labels to keep. */
  readonly fraction: number | null;
}

/**
 * Reads a SPEC.
 *
 * @throws UserError naming the source, the key and the value that are wrong
 */
export function parseSpec(spec: string): Source[] {
  return spec.split("+").map(parseSource);
}

/**
 * Writes a SPEC in its canonical form: own keys in alphabetical order, then the common ones in the
 * order in which they are applied, and no escape that is not needed. `parseSpec` reads back the same
 * sources.
 */
export function formatSpec(sources: readonly Source[]): string {
  return sources.map(formatSource).join("+");
}

/** Makes the paths of a SPEC absolute, relative ones being below `baseDir`. */
export function resolveSpec(sources: readonly Source[], baseDir: string): Source[] {
  return sources.map((source) =>
    source.path === null ? source : { ...source, path: resolve(baseDir, source.path) }
  );
}

/** The SPEC of everything in a file or folder. */
export function addressOf(reader: string, path: string): string {
  return `${reader}:${encodePath(path)}`;
}

function parseSource(text: string): Source {
  const fail = (why: string): never => {
    throw new UserError(`data ${JSON.stringify(text)}: ${why}`);
  };
  const decode = (part: string): string => {
    try {
      return decodeURIComponent(part);
    } catch {
      return fail(`${JSON.stringify(part)} holds a "%" that starts no escape; write "%25"`);
    }
  };

  const [address = "", ...queries] = text.split("?");
  if (queries.length > 1) fail(`a second "?"; inside a path or value write "%3F"`);
  const colon = address.indexOf(":");
  const reader = colon < 0 ? address : address.slice(0, colon);
  const place = colon < 0 ? "" : address.slice(colon + 1);
  const syntax = Object.hasOwn(READERS, reader)
    ? READERS[reader]!
    : fail(`no reader "${reader}"; there are ${READERS_USAGE}`);

  const pairs = queries.length > 0 && queries[0] !== "" ? queries[0]!.split("&") : [];
  if (syntax.path === null && place !== "") pairs.unshift(...place.split(","));
  if (syntax.path !== null && place === "") fail(`no path; write ${usageOf(reader)}`);

  const values = new Map<string, string>();
  for (const pair of pairs) {
    const equals = pair.indexOf("=");
    if (equals < 0) fail(`"${pair}" is no key=value`);
    const key = pair.slice(0, equals);
    const known = [...syntax.keys, ...COMMON_KEYS];
    if (!known.includes(key)) fail(`no key "${key}" in ${reader}; there are ${known.join(", ")}`);
    if (values.has(key)) fail(`"${key}" is given twice`);
    if (equals === pair.length - 1) fail(`"${key}" has no value`);
    values.set(key, pair.slice(equals + 1));
  }

  const list = <T>(key: string, read: (word: string) => T): T[] | null => {
    const words = values.get(key)?.split(",").map((word) =>
      word === "" ? fail(`${key}=${values.get(key)} holds an empty name`) : read(decode(word))
    );
    return words ? [...new Set(words)] : null;
  };
  const number = (key: string, expected: string, accepts: (value: number) => boolean) => {
    const text = values.get(key);
    if (text === undefined) return null;
    const value = /^[0-9.]+(e-[0-9]+)?$/.test(text) ? Number(text) : NaN;
    return accepts(value) ? value : fail(`${key}=${text} is no ${expected}`);
  };
  const integer = (key: string, low: number, high: number, expected: string) =>
    number(key, expected, (value) => Number.isInteger(value) && value >= low && value <= high);
  return {
    reader,
    path: syntax.path === null ? null : decode(place),
    options: Object.fromEntries(
      [...values].filter(([key]) => syntax.keys.includes(key)).sort()
        .map(([key, value]) => [key, decode(value)]),
    ),
    resplit: integer("resplit", 0, 0xffffffff, "seed, a whole number from 0 to 4294967295"),
    map: parseMap(values.get("map"), decode, fail),
    split: list(
      "split",
      (word) => parseSplit(word) ?? fail(`split=${word} is none of train, val, test, unlabeled`),
    ),
    views: list("views", (word) => word),
    licenses: list("licenses", (word) => word),
    having: list("having", (word) => word),
    labels: list("labels", (word) => word),
    limit: integer("limit", 1, Number.MAX_SAFE_INTEGER, "whole number from 1"),
    fraction: number("fraction", "number above 0 and up to 1", (value) => value > 0 && value <= 1),
  };
}

function parseMap(
  text: string | undefined,
  decode: (part: string) => string,
  fail: (why: string) => never,
): Record<string, string | null> | null {
  if (text === undefined) return null;
  const renamed = new Map<string, string | null>();
  for (const pair of text.split(",")) {
    const [old = "", name, ...more] = pair.split(":");
    if (old === "" || name === undefined || more.length > 0) {
      fail(`map=${text}: "${pair}" is no OLD:NEW, nor OLD: to drop a label; write "%3A" in a name`);
    }
    if (renamed.has(decode(old))) fail(`map=${text} names "${decode(old)}" twice`);
    renamed.set(decode(old), decode(name!) || null);
  }
  return Object.fromEntries(renamed);
}

function formatSource(source: Source): string {
  const { reader, path, options, resplit, map, split, views, licenses, having } = source;
  const { labels, limit, fraction } = source;
  const join = (words: readonly string[] | null) => words?.map(encodeValue).join(",");
  const own = Object.entries(options).sort().map(([key, value]) => `${key}=${encodeValue(value)}`);
  const query = Object.entries({
    resplit: resplit?.toString(),
    map: map === null ? undefined : formatMap(map),
    split: join(split),
    views: join(views),
    licenses: join(licenses),
    having: join(having),
    labels: join(labels),
    limit: limit?.toString(),
    fraction: fraction?.toString(),
  }).flatMap(([key, value]) => value === undefined ? [] : [`${key}=${value}`]);
  if (path === null) {
    return reader + (own.length > 0 ? `:${own.join(",")}` : "") +
      (query.length > 0 ? `?${query.join("&")}` : "");
  }
  query.unshift(...own);
  return addressOf(reader, path) + (query.length > 0 ? `?${query.join("&")}` : "");
}

function formatMap(map: Readonly<Record<string, string | null>>): string {
  return Object.entries(map)
    .map(([old, name]) => `${encodeName(old)}:${name === null ? "" : encodeName(name)}`).join(",");
}

function escape(text: string, characters: RegExp): string {
  return text.replace(characters, (c) => `%${c.charCodeAt(0).toString(16).toUpperCase()}`);
}

const encodePath = (path: string) => escape(path, /[?&+%]/g);
const encodeValue = (value: string) => escape(value, /[?&+%,]/g);
const encodeName = (name: string) => escape(name, /[?&+%,:]/g);

function usageOf(reader: string): string {
  const { path, keys } = READERS[reader]!;
  return path === null ? `${reader}[:${keys[0] ?? "key"}=…]` : `${reader}:${path}`;
}
