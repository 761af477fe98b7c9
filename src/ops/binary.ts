/** Elementwise operations of two tensors, with NumPy's broadcasting. */
import source from "../../shaders/binary.wgsl" with { type: "text" };
import { record } from "../autograd.ts";
import { grid1d, Shader } from "../gpu/shader.ts";
import { sameShape, type Tensor } from "../tensor.ts";

const shader = new Shader("binary", source);

/** x + y, broadcast. */
export function add(a: Tensor, b: Tensor): Tensor {
  const y = a.gpu.empty(a.shape);
  if (!sameShape(a.shape, b.shape)) throw new RangeError(`add: [${a.shape}] and [${b.shape}]`);
  const n = Math.ceil(a.size / 4);
  a.gpu.run(shader.kernel("same", { OP: 0 }), { a4: a, b4: b, y4: y }, {
    n,
    size1: 0,
    size2: 0,
    size3: 0,
    a0: 0,
    a1: 0,
    a2: 0,
    a3: 0,
    b0: 0,
    b1: 0,
    b2: 0,
    b3: 0,
  }, grid1d(n, 256));
  return record("add", [a, b], y, [], (dy) => [dy, dy]);
}
