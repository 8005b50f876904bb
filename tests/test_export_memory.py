"""The memory that a request needs at most, as it was given at export."""

from __future__ import annotations

import gzip

import keras
import nibabel as nib
import numpy as np
import pytest
from small_models import make_info

from fcnseg.config import ModelConfig
from fcnseg.errors import ModelError
from fcnseg.inference import make_segmenter
from fcnseg.networks.build import build_fcn
from fcnseg.networks.layers.hu_window import HUWindow
from fcnseg.saved_model.memory import (
    MemoryLimit,
    limit_memory,
    measure_networks,
    reckon_networks,
)
from fcnseg.saved_model.self_check import replay_in_fresh_process
from fcnseg.saved_model.signatures import SEGMENT_NIFTI, SEGMENT_VOLUME, ServedModel

SPACING = 2.0  # mm: that of the model, so that the volume is resampled to as many voxels


def make_plain_segmenter(*, num_classes):
    """A convolution of one voxel, whose memory is small beside that of the volume."""
    hu = keras.Input((None, None, None, 1))
    logits = keras.layers.Conv3D(num_classes, 1, name="logits")(HUWindow(-200.0, 300.0)(hu))
    info = make_info(
        class_names=("background", *(f"organ {index}" for index in range(1, num_classes))),
        window=(64, 64, 64),
        overlap=(16, 16, 16),
        batch_size=2,
        skip_air=True,
        max_voxels=10**9,
    )
    return make_segmenter(keras.Model(hu, logits), info)


def largest_volume(max_voxels):
    """HU of the most voxels; one slice deeper than a window, so that most sums are held."""
    depth = 65
    width = int((max_voxels / depth) ** 0.5)
    draw = np.random.default_rng(0)
    coarse = draw.integers(-900, 900, (depth // 8 + 1, width // 8 + 1, width // 8 + 1))
    fine = np.kron(coarse.astype(np.int16), np.ones((8, 8, 8), np.int16))
    return fine[:depth, :width, :width]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("signature", "num_classes"),
    [
        (SEGMENT_VOLUME, 14),  # the sums of the classes take the most
        (SEGMENT_NIFTI, 3),  # the file and the volume do: few classes allow many voxels
    ],
)
def test_largest_volume_stays_below_the_memory_that_was_given(tmp_path, signature, num_classes):
    """float64 in gzip, turned: the most copies, of the largest voxels."""
    segmenter = make_plain_segmenter(num_classes=num_classes)
    given = measure_networks(segmenter) / 2**30 + 0.5
    limited = limit_memory(segmenter, MemoryLimit.of(segmenter, given))
    assert limited.info.max_voxels < segmenter.info.max_voxels
    hu = largest_volume(limited.info.max_voxels)
    affine = np.diag([-SPACING, SPACING, SPACING, 1])[:, [1, 2, 0, 3]]
    image = nib.Nifti1Image(hu.T.astype(np.float64), affine)
    image.set_sform(affine, code=1)
    image.set_qform(affine, code=1)
    requests = {
        SEGMENT_VOLUME: {"volume": hu, "spacing": np.full(3, SPACING, np.float32)},
        SEGMENT_NIFTI: {"nifti_bytes": np.array(gzip.compress(image.to_bytes(), 1), object)},
    }
    model = ServedModel(limited, accept=("field_of_view_implausible",))
    model.write(tmp_path / "model", names=(signature,))
    replies = replay_in_fresh_process(tmp_path / "model", {signature: requests[signature]})
    assert replies.outputs[f"{signature}/voxel_counts"].sum() == hu.size
    assert replies.peak_bytes <= given * 2**30


def test_memory_below_that_of_the_networks_is_refused():
    with pytest.raises(ModelError, match=r"max_memory_gib must be at least .* got 0\.01"):
        MemoryLimit.of(make_plain_segmenter(num_classes=3), 0.01)


def make_fcn_segmenter(*, window=32, filters=(8, 16, 32), max_voxels=10**9):
    model = build_fcn(ModelConfig(filters=filters), num_classes=3)
    sizes = {"window": (window,) * 3, "overlap": (8,) * 3, "batch_size": 1}
    return make_segmenter(model, make_info(max_voxels=max_voxels, **sizes))


@pytest.mark.slow
def test_networks_are_reckoned_to_take_what_they_take():
    """Enough, and no more than twice as much."""
    segmenter = make_fcn_segmenter(window=64)
    reckoned, measured = reckon_networks(segmenter), measure_networks(segmenter)
    assert measured <= reckoned <= 2 * measured


def test_larger_windows_and_more_filters_are_reckoned_to_take_more():
    small, large, wide = (
        reckon_networks(make_fcn_segmenter(**change))
        for change in ({}, {"window": 64}, {"filters": (16, 32, 64)})
    )
    process = 0.75 * 2**30
    assert large - process > 7 * (small - process)
    assert 1.8 * (small - process) < wide - process < 3 * (small - process)


def test_default_is_16_gib_or_what_a_usual_scan_needs():
    limit = MemoryLimit.of(make_fcn_segmenter(), None)
    assert str(limit) == "at most 16.0 GiB, reckoned"
    assert 512 * 512 * 200 < limit.max_voxels < 10**9
    huge = MemoryLimit.of(make_fcn_segmenter(window=192, filters=(32, 64)), None)
    assert huge.network_bytes > 16 * 2**30
    assert huge.max_voxels == 512 * 512 * 200


def test_limit_of_the_run_is_kept():
    segmenter = make_fcn_segmenter(max_voxels=1000)
    limit = MemoryLimit.of(segmenter, None)
    assert limit.max_voxels == limit_memory(segmenter, limit).info.max_voxels == 1000
