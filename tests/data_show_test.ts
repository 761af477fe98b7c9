import assert from "node:assert/strict";
import { join } from "node:path";
import { command } from "../src/commands/data.ts";
import { runCommand } from "../src/commands/command.ts";
import { contactSheet } from "../src/data/contact_sheet.ts";
import { decodePng } from "../src/data/decode/png.ts";
import { UserError } from "../src/errors.ts";
import { flatPng, withFiles } from "./support/files.ts";

Deno.test("contactSheet() lays images out in rows with gaps", () => {
  for (const channels of [1, 3] as const) {
    const pixels = Uint8Array.from({ length: 5 * 4 * channels }, (_, i) => i);
    const sheet = contactSheet({ count: 5, size: 2, channels, pixels }, {
      columns: 3,
      gap: 1,
      background: 200,
    });
    const { width, height, pixels: drawn, ...rest } = decodePng(sheet);
    assert.deepEqual({ width, height, ...rest }, { width: 10, height: 7, channels });
    const expected = new Uint8Array(70 * channels).fill(200);
    for (let i = 0; i < pixels.length; i++) {
      const c = i % channels;
      const x = Math.floor(i / channels) % 2;
      const y = Math.floor(i / channels / 2) % 2;
      const image = Math.floor(i / channels / 4);
      const [left, top] = [1 + 3 * (image % 3), 1 + 3 * Math.floor(image / 3)];
      expected[((top + y) * 10 + left + x) * channels + c] = i;
    }
    assert.deepEqual(drawn, expected);
  }
});

const csv = `filename,labels,split,patient_id
0.png,Edema,train,p0
1.png,Edema|Mass,train,p0
2.png,Mass,train,
3.png,,unlabeled,p1
4.png,Edema,test,p2
`;
const files = {
  "x.csv": csv,
  ...Object.fromEntries([0, 1, 2, 3, 4].map((i) => [`${i}.png`, flatPng(50 * i, 8)])),
};

/** Runs the command; its output, but for what it says of its progress. */
async function output(args: string[]): Promise<string> {
  const { log, error } = console;
  const lines: string[] = [];
  console.log = (line: string) => lines.push(line);
  console.error = () => {};
  try {
    assert.equal(await runCommand(command, [...args, "--no-cache"]), 0);
    return lines.join("\n");
  } finally {
    Object.assign(console, { log, error });
  }
}

Deno.test("data show writes a sheet of evenly spaced images", async () => {
  await withFiles(files, async (dir) => {
    const out = join(dir, "sheet.png");
    const spec = `csv:${join(dir, "x.csv")}`;
    const text = await output(["show", spec, "--out", out, "--image-size", "8", "--count", "2"]);
    assert.match(text, /5 images, 3 known patients/);
    assert.match(text, /sheet\.png: 2 images of 8×8$/);
    const { width, pixels } = decodePng(await Deno.readFile(out));
    assert.equal(width, 22);
    assert.deepEqual([pixels[2 * 22 + 2], pixels[2 * 22 + 12]], [0, 100]);
  });
});

Deno.test("data show --views puts each image beside views of itself", async () => {
  await withFiles(files, async (dir) => {
    const out = join(dir, "sheet.png");
    const args = ["show", `csv:${join(dir, "x.csv")}`, "--out", out, "--views"];
    await output([...args, "--augment", "none", "--image-size", "8"]);
    const { width, height, pixels } = decodePng(await Deno.readFile(out));
    assert.deepEqual([width, height], [82, 52]);
    // The recipe "none" changes nothing, so a row is one level.
    for (let row = 0; row < 5; row++) {
      const levels = Array.from({ length: 8 }, (_, i) => pixels[(2 + 10 * row) * 82 + 2 + 10 * i]);
      assert.deepEqual(levels, Array(8).fill(50 * row));
    }
  });
});

Deno.test("data show --json prints one object, and --no-duplicates looks for none", async () => {
  await withFiles(files, async (dir) => {
    const out = join(dir, "sheet.png");
    const args = ["show", `csv:${join(dir, "x.csv")}`, "--out", out, "--json"];
    const { sheet, labels, sizes, duplicates, warnings } = JSON.parse(await output(args));
    assert.deepEqual([sheet, labels, sizes.distinct], [out, ["Edema", "Mass"], 1]);
    // Flat images have nothing to tell them apart.
    assert.deepEqual(duplicates.map((group: unknown[]) => group.length), [5]);
    assert.match(warnings[0], /1 group of duplicates on two sides of the split/);

    const some = await output([...args, "--no-duplicates", "--count", "2"]);
    assert.equal(JSON.parse(some).duplicates, null);
  });
});

Deno.test("data show leaves out images that cannot be read, and warns of them", async () => {
  await withFiles({ ...files, "1.png": "broken" }, async (dir) => {
    await Deno.remove(join(dir, "3.png"));
    const out = join(dir, "sheet.png");
    const args = ["show", `csv:${join(dir, "x.csv")}`, "--out", out];
    const text = await output(args);
    assert.match(
      text,
      /warning: 2 images cannot be read, such as .*1\.png: neither PNG, JPEG nor DICOM/,
    );
    assert.match(text, /sheet\.png: 3 images/);
  });
});

Deno.test("data names what is wrong on its command line", async () => {
  await withFiles(files, async (dir) => {
    const spec = `csv:${join(dir, "x.csv")}`;
    const mistakes: [string[], RegExp][] = [
      [["list", spec], /^data: no "list"; there are show, get$/],
      [["show"], /^data show: SPEC is missing \(deno task data show SPEC \[flags\]\)$/],
      [["show", join(dir, "x.csv")], /no reader/],
      [["show", spec, "--out", join(dir, "no", "x.png")], /x\.png: its folder does not exist/],
      [["show", spec, "--out", dir], /is a folder/],
    ];
    for (const [args, message] of mistakes) {
      await assert.rejects(
        output(args),
        (error) => error instanceof UserError && message.test(error.message),
        args.join(" "),
      );
    }
  });
});
