"""Saves a torchvision network of random weights, and its features of gray images as torchvision would see them.

    python3 torch_save.py resnet18|resnet34|resnet50 X.safetensors FOLDER

X holds x [n,h,w], gray levels of 0 to 255. FOLDER receives zip.pth, the state_dict; legacy.pth, a checkpoint
of DataParallel in the format of before PyTorch 1.6; and h.safetensors with h [n,d], the features before fc
in evaluation, of the levels repeated in three channels and normalised by ImageNet's mean and standard deviation.
"""

import sys
from pathlib import Path

import torch
import torchvision

from common import read_safetensors, write_safetensors


def main(arch, source, folder):
    torch.manual_seed(0)
    model = torchvision.models.get_model(arch, weights=None)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.weight.data.uniform_(0.5, 1.5)
            module.bias.data.normal_(0, 0.2)
            module.running_mean.normal_(0, 0.2)
            module.running_var.uniform_(0.5, 2)
    state = model.state_dict()
    torch.save(state, Path(folder) / "zip.pth")
    parallel = {f"module.{name}": value for name, value in state.items()}
    torch.save(
        {"epoch": 1, "state_dict": parallel},
        Path(folder) / "legacy.pth",
        _use_new_zipfile_serialization=False,
    )
    model.fc = torch.nn.Identity()
    x = read_safetensors(source)["x"].double()[:, None].repeat(1, 3, 1, 1) / 255
    mean = torch.tensor([0.485, 0.456, 0.406], dtype=torch.float64)[:, None, None]
    std = torch.tensor([0.229, 0.224, 0.225], dtype=torch.float64)[:, None, None]
    with torch.no_grad():
        h = model.double().eval()((x - mean) / std)
    write_safetensors(Path(folder) / "h.safetensors", {"h": h}, {"torch": torch.__version__})


if __name__ == "__main__":
    main(*sys.argv[1:])
