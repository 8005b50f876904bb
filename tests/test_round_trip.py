"""A mask lands on the right voxels: all 48 orientations and oblique ones, through the command."""

from __future__ import annotations

import itertools

import keras
import nibabel as nib
import numpy as np
import pytest
from scipy.spatial.transform import Rotation
from small_models import CLASSES, CROP, make_hu, write_run

from fcnseg.cli.predict import PredictCommand

SHAPE = (11, 15, 18)  # voxels to the right, anterior, superior
SPACING = (1.5, 2.0, 2.5)  # mm, likewise
ORIENTATIONS = ["".join(code) for code in itertools.product("RL", "AP", "SI")]
ORIENTATIONS = ["".join(code) for each in ORIENTATIONS for code in itertools.permutations(each)]
OBLIQUE = [f"oblique_{seed}" for seed in range(20)]
CODES = [(1, 1), (1, 0), (0, 2), (3, 4)]  # of qform and sform


def thresholds() -> keras.Model:
    """Class 1 from 0 to 200 HU, class 2 above: the largest of the logits 0, HU and 2 HU - 200."""
    inputs = keras.Input((None, None, None, 1))
    outputs = keras.layers.Conv3D(3, 1, name="logits")(inputs)
    model = keras.Model(inputs, outputs)
    model.set_weights([np.array([0, 1, 2], "f4").reshape(1, 1, 1, 1, 3), np.array([0, 0, -200.0])])
    return model


def expected(hu):
    return (hu > 0).astype(np.uint8) + (hu > 200)


def turned_case(orientation):
    """HU (i, j, k) and the affine of a file whose axes grow to where the three letters say."""
    axes = ["RAS".index(letter.translate(str.maketrans("LPI", "RAS"))) for letter in orientation]
    affine = np.eye(4)
    affine[:3, 3] = 40, -30, 12
    for column, (axis, letter) in enumerate(zip(axes, orientation, strict=True)):
        affine[:3, column] = np.eye(3)[axis] * SPACING[axis] * (1 if letter in "RAS" else -1)
    hu = make_hu([SHAPE[axis] for axis in axes], seed=7)
    return hu, affine


def oblique_case(seed):
    """A smooth body that is told in mm, on a grid that lies any way and has any spacing."""
    draw = np.random.default_rng(seed)
    spacing = draw.uniform(1, 3, 3)
    shape = (60 / spacing).astype(int)
    affine = np.eye(4)
    affine[:3, :3] = Rotation.random(rng=draw).as_matrix() * spacing * draw.choice([-1, 1], 3)
    affine[:3, 3] = -affine[:3, :3] @ ((shape - 1) / 2)
    index = np.indices(shape).reshape(3, -1).T
    x, y, z = nib.affines.apply_affine(affine, index).T
    hu = 600 - 1.2 * ((x - 4) ** 2 + (1.2 * (y + 3)) ** 2 + (1.4 * (z - 2)) ** 2)
    return np.maximum(hu, -1000).reshape(shape).astype(np.int16), affine


def make_case(name):
    if name in OBLIQUE:
        return oblique_case(OBLIQUE.index(name))
    return turned_case(name)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Images and their masks by the command."""
    folder = tmp_path_factory.mktemp("round_trip")
    for part, names, spacing in (
        ("turned", ORIENTATIONS, SPACING[::-1]),
        ("oblique", OBLIQUE, (2.0, 2.0, 2.0)),
    ):
        (folder / part).mkdir()
        for number, name in enumerate(names):
            hu, affine = make_case(name)
            image = nib.Nifti1Image(hu, affine)
            qform_code, sform_code = CODES[number % len(CODES)]
            image.set_qform(affine, code=qform_code)
            image.set_sform(affine, code=sform_code)
            nib.save(image, folder / part / f"{name}.nii")
        run_dir = write_run(folder / f"run_{part}", spacing_mm=spacing)
        thresholds().save(run_dir / "best.keras")
        PredictCommand(
            (run_dir,), images=folder / part, output=folder / f"masks_{part}", accept=CROP
        ).run()
    return folder


def read(folder, part, name):
    image, mask = (
        nib.load(folder / part / f"{name}.nii"),
        nib.load(folder / f"masks_{part}/{name}.nii.gz"),
    )
    np.testing.assert_array_equal(mask.affine, image.affine)
    for field in ("qform_code", "sform_code", "pixdim", "quatern_b", "qoffset_x", "srow_y"):
        np.testing.assert_array_equal(mask.header[field], image.header[field])
    return np.asarray(image.dataobj), np.asarray(mask.dataobj)


def test_the_table_is_complete():
    assert len(set(ORIENTATIONS)) == 48
    assert len(CLASSES) == 3


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_every_voxel_of_every_orientation_has_its_own_class(folder, orientation):
    hu, mask = read(folder, "turned", orientation)
    image = nib.load(folder / f"turned/{orientation}.nii")
    assert "".join(nib.aff2axcodes(image.affine)) == orientation
    np.testing.assert_array_equal(mask, expected(hu))
    assert len(np.unique(mask)) == 3


@pytest.mark.parametrize("name", OBLIQUE)
def test_oblique_volume_of_any_spacing_keeps_its_outlines(folder, name):
    """Resampled there and back, so voxels at outlines may differ, but the middle stays."""
    hu, mask = read(folder, "oblique", name)
    for class_id in (1, 2):
        reference, found = expected(hu) >= class_id, mask >= class_id
        assert 2 * (reference & found).sum() / (reference.sum() + found.sum()) > 0.95
        moved = np.argwhere(found).mean(0) - np.argwhere(reference).mean(0)  # voxels
        assert np.abs(moved).max() < 0.25  # a grid one off would give 1
