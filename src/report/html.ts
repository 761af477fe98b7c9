/** The frame of a report: one HTML file without scripts that asks nothing of a network. */

/** Text made safe to stand in HTML, also within a quoted attribute. */
export function escapeHtml(text: string): string {
  return text
    .replaceAll("&", "&amp;")
    .replaceAll("<", "&lt;")
    .replaceAll(">", "&gt;")
    .replaceAll('"', "&quot;");
}

/** A PNG with its caption, which is also what a screen reader says of it. */
export function figure(png: Uint8Array, caption: string): string {
  let bytes = "";
  for (const byte of png) bytes += String.fromCharCode(byte);
  const text = escapeHtml(caption);
  return `<figure><img alt="${text}" src="data:image/png;base64,${btoa(bytes)}">
<figcaption>${text}</figcaption></figure>`;
}

/** A table cell: text as it is, numbers with {@link formatNumber}, aligned by type. */
export type Cell = string | number | null;

/** A table; the first cell of each row is its header. */
export function table(head: readonly string[], rows: readonly (readonly Cell[])[]): string {
  const body = rows.map(([first, ...cells]) =>
    `<tr><th scope="row"${alignment(first!)}>${content(first!)}</th>${
      cells.map((cell) => `<td${alignment(cell)}>${content(cell)}</td>`).join("")
    }</tr>`
  );
  const columns = head.map((title, i) => {
    const text = rows.map((row) => row[i]!).find((cell) => typeof cell === "string");
    return `<th scope="col"${alignment(text ?? null)}>${escapeHtml(title)}</th>`;
  });
  const top = head.length > 0 ? `<thead><tr>${columns.join("")}</tr></thead>` : "";
  return `<div class="table"><table>${top}<tbody>${body.join("")}</tbody></table></div>`;
}

const alignment = (cell: Cell) => typeof cell === "string" ? "" : ' class="number"';
const content = (cell: Cell) =>
  escapeHtml(typeof cell === "string" ? cell : cell === null ? "–" : formatNumber(cell));

/** At most four significant digits, thousands apart, and powers of ten only for the very small. */
export function formatNumber(value: number): string {
  if (!Number.isFinite(value)) return String(value).replace("-", "−");
  const size = Math.abs(value);
  if (size !== 0 && size < 1e-4) {
    const [digits, exponent] = value.toExponential(3).split("e");
    return `${Number(digits)} × 10${superscript(Number(exponent))}`.replace(/^-/, "−");
  }
  const options = size >= 1000 ? { maximumFractionDigits: 0 } : { maximumSignificantDigits: 4 };
  return value.toLocaleString("en-US", options).replaceAll(",", "\u202f").replace("-", "−");
}

function superscript(exponent: number): string {
  return String(exponent).replace(/./g, (c) => "⁰¹²³⁴⁵⁶⁷⁸⁹"[Number(c)] ?? "⁻");
}

/** A whole page. `body` is HTML, `style` what it needs beyond the common style sheet; the title is text. */
export function page(title: string, body: string, style = ""): string {
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<link rel="icon" href="data:,">
<title>${escapeHtml(title)}</title>
<style>${STYLE}${style}</style>
</head>
<body>
${body}
</body>
</html>
`;
}

/** Colours after Okabe & Ito (2008), told apart by most colour-blind readers; dashes tell them apart in print. */
const STYLE = `
:root {
  --paper: #fbfbfa; --card: #fff; --ink: #1c2024; --soft: #5f6770; --line: #e3e5e8; --rule: #6b737c;
  --c1: #0067a8; --c2: #c04f00; --c3: #007a58; --c4: #a8487f; --c5: #8a6d00; --c6: #2f7fb8;
}
@media (prefers-color-scheme: dark) {
  :root {
    --paper: #121417; --card: #1a1d21; --ink: #e8eaed; --soft: #9aa2ab; --line: #2c3137; --rule: #8b939c;
    --c1: #5ab4f0; --c2: #f08a4b; --c3: #3cc49a; --c4: #e08cbc; --c5: #e0bb3c; --c6: #8fd0f5;
  }
}
* { box-sizing: border-box; }
body {
  margin: 0 auto; max-width: 68rem; padding: 2rem 1.25rem 3rem; background: var(--paper); color: var(--ink);
  font: 1rem/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", sans-serif;
  font-variant-numeric: tabular-nums; -webkit-text-size-adjust: 100%;
}
header { margin-bottom: 1.5rem; }
h1 { margin: 0; font-size: 1.75rem; line-height: 1.2; letter-spacing: -0.01em; overflow-wrap: anywhere; }
h2 { margin: 2.5rem 0 0.75rem; font-size: 1.15rem; }
h3 { margin: 0; font-size: 1rem; }
p { margin: 0.25rem 0 0; }
.soft, header p, footer { color: var(--soft); }
footer { margin-top: 2.5rem; font-size: 0.875rem; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(8.5rem, 1fr)); gap: 0.75rem; margin: 0; }
.tiles div { padding: 0.75rem 1rem; background: var(--card); border: 1px solid var(--line); border-radius: 0.6rem; }
.tiles dt { color: var(--soft); font-size: 0.8125rem; }
.tiles dd { margin: 0; font-size: 1.375rem; font-weight: 600; line-height: 1.3; }
.tiles small { display: block; color: var(--soft); font-size: 0.8125rem; font-weight: 400; }
figure { margin: 1.5rem 0; }
figure img { display: block; width: 100%; max-width: 44rem; image-rendering: pixelated; }
figcaption { color: var(--soft); margin-top: 0.4rem; }
.grid { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(26rem, 100%), 1fr)); gap: 1rem; }
.grid > .chart:first-child { grid-column: 1 / -1; }
.chart, .card {
  margin: 0; padding: 1rem 1.1rem; background: var(--card); border: 1px solid var(--line); border-radius: 0.6rem;
  min-width: 0;
}
.chart figcaption p { color: var(--soft); font-size: 0.875rem; line-height: 1.3; }
.legend { display: flex; flex-wrap: wrap; gap: 0 1rem; margin: 0 0 0.5rem; padding: 0; list-style: none; font-size: 0.8125rem; }
.legend svg { width: 1.6rem; height: 0.6rem; margin-right: 0.4rem; overflow: visible; vertical-align: 0.05rem; }
.plot { padding: 1.1rem 1rem 3.25rem 2.9rem; }
.plot > svg { display: block; width: 100%; height: 13rem; overflow: visible; }
.plot text { fill: var(--soft); font-size: 0.75rem; }
.plot .label { fill: var(--ink); stroke: var(--card); stroke-width: 4; paint-order: stroke; stroke-linejoin: round; }
.grid-line { stroke: var(--line); }
.reference { stroke: var(--rule); stroke-dasharray: 2 4; stroke-linecap: round; stroke-width: 1.5; }
.s1 { color: var(--c1); } .s2 { color: var(--c2); } .s3 { color: var(--c3); }
.s4 { color: var(--c4); } .s5 { color: var(--c5); } .s6 { color: var(--c6); }
.curve {
  fill: none; stroke: currentColor; stroke-width: 2; stroke-linejoin: round; stroke-linecap: round;
  vector-effect: non-scaling-stroke;
}
.curve.s2 { stroke-dasharray: 7 5; } .curve.s3 { stroke-dasharray: 1 5; } .curve.s4 { stroke-dasharray: 9 5 1 5; }
.curve.s5 { stroke-dasharray: 15 5; } .curve.s6 { stroke-dasharray: 1 5 1 9; }
.faint { opacity: 0.3; stroke-width: 1.25; }
.dot { fill: currentColor; stroke: var(--card); stroke-width: 1.5; }
details { font-size: 0.8125rem; }
summary { color: var(--soft); cursor: pointer; width: max-content; max-width: 100%; }
.table { overflow-x: auto; }
details .table { overflow-y: auto; max-height: 22rem; }
table { border-collapse: collapse; width: 100%; font-size: 0.875rem; }
details table { font-size: 0.8125rem; }
th, td { padding: 0.25rem 0.75rem 0.25rem 0; border-bottom: 1px solid var(--line); text-align: left; vertical-align: top; }
tbody th { color: var(--soft); font-weight: 400; }
thead th { position: sticky; top: 0; background: var(--card); font-weight: 600; }
td { overflow-wrap: anywhere; }
.number { text-align: right; white-space: nowrap; }
@media print {
  :root {
    --paper: #fff; --card: #fff; --ink: #000; --soft: #444; --line: #ccc; --rule: #555;
    --c1: #0067a8; --c2: #c04f00; --c3: #007a58; --c4: #a8487f; --c5: #8a6d00; --c6: #2f7fb8;
  }
  html { font-size: 9.5pt; }
  body { max-width: none; padding: 0; }
  .grid { grid-template-columns: 1fr 1fr; }
  .chart, .tiles div, tr { break-inside: avoid; }
  .plot > svg { height: 9rem; }
  .card { padding-block: 0.5rem; }
  h2 { margin-top: 1.25rem; break-after: avoid; }
  footer { margin-top: 1rem; }
  details:not([open]) { display: none; }
}
`;
