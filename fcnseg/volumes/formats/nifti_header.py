"""Grid, scale and voxel offset of a NIfTI header exactly as stored.

nibabel corrects a header before it returns it: a size of 0 becomes 1 mm, an undefined code becomes
0. Here it is read uncorrected, so that missing information is detected.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import nibabel as nib
import numpy as np
import numpy.typing as npt

from fcnseg.codes import Finding
from fcnseg.errors import GeometryError, InputError, one_line
from fcnseg.volumes.formats.raw_voxels import NOT_WHOLE
from fcnseg.volumes.formats.rescale import UNSCALED, Scale
from fcnseg.volumes.geometry import Geometry, check_affine
from fcnseg.volumes.zyx import Shape

NIFTI_SUFFIXES = (".nii", ".nii.gz")
"""File name suffixes of header and voxels."""

_KINDS = (nib.Nifti1Header, nib.Nifti2Header)
_GZIP = b"\x1f\x8b"  # signature of compressed data
# A quaternion's fourth component comes from three float32, which may cost 3e-4 rad, 0.15 mm at 500
# mm.
TOLERANCE_MM = 0.5
LAST_CODE = 5  # NIFTI_XFORM_TEMPLATE_OTHER; 1 is the first that names a space, 0 means none
LARGEST_OFFSET = 2**31  # bytes of header and extensions: the range of int32, 2 GiB


@dataclasses.dataclass(frozen=True, eq=False)
class NiftiHeader:
    """An uncorrected header.

    Attributes:
        raw: The header as stored.
        path: The file, for errors.
        is_single: True if header and voxels are in one file.
    """

    raw: nib.Nifti1Header
    path: str
    is_single: bool

    @classmethod
    def read(cls, path: str) -> NiftiHeader:
        """Reads the header of a file, or of a pair from its `.hdr`.

        Raises:
            InputError: If it is missing, or leaves the position or the scale of the voxels
                undefined.
        """
        is_single = path.lower().endswith(NIFTI_SUFFIXES)
        try:
            files = file_map(path)
            with files.get("header", files["image"]).get_prepare_fileobj("rb") as file:
                block = bytes(file.read(nib.Nifti2Header.sizeof_hdr))
        except NOT_WHOLE as error:
            raise InputError(f"not a readable volume: {path}: {one_line(error)}") from error
        if block.startswith(_GZIP):
            raise InputError(f"not a readable volume: {path}: it is compressed, so name it .nii.gz")
        kind = next((kind for kind in _KINDS if kind.may_contain_header(block)), None)
        if kind is None:
            raise InputError(f"not a readable volume: {path}: it has no header of NIfTI")
        header = cls(kind(block[: kind.sizeof_hdr], check=False), path, is_single)
        header._check_offset()
        header._check_scale()
        return header

    @property
    def image_class(self) -> type[nib.Nifti1Pair]:
        """Class of nibabel for the file."""
        pair, single = (nib.Nifti1Pair, nib.Nifti1Image)
        if isinstance(self.raw, nib.Nifti2Header):
            pair, single = (nib.Nifti2Pair, nib.Nifti2Image)
        return single if self.is_single else pair

    @property
    def scale(self) -> Scale:
        """Slope and intercept from stored numbers to values; a slope of 0 means no scale."""
        slope, intercept = float(self.raw["scl_slope"]), float(self.raw["scl_inter"])
        return UNSCALED if slope == 0 else (slope, intercept)

    def grid(self, shape: Shape) -> Geometry:
        """Computes the grid of an image; missing information is among its findings.

        Args:
            shape: Voxels (z, y, x).

        Raises:
            GeometryError: If the header defines no grid, or two.
        """
        sform, qform = (self._is_set(name) for name in ("sform_code", "qform_code"))
        findings = (*self._unknown_spacing(), *self._unknown_orientation())
        if qform:
            self._check_qform()
        if sform:
            affine = self.raw.get_sform().astype(np.float64)
        elif qform:
            affine = self._qform(self._steps())
        else:
            affine = np.diag([*self._steps(), 1.0])  # method 1 of the standard: x = pixdim * i
        grid = Geometry(shape, check_affine(affine, what=self.path), findings=findings)
        if sform and qform:
            self._check_forms_agree(grid)
        elif sform and not findings:
            self._check_steps_agree(grid)
        return grid

    def _check_offset(self) -> None:
        """Checks that voxels start at a byte after the header, where the standard has them.

        Raises:
            InputError: If not.
        """
        magic = self.raw.single_magic if self.is_single else self.raw.pair_magic
        if self.raw["magic"].item() != magic:
            raise InputError(
                f"not a readable volume: {self.path}: magic must be {magic!r} for a file of this"
                f" name, got {self.raw['magic'].item()!r}"
            )
        offset = float(self.raw["vox_offset"])
        least = self.raw.single_vox_offset if self.is_single else 0
        if not (least <= offset <= LARGEST_OFFSET and offset.is_integer()):
            raise InputError(
                f"not a readable volume: {self.path}: vox_offset must be a whole number of bytes,"
                f" at least {least}, got {offset:g}"
            )

    def _check_scale(self) -> None:
        scale = [float(self.raw[name]) for name in ("scl_slope", "scl_inter")]
        if not np.isfinite(scale).all():
            raise InputError(
                f"scl_slope and scl_inter must be finite, got {scale[0]:g} and {scale[1]:g} in"
                f" {self.path}",
                code="not_finite",
            )

    def _is_set(self, code: str) -> bool:
        return 0 < int(self.raw[code]) <= LAST_CODE

    def _steps(self) -> npt.NDArray[np.float64]:
        """Millimetres (x, y, z) of a voxel by pixdim; 1 if missing, as in the standard."""
        sizes = np.abs(self.raw["pixdim"][1:4].astype(np.float64))
        return np.where(np.isfinite(sizes) & (sizes > 0), sizes, 1.0)

    def _qform(self, steps: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """The qform with steps (x, y, z) in mm."""
        header = self.raw.copy()
        header["pixdim"][1:4] = steps
        header["pixdim"][0] = 1 if header["pixdim"][0] >= 0 else -1
        try:
            return np.asarray(header.get_qform(), np.float64)
        except ValueError as error:
            raise GeometryError(
                f"qform must be a rotation: {one_line(error)} in {self.path}", code="bad_affine"
            ) from error

    def _unknown_spacing(self) -> list[Finding]:
        sizes = self.raw["pixdim"][1:4].astype(np.float64)
        if np.isfinite(sizes).all() and (sizes > 0).all():
            return []
        taken = "the lengths of sform" if self._is_set("sform_code") else _listed(self._steps())
        reason = f"pixdim must be three positive numbers in mm, got {_listed(sizes)} (x, y, z)"
        return [Finding("spacing_unknown", f"{reason}; taken where accepted: {taken}")]

    def _unknown_orientation(self) -> list[Finding]:
        codes = [int(self.raw[name]) for name in ("qform_code", "sform_code")]
        if any(codes) and all(0 <= code <= LAST_CODE for code in codes):
            return []
        is_set = self._is_set("qform_code") or self._is_set("sform_code")
        taken = "the other form" if is_set else "x = pixdim * i, to right, anterior and superior"
        reason = (
            f"qform_code or sform_code must be 1 to {LAST_CODE}, and none another than 0,"
            f" got {codes[0]} and {codes[1]}"
        )
        return [Finding("orientation_unknown", f"{reason}; taken where accepted: {taken}")]

    def _check_qform(self) -> None:
        """Checks qfac, which programs read in different ways if it is negative, but not -1."""
        qfac = float(self.raw["pixdim"][0])
        if not (qfac >= 0 or qfac == -1):
            raise GeometryError(
                f"qform needs a pixdim[0] of 1 or -1, got {qfac:g} in {self.path}",
                code="bad_affine",
            )

    def _check_forms_agree(self, sform: Geometry) -> None:
        """Checks that both forms define one grid: programs differ in which they use.

        If pixdim is missing, the steps of the sform are used for the qform.
        """
        lengths = np.array(sform.spacing[::-1])
        qform = self._qform(lengths if self._unknown_spacing() else self._steps())
        apart = Geometry(sform.shape, qform).corners_mm() - sform.corners_mm()
        distance = float(np.linalg.norm(apart, axis=1).max())
        if not distance <= TOLERANCE_MM:
            raise GeometryError(
                f"qform and sform must agree within {TOLERANCE_MM} mm, but put the corners"
                f" {distance:.3g} mm apart in {self.path}",
                code="qform_sform_disagree",
            )

    def _check_steps_agree(self, sform: Geometry) -> None:
        """Checks sform against pixdim: programs differ in which of them they use for the steps."""
        lengths = np.array(sform.spacing[::-1])
        apart = np.abs(lengths - self._steps()) * sform.shape[::-1]
        if not apart.max() <= TOLERANCE_MM:
            raise GeometryError(
                f"sform and pixdim must agree within {TOLERANCE_MM} mm over the volume, but have"
                f" voxels of {_listed(lengths)} and {_listed(self._steps())} mm (x, y, z) in"
                f" {self.path}",
                code="qform_sform_disagree",
            )


def file_map(path: str) -> dict[str, nib.FileHolder]:
    """The files of a volume as nibabel names them; it would guess letters of another case."""
    if path.lower().endswith(NIFTI_SUFFIXES):
        return {"image": nib.FileHolder(path)}
    return {
        "header": nib.FileHolder(_half(path, ".hdr")),
        "image": nib.FileHolder(_half(path, ".img")),
    }


def _half(path: str, suffix: str) -> str:
    """Path of one file of a pair, whose suffix may have letters of any case."""
    given = Path(path)
    if given.suffix.lower() == suffix:
        return path
    same_case = given.with_suffix(suffix.upper() if given.suffix.isupper() else suffix)
    beside = [other for other in given.parent.iterdir() if other.stem == given.stem]
    found = sorted(other for other in beside if other.suffix.lower() == suffix)
    return str(same_case if same_case in found or not found else found[0])


def _listed(sizes: npt.NDArray[np.float64]) -> str:
    return ", ".join(f"{size:.6g}" for size in sizes)
