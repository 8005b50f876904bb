"""The order of cases and of patches: complete, without bias, and the same from any place on."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import tensorflow as tf

from fcnseg.config import PatchConfig
from fcnseg.sampling.case_order import CaseOrder
from fcnseg.sampling.patch_order import Blocks

CASES = (3, 1, 4, 1, 5, 2)  # of six files; case 10 f + i is the i-th of file f


def order_of(cases=CASES, seed=0):
    return CaseOrder(tuple(cases), seed)


def reads(order, count, start=0):
    """Pairs of the number of a read and the case that it reads."""
    cases = tf.constant(order.cases, tf.int64)

    def open_shard(index):
        return tf.data.Dataset.range(cases[index]).map(lambda case: 10 * index + case)

    numbered = order.read(open_shard, start=start)
    return [(int(read), int(case)) for read, case in itertools.islice(numbered, count)]


@pytest.mark.parametrize("start", [1, 2, 3, 4, 7, 16, 65, 198])
def test_reading_goes_on_from_any_read(start):
    everything = reads(order_of(), 220)
    assert [read for read, _ in everything] == list(range(220))
    assert reads(order_of(), 20, start) == everything[start : start + 20]


@pytest.mark.parametrize("cases", [(1,), (5,), (2, 1), (1, 1, 1), (10, 1, 1, 1, 1)])
def test_few_cases(cases):
    everything = reads(order_of(cases), 40)
    assert reads(order_of(cases), 5, 31) == everything[31:36]
    expected = {10 * shard + index for shard, count in enumerate(cases) for index in range(count)}
    assert {case for _, case in everything} == expected


def test_far_start_is_found_without_reading():
    """Each of these cases was read 1200 times before."""
    ((read, case),) = reads(order_of(), 1, start=20_000)
    assert read == 20_000
    assert case // 10 < len(CASES)


def test_every_case_is_read_alike():
    counts = np.bincount([case for _, case in reads(order_of(), 40 * sum(CASES))])
    counts = counts[counts > 0]
    assert len(counts) == sum(CASES)
    # Files are dealt by chance, so lanes are some files apart, never more in the long run.
    assert np.abs(counts - 40).max() <= 10


def test_a_file_alone_is_read_epoch_by_epoch():
    cases = [case for _, case in reads(order_of((5,)), 15)]
    assert cases == list(range(5)) * 3


def test_seed_decides_the_order():
    assert reads(order_of(seed=3), 50) == reads(order_of(seed=3), 50)
    assert reads(order_of(seed=3), 50) != reads(order_of(seed=4), 50)


def test_files_stand_in_another_order_in_each_epoch():
    cases = [case for _, case in reads(order_of((1,) * 4), 40)]
    epochs = [tuple(cases[start : start + 4]) for start in range(0, 40, 4)]
    assert all(len(set(epoch)) == 4 for epoch in epochs)
    assert len(set(epochs)) > 5


@pytest.mark.parametrize(
    ("samples_per_volume", "batch_size", "buffer", "patches"),
    [(4, 2, 64, 64), (4, 3, 64, 72), (1, 1, 1, 1), (16, 3, 10, 48), (3, 2, 6, 6)],
)
def test_blocks_are_whole_reads_and_whole_batches(samples_per_volume, batch_size, buffer, patches):
    config = PatchConfig(samples_per_volume=samples_per_volume, shuffle_buffer=buffer)
    blocks = Blocks.of(config, batch_size=batch_size)
    assert blocks.patches == patches
    assert blocks.reads * samples_per_volume == blocks.steps * batch_size == patches


@pytest.mark.parametrize("start", [0, 1, 3, 4, 9, 22])
def test_blocks_are_shuffled_alike_from_any_step(start):
    blocks = Blocks(samples_per_volume=2, batch_size=3, reads=6)  # of 12 patches, 4 steps

    def steps(step, count):
        first = blocks.first_read(step)
        patches = tf.data.Dataset.range(first, 1000).map(lambda read: (2 * read, 2 * read + 1))
        nested = patches.map(lambda *pair: {"patch": tf.stack(pair)})
        shuffled = blocks.shuffled(nested, seed=1, step=step)
        return [batch["patch"].numpy().tolist() for batch in shuffled.take(count)]

    everything = steps(0, 28)
    for block in range(7):
        drawn = list(itertools.chain(*everything[4 * block : 4 * block + 4]))
        assert sorted(drawn) == list(range(12 * block, 12 * block + 12))
        assert drawn != sorted(drawn)
    assert everything[0] != [patch - 12 for patch in everything[4]]
    assert steps(start, 5) == everything[start : start + 5]
