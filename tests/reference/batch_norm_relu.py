"""batch_norm_relu: y = relu(batch_norm(x) [+ residual]) of a training step; gradients of all inputs; eps 1e-5."""

import torch.nn.functional as F

from common import Fixture, nchw, nhwc

fixture = Fixture("batch_norm_relu", seed=14)
draw = fixture.draw

CASES = [
    ("plain", (3, 5, 7, 5), False),
    ("plain_fours", (2, 4, 6, 8), False),
    ("residual", (3, 5, 4, 5), True),
    ("residual_fours", (2, 3, 5, 12), True),
    ("residual_one_channel", (2, 5, 3, 1), True),
    ("residual_one_image", (1, 4, 4, 16), True),
]


def before_relu(x, gamma, beta, residual=0):
    return nhwc(F.batch_norm(nchw(x), None, None, gamma, beta, training=True)) + residual


for case, shape, residual in CASES:
    c = shape[-1]
    inputs = {"x": draw.normal(*shape, mean=0.5, scale=2), "gamma": draw.uniform(0.5, 1.5, c), "beta": draw.normal(c)}
    if residual:
        inputs["residual"] = draw.normal(*shape)
    # Near 0 float32 and float64 may disagree about the sign, and so about the whole gradient of an element.
    assert before_relu(*inputs.values()).abs().min() > 1e-4, case
    fixture.add(case, lambda *args: F.relu(before_relu(*args)), inputs)

fixture.save()
