/** Products of matrices. */
import { gradFor, record } from "../autograd.ts";
import { sameShape, type Shape, sizeOf, type Tensor } from "../tensor.ts";
import { expectType } from "./check.ts";
import { type Batch, imageProduct, rowsOf, weightsProduct } from "./gemm.ts";
import { gradientOf, reduceInto } from "./reduce.ts";

/** Which operands are transposed in their last two axes. */
export interface MatmulOptions {
  /** `a` is [..., k, m] (default false). */
  readonly transposeA?: boolean;
  /** `b` is [..., n, k] (default false). */
  readonly transposeB?: boolean;
}

/** Sizes of a product [m, k] × [k, n], and where its batches lie. */
interface Product {
  readonly m: number;
  readonly n: number;
  readonly k: number;
  readonly transposeA: boolean;
  readonly transposeB: boolean;
  readonly batch: Batch;
}

/**
 * The matrix product a · b of [m, k] and [k, n], or of equally many such pairs: [..., m, k] ×
 * [..., k, n]. A two-dimensional `b` is used for every matrix of `a`.
 *
 * @returns [..., m, n]
 * @throws {RangeError} if the shapes do not fit.
 */
export function matmul(a: Tensor, b: Tensor, options: MatmulOptions = {}): Tensor {
  const { transposeA = false, transposeB = false } = options;
  const { shape, ...sizes } = resultOf(a, b, transposeA, transposeB);
  const y = a.gpu.empty(shape);
  multiply(y, a, b, sizes);
  return record("matmul", [a, b], y, [a, b], (dy, needs) => [
    needs[0] ? gradientA(dy, a, b, sizes) : null,
    needs[1] ? gradientB(dy, a, b, sizes) : null,
  ]);
}

/**
 * A linear layer, x · weight + bias.
 *
 * @param x [n, in]
 * @param weight [in, out]
 * @param bias [out]
 * @returns [n, out]
 * @throws {RangeError} if the shapes do not fit.
 */
export function linear(x: Tensor, weight: Tensor, bias?: Tensor): Tensor {
  expectType("linear", "f32", bias === undefined ? { x, weight } : { x, weight, bias });
  const [n, inner] = x.shape as readonly [number, number];
  const columns = weight.shape[1]!;
  const shapes = `(x [${x.shape}], weight [${weight.shape}])`;
  if (x.shape.length !== 2 || weight.shape.length !== 2 || inner !== weight.shape[0]) {
    throw new RangeError(`linear: x is [n,in] and weight [in,out] ${shapes}`);
  }
  if (bias !== undefined && !sameShape(bias.shape, [columns])) {
    throw new RangeError(`linear: bias is [${bias.shape}], not [${columns}] ${shapes}`);
  }
  const y = x.gpu.empty([n, columns]);
  imageProduct(y, x, weight, rowsOf(n), inner, columns, { bias });

  const inputs = bias === undefined ? [x, weight] : [x, weight, bias];
  return record("linear", inputs, y, [x, weight], (dy, needs) => {
    const gradients: (Tensor | null)[] = [null, null, null];
    if (needs[0]) {
      const dx = gradients[0] = gradFor(x);
      imageProduct(dx, dy, weight, rowsOf(n), columns, inner, { transposed: true });
    }
    if (needs[1]) {
      weightsProduct(gradients[1] = gradFor(weight), x, dy, rowsOf(n), inner, columns);
    }
    if (bias !== undefined && needs[2]) gradients[2] = gradientOf(dy, bias);
    return gradients.slice(0, inputs.length);
  });
}

function multiply(y: Tensor, a: Tensor, b: Tensor, sizes: Product): void {
  const { m, n, k, transposeA, transposeB: transposed, batch } = sizes;
  if (transposeA) weightsProduct(y, a, b, rowsOf(k), m, n, { transposed, batch });
  else imageProduct(y, a, b, rowsOf(m), k, n, { transposed, batch });
}

/** dy · bᵀ, or its transpose where `a` is transposed. */
function gradientA(dy: Tensor, a: Tensor, b: Tensor, sizes: Product): Tensor {
  const { m, n, k, transposeA, transposeB, batch } = sizes;
  const { count } = batch;
  const da = gradFor(a);
  if (transposeA) {
    multiply(da, b, dy, {
      m: k,
      n: m,
      k: n,
      transposeA: transposeB,
      transposeB: true,
      batch: { count, a: batch.b, b: m * n },
    });
  } else {
    multiply(da, dy, b, {
      m,
      n: k,
      k: n,
      transposeA: false,
      transposeB: !transposeB,
      batch: { count, a: m * n, b: batch.b },
    });
  }
  return da;
}

/** aᵀ · dy, or its transpose where `b` is transposed, summed over the batch where b is not batched. */
function gradientB(dy: Tensor, a: Tensor, b: Tensor, sizes: Product): Tensor {
  const { m, n, k, transposeA, transposeB, batch } = sizes;
  const { count } = batch;
  const db = gradFor(b);
  const summed = count > 1 && batch.b === 0;
  const each = summed ? b.gpu.empty([count, b.size]) : db;
  if (transposeB) {
    multiply(each, dy, a, {
      m: n,
      n: k,
      k: m,
      transposeA: true,
      transposeB: transposeA,
      batch: { count, a: m * n, b: batch.a },
    });
  } else {
    multiply(each, a, dy, {
      m: k,
      n,
      k: m,
      transposeA: !transposeA,
      transposeB: false,
      batch: { count, a: batch.a, b: m * n },
    });
  }
  if (summed) reduceInto("sum", each, [1, b.size], 1, db);
  return db;
}

function resultOf(
  a: Tensor,
  b: Tensor,
  transposeA: boolean,
  transposeB: boolean,
): Product & { shape: Shape } {
  expectType("matmul", "f32", { a, b });
  const shapes = `(a [${a.shape}]${transposeA ? " transposed" : ""}, b [${b.shape}]${
    transposeB ? " transposed" : ""
  })`;
  if (a.shape.length < 2 || b.shape.length < 2) {
    throw new RangeError(`matmul: operands have at least two axes ${shapes}`);
  }
  const batchShape = a.shape.slice(0, -2);
  const isShared = b.shape.length === 2;
  if (!isShared && !sameShape(batchShape, b.shape.slice(0, -2))) {
    throw new RangeError(`matmul: the batches differ ${shapes}`);
  }
  const [m, k] = lastTwo(a.shape, transposeA);
  const [kOfB, n] = lastTwo(b.shape, transposeB);
  if (k !== kOfB) throw new RangeError(`matmul: inner lengths ${k} and ${kOfB} differ ${shapes}`);
  if (a.size === 0 || b.size === 0) throw new RangeError(`matmul: an operand is empty ${shapes}`);
  const shape = [...batchShape, m, n];
  const count = sizeOf(batchShape);
  // The rows of all matrices are the rows of one, unless they lie across it.
  if (isShared && !transposeA) {
    const batch = { count: 1, a: 0, b: 0 };
    return { shape, m: m * count, n, k, transposeA, transposeB, batch };
  }
  const batch = { count, a: m * k, b: isShared ? 0 : k * n };
  return { shape, m, n, k, transposeA, transposeB, batch };
}

function lastTwo(shape: Shape, transposed: boolean): [number, number] {
  const [rows, columns] = shape.slice(-2) as [number, number];
  return transposed ? [columns, rows] : [rows, columns];
}
