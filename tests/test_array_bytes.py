"""Bytes made piece by piece are the array's bytes."""

from __future__ import annotations

import numpy as np
import pytest

from fcnseg.records import array_bytes as module
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


@pytest.mark.parametrize("piece", [1, 300, 2**20])
@pytest.mark.parametrize("view", VIEWS.values(), ids=VIEWS)
def test_pieces_make_up_the_array(monkeypatch, view, piece):
    monkeypatch.setattr(module, "_PIECE", piece)
    pieces = list(ArrayBytes(view))
    assert b"".join(pieces) == view.tobytes()
    assert len(ArrayBytes(view)) == view.nbytes
    # Not more than asked for, but at least a slice.
    assert max(map(len, pieces), default=0) <= max(piece, view[:1].nbytes)
