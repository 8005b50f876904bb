"""Folders of volumes: recognised files, their case ids, and pairs of image and label."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from fcnseg.errors import InputError, format_names
from fcnseg.volumes.formats.dicom.files import SUFFIX, find_files, holds_dicom, is_dicom
from fcnseg.volumes.formats.dicom.headers import read_headers
from fcnseg.volumes.formats.reading import SUFFIXES

_SEGMENTATION = ".seg"  # 3D Slicer's mark of a label, before the suffix
_DATA_OF_PAIR = ".img"  # the half of a NIfTI pair that is ignored
_SEG_OF_MASK, _RTSTRUCT_OF_MASK = ".seg.dcm", ".rtstruct.dcm"  # as prediction names them
_OF_MASK = (".nii.gz", ".json")
_NNUNET_CHANNEL = "_0000"  # nnU-Net's name for the first, here the only, channel of an image

_LONGEST_FIRST = sorted(SUFFIXES, key=len, reverse=True)


def case_id_of(path: str | os.PathLike[str]) -> str:
    """Gives the case id in a file name: without suffix, in any case, and without nnU-Net's `_0000`.

    >>> case_id_of("imagesTr/liver_017_0000.nii.gz"), case_id_of("liver_017.NII.GZ")
    ('liver_017', 'liver_017')
    """
    name = os.path.basename(os.fspath(path).rstrip("/"))
    for suffixes in (_LONGEST_FIRST, (_SEGMENTATION,), (_NNUNET_CHANNEL,)):
        suffix = next((suffix for suffix in suffixes if name.lower().endswith(suffix)), "")
        name = name[: len(name) - len(suffix)]
    return name


def list_volumes(folder: str | os.PathLike[str]) -> dict[str, Path]:
    """Lists the volumes in a folder by case id, sorted: files of a known suffix, and DICOM folders.

    Hidden files and all others are skipped.

    Raises:
        InputError: If the folder is missing or contains no volume, or two files are one case.
    """
    root = Path(folder)
    if not root.is_dir():
        raise InputError(f"no such folder: {root}")
    volumes: dict[str, Path] = {}
    paths = sorted(root.iterdir())
    copies = copies_of_masks(path.name for path in paths)
    for path in paths:
        if path.name in copies or not _is_volume(path):
            continue
        case_id = case_id_of(path)
        if case_id in volumes:
            raise InputError(
                f"a case must have one file, got {volumes[case_id].name} and {path.name}"
                f" (case {case_id})"
            )
        volumes[case_id] = path
    if not volumes:
        raise InputError(
            f"no volume ({', '.join(SUFFIXES)} or a folder of DICOM files) in folder {root}"
        )
    return volumes


def list_images(path: str | os.PathLike[str]) -> dict[str, Path]:
    """Lists the volumes at a path by case id: the path itself, or those in it if it is a folder.

    A folder with DICOM slices directly in it is one volume; in a folder of such folders, each is.

    Raises:
        InputError: If the path does not exist, contains no volume, or two files are one case.
    """
    given = Path(path)
    if not given.exists():
        raise InputError(f"images must be a volume or a folder of volumes, got {path}")
    if given.is_file() or _holds_slices(given):
        named = given.resolve() if given.name in ("", "..") else given
        return {case_id_of(named): given}
    return list_volumes(given)


def pair_by_name(
    images: str | os.PathLike[str], labels: str | os.PathLike[str]
) -> list[tuple[str, Path, Path]]:
    """Pairs the images of one folder with the labels of another.

    Returns:
        (case id, image, label) for each case, sorted.

    Raises:
        InputError: If an image has no label or a label no image; the message names the first few.
    """
    by_image, by_label = list_volumes(images), list_volumes(labels)
    for what, alone in {
        f"label in {labels}": sorted(by_image.keys() - by_label.keys()),
        f"image in {images}": sorted(by_label.keys() - by_image.keys()),
    }.items():
        if alone:
            raise InputError(f"no {what} for {format_names(alone)}")
    return [(case_id, by_image[case_id], by_label[case_id]) for case_id in by_image]


def is_volume_name(name: str) -> bool:
    """Tells whether a file of this name is taken for a volume.

    >>> is_volume_name("liver_017.nii.gz"), is_volume_name("A.NII"), is_volume_name(".hidden.nii")
    (True, True, False)
    """
    hidden, lower = name.startswith("."), name.lower()
    return (
        not hidden
        and lower.endswith(SUFFIXES)
        and not lower.endswith((_DATA_OF_PAIR, _RTSTRUCT_OF_MASK))
    )


def copies_of_masks(names: Iterable[str]) -> set[str]:
    """Selects the DICOM segmentations of a folder that prediction wrote as copies of masks.

    They have the mask and the organs' volumes of the same case next to them.

    >>> copies_of_masks(["a.nii.gz", "a.json", "a.seg.dcm", "b.nii.gz", "b.seg.dcm"])
    {'a.seg.dcm'}
    """
    known = set(names)
    return {
        name
        for name in known
        if name.endswith(_SEG_OF_MASK)
        and {name.removesuffix(_SEG_OF_MASK) + end for end in _OF_MASK} <= known
    }


def _holds_slices(folder: Path) -> bool:
    """Tells whether the files directly in a folder are the slices of one volume.

    If files of other formats lie next to them, or the first has many frames, each is a volume.
    """
    files = [path for path in sorted(folder.iterdir()) if path.is_file()]
    if any(is_volume_name(file.name) and file.suffix.lower() != SUFFIX for file in files):
        return False
    first = next((file for file in files if is_dicom(file)), None)
    return first is not None and len(read_headers(find_files(str(first)))[0].slices) <= 1


def _is_volume(path: Path) -> bool:
    if path.is_dir():
        return not path.name.startswith(".") and holds_dicom(path)
    return is_volume_name(path.name)
