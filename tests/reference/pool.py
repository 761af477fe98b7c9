"""Pooling of x [n,h,w,c]: max and average with options kernel, stride, padding, and global average ([n,c]).

As in PyTorch's defaults, average pooling counts padding as zeros, and sizes are rounded down. In `max_ties` equal
maxima stand in a window: the first in row-major order receives the gradient.
"""

import torch.nn.functional as F

from common import Fixture, nchw, nhwc

fixture = Fixture("pool", seed=15)
draw = fixture.draw

WINDOWS = [
    ("k3_odd", (2, 7, 9, 5), 3, 2, 1),
    ("k3_even", (2, 8, 6, 4), 3, 2, 1),
    ("k3_one_channel", (1, 5, 6, 1), 3, 2, 1),
    ("k3_stride1", (2, 4, 5, 3), 3, 1, 1),
    ("k2_even", (2, 6, 4, 8), 2, 2, 0),
    ("k2_odd", (3, 7, 5, 3), 2, 2, 0),
]

for case, shape, kernel, stride, padding in WINDOWS:
    x = draw.normal(*shape)
    assert x.unique().numel() == x.numel(), case
    options = dict(kernel=kernel, stride=stride, padding=padding)
    window = (kernel, stride, padding)
    fixture.add(f"max_{case}", lambda x: nhwc(F.max_pool2d(nchw(x), *window)), {"x": x}, **options)
    fixture.add(f"avg_{case}", lambda x: nhwc(F.avg_pool2d(nchw(x), *window)), {"x": x}, **options)

ties = draw.integers(3, 2, 7, 6, 4).double()
fixture.add("max_ties", lambda x: nhwc(F.max_pool2d(nchw(x), 3, 2, 1)), {"x": ties}, kernel=3, stride=2, padding=1)

for case, shape in [("odd", (2, 3, 5, 5)), ("fours", (3, 4, 2, 8)), ("one_channel", (2, 7, 7, 1)), ("pixel", (2, 1, 1, 6))]:
    fixture.add(f"global_{case}", lambda x: x.mean((1, 2)), {"x": draw.normal(*shape)})

fixture.save()
