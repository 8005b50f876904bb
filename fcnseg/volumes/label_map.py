"""Label maps: which ids of a label file make which class."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pydantic
import yaml

from fcnseg.errors import LabelError, first_finding, one_line
from fcnseg.volumes.volume import of_case

BACKGROUND = "background"
_MOST_CLASSES = 65536  # what uint16 counts


@dataclasses.dataclass(frozen=True)
class LabelMap:
    """Classes in order, each with the ids that make it; the class index is the place in the order.

    Attributes:
        classes: Ids by class name; the first class is the background.
        unlisted: What an id that no class names becomes: `background`, or `reject`, an error.
    """

    classes: dict[str, tuple[int, ...]]
    unlisted: Literal["background", "reject"] = "reject"

    def __post_init__(self) -> None:
        if next(iter(self.classes), None) != BACKGROUND:
            raise LabelError(f"classes must begin with {BACKGROUND}, got {list(self.classes)}")
        if not 2 <= len(self.classes) <= _MOST_CLASSES:
            raise LabelError(f"classes must be 2 to {_MOST_CLASSES}, got {len(self.classes)}")
        ids = [number for numbers in self.classes.values() for number in numbers]
        twice = sorted({number for number in ids if ids.count(number) > 1})
        if twice:
            raise LabelError(f"an id must belong to one class, got {twice} in several")
        if min(ids, default=0) < 0:
            raise LabelError(f"ids must not be negative, got {min(ids)}")

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> LabelMap:
        """Reads a label map from YAML.

        The file has `classes`, names in order each with a list of ids, and optionally `unlisted`.

        Raises:
            LabelError: If the file is missing, is not of this form, or breaks a rule.
        """
        try:
            content = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            raise LabelError(f"label map {path} cannot be read: {one_line(error)}") from error
        try:
            return cls.from_mapping(content)
        except LabelError as error:
            raise LabelError(f"label map {path}: {error}") from error

    @classmethod
    def from_mapping(cls, mapping: Mapping[str, Any]) -> LabelMap:
        """Makes a label map of what `to_mapping` gives, or a YAML file holds.

        Raises:
            LabelError: If the mapping is not of this form, or breaks a rule.
        """
        if not isinstance(mapping, Mapping) or not set(mapping) <= {"classes", "unlisted"}:
            keys = list(mapping) if isinstance(mapping, Mapping) else mapping
            raise LabelError(f"a label map has the keys classes and unlisted, got {keys!r}")
        try:
            return pydantic.TypeAdapter(cls).validate_python(dict(mapping))
        except pydantic.ValidationError as error:
            raise LabelError(first_finding(error)) from error

    @classmethod
    def consecutive(cls, class_names: Sequence[str]) -> LabelMap:
        """The map of masks that fcnseg writes: id n is class n."""
        return cls({name: (index,) for index, name in enumerate(class_names)})

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names in order, background first."""
        return tuple(self.classes)

    @property
    def num_classes(self) -> int:
        """Number of classes, background included."""
        return len(self.classes)

    def to_mapping(self) -> dict[str, Any]:
        """Plain values, as YAML and JSON hold them."""
        classes = {name: list(numbers) for name, numbers in self.classes.items()}
        return {"unlisted": self.unlisted, "classes": classes}

    def apply(
        self, label: npt.NDArray[np.integer], *, case_id: str | None = None
    ) -> npt.NDArray[np.uint8 | np.uint16]:
        """Turns the ids of a label file into class indices.

        Args:
            label: Ids, any integer type and shape.
            case_id: Named in the error.

        Returns:
            Class indices of the same shape, uint8, or uint16 above 256 classes.

        Raises:
            LabelError: If an id belongs to no class and `unlisted` is `reject`; each such id is
                named with its number of voxels.
        """
        ids, counts = _occurring(label)
        by_id = {n: index for index, ns in enumerate(self.classes.values()) for n in ns}
        unlisted = {
            number: count
            for number, count in zip(ids, counts, strict=True)
            if number not in by_id and (number < 0 or self.unlisted == "reject")
        }
        if unlisted:
            told = ", ".join(f"{number} ({count} voxels)" for number, count in unlisted.items())
            raise LabelError(
                f"label ids must be listed in the label map, got {told}{of_case(case_id)}"
            )
        indices = [by_id.get(number, 0) for number in ids]
        dtype = np.uint8 if self.num_classes <= 256 else np.uint16
        return _look_up(label, ids, np.array(indices, dtype=dtype))


def _occurring(label: npt.NDArray[np.integer]) -> tuple[list[int], list[int]]:
    """The ids in a label array, ascending, with their counts; slab by slab to bound memory."""
    counts: dict[int, int] = {}
    for slab in label:
        for number, count in zip(*np.unique(slab, return_counts=True), strict=True):
            counts[int(number)] = counts.get(int(number), 0) + int(count)
    return sorted(counts), [counts[number] for number in sorted(counts)]


def _look_up(
    label: npt.NDArray[np.integer], ids: list[int], indices: npt.NDArray[np.uint8 | np.uint16]
) -> npt.NDArray[np.uint8 | np.uint16]:
    classes = np.empty(label.shape, dtype=indices.dtype)
    for place, slab in enumerate(label):
        classes[place] = indices[np.searchsorted(ids, slab)]
    return classes
