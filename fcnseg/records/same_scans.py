"""Cases of a dataset that seem to be one scan, listed several times under other names."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

from fcnseg.errors import format_names
from fcnseg.records.dataset_info import DatasetInfo
from fcnseg.records.fingerprint import CaseFacts


def find_same_scans(info: DatasetInfo) -> Iterator[str]:
    """Finds cases whose voxels of each class, size and spacing are all equal.

    In two splits, or two folds, such cases give a score that is too high.

    Args:
        info: Manifest of a dataset; cases without labels, or without an organ, are not compared.

    Yields:
        A sentence for each group of such cases.
    """
    groups: dict[tuple[object, ...], list[CaseFacts]] = defaultdict(list)
    for case in info.fingerprint.cases if info.fingerprint and info.labelled else ():
        if any(case.class_voxels[1:]):
            key = (case.source_shape, case.source_spacing_mm, case.class_voxels)
            groups[key].append(case)
    for group in groups.values():
        if len(group) > 1:
            names = format_names([f"{case.case_id} ({case.split})" for case in group])
            yield (
                f"cases {names} have the same size, spacing and voxels of each class: is it one"
                " scan? Give such cases one patient_id"
            )
