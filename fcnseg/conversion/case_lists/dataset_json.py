"""Cases from a `dataset.json` of the Medical Segmentation Decathlon or of nnU-Net v1 or v2."""

from __future__ import annotations

import logging
from typing import Any

import pydantic

from fcnseg.conversion.case_lists.dataset_labels import DatasetLabels
from fcnseg.conversion.case_lists.folders import cases_of_folders, volumes_in
from fcnseg.conversion.cases import Case, CaseList, check_cases, listed_wrong
from fcnseg.errors import InputError, first_finding, format_names
from fcnseg.storage import files
from fcnseg.storage.yaml_json import parse_json
from fcnseg.volumes import LabelMap, case_id_of

logger = logging.getLogger(__name__)


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
    regions_class_order: list[int] | None = None  # nnU-Net v2
    training: list[_Pair] | None = None  # the Decathlon and nnU-Net v1
    test: list[Any] = []
    dataset: dict[str, _Files] | None = None  # nnU-Net v2, where images are not in imagesTr
    number: int | None = pydantic.Field(None, validation_alias="numTraining")

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


def cases_of_dataset_json(
    path: str, label_map: LabelMap | None = None, *, labelled: bool = True
) -> CaseList:
    """Lists the training cases of a dataset; each is a patient of its own.

    Args:
        path: Path of `dataset.json`; the paths in it are relative to its folder.
        label_map: Must agree with the names and ids in the file; not checked if it is None, or
            labels are not required.
        labelled: True if labels are required; if not, the cases without label are listed too.

    Raises:
        InputError: If the file is of another form, its images are not CT alone, or its labels
            contradict the label map.
    """
    content, labels = _read(path)
    channels = list(content.channels.values())
    if [name.casefold() for name in channels] != ["ct"]:
        raise InputError(
            f"images must have one channel, CT, got {format_names(channels)} in {path}"
        )
    if labelled and label_map is not None:
        labels.check(label_map)
    listed = _list_cases(content, path, labelled=labelled)
    if labelled and content.number not in (None, len(listed)):
        logger.warning(f"{path} declares {content.number} training cases, but has {len(listed)}")
    return listed


def label_map_of_dataset_json(path: str) -> LabelMap:
    """Makes the label map of a dataset from the names and ids in its file.

    Args:
        path: Path of `dataset.json`.

    Returns:
        The classes by their lowest id; nnU-Net's `ignore` is ignored, and an id that the file does
        not name rejects a case.

    Raises:
        InputError: If the file is of another form, or its regions cannot be one class a voxel.
    """
    return _read(path)[1].label_map()


def _read(path: str) -> tuple[_DatasetJson, DatasetLabels]:
    text = files.read_text(path)
    try:
        content = _DatasetJson.model_validate(parse_json(text))
    except pydantic.ValidationError as error:
        raise InputError(f"{path} is no dataset.json: {first_finding(error)}") from error
    except InputError as error:
        raise InputError(f"{path} is no dataset.json: {error}") from error
    return content, DatasetLabels.of(content.labels, content.regions_class_order, source=path)


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
