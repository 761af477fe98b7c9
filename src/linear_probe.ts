/**
 * Logistic regression on frozen features: what a representation tells by a weighted sum, label by label.
 */
import type { Embeddings, LabelledEmbeddings } from "./knn.ts";
import { minimize } from "./lbfgs.ts";

/** A logistic regression of each label on standardised features. */
export interface LinearProbe {
  /** Length of a feature vector. */
  readonly dimensions: number;
  /** Labels of an image. */
  readonly classes: number;
  /** Mean of each feature over the training rows. */
  readonly mean: Float64Array;
  /** What each centred feature is multiplied by: 1 / its standard deviation, 0 for a constant one. */
  readonly scale: Float64Array;
  /** Weights of the standardised features, [classes, dimensions]. */
  readonly weights: Float64Array;
  /** Log-odds at the mean features, [classes]. */
  readonly bias: Float64Array;
  /** The penalty that it was trained with. */
  readonly l2: number;
  /** Whether the training reached its tolerance. */
  readonly converged: boolean;
}

/** How {@linkcode fitLinearProbe} trains. */
export interface LinearProbeOptions {
  /** λ: the penalty on the weights of a label is λ/2 ‖w‖². */
  readonly l2: number;
  /** A probe of the same rows to start from; by default weights of 0. */
  readonly start?: LinearProbe;
  /** The largest component of the gradient at the end; default 1e-5. */
  readonly tolerance?: number;
}

/**
 * Minimises, for each label by itself, the mean of its cross-entropy over the training rows that know it,
 * plus λ/2 ‖w‖². The bias is not penalised. That is scikit-learn's LogisticRegression on
 * StandardScaler's features with C = 1 / (λ · rows that know the label). Runs on the CPU in float64,
 * all labels together over one pass of the features; the same bits every time.
 *
 * A label without a positive or without a negative row gets weights of 0 and predicts 0 or 1 for sure; one
 * that no row knows predicts NaN.
 *
 * @throws RangeError if sizes do not fit or a feature is not finite.
 */
export function fitLinearProbe(
  train: LabelledEmbeddings,
  { l2, start, tolerance = 1e-5 }: LinearProbeOptions,
): LinearProbe {
  const { dimensions, labels, classes } = train;
  const rows = countRows(train);
  if (labels.length !== rows * classes) {
    throw new RangeError(
      `fitLinearProbe: ${labels.length} labels for ${rows} rows of ${classes} classes`,
    );
  }
  const { mean, scale } = start ?? moments(train);
  const x = standardize(train, mean, scale);

  const positives = new Float64Array(classes);
  const negatives = new Float64Array(classes);
  labels.forEach((label, i) => {
    if (label === 1) positives[i % classes]!++;
    if (label === 0) negatives[i % classes]!++;
  });
  const prior = positives.map((count, label) => Math.log(count / negatives[label]!));
  const trained = [...prior.keys()].filter((label) => Number.isFinite(prior[label]));

  // One label after the other: its weights, then its bias.
  const width = dimensions + 1;
  const initial = new Float64Array(trained.length * width);
  trained.forEach((label, i) => {
    const from = label * dimensions;
    if (start) initial.set(start.weights.subarray(from, from + dimensions), i * width);
    initial[(i + 1) * width - 1] = start?.bias[label] ?? prior[label]!;
  });
  const slopes = new Float64Array(rows);
  const { x: solution, converged } = minimize(
    (place, gradient) => {
      let value = 0;
      trained.forEach((label, i) => {
        const part = place.subarray(i * width, (i + 1) * width);
        const partGradient = gradient.subarray(i * width, (i + 1) * width);
        const known = positives[label]! + negatives[label]!;
        const bias = part[dimensions]!;
        let biasSlope = 0;
        const logits = multiply(x, part.subarray(0, dimensions), rows);
        for (let row = 0; row < rows; row++) {
          const target = labels[row * classes + label]!;
          if (Number.isNaN(target)) {
            slopes[row] = 0;
            continue;
          }
          const logit = logits[row]! + bias;
          value += softplus(target === 1 ? -logit : logit) / known;
          slopes[row] = (sigmoid(logit) - target) / known;
          biasSlope += slopes[row]!;
        }
        multiplyTransposed(x, slopes, partGradient.subarray(0, dimensions));
        for (let j = 0; j < dimensions; j++) {
          value += l2 / 2 * part[j]! ** 2;
          partGradient[j]! += l2 * part[j]!;
        }
        partGradient[dimensions] = biasSlope;
      });
      return value;
    },
    initial,
    { tolerance },
  );

  const weights = new Float64Array(classes * dimensions);
  const bias = prior.slice();
  trained.forEach((label, i) => {
    const part = solution.subarray(i * width, (i + 1) * width);
    weights.set(part.subarray(0, dimensions), label * dimensions);
    bias[label] = part[dimensions]!;
  });
  return { dimensions, classes, mean, scale, weights, bias, l2, converged };
}

/** The penalties that {@linkcode chooseLinearProbe} tries by default, the strongest first. */
export const L2_GRID: readonly number[] = [1, 0.1, 0.01, 1e-3, 1e-4];

/**
 * Trains with one penalty after the other, each starting where the last one ended, until the mean
 * cross-entropy over the labels known of held-out rows rises, and returns the probe before that. All
 * labels share the penalty.
 *
 * @param grid penalties, the strongest first
 */
export function chooseLinearProbe(
  train: LabelledEmbeddings,
  heldOut: LabelledEmbeddings,
  grid: readonly number[] = L2_GRID,
): LinearProbe {
  let best: { readonly probe: LinearProbe; readonly loss: number } | undefined;
  for (const l2 of grid) {
    const probe = fitLinearProbe(train, { l2, ...(best && { start: best.probe }) });
    const loss = crossEntropy(predictLinear(probe, heldOut), heldOut.labels);
    if (best !== undefined && !(loss <= best.loss)) break;
    best = { probe, loss };
  }
  if (best === undefined) throw new RangeError("chooseLinearProbe: the grid is empty");
  return best.probe;
}

/**
 * The probabilities of every label.
 *
 * @returns [rows, classes], row-major
 * @throws RangeError if sizes do not fit or a feature is not finite.
 */
export function predictLinear(probe: LinearProbe, features: Embeddings): Float64Array {
  const { dimensions, classes, mean, scale, weights, bias } = probe;
  if (features.dimensions !== dimensions) {
    throw new RangeError(
      `predictLinear: rows have ${features.dimensions} dimensions, the probe ${dimensions}`,
    );
  }
  const rows = countRows(features);
  const x = standardize(features, mean, scale);
  const probabilities = new Float64Array(rows * classes);
  for (let label = 0; label < classes; label++) {
    const from = label * dimensions;
    multiply(x, weights.subarray(from, from + dimensions), rows).forEach((logit, row) => {
      probabilities[row * classes + label] = sigmoid(logit + bias[label]!);
    });
  }
  return probabilities;
}

/** Mean and inverse standard deviation of each feature. */
function moments({ values, dimensions }: Embeddings): {
  mean: Float64Array;
  scale: Float64Array;
} {
  const rows = values.length / dimensions;
  const mean = new Float64Array(dimensions);
  values.forEach((value, i) => mean[i % dimensions]! += value / rows);
  const variance = new Float64Array(dimensions);
  values.forEach((value, i) => variance[i % dimensions]! += (value - mean[i % dimensions]!) ** 2);
  // A constant feature has a variance of rounding errors only.
  const scale = variance.map((sum, j) => {
    const deviation = Math.sqrt(sum / rows);
    return deviation > 1e-7 * Math.abs(mean[j]!) ? 1 / deviation : 0;
  });
  return { mean, scale };
}

function standardize(
  { values, dimensions }: Embeddings,
  mean: Float64Array,
  scale: Float64Array,
): Float32Array {
  return values.map((value, i) => {
    if (!Number.isFinite(value)) {
      throw new RangeError(`linear probe: row ${Math.floor(i / dimensions)} is not finite`);
    }
    return (value - mean[i % dimensions]!) * scale[i % dimensions]!;
  });
}

/** x · w for x [rows, w.length]; four rows at a time, so that w is read once for them. */
function multiply(x: Float32Array, w: Float64Array, rows: number): Float64Array {
  const n = w.length;
  const y = new Float64Array(rows);
  let row = 0;
  for (; row + 4 <= rows; row += 4) {
    const [a, b, c, d] = [row * n, (row + 1) * n, (row + 2) * n, (row + 3) * n];
    let [s0, s1, s2, s3] = [0, 0, 0, 0];
    for (let j = 0; j < n; j++) {
      const weight = w[j]!;
      s0 += x[a + j]! * weight;
      s1 += x[b + j]! * weight;
      s2 += x[c + j]! * weight;
      s3 += x[d + j]! * weight;
    }
    [y[row], y[row + 1], y[row + 2], y[row + 3]] = [s0, s1, s2, s3];
  }
  for (; row < rows; row++) {
    for (let j = 0; j < n; j++) y[row]! += x[row * n + j]! * w[j]!;
  }
  return y;
}

/** y = xᵀ · r for x [r.length, y.length]; four rows at a time, so that y is written once for them. */
function multiplyTransposed(x: Float32Array, r: Float64Array, y: Float64Array): void {
  const [rows, n] = [r.length, y.length];
  y.fill(0);
  let row = 0;
  for (; row + 4 <= rows; row += 4) {
    const [a, b, c, d] = [row * n, (row + 1) * n, (row + 2) * n, (row + 3) * n];
    const [r0, r1, r2, r3] = [r[row]!, r[row + 1]!, r[row + 2]!, r[row + 3]!];
    for (let j = 0; j < n; j++) {
      y[j]! += r0 * x[a + j]! + r1 * x[b + j]! + r2 * x[c + j]! + r3 * x[d + j]!;
    }
  }
  for (; row < rows; row++) {
    for (let j = 0; j < n; j++) y[j]! += r[row]! * x[row * n + j]!;
  }
}

/** The mean cross-entropy over the known targets that have a probability. */
function crossEntropy(probabilities: Float64Array, targets: Float32Array): number {
  let [sum, known] = [0, 0];
  targets.forEach((target, i) => {
    const probability = probabilities[i]!;
    if (Number.isNaN(target) || Number.isNaN(probability)) return;
    sum -= Math.log(Math.max(target === 1 ? probability : 1 - probability, Number.MIN_VALUE));
    known++;
  });
  return sum / known;
}

/** log(1 + eˣ) */
function softplus(x: number): number {
  return Math.max(x, 0) + Math.log1p(Math.exp(-Math.abs(x)));
}

function sigmoid(x: number): number {
  return 1 / (1 + Math.exp(-x));
}

function countRows({ values, dimensions }: Embeddings): number {
  const rows = values.length / dimensions;
  if (!Number.isInteger(rows)) {
    throw new RangeError(`linear probe: ${values.length} values are no rows of ${dimensions}`);
  }
  return rows;
}
