/** JSON with comments and trailing commas: what people write configurations in. */
import { UserError } from "../errors.ts";
import { readText } from "../files.ts";

/**
 * The object in a JSON file, comments and trailing commas allowed.
 *
 * @param what its fields are, for the error
 * @throws {UserError} naming file and position if there is none
 */
export function readJsonc(file: string, what: string): Record<string, unknown> {
  const text = stripJsonc(readText(file));
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (error) {
    throw new UserError(`${file}: ${(error as Error).message}`);
  }
  if (typeof value === "object" && value !== null && !Array.isArray(value)) {
    return value as Record<string, unknown>;
  }
  throw new UserError(`${file}: expected an object of ${what}, got ${JSON.stringify(value)}`);
}

/** Blanks out comments and trailing commas, so that positions in JSON's errors stay right. */
function stripJsonc(text: string): string {
  const outsideStrings = (pattern: string) =>
    new RegExp(String.raw`("(?:\\.|[^"\\])*")|${pattern}`, "g");
  const blank = (match: string, quoted?: string) => quoted ?? match.replace(/[^\n]/g, " ");
  return text
    .replace(outsideStrings(String.raw`//[^\n]*|/\*[\s\S]*?\*/`), blank)
    .replace(outsideStrings(String.raw`,(?=\s*[}\]])`), blank);
}
