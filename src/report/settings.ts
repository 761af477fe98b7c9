/** Settings as text. */

/** Rows of a table for a value: one for each leaf of an object, with dotted names. */
export function flatten(name: string, value: unknown): [name: string, text: string][] {
  if (Array.isArray(value) && value.every((item) => typeof item !== "object")) {
    return [[name, value.join(", ")]];
  }
  if (typeof value === "object" && value !== null) {
    return Object.entries(value).flatMap(([key, inner]) => flatten(`${name}.${key}`, inner));
  }
  return [[name, value === null ? "none" : String(value)]];
}
