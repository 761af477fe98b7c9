import assert from "node:assert/strict";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { writeEvents } from "../src/commands/tensorboard.ts";
import { crc32c, encodeEvent } from "../src/formats/tensorboard.ts";
import { createRun, openRun, RunFolder } from "../src/run_folder.ts";
import { withFiles } from "./support/files.ts";
import { Message } from "./support/protobuf.ts";
import { succeed } from "./support/task.ts";

/** The Event messages of a file; fails where a length or a checksum is wrong. */
function readRecords(bytes: Uint8Array): Message[] {
  const events: Message[] = [];
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  for (let at = 0; at < bytes.length;) {
    const checked = (length: number) => {
      const data = bytes.subarray(at, at + length);
      assert.equal(data.length, length, "cut short");
      // As TensorFlow's crc32c::Unmask().
      const rotated = (view.getUint32(at + length, true) - 0xa282ead8) >>> 0;
      assert.equal((rotated >>> 17 | rotated << 15) >>> 0, crc32c(data));
      at += length + 4;
      return data;
    };
    const length = Number(view.getBigUint64(at, true));
    checked(8);
    events.push(new Message(checked(length)));
  }
  return events;
}

/** The events of a run, file by file in the order of their names. */
function eventsOf(folder: string): Message[] {
  const files = readdirSync(folder).filter((name) => name.includes("tfevents")).sort();
  for (const name of files) assert.match(name, /^events\.out\.tfevents\.\d{10}\.wgrad$/);
  return files.flatMap((name) => readRecords(readFileSync(join(folder, name))));
}

/** [tag, step, value] of the scalars that TensorBoard keeps. */
function scalarsOf(events: readonly Message[]): [string, number, number][] {
  let scalars: [string, number, number][] = [];
  for (const event of events) {
    const [step] = event.integers(2);
    if (event.messages(7)[0]?.integers(1)[0] === 1) scalars = scalars.filter(([, s]) => s < step!);
    for (const value of event.messages(5).flatMap((summary) => summary.messages(1))) {
      scalars.push([value.strings(1)[0]!, step!, value.floats(2)[0]!]);
    }
  }
  return scalars;
}

Deno.test("crc32c() gives the values of RFC 3720", () => {
  assert.equal(crc32c(new TextEncoder().encode("123456789")), 0xe3069283);
  assert.equal(crc32c(new Uint8Array(32)), 0x8a9136aa);
  assert.equal(crc32c(new Uint8Array(32).fill(255)), 0x62a8ab43);
  assert.equal(crc32c(new Uint8Array()), 0);
});

Deno.test("encodeEvent() writes the fields of an Event", () => {
  const at = { wallTime: 1700000000.25, step: 2 ** 40 };
  const read = (content: Parameters<typeof encodeEvent>[0]["content"]) => {
    const [event, ...more] = readRecords(encodeEvent({ ...at, content }));
    assert.equal(more.length, 0);
    assert.deepEqual([event!.doubles(1), event!.integers(2)], [[at.wallTime], [at.step]]);
    return event!;
  };
  const version = read("file version");
  assert.deepEqual([version.fields, version.strings(3)], [[1, 2, 3], ["brain.Event:2"]]);
  const start = read("session start");
  assert.deepEqual([start.fields, start.messages(7)[0]!.integers(1)], [[1, 2, 7], [1]]);
  const long = "ü".repeat(200);
  const scalars = read({ loss: 0.1, [long]: -3e-40 });
  assert.deepEqual(scalars.fields, [1, 2, 5]);
  assert.deepEqual(scalarsOf([scalars]), [
    ["loss", at.step, Math.fround(0.1)],
    [long, at.step, Math.fround(-3e-40)],
  ]);
});

Deno.test("a run writes events where it is asked to, and goes on with them", async () => {
  await withFiles({}, async (dir) => {
    const run = createRun("simclr", undefined, dir);
    await writeEvents(run, false);
    run.log({ step: 1, epoch: 0.5, loss: 9 });
    assert.deepEqual(readdirSync(run.path), ["metrics.jsonl"]);

    await writeEvents(run, true);
    run.log({ step: 1, epoch: 0.5, loss: 4, std: NaN });
    run.log({ step: 2, epoch: 1, loss: 3 });
    run.log({ step: 2, epoch: 1, knn: { auroc: 0.75, accuracy: null } });
    run.log({ step: 3, epoch: 1.5, loss: 2 });
    const before: [string, number, number][] = [
      ["epoch", 1, 0.5],
      ["loss", 1, 4],
      ["epoch", 2, 1],
      ["loss", 2, 3],
      ["epoch", 2, 1],
      ["knn/auroc", 2, 0.75],
    ];
    assert.deepEqual(scalarsOf(eventsOf(run.path)), [...before, ["epoch", 3, 1.5], ["loss", 3, 2]]);

    // Stopped at step 3, whose checkpoint is of step 2.
    const again = new RunFolder(run.path);
    await writeEvents(again, false);
    again.log({ step: 3, epoch: 1.5, loss: 2.5 });
    const events = eventsOf(run.path);
    assert.deepEqual(scalarsOf(events), [...before, ["epoch", 3, 1.5], ["loss", 3, 2.5]]);
    assert.deepEqual(events[0]!.strings(3), ["brain.Event:2"]);
    const wallTime = events.at(-1)!.doubles(1)[0]!;
    assert.ok(Math.abs(wallTime - Date.now() / 1000) < 600, `${wallTime}`);
  });
});

Deno.test("train and finetune write --tensorboard, which --resume keeps up", async () => {
  await withFiles({}, async (dir) => {
    const size = ["--image-size", "16", "--width", "4", "--stem", "3x3", "--batch", "16"];
    const small = ["--data", "phantom:n=64", ...size, "--tensorboard"];
    const logged = (folder: string) => {
      const names = new Set<string>();
      const rows = openRun(folder).readMetrics();
      const last = new Map(
        scalarsOf(eventsOf(folder)).map(([tag, step, value]) => {
          names.add(tag);
          return [`${tag} ${step}`, value];
        }),
      );
      for (const { step, loss, lr } of rows.filter(({ loss }) => loss !== undefined)) {
        assert.equal(last.get(`loss ${step}`), Math.fround(loss!));
        assert.equal(last.get(`lr ${step}`), Math.fround(lr!));
      }
      return [...names];
    };
    const [train, finetune] = [join(dir, "train"), join(dir, "finetune")];
    await succeed("train", ...small, "--epochs", "1", "--knn-every", "1", "--out", train);
    const names = logged(train);
    for (const name of ["loss", "images_per_s", "std", "knn/auroc"]) {
      assert.ok(names.includes(name));
    }
    await succeed("train", "--resume", train, "--epochs", "2");
    assert.equal(openRun(train).readMetrics().at(-1)!.epoch, 2);
    logged(train);

    await succeed("finetune", "--init", "none", ...small, "--epochs", "1", "--out", finetune);
    assert.ok(logged(finetune).includes("validation/auroc"));
  });
});
