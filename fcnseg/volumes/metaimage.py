"""Whether a MetaImage file is whole: of a broken one its library speaks on the terminal alone."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

from fcnseg.errors import InputError, one_line
from fcnseg.volumes.packed import ZLIB, check_unpacks

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


@dataclasses.dataclass(frozen=True)
class _Data:
    """Where the voxels are, and how many bytes the header promises of them."""

    file: Path
    start: int
    packed: bool
    promised: int


def check_header(path: str) -> None:
    """Checks that the header is whole, and that the file with the data is there.

    Raises:
        InputError: If not.
    """
    _find_data(path)


def check_data(path: str) -> None:
    """Checks that there are as many data as the header promises, packed ones to their checksum.

    Raises:
        InputError: If not.
    """
    data = _find_data(path)
    if data.packed:
        check_unpacks(data.file, data.start, wrapping=ZLIB, promised=data.promised, what=path)
        return
    present = data.file.stat().st_size - data.start
    if present < data.promised:
        raise InputError(f"not a whole volume: {path}: {present} of {data.promised} bytes of data")


def _find_data(path: str) -> _Data:
    header, length = _read_header(Path(path))
    name = header["ElementDataFile"]
    is_local = name == "LOCAL"
    file = Path(path) if is_local else Path(path).parent / name
    if not file.is_file():
        raise InputError(
            f"no such file: {name}, which {path} names for its data", code="file_missing"
        )
    try:
        voxels = math.prod(int(number) for number in header["DimSize"].split())
        channels = int(header.get("ElementNumberOfChannels", 1))
    except ValueError as error:
        raise InputError(f"not a readable volume: {path}: {one_line(error)}") from error
    return _Data(
        file=file,
        start=length if is_local else 0,
        packed=header.get("CompressedData", "").lower() == "true",
        promised=voxels * channels * _BYTES.get(header["ElementType"], 0),
    )


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
