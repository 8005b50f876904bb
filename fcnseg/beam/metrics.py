"""Beam metrics of each stage: cases, rejects by code, bytes, and milliseconds per case."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from fcnseg.beam.quiet_beam import beam

Metrics = beam.metrics.Metrics

NAMESPACE = "fcnseg"


class StageMetrics:
    """Counters and distributions of one stage; their names begin with its name.

    `STAGE_cases`, `STAGE_rejects`, `STAGE_rejects_CODE` and `STAGE_bytes` are counters,
    `STAGE_milliseconds` is a distribution over cases.
    """

    def __init__(self, stage: str) -> None:
        self.stage = stage

    @contextmanager
    def case(self) -> Iterator[None]:
        """Counts a case, valid or rejected, and measures its time."""
        started = time.perf_counter()
        yield
        self._count("cases")
        milliseconds = Metrics.distribution(NAMESPACE, f"{self.stage}_milliseconds")
        milliseconds.update(round(1000 * (time.perf_counter() - started)))

    def reject(self, code: str) -> None:
        """Counts a reject."""
        self._count("rejects")
        self._count(f"rejects_{code}")

    def bytes(self, count: int) -> None:
        """Counts bytes written."""
        self._count("bytes", count)

    def _count(self, what: str, count: int = 1) -> None:
        Metrics.counter(NAMESPACE, f"{self.stage}_{what}").inc(count)
