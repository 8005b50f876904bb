"""Scans to records: a Beam job from CT and label files to sharded TFRecords.

Run from the root of the checkout: `python -m examples.01_convert`. The examples build on one
another in `build/examples`.
"""

from pathlib import Path

import numpy as np

from fcnseg.records import read_dataset_info
from fcnseg.testing.phantom import write_phantoms
from fcnseg.volumes import LabelMap, read_ct, read_label, to_canonical
from pipelines.convert_ct import ConvertCt

WORK = Path("build/examples")


def main() -> None:
    print("made:", list(write_phantoms(4, WORK / "scans", seed=0)))

    # What the job reads: HU and ids in (z, y, x), each file in an orientation of its own.
    image = read_ct(WORK / "scans/images/phantom_000.nii.gz")
    print("file:", image.shape, "voxels (z, y, x),", image.orientation)
    print("canonical:", to_canonical(image).shape, "voxels,", to_canonical(image).orientation)
    label_map = LabelMap.read(WORK / "scans/label_map.yaml")
    classes = label_map.apply(read_label(WORK / "scans/labels/phantom_000.nii.gz").array)
    print("voxels:", dict(zip(label_map.class_names, np.bincount(classes.ravel()), strict=True)))

    # The same as `fcnseg convert --cases ... `; any flag of Beam goes to `run`.
    ConvertCt(
        cases=str(WORK / "scans/cases.csv"),
        label_map=str(WORK / "scans/label_map.yaml"),
        output=str(WORK / "records"),
        spacing_mm=(6.0, 6.0, 6.0),
        validation_fraction=0.3,
    ).run()
    for split, content in read_dataset_info(WORK / "records").splits.items():
        print(split, content.case_ids)


if __name__ == "__main__":
    main()
