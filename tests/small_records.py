"""Datasets of a few thousand voxels, made without the conversion, for tests of their readers."""

from __future__ import annotations

from pathlib import Path

import numpy as np

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
    parts_of,
)
from fcnseg.volumes import LabelMap

CLASSES = ("background", "liver", "spleen")
HU_OF_CLASS = np.array([-100, 60, 200])


def make_record(case_id: str, *, seed: int, shape=(20, 24, 28), organs=(1, 2)) -> Record:
    """A box of each organ at a random place, each class at its own HU, with noise."""
    rng = np.random.default_rng(seed)
    label = np.zeros(shape, np.uint8)
    for organ, fraction in zip(organs, (2, 4), strict=False):  # the spleen is the smaller one
        size = np.array(shape) // fraction
        start = rng.integers(0, np.array(shape) - size)
        z, y, x = (slice(low, low + length) for low, length in zip(start, size, strict=True))
        label[z, y, x] = organ
    hu = HU_OF_CLASS[label] + rng.normal(0, 20, shape)
    coordinates = [np.argwhere(label == organ)[:1000] for organ in range(len(CLASSES))]
    coordinates[0] = coordinates[0][:0]
    return Record(
        case_id=case_id,
        patient_id=case_id,
        image=hu.astype(np.int16),
        label=label,
        affine=np.diag([2.0, 2.0, 2.0, 1.0]),
        spacing=(2.0, 2.0, 2.0),
        source_shape=shape,
        source_affine=np.eye(4),
        class_histogram=np.bincount(label.ravel(), minlength=len(CLASSES)),
        foreground_coordinates=np.concatenate(coordinates).astype(np.int32),
        foreground_counts=np.array([len(rows) for rows in coordinates]),
    )


def write_dataset(
    folder: Path,
    splits: dict[str, list[list[Record]]],
    *,
    max_record_bytes: int = 2**30,
    ignored: tuple[int, ...] = (),
) -> Path:
    """Writes a dataset; each split is a list of shards, each a list of cases."""
    folder.mkdir(parents=True)
    infos = {
        name: _write_split(folder, name, splits.get(name, []), max_record_bytes) for name in SPLITS
    }
    info = DatasetInfo(
        spacing_mm=(2.0, 2.0, 2.0),
        class_names=CLASSES,
        label_map=LabelMap.consecutive(CLASSES).to_mapping() | {"ignored": ignored},
        seed=0,
        splits=infos,
    )
    (folder / INFO_FILE).write_text(info.to_json())
    (folder / COMPLETED_FILE).touch()
    return folder


def write_small_dataset(folder: Path, *, max_record_bytes: int = 2**30) -> Path:
    """Three cases in two shards to train on, and one for validation."""
    records = [make_record(f"case_{seed}", seed=seed) for seed in range(4)]
    return write_dataset(
        folder,
        {"train": [records[:2], records[2:3]], "validation": [records[3:]]},
        max_record_bytes=max_record_bytes,
    )


def _write_split(
    folder: Path, split: str, shards: list[list[Record]], max_record_bytes: int
) -> SplitInfo:
    infos, divided = [], []
    for index, records in enumerate(shards):
        name = f"{split}-{index:05d}-of-{len(shards):05d}.tfrecord"
        with (folder / name).open("wb") as file:
            writer = TFRecordWriter(file)
            for record in records:
                slice_bytes = record.image[0].nbytes + record.label[0].nbytes
                parts = parts_of(
                    len(record.image), slice_bytes=slice_bytes, max_bytes=max_record_bytes
                )
                for part in parts:
                    writer.write(*encode_chunks(record, part))
                divided += [record.case_id] * (len(parts) > 1)
        infos.append(ShardInfo(name, len(records), writer.bytes, writer.crc32c))
    cases = [record for records in shards for record in records]
    return SplitInfo(
        cases=len(cases),
        case_ids=tuple(sorted(record.case_id for record in cases)),
        shards=tuple(infos),
        class_histogram=tuple(
            int(voxels) for voxels in sum((r.class_histogram for r in cases), np.zeros(3, np.int64))
        ),
        divided=tuple(sorted(divided)),
    )
