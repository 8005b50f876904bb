"""The manifest of a folder of records: its contents, and that it is complete."""

from __future__ import annotations

import dataclasses
import os
from typing import Any, Literal

import pydantic

from fcnseg import __version__
from fcnseg.errors import DatasetError, first_finding
from fcnseg.records.fingerprint import Fingerprint
from fcnseg.records.schema import SCHEMA_VERSION
from fcnseg.storage import files

INFO_FILE = "dataset_info.json"
REJECTS_FILE = "rejects.jsonl"
CASE_FILES_FILE = "case_files.csv"
"""The cases of the conversion with their files, as a list that the conversion reads."""
COMPLETED_FILE = "COMPLETED"
"""Written last: a folder without it is not a dataset."""

Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = ("train", "validation", "test")


@dataclasses.dataclass(frozen=True)
class ShardInfo:
    """One file of records.

    Attributes:
        name: File name, in the dataset's folder.
        cases: Cases in it.
        bytes: Size of the file.
        crc32c: CRC-32C of the complete file, in hexadecimal.
    """

    name: str
    cases: int
    bytes: int
    crc32c: str


@dataclasses.dataclass(frozen=True)
class SplitInfo:
    """One split.

    Attributes:
        cases: Number of cases.
        case_ids: Their ids, sorted.
        shards: Their files, by name.
        class_histogram: Voxels of each class.
        divided: Ids of the cases split across several records, which `join_records` joins.
    """

    cases: int
    case_ids: tuple[str, ...]
    shards: tuple[ShardInfo, ...]
    class_histogram: tuple[int, ...]
    divided: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class DatasetInfo:
    """The manifest of a folder of records.

    Attributes:
        spacing_mm: Spacing (z, y, x) of every record.
        class_names: Class names in order, background first.
        label_map: The label map of the conversion, as `LabelMap.to_mapping` gives it.
        seed: Seed of the splits.
        splits: By name, each of `SPLITS`; one without cases has 0 cases.
        labelled: True if the cases have labels.
        fingerprint: Statistics of the data.
        schema_version: Version of the record schema.
        fcnseg_version: Version of fcnseg that made the records.
    """

    spacing_mm: tuple[float, float, float]
    class_names: tuple[str, ...]
    label_map: dict[str, Any]
    seed: int
    splits: dict[str, SplitInfo]
    labelled: bool = True
    fingerprint: Fingerprint | None = None
    schema_version: int = SCHEMA_VERSION
    fcnseg_version: str = __version__

    @property
    def num_classes(self) -> int:
        """Number of classes, background included."""
        return len(self.class_names)

    def to_json(self) -> str:
        """One JSON object; equal datasets give equal text."""
        return pydantic.TypeAdapter(DatasetInfo).dump_json(self, indent=2).decode() + "\n"

    @classmethod
    def from_json(cls, text: str | bytes, *, source: str = INFO_FILE) -> DatasetInfo:
        """Reads what `to_json` wrote.

        Args:
            text: The JSON object.
            source: Name of the origin in the error.

        Raises:
            DatasetError: If the text is not of this form, or the schema is another version.
        """
        try:
            info = pydantic.TypeAdapter(cls).validate_json(text)
        except pydantic.ValidationError as error:
            raise DatasetError(f"{source} is not a manifest: {first_finding(error)}") from error
        if info.schema_version != SCHEMA_VERSION:
            raise DatasetError(
                f"{source} must have schema version {SCHEMA_VERSION}, got {info.schema_version}: "
                "convert the cases again"
            )
        return info


def read_manifest(directory: str | os.PathLike[str]) -> tuple[bytes, DatasetInfo]:
    """Reads the manifest of a finished dataset, both as text and parsed.

    Args:
        directory: The dataset's folder, on any file system.

    Raises:
        DatasetError: If the folder is missing, unfinished, or of another schema.
    """
    folder = os.fspath(directory)
    manifest = files.join(folder, INFO_FILE)
    if not files.exists(files.join(folder, COMPLETED_FILE)):
        if not files.is_folder(folder):
            raise DatasetError(f"no such folder of records: {folder}")
        raise DatasetError(f"{folder} is not a finished dataset: {COMPLETED_FILE} is missing")
    if not files.exists(manifest):
        raise DatasetError(f"{folder} is not a dataset: {INFO_FILE} is missing")
    text = files.read_bytes(manifest)
    return text, DatasetInfo.from_json(text, source=manifest)


def read_dataset_info(directory: str | os.PathLike[str]) -> DatasetInfo:
    """Reads the manifest of a finished dataset.

    Args:
        directory: The dataset's folder, on any file system.

    Raises:
        DatasetError: If the folder is missing, unfinished, or of another schema.
    """
    return read_manifest(directory)[1]
