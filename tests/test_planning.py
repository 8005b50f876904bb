"""Strides and kernels for the spacing of the data."""

from __future__ import annotations

import dataclasses

import pytest

from fcnseg.config import PRESETS, ModelConfig
from fcnseg.errors import ConfigError
from fcnseg.networks import output_shape, plan_model, plan_strides

PLANS = {
    # Alike: all axes together. 32 voxels halve three times to 4, below which none is halved.
    "isotropic": ((1.0, 1.0, 1.0), (32, 32, 32), [(2, 2, 2)] * 3, [(3, 3, 3)] * 4),
    # 5 mm against 0.8: slices wait until 0.8 has become 3.2 (5 / 3.2 < 2), and so do their kernels.
    # Then z has 24 -> 12 -> 6 voxels, too few to halve again, and y and x go on alone to 6.
    "thick slices": (
        (5.0, 0.8, 0.8),
        (24, 192, 192),
        [(1, 2, 2), (1, 2, 2), (2, 2, 2), (2, 2, 2), (1, 2, 2)],
        [(1, 3, 3), (1, 3, 3), (3, 3, 3), (3, 3, 3), (3, 3, 3), (3, 3, 3)],
    ),
    # A single axis goes on only from 12 voxels.
    "one long axis": (
        (1.0, 1.0, 1.0),
        (8, 8, 24),
        [(2, 2, 2), (1, 1, 2)],
        [(3, 3, 3), (3, 3, 3), (3, 3, 3)],
    ),
    # 1.5 against 0.8 is near enough from the start.
    "usual": ((1.5, 0.8, 0.8), (16, 16, 16), [(2, 2, 2)] * 2, [(3, 3, 3)] * 3),
}


@pytest.mark.parametrize("name", PLANS)
def test_plan(name):
    spacing, patch, strides, kernels = PLANS[name]
    plan = plan_strides(spacing, patch)
    assert list(plan.strides) == strides
    assert list(plan.kernels) == kernels


def test_no_more_levels_than_asked_for():
    plan = plan_strides((1.0, 1.0, 1.0), (512, 512, 512), max_levels=4)
    assert len(plan.kernels) == len(plan.strides) + 1 == 4


def test_patch_without_room_is_refused():
    with pytest.raises(ConfigError, match=r"patches.size must .* 8 voxels .* \(4, 4, 4\)"):
        plan_strides((1.0, 1.0, 1.0), (4, 4, 4))


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_can_be_planned(preset):
    model = dataclasses.replace(PRESETS[preset].model, padding="same", pyramid=1)
    planned = plan_model(model, (5.0, 1.0, 1.0), (16, 64, 64))
    assert output_shape(planned, (16, 64, 64)) == (16, 64, 64)
    assert planned.filters == model.filters[: planned.depth]


def test_shallow_patch_takes_levels_away():
    model = ModelConfig(filters=(4, 8, 16, 32), residual_blocks=(1, 2, 3, 4), deep_supervision=2)
    planned = plan_model(model, (1.0, 1.0, 1.0), (16, 16, 16))
    assert planned.filters == (4, 8, 16)
    assert planned.residual_blocks == (1, 2, 3)
    assert planned.deep_supervision == 1
