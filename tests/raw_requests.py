"""Feeds tensors of any rank, size and type to a SavedModel, as a C++ server does.

Run as a script, so that what ends the process ends a process of its own. Python's checks of a
feed's shape are skipped: the server has none. Writes a JSON object of each request, then
one of its reply.
"""

from __future__ import annotations

import gzip
import json
import sys

import nibabel as nib
import numpy as np
import tensorflow as tf

TYPES = (
    *("float32", "float64", "float16", "bfloat16", "int8", "int16", "int32", "int64"),
    *("uint8", "uint16", "uint32", "uint64", "bool", "complex64", "complex128", "object"),
)
SIZES = (0, 1, 2, 3, 5, 8, 12, 17)
LENGTHS_MM = (0, -1, 1e-40, 1e-30, 1e-3, 0.5, 2, 3, 50, 1e3, 1e9, 1e38, np.nan, np.inf)


class RawSession:
    """A v1 session that takes any tensor for an input."""

    def __init__(self, directory):
        self.graph = tf.Graph()
        self.session = tf.compat.v1.Session(graph=self.graph)
        with self.graph.as_default():
            loaded = tf.compat.v1.saved_model.load(self.session, ["serve"], directory)
        self.signatures = {
            name: signature
            for name, signature in loaded.signature_def.items()
            if not name.startswith("__")
        }

    def run(self, signature_name, inputs):
        """`OK`, or the name of the error's code and its message."""
        signature = self.signatures[signature_name]
        feeds = {self._tensor(signature.inputs[k]).ref(): v for k, v in inputs.items()}
        fetches = [self._tensor(info) for info in signature.outputs.values()]
        try:
            self.session._do_run(None, [], fetches, feeds, None, None)
        except tf.errors.OpError as error:
            return type(error).__name__, error.message
        return "OK", ""

    def _tensor(self, info):
        return self.graph.get_tensor_by_name(info.name)


def fitting(name, draw):
    """An input that the model takes, but perhaps for its size."""
    if name == "patches":
        sizes = draw.choice((2, 4, 7, 8, 12), 3)
        return draw.normal(0, 300, (draw.integers(1, 3), *sizes, 1)).astype(np.float32)
    if name == "volume":
        return draw.integers(-1000, 1000, draw.integers(1, 20, 3)).astype(np.int16)
    if name == "spacing":
        usual = draw.random() < 0.7
        return draw.choice((0.5, 2, 3, 50) if usual else LENGTHS_MM, 3).astype(np.float32)
    if name == "nifti_bytes":
        return np.array(nifti_bytes(draw), object)
    return np.zeros((), np.int32)


def nifti_bytes(draw):
    """A NIfTI file of either version and byte order, of which bytes may be wrong or missing."""
    kind = nib.Nifti1Image if draw.random() < 0.7 else nib.Nifti2Image
    header = kind.header_class(endianness=str(draw.choice(["<", ">"])))
    dtype = draw.choice(["u1", "i2", "i4", "f4", "f8", "u8"])
    shape = (*draw.integers(9, 12, 2), draw.integers(1, 4))
    hu = draw.integers(0, 100, shape).astype(dtype)
    image = kind(hu, np.diag([9.0, 9, 2, 1]), header)  # as few windows as can be: it is quick
    image.header.set_slope_inter(20, -1000)
    content = bytearray(image.to_bytes())
    for _ in range(draw.integers(0, 4)):
        content[draw.integers(0, 352)] = draw.integers(0, 256)
    if draw.random() < 0.2:
        content = content[: draw.integers(0, len(content))]
    if draw.random() < 0.5:
        content = bytearray(gzip.compress(bytes(content), 1))
        if draw.random() < 0.3:
            content[draw.integers(0, len(content))] = draw.integers(0, 256)
    return bytes(content)


def any_tensor(draw, dtype):
    """A tensor of any rank that can be fed and, mostly, any small size."""
    rank = draw.integers(0, 8) if draw.random() < 0.9 else draw.integers(8, 33)
    shape = draw.choice(SIZES[: 8 if rank < 6 else 3 if rank < 9 else 2], rank)
    if draw.random() < 0.1:  # one long axis: a huge matrix, if it were resampled
        shape = np.where(np.arange(rank) == draw.integers(0, 8), 90_000, np.minimum(shape, 1))
    if dtype == "object":
        return np.full(shape, bytes(draw.bytes(draw.integers(0, 700))), object)
    values = np.asarray(draw.normal(0, 300, shape))
    if draw.random() < 0.2:
        values = np.full(shape, draw.choice((np.nan, np.inf, -np.inf, 1e38)))
    with np.errstate(invalid="ignore", over="ignore"):
        return values.astype(tf.as_dtype(dtype).as_numpy_dtype)


def random_requests(signatures, count, seed):
    """Requests with at least one input that is drawn at random."""
    draw = np.random.default_rng(seed)
    for number in range(count):
        name = list(signatures)[number % len(signatures)]
        expected = signatures[name].inputs
        inputs = {}
        for key, info in expected.items():
            dtype = tf.as_dtype(info.dtype).name.replace("string", "object")
            if draw.random() < 0.2:
                dtype = str(draw.choice(TYPES))
            is_odd = len(expected) == 1 or draw.random() < 0.6
            inputs[key] = any_tensor(draw, dtype) if is_odd else fitting(key, draw)
            if len(expected) == 1 and draw.random() < (0.8 if key == "nifti_bytes" else 0.3):
                inputs[key] = fitting(key, draw)
        yield name, inputs


def write_line(content):
    sys.stdout.write(json.dumps(content) + "\n")
    sys.stdout.flush()


def main(directory, count, seed):
    session = RawSession(directory)
    for name, inputs in random_requests(session.signatures, int(count), int(seed)):
        shown = {key: f"{value.dtype}{list(value.shape)}" for key, value in inputs.items()}
        write_line({"signature": name, "inputs": shown})
        code, message = session.run(name, inputs)
        write_line({"code": code, "message": message})


if __name__ == "__main__":
    main(*sys.argv[1:])
