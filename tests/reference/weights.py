"""Weights as torch.save writes them, in both formats, and what they hold: weights_*.pth and weights.safetensors."""

import sys
from collections import OrderedDict
from pathlib import Path

import torch

from common import ROOT, Draw, save

SEED = 0


def tensors(draw):
    """Every dtype, and every way to lie in memory."""
    base = draw.normal(4, 6).float()
    return OrderedDict(
        f32=draw.normal(2, 3).float(),
        f64=draw.normal(3),
        f16=draw.normal(3).half(),
        bf16=draw.normal(3).bfloat16(),
        i64=torch.tensor([-(2**40), 3]),
        i32=torch.tensor([-70000, 70000], dtype=torch.int32),
        i16=torch.tensor([-300, 300], dtype=torch.int16),
        i8=torch.tensor([-128, 127], dtype=torch.int8),
        u8=torch.tensor([0, 255], dtype=torch.uint8),
        bool=torch.tensor([True, False, True]),
        scalar=torch.tensor(1.5),
        empty=torch.empty(0, 3),
        parameter=torch.nn.Parameter(draw.normal(2).float()),
        transposed=draw.normal(3, 5).float().t(),
        channels_last=draw.normal(2, 3, 2, 2).float().to(memory_format=torch.channels_last),
        expanded=draw.normal(3, 1).float().expand(3, 4),
        base=base,
        tied=base,
        row=base[2],
        block=base[1:3, 2:5],
        every_other=base[:, ::2],
    )


def checkpoint(draw):
    """What a training script saves: the weights of a DataParallel model among other things."""
    model = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3), torch.nn.BatchNorm2d(2))
    for parameter in model.parameters():
        parameter.data = draw.normal(*parameter.shape).float()
    optimizer = torch.optim.Adam(model.parameters())
    model(torch.ones(1, 1, 4, 4)).sum().backward()
    optimizer.step()
    state = torch.nn.DataParallel(model).state_dict()
    return state, {
        "epoch": 3,
        "arch": "resnet18",
        "seed": 2**70,
        "lr": 0.1,
        "best": torch.tensor(0.5),
        "flags": [True, False, None, (), (1, 2, 3, -70000), 300],
        "size": torch.Size([1, 2]),
        "device": torch.device("cuda", 0),
        "dtype": torch.float16,
        "nested": {"state_dict": state},
        "optimizer": optimizer.state_dict(),
    }


def main():
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "tests" / "fixtures"
    draw = Draw(SEED)
    values = tensors(draw)
    state, whole = checkpoint(draw)
    torch.save(values, folder / "weights_zip.pth")
    torch.save(values, folder / "weights_legacy.pth", _use_new_zipfile_serialization=False)
    torch.save(whole, folder / "weights_checkpoint_zip.pth", pickle_protocol=4)
    torch.save(whole, folder / "weights_checkpoint_legacy.pth", _use_new_zipfile_serialization=False)
    short = {name[len("module.") :]: value for name, value in state.items()}
    expected = {f"values.{name}": value for name, value in values.items()}
    expected.update({f"checkpoint.{name}": value for name, value in short.items()})
    save("weights", {name: value.float() for name, value in expected.items()}, SEED)


if __name__ == "__main__":
    main()
