/**
 * Expands WGSL before compilation: loops marked `// @unroll` are written out, and local arrays whose
 * every index is then a constant become scalars.
 *
 * Why: a compiler that bounds every loop and keeps indexed local arrays in memory runs a register
 * tile ten times slower than straight-line code. With the expansion the `.wgsl` file stays short,
 * complete and valid; unexpanded it computes the same.
 */

/** Values of the module's integer constants, by name. */
export type Constants = Readonly<Record<string, number>>;

/** An `@unroll` that cannot be expanded, with the text it stands before. */
export class UnrollError extends Error {
  override readonly name = "UnrollError";
}

/** The source with its `// @unroll` loops written out and its constant-indexed local arrays split. */
export function unroll(source: string, constants: Constants): string {
  return splitArrays(unrollLoops(source, constants), constants);
}

const marker = /^[ \t]*\/\/ @unroll[ \t]*\n/m;
const loopHead =
  /^\s*(?:\/\*[^*]*\*\/\s*)?for\s*\(\s*var\s+(\w+)\s*(?::\s*\w+)?\s*=\s*([^;]+);\s*\1\s*<(?!=)\s*([^;]+);\s*\1\s*(?:\+\+|\+=\s*([^){]+))\s*\)\s*\{/;

function unrollLoops(source: string, constants: Constants): string {
  let text = "";
  let done = 0;
  for (let mark = marker.exec(source); mark !== null; mark = marker.exec(source.slice(done))) {
    const start = done + mark.index + mark[0].length;
    const head = loopHead.exec(source.slice(start));
    const near = source.slice(start, start + 80).split("\n")[0]!.trim();
    if (head === null) throw new UnrollError(`@unroll: not a counted loop: ${near}`);
    const [whole, name, first, bound, by] = head;
    const from = evaluate(first!, constants);
    const to = evaluate(bound!, constants);
    const step = by === undefined ? 1 : evaluate(by, constants);
    if (from === undefined || to === undefined || step === undefined || step <= 0) {
      throw new UnrollError(`@unroll: bounds are no integer constants: ${near}`);
    }
    const open = start + whole.length - 1;
    const close = matchBrace(source, open);
    const body = source.slice(open, close + 1);
    if (new RegExp(`\\b(?:var|let)\\s+${name}\\b`).test(body)) {
      throw new UnrollError(`@unroll: ${name} is declared again inside: ${near}`);
    }
    const suffix = first!.trim().endsWith("u") ? "u" : "";
    const use = word(name!);
    text += source.slice(done, done + mark.index);
    for (let i = from; i < to; i += step) {
      text += unrollLoops(body.replace(use, `${i}${suffix}`), constants) + "\n";
    }
    done = close + 1;
  }
  return text + source.slice(done);
}

const localArray = /\bvar\s+(\w+)\s*:\s*array<\s*([\w<>]+)\s*,\s*([^>]+)>\s*;/g;

function splitArrays(source: string, constants: Constants): string {
  let text = source;
  let from = 0;
  for (;;) {
    localArray.lastIndex = from;
    const declaration = localArray.exec(text);
    if (declaration === null) return text;
    const [whole, name, type, length] = declaration;
    const after = declaration.index + whole.length;
    from = after;
    const count = evaluate(length!, constants);
    const end = enclosingBlockEnd(text, after);
    if (count === undefined || end === undefined) continue;
    const scalars = replaceIndexed(text.slice(after, end), name!, constants);
    if (scalars === undefined) continue;
    const names = Array.from({ length: count }, (_, i) => `var ${name}_${i}: ${type};`);
    text = text.slice(0, declaration.index) + names.join(" ") + scalars + text.slice(end);
    from = declaration.index;
  }
}

/** `name[constant]` → `name_value` throughout, or undefined where any use is not of that form. */
function replaceIndexed(text: string, name: string, constants: Constants): string | undefined {
  const use = word(name);
  let result = "";
  let done = 0;
  for (let match = use.exec(text); match !== null; match = use.exec(text)) {
    const open = match.index + name.length;
    if (text[open] !== "[") return undefined;
    const close = matchBrace(text, open);
    const index = evaluate(text.slice(open + 1, close), constants);
    if (index === undefined) return undefined;
    result += text.slice(done, match.index) + `${name}_${index}`;
    done = close + 1;
    use.lastIndex = done;
  }
  return result + text.slice(done);
}

/** Every use of a variable's name, but not a member of that name. */
function word(name: string): RegExp {
  return new RegExp(`(?<![.\\w])${name}\\b`, "g");
}

/** The position of the bracket that closes the one at `open`. */
export function matchBrace(text: string, open: number): number {
  const opening = text[open]!;
  const closing = opening === "{" ? "}" : opening === "[" ? "]" : ")";
  let depth = 0;
  for (let i = open; i < text.length; i++) {
    if (text[i] === opening) depth++;
    else if (text[i] === closing && --depth === 0) return i;
  }
  throw new UnrollError(`unbalanced ${opening} at: ${text.slice(open, open + 60)}`);
}

/** The position of the brace that ends the block around `from`; undefined at module scope. */
function enclosingBlockEnd(text: string, from: number): number | undefined {
  let depth = 0;
  for (let i = from; i < text.length; i++) {
    if (text[i] === "{") depth++;
    else if (text[i] === "}" && --depth < 0) return i;
  }
  return undefined;
}

/**
 * The value of an integer constant expression of WGSL (+ − * / % << >> and parentheses), or
 * undefined where it depends on anything but literals and `constants`.
 */
export function evaluate(expression: string, constants: Constants): number | undefined {
  const tokens = expression.match(/\d+[ui]?|\w+|<<|>>|\S/g) ?? [];
  let at = 0;
  const operators: readonly (readonly string[])[] = [["<<", ">>"], ["+", "-"], ["*", "/", "%"]];

  const binary = (level: number): number | undefined => {
    if (level === operators.length) return primary();
    let left = binary(level + 1);
    while (left !== undefined && operators[level]!.includes(tokens[at] ?? "")) {
      const operator = tokens[at++]!;
      const right = binary(level + 1);
      if (right === undefined) return undefined;
      left = apply(operator, left, right);
    }
    return left;
  };
  const primary = (): number | undefined => {
    const token = tokens[at++];
    if (token === undefined) return undefined;
    if (token === "(") {
      const value = binary(0);
      return tokens[at++] === ")" ? value : undefined;
    }
    if (/^\d+[ui]?$/.test(token)) return parseInt(token);
    return Object.hasOwn(constants, token) ? constants[token] : undefined;
  };
  const value = binary(0);
  return at === tokens.length ? value : undefined;
}

function apply(operator: string, a: number, b: number): number | undefined {
  switch (operator) {
    case "+":
      return a + b;
    case "-":
      return a - b;
    case "*":
      return a * b;
    case "/":
      return b === 0 ? undefined : Math.trunc(a / b);
    case "%":
      return b === 0 ? undefined : a % b;
    case "<<":
      return a << b;
    default:
      return a >> b;
  }
}
