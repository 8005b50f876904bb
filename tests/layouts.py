"""Scans and labels in the layouts that the conversion reads, as other programs write them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import yaml
from dicom_series import make_slices
from dicom_series import write as write_series

from fcnseg.volumes import DicomOutputs, Segment, Volume, write_volume

Scans = Mapping[str, tuple[Volume, Volume]]
"""By case id, image and label; the label has class indices."""


def write_nnunet(folder: Path, scans: Scans, organs: Sequence[str]) -> dict[str, str]:
    """nnU-Net v2: imagesTr/CASE_0000.nii.gz, labelsTr/CASE.nii.gz."""
    _write_pairs(scans, folder / "imagesTr", folder / "labelsTr", channel="_0000")
    content = {
        "channel_names": {"0": "CT"},
        "labels": {"background": 0, **{name: k for k, name in enumerate(organs, 1)}},
        "numTraining": len(scans),
        "file_ending": ".nii.gz",
    }
    (folder / "dataset.json").write_text(json.dumps(content))
    return {"dataset": str(folder / "dataset.json")}


def write_decathlon(folder: Path, scans: Scans, organs: Sequence[str]) -> dict[str, str]:
    """The Medical Segmentation Decathlon: the pairs are in dataset.json."""
    _write_pairs(scans, folder / "imagesTr", folder / "labelsTr")
    pairs = [
        {"image": f"./imagesTr/{case_id}.nii.gz", "label": f"./labelsTr/{case_id}.nii.gz"}
        for case_id in scans
    ]
    content = {
        "modality": {"0": "CT"},
        "labels": {"0": "background", **{str(k): name for k, name in enumerate(organs, 1)}},
        "numTraining": len(scans),
        "training": pairs,
        "test": [],
    }
    (folder / "dataset.json").write_text(json.dumps(content))
    return {"dataset": str(folder / "dataset.json")}


def write_totalsegmentator(folder: Path, scans: Scans, organs: Sequence[str]) -> dict[str, str]:
    """TotalSegmentator: a folder for each subject, a file for each organ."""
    for case_id, (image, label) in scans.items():
        masks = folder / case_id / "segmentations"
        masks.mkdir(parents=True)
        write_volume(image, folder / case_id / "ct.nii.gz")
        for number, name in enumerate(organs, 1):
            mask = label.with_array((label.array == number).astype(np.uint8))
            write_volume(mask, masks / f"{name}.nii.gz")
    return {"totalsegmentator": str(folder)}


def write_dicom(folder: Path, scans: Scans, organs: Sequence[str]) -> dict[str, str]:
    """A folder of CT slices for each scan, and a DICOM Segmentation: volumes must be LPS."""
    (folder / "labels").mkdir(parents=True)
    for number, (case_id, (image, label)) in enumerate(scans.items()):
        slices = make_slices(image.array, spacing=image.spacing, series_uid=f"1.2.3.{number + 10}")
        series = write_series(slices, folder / "images" / case_id)
        seg = DicomOutputs(seg=folder / "labels" / f"{case_id}.dcm")
        segments = [Segment(k, name, (255, 0, 0)) for k, name in enumerate(organs, 1)]
        source = seg.read_source(series)
        assert source is not None
        seg.write(label.array, source=source, segments=segments, made_with={})
    return {
        "images": str(folder / "images"),
        "labels": str(folder / "labels"),
        "label_map": _write_label_map(folder, organs),
    }


def write_csv(folder: Path, scans: Scans, organs: Sequence[str]) -> dict[str, str]:
    """A list with patients and paths relative to it."""
    _write_pairs(scans, folder / "ct", folder / "organs")
    rows = [
        f"{case_id},ct/{case_id}.nii.gz,organs/{case_id}.nii.gz,patient_{case_id}"
        for case_id in scans
    ]
    text = "\n".join(["case_id,image,label,patient_id", *rows]) + "\n"
    (folder / "cases.csv").write_text(text)
    return {
        "cases": str(folder / "cases.csv"),
        "label_map": _write_label_map(folder, organs),
    }


LAYOUTS: dict[str, Callable[[Path, Scans, Sequence[str]], dict[str, str]]] = {
    "nnU-Net v2": write_nnunet,
    "Decathlon": write_decathlon,
    "TotalSegmentator": write_totalsegmentator,
    "DICOM + SEG": write_dicom,
    "CSV": write_csv,
}
"""Each writes scans to a folder, and gives the flags of the conversion that name them."""


def _write_pairs(scans: Scans, images: Path, labels: Path, *, channel: str = "") -> None:
    for folder in (images, labels):
        folder.mkdir(parents=True)
    for case_id, (image, label) in scans.items():
        write_volume(image, images / f"{case_id}{channel}.nii.gz")
        write_volume(label, labels / f"{case_id}.nii.gz")


def _write_label_map(folder: Path, organs: Sequence[str]) -> str:
    classes = {"background": [0], **{name: [k] for k, name in enumerate(organs, 1)}}
    (folder / "label_map.yaml").write_text(yaml.safe_dump({"classes": classes}, sort_keys=False))
    return str(folder / "label_map.yaml")
