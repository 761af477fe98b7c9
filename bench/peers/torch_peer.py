"""Seconds of one run of a benchmark's work on the CPU, the median of some runs.

python3 torch_peer.py '{"op": "matmul", "m": 512, ...}'     (see peer.ts)
"""

import json
import sys
import time

import numpy
import torch
from torch import nn
from torchvision.models.resnet import BasicBlock, ResNet


class Narrow(ResNet):
    """torchvision's ResNet-18 with `width` channels in the first stage and the 3x3 stem."""

    def __init__(self, width):
        self.width = width
        super().__init__(BasicBlock, [2, 2, 2, 2], num_classes=10)
        self.conv1 = nn.Conv2d(3, width, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.maxpool = nn.Identity()
        self.fc = nn.Linear(8 * width, 10)

    def _make_layer(self, block, planes, *args, **kwargs):
        planes = planes * self.width // 64
        if planes == self.width:
            self.inplanes = planes
        return super()._make_layer(block, planes, *args, **kwargs)


def step(width, batch):
    model = Narrow(width)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    images = torch.rand(batch, 3, 32, 32) * 2 - 1
    targets = torch.arange(batch) % 10

    def run():
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(images), targets).backward()
        optimizer.step()

    return run


def conv2d(direction, n, size, inputs, outputs, kernel, stride):
    x = torch.randn(n, inputs, size, size)
    w = torch.randn(outputs, inputs, kernel, kernel)
    forward = lambda: nn.functional.conv2d(x, w, None, stride, kernel // 2)
    if direction == "forward":
        return forward
    dy = torch.randn_like(forward())
    wanted = [direction == "input gradient", direction == "weight gradient", False]
    return lambda: torch.ops.aten.convolution_backward(
        dy, x, w, [0], [stride] * 2, [kernel // 2] * 2, [1, 1], False, [0, 0], 1, wanted
    )


def matmul(m, k, n, transposeA, transposeB):
    a = torch.randn(k, m).T if transposeA else torch.randn(m, k)
    b = torch.randn(n, k).T if transposeB else torch.randn(k, n)
    return lambda: a @ b


def ntXent(rows, d, temperature):
    h = torch.randn(rows, d, requires_grad=True)
    targets = (torch.arange(rows) + rows // 2) % rows
    itself = torch.eye(rows, dtype=torch.bool)

    def run():
        z = nn.functional.normalize(h)
        similarities = (z @ z.T / temperature).masked_fill(itself, -torch.inf)
        h.grad = None
        nn.functional.cross_entropy(similarities, targets).backward()

    return run


def kmeans(n, d, k):
    from sklearn.cluster import KMeans

    x = numpy.random.RandomState(0).standard_normal((n, d)).astype(numpy.float32)
    iterations = 5
    model = KMeans(k, init=x[:k], n_init=1, max_iter=iterations, tol=0, algorithm="lloyd")
    return lambda: model.fit(x), iterations


work = json.loads(sys.argv[1])
made = globals()[work.pop("op")](**work)
run, repeats = made if isinstance(made, tuple) else (made, 1)
run()
times = []
while len(times) < 5 or sum(times) < 0.5:
    start = time.perf_counter()
    run()
    times.append((time.perf_counter() - start) / repeats)
print(sorted(times)[len(times) // 2])
