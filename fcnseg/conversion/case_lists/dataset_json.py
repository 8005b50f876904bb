"""Cases from a `dataset.json` of the Medical Segmentation Decathlon or of nnU-Net v1 or v2."""

from __future__ import annotations

import logging
from typing import Any

import pydantic

from fcnseg.conversion.case_lists.folders import cases_of_folders, volumes_in
from fcnseg.conversion.cases import Case, CaseList, check_cases, listed_wrong
from fcnseg.errors import InputError, first_finding, format_names
from fcnseg.storage import files
from fcnseg.storage.yaml_json import parse_json
from fcnseg.volumes import LabelMap, case_id_of

logger = logging.getLogger(__name__)

_IGNORE = "ignore"  # nnU-Net's name for unannotated voxels


class _Pair(pydantic.BaseModel):
    image: str
    label: str


class _Files(pydantic.BaseModel):
    images: list[str] = pydantic.Field(min_length=1, max_length=1)  # a channel, CT, each
    label: str | None = None


class _DatasetJson(pydantic.BaseModel):
    """The fields of all three forms; the channels are `modality` except in nnU-Net v2."""

    channels: dict[str, str] = pydantic.Field(
        validation_alias=pydantic.AliasChoices("channel_names", "modality")
    )
    labels: dict[str, Any]
    training: list[_Pair] | None = None  # the Decathlon and nnU-Net v1
    test: list[Any] = []
    dataset: dict[str, _Files] | None = None  # nnU-Net v2, where images are not in imagesTr
    number: int | None = pydantic.Field(None, validation_alias="numTraining")

    def ids_by_name(self) -> dict[str, list[int]]:
        """Ids of each label: nnU-Net v2 has {name: id or ids}, the others {id: name}."""
        if all(key.isdecimal() for key in self.labels):
            return {str(name): [int(key)] for key, name in self.labels.items()}
        return {
            name: list(map(int, ids if isinstance(ids, list) else [ids]))
            for name, ids in self.labels.items()
        }

    def listed(self, *, labelled: bool) -> list[tuple[str, str, str | None]]:
        """Lists case id, image and label of each case; those of `test` only if no label is wanted.

        nnU-Net v2's `dataset` names its cases; elsewhere the file names do.
        """
        if self.dataset is not None:
            return [(name, of.images[0], of.label) for name, of in self.dataset.items()]
        pairs: list[tuple[str, str | None]] = [(of.image, of.label) for of in self.training or ()]
        if not labelled:
            pairs += [(str(image), None) for image in self.test]
        return [(case_id_of(image), image, label) for image, label in pairs]


def cases_of_dataset_json(path: str, label_map: LabelMap, *, labelled: bool = True) -> CaseList:
    """Lists the training cases of a dataset; each is a patient of its own.

    Args:
        path: Path of `dataset.json`; the paths in it are relative to its folder.
        label_map: Must agree with the names and ids in the file.
        labelled: True if labels are required; if not, the cases without label are listed too.

    Raises:
        InputError: If the file is of another form, its images are not CT alone, or its labels
            contradict the label map.
    """
    text = files.read_text(path)
    try:
        content = _DatasetJson.model_validate(parse_json(text))
        ids_by_name = content.ids_by_name()
    except pydantic.ValidationError as error:
        raise InputError(f"{path} is no dataset.json: {first_finding(error)}") from error
    except InputError as error:
        raise InputError(f"{path} is no dataset.json: {error}") from error
    except (TypeError, ValueError) as error:
        raise InputError(f"labels of {path} must be names and ids: {error}") from error
    channels = list(content.channels.values())
    if [name.casefold() for name in channels] != ["ct"]:
        raise InputError(
            f"images must have one channel, CT, got {format_names(channels)} in {path}"
        )
    if labelled:
        _check_label_map(label_map, ids_by_name, path)
    listed = _list_cases(content, path, labelled=labelled)
    if labelled and content.number not in (None, len(listed)):
        logger.warning(f"{path} declares {content.number} training cases, but has {len(listed)}")
    return listed


def _check_label_map(label_map: LabelMap, named: dict[str, list[int]], path: str) -> None:
    """Checks that the label map lists all ids, and agrees with the names of the file."""
    _check_ignored(set(label_map.ignored), named, path)
    ids_of_class = {
        name: {part for part in parts if isinstance(part, int)}
        for name, parts in label_map.classes.items()
    }
    if label_map.unlisted == "reject":
        _check_listed(set(label_map.ignored).union(*ids_of_class.values()), named, path)
    ids_of_name = {name.casefold(): set(ids) for name, ids in named.items()}
    for name, ids in ids_of_class.items():
        _check_meaning(name, ids, ids_of_name.get(name.casefold(), set()), path)


def _check_ignored(ignored: set[int], named: dict[str, list[int]], path: str) -> None:
    """Checks that unannotated voxels become neither background nor an organ."""
    ids = {number for name, ids in named.items() if name.casefold() == _IGNORE for number in ids}
    if not ids <= ignored:
        lacking = ", ".join(map(str, sorted(ids - ignored)))
        raise InputError(
            f"the label map must list under `ignored` what {path} names {_IGNORE}, it lacks"
            f" {lacking}"
        )


def _check_listed(listed: set[int], named: dict[str, list[int]], path: str) -> None:
    lacking = {(number, name) for name, ids in named.items() for number in set(ids) - listed}
    if lacking:
        raise InputError(
            f"the label map must list each id of {path} or say `unlisted: background`, it lacks "
            f"{format_names([f'{number} ({name})' for number, name in sorted(lacking)])}"
        )


def _check_meaning(name: str, ids: set[int], meant: set[int], path: str) -> None:
    if ids and meant and not ids & meant:
        raise InputError(
            f"the label map and {path} must mean the same by {name}, got the ids {sorted(ids)} and "
            f"{sorted(meant)}"
        )


def _list_cases(content: _DatasetJson, path: str, *, labelled: bool) -> CaseList:
    folder = files.parent(path)
    if content.dataset is None and content.training is None:
        images, labels = files.join(folder, "imagesTr"), files.join(folder, "labelsTr")
        return cases_of_folders(images, labels if labelled else None)
    listed = [
        (case_id, _resolve(image, folder), _resolve(label, folder) if label and labelled else None)
        for case_id, image, label in content.listed(labelled=labelled)
    ]
    there = {parent: volumes_in(parent) for parent in {files.parent(file) for _, file, _ in listed}}
    cases = [
        Case(case_id, _as_it_is_called(image, there[files.parent(image)]), label, case_id)
        for case_id, image, label in listed
    ]
    lacking = [case for case in cases if labelled and case.label is None]
    return check_cases(
        [case for case in cases if case not in lacking],
        source=path,
        rejects=[listed_wrong(case, "file_missing", f"no label in {path}") for case in lacking],
    )


def _resolve(path: str, folder: str) -> str:
    return files.resolve(path.removeprefix("./"), folder)


def _as_it_is_called(image: str, there: dict[str, list[str]]) -> str:
    """Finds a listed image: nnU-Net v1 lists `liver_1_0000.nii.gz` as `liver_1.nii.gz`."""
    found = there.get(case_id_of(image), [])
    return found[0] if len(found) == 1 else image
