"""JPEG lossless in all forms that encoders may write: what a decoder must read exactly."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from dicom_series import make_slices, write
from pydicom.encaps import encapsulate
from pydicom.uid import JPEGLossless

from fcnseg.errors import InputError
from fcnseg.volumes import read_ct

SHAPE = (2, 12, 20)
PREDICTORS = {  # of ITU-T T.81, table H.1, by the left, the upper and the upper left neighbour
    1: lambda left, up, corner: left,
    2: lambda left, up, corner: up,
    3: lambda left, up, corner: corner,
    4: lambda left, up, corner: left + up - corner,
    5: lambda left, up, corner: left + ((up - corner) >> 1),
    6: lambda left, up, corner: up + ((left - corner) >> 1),
    7: lambda left, up, corner: (left + up) >> 1,
}


def pixels(bits: int) -> np.ndarray:
    """Numbers (z, y, x) with differences of every size."""
    return np.random.default_rng(bits).integers(0, 2**bits, SHAPE).astype(np.uint16)


def encode(image, *, bits, predictor=1, point_transform=0, rows_between_restarts=0) -> bytes:
    """Encodes an image (y, x); each difference takes a Huffman code of five bits and its own."""
    rows, columns = image.shape
    values = image.astype(int) >> point_transform
    head = [
        b"\xff\xd8\xff\xc4" + struct.pack(">HB", 36, 0) + bytes([0, 0, 0, 0, 17, *[0] * 11]),
        bytes(range(17)) + b"\xff\xc3" + struct.pack(">HBHHB", 11, bits, rows, columns, 1),
        b"\x01\x11\x00",
        b"\xff\xdd" + struct.pack(">HH", 4, rows_between_restarts * columns)
        if rows_between_restarts
        else b"",
        b"\xff\xda" + struct.pack(">HB", 8, 1) + bytes([1, 0, predictor, 0, point_transform]),
    ]
    segments = [values]
    if rows_between_restarts:
        segments = np.split(values, range(rows_between_restarts, rows, rows_between_restarts))
    start = 1 << (bits - point_transform - 1)
    packed = [_segment(part, PREDICTORS[predictor], start) for part in segments]
    for index in range(len(packed) - 1):
        packed[index] += bytes([0xFF, 0xD0 + index % 8])
    return b"".join([*head, *packed, b"\xff\xd9"])


def _segment(values, predict, start) -> bytes:
    words = []
    for (y, x), value in np.ndenumerate(values):
        if y and x:
            guess = predict(values[y, x - 1], values[y - 1, x], values[y - 1, x - 1])
        else:
            guess = values[y, x - 1] if x else values[y - 1, x] if y else start
        difference = (int(value - guess) + 0x8000) % 0x10000 - 0x8000  # of 16 bits
        if difference == -0x8000:
            words.append(f"{16:05b}")
            continue
        size = abs(difference).bit_length()
        own = difference if difference > 0 else difference + (1 << size) - 1
        words.append(f"{size:05b}" + (f"{own:0{size}b}" if size else ""))
    text = "".join(words)
    text += "1" * (-len(text) % 8)
    return int(text, 2).to_bytes(len(text) // 8, "big").replace(b"\xff", b"\xff\x00")


def write_frames(folder, stored, frames, *, bits):
    slices = make_slices(stored, bits=bits)
    for made, frame in zip(slices, frames, strict=True):
        made.file_meta.TransferSyntaxUID = JPEGLossless
        made.PixelData = encapsulate([frame])
        made["PixelData"].VR = "OB"
        made["PixelData"].is_undefined_length = True
        made.RescaleIntercept = -(2 ** (bits - 1))
    return write(slices, folder)


@pytest.mark.parametrize("bits", [12, 16])
@pytest.mark.parametrize(
    "form",
    [
        *({"predictor": predictor} for predictor in PREDICTORS),
        {"point_transform": 2},
        {"rows_between_restarts": 1},
        {"rows_between_restarts": 5, "predictor": 7},
    ],
    ids=str,
)
def test_each_form_is_read_exactly(tmp_path, bits, form):
    stored = pixels(bits)
    shift = form.get("point_transform", 0)
    frames = [encode(image, bits=bits, **form) for image in stored]
    series = write_frames(tmp_path / "series", stored, frames, bits=bits)
    expected = (stored.astype(int) >> shift << shift) - 2 ** (bits - 1)
    np.testing.assert_array_equal(read_ct(series).array, expected)


@pytest.mark.parametrize("cut", [1, 2, 40, 200])
def test_a_cut_frame_is_refused(tmp_path, cut):
    stored = pixels(12)
    whole, other = (encode(image, bits=12) for image in stored)
    series = write_frames(tmp_path / "series", stored, [whole, other[:-cut]], bits=12)
    with pytest.raises(InputError, match="stream ends early"):
        read_ct(series)
