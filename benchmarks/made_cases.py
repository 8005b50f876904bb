"""Synthetic cases of clinical size, made in seconds, for `bench_convert.py`."""

from __future__ import annotations

import gzip
from pathlib import Path

import nibabel as nib
import numpy as np
import numpy.typing as npt

Triple = tuple[float, float, float]
Shape = tuple[int, int, int]
_MOST_SLICES = 168  # slices to render; more are repeated


def make_case(folder: Path, name: str, shape: Shape, spacing: Triple) -> tuple[str, str]:
    """Makes a phantom with noise, so that gzip has work to do; repeated along z to save time.

    Returns:
        Paths of image and label.
    """
    from fcnseg.testing.phantom import make_phantom

    # Rendered at half the resolution, where a phantom takes seconds, then each voxel eight times.
    slices = min(shape[0], _MOST_SLICES)
    depth, height, width = (-(-count // 2) for count in (slices, *shape[1:]))
    coarse = (2 * spacing[0], 2 * spacing[1], 2 * spacing[2])
    image, label = make_phantom(0, spacing=coarse, shape=(depth, height, width))
    rng = np.random.default_rng(0)
    paths = []
    for part, volume in (("image", image), ("label", label)):
        array = volume.array.repeat(2, 0).repeat(2, 1).repeat(2, 2)[:slices, : shape[1], : shape[2]]
        if part == "image":
            noise = rng.standard_normal(array.shape, dtype=np.float32) * 12
            array = np.maximum(array + noise.astype(np.int16), -1024).astype(np.int16)
        paths.append(str(folder / f"{name}_{part}.nii.gz"))
        _write(paths[-1], np.ascontiguousarray(array), shape, spacing)
    return paths[0], paths[1]


def _write(path: str, array: npt.NDArray[np.integer], shape: Shape, spacing: Triple) -> None:
    """Writes slices repeatedly until there are enough; each repetition is a gzip member."""
    header = nib.Nifti1Header()
    header.set_data_dtype(array.dtype)
    header.set_data_shape(shape[::-1])
    affine = np.diag([-spacing[2], -spacing[1], spacing[0], 1.0])  # LPS, as scanners write
    header.set_sform(affine, code=1)
    header.set_qform(affine, code=1)
    header.set_slope_inter(1, 0)
    header["vox_offset"], header["magic"] = 352, b"n+1"
    run = gzip.compress(array.tobytes(), 6)  # as nibabel and SimpleITK do by default
    with open(path, "wb") as file:
        file.write(gzip.compress(header.binaryblock + bytes(4)))
        for _ in range(shape[0] // len(array)):
            file.write(run)
        file.write(gzip.compress(array[: shape[0] % len(array)].tobytes(), 1))
