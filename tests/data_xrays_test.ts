import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import type { Dataset } from "../src/data/dataset.ts";
import { openDataset } from "../src/data/open.ts";
import { UserError } from "../src/errors.ts";
import { flatPng, withFiles } from "./support/files.ts";

const image = flatPng(9);

/** Which labels hold, which do not and which are unknown, of each example by the end of its id. */
function findings({ labels, examples }: Dataset) {
  return Object.fromEntries(examples.map((example) => {
    const named = (value: number) =>
      labels.filter((_, i) => Object.is(example.labels[i], value)).join(" ");
    return [example.id.split("/").at(-1)!, [named(1), named(0), named(NaN)]];
  }));
}

/** Opens SPECs below a folder, and wants a UserError of each. */
async function assertMistakes(
  dir: string,
  mistakes: readonly (readonly [spec: string, message: RegExp])[],
): Promise<void> {
  for (const [spec, message] of mistakes) {
    await assert.rejects(
      openDataset(spec, { baseDir: dir }),
      (error) => error instanceof UserError && message.test(error.message),
      String(message),
    );
  }
}

const COVID_HEAD = " PatientID,finding,View,modality,folder,filename,license,clinical_notes\r\n";

/** A metadata.csv of these rows after its header. */
const covid = (...rows: string[]) => `\uFEFF${COVID_HEAD}${rows.join("\r\n")}\r\n`;

/** The same facts in the words of June 2020 and of later states. */
const covidStates = {
  flat: covid(
    '1,COVID-19,PA,X-ray,images,a.png,CC BY,"two\r\nlines, and a ""quote"""',
    '1,"COVID-19, ARDS",AP Supine,X-ray,images,b.png,,',
    "2,Pneumonia,AP,X-ray,images,c.png,CC0,",
    "3,Mycoplasma Bacterial Pneumonia,PA,X-ray,images,d.png,,",
    "4,Bacterial,PA,X-ray,images,e.png,,",
    "5,No Finding,PA,X-ray,images,f.png,,",
    "6,todo,PA,X-ray,images,g.png,,",
    "7,Unknown,L,X-ray,images,h.png,,",
    "8,Tuberculosis,Axial,CT,volumes,x.nii.gz,,",
  ),
  hierarchical: covid(
    "1,Pneumonia/Viral/COVID-19,PA,X-ray,images,a.png,CC BY,",
    '1,"Pneumonia/Viral/COVID-19, ARDS",AP Supine,X-ray,images,b.png,,',
    "2,Pneumonia,AP,X-ray,images,c.png,CC0,",
    "3,Pneumonia/Bacterial/Mycoplasma,PA,X-ray,images,d.png,,",
    "4,Pneumonia/Bacterial ,PA,X-ray,images,e.png,,",
    "5,No Finding,PA,X-ray,images,f.png,,",
    "6,,PA,X-ray,images,g.png,,",
    "7,todo,L,X-ray,images,h.png,,",
  ),
};
const covidImages = Object.fromEntries(
  [..."abcdefgh"].map((name) => [`images/${name}.png`, image]),
);

Deno.test("covid: takes labels from the path of a finding, and leaves open what is below it", async () => {
  const all = "ARDS Bacterial COVID-19 Mycoplasma No Finding Pneumonia Viral";
  for (const [state, csv] of Object.entries(covidStates)) {
    await withFiles({ "metadata.csv": csv, ...covidImages }, async (dir) => {
      const dataset = await openDataset("covid:.", { baseDir: dir });
      assert.deepEqual(findings(dataset), {
        "a.png": ["COVID-19 Pneumonia Viral", "ARDS Bacterial Mycoplasma No Finding", ""],
        "b.png": ["ARDS COVID-19 Pneumonia Viral", "Bacterial Mycoplasma No Finding", ""],
        "c.png": ["Pneumonia", "ARDS No Finding", "Bacterial COVID-19 Mycoplasma Viral"],
        "d.png": ["Bacterial Mycoplasma Pneumonia", "ARDS COVID-19 No Finding Viral", ""],
        "e.png": ["Bacterial Pneumonia", "ARDS COVID-19 No Finding Viral", "Mycoplasma"],
        "f.png": ["No Finding", "ARDS Bacterial COVID-19 Mycoplasma Pneumonia Viral", ""],
        "g.png": ["", "", all],
      }, state);
      const { labels: _, split: __, ...second } = dataset.examples[1]!;
      assert.deepEqual(second, {
        id: "images/b.png",
        file: join(dir, "images/b.png"),
        patient: "1",
        view: "AP Supine",
        license: null,
        source: "covid-chestxray",
      });
      assert.equal(dataset.examples[0]!.split, dataset.examples[1]!.split);
      assert.deepEqual(dataset.examples.map(({ license }) => license).slice(0, 3), [
        ...["CC BY", null, "CC0"],
      ]);
    });
  }
});

Deno.test("covid: reads names of any kind: ARDS alone, nested, unheard of", async () => {
  const csv = covid(
    "1,ARDS,PA,X-ray,images,a.png,,",
    "2,MRSA,PA,X-ray,images,b.png,,",
    "3,Lobar Pneumonia,PA,X-ray,images,c.png,,",
    "4,Spinal Tuberculosis,PA,X-ray,images,d.png,,",
    "5,Viral pneumonia,PA,X-ray,images,e.png,,",
    "6,Swine Viral Pneumonia,PA,X-ray,images,f.png,,",
    "7,a/b/a,PA,X-ray,images,g.png,,",
  );
  await withFiles({ "metadata.csv": csv, ...covidImages }, async (dir) => {
    const found = findings(await openDataset("covid:.", { baseDir: dir }));
    // Labels that hold, and those that are unknown.
    assert.deepEqual(Object.values(found).map(([holds, , unknown]) => [holds, unknown]), [
      [
        "ARDS",
        "Bacterial Lobar Pneumonia MRSA Pneumonia Staphylococcus Swine Viral Pneumonia Viral",
      ],
      ["Bacterial MRSA Pneumonia Staphylococcus", ""],
      ["Lobar Pneumonia Pneumonia", "Bacterial MRSA Staphylococcus Swine Viral Pneumonia Viral"],
      ["Spinal Tuberculosis", ""],
      ["Pneumonia Viral", "Swine Viral Pneumonia"],
      ["Pneumonia Swine Viral Pneumonia Viral", ""],
      ["a b", ""],
    ]);
  });
});

Deno.test("covid: keeps frontal views unless others are asked for, and moves nobody by it", async () => {
  const { "images/h.png": _, ...frontal } = covidImages;
  await withFiles({ "metadata.csv": covidStates.flat, ...frontal }, async (dir) => {
    const open = (keys: string) => openDataset(`covid:.${keys}`, { baseDir: dir });
    const dataset = await open("");
    assert.match(dataset.spec, /\?views=PA,AP,AP Supine$/);
    assert.deepEqual(await openDataset(dataset.spec).then(findings), findings(dataset));
    assert.deepEqual(Object.keys(findings(await open("?views=ap"))), ["c.png"]);
    assert.deepEqual((await open("?views=ap")).labels, dataset.labels);
    // The lateral view is listed but not there: nobody minds until it is wanted.
    await assertMistakes(dir, [
      ["covid:.?views=L", /metadata\.csv:10: column 6, "filename": no image .*h\.png$/],
      ["covid:.?views=axial", /no image has the view "axial"; there are AP, AP Supine, L, PA/],
    ]);
    await Deno.writeFile(join(dir, "images/h.png"), image);
    const places = (dataset: Dataset) =>
      new Map(dataset.examples.map(({ id, split }) => [id, split]));
    const [some, all] = await Promise.all(
      ["", "&views=PA,AP,L"].map(async (views) => places(await open(`?resplit=1${views}`))),
    );
    assert.equal(all!.has("images/h.png"), true);
    for (const [id, split] of all!) assert.equal(some!.get(id) ?? split, split);
  });
});

Deno.test("covid: names file, line and column of what is wrong", async () => {
  const good = "1,COVID-19,PA,X-ray,images,a.png,,";
  const mistakes: [string, RegExp][] = [
    [covid(good, "2,COVID-19,PA,X-ray,images,,,"), /metadata\.csv:3: .*"filename": no file name/],
    [covid(good, "2,COVID-19,PA,X-ray,,b.png,,"), /metadata\.csv:3: .*"folder": no folder/],
    [covid(good, ",COVID-19,PA,X-ray,images,b.png,,"), /:3: column 1, "patientid": no patient/],
    [covid(good, good), /:3: column 6, "filename": images\/a\.png is also on line 2/],
    [covid(good, "2,COVID-19,PA,X-ray,images,b.png,"), /:3: 7 fields, but the header has 8/],
    [covid(good.replace("PA", "L")), /metadata\.csv: no X-ray of view PA, AP, AP Supine/],
    [covid(good.replace("X-ray", "CT")), /metadata\.csv: no X-ray of view/],
    [
      covid(good).replace("finding", "label"),
      /:1: no column "finding" \(there are patientid,label/,
    ],
    [
      covid(good, ...[..."vwxyz"].map((n) => good.replace("a.png", `${n}.png`))),
      /:3: .*no image .*v\.png; 5 of 6 are missing \(next images\/w\.png, images\/x\.png, i.*y\.png\)/,
    ],
  ];
  for (const [csv, message] of mistakes) {
    await withFiles(
      { "metadata.csv": csv, ...covidImages },
      (dir) => assertMistakes(dir, [["covid:.", message]]),
    );
  }
  await withFiles({}, (dir) => assertMistakes(dir, [["covid:.", /metadata\.csv: no such file/]]));
});

const NIH_HEAD = "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender," +
  "View Position,OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y],\r\n";

/** A table of NIH's: image, findings, patient, view. */
const nih = (...rows: (readonly [string, string, string, string])[]) =>
  NIH_HEAD +
  rows.map(([name, found, patient, view]) =>
    `${name},${found},0,${patient},057Y,M,${view},2682,2749,0.143,0.143\r\n`
  ).join("");

const nihTable = nih(
  ["1_0.png", "Cardiomegaly|Emphysema", "1", "PA"],
  ["1_1.png", "No Finding", "1", "AP"],
  ["2_0.png", "Pleural_Thickening", "2", "PA"],
);

Deno.test("nih: reads findings, patients and views from any folder of the archives", async () => {
  const files = {
    "images_001/images/1_0.png": image,
    "images_012/images/1_1.png": image,
    "images/2_0.png": image,
    "images/9_9.png": image,
  };
  for (const table of ["Data_Entry_2017.csv", "Data_Entry_2017_v2020.csv"]) {
    await withFiles({ [table]: nihTable, ...files }, async (dir) => {
      const dataset = await openDataset("nih:.", { baseDir: dir });
      assert.equal(dataset.labels.length, 14);
      assert.deepEqual(
        dataset.examples.map(({ labels }) => dataset.labels.filter((_, i) => labels[i] === 1)),
        [["Cardiomegaly", "Emphysema"], [], ["Pleural_Thickening"]],
      );
      assert.ok(dataset.examples.every(({ labels }) => labels.every((v) => v === 0 || v === 1)));
      const { labels: _, split: __, ...second } = dataset.examples[1]!;
      assert.deepEqual(second, {
        id: "1_1.png",
        file: join(dir, "images_012/images/1_1.png"),
        patient: "1",
        view: "AP",
        license: null,
        source: "nih-chestxray14",
      });
      assert.equal(dataset.examples[0]!.split, dataset.examples[1]!.split);
    });
  }
});

Deno.test("nih: takes splits from the lists; of train_val, some patients validate", async () => {
  const rows = Array.from(
    { length: 400 },
    (_, i) => [`${i}.png`, "Mass", `${i >> 1}`, "PA"] as const,
  );
  const files = {
    "Data_Entry_2017.csv": nih(...rows),
    ...Object.fromEntries(rows.map(([name]) => [`images/${name}`, ""])),
  };
  const list = (from: number, to: number) =>
    rows.slice(from, to).map(([name]) => name).join("\r\n") +
    `\r\n\r\n${from}_is_not_in_the_table.png`;
  const splits = async (lists: Record<string, string>) => {
    let found: string[] = [];
    await withFiles({ ...files, ...lists }, async (dir) => {
      found = (await openDataset("nih:.", { baseDir: dir })).examples.map(({ split }) => split);
    });
    return found;
  };
  assert.deepEqual(
    await splits({
      "train_list.txt": list(0, 200),
      "val_list.txt": list(200, 300),
      "test_list.txt": list(300, 400),
    }),
    rows.map((_, i) => i < 200 ? "train" : i < 300 ? "val" : "test"),
  );

  const official = await splits({
    "train_val_list.txt": list(0, 300),
    "test_list.txt": list(300, 400),
  });
  const val = official.slice(0, 300).filter((split) => split === "val").length;
  assert.ok(val > 300 * 0.04 && val < 300 * 0.18, `${val}`);
  official.forEach((split, i) => {
    if (i >= 300) assert.equal(split, "test");
    else assert.ok(split === "train" || split === "val");
    assert.equal(split, official[i ^ 1]);
  });

  const hashed = await splits({});
  for (const split of ["train", "val", "test"]) assert.ok(hashed.includes(split));
});

Deno.test("nih: names file, line and column of what is wrong", async () => {
  const row = (name: string, found: string, patient = "1") => [name, found, patient, "PA"] as const;
  const tables: [string, RegExp][] = [
    [nih(row("", "Mass")), /2017\.csv:2: column 1, "image index": no file name/],
    [nih(row("a.png", "Mass|Masses")), /:2: .*"finding labels": "Masses" is none of Atelectasis, /],
    [nih(row("a.png", "No Finding|Mass")), /:2: .*"No Finding" is none of .* or, alone, No Find/],
    [nih(row("a.png", "")), /:2: .*"finding labels": "" is none of/],
    [nih(row("a.png", "Mass", "")), /:2: column 4, "patient id": no patient/],
    [nih(row("a.png", "Mass"), row("b.png", "Mass")), /:3: .*no image .*images.b\.png$/],
    [`${NIH_HEAD}a.png,Mass,0,1\n`, /:2: 4 fields, but the header has 12/],
  ];
  for (const [csv, message] of tables) {
    await withFiles(
      { "Data_Entry_2017.csv": csv, "images/a.png": image },
      (dir) => assertMistakes(dir, [["nih:.", message]]),
    );
  }
  const files = {
    "Data_Entry_2017.csv": nih(row("a.png", "Mass"), row("b.png", "Mass")),
    "images/a.png": image,
    "images/b.png": image,
  };
  const lists: [Record<string, string>, RegExp][] = [
    [
      { "train_list.txt": "a.png", "test_list.txt": "b.png" },
      /there are the lists test_list\.txt, train_list\.txt; needed are train_val_list\.txt, test_/,
    ],
    [
      { "train_val_list.txt": "a.png", "test_list.txt": "\nb.png\na.png" },
      /test_list\.txt:3: a\.png is also in the train list/,
    ],
    [
      { "train_val_list.txt": "a.png", "test_list.txt": "" },
      /2017\.csv:3: column 1, "image index": b\.png is in none of the lists/,
    ],
    [
      { "train_list.txt": "a.png", "val_list.txt": "", "test_list.txt": "b.png" },
      /2017\.csv: patient "1" is in both train and test/,
    ],
  ];
  for (const [texts, message] of lists) {
    await withFiles({ ...files, ...texts }, (dir) => assertMistakes(dir, [["nih:.", message]]));
  }
  await withFiles(
    {},
    (dir) => assertMistakes(dir, [["nih:.", /no Data_Entry_2017_v2020\.csv and/]]),
  );
});

const OBSERVATIONS = [
  ...["No Finding", "Enlarged Cardiomediastinum", "Cardiomegaly", "Lung Opacity", "Lung Lesion"],
  ...["Edema", "Consolidation", "Pneumonia", "Atelectasis", "Pneumothorax", "Pleural Effusion"],
  ...["Pleural Other", "Fracture", "Support Devices"],
];
const CHEXPERT_HEAD = `Path,Sex,Age,Frontal/Lateral,AP/PA,${OBSERVATIONS.join(",")}\n`;

const chexpertRow = (path: string, view: string, values: string) =>
  `CheXpert-v1.0-small/${path},Female,68,${view},${values}\n`;

const chexpertFiles = {
  "train.csv": CHEXPERT_HEAD +
    chexpertRow(
      "train/patient00001/study1/view1_frontal.jpg",
      "Frontal,AP",
      "1.0,,,,,,,,,0.0,,,,1.0",
    ) +
    chexpertRow(
      "train/patient00002/study2/view1_frontal.jpg",
      "Frontal,PA",
      ",,-1.0,,,1.0,,-1.0,,,,,,",
    ) +
    chexpertRow("train/patient00002/study2/view2_lateral.jpg", "Lateral,", ",,,,,,,,,,,,,0.0"),
  "valid.csv": CHEXPERT_HEAD +
    chexpertRow(
      "valid/patient64541/study1/view1_frontal.jpg",
      "Frontal,AP",
      "0,1,1,1,0,0,0,0,0,0,0,0,0,0",
    ),
  "train/patient00001/study1/view1_frontal.jpg": "",
  "train/patient00002/study2/view1_frontal.jpg": "",
  "train/patient00002/study2/view2_lateral.jpg": "",
  "valid/patient64541/study1/view1_frontal.jpg": "",
};

Deno.test("chexpert: reads the 14 observations under each policy for uncertain ones", async () => {
  await withFiles(chexpertFiles, async (dir) => {
    for (
      const [key, value] of [["", NaN], ["?uncertain=ignore", NaN], ["?uncertain=zeros", 0], [
        "?uncertain=ones",
        1,
      ]] as const
    ) {
      const { labels, examples } = await openDataset(`chexpert:.${key}`, { baseDir: dir });
      assert.deepEqual(labels, OBSERVATIONS);
      assert.deepEqual(examples.map((example) => [...example.labels]), [
        [1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1],
        [0, 0, value, 0, 0, 1, 0, value, 0, 0, 0, 0, 0, 0],
        [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        [0, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
      ]);
      assert.deepEqual(
        examples.map(({ patient, view }) => [patient, view]),
        [
          ["patient00001", "AP"],
          ["patient00002", "PA"],
          ["patient00002", "Lateral"],
          ["patient64541", "AP"],
        ],
      );
      assert.equal(examples[2]!.file, join(dir, "train/patient00002/study2/view2_lateral.jpg"));
      assert.equal(examples[3]!.split, "test");
    }
  });
});

Deno.test("chexpert: some patients of train validate, valid is the test", async () => {
  const rows = Array.from({ length: 300 }, (_, i) => {
    const path = `train/patient${String(i).padStart(5, "0")}/study1/view1_frontal.jpg`;
    return [path, chexpertRow(path, "Frontal,AP", ",,,,,,,,,,,,,")] as const;
  });
  const files = {
    ...chexpertFiles,
    "train.csv": CHEXPERT_HEAD + rows.map(([, row]) => row).join(""),
    ...Object.fromEntries(rows.map(([path]) => [path, ""])),
  };
  await withFiles(files, async (dir) => {
    const { examples } = await openDataset("chexpert:.", { baseDir: dir });
    const count = (split: string) => examples.filter((example) => example.split === split).length;
    assert.equal(count("test"), 1);
    assert.equal(count("train") + count("val"), 300);
    assert.ok(count("val") > 300 * 0.05 && count("val") < 300 * 0.16, `${count("val")}`);
  });
});

Deno.test("chexpert: names file, line and column of what is wrong", async () => {
  const change = (name: "train.csv" | "valid.csv", from: string, to: string) => ({
    ...chexpertFiles,
    [name]: chexpertFiles[name].replace(from, to),
  });
  const mistakes: [Record<string, string>, RegExp][] = [
    [
      change("train.csv", "-1.0", "-2.0"),
      /train\.csv:3: column 8, "cardiomegaly": "-2\.0" is none/,
    ],
    [change("train.csv", "-1.0", "no"), /train\.csv:3: .*: "no" is none of 1, 0, -1 and empty/],
    [change("train.csv", "patient00001", "p1"), /train\.csv:2: .* is in no folder of a patient/],
    [change("train.csv", "view2_lateral", "view3"), /train\.csv:4: .*no image .*view3\.jpg$/],
    [change("valid.csv", "Edema", "Oedema"), /valid\.csv:1: no column "edema"/],
    [
      change("valid.csv", "valid/patient64541", "train/patient00001"),
      /patient "patient00001" is in both (train|val) and test/,
    ],
  ];
  for (const [files, message] of mistakes) {
    await withFiles(files, (dir) => assertMistakes(dir, [["chexpert:.", message]]));
  }
  const { "valid.csv": _, ...half } = chexpertFiles;
  await withFiles(half, (dir) =>
    assertMistakes(dir, [
      ["chexpert:.", /valid\.csv: no such file/],
      ["chexpert:.?uncertain=maybe", /uncertain=maybe is none of ignore, zeros, ones/],
    ]));
});

Deno.test("covid:, nih: and chexpert: open without their images if these are not looked for", async () => {
  const files = {
    "metadata.csv": covidStates.flat,
    "Data_Entry_2017.csv": nihTable,
    "train.csv": chexpertFiles["train.csv"],
    "valid.csv": chexpertFiles["valid.csv"],
  };
  await withFiles(files, async (dir) => {
    for (const [reader, count] of [["covid", 7], ["nih", 3], ["chexpert", 4]] as const) {
      await assertMistakes(dir, [[`${reader}:.`, /no image .* are missing/]]);
      const { examples } = await openDataset(`${reader}:${dir}`, { checkFiles: false });
      assert.equal(examples.length, count);
    }
  });
});

const original = (name: string) =>
  fileURLToPath(new URL(`../../shared/data/${name}`, import.meta.url));

Deno.test({
  name: `covid: reads the original, if it is in ${original("covid-chestxray")}`,
  ignore: !existsSync(original("covid-chestxray")),
  async fn() {
    const { labels, examples, load } = await openDataset(`covid:${original("covid-chestxray")}`);
    const count = (label: string) =>
      examples.filter((example) => example.labels[labels.indexOf(label)] === 1).length;
    assert.ok(count("COVID-19") > examples.length / 2);
    assert.ok(count("COVID-19") < count("Viral") && count("Viral") < count("Pneumonia"));
    assert.ok(new Set(await load(0, 32, 1)).size > 16);
  },
});

Deno.test({
  name: `nih: reads the original, if it is in ${original("nih-chestxray14")}`,
  ignore: !existsSync(original("nih-chestxray14")),
  async fn() {
    const { labels, examples, load } = await openDataset(`nih:${original("nih-chestxray14")}`);
    const count = (label: string) =>
      examples.filter((example) => example.labels[labels.indexOf(label)] === 1).length;
    assert.ok(labels.every((label) => count(label) > 0 && count(label) < examples.length / 2));
    assert.ok(count("Infiltration") > 4 * count("Hernia"));
    assert.ok(new Set(await load(0, 32, 1)).size > 16);
  },
});
