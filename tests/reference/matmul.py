"""matmul: a and b as stored, read transposed where transpose_a or transpose_b is 1; leading axes are batches.

linear: x [n,in] times w [in,out] plus b [out].
"""

from common import Fixture

fixture = Fixture("matmul", seed=12)
draw = fixture.draw

#          case        m   k   n   batch of a, batch of b
SHAPES = [
    ("odd",            5,  7,  3,  (), ()),
    ("row",            1,  9,  6,  (), ()),
    ("column",         6,  5,  1,  (), ()),
    ("inner_one",      4,  1,  5,  (), ()),
    ("fours",          8,  12, 16, (), ()),
    ("off_tile",       33, 18, 37, (), ()),
    ("batched",        5,  6,  7,  (3,), (3,)),
    ("batched_fours",  8,  4,  4,  (2,), (2,)),
]

for case, m, k, n, batch_a, batch_b in SHAPES:
    for transpose_a in (0, 1):
        for transpose_b in (0, 1):

            def matmul(a, b):
                left = a.transpose(-1, -2) if transpose_a else a
                right = b.transpose(-1, -2) if transpose_b else b
                return left @ right

            inputs = {
                "a": draw.normal(*batch_a, *((k, m) if transpose_a else (m, k))),
                "b": draw.normal(*batch_b, *((n, k) if transpose_b else (k, n))),
            }
            name = f"{case}_{'t' if transpose_a else 'n'}{'t' if transpose_b else 'n'}"
            fixture.add(name, matmul, inputs, transpose_a=transpose_a, transpose_b=transpose_b)

for case, n, cin, cout, bias in [
    ("linear", 5, 7, 3, True),
    ("linear_fours", 8, 16, 12, True),
    ("linear_no_bias", 3, 6, 5, False),
    ("linear_one_row", 1, 9, 4, True),
]:
    inputs = {"x": draw.normal(n, cin), "w": draw.normal(cin, cout)}
    if bias:
        inputs["b"] = draw.normal(cout)
    fixture.add(case, lambda x, w, b=0: x @ w + b, inputs)

fixture.save()
