"""The sliding window against a plain numpy one, on networks with and without padding."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pytest
import tensorflow as tf
from scripts import output_of
from small_models import CONFIG, make_hu, make_info, make_network

from fcnseg.config import ModelConfig
from fcnseg.errors import ModelError
from fcnseg.inference.segmenter import make_segmenter
from fcnseg.volumes import AIR_HU
from fcnseg.volumes.tiling import Tiling

VALID = dataclasses.replace(CONFIG, model=ModelConfig(filters=(4, 8), padding="valid"))


def segment(network, info, hu):
    segmenter = make_segmenter(network, info)
    return segmenter.segment_model_grid(hu).numpy()


def starts(size, tile, overlap):
    """The fewest tiles that keep the overlap, evenly spread."""
    count = int(np.ceil((size - tile) / (tile - overlap))) + 1
    return [i * (size - tile) // max(count - 1, 1) for i in range(count)]


def segment_plainly(network, info, hu, tile):
    """All classes of the whole volume at once, one window after the other."""
    margin = [(window - part) // 2 for window, part in zip(info.window, tile, strict=True)]
    extra = [max(0, part - size) for part, size in zip(tile, hu.shape, strict=True)]
    before = [more // 2 for more in extra]
    padding = [(b + m, e - b + m) for b, e, m in zip(before, extra, margin, strict=True)]
    padded = np.pad(hu, padding, constant_values=AIR_HU)
    extent = [size + more for size, more in zip(hu.shape, extra, strict=True)]
    z, y, x = np.meshgrid(*(np.arange(part) - (part - 1) / 2 for part in tile), indexing="ij")
    d, h, w = tile
    gauss = np.exp(-32 * ((z / d) ** 2 + (y / h) ** 2 + (x / w) ** 2))[..., None]  # sigma tile/8
    scores = np.zeros((*extent, info.num_classes))
    for corner in itertools.product(*map(starts, extent, tile, info.overlap)):
        window = tuple(slice(c, c + n) for c, n in zip(corner, info.window, strict=True))
        patch = tf.constant(padded[window][None, ..., None], tf.float32)
        place = tuple(slice(c, c + n) for c, n in zip(corner, tile, strict=True))
        scores[place] += gauss * tf.nn.softmax(network(patch))[0].numpy()
    inner = tuple(slice(b, b + n) for b, n in zip(before, hu.shape, strict=True))
    return scores[inner].argmax(-1).astype(np.uint8)


@pytest.mark.parametrize(
    ("config", "window", "tile", "overlap"),
    [(CONFIG, (8, 12, 10), (8, 12, 10), (3, 5, 4)), (VALID, (20, 24, 22), (4, 8, 6), (1, 3, 0))],
    ids=["same", "valid"],
)
@pytest.mark.parametrize(
    "shape",
    [(8, 12, 10), (13, 17, 19), (3, 30, 5), (1, 1, 1)],
    ids=["one window", "odd", "flat", "voxel"],
)
def test_equals_a_plain_sliding_window(config, window, tile, overlap, shape):
    network, info = make_network(config), make_info(window=window, overlap=overlap)
    hu = make_hu(shape)
    labels = segment(network, info, hu)
    expected = segment_plainly(network, info, hu, tile)
    assert labels.dtype == np.uint8
    np.testing.assert_array_equal(labels, expected)
    assert hu.size == 1 or len(np.unique(expected)) > 1


def test_batch_size_changes_nothing():
    hu = make_hu((20, 30, 30))
    labels = [segment(make_network(), make_info(batch_size=size), hu) for size in (1, 4, 64)]
    np.testing.assert_array_equal(labels[0], labels[1])
    np.testing.assert_array_equal(labels[0], labels[2])


def test_follows_the_weights_of_a_network_in_training():
    network = make_network()
    segmenter = make_segmenter(network, make_info())
    hu = make_hu((9, 14, 13))
    before = segmenter.segment_model_grid(hu).numpy()
    network.set_weights(make_network(seed=1).get_weights())
    after = segmenter.segment_model_grid(hu).numpy()
    assert (before != after).any()
    np.testing.assert_array_equal(after, segment(make_network(seed=1), make_info(), hu))


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(384, 128, 128), (16, 3072, 128)], ids=["long", "wide"])
def test_memory_does_not_grow_with_classes_times_volume(shape):
    """Sums of all voxels would take 403 MB, those of a row of tiles take 8 MB."""
    script = """
import sys
import keras, numpy as np
from fcnseg.inference import make_segmenter
from scripts import peak_bytes
from small_models import make_info

network = keras.Sequential([keras.Input((None, None, None, 1)), keras.layers.Conv3D(16, 1)])
info = make_info(
    class_names=tuple("abcdefghijklmnop"), window=(16, 64, 64), overlap=(0, 0, 0), batch_size=1
)
segmenter = make_segmenter(network, info)
segmenter.segment_model_grid(np.zeros((16, 128, 128), np.int16))
before = peak_bytes()
segmenter.segment_model_grid(np.zeros([int(size) for size in sys.argv[1:]], np.int16))
print(peak_bytes() - before)
"""
    assert int(output_of(script, *shape)) < 100 * 2**20


@pytest.mark.slow
def test_peak_memory_of_a_large_scan_stays_below_4_gib(tmp_path):
    """512 x 512 x 600 voxels at 1 mm, 8 classes, by the command: all that its process holds."""
    script = """
import sys
from pathlib import Path
import keras, nibabel as nib, numpy as np
from fcnseg.cli.predict import PredictCommand
from small_models import write_run

folder = Path(sys.argv[1])
network = keras.Sequential([keras.Input((None, None, None, 1)), keras.layers.Conv3D(8, 1)])
run_dir = write_run(
    folder / "run", class_names=tuple("abcdefgh"), spacing_mm=(1.0, 1.0, 1.0),
    window=(96, 128, 128), overlap=(0, 0, 0), batch_size=1, max_voxels=512 * 512 * 600,
)
network.save(run_dir / "best.keras")
hu = np.zeros((600, 512, 512), np.int16)
hu[::7] = 40  # nothing that could be skipped as air
nib.save(nib.Nifti1Image(hu.T, np.eye(4)), folder / "case.nii")
del hu
Path("/proc/self/clear_refs").write_text("5")  # the most held is counted from here
command = PredictCommand(
    (run_dir,), images=folder / "case.nii", output=folder / "masks", accept=("scaled_image",)
)
command.run()
print("peak", Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0])
"""
    peak_gib = int(output_of(script, tmp_path).split("peak")[1]) / 2**20  # /proc tells KiB
    assert 1 < peak_gib < 4


@pytest.mark.parametrize("extent", [10, 11, 17, 18, 24, 39, 101, 250])
@pytest.mark.parametrize("overlap", [0, 3, 9])
def test_tiles_cover_the_axis_and_keep_the_overlap(extent, overlap):
    tiling = Tiling((14, 1, 1), (10, 1, 1), (overlap, 0, 0))
    found = tiling.starts(0, extent, xp=np)
    np.testing.assert_array_equal(found, tiling.starts(0, tf.constant(extent), xp=tf))
    assert found[0] == 0
    assert found[-1] == extent - 10
    gaps = np.diff(found)
    assert (gaps <= 10 - overlap).all()
    assert gaps.size == 0 or gaps.max() - gaps.min() <= 1  # evenly spread
    assert len(found) == int(np.ceil((extent - overlap) / (10 - overlap)))  # the fewest


@pytest.mark.parametrize(
    ("tiling", "message"),
    [
        (((8, 8, 8), (8, 8, 8), (0, 8, 0)), "overlap must be smaller"),
        (((8, 8, 8), (4, 4, 3), (0, 0, 0)), "the middle of its window"),
        (((8, 8, 8), (9, 8, 8), (0, 0, 0)), "the middle of its window"),
    ],
)
def test_tiling_that_cannot_be_is_refused(tiling, message):
    with pytest.raises(ModelError, match=message):
        Tiling(*tiling)


def test_network_of_another_number_of_classes_is_refused():
    with pytest.raises(ModelError, match="5 outputs for 3 classes"):
        make_segmenter(make_network(num_classes=5), make_info())
