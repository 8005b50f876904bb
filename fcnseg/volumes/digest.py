"""Digest of a volume, which detects whether a file was replaced."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import numpy as np

from fcnseg.errors import InputError, one_line
from fcnseg.volumes.formats.reading import HEADERS_ALONE, read_ct

_BLOCK = 2**20  # bytes in memory at one time


def image_digest(path: str | os.PathLike[str]) -> str:
    """Computes the SHA-256 of an image: of its file, or of all files of a folder, in any order.

    If a header has its voxels in another file, it is the digest of the grid and the voxels.

    Args:
        path: A volume in any format that `read_ct` takes; hidden files of a folder are ignored.

    Raises:
        InputError: If it cannot be read.
    """
    image = Path(path)
    if image.name.lower().endswith(HEADERS_ALONE):
        volume = read_ct(image)
        digest = hashlib.sha256(np.array(volume.affine).tobytes())
        digest.update(np.ascontiguousarray(volume.array).data)
        return digest.hexdigest()
    try:
        if not image.is_dir():
            return _file_digest(image)
        files = [file for file in image.rglob("*") if file.is_file() and file.name[0] != "."]
        return hashlib.sha256("".join(sorted(map(_file_digest, files))).encode()).hexdigest()
    except OSError as error:
        raise InputError(f"{image} cannot be read: {one_line(error)}") from error


def _file_digest(file: Path) -> str:
    digest = hashlib.sha256()
    with open(file, "rb") as stream:
        while block := stream.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()
