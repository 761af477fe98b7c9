/**
 * Scores images by the labels of their nearest neighbours among embeddings: how good a representation is
 * without training anything on it (Wu et al. 2018, "Unsupervised Feature Learning via Non-Parametric
 * Instance Discrimination", section 3.4).
 */

/** Embeddings of some images; they need not be normalised. */
export interface Embeddings {
  /** [n, dimensions] row-major. */
  readonly values: Float32Array;
  /** Length of an embedding. */
  readonly dimensions: number;
}

/** Embeddings with what is known about their images. */
export interface LabelledEmbeddings extends Embeddings {
  /** [n, classes] row-major: 1, 0 or NaN where a label is missing. */
  readonly labels: Float32Array;
  /** Labels of an image. */
  readonly classes: number;
}

/** How neighbours vote. */
export interface KnnOptions {
  /** Number of neighbours, default 20; 200 is usual for large sets. */
  readonly k?: number;
  /** A neighbour at cosine c has weight exp(c / temperature); default 0.1. */
  readonly temperature?: number;
}

/**
 * Predicts every label of every query by a weighted vote of its k nearest training rows in cosine similarity
 * (all of them if there are fewer than k; of equally near ones the first). A neighbour whose label is
 * missing abstains; where all do, the score is the label's share among the training rows, which is NaN
 * where no training row knows it. Exact: every pair is compared.
 *
 * With one-hot labels the largest score of a row is the vote for its class.
 *
 * @returns scores in [0, 1], [queries, classes] row-major.
 * @throws RangeError if sizes do not fit or an embedding is not finite.
 */
export function knn(
  train: LabelledEmbeddings,
  queries: Embeddings,
  { k = 20, temperature = 0.1 }: KnnOptions = {},
): Float32Array {
  const { labels, classes } = train;
  const rows = countRows("train", train);
  if (labels.length !== rows * classes) {
    throw new RangeError(`knn: ${labels.length} labels for ${rows} rows of ${classes} classes`);
  }
  if (queries.dimensions !== train.dimensions) {
    throw new RangeError(
      `knn: queries have ${queries.dimensions} dimensions, training rows ${train.dimensions}`,
    );
  }
  const prior = shares(labels, classes);
  const scores = new Float32Array(countRows("queries", queries) * classes);
  forEachNearest(train, queries, Math.min(k, rows), (query, nearest, cosines) => {
    // Relative to the nearest one: the same shares, and no overflow at a small temperature.
    const weights = cosines.map((cosine) => Math.exp((cosine - cosines[0]!) / temperature));
    for (let c = 0; c < classes; c++) {
      let [votes, total] = [0, 0];
      for (let i = 0; i < nearest.length; i++) {
        const label = labels[nearest[i]! * classes + c]!;
        if (Number.isNaN(label)) continue;
        votes += weights[i]! * label;
        total += weights[i]!;
      }
      scores[query * classes + c] = total > 0 ? votes / total : prior[c]!;
    }
  });
  return scores;
}

/** Queries whose similarities are computed together, so that a training row is read once for all of them. */
const BLOCK = 4;

/** Calls `visit` for each query with its k nearest rows, nearest first, and their cosines. */
function forEachNearest(
  train: Embeddings,
  queries: Embeddings,
  k: number,
  visit: (query: number, nearest: Uint32Array, cosines: Float64Array) => void,
): void {
  const { values, dimensions } = train;
  const scale = inverseNorms("train", train);
  const queryScale = inverseNorms("queries", queries);
  const block = new Float64Array(BLOCK * dimensions);
  const cosines = Array.from({ length: BLOCK }, () => new Float64Array(scale.length));
  const [c0, c1, c2, c3] = cosines as [Float64Array, Float64Array, Float64Array, Float64Array];

  for (let first = 0; first < queryScale.length; first += BLOCK) {
    const present = Math.min(BLOCK, queryScale.length - first);
    for (let i = 0; i < present * dimensions; i++) {
      const query = first + Math.floor(i / dimensions);
      block[i] = queries.values[first * dimensions + i]! * queryScale[query]!;
    }
    for (let row = 0; row < scale.length; row++) {
      let [s0, s1, s2, s3] = [0, 0, 0, 0];
      const begin = row * dimensions;
      for (let i = 0; i < dimensions; i++) {
        const value = values[begin + i]!;
        s0 += value * block[i]!;
        s1 += value * block[i + dimensions]!;
        s2 += value * block[i + 2 * dimensions]!;
        s3 += value * block[i + 3 * dimensions]!;
      }
      c0[row] = s0 * scale[row]!;
      c1[row] = s1 * scale[row]!;
      c2[row] = s2 * scale[row]!;
      c3[row] = s3 * scale[row]!;
    }
    for (let i = 0; i < present; i++) {
      const nearest = largest(cosines[i]!, k);
      visit(first + i, nearest, Float64Array.from(nearest, (row) => cosines[i]![row]!));
    }
  }
}

/** The places of the k largest values, largest first; of equal ones the first. */
function largest(values: Float64Array, k: number): Uint32Array {
  const places = new Uint32Array(k);
  let size = 0;
  for (let i = 0; i < values.length; i++) {
    const value = values[i]!;
    if (size === k && !(value > values[places[k - 1]!]!)) continue;
    let at = size < k ? size++ : k - 1;
    for (; at > 0 && value > values[places[at - 1]!]!; at--) places[at] = places[at - 1]!;
    places[at] = i;
  }
  return places;
}

/** 1 / ‖row‖ for each row; 0 for a row of zeros, which is then orthogonal to everything. */
function inverseNorms(name: string, embeddings: Embeddings): Float64Array {
  const { values, dimensions } = embeddings;
  return Float64Array.from({ length: countRows(name, embeddings) }, (_, row) => {
    let squares = 0;
    for (let i = row * dimensions; i < (row + 1) * dimensions; i++) squares += values[i]! ** 2;
    if (!Number.isFinite(squares)) {
      throw new RangeError(`knn: embedding ${row} of ${name} is not finite`);
    }
    return squares > 0 ? 1 / Math.sqrt(squares) : 0;
  });
}

/** The mean of each label over the rows that know it. */
function shares(labels: Float32Array, classes: number): Float64Array {
  const positive = new Float64Array(classes);
  const known = new Float64Array(classes);
  for (let i = 0; i < labels.length; i++) {
    if (Number.isNaN(labels[i])) continue;
    positive[i % classes]! += labels[i]!;
    known[i % classes]!++;
  }
  return positive.map((count, c) => count / known[c]!);
}

function countRows(name: string, { values, dimensions }: Embeddings): number {
  const rows = values.length / dimensions;
  if (!Number.isInteger(rows)) {
    throw new RangeError(`knn: ${values.length} values of ${name} are no rows of ${dimensions}`);
  }
  return rows;
}
