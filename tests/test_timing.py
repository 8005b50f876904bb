"""Times of prediction: of a window, and of all else for a synthetic scan."""

from __future__ import annotations

import numpy as np
import pytest
from small_models import CONFIG, make_info, make_network

from fcnseg.config import override
from fcnseg.inference import make_segmenter, predict_volume
from fcnseg.inference.timing import _make_body, _thresholds, other_seconds, window_seconds
from fcnseg.volumes import Volume

WINDOW = (32, 32, 32)


def test_a_window_of_more_work_takes_longer():
    """A hundred times the multiply-adds, at least three times the time on a busy machine."""
    times = []
    for filters in ((2, 4), (32, 64)):
        network = make_network(override(CONFIG, {"model.filters": filters}))
        info = make_info(window=WINDOW, overlap=(8, 8, 8), batch_size=2)
        times.append(window_seconds(network, info, backend="tensorflow"))
    assert 0 < 3 * times[0] < times[1]


def test_time_is_that_of_one_window_whatever_the_batch():
    network = make_network(override(CONFIG, {"model.filters": (32, 64)}))
    infos = [make_info(window=WINDOW, overlap=(8, 8, 8), batch_size=size) for size in (1, 8)]
    one, eight = (window_seconds(network, info, backend="tensorflow") for info in infos)
    assert one / 4 < eight < 4 * one


@pytest.mark.parametrize("num_classes", [2, 9])
def test_scan_and_mask_are_like_those_of_an_abdomen(num_classes):
    names = tuple("abcdefghi"[:num_classes])
    info = make_info(class_names=names, window=WINDOW, overlap=(8, 8, 8), max_voxels=10**7)
    hu = _make_body((60, 128, 128))
    volume = Volume(hu, np.diag([2.0, 2.0, 2.5, 1.0]))
    mask = predict_volume(make_segmenter(_thresholds(num_classes), info), volume)
    assert set(np.unique(mask)) == {0, 1}
    assert 0.05 < mask.mean() < 0.15
    assert (hu[mask == 1] > 0).mean() > 0.9
    borders = sum((np.diff(mask, axis=axis) != 0).mean() for axis in range(3))
    assert 0.01 < borders < 0.1  # 128 voxels across: more than of 512


@pytest.mark.parametrize("spacing_mm", [(2.0, 2.0, 2.0), (2.5, 0.8, 0.8), (30.0, 9.0, 9.0)])
def test_all_else_takes_time_for_any_file(spacing_mm):
    """One that no check of a CT accepts, too: the dataset was converted."""
    info = make_info(window=WINDOW, overlap=(8, 8, 8), max_voxels=10**8)
    seconds = other_seconds(info, shape=(10, 24, 20), spacing_mm=spacing_mm)
    assert 0 < seconds < 60
