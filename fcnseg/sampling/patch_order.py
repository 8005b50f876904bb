"""The order of patches in training: shuffled in blocks, by the number of the block and the seed.

tf.data's own shuffle depends on all elements before, so a run that resumes at a step would have to
read everything again. A block can be recomputed from the reads that belong to it.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import tensorflow as tf

from fcnseg.config import PatchConfig
from fcnseg.sampling.shuffled_range import shuffled_range

_ENDLESS = 2**62


@dataclasses.dataclass(frozen=True)
class Blocks:
    """The division of reads, patches and steps into blocks.

    Attributes:
        samples_per_volume: Patches drawn per read of a case.
        batch_size: Patches per step.
        reads: Reads per block.
    """

    samples_per_volume: int
    batch_size: int
    reads: int

    @classmethod
    def of(cls, config: PatchConfig, *, batch_size: int) -> Blocks:
        """The smallest block of whole reads and whole batches that contains the shuffle buffer."""
        whole = math.lcm(config.samples_per_volume, batch_size)
        patches = math.ceil(config.shuffle_buffer / whole) * whole
        return cls(config.samples_per_volume, batch_size, patches // config.samples_per_volume)

    @property
    def patches(self) -> int:
        """Patches per block."""
        return self.reads * self.samples_per_volume

    @property
    def steps(self) -> int:
        """Batches per block."""
        return self.patches // self.batch_size

    def first_read(self, step: int) -> int:
        """Number of the first read of the block of a step."""
        return step // self.steps * self.reads

    def shuffled(self, reads: tf.data.Dataset, *, seed: int, step: int) -> tf.data.Dataset:
        """Shuffles patches and makes batches of them.

        Args:
            reads: Nested tensors (samples_per_volume, ...), from those of `first_read(step)` on.
            seed: Seed of the order, together with the number of the block.
            step: Number of the first batch wanted.

        Returns:
            The same nest of tensors (batch_size, ...), infinite.
        """

        def batches(block: tf.Tensor, patches: Any) -> tf.data.Dataset:
            order = shuffled_range(self.patches, seed=seed, number=block)
            flat = tf.nest.map_structure(
                lambda part: tf.reshape(part, [self.patches, *part.shape[2:]]), patches
            )
            skipped = tf.constant(step % self.steps, tf.int64)
            first = tf.where(block == step // self.steps, skipped, tf.zeros_like(skipped))

            def batch(number: tf.Tensor) -> Any:
                start = number * self.batch_size
                chosen = tf.ensure_shape(order[start : start + self.batch_size], [self.batch_size])
                return tf.nest.map_structure(lambda part: tf.gather(part, chosen), flat)

            return tf.data.Dataset.range(first, self.steps).map(batch)

        blocks = reads.batch(self.reads, drop_remainder=True)
        numbers = tf.data.Dataset.range(step // self.steps, _ENDLESS)
        # While the batches of a block are being taken, the next block is prepared.
        return tf.data.Dataset.zip((numbers, blocks)).flat_map(batches).prefetch(self.steps)
