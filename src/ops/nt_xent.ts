/** The contrastive loss of SimCLR, without its matrix. */
import source from "../../shaders/nt_xent.wgsl" with { type: "text" };
import { gradFor, noGrad, record } from "../autograd.ts";
import type { Gpu } from "../gpu/gpu.ts";
import { foldGroups, grid1d, Shader } from "../gpu/shader.ts";
import type { Tensor } from "../tensor.ts";
import { add } from "./binary.ts";
import { mean } from "./reduce.ts";

const shader = new Shader("nt_xent", source);

/** What {@linkcode ntXent} takes besides the embeddings. */
export interface NtXentOptions {
  /** τ: small values attend to the nearest views. */
  temperature: number;
}

/** Rows and columns that a workgroup holds at a time. */
const tileRows = 32;
const tileColumns = 64;
/** Loop iterations of an invocation in a dispatch, about; some drivers stop without a word after 65 535. */
const maxIterations = 4096;

/**
 * The normalised temperature-scaled cross-entropy of Chen et al. 2020 (SimCLR) for embeddings h [2n, d], of
 * which rows i and i + n are two views of an image: the mean over all 2n views of
 *
 *     −log( exp(cos(hᵢ, hⱼ)/τ) / Σ_{k≠i} exp(cos(hᵢ, hₖ)/τ) ),  j the other view of i.
 *
 * The embeddings need not be normalised. Memory is linear in n: similarities are computed tile by tile,
 * and again for the gradient. (google-research/simclr's code returns twice this loss.)
 *
 * @throws {RangeError} for an odd number of rows or a temperature that is not positive
 */
export function ntXent(h: Tensor, { temperature }: NtXentOptions): Tensor {
  const [rows, d] = h.shape as [number, number];
  if (h.shape.length !== 2 || h.size === 0 || rows % 2 !== 0) {
    throw new RangeError(`ntXent: h [${h.shape}] is not [2n, d]`);
  }
  if (!(temperature > 0)) throw new RangeError(`ntXent: temperature ${temperature}`);
  const { gpu } = h;
  const quads = Math.ceil(d / 4);
  const { family, DEPTH, depths, width } = variant(gpu, quads, temperature);
  const span = Math.min(tileColumns * Math.ceil(rows / tileColumns), columnsOfDispatch(quads));
  const params = { rows, d, quads, width, first: 0, end: 0, span, sharpness: 1 / temperature };
  const byRow = grid1d(rows, 64);
  const [x, y] = foldGroups(Math.ceil(rows / tileRows));

  const z = gpu.empty([rows, 4 * quads]);
  const inverseNorms = gpu.empty([rows]);
  const lse = gpu.empty([rows]);
  const loss = gpu.scope(() => {
    const normalized = { h, new_z: z, inverse_norms: inverseNorms };
    gpu.run(shader.kernel("normalize"), normalized, params, byRow);
    const logSum = gpu.empty([rows, 2]);
    const kernel = shader.kernel(`log_sums${family}`);
    const shares = gpu.empty(family === "" ? [Math.ceil(rows / tileRows), span] : [1]);
    for (const { range, flops } of columnRanges(rows, quads)) {
      const own = { ...params, ...range };
      gpu.run(kernel, { z, log_sum: logSum, new_shares: shares }, own, [x, y, 1], flops);
      if (family === "") {
        const grid = grid1d(range.end - range.first, 64);
        gpu.run(shader.kernel("join_sums"), { log_sum: logSum, shares }, own, grid);
      }
    }
    const losses = gpu.empty([rows]);
    gpu.run(
      shader.kernel("pair_losses"),
      { z, log_sum: logSum, new_lse: lse, losses },
      params,
      byRow,
    );
    return noGrad(() => mean(losses));
  });
  return record("ntXent", [h], loss, [z, inverseNorms, lse], (dy) => {
    const kernel = shader.kernel(`gradient${family}`, { DEPTH });
    let dz: Tensor | null = null;
    for (const { range, flops } of columnRanges(rows, quads)) {
      const part = gpu.empty([tileRows * Math.ceil(rows / tileRows), 4 * width]);
      const tensors = { z, lse, lse4: lse, dz: part };
      gpu.run(kernel, tensors, { ...params, ...range }, [x, y, depths], (depths + 1) * flops);
      dz = dz === null ? part : replace([dz, part], add(dz, part));
    }
    const dh = gradFor(h);
    gpu.run(
      shader.kernel("input_gradient"),
      { z, saved_inverse_norms: inverseNorms, saved_dz: dz!, dy, dh },
      params,
      byRow,
    );
    return [dh];
  });
}

/** The family of kernels for an adapter, and how it divides the dimensions of the gradient. */
function variant(gpu: Gpu, quads: number, temperature: number) {
  // Above, exp(−2/τ) is a number that 32 bits hold.
  const bySubgroup = gpu.subgroupSize === 8 && temperature >= 0.025;
  const [family, lanes, most] = bySubgroup ? ["", 8, 4] : ["_tile", 16, 2];
  const needed = Math.ceil(quads / lanes);
  const DEPTH = needed === 1 ? 1 : needed === 2 ? 2 : most;
  const depths = Math.ceil(needed / DEPTH);
  return { family, DEPTH, depths, width: depths * DEPTH * lanes };
}

/** The most columns of a dispatch: so many loop iterations, and at most 16 shares of sums a dimension. */
function columnsOfDispatch(quads: number): number {
  const tiles = Math.floor(maxIterations / (2 * quads + tileColumns));
  return tileColumns * Math.max(1, Math.min(tiles, 8 + quads));
}

/** The columns of each dispatch, and the cost of one product with them. */
function* columnRanges(rows: number, quads: number) {
  const columns = columnsOfDispatch(quads);
  for (let first = 0; first < rows; first += columns) {
    const end = Math.min(rows, first + columns);
    yield { range: { first, end }, flops: 2 * rows * (end - first) * 4 * quads };
  }
}

/** Gives back tensors that a new one replaces. */
function replace(old: readonly Tensor[], by: Tensor): Tensor {
  for (const tensor of old) tensor.dispose();
  return by;
}
