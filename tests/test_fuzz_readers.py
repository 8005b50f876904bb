"""Changed headers never end the process, and give the file's own voxels or a code.

`python tests/fuzz_readers.py` reads 20,000, in some five minutes.
"""

from __future__ import annotations

import pytest
from fuzz_files import FORMATS, mutate
from fuzz_readers import fuzz


def test_changed_headers_give_their_own_voxels_or_a_code():
    report = fuzz(160, seed=0)
    assert report.faults == []
    assert report.files == dict.fromkeys(FORMATS, 40)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_thousands_of_changed_headers_do():
    report = fuzz(3000, seed=1)
    assert report.faults == []
    assert all(report.records[name] > 75 for name in FORMATS)


def test_a_change_is_the_same_for_the_same_numbers():
    for index in range(8):
        assert mutate(index, seed=5) == mutate(index, seed=5)
