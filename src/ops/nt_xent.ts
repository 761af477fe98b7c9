/** The contrastive loss of SimCLR, without its matrix. */
import source from "../../shaders/nt_xent.wgsl" with { type: "text" };
import subgroupSource from "../../shaders/nt_xent_subgroups.wgsl" with { type: "text" };
import { gradFor, noGrad, record } from "../autograd.ts";
import { foldGroups, Shader } from "../gpu/shader.ts";
import type { Tensor } from "../tensor.ts";
import { mean } from "./reduce.ts";

const shader = new Shader("nt_xent", source);
const subgroupShader = new Shader("nt_xent_subgroups", subgroupSource);

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
  const params = { rows, d, quads, first: 0, end: rows, sharpness: 1 / temperature };
  const byRow = foldGroups(Math.ceil(rows / 8));

  const z = gpu.empty([rows, 4 * quads]);
  const inverseNorms = gpu.empty([rows]);
  const lse = gpu.empty([rows]);
  const y = gpu.scope(() => {
    const normalized = { h, z_elements: z, inverse_norms: inverseNorms };
    gpu.run(shader.kernel("normalize"), normalized, params, byRow);
    const logSum = gpu.empty([rows, 2]);
    overPairs("log_sums", { z, log_sum: logSum }, params);
    const loss = gpu.empty([rows]);
    gpu.run(
      shader.kernel("pair_losses"),
      { z, log_sum: logSum, new_lse: lse, loss },
      params,
      byRow,
    );
    return noGrad(() => mean(loss));
  });
  return record("ntXent", [h], y, [z, inverseNorms, lse], (dy) => {
    const dz = gpu.empty(z.shape);
    overPairs("gradient", { z, lse, lse4: lse, dz }, params);
    const dh = gradFor(h);
    gpu.run(
      shader.kernel("input_gradient"),
      { saved_z: z, saved_inverse_norms: inverseNorms, saved_dz: dz, dy, dh },
      params,
      byRow,
    );
    return [dh];
  });
}

/** Runs a pass over all pairs, in as many dispatches as the columns want. */
function overPairs(
  entry: "log_sums" | "gradient",
  tensors: Record<string, Tensor>,
  params: { rows: number; quads: number; first: number; end: number; d: number; sharpness: number },
): void {
  const { rows, quads } = params;
  const { gpu } = tensors.z!;
  const [file, lanes, maxDepth] = gpu.subgroupSize === 8 ? [subgroupShader, 8, 4] : [shader, 16, 2];
  // A workgroup computes up to 128 dimensions of the gradient; more are further groups in z.
  const DEPTH = Math.min(maxDepth, Math.ceil(quads / lanes));
  const kernel = file.kernel(entry, entry === "gradient" ? { DEPTH } : {});
  const [x, y] = foldGroups(Math.ceil(rows / tileRows));
  const depths = entry === "gradient" ? Math.ceil(quads / (lanes * DEPTH)) : 1;
  const tiles = Math.max(1, Math.floor(maxIterations / (2 * quads + tileColumns)));
  const products = entry === "gradient" ? depths + 1 : 1;
  const flops = products * 2 * rows * rows * 4 * quads;
  for (let first = 0; first < rows; first += tiles * tileColumns) {
    const end = Math.min(rows, first + tiles * tileColumns);
    const share = (end - first) / rows;
    gpu.run(kernel, tensors, { ...params, first, end }, [x, y, depths], share * flops);
  }
}
