"""Cases of a few thousand voxels on disk, for tests of the conversion."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from fcnseg.volumes import Volume, write_volume

LABEL_MAP = "classes:\n  background: [0]\n  liver: [5]\n  spleen: [1, 2]\n"
# Left, posterior, superior with a shift: every axis has a turn or a spacing to get wrong. As coarse
# as a CT may be, so that a few voxels are as wide as a patient.
AFFINE = np.array([[-5.0, 0, 0, 200], [0, -7.5, 0, 150], [0, 0, 10, -35], [0, 0, 0, 1]])
SPACING_MM = (10.0, 7.5, 5.0)


def write_case(folder: Path, case_id: str, *, seed: int, shape=(12, 14, 16)) -> None:
    """Writes FOLDER/images/CASE.nii.gz and FOLDER/labels/CASE.nii.gz."""
    rng = np.random.default_rng(seed)
    image = rng.integers(-1000, 1000, shape, dtype=np.int16)
    label = np.zeros(shape, dtype=np.uint8)
    label[2:8, 3:9, 4:10] = 5
    label[9:, 10:, :5] = rng.integers(1, 3)
    for name, array in (("images", image), ("labels", label)):
        (folder / name).mkdir(parents=True, exist_ok=True)
        write_volume(Volume(array, AFFINE), folder / name / f"{case_id}.nii.gz")


def write_cases(folder: Path, count: int = 6) -> Path:
    """Writes cases, `cases.csv` and `label_map.yaml`; returns the path of the CSV file."""
    rows = ["case_id,image,label,patient_id"]
    for index in range(count):
        case_id = f"case_{index:02d}"
        write_case(folder, case_id, seed=index, shape=(12 + index, 14, 16))
        rows.append(f"{case_id},images/{case_id}.nii.gz,labels/{case_id}.nii.gz,p{index // 2}")
    (folder / "label_map.yaml").write_text(LABEL_MAP)
    (folder / "cases.csv").write_text("\n".join(rows) + "\n")
    return folder / "cases.csv"


def write_split_cases(folder: Path) -> Path:
    """Twelve cases of six patients in all three splits; gives their list."""
    cases = write_cases(folder, 12)
    header, *rows = cases.read_text().splitlines()
    splits = ["train"] * 6 + ["validation"] * 4 + ["test"] * 2
    rows = [f"{row},{split}" for row, split in zip(rows, splits, strict=True)]
    cases.write_text("\n".join([f"{header},split", *rows]))
    return cases
