"""Every real scan through the job, each with the outcome that its README names."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from fcnseg.codes import ACCEPTABLE
from fcnseg.errors import DatasetError
from fcnseg.records import Record, read_cases, read_dataset_info
from pipelines.convert_ct import ConvertCt

pytestmark = pytest.mark.real_data

LABEL_MAP = "unlisted: background\nclasses:\n  background: [0]\n  one: [1]\n  five: [5]\n"

# Case -> image, label, and the code of its reject or the warnings of its record.
SCANS = {
    "abdomen": ("abdomen_ct_sm/ct.nii.gz", "abdomen_ct_sm/label.nii.gz", []),
    "abdomen fast": ("abdomen_ct_sm/ct.nii.gz", "abdomen_ct_sm/label_fast.nii.gz", []),
    "chest": (
        "chest_ct_nrrd/CTChest4.nrrd",
        "chest_ct_nrrd/Segmentation.seg.nrrd",
        ["padding", "thick_slices"],
    ),
    "chest overlapping": (
        "chest_ct_nrrd/CTChest4.nrrd",
        "chest_ct_nrrd/SegmentationOverlapping.seg.nrrd",
        "segments_overlap",
    ),
    "slices": ("ct_3slice_dicom/ct", "ct_3slice_dicom/liver_seg.nrrd", []),
    "slices gap in ids": (
        "ct_3slice_dicom/ct",
        "ct_3slice_dicom/liver_spine_gapped_seg.nrrd",
        [],
    ),
    "slices dicom seg": ("ct_3slice_dicom/ct", "ct_3slice_dicom/liver.dcm", []),
    "series": (
        "enhanced_multiframe_ct/image",
        "enhanced_multiframe_ct/nrrd/label.nrrd",
        "field_of_view_implausible",
    ),
    "multi-frame": (
        "enhanced_multiframe_ct/multiframe/mf.dcm",
        "enhanced_multiframe_ct/nrrd/label.nrrd",
        "field_of_view_implausible",
    ),
}
WITHOUT_LABELS = {
    "lung": ("lung_ct_mha/3DCT_lung_baseline_small.mha", []),
    "gantry tilt": ("dicom_gantry_tilt", "dicom_gantry_tilt"),
    "missing slice": ("dicom_missing_slice", "dicom_missing_slice"),
    "hole": ("dicom_hole", "dicom_missing_slice"),
}


def convert(folder: Path, rows: list[str], **flags) -> None:
    folder.mkdir(exist_ok=True)
    (folder / "map.yaml").write_text(LABEL_MAP)
    listed = [f"{row},one patient" for row in rows]  # several cases are of one image
    (folder / "cases.csv").write_text("\n".join(["case_id,image,label,patient_id", *listed]))
    ConvertCt(
        cases=f"{folder}/cases.csv",
        label_map=f"{folder}/map.yaml",
        output=f"{folder}/out",
        **{"spacing_mm": (3.0, 3.0, 3.0), "validation_fraction": 0, **flags},
    ).run()


def outcomes(output: Path) -> dict[str, str | list[str]]:
    lines = (output / "rejects.jsonl").read_text().splitlines()
    rejects = {row["case_id"]: row["code"] for row in map(json.loads, lines)}
    facts = read_dataset_info(output).fingerprint.cases
    warnings = {case.case_id: [oddity.code for oddity in case.warnings] for case in facts}
    assert not rejects.keys() & warnings.keys()
    return rejects | warnings


def records(output: Path) -> dict[str, Record]:
    (shard,) = read_dataset_info(output).splits["train"].shards
    return {record.case_id: record for record in read_cases(output / shard.name)}


def test_each_scan_has_its_outcome(real_data, tmp_path):
    rows = [f"{name},{real_data / i},{real_data / lb}" for name, (i, lb, _) in SCANS.items()]
    with pytest.raises(DatasetError, match="rejected 3 of 9 cases"):
        convert(tmp_path, rows)
    assert outcomes(tmp_path / "out") == {name: found for name, (*_, found) in SCANS.items()}

    found = records(tmp_path / "out")
    # One liver, from the label map of NRRD and from the DICOM segmentation object.
    np.testing.assert_array_equal(found["slices"].label, found["slices dicom seg"].label)
    assert found["slices"].class_histogram[1] > 0
    # The gap in the ids: 1 and 5 are there, and nothing between them.
    assert (found["slices gap in ids"].class_histogram > 0).all()
    assert found["chest"].image.min() >= -1100  # padding of -3024 HU is air


def test_scans_without_labels_have_their_outcome(real_data, tmp_path):
    rows = [f"{name},{real_data / image}," for name, (image, _) in WITHOUT_LABELS.items()]
    with pytest.raises(DatasetError, match="rejected 3 of 4 cases"):
        convert(tmp_path, rows, images_only=True)
    expected = {name: found for name, (_, found) in WITHOUT_LABELS.items()}
    assert outcomes(tmp_path / "out") == expected


def test_a_multi_frame_object_gives_the_record_of_its_series(real_data, tmp_path):
    pair = {name: SCANS[name] for name in ("series", "multi-frame")}
    rows = [f"{name},{real_data / i},{real_data / lb}" for name, (i, lb, _) in pair.items()]
    convert(tmp_path, rows, accept=ACCEPTABLE, spacing_mm=(1.0, 1.0, 1.0))
    found = records(tmp_path / "out")
    np.testing.assert_array_equal(found["series"].image, found["multi-frame"].image)
    np.testing.assert_array_equal(found["series"].affine, found["multi-frame"].affine)
