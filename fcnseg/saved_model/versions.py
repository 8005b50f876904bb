"""The versions of a served model: integer-named folders, of which servers take the largest."""

from __future__ import annotations

import logging
import os
import re
import shutil
import tempfile
from pathlib import Path

from fcnseg.errors import InputError
from fcnseg.inference.backend import Backend
from fcnseg.runs.run_folder import OPENVINO_FILES
from fcnseg.storage.whole_file import flush_folder, naming_output, put_in_place

logger = logging.getLogger(__name__)

_LAST_VERSION = 2**63 - 1  # servers have 64-bit integers
_ROLLED_BACK = "rolled_back_"
_NUMBER = re.compile(rf"(?:{_ROLLED_BACK})?([0-9]+)")


def list_versions(base: Path) -> dict[int, Path]:
    """The folders of the versions that servers see, by number, the oldest first.

    As in TensorFlow Serving, any folder named by an integer is one; it finds no model in a file.
    """
    found = {
        int(child.name): child
        for child in base.iterdir()
        if child.name.isascii()
        and child.name.isdecimal()
        and child.is_dir()
        and int(child.name) <= _LAST_VERSION
    }
    return dict(sorted(found.items()))


def check_runtime(base: Path, backend: Backend) -> None:
    """Checks that the versions of a served model are for one runtime, as its server takes any.

    Args:
        base: Base folder of the served model.
        backend: Runtime of the version to publish.

    Raises:
        InputError: If a version is for another one.
    """
    for version in list_versions(base).values():
        is_for_openvino = any((version / name).exists() for name in OPENVINO_FILES)
        found: Backend = "openvino" if is_for_openvino else "tensorflow"
        if found != backend:
            raise InputError(
                f"model_dir must have versions for {backend} alone, got {version} for {found}"
            )


def publish(saved: Path, base: Path, *, keep: int | None = None) -> Path:
    """Renames a complete SavedModel to the next version; a server sees all of it or nothing.

    Args:
        saved: The SavedModel, on the file system of the base folder.
        base: Base folder of the served model.
        keep: Number of versions to keep; older ones are deleted. By default all are kept.

    Returns:
        The folder of the version. A number that was rolled back is not used again.

    Raises:
        InputError: If there is no number left.
    """
    matches = [_NUMBER.fullmatch(child.name) for child in base.iterdir()]
    numbers = [int(match[1]) for match in matches if match]
    last = max((number for number in numbers if number <= _LAST_VERSION), default=0)
    if last == _LAST_VERSION:
        raise InputError(f"model_dir must leave a number above its versions, got {last} in {base}")
    version = base / str(last + 1)
    with naming_output(version):
        put_in_place(saved, version)
    logger.info("published %s", version)
    if keep is not None:
        for old in list(list_versions(base).values())[:-keep]:
            _delete(old)
    return version


def roll_back(model_dir: str | os.PathLike[str]) -> Path:
    """Withdraws the newest version: servers go back to the one before.

    The folder is renamed to `rolled_back_N`, which servers ignore; renamed back, it is served.

    Args:
        model_dir: Base folder of the served model.

    Returns:
        The folder of the version that is the newest now.

    Raises:
        InputError: If the folder is missing, or has fewer than two versions.
    """
    base = Path(model_dir)
    if not base.is_dir():
        raise InputError(f"model_dir must be a folder with versions of a model, got {base}")
    versions = list_versions(base)
    if len(versions) < 2:
        numbers = " and ".join(map(str, versions)) or "none"
        raise InputError(f"rollback needs a version before the newest, got {numbers} in {base}")
    *_, before, newest = versions.values()
    withdrawn = base / f"{_ROLLED_BACK}{newest.name}"
    with naming_output(withdrawn):
        newest.rename(withdrawn)
        flush_folder(base)
    logger.info("withdrew %s; the newest version is %s", newest, before)
    return before


def _delete(version: Path) -> None:
    """Deletes a version; a server sees all of it or nothing."""
    with (
        naming_output(version),
        tempfile.TemporaryDirectory(prefix=".tmp-", dir=version.parent) as folder,
    ):
        version.rename(Path(folder) / "model")
        shutil.rmtree(Path(folder) / "model")
    logger.info("deleted %s", version)
