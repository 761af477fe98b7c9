"""Seconds of the training step of bench/step_bench.ts in PyTorch on the CPU, the median of some steps.

python3 torch_step.py WIDTH BATCH STEPS
"""

import sys
import time

import torch
from torch import nn
from torchvision.models.resnet import BasicBlock, ResNet

width, batch, steps = map(int, sys.argv[1:])


class Narrow(ResNet):
    """torchvision's ResNet-18 with `width` channels in the first stage and the 3x3 stem."""

    def __init__(self):
        super().__init__(BasicBlock, [2, 2, 2, 2], num_classes=10)
        self.conv1 = nn.Conv2d(3, width, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.maxpool = nn.Identity()
        self.fc = nn.Linear(8 * width, 10)

    def _make_layer(self, block, planes, *args, **kwargs):
        planes = planes * width // 64
        if planes == width:
            self.inplanes = planes
        return super()._make_layer(block, planes, *args, **kwargs)


model = Narrow()
optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
images = torch.rand(batch, 3, 32, 32) * 2 - 1
targets = torch.arange(batch) % 10
times = []
for _ in range(steps + 1):
    start = time.perf_counter()
    optimizer.zero_grad()
    nn.functional.cross_entropy(model(images), targets).backward()
    optimizer.step()
    times.append(time.perf_counter() - start)
print(sorted(times[1:])[steps // 2])
