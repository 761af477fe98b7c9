/**
 * The kernels of a training step against what the adapter can do (Williams, Waterman and Patterson 2009,
 * doi 10.1145/1498765.1498785): each reaches at most the lower of the arithmetic peak and its intensity,
 * operations a byte, times the bandwidth.
 */
import type { KernelTime } from "../src/gpu/profile.ts";

// deno-lint-ignore no-explicit-any
type Any = any;

/** Held in variables so that the packages are fetched only when a picture is drawn. */
const PLOT = "npm:@observablehq/plot@0.6.17";
const DOM = "npm:linkedom@0.18.12";

/** Peaks of an adapter. */
type Peak = Readonly<Record<"GFLOP/s" | "GB/s", number>>;

/** Kernels that are named. */
const top = 5;

/** The kernels that take most of the time as lines of text, and all that count operations as a picture. */
export async function roofline(
  kernels: readonly KernelTime[],
  peak: Peak,
): Promise<{ lines: string[]; svg: string }> {
  const total = kernels.reduce((sum, { ms }) => sum + ms, 0);
  const lines = kernels.slice(0, top).map((kernel, i) => {
    const [arithmetic, memory] = [
      kernel.flops / kernel.ms / 1e6 / peak["GFLOP/s"],
      kernel.bytes / kernel.ms / 1e6 / peak["GB/s"],
    ];
    return `${i + 1}. ${percent(kernel.ms / total)} ${kernel.label}: ` +
      (arithmetic >= memory ? "arithmetic" : "memory") +
      ` (${percent(arithmetic)} of the arithmetic peak, ${percent(memory)} of the bandwidth)`;
  });
  return { lines, svg: await draw(kernels, total, peak) };
}

async function draw(kernels: readonly KernelTime[], total: number, peak: Peak): Promise<string> {
  const Plot: Any = await import(PLOT);
  const { parseHTML }: Any = await import(DOM);
  const points = kernels.map(({ ms, flops, bytes }, i) => ({
    intensity: flops / bytes,
    rate: flops / ms / 1e6,
    share: ms / total,
    rank: i < top ? i + 1 : "",
  })).filter(({ rate }) => rate > 0);
  const legend = kernels.slice(0, top).map(({ label, flops }, i) =>
    `${i + 1} ${label}${flops === 0 ? " (counts no operations)" : ""}`
  ).join("\n");
  const ridge = peak["GFLOP/s"] / peak["GB/s"];
  const ends = [
    Math.min(0.5, ...points.map(({ intensity }) => intensity)),
    Math.max(4 * ridge, ...points.map(({ intensity }) => 1.5 * intensity)),
  ];
  const roof = [ends[0]!, ridge, ends[1]!].map((intensity) => ({
    intensity,
    rate: Math.min(peak["GFLOP/s"], intensity * peak["GB/s"]),
  }));
  const svg = Plot.plot({
    document: parseHTML("<html></html>").document,
    width: 720,
    height: 420,
    marginRight: 30,
    x: { type: "log", label: "operations a byte →", grid: true },
    y: { type: "log", label: "↑ GFLOP/s", grid: true },
    r: { range: [2, 16] },
    marks: [
      Plot.line(roof, { x: "intensity", y: "rate", stroke: "#222" }),
      Plot.dot(points, {
        x: "intensity",
        y: "rate",
        r: "share",
        fill: "#0072b2",
        fillOpacity: 0.3,
      }),
      Plot.text(points, {
        x: "intensity",
        y: "rate",
        text: "rank",
        fontWeight: "bold",
        fill: "#222",
      }),
      Plot.text([legend], { frameAnchor: "bottom-right", fontSize: 10, dx: -8, dy: -8 }),
    ],
  });
  svg.setAttribute("style", "background: white; color: #222; font: 12px sans-serif");
  svg.setAttribute("xmlns", "http://www.w3.org/2000/svg");
  return svg.outerHTML + "\n";
}

function percent(share: number): string {
  return `${(100 * share).toFixed(0)} %`;
}
