"""Assignment of cases to shards: a plan from sizes alone, made before any volume is read."""

from __future__ import annotations

import dataclasses
import heapq
import math
from collections.abc import Iterable

from fcnseg.conversion.cases import Case
from fcnseg.records import SPLITS
from fcnseg.records.hash_to_unit_interval import hash_to_unit_interval


@dataclasses.dataclass(frozen=True)
class SizedCase:
    """A case, its split, and the size of its record in bytes, estimated from its header."""

    case: Case
    split: str
    bytes: int


@dataclasses.dataclass(frozen=True)
class Shard:
    """A file to write: the cases in it, in order, and its approximate size in bytes."""

    split: str
    index: int
    count: int
    cases: tuple[Case, ...]
    bytes: int

    @property
    def name(self) -> str:
        """File name, as in `train-00000-of-00003.tfrecord`."""
        return f"{self.split}-{self.index:05d}-of-{self.count:05d}.tfrecord"


def plan_shards(cases: Iterable[SizedCase], *, shard_bytes: int, seed: int) -> list[Shard]:
    """Distributes cases over files of about equal size.

    The plan depends on the cases and the seed, not on the order of the cases.

    Args:
        cases: The cases of all splits.
        shard_bytes: Largest mean size of the files of a split; a case is never split.
        seed: Shuffles the cases within the files.

    Returns:
        The shards of each split that has cases.
    """
    cases = list(cases)
    return [
        shard
        for split in SPLITS
        for shard in _plan_split(
            split, [sized for sized in cases if sized.split == split], shard_bytes, seed
        )
    ]


def _plan_split(split: str, cases: list[SizedCase], shard_bytes: int, seed: int) -> list[Shard]:
    """Assigns the largest case first, each to the file that is smallest so far."""
    count = min(len(cases), math.ceil(sum(sized.bytes for sized in cases) / shard_bytes))
    shuffled = sorted(cases, key=lambda sized: _place(sized.case.case_id, seed))
    fill = [(0, index) for index in range(count)]  # a heap of (bytes, shard)
    shard_of = {}
    for sized in sorted(shuffled, key=lambda sized: -sized.bytes):
        bytes_so_far, index = heapq.heappop(fill)
        shard_of[sized.case.case_id] = index
        heapq.heappush(fill, (bytes_so_far + sized.bytes, index))
    contents: list[list[Case]] = [[] for _ in range(count)]
    for sized in shuffled:
        contents[shard_of[sized.case.case_id]].append(sized.case)
    size_of = {index: size for size, index in fill}
    return [
        Shard(split, index, count, tuple(cases), size_of[index])
        for index, cases in enumerate(contents)
    ]


def _place(case_id: str, seed: int) -> tuple[float, str]:
    return hash_to_unit_interval(case_id, seed=seed), case_id
