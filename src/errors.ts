/**
 * A mistake in what the user gave: a flag, a file, a shape. The message names the thing, the field
 * and the value; the command line prints it as one line and exits with code 2.
 */
export class UserError extends Error {
  /** Tells it from errors of the program. */
  override readonly name = "UserError";

  /** Control characters, which the quoted content of a file may hold, are shown by their codes. */
  constructor(message: string, options?: ErrorOptions) {
    super(message.replace(/\p{Cc}/gu, escaped), options);
  }
}

function escaped(character: string): string {
  if (character === "\n") return "\\n";
  return `\\u${character.charCodeAt(0).toString(16).padStart(4, "0")}`;
}
