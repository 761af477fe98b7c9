/**
 * A mistake in what the user gave: a flag, a file, a shape. The message names the thing, the field
 * and the value; the command line prints it as one line and exits with code 2.
 */
export class UserError extends Error {
  /** Tells it from errors of the program. */
  override readonly name = "UserError";
}
