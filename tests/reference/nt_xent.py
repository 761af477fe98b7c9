"""NT-Xent of SimCLR (Chen et al. 2020) from unnormalised h [2N,d] at `temperature`; view i pairs with view i + N.

z = h / ‖h‖, l(i,j) = −log( exp(z_i·z_j/τ) / Σ_{k≠i} exp(z_i·z_k/τ) ), averaged over all 2N views; written as it is
defined, with the whole 2N×2N matrix.
"""

import torch

from common import Fixture

fixture = Fixture("nt_xent", seed=22)
draw = fixture.draw


def nt_xent(h, temperature):
    z = h / h.norm(dim=1, keepdim=True)
    views = len(z)
    similarity = z @ z.T / temperature
    rest = similarity.masked_fill(torch.eye(views, dtype=torch.bool), -torch.inf)
    partner = torch.arange(views).roll(views // 2)
    return (rest.logsumexp(1) - similarity[torch.arange(views), partner]).mean()


def add(case, h, temperature):
    temperature = float(draw.exact(temperature))
    fixture.add(case, lambda h: nt_xent(h, temperature), {"h": h}, temperature=temperature)


for n in (3, 17, 65):
    for d in (5, 32):
        h = draw.normal(2 * n, d) * draw.uniform(0.2, 3, 2 * n, 1)
        for name, temperature in [("005", 0.05), ("01", 0.1), ("05", 0.5)]:
            add(f"n{n}_d{d}_t{name}", draw.exact(h), temperature)

# One pair has no negatives: the loss and its gradient are 0.
add("one_pair", draw.normal(2, 6), 0.5)
# Late in training: the views of a pair are close together.
h = draw.normal(9, 8)
add("aligned", torch.cat([h, draw.exact(h + draw.normal(9, 8, scale=0.5))]), 0.05)

fixture.save()
