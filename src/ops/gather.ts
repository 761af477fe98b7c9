/** Rows of a tensor by index. */
import source from "../../shaders/gather.wgsl" with { type: "text" };
import { gradFor, record } from "../autograd.ts";
import { grid1d, Shader } from "../gpu/shader.ts";
import { sizeOf, type Tensor } from "../tensor.ts";
import { expectType } from "./check.ts";
import { fill } from "./shape.ts";

const shader = new Shader("gather", source);

/** Indices that one dispatch of the gradient looks through: bounds the steps of an invocation. */
const scatterLength = 32768;

/**
 * Row `indices[j]` of x as row j; a row may come several times.
 *
 * The gradient adds up the rows in the order of their indices, so it is the same in every run; it
 * takes up to m² comparisons, which is meant for batches.
 *
 * @param x f32 or u32 [n, …]
 * @param indices u32 [m]; one ≥ n gives a row of NaN (in u32 0x7fc00000) and gets no gradient
 * @returns [m, …]
 */
export function gatherRows(x: Tensor, indices: Tensor): Tensor {
  expectType("gatherRows", "u32", { indices });
  const [n, ...rest] = x.shape;
  if (x.dtype === "u8" || n === undefined || indices.shape.length !== 1) {
    throw new RangeError(
      `gatherRows: indices [${indices.shape}] of ${x.dtype} [${x.shape}]; ` +
        "they must be [m] of f32 or u32 [n, …]",
    );
  }
  const { gpu } = x;
  const m = indices.size;
  const y = gpu.empty([m, ...rest], x.dtype);
  const isVector = sizeOf(rest) % 4 === 0;
  const width = isVector ? sizeOf(rest) / 4 : sizeOf(rest);
  gpu.run(
    shader.kernel(isVector ? "gather4" : "gather"),
    isVector ? { x4: x, indices, y4: y } : { x, indices, y },
    { n, width, begin: 0, end: m },
    grid1d(m * width, 256),
  );
  return record("gatherRows", [x, indices], y, [indices], (dy) => {
    const dx = gradFor(x);
    fill(dx, 0);
    for (let begin = 0; begin < m; begin += scatterLength) {
      const end = Math.min(begin + scatterLength, m);
      gpu.run(
        shader.kernel(isVector ? "scatter4" : "scatter"),
        isVector ? { dy4: dy, indices, dx4: dx } : { dy, indices, dx },
        { n, width, begin, end },
        grid1d((end - begin) * width, 256),
      );
    }
    return [dx, null];
  });
}
