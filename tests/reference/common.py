"""What every fixture script shares: numbers to start from, cases, and the file they are written to.

A fixture holds, for each case, the inputs of one operation, its value and the gradients of all inputs
for a random upstream gradient. PyTorch computes in float64 on inputs that are exact in float32, and only
the results are rounded. Activations are [n, h, w, c] and convolution weights [kh, kw, in, out], as in the
operations under test; `nchw` and `oihw` turn them into PyTorch's layouts inside the differentiated function,
so that the gradients come back in ours.

    python3 tests/reference/<topic>.py [folder]      # writes <folder>/<topic>.safetensors
"""

import json
import struct
import sys
from pathlib import Path

import numpy
import torch

ROOT = Path(__file__).resolve().parents[2]
DTYPES = {torch.float64: "F64", torch.float32: "F32", torch.int64: "I64", torch.uint8: "U8"}


def nchw(x):
    """[n, h, w, c] to [n, c, h, w]."""
    return x.permute(0, 3, 1, 2)


def nhwc(x):
    """[n, c, h, w] to [n, h, w, c]."""
    return x.permute(0, 2, 3, 1)


def oihw(w):
    """[kh, kw, in, out] to [out, in, kh, kw]."""
    return w.permute(3, 2, 0, 1)


def hwio(w):
    """[out, in, kh, kw] to [kh, kw, in, out]."""
    return w.permute(2, 3, 1, 0)


class Draw:
    """Random float64 tensors whose values are exact in float32. NumPy's RandomState is frozen across versions."""

    def __init__(self, seed):
        self.random = numpy.random.RandomState(seed)

    def normal(self, *shape, scale=1.0, mean=0.0):
        return self.exact(self.random.standard_normal(shape) * scale + mean)

    def uniform(self, low, high, *shape):
        return self.exact(self.random.uniform(low, high, shape))

    def integers(self, high, *shape):
        return torch.from_numpy(self.random.randint(0, high, shape, dtype=numpy.int64))

    def permutation(self, n):
        return torch.from_numpy(self.random.permutation(n).astype(numpy.int64))

    @staticmethod
    def exact(values):
        return torch.from_numpy(numpy.asarray(values, numpy.float32).astype(numpy.float64))


class Fixture:
    """The cases of one file: `add` them, then `save`."""

    def __init__(self, name, seed):
        self.name = name
        self.seed = seed
        self.draw = Draw(seed)
        self.tensors = {}

    def put(self, case, **values):
        """Stores tensors and options (whole numbers as I64, others as F32) as `case.name`."""
        for name, value in values.items():
            self.tensors[f"{case}.{name}"] = value

    def add(self, case, function, inputs, **options):
        """Stores inputs, the value y = function(*inputs), a random dy, each input's gradient d<name>, and options.

        A scalar value gets dy = 1. Returns y.
        """
        leaves = {name: x.clone().requires_grad_() for name, x in inputs.items()}
        y = function(*leaves.values())
        dy = self.draw.normal(*y.shape) if y.dim() > 0 else torch.ones((), dtype=y.dtype)
        gradients = torch.autograd.grad(y, list(leaves.values()), dy)
        self.put(case, **inputs, **options, dy=dy, y=y)
        self.put(case, **{f"d{name}": g for name, g in zip(leaves, gradients)})
        return y.detach()

    def save(self):
        save(self.name, self.tensors, self.seed)


def encode(value):
    """A tensor in one of the stored types: NumPy arrays as they are, numbers and float64 tensors as float32."""
    if isinstance(value, numpy.ndarray):
        return torch.from_numpy(numpy.ascontiguousarray(value))
    value = torch.as_tensor(value).detach()
    if value.dtype == torch.bool:
        value = value.to(torch.int64)
    if value.is_floating_point():
        value = value.to(torch.float32)
    return value.contiguous()


def save(name, tensors, seed):
    """Writes <folder>/<name>.safetensors; the folder is the script's argument, or tests/fixtures."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "tests" / "fixtures"
    script = Path(sys.argv[0]).resolve().relative_to(ROOT).as_posix()
    metadata = {"script": script, "torch": torch.__version__, "seed": str(seed)}
    write_safetensors(folder / f"{name}.safetensors", tensors, metadata)


def write_safetensors(path, tensors, metadata):
    """The safetensors format: u64 header length, JSON header padded with spaces to 8 bytes, the values."""
    header = {"__metadata__": metadata}
    chunks = []
    offset = 0
    encoded = [(name, encode(value)) for name, value in tensors.items()]
    # Wider types first: without padding between tensors, only this order keeps every one aligned.
    for name, tensor in sorted(encoded, key=lambda item: -item[1].element_size()):
        data = tensor.numpy().tobytes()
        header[name] = {
            "dtype": DTYPES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [offset, offset + len(data)],
        }
        offset += len(data)
        chunks.append(data)
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    Path(path).write_bytes(struct.pack("<Q", len(text)) + text + b"".join(chunks))


def read_safetensors(path):
    """The tensors of a safetensors file of F64, F32, I64 and U8, by name."""
    raw = Path(path).read_bytes()
    (length,) = struct.unpack_from("<Q", raw)
    header = json.loads(raw[8 : 8 + length])
    types = {"F64": numpy.float64, "F32": numpy.float32, "I64": numpy.int64, "U8": numpy.uint8}
    tensors = {}
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        begin, end = (8 + length + at for at in entry["data_offsets"])
        values = numpy.frombuffer(raw[begin:end], types[entry["dtype"]]).reshape(entry["shape"])
        tensors[name] = torch.from_numpy(values.copy())
    return tensors
