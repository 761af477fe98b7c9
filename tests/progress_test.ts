import assert from "node:assert/strict";
import { formatProfile, formatUploads } from "../src/commands/profile.ts";
import { createDisplay, formatBytes, formatDuration } from "../src/commands/progress.ts";
import type { Progress } from "../src/train.ts";

const progress: Progress = {
  step: 21,
  steps: 210,
  epoch: 1,
  epochs: 10,
  loss: 4.84419,
  lr: 0.00212,
  imagesPerSecond: 1234.5,
  eta: 200.4,
  gpuBytes: 103_600_000,
};

/** What a method of console was given meanwhile. */
function printed(method: "log" | "error", body: () => void): string[] {
  const lines: string[] = [];
  const original = console[method];
  console[method] = (text: string) => void lines.push(text);
  try {
    body();
  } finally {
    console[method] = original;
  }
  return lines;
}

Deno.test("formatUploads() says what steps waited for", () => {
  assert.equal(
    formatUploads({ before: 0.0123, during: 0 }),
    "images: 12.3 ms of upload before the first step, then steps waited 0.0 ms",
  );
});

Deno.test("formatDuration() names the two largest units", () => {
  assert.deepEqual(
    [0.4, 12, 59.6, 200, 3599.7, 3720, 90_000, Infinity].map(formatDuration),
    ["0 s", "12 s", "1 min 00 s", "3 min 20 s", "1 h 00 min", "1 h 02 min", "25 h 00 min", "?"],
  );
});

Deno.test("formatBytes() gives three digits and no exponent", () => {
  assert.deepEqual(
    [0, 512, 1024, 103_600_000, 1023 * 2 ** 20, 3 * 2 ** 31].map(formatBytes),
    ["0 B", "512 B", "1.00 KiB", "98.8 MiB", "1020 MiB", "6.00 GiB"],
  );
});

Deno.test("the JSON display prints one object a line", () => {
  const lines = printed("log", () => {
    const display = createDisplay({ json: true });
    display.stage("opening the GPU");
    display.compiling("relu.forward");
    display.progress(progress);
    display.knn(5, { auroc: 0.64, accuracy: 0.7, constant: 0.68 });
    display.line("done");
    display.close();
  });
  assert.deepEqual(lines.map((line) => JSON.parse(line)), [
    { event: "stage", message: "opening the GPU" },
    { event: "progress", ...progress },
    { event: "knn", epoch: 5, auroc: 0.64, accuracy: 0.7, constant: 0.68 },
    { event: "message", message: "done" },
  ]);
});

Deno.test({
  name: "the display for logs prints stages once, the last step and kNN scores",
  ignore: Deno.stderr.isTerminal(),
  fn() {
    const lines = printed("error", () => {
      const display = createDisplay({ json: false });
      for (const done of [1, 2, 3]) display.stage(`training images ${done}/3`);
      display.compiling("relu.forward");
      display.compiling("relu.gradient");
      display.progress(progress);
      display.progress({ ...progress, step: 210, epoch: 10, eta: 0 });
      display.knn(10, { auroc: 0.64, accuracy: 0.7, constant: 0.68 });
    });
    assert.deepEqual(lines, [
      "training images 1/3",
      "compiling kernels (cached by the driver for later runs)",
      "epoch 10.0/10 · loss 4.8442 · lr 2.1e-3 · 1230 images/s · 0 s left · 98.8 MiB GPU",
      "epoch 10: kNN on validation images: macro AUROC 0.640, label accuracy 0.700 " +
      "(constant predictor 0.680)",
    ]);
  },
});

Deno.test("formatProfile() aligns long names and leaves unknown rates empty", () => {
  const lines = formatProfile([
    { label: "gemm.image TRANSPOSED=0", calls: 20, ms: 30, flops: 6e9, bytes: 3e8 },
    { label: "relu.forward", calls: 5, ms: 10, flops: 0, bytes: 2e8 },
  ]).split("\n");
  assert.equal(new Set(lines.slice(0, 3).map((line) => line.length)).size, 1);
  assert.deepEqual(lines.map((line) => line.trim().split(/ {2,}/)), [
    ["kernel", "calls", "ms", "GFLOP/s", "GB/s", "share"],
    ["gemm.image TRANSPOSED=0", "20", "30.0", "200.0", "10.0", "75.0 %"],
    ["relu.forward", "5", "10.0", "20.0", "25.0 %"],
    ["all kernels", "40.0"],
  ]);
});
