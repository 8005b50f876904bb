"""The files of a DICOM folder: those read, those left out, and those for which it is refused."""

from __future__ import annotations

import dataclasses
import enum
import os
from collections.abc import Iterator
from pathlib import Path

from fcnseg.errors import InputError, one_line

SUFFIX = ".dcm"

_MAGIC = slice(128, 132)  # offset of the signature DICM in a DICOM file
_DIRECTORY = "DICOMDIR"  # an index of files, no image
_START_BYTES = 1024  # bytes read of a file to detect its kind
_POINTERS = (b"version https://git-lfs.", b"/annex/objects/", b"../.git/annex/objects/")
# Suffixes of slices: none, or digits, as at the end of a UID and in `IM.001`; Siemens has its own.
_SLICE_SUFFIXES = frozenset(("", SUFFIX, ".dicom", ".ima"))
# The group of file meta information, and that of a data set without it, in either byte order.
_FIRST_GROUPS = (b"\x02\0", b"\x08\0", b"\0\x02", b"\0\x08")
_MOST_OF_FIRST = 256  # bytes of the first value: a length, a character set or an image type


@dataclasses.dataclass(frozen=True)
class DicomFiles:
    """The contents of a DICOM folder.

    Attributes:
        path: The folder, or the one file.
        read: The DICOM files, by name.
        left_out: Files that are neither DICOM nor text.
    """

    path: str
    read: tuple[Path, ...]
    left_out: tuple[Path, ...] = ()


class _Kind(enum.Enum):
    """The kind of a file by its first bytes; the value is its name in messages."""

    DICOM = "DICOM"
    IGNORED = "of no interest"
    TEXT = "text"
    LINK = "a link to nothing"
    POINTER = "a pointer of git-annex or Git LFS to a file that was not fetched"
    EMPTY = "empty"
    BARE = "DICOM without the preamble that begins a file: write it again, as by DCMTK's dcmconv"
    OTHER = "something else"


def begins_dicom(start: bytes) -> bool:
    """Tells whether a file with this beginning is marked as DICOM."""
    return start[_MAGIC] == b"DICM"


def is_dicom(path: str | Path) -> bool:
    """Tells whether a file is marked as DICOM.

    Raises:
        InputError: If it cannot be opened.
    """
    return begins_dicom(_start(Path(path)))


def holds_dicom(folder: Path) -> bool:
    """Tells whether a file in a folder or its subfolders is DICOM, or was a slice by its name."""
    lost = (_Kind.LINK, _Kind.POINTER, _Kind.BARE)
    for file in _walk(folder):
        kind = _kind(file)
        if kind is _Kind.DICOM or (kind in lost and _suffix(file) in _SLICE_SUFFIXES):
            return True
    return False


def find_files(path: str) -> DicomFiles:
    """Finds the DICOM files in a folder and its subfolders; a file gives itself.

    Hidden files and folders, a DICOMDIR, and texts are skipped. Any other file that is not DICOM
    may be a slice if it is named like one, and is left out if not.

    Raises:
        InputError: If a file that may be a slice cannot be read as one.
    """
    root = Path(path)
    files = sorted(_walk(root)) if root.is_dir() else [root]
    kinds = {file: _kind(file) for file in files}
    read = [file for file, kind in kinds.items() if kind is _Kind.DICOM]
    suffixes = _SLICE_SUFFIXES.union(map(_suffix, read))
    left_out = []
    for file, kind in kinds.items():
        if kind in (_Kind.DICOM, _Kind.IGNORED):
            continue
        if kind is _Kind.TEXT and _suffix(file) != SUFFIX:
            continue
        if kind is _Kind.BARE or _suffix(file) in suffixes:
            raise InputError(
                f"not a readable DICOM file: {file}: it may be a slice by its name, and is"
                f" {kind.value}",
                code="file_missing" if kind is _Kind.LINK else "unreadable",
            )
        left_out.append(file)
    return DicomFiles(path, tuple(read), tuple(left_out))


def _walk(root: Path) -> Iterator[Path]:
    """Walks the files in a folder and its subfolders, links to folders followed, hidden ones not.

    A folder with several links to it is walked once.
    """
    seen = set()
    for folder, inner, names in os.walk(root, followlinks=True, onerror=_refuse_folder):
        real = os.path.realpath(folder)
        if real in seen:
            inner.clear()
            continue
        seen.add(real)
        inner[:] = sorted(name for name in inner if not name.startswith("."))
        yield from (Path(folder, name) for name in names if not name.startswith("."))


def _refuse_folder(error: OSError) -> None:
    raise InputError(f"cannot read {error.filename}: {one_line(error)}") from error


def _suffix(file: Path) -> str:
    """The end of a name in lower case; empty if it is digits, as of a UID and `IM.001`."""
    suffix = file.suffix.lower()
    return "" if suffix[1:].isdigit() else suffix


def _kind(file: Path) -> _Kind:
    if file.is_symlink() and not file.exists():
        return _Kind.LINK
    if not file.is_file() or file.name == _DIRECTORY:
        return _Kind.IGNORED
    start = _start(file)
    tests = {
        _Kind.EMPTY: not start,
        _Kind.DICOM: begins_dicom(start),
        _Kind.BARE: _begins_bare(start),
        _Kind.POINTER: start.startswith(_POINTERS),
        _Kind.TEXT: b"\0" not in start,
    }
    return next((kind for kind, holds in tests.items() if holds), _Kind.OTHER)


def _begins_bare(start: bytes) -> bool:
    """Tells whether a file with this beginning starts with a DICOM element."""
    if start[:2] not in _FIRST_GROUPS or len(start) < 8:
        return False
    representation = start[4:6]  # in explicit syntaxes; implicit ones have the length here
    is_explicit = representation.isalpha() and representation.isupper()
    return is_explicit or int.from_bytes(start[4:8], "little") <= _MOST_OF_FIRST


def _start(file: Path) -> bytes:
    try:
        with open(file, "rb") as opened:
            return opened.read(_START_BYTES)
    except OSError as error:
        raise InputError(f"cannot read {file}: {one_line(error)}") from error
