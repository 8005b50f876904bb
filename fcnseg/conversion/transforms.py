"""The Beam transforms of the conversion: small, pure, harmless when run twice.

They keep to what every engine does alike: a step has one output, whose elements tell by their type
what they are, and no step has a side input. (Dask's runner sends what one of several outputs gets to
all of them, and computes whatever leads to a side input once more in each worker that reads it.)
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator
from typing import Any

import apache_beam as beam
import numpy as np
import numpy.typing as npt

from fcnseg.conversion import files
from fcnseg.conversion.cases import Case
from fcnseg.conversion.preprocessing import Preprocessing
from fcnseg.conversion.rejects import Reject
from fcnseg.conversion.shards import Shard, SizedCase, plan_shards
from fcnseg.conversion.splits import split_of
from fcnseg.records import (
    COMPLETED_FILE,
    INFO_FILE,
    REJECTS_FILE,
    SPLITS,
    DatasetInfo,
    ShardInfo,
    SplitInfo,
    TFRecordWriter,
    encode_chunks,
)


@dataclasses.dataclass(frozen=True)
class WrittenShard:
    """A file that is whole, and what is in it."""

    split: str
    info: ShardInfo
    case_ids: tuple[str, ...]
    class_histogram: tuple[int, ...]


class Only(beam.PTransform):
    """Elements of one type."""

    def __init__(self, kind: type) -> None:
        super().__init__()
        self.kind = kind

    def expand(self, elements: Any) -> Any:
        """Adds the transform to the graph."""
        return elements | beam.Filter(lambda element: isinstance(element, self.kind))


class Gather(beam.PTransform):
    """All elements to one list of them, in any order; no list where there is no element."""

    def expand(self, elements: Any) -> Any:
        """Adds the transform to the graph."""
        return (
            elements
            | "Key" >> beam.WithKeys(0)
            | "Group" >> beam.GroupByKey()
            | "List" >> beam.MapTuple(lambda _, group: list(group))
        )


class InspectCases(beam.PTransform):
    """`Case`s to `SizedCase`s whose headers are sound, and `Reject`s."""

    def __init__(
        self,
        preprocessing: Preprocessing,
        *,
        validation_fraction: float,
        test_fraction: float,
        seed: int,
    ) -> None:
        super().__init__()
        self.preprocessing = preprocessing
        self.split_of = functools.partial(
            split_of,
            validation_fraction=validation_fraction,
            test_fraction=test_fraction,
            seed=seed,
        )

    def expand(self, cases: Any) -> Any:
        """Adds the transform to the graph."""
        return cases | beam.Map(self._inspect)

    def _inspect(self, case: Case) -> SizedCase | Reject:
        try:
            size = self.preprocessing.record_bytes(self.preprocessing.inspect(case))
            return SizedCase(case, case.split or self.split_of(case.patient_id), size)
        except Exception as error:  # whatever one case does, the others go on
            return Reject.of(error, case_id=case.case_id, stage="inspect")


class PlanShards(beam.PTransform):
    """`SizedCase`s to `Shard`s: paths travel, volumes never do."""

    def __init__(self, *, shard_bytes: int, seed: int) -> None:
        super().__init__()
        self.plan = functools.partial(plan_shards, shard_bytes=shard_bytes, seed=seed)

    def expand(self, cases: Any) -> Any:
        """Adds the transform to the graph."""
        return (
            cases
            | "Gather" >> Gather()
            | "Plan" >> beam.FlatMap(lambda cases: enumerate(self.plan(cases)))
            | "Spread" >> beam.GroupByKey()  # a Reshuffle leaves all with one worker of Dask's
            | "Shard" >> beam.FlatMapTuple(lambda _, shards: shards)
        )


class WriteShards(beam.PTransform):
    """`Shard`s to `WrittenShard`s and `Reject`s; the unit of work is a shard, of memory a case."""

    def __init__(self, preprocessing: Preprocessing, *, output: str) -> None:
        super().__init__()
        self.preprocessing = preprocessing
        self.output = output

    def expand(self, shards: Any) -> Any:
        """Adds the transform to the graph."""
        return shards | beam.FlatMap(self._write)

    def _write(self, shard: Shard) -> Iterator[WrittenShard | Reject]:
        case_ids, rejects = [], []
        histogram = np.zeros(self.preprocessing.label_map.num_classes, dtype=np.int64)
        with files.written_whole(self.output, shard.name) as file:
            writer = TFRecordWriter(file)
            for case in shard.cases:
                outcome = self._write_case(case, writer)
                if isinstance(outcome, Reject):
                    rejects.append(outcome)
                else:
                    case_ids.append(case.case_id)
                    histogram += outcome
        info = ShardInfo(shard.name, writer.records, writer.bytes, writer.crc32c)
        yield WrittenShard(shard.split, info, tuple(case_ids), tuple(histogram.tolist()))
        yield from rejects

    def _write_case(self, case: Case, writer: TFRecordWriter) -> npt.NDArray[np.int64] | Reject:
        """Writes a case and returns its class histogram; its volumes are gone when this returns."""
        try:
            record = self.preprocessing.convert(case).record
        except Exception as error:  # whatever one case does, the others go on
            return Reject.of(error, case_id=case.case_id, stage="convert")
        writer.write(*encode_chunks(record))
        return record.class_histogram


class FinishDataset(beam.PTransform):
    """`WrittenShard`s and `Reject`s to the files that make a folder a dataset.

    The marker `COMPLETED` comes last, and not at all if no case is good.
    """

    def __init__(self, preprocessing: Preprocessing, *, output: str, seed: int) -> None:
        super().__init__()
        self.preprocessing = preprocessing
        self.output = output
        self.seed = seed

    def expand(self, outcomes: Any) -> Any:
        """Adds the transform to the graph."""
        return outcomes | "Gather" >> Gather() | "Finish" >> beam.Map(self._finish)

    def _finish(self, outcomes: list[WrittenShard | Reject]) -> None:
        shards = [outcome for outcome in outcomes if isinstance(outcome, WrittenShard)]
        rejects = [outcome for outcome in outcomes if isinstance(outcome, Reject)]
        lines = "".join(f"{reject.to_json()}\n" for reject in sorted(rejects))
        self._write(REJECTS_FILE, lines)
        if any(shard.case_ids for shard in shards):
            self._write(INFO_FILE, self._info(shards).to_json())
            self._write(COMPLETED_FILE, "")

    def _write(self, name: str, text: str) -> None:
        with files.written_whole(self.output, name) as file:
            file.write(text.encode())

    def _info(self, shards: list[WrittenShard]) -> DatasetInfo:
        label_map = self.preprocessing.label_map
        return DatasetInfo(
            spacing_mm=self.preprocessing.spacing_mm,
            class_names=label_map.class_names,
            label_map=label_map.to_mapping(),
            seed=self.seed,
            splits={
                split: _split_info(
                    [shard for shard in shards if shard.split == split], label_map.num_classes
                )
                for split in SPLITS
            },
        )


def _split_info(shards: list[WrittenShard], num_classes: int) -> SplitInfo:
    case_ids = sorted(case_id for shard in shards for case_id in shard.case_ids)
    histogram = np.zeros(num_classes, dtype=np.int64)
    for shard in shards:
        histogram += shard.class_histogram
    infos = sorted((shard.info for shard in shards), key=lambda info: info.name)
    return SplitInfo(len(case_ids), tuple(case_ids), tuple(infos), tuple(histogram.tolist()))
