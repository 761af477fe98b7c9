"""Operations that move values: transpose, slice, concat, pad (zeros), nearest upsample ×2 of [n,h,w,c], gather of rows.

Options: transpose.permutation; slice.begin, slice.end (one an axis); concat.axis; pad.before, pad.after (one an
axis); gather.indices (rows of x, repeated and in any order).
"""

import torch
import torch.nn.functional as F

from common import Fixture, nchw, nhwc

fixture = Fixture("shape", seed=20)
draw = fixture.draw

for name, shape, permutation in [
    ("matrix", (5, 7), [1, 0]),
    ("fours", (8, 12), [1, 0]),
    ("channels_last", (2, 3, 5, 4), [0, 2, 3, 1]),
    ("reverse", (2, 3, 4), [2, 1, 0]),
    ("batch", (3, 5, 2), [0, 2, 1]),
    ("same", (3, 4), [0, 1]),
]:
    x = draw.normal(*shape)
    fixture.add(f"transpose_{name}", lambda x: x.permute(permutation), {"x": x}, permutation=permutation)

for name, shape, begin, end in [
    ("vector", (9,), [2], [7]),
    ("rows", (6, 5), [1, 0], [4, 5]),
    ("columns", (6, 5), [0, 2], [6, 5]),
    ("block", (3, 5, 4), [1, 1, 0], [3, 4, 2]),
    ("channels", (2, 3, 3, 8), [0, 0, 0, 4], [2, 3, 3, 8]),
    ("all", (3, 4), [0, 0], [3, 4]),
]:
    window = tuple(slice(b, e) for b, e in zip(begin, end))
    fixture.add(f"slice_{name}", lambda x: x[window], {"x": draw.normal(*shape)}, begin=begin, end=end)

for name, shapes, axis in [
    ("rows", [(2, 5), (3, 5)], 0),
    ("columns", [(4, 3), (4, 2)], 1),
    ("three", [(2, 1, 3), (2, 4, 3), (2, 2, 3)], 1),
    ("channels", [(2, 3, 2, 4), (2, 3, 2, 8)], 3),
    ("vectors", [(1,), (5,)], 0),
]:
    inputs = {name: draw.normal(*shape) for name, shape in zip("abc", shapes)}
    fixture.add(f"concat_{name}", lambda *parts: torch.cat(parts, axis), inputs, axis=axis)

for name, shape, before, after in [
    ("vector", (5,), [2], [1]),
    ("matrix", (3, 4), [0, 1], [2, 0]),
    ("map", (2, 3, 4, 3), [0, 1, 2, 0], [0, 1, 1, 0]),
    ("channels", (2, 2, 2, 4), [0, 0, 0, 0], [0, 0, 0, 4]),
]:
    widths = [width for pair in zip(reversed(before), reversed(after)) for width in pair]
    fixture.add(f"pad_{name}", lambda x: F.pad(x, widths), {"x": draw.normal(*shape)}, before=before, after=after)

for name, shape in [("odd", (2, 3, 5, 3)), ("fours", (2, 2, 3, 8)), ("one_channel", (1, 4, 3, 1)), ("pixel", (2, 1, 1, 4))]:
    fixture.add(
        f"upsample_{name}", lambda x: nhwc(F.interpolate(nchw(x), scale_factor=2, mode="nearest")), {"x": draw.normal(*shape)}
    )

for name, shape, count in [("odd", (5, 3), 7), ("fours", (6, 8), 4), ("maps", (4, 2, 3), 5), ("vector", (6,), 9)]:
    indices = draw.integers(shape[0], count)
    fixture.add(f"gather_{name}", lambda x: x[indices], {"x": draw.normal(*shape)}, indices=indices)

fixture.save()
