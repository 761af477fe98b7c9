"""Loads an encoder file into torchvision's full-width network and embeds images with it, in float64.

    python3 torch_parity.py resnet18|resnet34|resnet50 ENCODER.safetensors X.safetensors H.safetensors

X holds x [n,h,w,3]. H receives h, the features before fc in training, and eval_h, those in evaluation with the
running statistics of the file. Prints {"missing": [names], "unexpected": [names]} of load_state_dict.
"""

import json
import sys

import torch
import torchvision

from common import nchw, read_safetensors, write_safetensors


def main(arch, encoder, source, target):
    model = torchvision.models.get_model(arch, weights=None).double()
    loaded = model.load_state_dict(read_safetensors(encoder), strict=False)
    model.fc = torch.nn.Identity()
    x = nchw(read_safetensors(source)["x"].double())
    with torch.no_grad():
        # Evaluation first: training moves the running statistics.
        eval_h = model.eval()(x)
        h = model.train()(x)
    write_safetensors(target, {"h": h, "eval_h": eval_h}, {"torch": torch.__version__})
    print(json.dumps({"missing": loaded.missing_keys, "unexpected": loaded.unexpected_keys}))


if __name__ == "__main__":
    main(*sys.argv[1:])
