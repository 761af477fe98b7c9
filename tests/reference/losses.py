"""Losses, all means, so that dy is 1.

cross_entropy: x [n,classes], labels (I64 [n]), smoothing.
bce: x [n,labels] logits, labels (F32 [n,labels], NaN where missing), optional pos_weight [labels]; the mean is
taken over the labels that are present.
mse: x and target, both differentiated.
"""

import torch
import torch.nn.functional as F

from common import Fixture

fixture = Fixture("losses", seed=21)
draw = fixture.draw

#   name            n   classes scale smoothing
for case, n, classes, scale, smoothing in [
    ("odd",         5,  7,      1.0,  0.0),
    ("smooth",      5,  7,      1.0,  0.1),
    ("fours",       8,  4,      2.0,  0.0),
    ("fours_smooth", 8, 12,     2.0,  0.3),
    ("one_row",     1,  3,      1.0,  0.0),
    ("large",       6,  5,      60.0, 0.0),
    ("large_smooth", 6, 5,      60.0, 0.05),
    ("many",        3,  257,    1.0,  0.1),
]:
    labels = draw.integers(classes, n)
    fixture.add(
        f"cross_entropy_{case}",
        lambda x: F.cross_entropy(x, labels, label_smoothing=smoothing),
        {"x": draw.normal(n, classes, scale=scale)},
        labels=labels,
        smoothing=float(smoothing),
    )

#   name            n   labels scale missing weighted
for case, n, count, scale, missing, weighted in [
    ("odd",         5,  3,     2.0,  0.0,    False),
    ("missing",     7,  5,     2.0,  0.4,    False),
    ("weighted",    6,  4,     2.0,  0.0,    True),
    ("missing_weighted", 9, 6, 2.0,  0.4,    True),
    ("large",       6,  5,     60.0, 0.2,    True),
    ("one",         1,  1,     1.0,  0.0,    False),
]:
    labels = draw.integers(2, n, count).double()
    labels[draw.uniform(0, 1, n, count) < missing] = float("nan")
    present = ~labels.isnan()
    weight = draw.uniform(0.5, 8, count) if weighted else None

    def bce(x):
        terms = F.binary_cross_entropy_with_logits(x, labels.nan_to_num(), pos_weight=weight, reduction="none")
        return terms[present].mean()

    options = {"pos_weight": weight} if weighted else {}
    fixture.add(f"bce_{case}", bce, {"x": draw.normal(n, count, scale=scale)}, labels=labels, **options)

for case, shape in [("odd", (3, 5, 7)), ("fours", (4, 8)), ("one", (1,))]:
    fixture.add(f"mse_{case}", F.mse_loss, {"x": draw.normal(*shape), "target": draw.normal(*shape)})

fixture.save()
