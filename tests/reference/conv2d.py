"""conv2d: x [n,h,w,in], w [kh,kw,in,out], optional bias b [out]; options stride, padding."""

import torch.nn.functional as F

from common import Fixture, nchw, nhwc, oihw

fixture = Fixture("conv2d", seed=11)
draw = fixture.draw

#         case               n  h   w   in out kh kw stride pad bias
CASES = [
    ("k1",                   2, 5, 7, 3, 5, 1, 1, 1, 0, False),
    ("k1_stride2",           2, 7, 5, 4, 8, 1, 1, 2, 0, False),
    ("k3",                   2, 6, 5, 4, 4, 3, 3, 1, 1, False),
    ("k3_bias",              3, 5, 4, 5, 3, 3, 3, 1, 1, True),
    ("k3_valid",             1, 7, 6, 1, 8, 3, 3, 1, 0, False),
    ("k3_stride2_odd",       2, 7, 9, 8, 4, 3, 3, 2, 1, False),
    ("k3_stride2_even",      2, 8, 6, 4, 8, 3, 3, 2, 1, False),
    ("k3_stride3",           1, 10, 8, 3, 2, 3, 3, 3, 1, True),
    ("k3_wide",              2, 5, 5, 16, 20, 3, 3, 1, 1, False),
    ("k5x4",                 2, 9, 8, 3, 5, 5, 4, 1, 2, True),
    ("k5x4_stride2",         1, 9, 11, 4, 4, 5, 4, 2, 1, False),
    ("k2_stride2",           2, 6, 4, 4, 4, 2, 2, 2, 0, False),
    ("k7_stem",              2, 16, 14, 3, 8, 7, 7, 2, 3, False),
    ("k7_stem_one_channel",  1, 15, 13, 1, 5, 7, 7, 2, 3, True),
    ("k4_whole_image",       3, 4, 4, 5, 6, 4, 4, 1, 0, True),
    ("one_pixel",            1, 1, 1, 4, 4, 3, 3, 1, 1, False),
]

for case, n, h, w, cin, cout, kh, kw, stride, padding, bias in CASES:
    inputs = {"x": draw.normal(n, h, w, cin), "w": draw.normal(kh, kw, cin, cout, scale=(kh * kw * cin) ** -0.5)}
    if bias:
        inputs["b"] = draw.normal(cout)

    def conv2d(x, w, b=None):
        return nhwc(F.conv2d(nchw(x), oihw(w), b, stride, padding))

    fixture.add(case, conv2d, inputs, stride=stride, padding=padding)

fixture.save()
