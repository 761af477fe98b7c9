/**
 * The operations as their definitions read, in float64 loops on the CPU: slow, short, and compared with
 * PyTorch's values in `tests/naive_test.ts`. The tests of the operations measure against these on shapes
 * that no fixture holds.
 */

/** Numbers in row-major order with their shape. */
export interface Values {
  readonly shape: readonly number[];
  readonly data: ArrayLike<number>;
}

/** What the functions of this file return. */
export interface Result extends Values {
  readonly data: Float64Array<ArrayBuffer>;
}

/** The window of a convolution or pooling, the same in both directions. */
export interface Window {
  readonly stride: number;
  readonly padding: number;
}

function size(shape: readonly number[]): number {
  return shape.reduce((product, length) => product * length, 1);
}

/** Zeros of a shape. */
export function zeros(shape: readonly number[]): Result {
  return { shape, data: new Float64Array(size(shape)) };
}

function outputLength(length: number, kernel: number, { stride, padding }: Window): number {
  return Math.floor((length + 2 * padding - kernel) / stride) + 1;
}

/**
 * Calls `visit(pixel, tap, output)` for every tap of a kh×kw window that lies inside the image, over
 * all images; the three are indices into [n,h,w], [kh,kw] and [n,oh,ow].
 */
function eachTap(
  [n, h, w]: readonly [number, number, number],
  [kh, kw]: readonly [number, number],
  window: Window,
  visit: (pixel: number, tap: number, output: number) => void,
): void {
  const oh = outputLength(h, kh, window);
  const ow = outputLength(w, kw, window);
  for (let image = 0; image < n; image++) {
    for (let oy = 0; oy < oh; oy++) {
      for (let ox = 0; ox < ow; ox++) {
        for (let ky = 0; ky < kh; ky++) {
          for (let kx = 0; kx < kw; kx++) {
            const y = oy * window.stride + ky - window.padding;
            const x = ox * window.stride + kx - window.padding;
            if (y < 0 || y >= h || x < 0 || x >= w) continue;
            visit((image * h + y) * w + x, ky * kw + kx, (image * oh + oy) * ow + ox);
          }
        }
      }
    }
  }
}

/** Calls `visit(x, w, y)` with the indices of every product x·w that a convolution adds to y. */
function eachProduct(
  xShape: readonly number[],
  wShape: readonly number[],
  window: Window,
  visit: (x: number, w: number, y: number) => void,
): void {
  const [n, h, w] = xShape as [number, number, number, number];
  const [kh, kw, cin, cout] = wShape as [number, number, number, number];
  eachTap([n, h, w], [kh, kw], window, (pixel, tap, output) => {
    for (let i = 0; i < cin; i++) {
      for (let o = 0; o < cout; o++) {
        visit(pixel * cin + i, (tap * cin + i) * cout + o, output * cout + o);
      }
    }
  });
}

/** The convolution y [n,oh,ow,out] of x [n,h,w,in] with w [kh,kw,in,out], plus b [out]. */
export function conv2d(x: Values, w: Values, window: Window, b?: Values): Result {
  const [n, h, width] = x.shape as [number, number, number, number];
  const [kh, kw, , cout] = w.shape as [number, number, number, number];
  const y = zeros([n, outputLength(h, kh, window), outputLength(width, kw, window), cout]);
  if (b) y.data.forEach((_, i) => y.data[i] = b.data[i % cout]!);
  eachProduct(x.shape, w.shape, window, (xi, wi, yi) => {
    y.data[yi]! += x.data[xi]! * w.data[wi]!;
  });
  return y;
}

/** The gradient of a convolution with respect to its input of shape `xShape`. */
export function conv2dInputGradient(
  dy: Values,
  w: Values,
  xShape: readonly number[],
  window: Window,
): Result {
  const dx = zeros(xShape);
  eachProduct(xShape, w.shape, window, (xi, wi, yi) => {
    dx.data[xi]! += dy.data[yi]! * w.data[wi]!;
  });
  return dx;
}

/** The gradient of a convolution with respect to its weight of shape `wShape`. */
export function conv2dWeightGradient(
  dy: Values,
  x: Values,
  wShape: readonly number[],
  window: Window,
): Result {
  const dw = zeros(wShape);
  eachProduct(x.shape, wShape, window, (xi, wi, yi) => {
    dw.data[wi]! += dy.data[yi]! * x.data[xi]!;
  });
  return dw;
}

/** The sum over all axes but the last: the gradient of a bias. */
export function sumRows(x: Values): Result {
  const sum = zeros([x.shape.at(-1)!]);
  for (let i = 0; i < x.data.length; i++) sum.data[i % sum.data.length]! += x.data[i]!;
  return sum;
}

/** a·b over the last two axes, each read transposed where asked; the leading axes agree. */
export function matmul(
  a: Values,
  b: Values,
  { transposeA = false, transposeB = false }: { transposeA?: boolean; transposeB?: boolean } = {},
): Result {
  const [rowsA, columnsA] = a.shape.slice(-2) as [number, number];
  const [rowsB, columnsB] = b.shape.slice(-2) as [number, number];
  const [m, k] = transposeA ? [columnsA, rowsA] : [rowsA, columnsA];
  const n = transposeB ? rowsB : columnsB;
  const y = zeros([...a.shape.slice(0, -2), m, n]);
  for (let i = 0; i < y.data.length; i++) {
    const batch = Math.floor(i / (m * n));
    const row = Math.floor(i / n) % m;
    const column = i % n;
    for (let j = 0; j < k; j++) {
      const left = batch * m * k + (transposeA ? j * m + row : row * k + j);
      const right = batch * k * n + (transposeB ? column * k + j : j * n + column);
      y.data[i]! += a.data[left]! * b.data[right]!;
    }
  }
  return y;
}

/**
 * Batch normalisation of x [...,c] in training: y = gamma·(x − mean)/√(variance + epsilon) + beta, with
 * the mean and the biased variance over all axes but the last.
 */
export function batchNorm(
  x: Values,
  gamma: Values,
  beta: Values,
  epsilon = 1e-5,
): { y: Result; mean: Float64Array; variance: Float64Array } {
  const c = gamma.data.length;
  const count = x.data.length / c;
  const mean = new Float64Array(c);
  const variance = new Float64Array(c);
  for (let i = 0; i < x.data.length; i++) mean[i % c]! += x.data[i]! / count;
  for (let i = 0; i < x.data.length; i++) {
    variance[i % c]! += (x.data[i]! - mean[i % c]!) ** 2 / count;
  }
  const y = zeros(x.shape);
  for (let i = 0; i < x.data.length; i++) {
    const normal = (x.data[i]! - mean[i % c]!) / Math.sqrt(variance[i % c]! + epsilon);
    y.data[i] = gamma.data[i % c]! * normal + beta.data[i % c]!;
  }
  return { y, mean, variance };
}

/** The gradients of {@linkcode batchNorm}: dx = gamma/σ·(dy − mean(dy) − x̂·mean(dy·x̂)). */
export function batchNormGradients(
  x: Values,
  gamma: Values,
  dy: Values,
  epsilon = 1e-5,
): { dx: Result; dgamma: Result; dbeta: Result } {
  const c = gamma.data.length;
  const count = x.data.length / c;
  const { mean, variance } = batchNorm(x, gamma, zeros([c]), epsilon);
  const deviation = variance.map((v) => Math.sqrt(v + epsilon));
  const normal = zeros(x.shape);
  for (let i = 0; i < x.data.length; i++) {
    normal.data[i] = (x.data[i]! - mean[i % c]!) / deviation[i % c]!;
  }
  const dbeta = sumRows(dy);
  const dgamma = sumRows({ shape: x.shape, data: normal.data.map((v, i) => v * dy.data[i]!) });
  const dx = zeros(x.shape);
  for (let i = 0; i < x.data.length; i++) {
    const own = dy.data[i]! - dbeta.data[i % c]! / count;
    const along = normal.data[i]! * dgamma.data[i % c]! / count;
    dx.data[i] = gamma.data[i % c]! / deviation[i % c]! * (own - along);
  }
  return { dx, dgamma, dbeta };
}

/**
 * Max pooling of x [n,h,w,c]; `from` is the index in x of each maximum, the first in row-major order
 * where several are equal.
 */
export function maxPool(
  x: Values,
  kernel: number,
  window: Window,
): { y: Result; from: Int32Array } {
  const [n, h, w, c] = x.shape as [number, number, number, number];
  const y = zeros([n, outputLength(h, kernel, window), outputLength(w, kernel, window), c]);
  const from = new Int32Array(y.data.length);
  y.data.fill(-Infinity);
  eachTap([n, h, w], [kernel, kernel], window, (pixel, _tap, output) => {
    for (let i = 0; i < c; i++) {
      if (x.data[pixel * c + i]! <= y.data[output * c + i]!) continue;
      y.data[output * c + i] = x.data[pixel * c + i]!;
      from[output * c + i] = pixel * c + i;
    }
  });
  return { y, from };
}

/** The gradient of {@linkcode maxPool}: each dy goes to where the maximum came from. */
export function maxPoolGradient(
  dy: Values,
  from: Int32Array,
  xShape: readonly number[],
): Result {
  const dx = zeros(xShape);
  from.forEach((index, i) => dx.data[index]! += dy.data[i]!);
  return dx;
}

/** Average pooling of x [n,h,w,c]; padding counts as zeros. */
export function averagePool(x: Values, kernel: number, window: Window): Result {
  const [n, h, w, c] = x.shape as [number, number, number, number];
  const y = zeros([n, outputLength(h, kernel, window), outputLength(w, kernel, window), c]);
  eachTap([n, h, w], [kernel, kernel], window, (pixel, _tap, output) => {
    for (let i = 0; i < c; i++) {
      y.data[output * c + i]! += x.data[pixel * c + i]! / (kernel * kernel);
    }
  });
  return y;
}

/** The gradient of {@linkcode averagePool}. */
export function averagePoolGradient(
  dy: Values,
  kernel: number,
  xShape: readonly number[],
  window: Window,
): Result {
  const [n, h, w, c] = xShape as [number, number, number, number];
  const dx = zeros(xShape);
  eachTap([n, h, w], [kernel, kernel], window, (pixel, _tap, output) => {
    for (let i = 0; i < c; i++) {
      dx.data[pixel * c + i]! += dy.data[output * c + i]! / (kernel * kernel);
    }
  });
  return dx;
}

/** softmax over the last axis. */
export function softmax(x: Values): Result {
  const c = x.shape.at(-1)!;
  const y = zeros(x.shape);
  for (let row = 0; row < x.data.length; row += c) {
    let maximum = -Infinity;
    let sum = 0;
    for (let i = row; i < row + c; i++) maximum = Math.max(maximum, x.data[i]!);
    for (let i = row; i < row + c; i++) sum += y.data[i] = Math.exp(x.data[i]! - maximum);
    for (let i = row; i < row + c; i++) y.data[i]! /= sum;
  }
  return y;
}

/** The gradient of {@linkcode softmax} from its value: dx = y·(dy − Σ y·dy). */
export function softmaxGradient(y: Values, dy: Values): Result {
  const c = y.shape.at(-1)!;
  const dx = zeros(y.shape);
  for (let row = 0; row < y.data.length; row += c) {
    let sum = 0;
    for (let i = row; i < row + c; i++) sum += y.data[i]! * dy.data[i]!;
    for (let i = row; i < row + c; i++) dx.data[i] = y.data[i]! * (dy.data[i]! - sum);
  }
  return dx;
}

/**
 * NT-Xent of unnormalised h [2N,d] and its gradient (Chen et al. 2020): three loops over views i, views
 * k ≠ i and dimensions. View i pairs with view i + N; the loss is the mean over all 2N.
 */
export function ntXent(h: Values, temperature: number): { loss: number; dh: Result } {
  const [views, d] = h.shape as [number, number];
  const norms = new Float64Array(views);
  for (let i = 0; i < views * d; i++) norms[Math.floor(i / d)]! += h.data[i]! ** 2;
  norms.forEach((sum, i) => norms[i] = Math.sqrt(sum));
  const z = Float64Array.from(h.data, (value, i) => value / norms[Math.floor(i / d)]!);
  const dot = (a: ArrayLike<number>, i: number, b: ArrayLike<number>, k: number) => {
    let sum = 0;
    for (let j = 0; j < d; j++) sum += a[i * d + j]! * b[k * d + j]!;
    return sum;
  };

  let loss = 0;
  const dz = new Float64Array(views * d);
  for (let i = 0; i < views; i++) {
    const partner = (i + views / 2) % views;
    const similarity = Array.from({ length: views }, (_, k) => dot(z, i, z, k) / temperature);
    const others = similarity.filter((_, k) => k !== i);
    const maximum = Math.max(...others);
    const sum = others.reduce((total, s) => total + Math.exp(s - maximum), 0);
    loss += (maximum + Math.log(sum) - similarity[partner]!) / views;
    for (let k = 0; k < views; k++) {
      if (k === i) continue;
      const probability = Math.exp(similarity[k]! - maximum) / sum;
      const slope = (probability - (k === partner ? 1 : 0)) / (views * temperature);
      for (let j = 0; j < d; j++) {
        dz[i * d + j]! += slope * z[k * d + j]!;
        dz[k * d + j]! += slope * z[i * d + j]!;
      }
    }
  }

  const dh = zeros(h.shape);
  for (let i = 0; i < views; i++) {
    const radial = dot(z, i, dz, i);
    for (let j = i * d; j < (i + 1) * d; j++) dh.data[j] = (dz[j]! - z[j]! * radial) / norms[i]!;
  }
  return { loss, dh };
}
