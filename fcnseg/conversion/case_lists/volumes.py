"""Volumes in a folder on any file system: `fcnseg.volumes.folders` beyond this machine."""

from __future__ import annotations

import os
from pathlib import Path

from fcnseg.conversion.case_lists.folders import volumes_in
from fcnseg.errors import InputError
from fcnseg.storage import files
from fcnseg.volumes import case_id_of, folders
from fcnseg.volumes.folders import is_volume_name
from fcnseg.volumes.formats.dicom.files import SUFFIX, begins_dicom, find_files, is_dicom
from fcnseg.volumes.formats.dicom.headers import read_headers

_START_BYTES = 132  # bytes read of a file to detect DICOM


def list_images(path: str | os.PathLike[str]) -> dict[str, str]:
    """Lists the volumes at a path by case id: the path itself, or those in it if it is a folder.

    A folder with DICOM slices directly in it is one volume; in a folder of such folders, each is.

    Raises:
        InputError: If the path does not exist, contains no volume, or two files are one case.
    """
    path = os.fspath(path)
    if files.is_local(path):
        return {case_id: str(file) for case_id, file in folders.list_images(path).items()}
    if not files.exists(path):
        if not files.is_folder(path):
            raise InputError(f"images must be a volume or a folder of volumes, got {path}")
        if not _holds_slices(path):
            return list_volumes(path)
    return {case_id_of(path): path}


def is_dicom_image(image: str) -> bool:
    """Tells whether an image of `list_images` is DICOM: a folder, or a file marked as such.

    Raises:
        InputError: If it cannot be opened.
    """
    if files.is_local(image):
        return Path(image).is_dir() or is_dicom(image)
    return not files.exists(image) or begins_dicom(files.read_start(image, _START_BYTES))


def list_volumes(folder: str | os.PathLike[str]) -> dict[str, str]:
    """Lists the volumes in a folder by case id: files of a known suffix, and folders of DICOM.

    Hidden files and all others are skipped.

    Raises:
        InputError: If the folder is missing or contains no volume, or two files are one case.
    """
    folder = os.fspath(folder)
    if files.is_local(folder):
        return {case_id: str(file) for case_id, file in folders.list_volumes(folder).items()}
    volumes: dict[str, str] = {}
    for case_id, paths in volumes_in(folder).items():
        found = [path for path in paths if is_volume_name(path) or _first_dicom(path)]
        if len(found) > 1:
            names = " and ".join(map(files.name_of, found))
            raise InputError(f"a case must have one file, got {names} (case {case_id})")
        if found:
            volumes[case_id] = found[0]
    if not volumes:
        raise InputError(f"no volume in folder {folder}")
    return volumes


def _holds_slices(folder: str) -> bool:
    """Tells whether the files directly in a folder are the slices of one volume.

    If files of other formats lie next to them, or the first has many frames, each is a volume.
    """
    names = [name for name, is_folder in files.children(folder).items() if not is_folder]
    if any(is_volume_name(name) and not name.lower().endswith(SUFFIX) for name in names):
        return False
    first = _first_dicom(folder, only=names)
    if first is None:
        return False
    with files.local_copy(first) as copy:
        return len(read_headers(find_files(str(copy)))[0].slices) <= 1


def _first_dicom(folder: str, *, only: list[str] | None = None) -> str | None:
    """Finds the first DICOM file in a folder and its subfolders, hidden ones left out.

    Args:
        folder: The folder.
        only: Names of the files directly in it to consider, if not all.
    """
    root = files.join(folder, "")
    paths = files.list_folder(folder) if only is None else [root + name for name in sorted(only)]
    for path in paths:
        name = files.name_of(path)
        if any(part.startswith(".") for part in path.removeprefix(root).split("/")):
            continue
        if is_volume_name(name) and not name.lower().endswith(SUFFIX):
            continue  # of another format
        if begins_dicom(files.read_start(path, _START_BYTES)):
            return path
    return None
