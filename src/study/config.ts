/**
 * `study.jsonc`: what a study compares. Its fields are those of {@linkcode StudyConfig}; paths in it are
 * relative to it.
 */
import { existsSync } from "node:fs";
import { dirname, relative, resolve } from "node:path";
import { flags as finetuneFlags } from "../commands/finetune.ts";
import {
  type Flag,
  integer,
  number,
  parseFlags,
  path,
  string,
  suggestion,
  type Values,
} from "../commands/flags.ts";
import { flags as trainFlags } from "../commands/train.ts";
import { formatSpec, parseSpec } from "../data/spec.ts";
import { UserError } from "../errors.ts";
import { readJsonc } from "../formats/jsonc.ts";
import type { ResNetOptions } from "../nn/resnet.ts";
import { type MethodName, methodNames } from "../train.ts";
import { type Arm, type Protocol, PROTOCOLS } from "./cell.ts";

/** A set of images to pretrain on. */
export interface PretrainingSet {
  /** How the report calls it. */
  readonly title: string;
  /** SPEC; training sees its splits train and unlabeled. */
  readonly data: string;
  /** What a reader of the table should know of it. */
  readonly note?: string;
}

/** Flags of `train` by their names in a configuration file: what a method is run with. */
export type TrainFlags = Readonly<Record<string, string | number | boolean>>;

/**
 * The configuration of a study, defaults filled in; `study.json` in its folder, where paths are relative to
 * that folder.
 *
 * What no field chooses, because it is the same for every encoder: images are normalised as the encoder's
 * pretraining set was, the encoder being made for that, and as the target without one. Under frozen
 * protocols every encoder, trained or not, has the running statistics of its batch norms fitted anew to the
 * target's labelled training images.
 */
export interface StudyConfig {
  readonly title: string;
  /** SPEC of the labelled images: train to learn from, val to choose on, test to score. */
  readonly target: string;
  /** Pretraining sets by name, in the order of the table's columns. */
  readonly sets: Readonly<Record<string, PretrainingSet>>;
  /** Depth, stem, width and channels of every encoder but those of width 64. */
  readonly encoder: ResNetOptions;
  /** Side of all images in pixels. */
  readonly imageSize: number;
  readonly pretraining: {
    /** Views of images for every arm. */
    readonly views: number;
    /** Methods in the order of the table's rows: the sets each runs on, and flags of `train`. */
    readonly methods: Readonly<
      Record<string, { readonly on: readonly string[]; readonly flags: TrainFlags }>
    >;
  };
  /** Published weights of a ResNet-18 of width 64, judged beside a scratch row of that width; null leaves both rows unrun. */
  readonly imagenet: { readonly weights: string | null };
  readonly finetuning: {
    /** Learning rates to choose from, on validation with the first seed. */
    readonly rates: readonly number[];
    readonly weightDecay: number;
  };
  /** Parts of the labels, and how long fine-tuning lasts with them. */
  readonly fractions: readonly {
    readonly fraction: number;
    readonly epochs: number;
    readonly batch: number;
  }[];
  readonly protocols: readonly Protocol[];
  readonly seeds: readonly number[];
}

/** The arms of a study: first those without pretraining, then methods by sets, in the order of the table. */
export function armsOf({ sets, encoder, pretraining }: StudyConfig): Arm[] {
  const { width } = encoder;
  return [
    { name: "pixels", method: "pixels", set: null, width },
    { name: "scratch", method: "scratch", set: null, width },
    { name: "scratch-64", method: "scratch", set: null, width: 64 },
    { name: "imagenet", method: "imagenet", set: null, width: 64 },
    ...Object.entries(pretraining.methods).flatMap(([method, { on }]) =>
      Object.keys(sets).filter((set) => on.includes(set)).map((set) => ({
        ...{ name: `${method}-${set}`, method, set, width },
      }))
    ),
  ];
}

/** Flags of `train` that a study sets itself. */
const owned = [
  ...["method", "data", "arch", "width", "stem", "channels", "image-size", "epochs", "steps"],
  ...["knn-every", "seed", "out", "resume", "init", "config", "json", "profile", "tensorboard"],
];

/** A file, and the names of the fields down to the one at hand. */
type Place = readonly [file: string, ...names: string[]];

function mistake([file, ...names]: Place, problem: string): UserError {
  return new UserError([file, ...(names.length > 0 ? [names.join(".")] : []), problem].join(": "));
}

/** Reads one value of a configuration; undefined stands for a missing one. */
type Reader<T> = (value: unknown, at: Place) => T;

/** A single value, checked as that of a flag. */
function leaf<T>(flag: Flag<T>): Reader<T> {
  return (value, at) => {
    if (value === undefined && !flag.required) return flag.default;
    if (value !== undefined && flag.accepts(value)) return value as T;
    throw mistake(
      at,
      `expected ${flag.expected}, ` +
        (value === undefined ? "it is missing" : `got ${JSON.stringify(value)}`),
    );
  };
}

/** A list that is not empty and has nothing twice. */
function list<T>(of: Reader<T>, otherwise?: readonly T[]): Reader<readonly T[]> {
  return (value = otherwise, at) => {
    if (!Array.isArray(value) || value.length === 0) {
      throw mistake(at, `expected a list, got ${JSON.stringify(value ?? null)}`);
    }
    const items = value.map((item, i) => of(item, [...at, String(i)]));
    const texts = items.map((item) => JSON.stringify(item));
    const twice = texts.find((item, i) => texts.indexOf(item) < i);
    if (twice !== undefined) throw mistake(at, `${twice} is there twice`);
    return items;
  };
}

/** Values by names of the user's choice. */
function record<T>(
  of: Reader<T>,
  checkName: (name: string, at: Place) => void,
): Reader<Readonly<Record<string, T>>> {
  return (value = {}, at) =>
    Object.fromEntries(
      Object.entries(objectAt(value, at)).map(([name, item]) => {
        checkName(name, at);
        return [name, of(item, [...at, name])];
      }),
    );
}

// deno-lint-ignore no-explicit-any
type Fields = Readonly<Record<string, Reader<any>>>;
type Read<F extends Fields> = { readonly [K in keyof F]: ReturnType<F[K]> };

/** An object of known fields. */
function object<F extends Fields>(fields: F): Reader<Read<F>> {
  return (value = {}, at) => {
    const given = objectAt(value, at);
    Object.keys(given).forEach((key) => oneOf(Object.keys(fields), "field")(key, at));
    return Object.fromEntries(
      Object.entries(fields).map(([key, read]) => [key, read(given[key], [...at, key])]),
    ) as Read<F>;
  };
}

function objectAt(value: unknown, at: Place): Readonly<Record<string, unknown>> {
  if (typeof value === "object" && value !== null && !Array.isArray(value)) {
    return value as Record<string, unknown>;
  }
  throw mistake(at, `expected an object, got ${JSON.stringify(value)}`);
}

/** Refuses a name that is not known. */
function oneOf(known: readonly string[], what: string): (name: string, at: Place) => void {
  return (name, at) => {
    if (known.includes(name)) return;
    const meant = suggestion(name, known) || `; there are ${known.join(", ")}`;
    throw mistake(at, `no ${what} ${JSON.stringify(name)}${meant}`);
  };
}

const text = leaf<string>(string({ required: true, help: "" }));
const spec: Reader<string> = (value, at) => {
  const data = text(value, at);
  within(at, () => parseSpec(data));
  return data;
};
const flagValue: Reader<string | number | boolean> = (value, at) => {
  if (["string", "number", "boolean"].includes(typeof value)) return value as string;
  throw mistake(at, `expected text, a number, true or false, got ${JSON.stringify(value)}`);
};
/** The name of a set is part of file names. */
const setName = (name: string, at: Place) => {
  if (/^[a-z0-9][a-z0-9_-]*$/.test(name)) return;
  throw mistake(at, `${JSON.stringify(name)}: expected small letters, digits, _ and -`);
};

const schema = object({
  title: leaf(string({ default: "Pretraining compared", help: "" })),
  target: spec,
  sets: record(
    object({
      title: leaf(string({ help: "" })),
      data: spec,
      note: leaf(string({ help: "" })),
    }),
    setName,
  ),
  encoder: object({
    arch: leaf(trainFlags.arch),
    width: leaf(trainFlags.width),
    stem: leaf(trainFlags.stem),
    channels: leaf(trainFlags.channels),
  }),
  imageSize: leaf(trainFlags.imageSize),
  pretraining: object({
    views: leaf(integer({ min: 1, default: 30720, help: "" })),
    methods: record(
      object({ on: list(text), flags: record(flagValue, () => {}) }),
      oneOf(methodNames, "method"),
    ),
  }),
  imagenet: object({
    weights: (value, at) => value === null ? undefined : leaf(path({ help: "" }))(value, at),
  }),
  finetuning: object({
    rates: list(leaf(number({ above: 0, required: true, help: "" })), [1e-4, 3e-4, 1e-3]),
    weightDecay: leaf(finetuneFlags.weightDecay),
  }),
  fractions: list(
    object({
      fraction: leaf(number({ above: 0, max: 1, required: true, help: "" })),
      epochs: leaf(finetuneFlags.epochs),
      batch: leaf(finetuneFlags.batch),
    }),
    [{ fraction: 1, epochs: 30, batch: 64 }, { fraction: 0.1, epochs: 100, batch: 32 }],
  ),
  protocols: list((value, at) => {
    oneOf(PROTOCOLS, "protocol")(String(value), at);
    return value as Protocol;
  }, PROTOCOLS),
  seeds: list(leaf(integer({ min: 0, max: 0xffffffff, required: true, help: "" })), [0, 1, 2]),
});

/**
 * Reads a configuration; its paths become absolute.
 *
 * @throws {UserError} naming file, field and value of what is wrong
 */
export function readStudy(file: string): StudyConfig {
  return checkStudy(readJsonc(file, "fields"), file);
}

/**
 * Fills in the defaults of a configuration.
 *
 * @param file where it stands, for errors and as the place that paths are relative to
 * @throws {UserError} as {@linkcode readStudy}
 */
export function checkStudy(value: unknown, file: string): StudyConfig {
  const read = schema(value, [file]);
  const directory = dirname(file);
  const names = Object.keys(read.sets);
  for (const [method, { on }] of Object.entries(read.pretraining.methods)) {
    on.forEach((set) => oneOf(names, "set")(set, [file, "pretraining", "methods", method, "on"]));
  }
  const fractions = read.fractions.map(({ fraction }) => fraction);
  const twice = fractions.find((fraction, i) => fractions.indexOf(fraction) < i);
  if (twice !== undefined) throw mistake([file, "fractions"], `${twice} is there twice`);
  const weights = read.imagenet.weights;
  const config: StudyConfig = rebase({
    ...read,
    sets: Object.fromEntries(
      Object.entries(read.sets).map(([name, { title = name, data, note }]) => [
        name,
        { title, data, ...(note !== undefined && { note }) },
      ]),
    ),
    imagenet: { weights: weights ?? null },
  }, (path) => resolve(directory, path));
  if (config.imagenet.weights !== null && !existsSync(config.imagenet.weights)) {
    throw mistake([file, "imagenet", "weights"], `${config.imagenet.weights}: no such file`);
  }
  for (const method of Object.keys(config.pretraining.methods)) {
    const at = [file, "pretraining", "methods", method, "flags"] as const;
    within(at, () => pretrainingFlags(config, method));
    within(at, () => pretrainingSteps(config, method));
  }
  return config;
}

function within(at: Place, check: () => void): void {
  try {
    check();
  } catch (error) {
    throw error instanceof UserError ? mistake(at, error.message) : error;
  }
}

/** The paths of a configuration, each as `place` has it. */
function rebase(config: StudyConfig, place: (path: string) => string): StudyConfig {
  const spec = (text: string) =>
    formatSpec(
      parseSpec(text).map((source) =>
        source.path === null ? source : { ...source, path: place(source.path) }
      ),
    );
  const { sets, imagenet: { weights } } = config;
  return {
    ...config,
    target: spec(config.target),
    sets: Object.fromEntries(
      Object.entries(sets).map(([name, set]) => [name, { ...set, data: spec(set.data) }]),
    ),
    imagenet: { weights: weights === null ? null : place(weights) },
  };
}

/** A configuration as `study.json` in `directory` holds it: with paths relative to that folder. */
export function relativeTo(directory: string, config: StudyConfig): StudyConfig {
  return rebase(config, (path) => relative(resolve(directory), path).replaceAll("\\", "/"));
}

/**
 * The flags of `train` for a method, with seed, data and folder still to be set.
 *
 * @throws {UserError} for a flag that there is not, that the study sets itself, or of a bad value
 */
export function pretrainingFlags(
  { encoder: { arch, width, stem, channels }, imageSize, pretraining }: StudyConfig,
  method: string,
): { values: Values<typeof trainFlags>; given: ReadonlySet<string> } {
  const entries = Object.entries(pretraining.methods[method]!.flags);
  const mine = entries.find(([name]) => owned.includes(name));
  if (mine !== undefined) {
    throw new UserError(`${mine[0]} is set by the study, the same for all methods`);
  }
  const own = { method, arch, width, stem, channels, "image-size": imageSize, "knn-every": 0 };
  return parseFlags(
    trainFlags,
    [...Object.entries(own), ...entries].map(([name, value]) =>
      typeof value === "boolean" ? `--${value ? "" : "no-"}${name}` : `--${name}=${value}`
    ),
  );
}

/** Views of an image that a step of each method makes. */
const viewsPerImage: Readonly<Record<MethodName, number>> = {
  simclr: 2,
  micle: 2,
  autoencoder: 1,
  kmeans: 1,
  supervised: 1,
};

/**
 * How many steps, of how many views, a method's pretraining takes.
 *
 * @throws {UserError} if they do not make up the views of the study exactly
 */
export function pretrainingSteps(
  config: StudyConfig,
  method: string,
): { readonly steps: number; readonly viewsPerStep: number } {
  const { views } = config.pretraining;
  const { batch, accumulate } = pretrainingFlags(config, method).values;
  const viewsPerStep = batch * accumulate * viewsPerImage[method as MethodName];
  const steps = views / viewsPerStep;
  if (Number.isInteger(steps)) return { steps, viewsPerStep };
  throw new UserError(
    `batch ${batch}: ${views} views, the same for all methods, are not whole steps of ` +
      `${viewsPerStep}; ${viewsPerStep * Math.max(1, Math.round(steps))} would be`,
  );
}

/**
 * The field in which a study that has begun differs from `next` in a way that its cells would not survive;
 * null if there is none. Methods, sets, fractions, protocols, weights of ImageNet and later seeds may be
 * added, and titles and notes changed.
 */
export function contradiction(begun: StudyConfig, next: StudyConfig): string | null {
  const same = (a: unknown, b: unknown) => JSON.stringify(a) === JSON.stringify(b);
  const fixed = (["target", "encoder", "imageSize", "finetuning"] as const)
    .find((field) => !same(begun[field], next[field]));
  if (fixed !== undefined) return fixed;
  if (begun.pretraining.views !== next.pretraining.views) return "pretraining.views";
  for (const [name, { data }] of Object.entries(begun.sets)) {
    if (next.sets[name]?.data !== data) return `sets.${name}`;
  }
  for (const [name, { on, flags }] of Object.entries(begun.pretraining.methods)) {
    const method = next.pretraining.methods[name];
    if (!same(method?.flags, flags) || !on.every((set) => method!.on.includes(set))) {
      return `pretraining.methods.${name}`;
    }
  }
  if (begun.imagenet.weights !== null && begun.imagenet.weights !== next.imagenet.weights) {
    return "imagenet.weights";
  }
  if (!begun.fractions.every((one) => next.fractions.some((other) => same(one, other)))) {
    return "fractions";
  }
  if (!begun.protocols.every((protocol) => next.protocols.includes(protocol))) return "protocols";
  // The first seed chooses the learning rates.
  return begun.seeds.every((seed, i) => next.seeds[i] === seed) ? null : "seeds";
}

/**
 * A study with the weights of ImageNet that `--imagenet-weights` names.
 *
 * @throws {UserError} if there is no such file
 */
export function withImagenet(config: StudyConfig, file: string): StudyConfig {
  if (!existsSync(file)) throw new UserError(`--imagenet-weights ${file}: no such file`);
  return { ...config, imagenet: { weights: resolve(file) } };
}

/** `deno task study --data phantom`: runs anywhere, in minutes. */
export function phantomStudy(): StudyConfig {
  const on = ["own", "other"];
  return checkStudy({
    title: "Pretraining compared, on phantoms",
    target: "phantom:n=600,seed=0",
    sets: {
      own: { title: "own images", data: "phantom:n=600,seed=0" },
      other: { title: "other images", data: "phantom:n=600,seed=1" },
    },
    imageSize: 32,
    pretraining: {
      views: 20480,
      methods: { simclr: { on }, autoencoder: { on }, kmeans: { on, flags: { clusters: 32 } } },
    },
    fractions: [{ fraction: 1, epochs: 15 }, { fraction: 0.1, epochs: 50, batch: 16 }],
    seeds: [0, 1],
  }, "the phantom study");
}
