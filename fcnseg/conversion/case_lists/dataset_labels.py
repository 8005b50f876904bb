"""The labels of a `dataset.json`: names with their ids, and the label map that they make."""

from __future__ import annotations

import dataclasses
import logging
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from fcnseg.errors import InputError, LabelError, format_names
from fcnseg.volumes import LabelMap
from fcnseg.volumes.label_map import BACKGROUND

logger = logging.getLogger(__name__)

IGNORE = "ignore"  # nnU-Net's name for unannotated voxels
_WAY_OUT = "give --label_map with one class for each id"


@dataclasses.dataclass(frozen=True)
class DatasetLabels:
    """The names of a `dataset.json` with their ids.

    Attributes:
        source: Path of the file, for errors.
        ids: Ids of each name in the order of the file; a region of nnU-Net v2 has several, and
            regions may overlap.
        region_ids: `regions_class_order` of nnU-Net v2: the id that it writes for each region,
            where a later region takes the voxels of an earlier one; empty if the file has none.
    """

    source: str
    ids: dict[str, tuple[int, ...]]
    region_ids: tuple[int, ...] = ()

    @classmethod
    def of(
        cls, labels: dict[str, Any], region_ids: Sequence[int] | None, *, source: str
    ) -> DatasetLabels:
        """Reads the two entries of the file.

        Args:
            labels: {name: id or ids} of nnU-Net v2, or {id: name} of the other forms, where a name
                may have several ids.
            region_ids: `regions_class_order`, if it is there.
            source: Path of the file, for errors.

        Raises:
            InputError: If an id is no integer.
        """
        ids: dict[str, list[int]] = defaultdict(list)
        try:
            if all(key.isdecimal() for key in labels):
                for key, name in labels.items():
                    ids[str(name)].append(int(key))
            else:
                for name, given in labels.items():
                    ids[name] += map(_integer, given if isinstance(given, list) else [given])
        except (TypeError, ValueError) as error:
            raise InputError(f"labels of {source} must be names and ids: {error}") from error
        return cls(
            source, {name: tuple(each) for name, each in ids.items()}, tuple(region_ids or ())
        )

    def label_map(self) -> LabelMap:
        """Makes the label map: the classes by their lowest id, each with the name in the file.

        Of regions that lie in one another, each class has the ids that no later region contains,
        as nnU-Net writes them: one class a voxel.

        Raises:
            InputError: If regions overlap in another way, 0 is an organ, or there is no organ.
        """
        background = [number for name in self._named(BACKGROUND) for number in self.ids[name]]
        ignored = [number for name in self._named(IGNORE) for number in self.ids[name]]
        classes = dict(sorted(self._disjoint().items(), key=lambda item: min(item[1])))
        for name, ids in classes.items():
            if 0 in ids:
                raise InputError(
                    f"id 0 must be {BACKGROUND} in {self.source}, got {name}: {_WAY_OUT}"
                )
        of_map: dict[str, tuple[int | str, ...]] = {BACKGROUND: tuple(background or [0])}
        of_map |= {name: tuple(sorted(ids)) for name, ids in classes.items()}
        try:
            return LabelMap(of_map, ignored=tuple(ignored))
        except LabelError as error:
            raise InputError(f"labels of {self.source}: {error}; {_WAY_OUT}") from error

    def check(self, label_map: LabelMap) -> None:
        """Checks that a label map lists all ids, and agrees with the names of the file.

        Raises:
            InputError: If it does not.
        """
        self._check_ignored(set(label_map.ignored))
        ids_of_class = {
            name: {part for part in parts if isinstance(part, int)}
            for name, parts in label_map.classes.items()
        }
        if label_map.unlisted == "reject":
            self._check_listed(set(label_map.ignored).union(*ids_of_class.values()))
        for name, ids in ids_of_class.items():
            meant = {number for same in self._named(name) for number in self.ids[same]}
            if ids and meant and not ids & meant:
                raise InputError(
                    f"the label map and {self.source} must mean the same by {name}, got the ids"
                    f" {sorted(ids)} and {sorted(meant)}"
                )

    def _named(self, name: str) -> list[str]:
        """The names of the file that are this one but for capitals."""
        return [each for each in self.ids if each.casefold() == name.casefold()]

    def _check_ignored(self, ignored: set[int]) -> None:
        """Checks that unannotated voxels become neither background nor an organ."""
        ids = {number for name in self._named(IGNORE) for number in self.ids[name]}
        if not ids <= ignored:
            lacking = ", ".join(map(str, sorted(ids - ignored)))
            raise InputError(
                f"the label map must list under `ignored` what {self.source} names {IGNORE}, it"
                f" lacks {lacking}"
            )

    def _check_listed(self, listed: set[int]) -> None:
        lacking = {(number, name) for name, ids in self.ids.items() for number in {*ids} - listed}
        if lacking:
            raise InputError(
                f"the label map must list each id of {self.source} or say `unlisted: background`,"
                f" it lacks {format_names([f'{id_} ({name})' for id_, name in sorted(lacking)])}"
            )

    def _disjoint(self) -> dict[str, set[int]]:
        """The ids of each organ or region that no later one contains.

        Raises:
            InputError: If two regions overlap and the later one is not a part of the earlier, a
                region has no id of its own, or `regions_class_order` does not name one of them.
        """
        left_out = {*self._named(BACKGROUND), *self._named(IGNORE)}
        regions = {name: set(ids) for name, ids in self.ids.items() if name not in left_out}
        own: dict[str, set[int]] = {}
        names = list(regions)
        for place, name in enumerate(names):
            inner = [later for later in names[place + 1 :] if regions[later] & regions[name]]
            for later in inner:
                if not regions[later] < regions[name]:
                    raise self._overlap(f"{later} must be a part of {name}, which comes before it")
            own[name] = regions[name].difference(*(regions[later] for later in inner))
            if not own[name]:
                raise self._overlap(f"{name} must have an id of its own, in none of its parts")
        if own != regions:
            self._check_region_ids(own)
            ids = [f"{name} {sorted(own[name])}" for name in names]
            logger.warning(
                f"regions of {self.source} overlap, and become classes by the ids that no later"
                f" one has: {format_names(ids, most=len(ids))}"
            )
        return own

    def _check_region_ids(self, own: dict[str, set[int]]) -> None:
        """Checks that nnU-Net would write one of its own ids for each region."""
        if len(self.region_ids) != len(own):
            raise self._overlap(
                f"regions_class_order must have an id for each of {', '.join(own)}, got"
                f" {list(self.region_ids)}"
            )
        for number, (name, ids) in zip(self.region_ids, own.items(), strict=True):
            if number not in ids:
                raise self._overlap(
                    f"regions_class_order must have an id of {name} that no later region has,"
                    f" {sorted(ids)}, got {number}"
                )

    def _overlap(self, rule: str) -> InputError:
        return InputError(
            f"overlapping regions of {self.source} must be one class a voxel: {rule}; {_WAY_OUT}"
        )


def _integer(value: Any) -> int:
    """Reads an id, which some files have as text.

    Raises:
        ValueError: If it is no integer; `int` alone would cut 1.5 to 1.
    """
    if isinstance(value, bool) or (isinstance(value, float) and not value.is_integer()):
        raise ValueError(f"an id must be an integer, got {value}")
    return int(value)
