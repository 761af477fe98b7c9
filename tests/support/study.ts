/** Studies made up for tests: classifiers of a known quality in the files of a study's folder. */
import { Random } from "../../src/random.ts";
import type {
  Arm,
  Cell,
  PretrainCell,
  Protocol,
  ScoreCell,
  Scored,
  Target,
} from "../../src/study/cell.ts";
import { cellId } from "../../src/study/cell.ts";
import { armsOf, type StudyConfig } from "../../src/study/config.ts";
import type { Study } from "../../src/study/read.ts";

/** What a study is made of. */
export interface StudyOptions {
  /**
   * How far the scores of positives lie above those of negatives, in standard deviations of the noise, which
   * all arms share but for a part of their own: AUROC is about Φ(d / √2). Every arm is 1 by default.
   */
  readonly separation?: (arm: Arm, protocol: Protocol, fraction: number) => number;
  readonly patients?: number;
  readonly seeds?: readonly number[];
  readonly labels?: readonly string[];
  readonly seed?: number;
  readonly config?: Partial<StudyConfig>;
  /** The part of the noise that an arm and seed has for itself. */
  readonly own?: number;
}

const ORIGIN = {
  adapter: "llvmpipe",
  wgrad: "0.1.0",
  deno: "2.9.6",
  finished: "2026-01-02T03:04:05.000Z",
  seconds: 12.5,
};

/** The configuration of a small study with two sets and two fractions. */
export function studyConfig(config: Partial<StudyConfig> = {}): StudyConfig {
  return {
    title: "A made-up study",
    target: "phantom:seed=0",
    sets: {
      stl10: { title: "STL-10", data: "stl10:stl10_binary" },
      xrays: { title: "chest X-rays", data: "csv:xrays.csv", note: "unlabelled" },
    },
    encoder: { arch: "resnet18", width: 32, stem: "7x7", channels: 1 },
    imageSize: 64,
    pretraining: {
      views: 30_000,
      methods: {
        simclr: { on: ["stl10", "xrays"], flags: {} },
        autoencoder: { on: ["stl10", "xrays"], flags: {} },
        kmeans: { on: ["stl10", "xrays"], flags: {} },
        micle: { on: ["xrays"], flags: {} },
        supervised: { on: ["stl10"], flags: {} },
      },
    },
    imagenet: { weights: null },
    finetuning: { rates: [1e-4, 3e-4, 1e-3], weightDecay: 0.05 },
    fractions: [
      { fraction: 1, epochs: 6, batch: 64 },
      { fraction: 0.1, epochs: 12, batch: 32 },
    ],
    protocols: ["finetune", "linear", "knn"],
    seeds: [0, 1, 2],
    ...config,
  };
}

/** All cells of a study but those of the ImageNet arm, which are not run. */
export function makeStudy(options: StudyOptions = {}): Study & { readonly target: Target } {
  const {
    separation = () => 1,
    patients = 60,
    seeds = [0, 1, 2],
    labels = ["Pneumonia", "Viral", "No Finding"],
    seed = 0,
    own = 0.7,
  } = options;
  const config = studyConfig({ seeds, ...options.config });
  const random = new Random(seed, "study");
  const rows = Array.from({ length: patients }, (_, patient) => patient)
    .flatMap((patient) => patient % 3 === 0 ? [patient, patient] : [patient]);
  const sources = rows.map((patient) => patient % 2 === 0 ? "clinic A" : "clinic B");
  const targets = rows.flatMap((_, row) => {
    const share = sources[row] === "clinic A" ? 0.55 : 0.35;
    const drawn = labels.map((): number => random.uniform() < share ? 1 : 0);
    // The last label is the negation of the first.
    if (labels.includes("No Finding")) drawn[labels.indexOf("No Finding")] = 1 - drawn[0]!;
    return drawn;
  });
  const shared = targets.map(() => random.normal());
  const target: Target = {
    data: "phantom:seed=0",
    labels,
    apart: labels.filter((label) => label === "No Finding"),
    training: { images: 900, patients: 700 },
    prevalence: labels.map(() => 0.45),
    sourcePrevalence: {
      "clinic A": labels.map(() => 0.55),
      "clinic B": labels.map(() => 0.35),
    },
    test: { ids: rows.map((_, row) => `${row}.png`), patients: rows, sources, targets },
  };

  const scored = (
    arm: Arm,
    kind: Protocol,
    fraction: number,
    seed: number,
    epoch: number | null,
  ): Scored => {
    const noise = new Random(seed, `${arm.name} ${kind} ${fraction} ${epoch}`, options.seed);
    const distance = separation(arm, kind, fraction);
    const negated = labels.indexOf("No Finding");
    const probabilities = targets.map((target, i) => {
      const z = distance * (target - 0.5) + Math.sqrt(1 - own ** 2) * shared[i]! +
        own * noise.normal();
      return Number((1 / (1 + Math.exp(-1.5 * z))).toFixed(4));
    });
    if (negated >= 0) {
      rows.forEach((_, row) => {
        probabilities[row * labels.length + negated] = 1 - probabilities[row * labels.length]!;
      });
    }
    return { probabilities, thresholds: labels.map(() => 0.5), validation: 0.8, epoch };
  };
  const score = (
    arm: Arm,
    kind: Protocol,
    fraction: number,
    seed: number,
    epochs: number,
  ): ScoreCell => ({
    ...{ kind, arm, seed, fraction, images: Math.round(900 * fraction) },
    search: seed === 0
      ? [{ setting: 0.001, validation: 0.8 }, { setting: 0.0001, validation: 0.7 }]
      : [],
    setting: kind === "knn" ? 20 : 0.001,
    best: scored(arm, kind, fraction, seed, kind === "finetune" ? epochs - 1 : null),
    last: kind === "finetune" ? scored(arm, kind, fraction, seed, epochs) : null,
    curve: kind !== "finetune" ? [] : Array.from({ length: epochs }, (_, i) => ({
      epoch: i + 1,
      loss: 0.7 - 0.4 * i / epochs,
      validation: 0.6 + 0.05 * separation(arm, kind, fraction) * Math.sqrt(i) + 0.01 * (seed % 2),
    })),
    maps: kind === "knn" && fraction === 1
      ? { pca: mapOf(target, 0, arm), umap: mapOf(target, 1, arm) }
      : null,
    origin: ORIGIN,
  });

  const cells: Cell[] = [];
  for (const arm of armsOf(config)) {
    if (arm.method === "imagenet") continue;
    for (const seed of seeds) {
      if (arm.set !== null) cells.push(pretrained(arm, seed, config));
      for (const kind of config.protocols) {
        if (arm.method === "pixels" && (kind === "finetune" || seed !== seeds[0])) continue;
        for (const { fraction, epochs } of config.fractions) {
          cells.push(score(arm, kind, fraction, seed, epochs));
        }
      }
    }
  }
  return { path: "studies/made-up", config, target, cells };
}

function pretrained(arm: Arm, seed: number, config: StudyConfig): PretrainCell {
  const steps = Math.ceil(config.pretraining.views / 128);
  return {
    ...{ kind: "pretrain", arm, seed, views: config.pretraining.views, images: 2500, steps },
    viewsPerSecond: 180 + seed,
    loss: Array.from({ length: 40 }, (_, i) => [
      Math.round((i + 1) * steps / 40),
      Number((3 + seed * 0.05 + 2 * Math.exp(-i / 10)).toFixed(4)),
    ]),
    config: { method: arm.method, batch: 64, lr: 0.003, seed },
    origin: { ...ORIGIN, seconds: 170 },
  };
}

function mapOf({ labels, test }: Target, which: number, arm: Arm): number[] {
  const random = new Random(which, arm.name);
  return test.ids.flatMap((_, row) => [
    Number((2 * test.targets[row * labels.length]! + random.normal()).toFixed(3)),
    Number(((test.sources[row] === "clinic A" ? 2 : 0) + random.normal()).toFixed(3)),
  ]);
}

/** The files of a study by their names in its folder. */
export function studyFiles({ config, target, cells }: Omit<Study, "path">): Record<string, string> {
  return {
    "study.json": JSON.stringify(config),
    "target.json": JSON.stringify(target),
    ...Object.fromEntries(
      cells.map((cell) => [`cells/${cellId(cell)}.json`, JSON.stringify(cell)]),
    ),
  };
}
