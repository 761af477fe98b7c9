/** What every page of a report must keep. */
import assert from "node:assert/strict";

const VOID = ["meta", "link", "br"];

/** Fails unless every element is closed in order; SVG shapes close themselves. */
export function assertBalanced(html: string): void {
  const open: string[] = [];
  const body = html.replace(/<style>[^]*?<\/style>/, "");
  for (const [, close, name, closed] of body.matchAll(/<(\/?)([a-z][a-z0-9]*)[^<>]*?(\/?)>/g)) {
    if (closed || VOID.includes(name!)) continue;
    if (!close) open.push(name!);
    else assert.equal(open.pop(), name, `</${name}> closes another element`);
  }
  assert.deepEqual(open, []);
  // What is left of "<" and ">" would be text that was not escaped.
  assert.ok(!/[<>]/.test(body.replace(/<!doctype html>|<\/?[a-z][^<>]*>/g, "")));
}

/** Fails if a page runs scripts or asks anything of a network. */
export function assertSelfContained(html: string): void {
  assert.ok(!/<script|<iframe|<object|<base|@import|url\(|javascript:|https?:/i.test(html));
  assert.ok(!/<[a-z][^>]*\son\w+=/i.test(html));
  for (const [, target] of html.matchAll(/(?:href|src)="([^"]*)"/g)) {
    assert.match(target!, /^(data:,|data:image\/png;base64,[\w+/=]+|#[\w-]+)$/);
  }
}

/** Fails unless every image that a page draws is named to screen readers, by elements that exist once. */
export function assertNamed(html: string): void {
  const ids = [...html.matchAll(/ id="([^"]*)"/g)].map(([, id]) => id!);
  assert.equal(new Set(ids).size, ids.length, "an id occurs twice");
  for (const [svg] of html.matchAll(/<svg (?!aria-hidden)[^>]*>/g)) {
    const names = /role="img" aria-labelledby="([^"]*)"/.exec(svg)?.[1]?.split(" ") ?? [];
    assert.ok(names.length > 0 && names.every((id) => ids.includes(id)), svg);
  }
}
