"""The Beam transforms of the conversion: small, pure, harmless when run twice."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterable, Iterator
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

REJECTS = "rejects"
"""Tag of the output that carries rejects; the main output carries what is good."""


@dataclasses.dataclass(frozen=True)
class WrittenShard:
    """A file that is whole, and what is in it."""

    split: str
    info: ShardInfo
    case_ids: tuple[str, ...]
    class_histogram: tuple[int, ...]


class InspectCases(beam.PTransform):
    """Cases to `SizedCase`s whose headers are sound, and rejects."""

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
        return cases | beam.FlatMap(self._inspect).with_outputs(REJECTS, main="cases")

    def _inspect(self, case: Case) -> Iterator[Any]:
        try:
            size = self.preprocessing.record_bytes(self.preprocessing.inspect(case))
            yield SizedCase(case, case.split or self.split_of(case.patient_id), size)
        except Exception as error:  # whatever one case does, the others go on
            reject = Reject.of(error, case_id=case.case_id, stage="inspect")
            yield beam.pvalue.TaggedOutput(REJECTS, reject)


class PlanShards(beam.PTransform):
    """`SizedCase`s to `Shard`s: paths travel, volumes never do."""

    def __init__(self, *, shard_bytes: int, seed: int) -> None:
        super().__init__()
        self.plan = functools.partial(plan_shards, shard_bytes=shard_bytes, seed=seed)

    def expand(self, cases: Any) -> Any:
        """Adds the transform to the graph."""
        return (
            cases
            | "Gather" >> beam.combiners.ToList()
            | "Plan" >> beam.FlatMap(self.plan)
            | "Spread" >> beam.Reshuffle()
        )


class WriteShards(beam.PTransform):
    """`Shard`s to `WrittenShard`s, and rejects; the unit of work is a shard, of memory a case."""

    def __init__(self, preprocessing: Preprocessing, *, output: str) -> None:
        super().__init__()
        self.preprocessing = preprocessing
        self.output = output

    def expand(self, shards: Any) -> Any:
        """Adds the transform to the graph."""
        return shards | beam.FlatMap(self._write).with_outputs(REJECTS, main="shards")

    def _write(self, shard: Shard) -> Iterator[Any]:
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
        yield from (beam.pvalue.TaggedOutput(REJECTS, reject) for reject in rejects)

    def _write_case(self, case: Case, writer: TFRecordWriter) -> npt.NDArray[np.int64] | Reject:
        """Writes a case and returns its class histogram; its volumes are gone when this returns."""
        try:
            record = self.preprocessing.convert(case).record
        except Exception as error:  # whatever one case does, the others go on
            return Reject.of(error, case_id=case.case_id, stage="convert")
        writer.write(*encode_chunks(record))
        return record.class_histogram


class FinishDataset(beam.PTransform):
    """`WrittenShard`s and rejects to the files that make a folder a dataset.

    The marker `COMPLETED` comes last, and not at all if no case is good.
    """

    def __init__(self, preprocessing: Preprocessing, *, output: str, seed: int) -> None:
        super().__init__()
        self.preprocessing = preprocessing
        self.output = output
        self.seed = seed

    def expand(self, shards_and_rejects: tuple[Any, Any]) -> Any:
        """Adds the transform to the graph."""
        shards, rejects = shards_and_rejects
        return (
            shards
            | "GatherShards" >> beam.combiners.ToList()
            | "Finish" >> beam.Map(self._finish, beam.pvalue.AsIter(rejects))
        )

    def _finish(self, shards: list[WrittenShard], rejects: Iterable[Reject]) -> None:
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
