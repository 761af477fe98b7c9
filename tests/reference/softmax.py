"""softmax, log_softmax and normalize (x / ‖x‖₂) over the last axis; cases `<operation>_<shape>`."""

import torch
import torch.nn.functional as F

from common import Fixture

fixture = Fixture("softmax", seed=19)
draw = fixture.draw

#   name          shape         scale  mean
CASES = [
    ("odd",       (5, 7),       1.0,   0.0),
    ("fours",     (6, 8),       1.0,   0.0),
    ("maps",      (2, 3, 5),    2.0,   0.0),
    ("long",      (3, 301),     1.0,   0.0),
    ("large",     (4, 9),       50.0,  1000.0),
    ("one_row",   (1, 10),      1.0,   0.0),
    ("vector",    (6,),         1.0,   0.0),
]

for name, function in [("softmax", torch.softmax), ("log_softmax", torch.log_softmax)]:
    for case, shape, scale, mean in CASES:
        fixture.add(f"{name}_{case}", lambda x: function(x, -1), {"x": draw.normal(*shape, scale=scale, mean=mean)})

for case, shape, scale, _ in CASES:
    fixture.add(f"normalize_{case}", lambda x: F.normalize(x, dim=-1), {"x": draw.normal(*shape, scale=scale)})
fixture.add("normalize_tiny", lambda x: F.normalize(x, dim=-1), {"x": draw.normal(3, 5, scale=1e-4)})

fixture.save()
