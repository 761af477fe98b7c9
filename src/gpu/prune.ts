/** Leaves branches on constants out of WGSL before compilation. */
import { type Constants, evaluate, matchBrace } from "./unroll.ts";

const compare: Readonly<Record<string, (a: number, b: number) => boolean>> = {
  "==": (a, b) => a === b,
  "!=": (a, b) => a !== b,
  "<": (a, b) => a < b,
  ">": (a, b) => a > b,
};

/**
 * The source, free of comments, with blanks for each `if (left == right) { … }` whose sides are constant and do not
 * compare so (nor by `!=`, `<`, `>`): what stands there needs neither buffers nor functions. A compiler would
 * leave it out too, but not what it binds. All else stays where it is; of a branch with an `else` nothing goes.
 */
export function prune(source: string, constants: Constants): string {
  let text = source;
  for (
    const match of source.matchAll(/\bif\s*\(([^()<>=!&|]+)([=!]=|[<>])([^()<>=!&|]+)\)\s*\{/g)
  ) {
    const [head, left, operator, right] = match as unknown as [string, string, string, string];
    const [a, b] = [evaluate(left, constants), evaluate(right, constants)];
    if (a === undefined || b === undefined || compare[operator]!(a, b)) continue;
    const end = matchBrace(source, match.index + head.length - 1) + 1;
    if (/^\s*else\b/.test(source.slice(end))) continue;
    const blank = text.slice(match.index, end).replace(/[^\n]/g, " ");
    text = text.slice(0, match.index) + blank + text.slice(end);
  }
  return text;
}
