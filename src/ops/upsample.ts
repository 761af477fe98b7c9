/** Enlargement of images. */
import source from "../../shaders/upsample.wgsl" with { type: "text" };
import { gradFor, record } from "../autograd.ts";
import { grid1d, Shader } from "../gpu/shader.ts";
import type { Tensor } from "../tensor.ts";
import { expectType } from "./check.ts";

const shader = new Shader("upsample", source);

/**
 * Every pixel as a square of factor × factor (nearest neighbour).
 *
 * @param x f32 [n, h, w, c]
 * @param factor whole, 1…128 (default 2)
 * @returns [n, h · factor, w · factor, c]
 */
export function upsample(x: Tensor, factor = 2): Tensor {
  expectType("upsample", "f32", { x });
  const [n, h, w, c] = x.shape;
  if (x.shape.length !== 4) throw new RangeError(`upsample: x [${x.shape}] is not [n,h,w,c]`);
  if (!Number.isInteger(factor) || factor < 1 || factor > 128) {
    throw new RangeError(`upsample: factor ${factor} is not a whole number 1…128`);
  }
  const y = x.gpu.empty([n!, h! * factor, w! * factor, c!]);
  const isVector = c! % 4 === 0;
  const unit = isVector ? 4 : 1;
  const params = { w: w!, c: c! / unit, factor };
  x.gpu.run(
    shader.kernel(isVector ? "forward4" : "forward"),
    isVector ? { x4: x, y4: y } : { x, y },
    { ...params, n: y.size / unit },
    grid1d(y.size / unit, 256),
  );
  return record("upsample", [x], y, [], (dy) => {
    const dx = gradFor(x);
    x.gpu.run(
      shader.kernel(isVector ? "gradient4" : "gradient"),
      isVector ? { dy4: dy, dx4: dx } : { dy, dx },
      { ...params, n: x.size / unit },
      grid1d(x.size / unit, 256),
    );
    return [dx];
  });
}
