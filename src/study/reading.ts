/** What the results say, in sentences that claim no more than was tested. */
import { formatInterval } from "../scores.ts";
import type { Protocol } from "./cell.ts";
import { armTitle, fractionTitle, matches, type Selection } from "./layout.ts";
import type { Baseline, Comparison, Results } from "./results.ts";
import { signedInterval } from "./table.ts";

/** How a sentence about a protocol begins. */
const BEGINNINGS: Readonly<Record<Protocol, string>> = {
  finetune: "Fine-tuned on",
  linear: "Frozen below a linear probe, with",
  knn: "Frozen below kNN, with",
};

const BASELINES: Readonly<Record<Baseline, string>> = {
  scratch: "training from scratch",
  untrained: "the untrained encoder",
  pixels: "raw pixels",
};

/** A reading of the macro AUROC, one statement each; the tables hold the other metrics. */
export interface Reading {
  /** What the comparisons with all labels say. */
  readonly findings: readonly string[];
  /** The same with fewer labels. */
  readonly fewerLabels: readonly string[];
  /** What the findings must be read against. */
  readonly context: readonly string[];
}

/** Reads the results. */
export function readingOf(results: Results): Reading {
  const { config, fractions, target, constant, sourceOnly } = results;
  const statements = (fractions: readonly number[]) =>
    config.protocols.flatMap((protocol) =>
      fractions.flatMap((fraction) =>
        comparisons(results, { protocol, fraction, epoch: "best", metric: "auroc" })
      )
    );
  const sizes = `${target.test.ids.length} test images of ${results.patients} patients`;
  const context = [
    ...pixels(results),
    ...sourceOnly === null ? [] : [
      "A predictor that knows only which source an image is from, and never sees it, has a macro AUROC of " +
      `${formatInterval(sourceOnly.auroc)}.${withinSources(results)}`,
    ],
    "A predictor that always gives the training prevalence has AUROC 0.5 and a label-wise accuracy of " +
    `${formatInterval(constant.accuracy)}: read every accuracy against it.`,
    "Not to be told apart does not mean equal: the study has room for differences as wide as its intervals.",
    ...lastEpoch(results),
    ...notRun(results),
    `The intervals say what other patients would change, given ${sizes} and the ` +
    `${count(seedsRun(results), "seed")} trained here; ${
      seedsRun(results) > 1
        ? "the spread over seeds stands beside them"
        : "of what another seed would change nothing is known"
    }. They say ` +
    "nothing about other collections, larger encoders, longer training, or diagnosis. Pretrainings were " +
    "tested against the baselines, not against each other: their order is no finding.",
  ];
  return {
    findings: statements(fractions.slice(0, 1)),
    fewerLabels: statements(fractions.slice(1)),
    context,
  };
}

function comparisons(results: Results, selection: Selection): string[] {
  const { protocol, fraction } = selection;
  const tests = results.comparisons.filter((test) =>
    matches(test, selection) && test.metric === selection.metric
  );
  const baselines = [...Map.groupBy(tests, ({ baseline }) => baseline)];
  if (baselines.length === 0) return [];
  const size = tests.filter((test) => test.baseline === tests[0]!.baseline).length;
  const parts = baselines.map(([baseline, family]) => {
    const listed = (verdict: string) => {
      const found = family.filter((test) => test.verdict === verdict)
        .sort((a, b) => b.difference.estimate - a.difference.estimate);
      const names = found.map((test) =>
        `${armTitle(test.arm, protocol, results)} ${signedInterval(test.difference)}${
          mixed(test) ? " (not with every seed)" : ""
        }`
      );
      return found.length === 0 ? "none" : `${found.length} (${names.join("; ")})`;
    };
    const open = family.filter(({ verdict }) => verdict === "not discernible").length;
    const verdicts = open === family.length
      ? `no difference of the ${open} is discernible`
      : `${listed("better")} discernibly better, ${listed("worse")} worse` +
        (open === 0 ? "" : `, ${open} not to be told apart`);
    return `against ${BASELINES[baseline]}${
      baselineScore(results, selection, family)
    }, ${verdicts}`;
  });
  return [
    `${BEGINNINGS[protocol]} ${fractionTitle(fraction)}, ${count(size, "pretrained encoder")}: ${
      parts.join("; ")
    }.`,
  ];
}

/** The score of the baseline of the study's own width. */
function baselineScore(
  { config, entries }: Results,
  selection: Selection,
  family: readonly Comparison[],
): string {
  const against = family.find((test) => test.against.width === config.encoder.width)?.against;
  const entry = entries.find((entry) =>
    entry.arm.name === against?.name && matches(entry, selection)
  );
  const wide = family.some((test) => test.against.width !== config.encoder.width);
  return entry === undefined
    ? ""
    : ` (${entry.figures.auroc.estimate.toFixed(3)}${
      wide ? "; arms of another width are compared at theirs" : ""
    })`;
}

/** Whether the seeds disagree about the sign of a difference. */
function mixed({ difference }: Comparison): boolean {
  return difference.seeds.some(({ value }) => value * difference.estimate <= 0);
}

function pixels({ entries, fractions }: Results): string[] {
  const scores = entries.filter(({ arm, fraction }) =>
    arm.method === "pixels" && fraction === fractions[0]
  ).map(({ protocol, figures }) =>
    `${formatInterval(figures.auroc)} by ${protocol === "knn" ? "kNN" : "a linear probe"}`
  );
  return scores.length === 0 ? [] : [
    `Raw pixels, without any encoder, score ${scores.join(" and ")} with ${
      fractionTitle(fractions[0]!)
    }: ` +
    "an encoder that is not better shows nothing that the pixels do not.",
  ];
}

function withinSources({ labels, config, sources }: Results): string {
  const protocol = config.protocols.find((protocol) =>
    labels.some((part) => part.protocol === protocol)
  );
  if (protocol === undefined) return "";
  const trained = labels.filter(({ arm, ...part }) =>
    part.protocol === protocol && arm.method !== "pixels"
  );
  const range = (source: string | null) => {
    const values = trained.filter((part) => part.source === source)
      .map(({ macro }) => macro.estimate).filter((value) => !Number.isNaN(value));
    return values.length === 0
      ? null
      : `${Math.min(...values).toFixed(3)} to ${Math.max(...values).toFixed(3)}`;
  };
  const within = sources.flatMap(({ name, images }) => {
    const found = sources.length > 1 ? range(name) : null;
    return found === null ? [] : [`${found} within ${name} (${images} images)`];
  });
  return within.length === 0 ? "" : ` Where the source cannot help, the encoders' ${range(null)} ` +
    `(${BEGINNINGS[protocol].toLowerCase()} all labels) become ${within.join(", ")}.`;
}

function lastEpoch({ comparisons }: Results): string[] {
  const key = ({ arm, fraction, metric }: Comparison) => `${arm.name} ${fraction} ${metric}`;
  const tuned = comparisons.filter(({ protocol, metric }) =>
    protocol === "finetune" && metric === "auroc"
  );
  const last = new Map(
    tuned.filter(({ epoch }) => epoch === "last").map((test) => [key(test), test.verdict]),
  );
  const pairs = tuned.filter((test) => test.epoch === "best" && last.has(key(test)));
  if (pairs.length === 0) return [];
  const changed = pairs.filter((test) => last.get(key(test)) !== test.verdict).length;
  return [
    `At the last epoch of fine-tuning instead of the one chosen on validation, ${
      changed === 0
        ? `all ${count(pairs.length, "verdict")} are the same`
        : `${changed} of ${count(pairs.length, "verdict")} ${changed === 1 ? "differs" : "differ"}`
    }.`,
  ];
}

/** The most seeds of any figure. */
export function seedsRun({ entries }: Results): number {
  return Math.max(0, ...entries.map(({ figures }) => figures.auroc.seeds.length));
}

function notRun(results: Results): string[] {
  const missing = results.arms.filter(({ name, method }) =>
    results.config.protocols.some((protocol) =>
      !(method === "pixels" && protocol === "finetune") &&
      results.fractions.some((fraction) =>
        !results.entries.some((entry) =>
          entry.arm.name === name && entry.protocol === protocol && entry.fraction === fraction
        )
      )
    )
  );
  return missing.length === 0 ? [] : [
    `Not run, or not wholly: ${missing.map((arm) => armTitle(arm, null, results)).join("; ")}. ` +
    "The correction counts the comparisons that there are: with more, a verdict may fall.",
  ];
}

const count = (n: number, noun: string) => `${n} ${noun}${n === 1 ? "" : "s"}`;
