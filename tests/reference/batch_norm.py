"""batch_norm: x [n,h,w,c] or [n,c], gamma and beta [c], eps 1e-5.

Per case, a training step on x (y, and gradients for dy), then a second one on x2: running_mean and running_var
are those after both, from 0 and 1 with momentum 0.1 (the variance unbiased, as PyTorch keeps it). Then, in
evaluation with these, the same x gives eval_y and, for the same dy, eval_dx, eval_dgamma, eval_dbeta.
"""

import torch
import torch.nn.functional as F

from common import Fixture

fixture = Fixture("batch_norm", seed=13)
draw = fixture.draw


def channels_second(x):
    return x.movedim(-1, 1)


def channels_last(x):
    return x.movedim(1, -1)


#         case             shape          mean  scale
CASES = [
    ("map",                (3, 5, 7, 5),  0.5,  2.0),
    ("map_fours",          (2, 4, 6, 8),  -1.0, 0.5),
    ("map_one_channel",    (2, 5, 3, 1),  0.0,  1.0),
    ("map_one_image",      (1, 7, 5, 12), 0.0,  1.0),
    ("map_large_mean",     (2, 6, 5, 4),  100.0, 1.0),
    ("map_many_channels",  (2, 2, 3, 70), 0.0,  1.0),
    ("rows",               (6, 5),        0.5,  2.0),
    ("rows_fours",         (130, 12),     0.0,  1.0),
    ("rows_three",         (3, 3),        0.0,  1.0),
]

for case, shape, mean, scale in CASES:
    c = shape[-1]
    x, x2 = (draw.normal(*shape, mean=mean, scale=scale) for _ in range(2))
    gamma, beta = draw.uniform(0.5, 1.5, c), draw.normal(c)
    running_mean, running_var = torch.zeros(c, dtype=x.dtype), torch.ones(c, dtype=x.dtype)

    def train(x, gamma, beta):
        return channels_last(
            F.batch_norm(channels_second(x), running_mean, running_var, gamma, beta, training=True, momentum=0.1)
        )

    def evaluate(x, gamma, beta):
        return channels_last(F.batch_norm(channels_second(x), running_mean, running_var, gamma, beta))

    fixture.add(case, train, {"x": x, "gamma": gamma, "beta": beta})
    train(x2, gamma, beta)
    fixture.put(case, x2=x2, running_mean=running_mean, running_var=running_var)

    leaves = [tensor.clone().requires_grad_() for tensor in (x, gamma, beta)]
    y = evaluate(*leaves)
    gradients = torch.autograd.grad(y, leaves, fixture.tensors[f"{case}.dy"])
    fixture.put(case, eval_y=y, **dict(zip(("eval_dx", "eval_dgamma", "eval_dbeta"), gradients)))

fixture.save()
