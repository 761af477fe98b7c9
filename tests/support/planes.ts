/** Images for archives, no two alike, that a turned, mirrored or channel-swapped reading changes. */

/** Value of channel `c` at (x, y) of image `i`. */
export function valueAt(i: number, y: number, x: number, c: number): number {
  return (97 * i + 5 * y + 3 * x + 71 * c + ((x * y) >> 3)) & 255;
}

/** Image `i` as it is wanted: u8 [side, side, channels]. */
export function pixelsOf(i: number, side: number, channels: 1 | 3): Uint8Array {
  return Uint8Array.from({ length: side * side * channels }, (_, at) => {
    const pixel = Math.floor(at / channels);
    return valueAt(i, Math.floor(pixel / side), pixel % side, at % channels);
  });
}

/** Image `i` as planes of red, green and blue, one row or one column after the other. */
export function planesOf(i: number, side: number, order: "rows" | "columns"): Uint8Array {
  return Uint8Array.from({ length: 3 * side * side }, (_, at) => {
    const place = at % (side * side);
    const [outer, inner] = [Math.floor(place / side), place % side];
    const [y, x] = order === "rows" ? [outer, inner] : [inner, outer];
    return valueAt(i, y, x, Math.floor(at / (side * side)));
  });
}

/** The arrays one after the other. */
export function concat(parts: readonly Uint8Array[]): Uint8Array {
  const whole = new Uint8Array(parts.reduce((n, part) => n + part.length, 0));
  let at = 0;
  for (const part of parts) {
    whole.set(part, at);
    at += part.length;
  }
  return whole;
}
