"""Ten steps of each optimiser on one small problem: conv 3×3 (3→8, padding 1, no bias), bn, relu, max pool
(k3 s2 p1), global average, fc (8→4, bias), cross-entropy.

problem.x       [10,8,8,8,3]: step, image, h, w, c;  problem.labels  I64 [10,8]
problem.param.<name>, <case>.param.<name>   before the first and after the last step; torchvision's layouts
<case>.buffer.<name>                        running statistics after the last step
<case>.losses   [10], before each step;  <case>.norms  [10], the global gradient norms before clipping
<case>.lr, weight_decay, momentum, nesterov, eta, beta1, beta2, epsilon, max_norm, ema_decay   where they apply;
<case>.exclude  1: batch norm and biases are excluded from decay (and from LARS' trust ratio)
<case>.ema.<name>   EMA of the parameters, started at their initial values and updated after every step
"""

import torch
from torch import nn

from common import Fixture, nchw

STEPS, BATCH, SIZE, CLASSES = 10, 8, 8, 4
NAMES = ["conv", "bn", "relu", "pool", "average", "flatten", "fc"]

fixture = Fixture("curves", seed=24)
draw = fixture.draw


def network():
    layers = [
        nn.Conv2d(3, 8, 3, padding=1, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.MaxPool2d(3, 2, 1),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, CLASSES),
    ]
    model = nn.Sequential()
    for name, layer in zip(NAMES, layers):
        model.add_module(name, layer)
    return model.double()


class LARS(torch.optim.Optimizer):
    """You et al. 2017 as in SimCLR: g += λw; v = μv + lr·trust·g; w −= v, trust = η‖w‖/‖g‖, or 1 where excluded."""

    def __init__(self, groups, lr, momentum, eta):
        super().__init__(groups, dict(lr=lr, momentum=momentum, eta=eta))

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            for w in group["params"]:
                g = w.grad + group["weight_decay"] * w
                trust = group["eta"] * w.norm() / g.norm() if group["adapted"] else 1
                v = self.state[w].setdefault("velocity", torch.zeros_like(w))
                v.mul_(group["momentum"]).add_(group["lr"] * trust * g)
                w.sub_(v)


def sgd(groups, o):
    return torch.optim.SGD(groups, lr=o["lr"], momentum=o["momentum"], nesterov=bool(o["nesterov"]))


def adam(groups, o):
    return torch.optim.Adam(groups, lr=o["lr"], betas=(o["beta1"], o["beta2"]), eps=o["epsilon"])


def adamw(groups, o):
    return torch.optim.AdamW(groups, lr=o["lr"], betas=(o["beta1"], o["beta2"]), eps=o["epsilon"])


def lars(groups, o):
    return LARS(groups, lr=o["lr"], momentum=o["momentum"], eta=o["eta"])


MOMENTS = dict(beta1=0.9, beta2=0.999, epsilon=1e-8)
CASES = {
    "sgd": (sgd, dict(lr=0.05, momentum=0.9, nesterov=1, weight_decay=0.01, exclude=0)),
    "sgd_heavy_ball": (sgd, dict(lr=0.05, momentum=0.9, nesterov=0, weight_decay=0.01, exclude=1)),
    "sgd_plain": (sgd, dict(lr=0.2, momentum=0.0, nesterov=0, weight_decay=0.0, exclude=0)),
    "sgd_clipped": (sgd, dict(lr=0.05, momentum=0.9, nesterov=1, weight_decay=0.01, exclude=0, max_norm=0.5)),
    "adam": (adam, dict(lr=0.02, weight_decay=0.01, exclude=0, **MOMENTS)),
    "adamw": (adamw, dict(lr=0.02, weight_decay=0.05, exclude=1, ema_decay=0.9, **MOMENTS)),
    "adamw_all": (adamw, dict(lr=0.02, weight_decay=0.5, exclude=0, **MOMENTS)),
    "lars": (lars, dict(lr=1.0, momentum=0.9, eta=0.001, weight_decay=1e-4, exclude=1)),
    "lars_strong": (lars, dict(lr=0.5, momentum=0.9, eta=0.02, weight_decay=0.01, exclude=1)),
}

labels = torch.stack([draw.permutation(BATCH) % CLASSES for _ in range(STEPS)])
colours = draw.normal(CLASSES, 1, 1, 3)
x = draw.exact(colours[labels] + draw.normal(STEPS, BATCH, SIZE, SIZE, 3))
first = network()
with torch.no_grad():
    for parameter in first.parameters():
        matrix = parameter.dim() > 1
        parameter.copy_(draw.normal(*parameter.shape, scale=0.3) if matrix else draw.uniform(0.2, 1, *parameter.shape))
start = {name: parameter.detach().clone() for name, parameter in first.named_parameters()}
fixture.put("problem", x=x, labels=labels, **{f"param.{name}": value for name, value in start.items()})

for case, (make, options) in CASES.items():
    options = {name: float(draw.exact(o)) if isinstance(o, float) else o for name, o in options.items()}
    model = network()
    model.load_state_dict(start, strict=False)
    vectors = [p for p in model.parameters() if p.dim() == 1]
    matrices = [p for p in model.parameters() if p.dim() > 1]
    optimizer = make(
        [
            dict(params=matrices, weight_decay=options["weight_decay"], adapted=True),
            dict(params=vectors, weight_decay=0 if options["exclude"] else options["weight_decay"], adapted=False),
        ],
        options,
    )
    losses, norms, ema = [], [], {name: value.clone() for name, value in start.items()}
    for step in range(STEPS):
        loss = nn.functional.cross_entropy(model(nchw(x[step])), labels[step])
        optimizer.zero_grad()
        loss.backward()
        norms.append(nn.utils.clip_grad_norm_(model.parameters(), options.get("max_norm", float("inf"))))
        optimizer.step()
        losses.append(loss.detach())
        if "ema_decay" in options:
            for name, parameter in model.named_parameters():
                ema[name].lerp_(parameter.detach(), 1 - options["ema_decay"])
    fixture.put(case, **options, losses=torch.stack(losses), norms=torch.stack(norms))
    fixture.put(case, **{f"param.{name}": parameter for name, parameter in model.named_parameters()})
    fixture.put(case, **{f"buffer.{name}": buffer for name, buffer in model.named_buffers()})
    if "ema_decay" in options:
        fixture.put(case, **{f"ema.{name}": value for name, value in ema.items()})

fixture.save()
