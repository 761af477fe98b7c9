"""Unary operations, one after the other: `<operation>` on ordinary values, `<operation>_far` on extreme ones.

gelu is the exact one, x·Φ(x) with the error function. PyTorch's conventions at 0: relu and abs have gradient 0.
"""

import torch
import torch.nn.functional as F

from common import Draw, Fixture

fixture = Fixture("unary", seed=16)
draw = fixture.draw

EVERYWHERE = {
    "relu": F.relu,
    "exp": torch.exp,
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "gelu": F.gelu,
    "softplus": F.softplus,
    "neg": torch.neg,
    "abs": torch.abs,
    "square": torch.square,
}
POSITIVE = {"log": torch.log, "sqrt": torch.sqrt, "rsqrt": torch.rsqrt}

FAR = [0.0, 1e-6, 1e-3, 0.1, 0.5, 1.0, 2.5, 3.0, 4.0, 5.0, 7.0, 10.0, 15.0, 21.0, 40.0, 60.0, 80.0]
FAR = Draw.exact([-x for x in FAR[:0:-1]] + FAR)
FAR_POSITIVE = Draw.exact([1e-12, 1e-6, 1e-3, 0.1, 0.999, 1.0, 1.001, 2.0, 100.0, 1e4, 1e6, 1e12])

for name, function in EVERYWHERE.items():
    fixture.add(name, function, {"x": draw.normal(3, 5, 7, scale=2)})
    fixture.add(f"{name}_far", function, {"x": FAR})
for name, function in POSITIVE.items():
    fixture.add(name, function, {"x": draw.uniform(0.05, 4, 3, 5, 7)})
    fixture.add(f"{name}_far", function, {"x": FAR_POSITIVE})

fixture.save()
