"""Cases from a folder of images and one of labels, paired by name."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

from fcnseg.conversion.cases import Case, CaseList, check_cases
from fcnseg.conversion.rejects import Reject
from fcnseg.errors import InputError
from fcnseg.storage import files
from fcnseg.volumes import case_id_of
from fcnseg.volumes.folders import copies_of_masks, is_volume_name


def cases_of_folders(images: str, labels: str | None) -> CaseList:
    """Pairs the contents of two folders by name; each case is a patient of its own.

    A file with the suffix of a volume is one, and so is a folder: of DICOM files among the images,
    of binary masks among the labels.

    Args:
        images: Folder of CT volumes; nnU-Net's suffix `_0000` is understood.
        labels: Folder of labels with the same names; None if cases have no labels.

    Returns:
        The list; images without label and labels without image are rejects.

    Raises:
        InputError: If there is no image.
    """
    by_image = volumes_in(images)
    by_label = {} if labels is None else volumes_in(labels)
    cases = [
        Case(case_id, image, label, case_id)
        for case_id, paths in by_image.items()
        for image in paths
        for label in by_label.get(case_id, [None])
    ]
    alone = [] if labels is None else [*_alone(by_image, by_label, labels, "label")]
    alone += _alone(by_label, by_image, images, "image")
    known = by_label.keys() if labels is not None else by_image.keys()
    return check_cases(
        [case for case in cases if case.case_id in known], source=images, rejects=alone
    )


def volumes_in(folder: str) -> dict[str, list[str]]:
    """Paths of possible volumes in a folder, by case id; hidden files are skipped.

    So are DICOM segmentations that prediction wrote next to masks of the same cases.

    Raises:
        InputError: If there is none.
    """
    found = defaultdict(list)
    children = files.children(folder)
    copies = copies_of_masks(children)
    for name, is_folder in sorted(children.items()):
        if name in copies or name.startswith("."):
            continue
        if is_folder or is_volume_name(name):
            case_id = name if is_folder else case_id_of(name)
            found[case_id].append(files.absolute(files.join(folder, name)))
    if not found:
        raise InputError(f"no volume in folder {folder}")
    return dict(found)


def _alone(
    here: dict[str, list[str]], there: dict[str, list[str]], folder: str, what: str
) -> Iterator[Reject]:
    """Rejects for files without partner in the other folder."""
    for case_id in here.keys() - there.keys():
        for path in here[case_id]:
            reason = f"no {what} in {folder} for {path}"
            yield Reject(case_id, "list", "file_missing", reason, path, "")
