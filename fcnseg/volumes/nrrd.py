"""Where the packed data of an NRRD file are, for a check that its library leaves out."""

from __future__ import annotations

from pathlib import Path

from fcnseg.volumes.packed import GZIP, check_unpacks

SUFFIXES = (".nrrd", ".nhdr")

_DATA_FILE = (b"data file", b"datafile")


def check_data(path: str) -> None:
    """Checks that gzipped data unpack to their checksum.

    Raises:
        InputError: If not.
    """
    fields, length = _read_header(Path(path))
    if fields.get(b"encoding") not in (b"gzip", b"gz"):
        return
    name = next((fields[key] for key in _DATA_FILE if key in fields), None)
    file = Path(path) if name is None else Path(path).parent / name.decode("utf-8", "replace")
    skips = any(key in fields for key in (b"byte skip", b"byteskip", b"line skip", b"lineskip"))
    if file.is_file() and not skips:  # else the data lie in several files, or not at the start
        start = length if name is None else 0
        check_unpacks(file, start, wrapping=GZIP, promised=0, what=path)


def _read_header(path: Path) -> tuple[dict[bytes, bytes], int]:
    """The fields of the header, and its length with the empty line after it."""
    fields: dict[bytes, bytes] = {}
    with path.open("rb") as file:
        for line in iter(file.readline, b""):
            key, colon, value = line.partition(b": ")
            if colon:
                fields[key.lower()] = value.strip()
            if not line.strip():
                break
        return fields, file.tell()
