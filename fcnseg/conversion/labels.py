"""The label of a case on the grid of its image: one file of ids, or a folder of binary masks."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator

import numpy as np
import numpy.typing as npt

from fcnseg.codes import CODES, Code, Finding, how_to_accept
from fcnseg.conversion.check_options import CheckOptions
from fcnseg.conversion.rejects import CaseError, opened
from fcnseg.errors import GeometryError, LabelError, format_names
from fcnseg.storage import files
from fcnseg.volumes import (
    Geometry,
    LabelMap,
    Volume,
    case_id_of,
    check_same_voxels,
    is_turned,
    read_geometry,
    read_label,
    turn_like,
)
from fcnseg.volumes.formats.reading import SUFFIXES
from fcnseg.volumes.regridding import label_on_grid

Classes = npt.NDArray[np.uint8 | np.uint16]
_MASK_SUFFIXES = tuple(suffix for suffix in SUFFIXES if suffix not in (".dcm", ".img"))
_MOST_NAMES = 10  # pairs of classes in one warning


def find_in_counts(counts: npt.NDArray[np.int64]) -> list[Finding]:
    """Finds whether a label is empty.

    Args:
        counts: Voxels of each class (K,), background first.
    """
    if counts[1:].any():
        return []
    reason = f"a label must show an organ, but all of its {counts[0]} voxels are background"
    return [Finding("label_empty", reason)]


@dataclasses.dataclass(frozen=True)
class LabelReader:
    """Reads labels as classes.

    Attributes:
        label_map: Maps ids, or masks, to classes.
        checks: Handling of labels on another grid than the image's.
        reference: Name, for errors, of the grid that labels must lie on.
    """

    label_map: LabelMap
    checks: CheckOptions
    reference: str = "image"

    def inspect(self, label: str, image: Geometry) -> None:
        """Checks the headers of a label against the image.

        Args:
            label: Path of a label volume, or of a folder of masks.
            image: The grid of the image.

        Raises:
            CaseError: If a file is missing or unreadable, or lies on another grid and this is not
                accepted.
        """
        for file in [file for file, _ in self._masks(label)] or [label]:
            with opened(file, header_only=True) as path:
                geometry = read_geometry(path, like=image)
            self._check_known(geometry.findings, file)
            self._mismatch(geometry, image, file)

    def read(self, label: str, image: Geometry) -> tuple[Classes, list[Finding]]:
        """Reads a label.

        Args:
            label: Path of a label volume, or of a folder of masks.
            image: The grid of the image.

        Returns:
            Class indices (z, y, x) on the grid of the image, and the oddities found in the label.

        Raises:
            CaseError: If a file is unreadable, its values are no label, or it lies on another grid
                and this is not accepted.
        """
        masks = self._masks(label)
        if masks:
            return self._merge(masks, image)
        with opened(label) as path:
            volume = read_label(path, like=image)
            classes = volume.with_array(self.label_map.apply(volume.array))
        array, finding = self._on_grid(classes, image, label)
        return array, [*volume.findings, *finding]

    def _masks(self, label: str) -> list[tuple[str, int]]:
        """Paths of masks, each with its class; none if the label is one volume."""
        if not files.is_folder(label):
            return []
        inside = files.list_folder(label)
        found = _masks_among(inside, label)
        if inside and not found:
            return []  # any other folder is a DICOM segmentation
        missing = [name for name, _ in self.label_map.masks if name not in found]
        if missing:
            raise CaseError(
                "masks_missing",
                f"a folder of masks must hold a file for each mask that the label map names, an"
                f" empty one where there is no such organ: no {format_names(missing)} in {label}",
                file=label,
            )
        return [(found[name], index) for name, index in self.label_map.masks]

    def _merge(
        self, masks: list[tuple[str, int]], image: Geometry
    ) -> tuple[Classes, list[Finding]]:
        """Reads one mask after the other; where two overlap, the later class takes the voxel."""
        classes = np.zeros(image.shape, dtype=self.label_map.dtype)
        taken = np.zeros((self.label_map.num_classes,) * 2, dtype=np.int64)  # (later, earlier)
        findings: list[Finding] = []
        for file, index in masks:
            mask, finding = self._read_mask(file, image)
            taken[index] += np.bincount(classes[mask], minlength=len(taken))
            classes[mask] = index
            findings += finding
        return classes, [*findings, *self._overlaps(taken)]

    def _read_mask(self, file: str, image: Geometry) -> tuple[npt.NDArray[np.bool_], list[Finding]]:
        with opened(file) as path:
            volume = read_label(path)
            mask = volume.with_array(_binary(volume.array, file))
        array, finding = self._on_grid(mask, image, file)
        return array, [*volume.findings, *finding]

    def _overlaps(self, taken: npt.NDArray[np.int64]) -> Iterator[Finding]:
        """The finding about the voxels that classes took from earlier ones, if any."""
        names = self.label_map.class_names
        pairs = [
            f"{names[earlier]} to {names[later]} {taken[later, earlier]}"
            for later, earlier in np.argwhere(taken)
            if 0 < earlier != later
        ]
        if pairs:
            yield Finding(
                "masks_overlap",
                f"masks overlap, and the later class of the label map takes the voxels: from"
                f" {format_names(pairs, most=_MOST_NAMES)} voxels",
            )

    def _on_grid(
        self, label: Volume, image: Geometry, file: str
    ) -> tuple[npt.NDArray, list[Finding]]:
        """Brings the label's array to the grid of the image, and gives the warnings for that."""
        self._check_known(label.findings, file)
        mismatch = self._mismatch(label.geometry, image, file)
        if mismatch is None:
            return turn_like(label, image).array, []
        if self.checks.on_mismatch == "trust_image":
            return label.array, [Finding("label_moved", f"taken as the image lies: {mismatch}")]
        on_grid = label_on_grid(label, image)
        return on_grid.array, [Finding("label_resampled", f"taken to the image's grid: {mismatch}")]

    def _check_known(self, findings: Iterable[Finding], file: str) -> None:
        """Rejects a label whose header leaves its grid unknown, before it is compared."""
        for finding in findings:
            if finding.code in CODES and finding.code not in self.checks.accept:
                detail = how_to_accept(finding.code)
                raise CaseError(finding.code, finding.reason, file=file, detail=detail)

    def _mismatch(self, label: Geometry, image: Geometry, file: str) -> str | None:
        """The mismatch between the grids, if there is one and it is accepted."""
        try:
            check_same_voxels(
                image,
                label,
                tolerance_mm=self.checks.geometry_tolerance_mm,
                names=(self.reference, "label"),
            )
        except GeometryError as error:
            same_shape = image.shape == label.shape
            trusted = self.checks.on_mismatch == "trust_image" and same_shape
            mirrors = trusted and is_turned(label, image)
            if self.checks.on_mismatch == "resample_label" or (trusted and not mirrors):
                return str(error)
            reason = f"{error}; trust_image turns and mirrors none" if mirrors else str(error)
            code: Code = "grid_mismatch" if same_shape else "shape_mismatch"
            raise CaseError(code, reason, file=file) from error
        return None


def _masks_among(paths: list[str], folder: str) -> dict[str, str]:
    """Paths of the volumes directly in a folder by their names without suffix, DICOM left out.

    Raises:
        CaseError: If two files have one name.
    """
    root = files.join(folder, "")
    found: dict[str, str] = {}
    for path in paths:
        name = path.removeprefix(root)
        if "/" in name or not name.lower().endswith(_MASK_SUFFIXES):
            continue
        other = found.setdefault(case_id_of(name), path)
        if other != path:
            raise CaseError(
                "mask_ambiguous",
                f"a mask must be one file, got {other.removeprefix(root)} and {name} in {folder}",
                file=folder,
            )
    return found


def _binary(mask: npt.NDArray[np.integer], file: str) -> npt.NDArray[np.bool_]:
    """The voxels where a mask has its single nonzero value.

    Raises:
        LabelError: If it contains several nonzero values.
    """
    inside = mask != 0
    low, high = (int(mask.min()), int(mask.max()))
    if low < 0 or (high > 1 and np.count_nonzero(mask == high) != np.count_nonzero(inside)):
        values = np.unique(mask)
        raise LabelError(
            "a mask must hold 0 and one other value, got"
            f" {format_names(values.tolist(), most=_MOST_NAMES)} in {file}",
            code="mask_not_binary",
        )
    return inside
