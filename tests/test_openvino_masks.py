"""Masks of a trained network by OpenVINO: those of TensorFlow, on phantoms and a real scan."""

from __future__ import annotations

import numpy as np
import pytest
from phantom_records import make_phantom_records

from fcnseg.config import PRESETS, override
from fcnseg.evaluation.scores import score_organs
from fcnseg.inference import load_runs, make_segmenter, predict_volume
from fcnseg.training import train
from fcnseg.volumes import LabelMap, read_ct, read_label

pytest.importorskip("openvino", reason="extra openvino")

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]  # training half of the demo


@pytest.fixture(scope="module")
def phantoms(tmp_path_factory):
    folder = tmp_path_factory.mktemp("phantoms")
    make_phantom_records(folder, cases=8, validation_fraction=0.25)
    return folder


@pytest.fixture(scope="module")
def run_dir(phantoms, tmp_path_factory):
    """Half the steps of the demo, after which each organ is found."""
    config = override(PRESETS["demo"], {"training.epochs": 8, "training.validate_every": 8})
    return train(config, phantoms / "records", tmp_path_factory.mktemp("run") / "run").run_dir


@pytest.fixture(scope="module")
def segmenters(run_dir):
    """One by each backend in each precision."""
    made = {}
    for backend in ("tensorflow", "openvino"):
        for precision in ("float32", "bfloat16"):
            networks, info = load_runs([run_dir], backend=backend, precision=precision)
            made[backend, precision] = make_segmenter(networks, info, backend=backend)
    return made


def masks_of(segmenters, volume):
    return {name: predict_volume(each, volume) for name, each in segmenters.items()}


def check_equal(masks):
    expected = masks["tensorflow", "float32"]
    assert len(np.unique(expected)) > 2
    assert (masks["openvino", "float32"] == expected).mean() >= 0.9999


def mean_dice(label, masks, number):
    scores = {name: score_organs(label, mask, num_classes=number) for name, mask in masks.items()}
    return {
        name: np.mean([each.dice for each in organs if each.dice is not None])
        for name, organs in scores.items()
    }


def test_masks_of_phantoms_and_their_dice(segmenters, phantoms):
    """Float32: 99.99 % of the voxels. Bfloat16: a mean Dice within 0.001 of float32's."""
    label_map = LabelMap.read(phantoms / "scans" / "label_map.yaml")
    lost = {}
    for image in sorted((phantoms / "scans" / "images").iterdir())[:4]:
        masks = masks_of(segmenters, read_ct(image))
        check_equal(masks)
        label = label_map.apply(read_label(phantoms / "scans" / "labels" / image.name).array)
        dice = mean_dice(label, masks, len(label_map.class_names))
        assert dice["tensorflow", "float32"] > 0.5
        for name, each in dice.items():
            lost.setdefault(name, []).append(dice["tensorflow", "float32"] - each)
    assert all(abs(np.mean(each)) <= 0.001 for each in lost.values()), lost


@pytest.mark.real_data
def test_masks_of_a_real_scan(segmenters, real_data):
    check_equal(masks_of(segmenters, read_ct(real_data / "abdomen_ct_sm" / "ct.nii.gz")))
