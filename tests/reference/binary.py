"""Binary operations a ∘ b with broadcasting; cases `<operation>_<shapes>`. No ties in max, no base ≤ 0 in pow."""

import torch

from common import Fixture

fixture = Fixture("binary", seed=17)
draw = fixture.draw

SHAPES = {
    "same": ((3, 5), (3, 5)),
    "same_fours": ((2, 3, 4), (2, 3, 4)),
    "row": ((4, 7), (7,)),
    "channels": ((2, 3, 5, 4), (4,)),
    "column": ((5, 1), (5, 6)),
    "outer": ((7, 1), (1, 9)),
    "middle": ((4, 1, 3), (5, 1)),
    "images": ((2, 3, 5, 4), (2, 1, 1, 4)),
    "scalar": ((), (3, 5)),
    "one": ((2, 3), (1,)),
}


def signed(*shape):
    """Away from zero, of either sign: denominators."""
    return draw.uniform(0.5, 2, *shape) * (draw.integers(2, *shape) * 2 - 1)


def positive(*shape):
    return draw.uniform(0.2, 3, *shape)


OPERATIONS = [
    ("add", torch.add, draw.normal, draw.normal),
    ("sub", torch.sub, draw.normal, draw.normal),
    ("mul", torch.mul, draw.normal, draw.normal),
    ("div", torch.div, draw.normal, signed),
    ("max", torch.maximum, draw.normal, draw.normal),
    ("pow", torch.pow, positive, draw.normal),
]

for name, function, draw_a, draw_b in OPERATIONS:
    for shapes, (a, b) in SHAPES.items():
        fixture.add(f"{name}_{shapes}", function, {"a": draw_a(*a), "b": draw_b(*b)})

fixture.save()
