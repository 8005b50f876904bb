"""Frames of JPEG lossless, decoded for pydicom by the decoder inside SimpleITK.

pydicom itself decodes none. The plugins that it supports are a package under the GPL, and
python-gdcm, which loads an old zlib over that of every library after it: Python's own `gzip` may
then abort the process.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from fcnseg.errors import one_line
from fcnseg.extras import require_extra

SYNTAXES = ("1.2.840.10008.1.2.4.57", "1.2.840.10008.1.2.4.70")
PLUGIN = "simpleitk"

DECODER_DEPENDENCIES = dict.fromkeys(SYNTAXES, ("SimpleITK",))
"""Attributes that pydicom requires of a plugin."""

_END = b"\xff\xd9"  # the marker at the end of an image
_SOP_CLASS = "1.2.840.10008.5.1.4.1.1.7"  # Secondary Capture: the plainest kind of image


def is_available(uid: str) -> bool:
    """Tells whether frames of a transfer syntax can be decoded; part of pydicom's interface."""
    return uid in SYNTAXES


def register() -> None:
    """Registers this decoder with pydicom."""
    decoders = require_extra("pydicom.pixels.decoders")
    for decoder in (decoders.JPEGLosslessDecoder, decoders.JPEGLosslessSV1Decoder):
        if PLUGIN not in decoder.available_plugins:
            decoder.add_plugin(PLUGIN, (__name__, "decode_frame"))


def decode_frame(frame: bytes, runner: Any) -> bytearray:
    """Decodes a frame to little-endian pixels.

    Args:
        frame: The JPEG stream.
        runner: pydicom's description of the pixels.

    Raises:
        RuntimeError: If the stream is broken.
    """
    sitk = require_extra("SimpleITK")
    if not frame.rstrip(b"\0").endswith(_END):
        raise RuntimeError("a JPEG stream ends early")  # the decoder would fill in the missing rest
    with tempfile.TemporaryDirectory(prefix="fcnseg-") as folder:
        file = str(Path(folder) / "frame.dcm")
        _write_alone(frame, runner, file)
        try:
            pixels = sitk.GetArrayFromImage(sitk.ReadImage(file, imageIO="GDCMImageIO"))
        except RuntimeError as error:
            raise RuntimeError(one_line(error).rpartition("ERROR: ")[2]) from error
    kind = "i" if runner.pixel_representation else "u"
    return bytearray(pixels.astype(np.dtype(f"<{kind}{runner.bits_allocated // 8}")).tobytes())


def _write_alone(frame: bytes, runner: Any, file: str) -> None:
    """Writes a frame as a DICOM file of its own, without rescale."""
    pydicom = require_extra("pydicom")
    encapsulate = require_extra("pydicom.encaps").encapsulate
    alone = pydicom.Dataset()
    alone.file_meta = pydicom.dataset.FileMetaDataset()
    alone.file_meta.TransferSyntaxUID = runner.transfer_syntax
    alone.file_meta.MediaStorageSOPClassUID = alone.SOPClassUID = _SOP_CLASS
    alone.file_meta.MediaStorageSOPInstanceUID = alone.SOPInstanceUID = "1.2.3"
    alone.Rows, alone.Columns = runner.rows, runner.columns
    alone.SamplesPerPixel, alone.PhotometricInterpretation = 1, "MONOCHROME2"
    alone.BitsAllocated, alone.BitsStored = runner.bits_allocated, runner.bits_stored
    alone.HighBit, alone.PixelRepresentation = runner.bits_stored - 1, runner.pixel_representation
    alone.add_new("PixelData", "OB", encapsulate([frame]))
    alone["PixelData"].is_undefined_length = True
    alone.save_as(file, enforce_file_format=True)
