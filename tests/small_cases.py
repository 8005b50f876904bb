"""Cases of a few thousand voxels on disk, for tests of the conversion."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from fcnseg.volumes import Volume, write_volume

LABEL_MAP = "classes:\n  background: [0]\n  liver: [5]\n  spleen: [1, 2]\n"
# Left, posterior, superior with a shift, 2 mm slices: every axis has a turn or a spacing to get
# wrong.
AFFINE = np.array([[-1.0, 0, 0, 40], [0, -1.5, 0, 30], [0, 0, 2, -7], [0, 0, 0, 1]])


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
