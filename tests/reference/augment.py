"""torchvision's colour operations and Gaussian blur on x [h, w, c], u8; y is float in [0, 1].

Options of a case: `operations` (numbers of OPERATIONS, in order) with their `factors`, `gamma`, `gray`, and `sigma` of
a blur whose kernel spans a tenth of the image. Factors are exact in float32.
"""

import numpy
import torch
from torchvision.transforms import functional as F

from common import Fixture

fixture = Fixture("augment", seed=27)
OPERATIONS = ["brightness", "contrast", "saturation", "hue"]
ADJUST = [F.adjust_brightness, F.adjust_contrast, F.adjust_saturation, F.adjust_hue]


def image(size, channels):
    """Noise with black, white, gray and the pure colours, where the hue has its corners."""
    x = fixture.draw.random.randint(0, 256, (size, size, channels), dtype=numpy.int64).astype(numpy.uint8)
    x[0, 1] = 255
    x[1, 0] = 0
    x[2:4, :4] = x[2:4, :4, :1]
    for corner in range(8):
        x[5, corner] = [255 * (corner >> c & 1) for c in range(channels)]
        x[6, corner] = [100 + 50 * (corner >> c & 1) for c in range(channels)]
    return x


def add(case, x, jitter=(), gamma=1.0, gray=False, sigma=0.0):
    y = torch.from_numpy(x).double().permute(2, 0, 1) / 255
    jitter = [(name, float(numpy.float32(factor))) for name, factor in jitter]
    gamma, sigma = (float(numpy.float32(value)) for value in (gamma, sigma))
    for name, factor in jitter:
        y = ADJUST[OPERATIONS.index(name)](y, factor)
    if gamma != 1:
        y = F.adjust_gamma(y, gamma)
    if gray:
        y = F.rgb_to_grayscale(y, y.shape[0])
    if sigma > 0:
        kernel = 2 * max(1, x.shape[0] // 20) + 1
        y = F.gaussian_blur(y, kernel, sigma)
    fixture.put(
        case,
        x=x,
        y=y.permute(1, 2, 0),
        operations=torch.tensor([OPERATIONS.index(name) for name, _ in jitter], dtype=torch.int64),
        factors=torch.tensor([factor for _, factor in jitter], dtype=torch.float64),
        gamma=gamma,
        gray=gray,
        sigma=sigma,
    )


for channels, kind in [(3, "rgb"), (1, "gray")]:
    x = image(16, channels)
    for name, factors in [("brightness", [0.3, 1.7]), ("contrast", [0.2, 1.8])]:
        for i, factor in enumerate(factors):
            add(f"{kind}_{name}_{i}", x, [(name, factor)])
    for i, gamma in enumerate([0.6, 1.4]):
        add(f"{kind}_gamma_{i}", x, gamma=gamma)
    add(f"{kind}_gray", x, gray=True)
    if channels == 3:
        for name, factors in [("saturation", [0.0, 0.4, 1.8]), ("hue", [-0.5, -0.13, 0.07, 0.2])]:
            for i, factor in enumerate(factors):
                add(f"{kind}_{name}_{i}", x, [(name, factor)])
    jitter = [("brightness", 1.4), ("contrast", 0.7), ("saturation", 1.5), ("hue", -0.08)]
    add(f"{kind}_all", x, jitter, gamma=1.2, gray=True, sigma=0.7)
    add(f"{kind}_reversed", x, jitter[::-1], gamma=0.9)

for case, size, channels, sigma in [
    ("rgb_blur_0", 16, 3, 0.1),
    ("rgb_blur_1", 33, 3, 0.8),
    ("gray_blur_0", 33, 1, 2.0),
    ("gray_blur_1", 64, 1, 1.5),
]:
    add(case, image(size, channels), sigma=sigma)

fixture.save()
