"""A patient rendered on a voxel grid: partial volumes, noise, and the label."""

from __future__ import annotations

from collections.abc import Sequence

import nibabel as nib
import numpy as np
import numpy.typing as npt
from scipy import ndimage
from scipy.spatial.transform import Rotation

from fcnseg.testing.phantom._shapes import Array
from fcnseg.testing.phantom.anatomy import Patient, Tissue, draw_patient
from fcnseg.testing.phantom.pose import CENTRE_MM, Pose
from fcnseg.volumes import AIR_HU, Geometry, Shape, Triple, Volume, resampled_shape
from fcnseg.volumes.orientation import RAS

FIELD_OF_VIEW_MM = (216, 300, 390)
"""Extent (z, y, x) that shows all organs of every patient."""
_GRAIN_MM = 0.9  # standard deviation of the blur of a soft-tissue reconstruction kernel
_AS_DRAWN = Pose()
_SLAB = 16  # slices rendered at once: limits memory to a small part of a large volume


def make_phantom(
    seed: int | Sequence[int],
    *,
    spacing: Triple = (5.0, 2.5, 2.5),
    shape: Shape | None = None,
    orientation: str = "RAS",
    oblique_degrees: float = 0.0,
    pose: Pose = _AS_DRAWN,
    variety: float = 1.0,
) -> tuple[Volume, Volume]:
    """Makes a portal-venous abdominal CT and its label.

    The patient depends on the seed alone: another grid or pose shows the same patient.

    Args:
        seed: Same seed, same patient and noise.
        spacing: Millimetres (z, y, x) between slices, rows and columns.
        shape: Slices, rows and columns, about the middle of the abdomen; by default enough to cover
            the complete field of view.
        orientation: Directions of increasing indices (i, j, k) of the volume, as in `LPS`.
        oblique_degrees: Rotation of the grid against the scanner's axes, about each of them.
        pose: Pose of the patient in addition to the pose given by the seed.
        variety: Variation of patients in anatomy, contrast phase, noise and position: 1 as usual,
            at most 3. Above 1 some have no gallbladder, one in eight from 2 on.

    Returns:
        HU (int16) and ids 0 to 7 in the order of `ORGANS` (uint8), on the same grid.

    Raises:
        InputError: If `variety` is out of range.
    """
    anatomy_seed, noise_seed = np.random.SeedSequence(seed).spawn(2)
    patient = pose.of(draw_patient(np.random.default_rng(anatomy_seed), variety=variety))
    shape = shape or resampled_shape(FIELD_OF_VIEW_MM, (1, 1, 1), spacing)
    turn = Rotation.from_euler("xyz", [oblique_degrees] * 3, degrees=True).as_matrix()
    grid = Geometry.centred_at(CENTRE_MM, shape=shape, axes_mm=turn @ np.diag(spacing[::-1]))
    hu, label = _render(patient, grid)
    hu += _noise(np.random.default_rng(noise_seed), shape, spacing, patient.noise_hu)
    image = np.rint(np.clip(hu, AIR_HU, np.iinfo(np.int16).max)).astype(np.int16)
    return _turned(image, grid.affine, orientation), _turned(label, grid.affine, orientation)


def _turned(array: npt.NDArray[np.integer], affine: npt.NDArray[np.float64], axes: str) -> Volume:
    turn = nib.orientations.ornt_transform(RAS, nib.orientations.axcodes2ornt(axes))
    turned = nib.orientations.apply_orientation(array.T, turn).T
    there = affine @ nib.orientations.inv_ornt_aff(turn, array.T.shape)
    return Volume(np.ascontiguousarray(turned), there)


def _render(patient: Patient, grid: Geometry) -> tuple[Array, npt.NDArray[np.uint8]]:
    """Renders HU without noise, float32, and ids, both (z, y, x) in RAS."""
    hu = np.full(grid.shape, AIR_HU, dtype=np.float32)
    label = np.zeros(grid.shape, dtype=np.uint8)
    to_patient = np.linalg.inv(patient.pose) @ grid.axes_mm
    start = np.linalg.solve(patient.pose, grid.origin_mm - patient.shift)
    for first in range(0, grid.shape[0], _SLAB):
        slab = slice(first, first + _SLAB)
        corner = start + to_patient[:, 2] * first
        points = _bent(patient, _grid(hu[slab].shape, to_patient, corner))
        blur = np.abs(np.linalg.det(to_patient)) ** (1 / 3)
        for tissue in patient.tissues:
            _paint(tissue, points, hu[slab], label[slab], blur_mm=blur)
    return hu, label


def _grid(shape: Shape, axes: npt.NDArray[np.float64], corner: npt.NDArray[np.float64]) -> Array:
    """Patient coordinates (3, z, y, x) of a slab's voxels."""
    k, j, i = np.ogrid[tuple(slice(size) for size in shape)]
    return np.stack(
        [x * i + y * j + (z * k + origin) for (x, y, z), origin in zip(axes, corner, strict=True)]
    ).astype(np.float32)


def _bent(patient: Patient, points: Array) -> Array:
    """Moves points by the patient's waves."""
    bent = points.copy()
    for wave, phase, amplitude in zip(
        patient.waves, patient.phases, patient.amplitudes, strict=True
    ):
        ripple = np.sin(np.tensordot(wave.astype(np.float32), points, axes=1) + np.float32(phase))
        bent += amplitude.astype(np.float32)[:, None, None, None] * ripple
    return bent


def _paint(
    tissue: Tissue, points: Array, hu: Array, label: npt.NDArray[np.uint8], *, blur_mm: float
) -> None:
    """Blends a tissue into a slab; its surface has the width of a voxel."""
    part = _window(tissue, points, margin=blur_mm)
    if part is None:
        return
    z, y, x = part
    distance = tissue.solid.distance(points[:, z, y, x])
    for depth, value in tissue.layers:
        share = np.clip(0.5 - (distance + depth) / np.float32(blur_mm), 0, 1)
        hu[part] += share * (value - hu[part])
    if tissue.label is not None:
        label[part][distance < 0] = tissue.label


def _window(tissue: Tissue, points: Array, *, margin: float) -> tuple[slice, ...] | None:
    """The part of a slab that a tissue's box can reach, None if it cannot."""
    low, high = (edge.reshape(3, 1, 1, 1) for edge in tissue.solid.box)
    near = ((points > low - margin) & (points < high + margin)).all(axis=0)
    found = ndimage.find_objects(near.view(np.int8))
    return found[0] if found else None


def _noise(rng: np.random.Generator, shape: Shape, spacing: Triple, noise_hu: float) -> Array:
    """Noise with the grain of CT: equally coarse in mm on every grid, of a given strength."""
    white = rng.standard_normal(shape, dtype=np.float32)
    grain = ndimage.gaussian_filter(white, [_GRAIN_MM / step for step in spacing], mode="wrap")
    return grain * np.float32(noise_hu / grain.std())
