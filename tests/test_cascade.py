"""Two stages: a coarse network tells where a fine one looks."""

from __future__ import annotations

import json

import keras
import nibabel as nib
import numpy as np
import pytest
from small_models import CROP, write_run

from fcnseg.cli.predict import PredictCommand
from fcnseg.errors import InputError
from fcnseg.volumes import Volume, write_volume

ORGAN = (slice(12, 28), slice(12, 28), slice(12, 28))


def above(low, high) -> keras.Model:
    """Class 1 from `low` HU, class 2 from `high`: the largest of logits that cross there."""
    inputs = keras.Input((None, None, None, 1))
    outputs = keras.layers.Conv3D(3, 1, name="logits")(inputs)
    model = keras.Model(inputs, outputs)
    kernel = np.array([0, 1, 2], "f4").reshape(1, 1, 1, 1, 3)
    model.set_weights([kernel, np.array([0, -low, -low - high], "f4")])
    return model


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A fine run at 1 mm, a coarse one at 4 mm that knows bright organs only, and an image."""
    folder = tmp_path_factory.mktemp("cascade")
    fine = write_run(folder / "fine", spacing_mm=(1.0, 1.0, 1.0), max_voxels=10**6)
    coarse = write_run(folder / "coarse", spacing_mm=(4.0, 4.0, 4.0), max_voxels=10**6)
    above(0, 500).save(fine / "best.keras")
    above(200, 900).save(coarse / "best.keras")
    hu = np.full((40, 64, 80), -100, np.int16)
    hu[ORGAN] = 300
    hu[30:, 50:, 60:] = 100  # the fine network alone takes it for an organ
    hu[18:22, 18:22, 29] = 60  # near the organ
    hu[18:22, 18:22, 44] = 60  # 16 voxels of 1 mm from it: further than three coarse ones
    write_volume(Volume(hu, np.diag([1.0, 1.0, 1.0, 1.0])), folder / "case.nii")
    return folder, hu


def predict(folder, name, **how):
    PredictCommand(
        (folder / "fine",), images=folder / "case.nii", output=folder / name, **how, accept=CROP
    ).run()
    return np.asarray(nib.load(folder / name / "case.nii.gz").dataobj).T


def test_fine_network_looks_only_near_the_coarse_foreground(folder, caplog):
    folder, hu = folder
    with caplog.at_level("INFO"):
        alone = predict(folder, "alone")
        mask = predict(folder, "cascade", coarse_run_dir=folder / "coarse")
    np.testing.assert_array_equal(alone, hu > 0)
    expected = alone.copy()
    expected[30:, 50:, 60:] = expected[18:22, 18:22, 44] = 0
    np.testing.assert_array_equal(mask, expected)
    assert mask[18:22, 18:22, 29].all()
    check_that_windows_are_reported(folder, caplog.messages)


def check_that_windows_are_reported(folder, messages):
    alone, cascade = (
        json.loads((folder / name / "case.json").read_text())["windows"]
        for name in ("alone", "cascade")
    )
    # 40, 64 and 80 voxels by windows of 8, 12 and 10 that overlap by 3, 5 and 4.
    grid = 8 * 9 * 13
    assert alone == {"grid": grid, "body": grid}  # there is no air
    assert {**alone, "coarse_region": cascade["coarse_region"]} == cascade
    assert 0 < cascade["coarse_region"] < grid / 2
    logged = f"windows: {grid} on the grid, {grid} with a part of the body"
    within = f"{logged}, {cascade['coarse_region']} in the coarse region"
    messages = [message for message in messages if "windows: " in message]
    assert [message.partition("windows: ")[0] for message in messages[::2]] == ["case: "] * 2
    assert messages[0] == f"case: {logged}"
    assert messages[1].endswith(f"; {logged}")
    assert messages[2] == f"case: {within}"
    assert messages[3].endswith(f"; {within}")


@pytest.mark.slow
def test_dilation_is_in_voxels_of_the_coarse_run(folder):
    folder, _ = folder
    # This voxel of the far organ is 38 voxels of 1 mm beside the near one: 9.5 coarse ones.
    mask = predict(folder, "by_10", dilation_voxels=10, coarse_run_dir=folder / "coarse")
    assert mask[35, 55, 65] == 1


def test_coarse_run_that_finds_nothing_leaves_background(folder, tmp_path):
    folder, _ = folder
    coarse = write_run(tmp_path / "blind", spacing_mm=(4.0, 4.0, 4.0), max_voxels=10**6)
    above(2000, 9000).save(coarse / "best.keras")
    assert not predict(folder, "blind", coarse_run_dir=coarse).any()


def test_dilation_below_zero_is_refused(folder, tmp_path):
    folder, _ = folder
    command = PredictCommand(
        (folder / "fine",),
        images=folder / "case.nii",
        output=tmp_path / "masks",
        dilation_voxels=-1,
    )
    with pytest.raises(InputError, match="dilation_voxels must be 0 to 512, got -1"):
        command.run()
