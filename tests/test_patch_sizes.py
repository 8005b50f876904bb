"""Which sizes of patches networks take, as told by the networks and by arithmetic."""

from __future__ import annotations

import keras
import pytest
from small_models import CONFIG, make_network

from fcnseg.config import override
from fcnseg.errors import ModelError
from fcnseg.inference.patch_sizes import PatchSizes
from fcnseg.networks import output_shape


def fitting(config, window, axis):
    """Lengths along an axis, up to twice the window, that the arithmetic of levels allows."""
    for length in range(1, 2 * window[axis] + 1):
        try:
            output_shape(config.model, (*window[:axis], length, *window[axis + 1 :]))
        except ModelError:
            continue
        yield length


@pytest.mark.parametrize(
    ("settings", "window"),
    [
        ({}, (8, 12, 10)),
        ({"model.filters": [2, 2, 2]}, (8, 12, 20)),
        ({"model.padding": "valid"}, (20, 24, 22)),
        ({"model.strides": [[1, 2, 2], [2, 2, 2]], "model.filters": [2, 2, 2]}, (8, 12, 20)),
        ({"model.pyramid": 2}, (8, 12, 16)),
    ],
)
def test_sizes_are_those_of_the_architecture(settings, window):
    config = override(CONFIG, settings)
    sizes = PatchSizes.of([make_network(config)], window, batch_size=3)
    for axis in range(3):
        found = range(sizes.smallest[axis], 2 * window[axis] + 1, sizes.step[axis])
        assert list(found) == list(fitting(config, window, axis))


def test_networks_that_are_averaged_must_all_take_a_size():
    configs = [override(CONFIG, {"model.filters": filters}) for filters in ([2, 2], [2, 2, 2])]
    sizes = PatchSizes.of([make_network(config) for config in configs], (8, 8, 8), batch_size=3)
    assert (sizes.smallest, sizes.step) == ((4, 4, 4), (4, 4, 4))


def test_network_without_levels_takes_any_size():
    hu = keras.Input((None, None, None, 1))
    network = keras.Model(hu, keras.layers.Conv3D(3, 1)(hu))
    sizes = PatchSizes.of([network], (16, 16, 16), batch_size=20)
    assert sizes == PatchSizes((1, 1, 1), (1, 1, 1), max_voxels=20 * 16**3)
