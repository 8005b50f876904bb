"""Bytes made chunk by chunk are the array's bytes."""

from __future__ import annotations

import numpy as np
import pytest

from fcnseg.records.array_bytes import ArrayBytes

ARRAY = np.arange(7 * 8 * 9, dtype="<i2").reshape(7, 8, 9)
VIEWS = {
    "as it is": ARRAY,
    "flipped": ARRAY[::-1, :, ::-1],
    "turned": ARRAY.transpose(2, 0, 1),
    "a slice": ARRAY[3:4],
    "one axis": ARRAY[0, 0],
    "nothing": ARRAY[:0],
}


@pytest.mark.parametrize("chunk_bytes", [1, 300, 2**20])
@pytest.mark.parametrize("view", VIEWS.values(), ids=VIEWS)
def test_chunks_make_up_the_array(view, chunk_bytes):
    made = ArrayBytes(view, chunk_bytes=chunk_bytes)
    chunks = list(made)
    assert b"".join(chunks) == view.tobytes()
    assert len(made) == view.nbytes
    # Not more than asked for, but at least a slice.
    assert max(map(len, chunks), default=0) <= max(chunk_bytes, view[:1].nbytes)
