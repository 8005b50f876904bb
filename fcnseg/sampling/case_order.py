"""The order in which training reads the cases: drawn again each epoch, and computed, not stored.

Several files are read at once, one case of each in turn. The files are dealt to so many lanes: file
0, n, 2n ... of the shuffled and repeated list is read by the first of n lanes, and so on. A lane
has no end, so read r is always one of lane r mod n, and the position of a lane after so many reads
follows from the number of cases in each file.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import tensorflow as tf

from fcnseg.sampling.shuffled_range import shuffled_range

_SHARDS_AT_ONCE = 4
_ENDLESS = 2**62
_CHUNK = 256  # epochs examined at once


@dataclasses.dataclass(frozen=True)
class CaseOrder:
    """The infinite sequence of cases that training reads.

    Attributes:
        cases: Number of cases in each file.
        seed: Seed of the order of the files, which differs between epochs.
    """

    cases: tuple[int, ...]
    seed: int

    @property
    def lanes(self) -> int:
        """Number of files read at once."""
        return min(len(self.cases), _SHARDS_AT_ONCE)

    def read(
        self, open_shard: Callable[[tf.Tensor], tf.data.Dataset], *, start: int
    ) -> tf.data.Dataset:
        """Reads cases without end.

        Args:
            open_shard: Opens the cases of the file with a number, int64.
            start: Number of the first read wanted; earlier ones are skipped unread, except for the
                cases that precede it in up to four files.

        Returns:
            Pairs of the number of the read and the case.
        """

        def lane(first: tf.Tensor, skip: tf.Tensor) -> tf.data.Dataset:
            def cases(place: tf.Tensor) -> tf.data.Dataset:
                skipped = tf.where(place == first, skip, tf.zeros_like(skip))
                return open_shard(self._shard_at(place)).skip(skipped)

            return tf.data.Dataset.range(first, _ENDLESS, self.lanes).flat_map(cases)

        order = [(start + number) % self.lanes for number in range(self.lanes)]
        reads = [(start - number + self.lanes - 1) // self.lanes for number in order]
        starts = [
            self._place_after(count, lane=number)
            for number, count in zip(order, reads, strict=True)
        ]
        places, skips = np.array(starts, dtype=np.int64).T
        interleaved = tf.data.Dataset.from_tensor_slices((places, skips)).interleave(
            lane, cycle_length=self.lanes, num_parallel_calls=self.lanes, deterministic=True
        )
        return interleaved.enumerate(start)

    def _place_after(self, reads: int, *, lane: int) -> tuple[int, int]:
        """Position in the list of a lane's file after so many reads, and the cases read of it."""
        place, epoch = lane, 0
        while reads:
            orders = tf.data.Dataset.range(epoch, epoch + _CHUNK).map(self._shards_of)
            listed = orders.batch(_CHUNK).get_single_element().numpy().ravel()
            mine = np.arange(place - epoch * len(self.cases), len(listed), self.lanes)
            passed = np.cumsum(np.array(self.cases)[listed[mine]])
            here = int(np.searchsorted(passed, reads, side="right"))
            if here < len(mine):
                return place + here * self.lanes, reads - int(passed[here - 1] if here else 0)
            place, reads = place + len(mine) * self.lanes, reads - int(passed[-1])
            epoch += _CHUNK
        return place, 0

    def _shard_at(self, place: tf.Tensor) -> tf.Tensor:
        """The file at a position of the infinite list."""
        return self._shards_of(place // len(self.cases))[place % len(self.cases)]

    def _shards_of(self, epoch: tf.Tensor) -> tf.Tensor:
        """The files in the order of an epoch."""
        return shuffled_range(len(self.cases), seed=self.seed, number=epoch)
