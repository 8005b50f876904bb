"""Voxels that the label map ignores count nowhere, from the conversion to the evaluation."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from small_cases import SPACING_MM, write_case
from small_records import CLASSES, make_record, write_dataset
from small_runs import ALL_STATE, assert_same_runs

from fcnseg.config import override
from fcnseg.conversion.cases import Case
from fcnseg.conversion.preprocessing import Preprocessing
from fcnseg.conversion.statistics import HuCounts
from fcnseg.errors import ConfigError
from fcnseg.evaluation.cases import CaseFiles, read_case
from fcnseg.training import train
from fcnseg.volumes import LabelMap, Volume, read_label, write_volume

IGNORED = 255
KNOWN = LabelMap({"background": (0,), "liver": (5,), "spleen": (1, 2)})
UNSURE = LabelMap({"background": (0,), "liver": (5,)}, ignored=(1, 2))


def convert(folder, label_map):
    case = Case("a", str(folder / "images/a.nii.gz"), str(folder / "labels/a.nii.gz"), "a")
    return Preprocessing(label_map, SPACING_MM).convert(case).record


def test_records_hold_them_and_count_them_nowhere(tmp_path):
    write_case(tmp_path, "a", seed=0)
    known, unsure = (convert(tmp_path, label_map) for label_map in (KNOWN, UNSURE))
    np.testing.assert_array_equal(unsure.label, np.where(known.label == 2, IGNORED, known.label))
    assert (unsure.label == IGNORED).any()
    np.testing.assert_array_equal(unsure.class_histogram, known.class_histogram[:2])
    of_liver = known.foreground_coordinates[: known.foreground_counts[1]]
    np.testing.assert_array_equal(unsure.foreground_coordinates, of_liver)
    assert HuCounts.of(unsure).foreground.sum() == known.class_histogram[1]


def test_evaluation_takes_them_for_background_in_label_and_mask(tmp_path):
    write_case(tmp_path, "a", seed=0)
    label = read_label(tmp_path / "labels/a.nii.gz")
    everywhere = Volume(np.ones(label.shape, np.uint8), label.affine)  # liver, says the mask
    write_volume(everywhere, tmp_path / "mask.nii.gz")
    files = CaseFiles("a", tmp_path / "mask.nii.gz", tmp_path / "labels/a.nii.gz")
    case = read_case(files, UNSURE)
    np.testing.assert_array_equal(case.mask.array, ~np.isin(label.array, UNSURE.ignored))
    np.testing.assert_array_equal(case.reference.array, label.array == 5)


@pytest.fixture(scope="module")
def unsure_records():
    """Cases of whose spleens all but a voxel is unsure: training wants each organ to be there."""

    def unsure(record):
        label = np.where(record.label == 2, IGNORED, record.label).astype(np.uint8)
        label[tuple(np.argwhere(record.label == 2)[0])] = 2
        return dataclasses.replace(
            record,
            label=label,
            class_histogram=np.bincount(label.ravel(), minlength=256)[: len(CLASSES)],
            foreground_coordinates=record.foreground_coordinates[: record.foreground_counts[1]],
            foreground_counts=record.foreground_counts * [1, 1, 0],
        )

    return [unsure(make_record(f"case_{seed}", seed=seed)) for seed in range(3)]


def test_training_ignores_what_the_label_map_or_the_loss_ignores(unsure_records, tmp_path):
    splits = {"train": [unsure_records[:2]], "validation": [unsure_records[2:]]}
    marked = write_dataset(tmp_path / "marked", splits, ignored=(7,))
    by_loss = override(ALL_STATE, {"loss.ignore_label": IGNORED})
    by_map = train(ALL_STATE, marked, tmp_path / "by_map")
    train(by_loss, marked, tmp_path / "by_loss")
    assert_same_runs(tmp_path / "by_map", tmp_path / "by_loss")
    assert np.isfinite(by_map.history["loss"]).all()
    assert CLASSES[2] == "spleen"
    with pytest.raises(ConfigError, match=r"loss\.ignore_label must .* 255 .* got 2"):
        train(override(ALL_STATE, {"loss.ignore_label": 2}), marked, tmp_path / "other")
