"""Twenty fine-tuning steps: ResNet-18 of width 4 with a linear layer, BCE with pos_weight and missing labels, AdamW.

param.<name>  torchvision's parameters, in torchvision's layouts, before the first step
x             [32,16,16,1]; step s takes the eight images from 8·s mod 32 on
targets       [32,3], NaN where a label is missing
posWeight     [3]
losses        [20], each before its step
"""

import torch
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits

from common import Draw, nchw, save
from resnet18 import SmallResNet18

SEED = 11
LABELS, IMAGES, BATCH, STEPS = 3, 32, 8, 20


def main():
    draw = Draw(SEED)
    model = SmallResNet18(4, 1, "3x3")
    model.fc = nn.Linear(32, LABELS)
    model.double()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() == 4:
                fan_out = parameter.shape[0] * parameter.shape[2] * parameter.shape[3]
                parameter.copy_(draw.normal(*parameter.shape, scale=(2 / fan_out) ** 0.5))
            elif name.startswith("fc."):
                parameter.copy_(draw.uniform(-0.2, 0.2, *parameter.shape))
            elif name.endswith("weight"):
                parameter.copy_(draw.uniform(0.5, 1.5, *parameter.shape))
            else:
                parameter.copy_(draw.normal(*parameter.shape, scale=0.2))
    x = draw.normal(IMAGES, 16, 16, 1)
    targets = draw.integers(2, IMAGES, LABELS).double()
    targets[draw.uniform(0, 1, IMAGES, LABELS) < 0.2] = float("nan")
    weight = torch.stack([(column == 0).sum() / (column == 1).sum() for column in targets.T]).double()
    weight = weight.float().double()
    tensors = {f"param.{name}": parameter.clone() for name, parameter in model.named_parameters()}

    # wgrad decays no biases and no normalisations.
    decayed = [p for p in model.parameters() if p.dim() > 1]
    others = [p for p in model.parameters() if p.dim() == 1]
    optimizer = torch.optim.AdamW(
        [{"params": decayed, "weight_decay": 0.05}, {"params": others, "weight_decay": 0.0}], lr=3e-4
    )
    losses = []
    model.train()
    for step in range(STEPS):
        start = BATCH * step % IMAGES
        y = targets[start : start + BATCH]
        known = ~y.isnan()
        cells = binary_cross_entropy_with_logits(
            model(nchw(x[start : start + BATCH])), y.nan_to_num(), pos_weight=weight, reduction="none"
        )
        loss = cells[known].mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    save("finetune", tensors | {"x": x, "targets": targets, "posWeight": weight, "losses": torch.tensor(losses)}, SEED)


if __name__ == "__main__":
    main()
