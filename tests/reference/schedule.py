"""Learning rates by step, counted from 0, as PyTorch's schedulers give them.

cosine_*: linear warm-up to the full rate in `warmup` steps, (s + 1)/warmup of it at step s, then half a cosine from
the full rate at step `warmup` down to `minimum` at step `total`, where training has ended.
step_*: the rate times `gamma` after every `every` steps.
"""

import torch
from torch.optim.lr_scheduler import CosineAnnealingLR, LinearLR, StepLR

from common import Fixture

fixture = Fixture("schedule", seed=0)


def values(lr, steps, make):
    """The rate at each of `steps` steps under the scheduler `make(optimizer)`."""
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=lr)
    scheduler = make(optimizer)
    rates = []
    for _ in range(steps):
        rates.append(scheduler.get_last_lr()[0])
        optimizer.step()
        scheduler.step()
    return rates


for case, lr, warmup, total, minimum in [
    ("cosine_warm", 0.3, 5, 40, 0.0),
    ("cosine_cold", 1e-3, 0, 17, 0.0),
    ("cosine_minimum", 0.05, 3, 21, 0.001),
    ("cosine_one_warm", 0.1, 1, 4, 0.0),
]:
    rising = values(lr, warmup, lambda o: LinearLR(o, 1 / warmup, total_iters=warmup - 1)) if warmup > 1 else [lr] * warmup
    falling = values(lr, total - warmup, lambda o: CosineAnnealingLR(o, total - warmup, minimum))
    rates = torch.tensor(rising + falling, dtype=torch.float64)
    fixture.put(case, lr=lr, warmup=warmup, total=total, minimum=minimum, values=rates)

for case, lr, every, gamma, total in [("step_tenth", 0.1, 4, 0.1, 13), ("step_half", 1.0, 3, 0.5, 10)]:
    rates = torch.tensor(values(lr, total, lambda o: StepLR(o, every, gamma)), dtype=torch.float64)
    fixture.put(case, lr=lr, every=every, gamma=gamma, total=total, values=rates)

fixture.save()
