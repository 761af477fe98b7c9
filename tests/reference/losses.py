"""Losses, all means, so that dy is 1.

cross_entropy: x [n,classes], labels (I64 [n]), smoothing.
bce: x [n,labels] logits, labels (F32 [n,labels], NaN where missing), optional pos_weight [labels]; the mean is
taken over the labels that are present.
mse: x and target, both differentiated.
focal, asymmetric: x and labels as for bce; gamma and alpha (NaN for none), or gamma_negative, gamma_positive, shift.
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


def present_mean(loss, labels):
    """The mean over labels that are not NaN of a loss by logit and label."""
    present = ~labels.isnan()
    return lambda x: loss(x, labels.nan_to_num())[present].mean()


def multi_labels(n, count, missing):
    labels = draw.integers(2, n, count).double()
    labels[draw.uniform(0, 1, n, count) < missing] = float("nan")
    return labels


#   name            n   labels scale missing gamma alpha
for case, n, count, scale, missing, gamma, alpha in [
    ("odd",         5,  3,     2.0,  0.0,    2.0,  0.25),
    ("missing",     7,  5,     2.0,  0.4,    2.0,  0.25),
    ("fraction",    6,  4,     2.0,  0.2,    0.5,  0.75),
    ("none",        6,  4,     2.0,  0.2,    0.0,  None),
    ("large",       6,  5,     60.0, 0.2,    2.0,  0.25),
]:
    def focal(x, y):
        """torchvision.ops.sigmoid_focal_loss"""
        bce = F.binary_cross_entropy_with_logits(x, y, reduction="none")
        wrong = torch.sigmoid(torch.where(y == 1, -x, x))
        weight = 1 if alpha is None else alpha * y + (1 - alpha) * (1 - y)
        return weight * wrong**gamma * bce

    labels = multi_labels(n, count, missing)
    options = {"gamma": gamma, "alpha": float("nan") if alpha is None else alpha}
    x = draw.normal(n, count, scale=scale)
    fixture.add(f"focal_{case}", present_mean(focal, labels), {"x": x}, labels=labels, **options)

#   name            n   labels scale missing gamma-, gamma+, shift
for case, n, count, scale, missing, negative, positive, shift in [
    ("odd",         5,  3,     2.0,  0.0,    4.0,    0.0,    0.05),
    ("missing",     7,  5,     2.0,  0.4,    4.0,    1.0,    0.05),
    ("unshifted",   6,  4,     2.0,  0.2,    3.0,    1.0,    0.0),
    ("wide",        6,  4,     3.0,  0.2,    1.5,    0.5,    0.4),
    ("hard",        6,  4,     2.0,  0.2,    0.0,    0.0,    0.2),
    ("large",       6,  5,     60.0, 0.2,    4.0,    1.0,    0.05),
]:
    def asymmetric(x, y):
        shifted = (torch.sigmoid(x) - shift).clamp(min=0)
        # With a shift 1 - s is never near 0; without one it is the probability of the negated logit.
        log_rest = torch.log1p(-shifted) if shift > 0 else F.logsigmoid(-x)
        return -y * torch.sigmoid(-x) ** positive * F.logsigmoid(x) - (1 - y) * shifted**negative * log_rest

    labels = multi_labels(n, count, missing)
    options = {"gamma_negative": negative, "gamma_positive": positive, "shift": shift}
    x = draw.normal(n, count, scale=scale)
    fixture.add(f"asymmetric_{case}", present_mean(asymmetric, labels), {"x": x}, labels=labels, **options)

fixture.save()
