"""Writing of phantoms to a folder, in the layout that the conversion reads."""

from __future__ import annotations

import csv
import dataclasses
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from fcnseg.errors import InputError
from fcnseg.storage.file_systems import UNFINISHED
from fcnseg.storage.whole_file import atomic_write, make_folder, write_whole
from fcnseg.testing.phantom.anatomy import CLASS_NAMES
from fcnseg.testing.phantom.rendering import make_phantom
from fcnseg.testing.phantom.variety import check_variety, widened
from fcnseg.volumes import LabelMap, write_volume

IMAGES, LABELS, CASES_FILE, LABEL_MAP_FILE = "images", "labels", "cases.csv", "label_map.yaml"
LABEL_MAP = LabelMap.consecutive(CLASS_NAMES)
_PREFIX = "phantom_"

# Taken in turn: the most common ones of scanners and converters, then permuted axes and the other
# handedness.
ORIENTATIONS = ("LPS", "RAS", "LAS", "RAI", "LPI", "ASL", "RSP", "PIR")


@dataclasses.dataclass(frozen=True)
class Acquisition:
    """The grid of one case: spacing (z, y, x) in mm, orientation, and its tilt in degrees."""

    spacing: tuple[float, float, float]
    orientation: str
    oblique_degrees: float


def draw_acquisition(seed: int, index: int, *, variety: float = 1.0) -> Acquisition:
    """Draws the grid of case `index`, which depends on nothing but the arguments.

    Args:
        seed: Seed of all cases.
        index: Number of the case, from 0.
        variety: Variation of slice thickness and tilt, 1 as usual, at most 3.

    Raises:
        InputError: If `variety` is out of range.
    """
    check_variety(variety)
    rng = np.random.default_rng([seed, index, 1])
    # Coarser than a scanner's, so that a demo converts and trains in minutes.
    in_plane = round(rng.uniform(2.2, 3.2), 2)
    slices = round(rng.uniform(*widened(3.0, 5.0, variety, least=1.5)), 1)
    tilt = rng.uniform(*widened(2, 8, variety, least=0)) if rng.random() < 0.25 else 0.0
    orientation = ORIENTATIONS[index % len(ORIENTATIONS)]
    return Acquisition((slices, in_plane, in_plane), orientation, round(tilt, 1))


def write_phantoms(
    cases: int,
    output: str | Path,
    *,
    seed: int = 0,
    variety: float = 1.0,
    overwrite: bool = False,
) -> Iterator[str]:
    """Writes images, labels, a list of the cases and the label map; the list is written last.

    Args:
        cases: Number of cases; the first cases are the same for any number.
        output: Folder to create, with `images/`, `labels/`, `cases.csv` and `label_map.yaml`.
        seed: Seed of all cases.
        variety: Variation of patients and scans, 1 as usual, at most 3 (`make_phantom`).
        overwrite: Replace phantoms that exist already.

    Returns:
        An iterator that writes, and gives the id of each case once its files are complete.

    Raises:
        InputError: If there is nothing to write, `variety` is out of range, or the folder is not
            empty.
    """
    if cases < 1:
        raise InputError(f"cases must be at least 1, got {cases}")
    if seed < 0:
        raise InputError(f"seed must be 0 or more, got {seed}")
    check_variety(variety)
    _make_room(Path(output), overwrite=overwrite)
    return _write(cases, Path(output), seed, variety)


def _write(cases: int, root: Path, seed: int, variety: float) -> Iterator[str]:
    rows = []
    for index in range(cases):
        case_id = f"{_PREFIX}{index:03d}"  # with four digits the name would end like nnU-Net images
        grid = dataclasses.asdict(draw_acquisition(seed, index, variety=variety))
        image, label = make_phantom([seed, index, 0], **grid, variety=variety)
        names = [f"{folder}/{case_id}.nii.gz" for folder in (IMAGES, LABELS)]
        for volume, name in zip((image, label), names, strict=True):
            write_volume(volume, root / name)
        rows.append((case_id, *names, f"patient_{index:03d}"))
        yield case_id
    write_whole(root / LABEL_MAP_FILE, LABEL_MAP.to_yaml())
    _write_cases(rows, root / CASES_FILE)


def _make_room(root: Path, *, overwrite: bool) -> None:
    make_folder(root, argument="output")
    if any(root.iterdir()):
        if not overwrite:
            raise InputError(f"output must be an empty folder, got {root}: --overwrite replaces it")
        _check_phantoms(root)
        for name in (CASES_FILE, LABEL_MAP_FILE):
            (root / name).unlink(missing_ok=True)
        for name in (IMAGES, LABELS):
            shutil.rmtree(root / name, ignore_errors=True)
    for name in (IMAGES, LABELS):
        (root / name).mkdir(parents=True)


def _check_phantoms(root: Path) -> None:
    """Checks that a folder to replace has scans of phantoms alone, not those of a user."""
    for path in sorted(path for name in (IMAGES, LABELS) for path in (root / name).glob("*")):
        if not path.name.startswith((_PREFIX, UNFINISHED)):
            raise InputError(f"output must be a folder of phantoms to be replaced, got {path}")


def _write_cases(rows: list[tuple[str, ...]], path: Path) -> None:
    with (
        atomic_write(path) as unfinished,
        open(unfinished, "w", newline="", encoding="utf-8") as stream,
    ):
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerows([("case_id", "image", "label", "patient_id"), *rows])
