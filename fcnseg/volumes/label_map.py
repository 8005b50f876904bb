"""Label maps: the ids of a label file, or the binary masks, of each class."""

from __future__ import annotations

import dataclasses
import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pydantic
import yaml

from fcnseg.codes import Code
from fcnseg.errors import InputError, LabelError, first_finding, format_names, one_line
from fcnseg.storage.yaml_json import read_yaml
from fcnseg.volumes.lookup import look_up, table_rows
from fcnseg.volumes.volume import of_case

BACKGROUND = "background"
_MOST_NAMES = 10  # ids in one message: a CT given as a label has thousands
_LIKE_IDS = re.compile(r"[\d\s.,:-]+")  # ids in quotes, or a range: no name of a mask
_MOST_IDS = 255  # more are the values of an image
_NO_WRAP = 10**6  # characters: a class stays on its line
_FORM = ': write "classes: {background: [0], liver: [1]}"'  # the end of errors about the form
_MOST_CLASSES = 65535  # range of uint16, less one number for voxels to ignore


@dataclasses.dataclass(frozen=True)
class LabelMap:
    """Classes in order, each with its ids or masks; the class index is the position in the order.

    Attributes:
        classes: Sources of each class by its name: ids, for labels that are one file, and names of
            masks, for labels that are a folder of binary files. A class without named masks uses
            the mask with its own name. The first class is the background.
        unlisted: Handling of ids that no class names: `background`, or `reject`, an error.
        ignored: Ids of unannotated voxels; they become `ignore_label`, which loss and metrics
            ignore.
    """

    classes: dict[str, tuple[int | str, ...]]
    unlisted: Literal["background", "reject"] = "reject"
    ignored: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if next(iter(self.classes), None) != BACKGROUND:
            raise LabelError(f"classes must begin with {BACKGROUND}, got {list(self.classes)}")
        most = _MOST_CLASSES - bool(self.ignored)
        if not 2 <= len(self.classes) <= most:
            raise LabelError(f"classes must be 2 to {most}, got {len(self.classes)}")
        ids = [*(number for number, _ in self._ids()), *self.ignored]
        _check_once("an id", ids)
        _check_once("a mask", [name for name, _ in self.masks])
        if any(isinstance(part, str) for part in self.classes[BACKGROUND]):
            raise LabelError(
                f"{BACKGROUND} is what no mask holds, got {list(self.classes[BACKGROUND])}"
            )
        if min(ids, default=0) < 0:
            raise LabelError(f"ids must not be negative, got {min(ids)}")

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> LabelMap:
        """Reads a label map from YAML.

        The file has `classes`, names in order each with a list of ids and names of masks, and
        optionally `unlisted` and `ignored`.

        Raises:
            LabelError: If the file is missing, is not of this form, or breaks a rule.
        """
        try:
            content = read_yaml(path)
        except (OSError, InputError) as error:
            raise LabelError(f"label map {path} cannot be read: {one_line(error)}") from error
        try:
            return cls.from_mapping(content)
        except LabelError as error:
            raise LabelError(f"label map {path}: {error}") from error

    @classmethod
    def from_mapping(cls, mapping: Mapping[str, Any]) -> LabelMap:
        """Builds a label map from the result of `to_mapping`, or the content of a YAML file.

        Raises:
            LabelError: If the mapping is not of this form, or breaks a rule.
        """
        known = [field.name for field in dataclasses.fields(cls)]
        if not isinstance(mapping, Mapping) or not set(mapping) <= set(known):
            keys = list(mapping) if isinstance(mapping, Mapping) else mapping
            raise LabelError(f"a label map has the keys {format_names(known)}, got {keys!r}{_FORM}")
        _check_form(mapping)
        try:
            return pydantic.TypeAdapter(cls).validate_python(dict(mapping))
        except pydantic.ValidationError as error:
            raise LabelError(first_finding(error)) from error

    @classmethod
    def consecutive(cls, class_names: Sequence[str]) -> LabelMap:
        """Builds the map of masks that fcnseg writes: id n is class n."""
        return cls({name: (index,) for index, name in enumerate(class_names)})

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names in order, background first."""
        return tuple(self.classes)

    @property
    def masks(self) -> tuple[tuple[str, int], ...]:
        """Names of binary masks, each with the index of its class, in order.

        >>> LabelMap({"background": (), "liver": (5,), "vein": ("cava", "portal")}).masks
        (('liver', 1), ('cava', 2), ('portal', 2))
        """
        return tuple(
            (mask, index)
            for index, (name, parts) in enumerate(self.classes.items())
            for mask in [part for part in parts if isinstance(part, str)] or [name]
            if index > 0
        )

    def _ids(self) -> list[tuple[int, int]]:
        """Ids, each with the index of its class."""
        return [
            (part, index)
            for index, parts in enumerate(self.classes.values())
            for part in parts
            if not isinstance(part, str)
        ]

    @property
    def num_classes(self) -> int:
        """Number of classes, background included."""
        return len(self.classes)

    def to_mapping(self) -> dict[str, Any]:
        """Plain values, as YAML and JSON hold them."""
        classes = {name: list(parts) for name, parts in self.classes.items()}
        return {"unlisted": self.unlisted, "ignored": list(self.ignored), "classes": classes}

    def to_yaml(self) -> str:
        """Text of a file that `read` reads back, with a class on each line."""
        text: str = yaml.safe_dump(
            self.to_mapping(),
            default_flow_style=None,  # lists on one line, mappings on several
            sort_keys=False,
            allow_unicode=True,
            width=_NO_WRAP,
        )
        return text

    @property
    def dtype(self) -> np.dtype[np.uint8 | np.uint16]:
        """Type of class indices, which is uint8, or uint16 if 255 values are too few."""
        numbers = self.num_classes + bool(self.ignored)
        return np.dtype(np.uint8 if numbers <= 255 else np.uint16)

    @property
    def ignore_label(self) -> int | None:
        """Index of ignored ids, the largest number of `dtype`; None if there are none."""
        return int(np.iinfo(self.dtype).max) if self.ignored else None

    def apply(
        self, label: npt.NDArray[np.integer], *, case_id: str | None = None
    ) -> npt.NDArray[np.uint8 | np.uint16]:
        """Maps the ids of a label file to class indices.

        Args:
            label: Ids, any integer type and shape.
            case_id: Named in the error.

        Returns:
            Class indices of the same shape, of `dtype`.

        Raises:
            LabelError: If an id is negative, or of no class while `unlisted` is `reject`; the
                message has each such id with its number of voxels. The code is `label_negative` or
                `label_ids_unknown`.
        """
        rows, ids = table_rows(label)
        unlisted = self.num_classes  # the first number beyond the classes
        table = np.full(len(ids), 0 if self.unlisted == "background" else unlisted, self.dtype)
        by_id = dict(self._ids())
        if self.ignore_label is not None:
            by_id |= dict.fromkeys(self.ignored, self.ignore_label)
        for row, number in enumerate(ids):
            table[row] = by_id.get(int(number), unlisted if number < 0 else table[row])
        classes = look_up(table, rows)
        if (table == unlisted).any() and (wrong := classes == unlisted).any():
            raise _unlisted_ids(label[wrong], case_id)
        return classes


def _check_form(mapping: Mapping[str, Any]) -> None:
    """Checks that classes have names, and lists of ids or masks: `liver: [3]`, not `liver: 3`."""
    classes = mapping.get("classes")
    if not isinstance(classes, Mapping):
        raise LabelError(f"classes must be names, each with a list, got {classes!r}{_FORM}")
    for name, parts in classes.items():
        if not isinstance(name, str):
            raise LabelError(
                f"classes must be names, each with a list of ids, got {name!r}: {parts!r}{_FORM}"
            )
        if name != name.strip() or not name or not name.isprintable():
            raise LabelError(f"classes must have names without blanks around them, got {name!r}")
        _check_list(name, parts)
    _check_list("ignored", mapping.get("ignored", ()))


def _check_list(name: str, parts: Any) -> None:
    if not isinstance(parts, list | tuple):
        right = "" if parts is None else str(parts)
        raise LabelError(
            f'{name} must be a list of ids or masks, got {parts!r}: write "{name}: [{right}]"'
        )
    for part in parts:
        if isinstance(part, bool) or (isinstance(part, str) and _LIKE_IDS.fullmatch(part)):
            raise LabelError(
                f"{name} must be a list of ids or masks, got {part!r}: write each id as a number,"
                " without quotes or zeros in front"
            )


def _check_once(what: str, parts: list[Any]) -> None:
    twice = sorted(part for part, count in Counter(parts).items() if count > 1)
    if twice:
        raise LabelError(f"{what} must belong to one class, got {twice} in several")


def _unlisted_ids(values: npt.NDArray[np.integer], case_id: str | None) -> LabelError:
    """Makes the error that lists ids with their numbers of voxels."""
    ids, counts = np.unique(values, return_counts=True)
    found = [f"{n} ({count} voxels)" for n, count in zip(ids, counts, strict=True)]
    swapped = "; is it the image?" * (len(ids) > _MOST_IDS)
    code: Code = "label_negative" if ids[0] < 0 else "label_ids_unknown"
    rule = "not be negative" if ids[0] < 0 else "be listed in the label map"
    return LabelError(
        f"label ids must {rule}, got {format_names(found, most=_MOST_NAMES)}{swapped}"
        f"{of_case(case_id)}",
        code=code,
    )
