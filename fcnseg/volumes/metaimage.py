"""Whether a MetaImage file is whole: of a cut one its library speaks on the terminal alone."""

from __future__ import annotations

import math
from pathlib import Path

from fcnseg.errors import InputError

SUFFIXES = (".mha", ".mhd")

_MOST_HEADER = 2**16  # bytes; a header is a few hundred
_BYTES = {  # of MetaImage's element types
    "MET_CHAR": 1,
    "MET_UCHAR": 1,
    "MET_SHORT": 2,
    "MET_USHORT": 2,
    "MET_INT": 4,
    "MET_UINT": 4,
    "MET_LONG_LONG": 8,
    "MET_ULONG_LONG": 8,
    "MET_FLOAT": 4,
    "MET_DOUBLE": 8,
}


def check_whole(path: str) -> None:
    """Checks that the header is whole and that as much data follows as it promises.

    Raises:
        InputError: If not, or if the file with the data is missing.
    """
    header, length = _read_header(Path(path))
    data = header["ElementDataFile"]
    if data == "LOCAL":
        present = Path(path).stat().st_size - length
    elif (Path(path).parent / data).is_file():
        present = (Path(path).parent / data).stat().st_size
    else:
        raise InputError(
            f"no such file: {data}, which {path} names for its data", code="file_missing"
        )
    promised = _promised_bytes(header, path)
    if present < promised:
        raise InputError(f"not a whole volume: {path}: {present} of {promised} bytes of data")


def _read_header(path: Path) -> tuple[dict[str, str], int]:
    """The header's entries and its length in bytes."""
    with path.open("rb") as file:
        start = file.read(_MOST_HEADER)
    header: dict[str, str] = {}
    length = 0
    for line in start.splitlines(keepends=True):
        length += len(line)
        key, is_entry, value = line.decode("latin-1").partition("=")
        if not is_entry:
            break
        header[key.strip()] = value.strip()
        if key.strip() == "ElementDataFile":
            break
    missing = [key for key in ("DimSize", "ElementType", "ElementDataFile") if key not in header]
    if missing:
        raise InputError(f"not a readable volume: {path}: its header has no {', '.join(missing)}")
    return header, length


def _promised_bytes(header: dict[str, str], path: str) -> int:
    if header.get("CompressedData", "").lower() == "true":
        return int(header.get("CompressedDataSize", 0))
    try:
        voxels = math.prod(int(length) for length in header["DimSize"].split())
    except ValueError as error:
        raise InputError(
            f"not a readable volume: {path}: DimSize must be whole numbers, got {header['DimSize']}"
        ) from error
    channels = int(header.get("ElementNumberOfChannels", 1))
    return voxels * channels * _BYTES.get(header["ElementType"], 0)
