"""The Beam transforms of the conversion: small, pure and idempotent.

They use only what every runner does alike: a step has one output, whose elements are identified by
their type, and no step has a side input. (Dask's runner sends each of several outputs to all of
their consumers, and recomputes the inputs of a side input in each worker that reads it.)
"""

from __future__ import annotations

import functools
from typing import Any

from fcnseg.beam.completion import finish_dataset, finish_validation
from fcnseg.beam.job_state import Output, WrittenShard
from fcnseg.beam.metrics import StageMetrics
from fcnseg.beam.quiet_beam import beam
from fcnseg.beam.shard_writer import ShardWriter
from fcnseg.conversion.cases import Case
from fcnseg.conversion.preprocessing import Preprocessing
from fcnseg.conversion.rejects import Reject
from fcnseg.conversion.shards import Shard, SizedCase, plan_shards


class Only(beam.PTransform):
    """Keeps the elements of one type."""

    def __init__(self, kind: type) -> None:
        super().__init__()
        self.kind = kind

    def expand(self, elements: Any) -> Any:
        """Adds the transform to the graph."""
        return elements | beam.Filter(lambda element: isinstance(element, self.kind))


class Gather(beam.PTransform):
    """Gathers all elements into one list in any order; no list if there is no element."""

    def expand(self, elements: Any) -> Any:
        """Adds the transform to the graph."""
        return (
            elements
            | "Key" >> beam.WithKeys(0)
            | "Group" >> beam.GroupByKey()
            | "List" >> beam.MapTuple(lambda _, group: list(group))
        )


class InspectCases(beam.PTransform):
    """Turns `Case`s with splits into `SizedCase`s where headers are valid, else into `Reject`s."""

    def __init__(self, preprocessing: Preprocessing) -> None:
        super().__init__()
        self.preprocessing = preprocessing
        self.metrics = StageMetrics("inspect")

    def expand(self, cases: Any) -> Any:
        """Adds the transform to the graph."""
        return cases | beam.Map(self._inspect)

    def _inspect(self, case: Case) -> SizedCase | Reject:
        with self.metrics.case():
            try:
                size = self.preprocessing.record_bytes(self.preprocessing.inspect(case))
                return SizedCase(case, str(case.split), size)
            except Exception as error:  # whatever one case raises, the others continue
                reject = Reject.of(error, case_id=case.case_id, stage="inspect")
                self.metrics.reject(reject.code)
                return reject


class PlanShards(beam.PTransform):
    """Groups `SizedCase`s into `Shard`s: paths travel between workers, volumes never do."""

    def __init__(self, output: Output, *, shard_bytes: int, seed: int) -> None:
        super().__init__()
        self.output = output
        self.plan = functools.partial(plan_shards, shard_bytes=shard_bytes, seed=seed)

    def expand(self, cases: Any) -> Any:
        """Adds the transform to the graph."""
        return (
            cases
            | "Gather" >> Gather()
            | "Plan" >> beam.FlatMap(self._plan)
            | "Spread" >> beam.GroupByKey()  # a Reshuffle leaves all with one worker of Dask's
            | "Shard" >> beam.FlatMapTuple(lambda _, shards: shards)
        )

    def _plan(self, cases: list[SizedCase]) -> list[tuple[int, Shard]]:
        shards = self.plan(cases)
        self.output.write_plan(shards)
        return list(enumerate(shards))


class WriteShards(beam.PTransform):
    """Writes `Shard`s, giving `WrittenShard`s; works by shard, holds one case in memory."""

    def __init__(self, writer: ShardWriter) -> None:
        super().__init__()
        self.writer = writer

    def expand(self, shards: Any) -> Any:
        """Adds the transform to the graph."""
        return shards | beam.Map(self.writer.write)


class FinishDataset(beam.PTransform):
    """Writes the files that turn a folder into a dataset, from `WrittenShard`s and `Reject`s.

    The marker `COMPLETED` is written last, and not at all if no case is valid.
    """

    def __init__(
        self, preprocessing: Preprocessing, output: Output, *, seed: int, labelled: bool
    ) -> None:
        super().__init__()
        self.preprocessing = preprocessing
        self.output = output
        self.seed = seed
        self.labelled = labelled

    def expand(self, outcomes: Any) -> Any:
        """Adds the transform to the graph."""
        return outcomes | "Gather" >> Gather() | "Finish" >> beam.Map(self._finish)

    def _finish(self, outcomes: list[WrittenShard | Reject]) -> None:
        shards = [outcome for outcome in outcomes if isinstance(outcome, WrittenShard)]
        rejects = [outcome for outcome in outcomes if isinstance(outcome, Reject)]
        rejects += [reject for shard in shards for reject in shard.rejects]
        if self.output.validate_only:
            finish_validation(self.output, shards, rejects)
            return
        finish_dataset(
            self.output,
            shards,
            rejects,
            preprocessing=self.preprocessing,
            seed=self.seed,
            labelled=self.labelled,
        )
