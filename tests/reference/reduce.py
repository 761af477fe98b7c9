"""sum, mean and max of x over `axes`, kept as 1 or dropped (option keep); cases `<operation>_<axes>`. No ties in max."""

import torch

from common import Fixture

fixture = Fixture("reduce", seed=18)
draw = fixture.draw

#   name           shape         axes       keep
CASES = [
    ("first",      (5, 3, 7),    [0],       0),
    ("middle",     (5, 3, 7),    [1],       1),
    ("last",       (5, 3, 7),    [2],       1),
    ("last_drop",  (6, 8),       [1],       0),
    ("outer",      (3, 5, 4),    [0, 2],    0),
    ("spatial",    (2, 3, 5, 4), [1, 2],    0),
    ("channels",   (2, 3, 5, 6), [0, 1, 2], 0),
    ("all",        (3, 5, 7),    [0, 1, 2], 0),
    ("length_one", (4, 1, 5),    [1],       0),
    ("vector",     (130,),       [0],       0),
]

for name, function in [("sum", torch.sum), ("mean", torch.mean), ("max", torch.amax)]:
    for case, shape, axes, keep in CASES:
        x = draw.normal(*shape)
        assert x.unique().numel() == x.numel(), case
        fixture.add(
            f"{name}_{case}", lambda x: function(x, axes, keepdim=bool(keep)), {"x": x}, axes=axes, keep=keep
        )

fixture.save()
