"""Cases from the layout of TotalSegmentator's dataset: a folder per subject, a file per class."""

from __future__ import annotations

import csv
import io
import logging
from collections import defaultdict
from collections.abc import Sequence

from fcnseg.conversion.cases import Case, CaseList, check_cases
from fcnseg.errors import InputError, did_you_mean, format_names
from fcnseg.storage import files
from fcnseg.volumes import LabelMap, case_id_of
from fcnseg.volumes.folders import is_volume_name
from fcnseg.volumes.formats.dicom.files import SUFFIX
from fcnseg.volumes.label_map import BACKGROUND

logger = logging.getLogger(__name__)

IMAGE = "ct.nii.gz"
LABELS = "segmentations"
META_FILE = "meta.csv"
_MOST_NAMES = 10  # masks in one message: TotalSegmentator has 117
_SPLITS = {"train": "train", "val": "validation", "test": "test", "": None}


def cases_of_totalsegmentator(folder: str, *, labelled: bool = True) -> CaseList:
    """Lists the subjects of a folder, each a patient.

    A subject is a folder with `ct.nii.gz` and `segmentations/NAME.nii.gz`, in letters of any case.
    The splits of `meta.csv` are used if it exists.

    Raises:
        InputError: If there is no subject, or `meta.csv` is malformed.
    """
    children = files.children(folder)
    splits = _splits(files.join(folder, META_FILE)) if META_FILE in children else {}
    subjects = sorted(
        name for name, is_folder in children.items() if is_folder and not name.startswith(".")
    )
    root = files.absolute(folder)
    images = _images(root, subjects)
    return check_cases(
        [
            Case(
                case_id=name,
                image=image,
                label=files.join(root, name, LABELS) if labelled else None,
                patient_id=name,
                split=splits.get(name),
            )
            for name in subjects
            for image in images.get(name, [files.join(root, name, IMAGE)])
        ],
        source=folder,
    )


def label_map_of_totalsegmentator(folder: str, classes: Sequence[str] = ()) -> LabelMap:
    """Makes a label map of the masks in a dataset of this layout.

    Args:
        folder: Folder of the subjects.
        classes: Names of the masks to take, in the order of the classes: where two overlap, the
            later takes the voxels. All masks that any subject has, sorted, if it is empty.

    Returns:
        A class for each mask, with its name. A warning names masks that some subjects lack.

    Raises:
        InputError: If there is no mask, or none of a name; the nearest names are suggested.
    """
    files.children(folder)  # an error if there is no such folder
    subjects_of = _subjects_of_masks(folder)
    if not subjects_of:
        raise InputError(
            f"no SUBJECT/{LABELS}/NAME.nii.gz in {folder} to take classes from: give --label_map"
        )
    for name in classes:
        if name not in subjects_of:
            near = did_you_mean(name, subjects_of) or (
                f"; it has {format_names(sorted(subjects_of), most=_MOST_NAMES)}"
            )
            raise InputError(f"classes must be masks of {folder}, got {name}{near}")
        if classes.count(name) > 1:
            raise InputError(f"classes must be different masks, got {name} twice")
    names = list(classes or sorted(subjects_of))
    _warn_of_rare(names, subjects_of, folder)
    return LabelMap({BACKGROUND: (0,)} | {name: (name,) for name in names})


def _subjects_of_masks(folder: str) -> dict[str, set[str]]:
    """The subjects that have each mask."""
    found: dict[str, set[str]] = defaultdict(set)
    root = files.join(files.absolute(folder), "")
    for path in files.list_folder(root):
        subject, _, inside = path.removeprefix(root).partition("/")
        between, _, name = inside.partition("/")
        if between == LABELS and not subject.startswith(".") and _is_mask_name(name):
            found[case_id_of(name)].add(subject)
    found.pop(BACKGROUND, None)  # it is what no mask holds
    return found


def _is_mask_name(name: str) -> bool:
    return "/" not in name and is_volume_name(name) and not name.lower().endswith(SUFFIX)


def _warn_of_rare(names: list[str], subjects_of: dict[str, set[str]], folder: str) -> None:
    """Warns of masks that not all subjects have, whose cases are going to be rejected."""
    count = len(set().union(*subjects_of.values()))
    rare = [
        f"{name} in {len(subjects_of[name])}" for name in names if len(subjects_of[name]) < count
    ]
    if rare:
        logger.warning(
            f"a mask that a class needs must be there in each of the {count} subjects of {folder},"
            f" which is not so for {format_names(rare, most=_MOST_NAMES)}: choose the others with"
            " --classes, or the subjects without it are rejected"
        )


def _images(root: str, subjects: list[str]) -> dict[str, list[str]]:
    """Paths of the images of each subject that has one; both if it has two."""
    if files.is_local(root):
        inside = [files.join(root, name, file) for name in subjects for file in _names(root, name)]
    else:
        inside = files.list_folder(root)
    found: dict[str, list[str]] = defaultdict(list)
    for path in inside:
        subject, _, name = path.removeprefix(files.join(root, "")).partition("/")
        if name.lower() == IMAGE:
            found[subject].append(path)
    return found


def _names(root: str, subject: str) -> list[str]:
    return sorted(files.children(files.join(root, subject)))


def _splits(path: str) -> dict[str, str | None]:
    """The split of each subject according to `meta.csv`."""
    rows = csv.DictReader(io.StringIO(files.read_text(path), newline=""), delimiter=";")
    columns = rows.fieldnames or ()
    if "image_id" not in columns:
        raise InputError(f"{path} must have a column image_id, got {', '.join(columns) or 'none'}")
    splits = {row["image_id"]: row.get("split") or "" for row in rows}
    unknown = sorted(set(splits.values()) - _SPLITS.keys())
    if unknown:
        raise InputError(f"split in {path} must be train, val or test, got {unknown[0]!r}")
    return {subject: _SPLITS[split] for subject, split in splits.items()}
