import assert from "node:assert/strict";
import { type Dataset, type Example, isLabelled, type Split } from "../src/data/dataset.ts";
import { openDataset } from "../src/data/open.ts";
import {
  evenlySpaced,
  filter,
  merge,
  relabel,
  resplit,
  sampleLabels,
  selectLabels,
  subset,
  thin,
} from "../src/data/operations.ts";
import { UserError } from "../src/errors.ts";
import { Random } from "../src/random.ts";
import { flatPng, withFiles } from "./support/files.ts";

/** A data set of these examples; image i loads as [i]. */
function study(
  labels: readonly string[],
  rows: readonly (Partial<Omit<Example, "labels">> & { labels: readonly number[] })[],
  spec = "csv:study.csv",
): Dataset {
  const examples = rows.map((row, i): Example => ({
    id: `${i}`,
    split: "train",
    patient: null,
    source: null,
    view: null,
    license: null,
    file: null,
    ...row,
    labels: Float32Array.from(row.labels),
  }));
  const load = (index: number) => Promise.resolve(Uint8Array.of(index));
  return { spec, labels, examples, load };
}

const rowsOf = ({ examples }: Dataset) => examples.map(({ labels }) => [...labels]);
const idsOf = ({ examples }: Dataset) => examples.map(({ id }) => id).join("");
const pixelsOf = async (dataset: Dataset) =>
  (await Promise.all(dataset.examples.map((_, i) => dataset.load(i, 1, 1)))).map(([x]) => x);
const mistake = (message: RegExp) => (error: Error) =>
  error instanceof UserError && message.test(error.message);

/** Patients of one to four images under labels a, b and c, some images unlabelled, some alone. */
function cohort(patients: number, seed: number): Dataset {
  const random = new Random(seed, "cohort");
  const rows = Array.from({ length: patients }, (_, patient) => {
    const findings = [0.5, 0.2, 0.05].map((p) => random.uniform() < p);
    return Array.from({ length: 1 + random.integer(4) }, () => ({
      patient: `p${patient}`,
      labels: random.integer(5) === 0
        ? [NaN, NaN, NaN]
        : findings.map((may) => Number(may && random.integer(2) === 0)),
    }));
  }).flat();
  const alone = Array.from({ length: 40 }, () => ({ labels: [random.integer(2), 0, 0] }));
  return study(["a", "b", "c"], [...rows, ...alone]);
}

const personOf = ({ patient, id }: Example) => patient ?? `image ${id}`;

/** The side of every person, train for unlabeled. Fails for one on two sides. */
function sidesOf({ examples }: Dataset): Map<string, Split> {
  const sides = new Map<string, Split>();
  for (const example of examples) {
    const side = example.split === "unlabeled" ? "train" : example.split;
    const before = sides.get(personOf(example)) ?? side;
    assert.equal(before, side, `${personOf(example)} is divided`);
    sides.set(personOf(example), side);
  }
  return sides;
}

/** The people with a labelled image, by what any of their images holds. */
function strataOf({ examples, labels }: Dataset): string[][] {
  const people = Map.groupBy(examples, personOf);
  const labelled = [...people].filter(([, images]) => images.some(isLabelled));
  const strata = Map.groupBy(
    labelled,
    ([, images]) => labels.map((_, k) => images.some((image) => image.labels[k] === 1)).join(),
  );
  return [...strata.values()].map((members) => members.map(([person]) => person));
}

Deno.test("relabel() merges by: any positive, else any unknown, else negative", () => {
  const values = [1, 0, NaN];
  const rows = values.flatMap((a) => values.map((b) => ({ labels: [a, b] })));
  const merged = relabel(study(["a", "b"], rows), { a: "c", b: "c" });
  assert.deepEqual(merged.labels, ["c"]);
  assert.deepEqual(rowsOf(merged).flat(), [1, 1, 1, 1, 0, NaN, 1, NaN, NaN]);
});

Deno.test("relabel() renames, drops, and merges into a label that has the name", () => {
  const dataset = study(["Mass", "Lung Mass", "Edema", "Device"], [
    { labels: [1, 0, 0, 1] },
    { labels: [0, 0, 1, NaN] },
    { labels: [NaN, 0, NaN, 0] },
  ]);
  const renamed = relabel(dataset, { Edema: "Mass", "Lung Mass": "Nodule", Device: null });
  assert.deepEqual(renamed.labels, ["Mass", "Nodule"]);
  assert.deepEqual(rowsOf(renamed), [[1, 0], [1, 0], [NaN, 0]]);
  const swapped = relabel(dataset, { Mass: "Edema", Edema: "Mass" });
  assert.deepEqual(swapped.labels, ["Edema", "Lung Mass", "Mass", "Device"]);
  assert.deepEqual(rowsOf(swapped), rowsOf(dataset));
  assert.deepEqual(relabel(dataset, {}).labels, dataset.labels);
  assert.deepEqual(dataset.labels, ["Mass", "Lung Mass", "Edema", "Device"]);
  for (const wrong of ["mass", "Lung", "Nodule"]) {
    assert.throws(
      () => relabel(dataset, { [wrong]: "x" }),
      mistake(new RegExp(`no label "${wrong}"; there are Device, Edema, Lung Mass, Mass`)),
    );
  }
});

Deno.test("selectLabels() takes labels in the order asked for", () => {
  const dataset = study(["a", "b", "c"], [{ labels: [1, 0, NaN] }]);
  const chosen = selectLabels(dataset, ["c", "a"]);
  assert.deepEqual([chosen.labels, rowsOf(chosen)], [["c", "a"], [[NaN, 1]]]);
  assert.throws(() => selectLabels(dataset, ["d"]), mistake(/no label "d"; there are a, b, c/));
});

Deno.test("filter() keeps by a predicate or by all criteria together", async () => {
  const dataset = study(["a", "b"], [
    { view: "PA", license: "CC0", labels: [1, 0] },
    { view: "AP", license: "CC BY 4.0", labels: [0, 1] },
    { view: "pa", license: "CC0", split: "val", labels: [0, NaN] },
    { labels: [NaN, 1], split: "test" },
  ]);
  assert.equal(idsOf(filter(dataset, ({ labels }) => labels[0] === 0)), "12");
  assert.equal(idsOf(filter(dataset, {})), "0123");
  assert.equal(idsOf(filter(dataset, { views: ["Pa"], licenses: null })), "02");
  assert.equal(idsOf(filter(dataset, { licenses: ["cc0", "CC by 4.0"] })), "012");
  assert.equal(idsOf(filter(dataset, { having: ["b"] })), "13");
  assert.equal(idsOf(filter(dataset, { having: ["b", "a"] })), "013");
  assert.equal(idsOf(filter(dataset, { having: ["a", "b"], views: ["AP"] })), "1");
  assert.equal(idsOf(filter(dataset, { split: ["val", "test"] })), "23");
  assert.deepEqual(await pixelsOf(filter(dataset, { split: ["val", "test"] })), [2, 3]);
  const mistakes: [Parameters<typeof filter>[1], RegExp][] = [
    [{ views: ["L"] }, /"csv:study.csv": no image has the view "L"; there are AP, PA, pa/],
    [{ licenses: ["MIT"] }, /no image has the license "MIT"; there are CC BY 4.0, CC0/],
    [{ having: ["c"] }, /no label "c"; there are a, b/],
    [{ split: ["unlabeled"] }, /no image is left/],
    [() => false, /no image is left/],
  ];
  for (const [criteria, message] of mistakes) {
    assert.throws(() => filter(dataset, criteria), mistake(message));
  }
});

Deno.test("subset() and thin() take examples with their pixels", async () => {
  const dataset = study([], Array(10).fill({ labels: [] }));
  const some = subset(dataset, [7, 2, 7]);
  assert.equal(idsOf(some), "727");
  assert.deepEqual(await pixelsOf(some), [7, 2, 7]);
  assert.deepEqual(await pixelsOf(subset(some, [1])), [2]);
  for (const index of [10, -1, 0.5]) assert.throws(() => subset(dataset, [index]), RangeError);
  assert.equal(idsOf(thin(dataset, 4)), "0257");
  assert.equal(idsOf(thin(dataset, 99)), "0123456789");
  assert.deepEqual(evenlySpaced(6, 3), [0, 2, 4]);
});

Deno.test("merge() joins by the union of labels; ids of other files are other patients", async () => {
  const one = study(["a", "b"], [{ patient: "p", labels: [1, 0] }, { labels: [0, 1] }]);
  const two = study(["c", "a"], [{ patient: "p", split: "val", labels: [1, NaN] }], "csv:two.csv");
  const both = merge([one, two, subset(one, [0])]);
  assert.equal(both.spec, "csv:study.csv+csv:two.csv+csv:study.csv");
  assert.deepEqual(both.labels, ["a", "b", "c"]);
  assert.deepEqual(rowsOf(both), [[1, 0, NaN], [0, 1, NaN], [NaN, NaN, 1], [1, 0, NaN]]);
  const patients = both.examples.map(({ patient }) => patient);
  assert.deepEqual(patients, [patients[0], null, patients[2], patients[0]]);
  assert.notEqual(patients[0], patients[2]);
  assert.deepEqual(await pixelsOf(both), [0, 1, 0, 0]);
  assert.equal(merge([one]), one);
});

Deno.test("merge() refuses a patient of one file on two sides, whatever was selected of it", () => {
  const one = study([], [{ patient: "p", split: "train", labels: [] }], "csv:x.csv?views=PA");
  const two = study([], [{ patient: "p", split: "test", labels: [] }], "csv:x.csv?resplit=1");
  assert.throws(() => merge([one, two]), mistake(/image "1:0" is in both train and test/));
  const other = { ...two, examples: two.examples.map((example) => ({ ...example, id: "1" })) };
  assert.throws(() => merge([one, other]), mistake(/patient "1:p" is in both train and test/));
});

Deno.test("resplit() divides no patient and keeps the shares of every combination of labels", () => {
  for (const seed of [0, 1, 2]) {
    const dataset = cohort(300, seed);
    const shares = { train: 0.6, val: 0.15, test: 0.25 };
    const split = resplit(dataset, { ...shares, seed });
    const sides = sidesOf(split);
    const strata = strataOf(dataset);
    assert.ok(strata.length >= 5);
    for (const people of strata) {
      for (const [side, share] of Object.entries(shares)) {
        const count = people.filter((person) => sides.get(person) === side).length;
        assert.ok(Math.abs(count - share * people.length) < 1, `${count} of ${people.length}`);
      }
    }
    assert.deepEqual(rowsOf(split), rowsOf(dataset));
  }
});

Deno.test("resplit() holds unlabelled images with a val or test patient, else makes them unlabeled", () => {
  const dataset = cohort(300, 0);
  const split = resplit(dataset, { train: 7, val: 1, test: 2 });
  const labelled = new Set(dataset.examples.filter(isLabelled).map(personOf));
  const seen = new Set<string>();
  for (const example of split.examples) {
    const known = labelled.has(personOf(example));
    if (!known) assert.equal(example.split, "unlabeled");
    else if (isLabelled(example)) assert.notEqual(example.split, "unlabeled");
    else assert.notEqual(example.split, "train");
    seen.add(`${example.split} ${known} ${isLabelled(example)}`);
  }
  assert.ok(seen.has("val true false") && seen.has("unlabeled false false"));
});

Deno.test("resplit() gives the same split for a seed, whatever the unit of the shares and the order", () => {
  const dataset = cohort(200, 0);
  const places = (data: Dataset) => data.examples.map(({ id, split }) => `${id} ${split}`).sort();
  const shares = { train: 70, val: 10, test: 20 };
  const split = places(resplit(dataset, { ...shares, seed: 5 }));
  assert.deepEqual(places(resplit(dataset, { train: 7, val: 1, test: 2, seed: 5 })), split);
  const backwards = subset(dataset, [...dataset.examples.keys()].reverse());
  assert.deepEqual(places(resplit(backwards, { ...shares, seed: 5 })), split);
  assert.notDeepEqual(places(resplit(dataset, { ...shares, seed: 6 })), split);
});

Deno.test("resplit() moves at most two patients when one joins, of the same combination", () => {
  const full = cohort(120, 0);
  const shares = { train: 70, val: 10, test: 20 };
  const before = sidesOf(resplit(full, shares));
  for (let left = 0; left < 120; left += 7) {
    const without = filter(full, ({ patient }) => patient !== `p${left}`);
    const stratum = strataOf(full).find((people) => people.includes(`p${left}`)) ?? [];
    const after = sidesOf(resplit(without, shares));
    const moved = [...after].filter(([person, side]) => before.get(person) !== side);
    assert.ok(moved.length <= 2);
    for (const [person] of moved) assert.ok(stratum.includes(person));
  }
});

Deno.test("resplit() of single patients keeps the shares on average", () => {
  // 600 combinations of ten labels, each of one patient: rounding alone would put all into train.
  const rows = Array.from({ length: 600 }, (_, i) => ({
    labels: Array.from({ length: 10 }, (_, k) => (i >> k) & 1),
  }));
  const { examples } = resplit(study([..."abcdefghij"], rows), { train: 70, val: 10, test: 20 });
  for (const [side, share] of Object.entries({ train: 0.7, val: 0.1, test: 0.2 })) {
    const count = examples.filter(({ split }) => split === side).length;
    const deviation = Math.sqrt(600 * share * (1 - share));
    assert.ok(Math.abs(count - 600 * share) < 3 * deviation, `${side}: ${count}`);
  }
});

Deno.test("resplit() takes shares of nothing and refuses impossible ones", () => {
  const dataset = cohort(60, 0);
  const splits = (train: number, val: number, test: number) =>
    new Set(resplit(dataset, { train, val, test }).examples.map(({ split }) => split));
  assert.deepEqual(splits(0.1, 0.2, 0), new Set(["train", "val", "unlabeled"]));
  assert.deepEqual(splits(0, 0, 1), new Set(["test", "unlabeled"]));
  for (const [train, val, test] of [[0, 0, 0], [-1, 1, 1], [NaN, 1, 1], [Infinity, 1, 1]]) {
    assert.throws(
      () => resplit(dataset, { train: train!, val: val!, test: test! }),
      /resplit: shares/,
    );
  }
});

Deno.test("sampleLabels() hides the labels of the other training patients only", () => {
  const dataset = resplit(cohort(200, 0), { train: 70, val: 10, test: 20 });
  const sampled = sampleLabels(dataset, 0.25, 3);
  const labelled = (split: Split, { examples }: Dataset) =>
    examples.filter((example) => example.split === split && isLabelled(example));
  const people = (examples: Example[]) => new Set(examples.map(personOf));
  const [all, kept] = [labelled("train", dataset), labelled("train", sampled)];
  assert.ok(Math.abs(people(kept).size - people(all).size / 4) <= 1);
  sampled.examples.forEach((example, i) => {
    const old = dataset.examples[i]!;
    if (people(kept).has(personOf(example)) || old.split !== "train") {
      assert.deepEqual(example, old);
    } else assert.deepEqual([example.split, isLabelled(example)], ["unlabeled", false]);
  });
  assert.deepEqual(sampleLabels(dataset, 0.25, 3).examples, sampled.examples);
  assert.deepEqual(sampleLabels(dataset, 1).examples, dataset.examples);
  for (const fraction of [0, -1, 1.5, NaN]) {
    assert.throws(() => sampleLabels(dataset, fraction), RangeError);
  }
});

const csv = `filename,labels,split,patient_id,view
0.png,Viral|Device,train,p0,PA
1.png,Bacterial,train,p1,PA
2.png,Normal,train,p2,AP
3.png,Normal|Device,val,p3,PA
4.png,Viral,test,p4,AP
5.png,,unlabeled,p5,AP
`;
const files = {
  "x.csv": csv,
  ...Object.fromEntries([0, 1, 2, 3, 4, 5].map((i) => [`${i}.png`, flatPng(40 * i)])),
};

Deno.test("a SPEC's keys are applied in their fixed order, wherever they stand", async () => {
  await withFiles(files, async (dir) => {
    const open = (keys: string) => openDataset(`csv:x.csv?${keys}`, { baseDir: dir });
    const map = "map=Viral:Pneumonia,Bacterial:Pneumonia,Device:";
    const mapped = await open(`labels=Pneumonia&having=Pneumonia&${map}`);
    assert.deepEqual(mapped.labels, ["Pneumonia"]);
    assert.equal(idsOf(mapped), "0.png1.png4.png");
    assert.equal(idsOf(await open("having=Viral,Normal&views=AP&labels=Device")), "2.png4.png");
    await assert.rejects(open(`${map}&having=Viral`), mistake(/no label "Viral"; there are Nor/));
    await assert.rejects(open("map=Vir:x"), mistake(/no label "Vir"; there are Bacterial, Device/));
    const third = await open("fraction=0.34&split=train");
    assert.deepEqual(third.examples.map(isLabelled).sort(), [false, false, true]);
    assert.deepEqual(new Set(third.examples.map(({ split }) => split)).size, 2);
  });
});

Deno.test("resplit= places patients before any other key chooses among them", async () => {
  const whole = sidesOf(await openDataset("phantom:n=300?resplit=4"));
  const given = sidesOf(await openDataset("phantom:n=300"));
  assert.notDeepEqual(whole, given);
  for (
    const keys of ["map=device:,nodule:effusion", "having=nodule", "labels=device", "limit=40"]
  ) {
    for (const [person, side] of sidesOf(await openDataset(`phantom:n=300?resplit=4&${keys}`))) {
      assert.equal(whole.get(person), side);
    }
  }
  const train = await openDataset("phantom:n=300?resplit=4&split=train");
  const test = await openDataset("phantom:n=300?resplit=4&split=test");
  assert.ok(sidesOf(train).keys().every((person) => !sidesOf(test).has(person)));
  const again = await openDataset(train.spec);
  assert.deepEqual(again.examples, train.examples);
  await assert.rejects(
    openDataset("phantom:n=300?resplit=4+phantom:n=300?resplit=5"),
    mistake(/image ".*" is in both/),
  );
});
