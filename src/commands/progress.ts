/** How a run shows itself: a line that redraws itself on a terminal, plain lines elsewhere, or JSON. */
import type { KnnScore, Progress, Reporter } from "../train.ts";

/** Something that shows a run and its end. */
export interface Display extends Reporter {
  /** Ends the line being redrawn. */
  close(): void;
}

/** Seconds between plain lines. */
const plainInterval = 5;
const barWidth = 20;

/** The display for an output: JSON lines on stdout, or people's on stderr. */
export function createDisplay({ json }: { json: boolean }): Display {
  if (json) return new JsonDisplay();
  return Deno.stderr.isTerminal() ? new TerminalDisplay() : new PlainDisplay();
}

/** One JSON object a line on stdout. */
class JsonDisplay implements Display {
  stage(message: string): void {
    this.#print({ event: "stage", message });
  }
  compiling(): void {}
  progress(progress: Progress): void {
    this.#print({ event: "progress", ...progress });
  }
  knn(epoch: number, score: KnnScore): void {
    this.#print({ event: "knn", epoch, ...score });
  }
  line(message: string): void {
    this.#print({ event: "message", message });
  }
  close(): void {}

  #print(event: Record<string, unknown>): void {
    console.log(JSON.stringify(event));
  }
}

/** Lines at intervals, for logs. */
class PlainDisplay implements Display {
  #printed = 0;
  #compiled = 0;
  #stage = "";

  /** Counts that go up (`images 32/1000`) are one stage, told at intervals. */
  stage(message: string): void {
    const stage = message.replaceAll(/\d+/g, "");
    if (stage === this.#stage && !this.#isDue()) return;
    this.#stage = stage;
    this.line(message);
  }
  compiling(): void {
    if (++this.#compiled === 1) {
      this.line("compiling kernels (cached by the driver for later runs)");
    }
  }
  progress(progress: Progress): void {
    if (progress.step === progress.steps || this.#isDue()) this.line(describe(progress));
  }
  knn(epoch: number, score: KnnScore): void {
    this.line(describeKnn(epoch, score));
  }
  line(text: string): void {
    this.#printed = performance.now();
    console.error(text);
  }
  close(): void {}

  #isDue(): boolean {
    return performance.now() - this.#printed >= 1000 * plainInterval;
  }
}

/** A bar that redraws itself. */
class TerminalDisplay implements Display {
  #compiled = 0;

  stage(message: string): void {
    this.#draw(message);
  }
  compiling(kernel: string): void {
    this.#draw(`compiling kernels ${++this.#compiled}: ${kernel}`);
  }
  progress(progress: Progress): void {
    const filled = Math.floor(barWidth * progress.step / progress.steps);
    this.#draw(`${"█".repeat(filled)}${"░".repeat(barWidth - filled)} ${describe(progress)}`);
  }
  knn(epoch: number, score: KnnScore): void {
    this.line(describeKnn(epoch, score));
  }
  line(text: string): void {
    this.#draw("");
    console.error(text);
  }
  close(): void {
    this.#draw("");
  }

  #draw(text: string): void {
    // Some terminals tell no size.
    const columns = Deno.consoleSize().columns || 80;
    const fitted = text.length < columns ? text : `${text.slice(0, columns - 2)}…`;
    Deno.stderr.writeSync(new TextEncoder().encode(`\r\x1b[K${fitted}`));
  }
}

function describe(progress: Progress): string {
  const { epoch, epochs, loss, lr, imagesPerSecond, eta, gpuBytes } = progress;
  return [
    `epoch ${epoch.toFixed(1)}/${Number(epochs.toFixed(1))}`,
    `loss ${loss.toFixed(4)}`,
    `lr ${lr.toExponential(1)}`,
    `${threeDigits(imagesPerSecond)} images/s`,
    `${formatDuration(eta)} left`,
    `${formatBytes(gpuBytes)} GPU`,
  ].join(" · ");
}

function describeKnn(epoch: number, { auroc, accuracy, constant }: KnnScore): string {
  return `epoch ${Number(epoch.toFixed(2))}: kNN on validation images: macro AUROC ${
    auroc.toFixed(3)
  }, ` +
    `label accuracy ${accuracy.toFixed(3)} (constant predictor ${constant.toFixed(3)})`;
}

/** `1 h 02 min`, `3 min 20 s`, `12 s`. */
export function formatDuration(seconds: number): string {
  if (!Number.isFinite(seconds)) return "?";
  const whole = Math.round(seconds);
  const [hours, minutes] = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60];
  if (hours > 0) return `${hours} h ${String(minutes).padStart(2, "0")} min`;
  return minutes > 0 ? `${minutes} min ${String(whole % 60).padStart(2, "0")} s` : `${whole} s`;
}

/** `512 B`, `1.4 GiB`. */
export function formatBytes(bytes: number): string {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let unit = 0;
  for (; bytes >= 1024 && unit < units.length - 1; unit++) bytes /= 1024;
  return `${unit === 0 ? bytes : threeDigits(bytes)} ${units[unit]}`;
}

/** Three significant digits, never with an exponent. */
function threeDigits(value: number): string {
  return value >= 100 ? String(Number(value.toPrecision(3))) : value.toPrecision(3);
}
