/** Reads what a study has measured, and says of a damaged file which field is wrong. */
import { existsSync, readdirSync } from "node:fs";
import { basename, join } from "node:path";
import { UserError } from "../errors.ts";
import { readText } from "../files.ts";
import type { JsonObject } from "../run_folder.ts";
import { type Cell, cellId, PROTOCOLS, type Scored, type Target } from "./cell.ts";
import type { StudyConfig } from "./config.ts";

/** A study as it lies in its folder. */
export interface Study {
  /** Path of the folder. */
  readonly path: string;
  /** study.json */
  readonly config: StudyConfig;
  /** target.json; null until the first cell is computed. */
  readonly target: Target | null;
  /** The finished cells, by name. */
  readonly cells: readonly Cell[];
}

/** Whether a folder holds a study. */
export function isStudy(path: string): boolean {
  return existsSync(join(path, "study.json"));
}

/**
 * Reads a study.
 *
 * @throws UserError naming file and field of what is missing or damaged.
 */
export function readStudy(path: string): Study {
  if (!isStudy(path)) throw new UserError(`${path}: not a study, it holds no study.json`);
  const config = readConfig(join(path, "study.json"));
  const targetFile = join(path, "target.json");
  const folder = join(path, "cells");
  const files = existsSync(folder)
    ? readdirSync(folder).filter((name) => name.endsWith(".json")).sort()
    : [];
  if (!existsSync(targetFile)) {
    if (files.length > 0) throw new UserError(`${targetFile}: missing, but there are cells`);
    return { path, config, target: null, cells: [] };
  }
  const target = readTarget(targetFile);
  return { path, config, target, cells: files.map((name) => readCell(join(folder, name), target)) };
}

/**
 * Reads a cell.
 *
 * @throws UserError naming file and field if it is damaged or does not fit the target.
 */
export function readCell(file: string, target: Target): Cell {
  const cell = open(file);
  cell.oneOf("kind", ["pretrain", ...PROTOCOLS]);
  const arm = cell.object("arm");
  for (const field of ["name", "method"]) arm.text(field);
  arm.check("set", isText, "text or null", true);
  arm.number("width", 1);
  cell.number("seed", 0);
  const origin = cell.object("origin");
  for (const field of ["adapter", "wgrad", "deno", "finished"]) origin.text(field);
  origin.number("seconds", 0);
  if (cell.value.kind === "pretrain") {
    for (const field of ["views", "images", "steps", "viewsPerSecond"]) cell.number(field, 0);
    cell.check("loss", (loss) => isList(loss, isPoint), "a list of [step, loss]");
    cell.object("config");
  } else {
    cell.number("fraction", 0, 1);
    cell.number("images", 0);
    cell.number("setting");
    cell.check("search", (tried) => isList(tried, isObject), "a list of settings");
    cell.check("curve", (curve) => isList(curve, isObject), "a list of epochs");
    checkScored(cell.object("best"), target);
    if (cell.value.last !== null) checkScored(cell.object("last"), target);
    if (cell.value.maps !== null) {
      const maps = cell.object("maps");
      const places = 2 * target.test.ids.length;
      for (const field of ["pca", "umap"]) maps.numbers(field, places);
    }
  }
  const read = cell.value as unknown as Cell;
  if (basename(file) !== `${cellId(read)}.json`) {
    throw new UserError(`${file}: holds the cell ${cellId(read)}; rename or remove it`);
  }
  return read;
}

function checkScored(scored: Fields, { labels, test }: Target): void {
  const cells = test.ids.length * labels.length;
  scored.numbers("probabilities" satisfies keyof Scored, cells, 0, 1);
  scored.numbers("thresholds", labels.length);
  scored.check("validation", Number.isFinite, "a number or null", true);
  scored.check("epoch", Number.isFinite, "a number or null", true);
}

function readTarget(file: string): Target {
  const target = open(file);
  target.text("data");
  target.check("labels", (labels) => isList(labels, isText) && labels.length > 0, "label names");
  const labels = target.value.labels as string[];
  target.check(
    "apart",
    (apart) => isList(apart, (name) => labels.includes(name as string)),
    "labels",
  );
  const training = target.object("training");
  for (const field of ["images", "patients"]) training.number(field, 0);
  target.numbers("prevalence", labels.length, 0, 1);
  const test = target.object("test");
  test.check("ids", (ids) => isList(ids, isText), "a list of names");
  const n = (test.value.ids as string[]).length;
  const list = (field: string, length: number, isItem: (item: unknown) => boolean) =>
    test.check(
      field,
      (values) =>
        isList(values, (item) => item === null || isItem(item)) && values.length === length,
      `${length} values, one for each of ${n} images${length > n ? " and each label" : ""}`,
    );
  list("patients", n, Number.isInteger);
  list("sources", n, isText);
  list("targets", n * labels.length, (value) => value === 0 || value === 1);
  if (target.value.sourcePrevalence !== undefined) {
    const isShare = (share: unknown) => share === null || isBetween(share, 0, 1);
    for (const source of Object.keys(target.object("sourcePrevalence").value)) {
      target.object("sourcePrevalence").check(
        source,
        (shares) => isList(shares, isShare) && shares.length === labels.length,
        `${labels.length} shares`,
      );
    }
  }
  return target.value as unknown as Target;
}

/** The study's own configuration: as much of it is checked as a report rests on. */
function readConfig(file: string): StudyConfig {
  const config = open(file);
  for (const field of ["title", "target"]) config.text(field);
  const sets = config.object("sets");
  for (const name of Object.keys(sets.value)) {
    const set = sets.object(name);
    for (const field of ["title", "data"]) set.text(field);
  }
  config.object("encoder").number("width", 1);
  config.number("imageSize", 1);
  const pretraining = config.object("pretraining");
  pretraining.number("views", 0);
  const methods = pretraining.object("methods");
  for (const name of Object.keys(methods.value)) {
    methods.object(name).check(
      "on",
      (on) => isList(on, (set) => Object.hasOwn(sets.value, set as string)),
      `sets of ${Object.keys(sets.value).join(", ")}`,
    );
  }
  config.check(
    "fractions",
    (list) => isList(list, (item) => isObject(item) && isBetween(item.fraction, 0, 1)),
    "a list of { fraction, epochs, batch }",
  );
  config.check(
    "protocols",
    (list) => isList(list, (name) => PROTOCOLS.includes(name as never)),
    "protocols",
  );
  config.check("seeds", (list) => isList(list, Number.isInteger), "a list of integers");
  return config.value as unknown as StudyConfig;
}

function open(file: string): Fields {
  let value: unknown;
  try {
    value = JSON.parse(readText(file));
  } catch (error) {
    if (error instanceof UserError) throw error;
    // The message quotes the text, and errors are one line.
    throw new UserError(`${file}: ${(error as Error).message.replaceAll("\n", " ")}`);
  }
  if (!isObject(value)) throw new UserError(`${file}: expected a JSON object`);
  return new Fields(file, "", value);
}

/** The fields of an object in a file, checked one by one. */
class Fields {
  constructor(readonly file: string, readonly prefix: string, readonly value: JsonObject) {}

  check(
    field: string,
    accepts: (value: unknown) => boolean,
    expected: string,
    nullable = false,
  ): void {
    const value = this.value[field];
    if ((nullable && value === null) || (value !== undefined && accepts(value))) return;
    const text = JSON.stringify(value) ?? "nothing";
    const shown = text.length <= 60 ? text : `${text.slice(0, 57)}…`;
    throw new UserError(`${this.file}: ${this.prefix}${field}: expected ${expected}, got ${shown}`);
  }

  text(field: string): void {
    this.check(field, isText, "text");
  }

  number(field: string, min = -Infinity, max = Infinity): void {
    this.check(field, (value) => isBetween(value, min, max), `a number${range(min, max)}`);
  }

  numbers(field: string, length: number, min = -Infinity, max = Infinity): void {
    const value = this.value[field];
    if (Array.isArray(value) && value.length !== length) {
      throw new UserError(
        `${this.file}: ${this.prefix}${field}: ${value.length} numbers, expected ${length}`,
      );
    }
    this.check(
      field,
      (value) => isList(value, (item) => isBetween(item, min, max)),
      `${length} numbers${range(min, max)}`,
    );
  }

  oneOf(field: string, words: readonly string[]): void {
    this.check(field, (value) => words.includes(value as string), `one of ${words.join(", ")}`);
  }

  object(field: string): Fields {
    this.check(field, isObject, "an object");
    return new Fields(this.file, `${this.prefix}${field}.`, this.value[field] as JsonObject);
  }
}

const range = (min: number, max: number) =>
  max < Infinity ? ` in ${min}…${max}` : min > -Infinity ? ` ≥ ${min}` : "";
const isText = (value: unknown): value is string => typeof value === "string";
const isObject = (value: unknown): value is JsonObject =>
  typeof value === "object" && value !== null && !Array.isArray(value);
const isBetween = (value: unknown, min: number, max: number) =>
  Number.isFinite(value) && (value as number) >= min && (value as number) <= max;
/** A loss that was not finite is null in JSON. */
const isPoint = (value: unknown) =>
  Array.isArray(value) && value.length === 2 && Number.isFinite(value[0]) &&
  (value[1] === null || Number.isFinite(value[1]));
const isList = (value: unknown, isItem: (item: unknown) => boolean): value is unknown[] =>
  Array.isArray(value) && value.every(isItem);
