"""A training step of ResNet-18 of width 8, with both stems: resnet18_7x7 and resnet18_3x3.

param.<name>   torchvision's parameters, in torchvision's layouts, before the step
x              [n,h,w,c]
h              [n,64], the globally pooled features in training; eval_h in evaluation after the step
dy             the upstream gradient of h
grad.<name>    the gradients of sum(h · dy)
buffer.<name>  the running statistics after the step, from 0 and 1 with momentum 0.1
"""

import torch
from torch import nn
from torchvision.models.resnet import BasicBlock, ResNet

from common import Draw, nchw, save


class SmallResNet18(ResNet):
    """torchvision's ResNet-18 with `width` channels in the first stage in place of 64, and without fc."""

    def __init__(self, width, channels, stem):
        self.width = width
        super().__init__(BasicBlock, [2, 2, 2, 2])
        kernel, stride, padding = (7, 2, 3) if stem == "7x7" else (3, 1, 1)
        self.conv1 = nn.Conv2d(channels, width, kernel, stride, padding, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        if stem == "3x3":
            self.maxpool = nn.Identity()
        self.fc = nn.Identity()

    def _make_layer(self, block, planes, *args, **kwargs):
        planes = planes * self.width // 64
        if planes == self.width:
            self.inplanes = planes
        return super()._make_layer(block, planes, *args, **kwargs)


def draw_problem(stem, batch, size, channels, seed):
    """The network, x and dy of a variant, in float64."""
    draw = Draw(seed)
    model = SmallResNet18(8, channels, stem).double()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() == 4:
                fan_out = parameter.shape[0] * parameter.shape[2] * parameter.shape[3]
                parameter.copy_(draw.normal(*parameter.shape, scale=(2 / fan_out) ** 0.5))
            elif name.endswith("weight"):
                parameter.copy_(draw.uniform(0.5, 1.5, *parameter.shape))
            else:
                parameter.copy_(draw.normal(*parameter.shape, scale=0.2))
    return model, draw.normal(batch, size, size, channels), draw.normal(batch, 64)


def training_step(model, x, dy):
    """h and the gradients of sum(h · dy) by parameter name; updates the running statistics."""
    model.train()
    h = model(nchw(x))
    gradients = torch.autograd.grad((h * dy).sum(), list(model.parameters()))
    return h, dict(zip((name for name, _ in model.named_parameters()), gradients))


def main():
    # Where float32 and float64 disagree about the sign of a ReLU's input, or about which of two values a pool picks,
    # a gradient moves by far more than rounding. Of 400 seeds these two leave the most room: every decision is farther
    # from a tie than three times the largest error of PyTorch's own float32 at that layer.
    for stem, batch, size, channels, seed in [("7x7", 8, 64, 3, 249), ("3x3", 4, 32, 1, 177)]:
        model, x, dy = draw_problem(stem, batch, size, channels, seed)
        tensors = {f"param.{name}": parameter.clone() for name, parameter in model.named_parameters()}
        h, gradients = training_step(model, x, dy)
        tensors |= {"x": x, "h": h, "dy": dy}
        tensors |= {f"grad.{name}": gradient for name, gradient in gradients.items()}
        tensors |= {f"buffer.{name}": buffer for name, buffer in model.named_buffers()}
        with torch.no_grad():
            tensors["eval_h"] = model.eval()(nchw(x))
        save(f"resnet18_{stem}", tensors, seed)


if __name__ == "__main__":
    main()
