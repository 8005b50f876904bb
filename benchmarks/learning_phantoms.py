"""The data of `bench_learning.py`: very varied phantoms, converted once for all contenders.

The scans have slices of many thicknesses, directions and tilts; fcnseg's preprocessing resamples
all of them to 4 mm, and every contender starts from the resulting files, so that resampling plays
no part.
"""

from __future__ import annotations

import csv
import dataclasses
import json
import shutil
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

import nibabel as nib
import numpy as np
from bench_seeds import call
from learning_task import IMAGES, LABELS, ORGANS, SPACING_MM, SPLITS_FILE, UNSEEN

from fcnseg.conversion.case_lists import read_cases_csv
from fcnseg.conversion.preprocessing import Preprocessing
from fcnseg.testing.phantom import LABEL_MAP, write_phantoms
from fcnseg.testing.phantom import ORGANS as PHANTOM_ORGANS
from fcnseg.volumes import Geometry, Volume, write_volume

_SEED = 20  # far from the demo's
_WANTED_FILE = "data.json"


@dataclasses.dataclass(frozen=True)
class Wanted:
    """Specification of the data.

    Attributes:
        variety: Variation between patients.
        train: Number of training cases.
        validation: Number of validation cases, which fcnseg and nnU-Net may use for selection.
        test: Number of test cases, unseen before the end.
    """

    variety: float
    train: int
    validation: int
    test: int

    def splits(self, case_ids: Sequence[str]) -> dict[str, list[str]]:
        """The cases of each split, in order."""
        rest = iter(case_ids)
        return {
            split: [next(rest) for _ in range(getattr(self, split))]
            for split in ("train", "validation", "test")
        }


def make_data(folder: Path, wanted: Wanted) -> Path:
    """Makes the data once per folder; gives the folder that contains them.

    Besides the files that `Task` names there are `label_map.yaml` and fcnseg's own `records/`.
    """
    data = folder / "learning_data"
    if data.exists():
        found = json.loads((data / _WANTED_FILE).read_text())
        if found != dataclasses.asdict(wanted):
            sys.exit(f"{folder} holds other data, {found}: choose another --output")
        return data
    unfinished = folder / "learning_data.unfinished"
    shutil.rmtree(unfinished, ignore_errors=True)
    _make(unfinished, wanted)
    unfinished.rename(data)
    return data


def _make(data: Path, wanted: Wanted) -> None:
    assert PHANTOM_ORGANS == ORGANS
    scans = data / "scans"
    cases = wanted.train + wanted.validation + wanted.test
    splits = wanted.splits(list(write_phantoms(cases, scans, seed=_SEED, variety=wanted.variety)))
    _write_volumes(scans, data)
    shutil.copy(scans / "label_map.yaml", data)
    (data / SPLITS_FILE).write_text(json.dumps(splits, indent=2))
    _link_unseen(data, splits["test"])
    _make_records(data, splits)
    (data / _WANTED_FILE).write_text(json.dumps(dataclasses.asdict(wanted)))


def _write_volumes(scans: Path, data: Path) -> None:
    """Writes images and labels at 4 mm."""
    spacing = (SPACING_MM,) * 3
    preprocessing = Preprocessing(LABEL_MAP, spacing)
    for name in (IMAGES, LABELS):
        (data / name).mkdir()
    for case in read_cases_csv(str(scans / "cases.csv")).cases:
        record = preprocessing.convert(case).record
        # Along the scanner's axes, tilted or not: not every reader accepts a tilt in float32.
        origin_mm = Geometry(record.image.shape, record.affine).origin_mm
        affine = nib.affines.from_matvec(np.diag(spacing), origin_mm)
        assert record.label is not None
        for name, array in ((IMAGES, record.image), (LABELS, record.label)):
            write_volume(Volume(array, affine), data / name / f"{case.case_id}.nii.gz")


def _link_unseen(data: Path, case_ids: Iterable[str]) -> None:
    (data / UNSEEN).mkdir()
    for case_id in case_ids:
        name = f"{case_id}.nii.gz"
        (data / UNSEEN / name).symlink_to(Path("..") / IMAGES / name)


def _make_records(data: Path, splits: dict[str, list[str]]) -> None:
    """Makes fcnseg's records of the same files."""
    with (data / "cases.csv").open("w", newline="") as stream:
        rows = csv.writer(stream)
        rows.writerow(("case_id", "image", "label", "split"))
        for split, case_ids in splits.items():
            for case_id in case_ids:
                paths = [f"{folder}/{case_id}.nii.gz" for folder in (IMAGES, LABELS)]
                rows.writerow((case_id, *paths, split))
    call(
        *("pipelines.convert_ct", "--cases", data / "cases.csv", "--output", data / "records"),
        *("--label_map", data / "label_map.yaml", "--spacing_mm", *[SPACING_MM] * 3),
    )
