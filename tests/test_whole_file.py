"""A file is there whole, or as it was."""

from __future__ import annotations

import pytest

from fcnseg.whole_file import write_whole, written_whole


def test_file_appears_when_the_block_ends(tmp_path):
    path = tmp_path / "mask.nii.gz"
    with written_whole(path) as unfinished:
        unfinished.write_bytes(b"whole")
        assert unfinished.name == path.name
        assert not path.exists()
    assert path.read_bytes() == b"whole"
    assert list(tmp_path.iterdir()) == [path]


def test_failing_block_leaves_what_was_there(tmp_path):
    path = tmp_path / "run.json"
    write_whole(path, "before\n")

    def fail():
        with written_whole(path) as unfinished:
            unfinished.write_bytes(b"half")
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        fail()
    assert path.read_text() == "before\n"
    assert list(tmp_path.iterdir()) == [path]


def test_line_ends_are_kept(tmp_path):
    write_whole(tmp_path / "table.csv", "a\nb\r\n")
    assert (tmp_path / "table.csv").read_bytes() == b"a\nb\r\n"
