"""One shard: its cases are read, checked, preprocessed and written one after the other."""

from __future__ import annotations

import contextlib
import dataclasses
import io
from collections.abc import Iterator
from typing import BinaryIO

from fcnseg.beam.job_state import Output, WrittenShard
from fcnseg.beam.metrics import StageMetrics
from fcnseg.codes import Finding
from fcnseg.conversion.cases import Case
from fcnseg.conversion.preprocessing import Preprocessing
from fcnseg.conversion.rejects import Reject
from fcnseg.conversion.shards import Shard
from fcnseg.conversion.statistics import HuCounts, case_facts
from fcnseg.records import Record, ShardInfo, TFRecordWriter, encode_chunks
from fcnseg.records.fingerprint import CaseFacts
from fcnseg.storage import files
from fcnseg.storage.whole_file import atomic_write

_METRICS = StageMetrics("convert")


@dataclasses.dataclass(frozen=True)
class ShardWriter:
    """Writes shards; a shard has the same bytes on every worker and in every attempt.

    Attributes:
        preprocessing: Makes a record of a case.
        output: Destination folder.
        max_record_bytes: A case whose volumes take more is split across several records.
    """

    preprocessing: Preprocessing
    output: Output
    max_record_bytes: int

    def write(self, shard: Shard) -> WrittenShard:
        """Writes a shard, unless it is complete already and none of its rejects was repaired.

        Returns:
            The contents of the shard and its rejected cases.
        """
        done = self.output.find_written(shard)
        if done is not None and not self._is_repaired(shard, done):
            return done
        with self._opened(shard) as file:
            content = _Content(shard, TFRecordWriter(file))
            for case in shard.cases:
                with _METRICS.case():
                    self._add(case, content)
            written = content.written(self.output.key_of(shard))
            self.output.note_written(written)
        _METRICS.bytes(written.info.bytes)
        return written

    def _is_repaired(self, shard: Shard, done: WrittenShard) -> bool:
        """Tells whether a case that was rejected in an earlier run can be converted now."""
        rejected = {reject.case_id for reject in done.rejects}
        return any(self._converts(case) for case in shard.cases if case.case_id in rejected)

    def _converts(self, case: Case) -> bool:
        try:
            self.preprocessing.convert(case)
        except Exception:  # whatever it raises, its reject is noted already
            return False
        return True

    def _opened(self, shard: Shard) -> contextlib.AbstractContextManager[BinaryIO]:
        if self.output.validate_only:
            return io.BytesIO()
        return written_to(files.join(self.output.folder, shard.name))

    def _add(self, case: Case, content: _Content) -> None:
        """Converts one case; its volumes are freed when this returns."""
        try:
            converted = self.preprocessing.convert(case)
        except Exception as error:  # whatever one case raises, the others continue
            reject = Reject.of(error, case_id=case.case_id, stage="convert")
            _METRICS.reject(reject.code)
            content.rejects.append(reject)
            return
        findings = {Finding(warning.code, warning.reason) for warning in converted.warnings}
        content.add_facts(converted.record, findings)
        if not self.output.validate_only:
            content.add_records(converted.record, self.max_record_bytes)


@contextlib.contextmanager
def written_to(place: str) -> Iterator[BinaryIO]:
    """Opens a file that is renamed to its final name when the block ends without an error."""
    with atomic_write(place) as unfinished, unfinished.open("wb") as file:
        yield file


class _Content:
    """Contents of a shard so far."""

    def __init__(self, shard: Shard, writer: TFRecordWriter) -> None:
        self.shard = shard
        self.writer = writer
        self.rejects: list[Reject] = []
        self.cases: list[CaseFacts] = []
        self.divided: list[str] = []
        self.hu_counts = HuCounts.none()

    def add_facts(self, record: Record, findings: set[Finding]) -> None:
        """Adds the facts of a case."""
        self.cases.append(case_facts(record, self.shard.split, findings))
        self.hu_counts += HuCounts.of(record)

    def add_records(self, record: Record, max_bytes: int) -> None:
        """Adds the records of a case."""
        parts = record.parts(max_bytes)
        for part in parts:
            self.writer.write(*encode_chunks(record, part))
        if len(parts) > 1:
            self.divided.append(record.case_id)

    def written(self, key: str) -> WrittenShard:
        """The completion record, when all cases are written."""
        writer = self.writer
        return WrittenShard(
            key=key,
            split=self.shard.split,
            info=ShardInfo(self.shard.name, len(self.cases), writer.bytes, writer.crc32c),
            divided=tuple(self.divided),
            cases=tuple(self.cases),
            hu_counts=self.hu_counts.to_mapping(),
            rejects=tuple(self.rejects),
        )
