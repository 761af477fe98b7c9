/** Files of records of one length, each with an image: read by position, never as a whole. */

import { UserError } from "../../errors.ts";
import { fileSize, readRange } from "../../files.ts";

/** What is read at once where records are asked for in their order. */
const WINDOW_BYTES = 4 << 20;

/** A file of records. Of its content it holds a window of at most 4 MiB, or one record. */
export class RecordFile {
  /** The file. */
  readonly path: string;
  /** Length of a record. */
  readonly recordBytes: number;
  /** How many there are. */
  readonly count: number;
  #next = 0;
  #window: { first: number; count: number; bytes: Promise<Uint8Array> } | null = null;

  /**
   * Looks at the length of the file, and at nothing else.
   *
   * @throws UserError if there is no such file, or it does not hold a whole number of records, at
   * least one
   */
  constructor(path: string, recordBytes: number) {
    const bytes = fileSize(path);
    if (bytes === 0) throw new UserError(`${path}: is empty`);
    if (bytes % recordBytes !== 0) {
      throw new UserError(
        `${path}: ${bytes} bytes are no whole number of records of ${recordBytes}; ` +
          `it is cut short, or another kind of file`,
      );
    }
    this.path = path;
    this.recordBytes = recordBytes;
    this.count = bytes / recordBytes;
  }

  /**
   * The bytes of a record, to look at and not to write on. One that follows the last one asked for
   * brings those behind it along; any other is read alone.
   *
   * @throws UserError naming the file if it cannot be read, or has become shorter
   */
  async read(index: number): Promise<Uint8Array> {
    let window = this.#window;
    if (window === null || index < window.first || index >= window.first + window.count) {
      const ahead = Math.max(1, Math.floor(WINDOW_BYTES / this.recordBytes));
      const count = index === this.#next ? Math.min(ahead, this.count - index) : 1;
      const position = index * this.recordBytes;
      const bytes = readRange(this.path, position, count * this.recordBytes);
      window = this.#window = { first: index, count, bytes };
    }
    this.#next = index + 1;
    const start = (index - window.first) * this.recordBytes;
    return (await window.bytes).subarray(start, start + this.recordBytes);
  }
}
