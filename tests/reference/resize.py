"""Pillow's antialiased resizing (BILINEAR) and its JPEG decoder, on images small enough to commit.

Each case `<name>` has `x` [h, w, c] and `y` [h', w', c], both u8; `jpeg_<name>` has the file's bytes as `file` and the
decoded pixels `y`.
"""

import io

import numpy
from PIL import Image

from common import Fixture

fixture = Fixture("resize", seed=21)


def noise(*shape):
    return fixture.draw.random.randint(0, 256, shape, dtype=numpy.int64).astype(numpy.uint8)


def image(x):
    return Image.fromarray(x[:, :, 0] if x.shape[2] == 1 else x)


def array(picture):
    y = numpy.array(picture)
    return y if y.ndim == 3 else y[:, :, None]


RESIZES = [
    ("gray_down", (61, 47, 1), (17, 13)),
    ("rgb_down", (40, 33, 3), (16, 11)),
    ("gray_up", (7, 5, 1), (16, 18)),
    ("rgb_mixed", (9, 50, 3), (20, 15)),
    ("to_a_pixel", (13, 29, 1), (1, 1)),
    ("same", (6, 8, 1), (6, 8)),
]
for case, shape, (height, width) in RESIZES:
    x = noise(*shape)
    # Black and white blocks: the extremes must neither wrap nor lose a level.
    x[: shape[0] // 3] = 255
    x[shape[0] // 3 : shape[0] // 2] = 0
    fixture.put(case, x=x, y=array(image(x).resize((width, height), Image.BILINEAR)))

# Smooth pictures: on noise, decoders differ by how they enlarge the color planes.
row, column = numpy.mgrid[0:24, 0:31]
smooth = numpy.stack([5 * row + 3 * column, 200 - 4 * column, 40 + 6 * row], -1).astype(numpy.uint8)
JPEGS = [
    ("gray", smooth[:, :, :1], {}),
    ("rgb", smooth, {}),
    ("progressive", smooth, {"progressive": True}),
]
for case, x, options in JPEGS:
    file = io.BytesIO()
    image(x).save(file, "JPEG", quality=90, **options)
    y = array(Image.open(file))
    fixture.put(f"jpeg_{case}", file=numpy.frombuffer(bytearray(file.getvalue()), numpy.uint8), y=y)

fixture.save()
