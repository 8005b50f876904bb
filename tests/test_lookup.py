"""Ids become classes, in little memory, whatever their type."""

from __future__ import annotations

import numpy as np
import pytest

from fcnseg.volumes import LabelMap

IDS = {
    "one byte": ([0, 1, 7, 90], "u1 i1 u2 i4 i8"),
    "two bytes": ([0, 300, 5, 299], "u2 i2 i4"),
    "above two bytes": ([0, 100_000, 70_000, 3], "i4 u4 i8"),
    "already classes": ([0, 1, 2, 3], "u1 i1 u2 i8"),
}


@pytest.mark.parametrize(
    ("ids", "dtype"),
    [(ids, dtype) for ids, dtypes in IDS.values() for dtype in dtypes.split()],
)
def test_ids_become_classes_whatever_their_type(ids, dtype):
    """In labels of 2.4 and 1.2 times the 2^18 voxels that are looked up at once."""
    classes = np.random.default_rng(0).integers(0, 4, (3, 300, 700))
    label_map = LabelMap({"background": ids[:1], "a": ids[1:2], "b": ids[2:3], "c": ids[3:]})
    label = np.array(ids, dtype)[classes]
    for array, expected in ((label, classes), (label[:, ::-1, ::2].T, classes[:, ::-1, ::2].T)):
        found = label_map.apply(array)
        assert found.dtype == np.uint8
        np.testing.assert_array_equal(found, expected)
