/** Principal components and whitening, in f64 on the CPU. */

/** What {@linkcode whiten} gives. */
export interface Whitened {
  /** [n, dimensions], row-major: every column has mean 0 and variance 1, and is uncorrelated to the others. */
  readonly values: Float32Array<ArrayBuffer>;
  /** Components kept. */
  readonly dimensions: number;
}

/** Components with less than this part of the largest variance are rounding errors of f32. */
const smallestVariance = 1e-7;

/**
 * Whitens rows by their principal components: y = (x − mean) · v_j / √λ_j for the largest eigenvalues λ_j of
 * the covariance (divisor n − 1).
 *
 * @param values [n, d], row-major
 * @param options.dimensions at most so many components; there are less where the rows span less
 */
export function whiten(
  values: Float32Array,
  d: number,
  { dimensions }: { dimensions: number },
): Whitened {
  const n = values.length / d;
  if (!Number.isInteger(n) || n === 0) {
    throw new RangeError(`whiten: ${values.length} values are no rows of ${d}`);
  }
  const centred = Float64Array.from(values);
  for (let i = 0; i < d; i++) {
    let mean = 0;
    for (let row = 0; row < n; row++) mean += values[row * d + i]! / n;
    for (let row = 0; row < n; row++) centred[row * d + i]! -= mean;
  }
  const { values: variances, vectors } = symmetricEigen(covariance(centred, n, d), d);
  const least = smallestVariance * variances[0]!;
  const spanned = variances.findIndex((variance) => !(variance > least));
  const kept = Math.min(dimensions, spanned < 0 ? d : spanned);
  const whitened = new Float32Array(n * kept);
  for (let row = 0; row < n; row++) {
    for (let j = 0; j < kept; j++) {
      let sum = 0;
      for (let i = 0; i < d; i++) sum += centred[row * d + i]! * vectors[j * d + i]!;
      whitened[row * kept + j] = sum / Math.sqrt(variances[j]!);
    }
  }
  return { values: whitened, dimensions: kept };
}

function covariance(centred: Float64Array, n: number, d: number): Float64Array {
  const matrix = new Float64Array(d * d);
  for (let row = 0; row < n; row++) {
    const begin = row * d;
    for (let i = 0; i < d; i++) {
      const value = centred[begin + i]! / Math.max(n - 1, 1);
      for (let j = 0; j <= i; j++) matrix[i * d + j]! += value * centred[begin + j]!;
    }
  }
  for (let i = 0; i < d; i++) for (let j = 0; j < i; j++) matrix[j * d + i] = matrix[i * d + j]!;
  return matrix;
}

/**
 * Eigenvalues of a symmetric matrix, largest first, and its orthonormal eigenvectors: Householder's
 * tridiagonal form, then implicit QR steps with Wilkinson's shift (Golub and Van Loan, Matrix Computations,
 * 8.3). An eigenvector's largest element is positive.
 *
 * @param matrix [d, d]
 * @returns values [d], vectors [d, d], a row each
 */
export function symmetricEigen(
  matrix: Float64Array,
  d: number,
): { values: Float64Array; vectors: Float64Array } {
  const a = matrix.slice();
  // The matrix is basisᵀ · tridiagonal · basis at any time.
  const basis = new Float64Array(d * d);
  for (let i = 0; i < d; i++) basis[i * d + i] = 1;
  for (let k = 0; k < d - 2; k++) reflect(a, basis, d, k);
  const diagonal = Float64Array.from({ length: d }, (_, i) => a[i * d + i]!);
  const beside = Float64Array.from({ length: Math.max(d - 1, 0) }, (_, i) => a[(i + 1) * d + i]!);
  const isSmall = (i: number) =>
    Math.abs(beside[i]!) <=
      Number.EPSILON * (Math.abs(diagonal[i]!) + Math.abs(diagonal[i + 1]!));
  for (let last = d - 1; last > 0; last--) {
    for (let step = 0; !isSmall(last - 1); step++) {
      if (step === 100) throw new RangeError("symmetricEigen: the matrix is not finite");
      let first = last - 1;
      while (first > 0 && !isSmall(first - 1)) first--;
      chase(diagonal, beside, basis, d, first, last);
    }
  }
  const byValue = [...diagonal.keys()].sort((i, j) => diagonal[j]! - diagonal[i]!);
  const vectors = new Float64Array(d * d);
  byValue.forEach((from, to) => {
    const row = basis.subarray(from * d, (from + 1) * d);
    const largest = row.reduce((most, v) => Math.abs(v) > Math.abs(most) ? v : most, 0);
    vectors.set(largest < 0 ? row.map((v) => -v) : row, to * d);
  });
  return { values: Float64Array.from(byValue, (i) => diagonal[i]!), vectors };
}

/** Clears column k below the subdiagonal by a reflection H: a ← H a H, basis ← H basis. */
function reflect(a: Float64Array, basis: Float64Array, d: number, k: number): void {
  const v = new Float64Array(d);
  for (let i = k + 1; i < d; i++) v[i] = a[i * d + k]!;
  const length = Math.hypot(...v);
  if (length === 0) return;
  v[k + 1]! += v[k + 1]! < 0 ? -length : length;
  const norm = Math.hypot(...v);
  for (let i = k + 1; i < d; i++) v[i]! /= norm;

  const w = new Float64Array(d);
  let along = 0;
  for (let i = k; i < d; i++) {
    let sum = 0;
    for (let j = k + 1; j < d; j++) sum += a[i * d + j]! * v[j]!;
    w[i] = sum;
    along += sum * v[i]!;
  }
  for (let i = k; i < d; i++) w[i]! -= along * v[i]!;
  for (let i = k; i < d; i++) {
    for (let j = k; j < d; j++) a[i * d + j]! -= 2 * (v[i]! * w[j]! + w[i]! * v[j]!);
  }

  const product = new Float64Array(d);
  for (let i = k + 1; i < d; i++) {
    for (let j = 0; j < d; j++) product[j]! += v[i]! * basis[i * d + j]!;
  }
  for (let i = k + 1; i < d; i++) {
    for (let j = 0; j < d; j++) basis[i * d + j]! -= 2 * v[i]! * product[j]!;
  }
}

/** One QR step on the rows first … last: the rotation of the shift, then those that restore the form. */
function chase(
  diagonal: Float64Array,
  beside: Float64Array,
  basis: Float64Array,
  d: number,
  first: number,
  last: number,
): void {
  const corner = beside[last - 1]!;
  const half = (diagonal[last - 1]! - diagonal[last]!) / 2;
  const root = Math.hypot(half, corner);
  const shift = diagonal[last]! - corner * corner / (half < 0 ? half - root : half + root);
  let x = diagonal[first]! - shift;
  let z = beside[first]!;
  for (let k = first; k < last; k++) {
    const r = Math.hypot(x, z);
    const [c, s] = r === 0 ? [1, 0] : [x / r, z / r];
    const [p, q, b] = [diagonal[k]!, diagonal[k + 1]!, beside[k]!];
    if (k > first) beside[k - 1] = r;
    diagonal[k] = c * c * p + 2 * c * s * b + s * s * q;
    diagonal[k + 1] = s * s * p - 2 * c * s * b + c * c * q;
    beside[k] = c * s * (q - p) + (c * c - s * s) * b;
    if (k < last - 1) {
      x = beside[k]!;
      z = s * beside[k + 1]!;
      beside[k + 1]! *= c;
    }
    for (let j = 0; j < d; j++) {
      const upper = basis[k * d + j]!;
      const lower = basis[(k + 1) * d + j]!;
      basis[k * d + j] = c * upper + s * lower;
      basis[(k + 1) * d + j] = c * lower - s * upper;
    }
  }
}
