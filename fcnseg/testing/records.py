"""Datasets made without the conversion, for tests and benchmarks of their readers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fcnseg.records import (
    COMPLETED_FILE,
    INFO_FILE,
    SPLITS,
    DatasetInfo,
    Record,
    ShardInfo,
    SplitInfo,
    TFRecordWriter,
    encode_chunks,
)
from fcnseg.volumes import LabelMap, Triple

_MOST_COORDINATES = 1000  # of each organ


def make_record(
    case_id: str,
    *,
    hu: npt.NDArray[Any],
    label: npt.NDArray[np.uint8],
    spacing_mm: Triple,
    num_classes: int,
) -> Record:
    """Makes the record of a patient's only case.

    Args:
        case_id: Name of the case, and of the patient.
        hu: HU (z, y, x) of any type.
        label: Class indices (z, y, x).
        spacing_mm: Millimetres (z, y, x).
        num_classes: Background included.
    """
    coordinates = [np.argwhere(label == organ)[:_MOST_COORDINATES] for organ in range(num_classes)]
    coordinates[0] = coordinates[0][:0]
    return Record(
        case_id=case_id,
        patient_id=case_id,
        image=hu.astype(np.int16),
        label=label,
        affine=np.diag([*reversed(spacing_mm), 1.0]),
        spacing=spacing_mm,
        source_shape=(label.shape[0], label.shape[1], label.shape[2]),
        source_affine=np.eye(4),
        class_histogram=np.bincount(label.ravel(), minlength=num_classes),
        foreground_coordinates=np.concatenate(coordinates).astype(np.int32),
        foreground_counts=np.array([len(rows) for rows in coordinates]),
    )


def write_dataset(
    folder: Path,
    splits: Mapping[str, Sequence[Iterable[Record]]],
    *,
    class_names: tuple[str, ...],
    spacing_mm: Triple,
    ignored: tuple[int, ...] = (),
    max_record_bytes: int = 2**30,
) -> Path:
    """Writes a dataset.

    Args:
        folder: The folder, which must be new.
        splits: Shards of each split; each shard is an iterable of cases, which need not be in
            memory together.
        class_names: Background first.
        spacing_mm: Millimetres (z, y, x).
        ignored: Ids that the label map ignores.
        max_record_bytes: A case whose volumes take more is split across several records.

    Returns:
        The folder.
    """
    folder.mkdir(parents=True)
    info = DatasetInfo(
        spacing_mm=spacing_mm,
        class_names=class_names,
        label_map=LabelMap.consecutive(class_names).to_mapping() | {"ignored": ignored},
        seed=0,
        splits={
            name: _Split(folder, name, len(class_names), max_record_bytes).write(
                splits.get(name, ())
            )
            for name in SPLITS
        },
    )
    (folder / INFO_FILE).write_text(info.to_json())
    (folder / COMPLETED_FILE).touch()
    return folder


class _Split:
    """A split so far."""

    def __init__(self, folder: Path, name: str, num_classes: int, max_record_bytes: int) -> None:
        self.folder = folder
        self.name = name
        self.max_record_bytes = max_record_bytes
        self.case_ids: list[str] = []
        self.divided: list[str] = []
        self.histogram = np.zeros(num_classes, np.int64)

    def write(self, shards: Sequence[Iterable[Record]]) -> SplitInfo:
        """Writes the shards."""
        names = [
            f"{self.name}-{index:05d}-of-{len(shards):05d}.tfrecord" for index in range(len(shards))
        ]
        infos = tuple(map(self._write_shard, names, shards))
        return SplitInfo(
            cases=len(self.case_ids),
            case_ids=tuple(sorted(self.case_ids)),
            shards=infos,
            class_histogram=tuple(map(int, self.histogram)),
            divided=tuple(sorted(self.divided)),
        )

    def _write_shard(self, name: str, records: Iterable[Record]) -> ShardInfo:
        before = len(self.case_ids)
        with (self.folder / name).open("wb") as file:
            writer = TFRecordWriter(file)
            for record in records:
                parts = record.parts(self.max_record_bytes)
                for part in parts:
                    writer.write(*encode_chunks(record, part))
                self.divided += [record.case_id] * (len(parts) > 1)
                self.case_ids.append(record.case_id)
                self.histogram += record.class_histogram
        return ShardInfo(name, len(self.case_ids) - before, writer.bytes, writer.crc32c)
