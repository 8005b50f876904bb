"""An NRRD file gives the voxels and the grid that its header tells, or is refused."""

from __future__ import annotations

import gzip

import numpy as np
import pytest

from fcnseg.errors import InputError
from fcnseg.volumes import read_ct, read_geometry, read_label

VOXELS = np.arange(2 * 3 * 4, dtype=np.int16).reshape(2, 3, 4)
RAW = VOXELS.tobytes()
PACKED = gzip.compress(RAW, mtime=0)


def write(path, data=RAW, *, end="\n", newline="\n", **changes):
    """A header with some fields changed, or left out where None, and its data."""
    fields = {
        "type": "int16",
        "dimension": "3",
        "space": "left-posterior-superior",
        "sizes": "4 3 2",
        "space directions": "(2,0,0) (0,3,0) (0,0,4)",
        "space origin": "(1,2,3)",
        "endian": "little",
        "encoding": "raw",
    } | {key.replace("_", " "): value for key, value in changes.items()}
    lines = [f"{key}: {value}" for key, value in fields.items() if value is not None]
    header = newline.join(["NRRD0004", "# made by hand", *lines, "who:=me: I", end]).encode()
    name = fields.get("data file")
    path.write_bytes(header + (b"" if name else data))
    if name:
        (path.parent / name).write_bytes(data)
    return path


# -- sizes


@pytest.mark.parametrize(
    ("data", "encoding", "reason"),
    [
        (RAW[:-1], "raw", "47 bytes of data, where its header promises 48"),
        (RAW + b"\n", "raw", "49 bytes of data, where its header promises 48"),
        (gzip.compress(RAW[:-2], mtime=0), "gzip", "48 bytes of voxels expected, 46 found"),
        (gzip.compress(RAW + b"\0", mtime=0), "gzip", "more data than the 48 bytes"),
        (gzip.compress(bytes(2**24), mtime=0), "gzip", "more data than the 48 bytes"),
        (PACKED + gzip.compress(b"more", mtime=0), "gzip", "more data than the 48 bytes"),
        (PACKED[:-1], "gzip", "incomplete or corrupt volume"),
        (PACKED[:-8] + bytes(8), "gz", "incomplete or corrupt volume"),
        (RAW, "gz", "incomplete or corrupt volume"),
    ],
)
@pytest.mark.parametrize("data_file", [None, "ct.raw"])
def test_data_are_as_long_as_promised_and_right(tmp_path, data, encoding, reason, data_file):
    path = write(tmp_path / "ct.nrrd", data, encoding=encoding, data_file=data_file)
    with pytest.raises(InputError, match=reason):
        read_ct(path)
    assert read_geometry(path).shape == (2, 3, 4)


@pytest.mark.parametrize(
    ("data", "changes"),
    [
        (RAW, {}),
        (RAW, {"newline": "\r\n", "end": "\r\n"}),
        (PACKED, {"encoding": "gzip"}),
        (PACKED, {"encoding": "GZ", "data_file": "ct.raw.gz"}),
        (RAW, {"data_file": "75%s ß.raw.gz"}),
        (b"12345" + RAW, {"data_file": "ct.raw", "byte_skip": "5"}),
        (b"12345" + RAW, {"data_file": "ct.raw", "byte_skip": "-1"}),
        (gzip.compress(b"12345" + RAW, mtime=0), {"encoding": "gzip", "byte_skip": "5"}),
        (VOXELS.astype(">i2").tobytes(), {"endian": "big"}),
        (VOXELS.astype("u1").tobytes(), {"type": "unsigned char", "endian": None}),
        (VOXELS.astype("f8").tobytes(), {"type": "double"}),
        (VOXELS.astype("<u4").tobytes(), {"type": "uint"}),
    ],
)
def test_voxels_are_the_same_however_they_are_written(tmp_path, data, changes):
    path = write(tmp_path / "ct.nrrd", data, **changes)
    np.testing.assert_array_equal(read_ct(path).array, VOXELS)
    np.testing.assert_array_equal(read_label(path).array, VOXELS)
    assert read_ct(path).findings == ()


# -- the header


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"type": None}, "has no type"),
        ({"type": "block"}, "type 'block' is not read"),
        ({"sizes": "4 3"}, "dimension is 3, but sizes 4 3"),
        ({"sizes": "4 3 -2"}, "sizes must be positive"),
        ({"sizes": "4 3 x"}, "whole numbers"),
        ({"sizes": "4 6 1", "kinds": "domain domain"}, "must be of 3 axes"),
        ({"encoding": "ascii"}, "encoding must be raw or gzip, got 'ascii'"),
        ({"endian": None}, "endian must be little or big, got missing"),
        ({"space_directions": "(2,0,0) (0,3,0)"}, "must be of 3 axes"),
        ({"space_directions": "(2,0,0) (0,3,0) 4"}, "must be vectors"),
        ({"space_directions": "(2,0,0) (0,3,0) (0,0,z)"}, "must be 3 numbers"),
        ({"space_directions": "(2,0,0) (0,3,0) (0,0,nan)"}, "finite and invertible"),
        ({"space_directions": "(2,0) (0,3) (1,1)"}, "three dimensions"),
        ({"space_origin": "(1,2)"}, "no vector"),
        ({"space_origin": "(1,2,3,4)"}, "no vector"),
        ({"space_origin": "1 2 3"}, "must be vectors"),
        ({"line_skip": "2"}, "not read"),
        ({"byte_skip": "-1", "encoding": "gzip"}, "not read"),
        ({"data_file": "LIST"}, "several files"),
        ({"data_file": "slice%d.raw 1 2 1"}, "several files"),
        ({"data_file": "../ct.raw"}, "lie in its folder"),
        ({"end": ""}, "does not end with an empty line"),
        ({"DIMENSION": "3"}, "has 'DIMENSION' twice"),
        ({"data_file": "ct.raw", "datafile": "ct.raw"}, "has 'datafile' twice"),
        ({"spae_origin": "(1,2,3)"}, "has 'spae origin: .1,2,3.', which is no field"),
        ({"space_directions": None, "space_origin": None, "axis_mins": "1 2 3"}, "axis mins"),
    ],
)
def test_a_header_that_breaks_a_rule_is_refused(tmp_path, changes, reason):
    (tmp_path / "folder").mkdir()
    data = b"" if changes.get("end") == "" else RAW
    path = write(tmp_path / "folder/ct.nrrd", data, **changes)
    with pytest.raises(InputError, match=reason) as caught:
        read_ct(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("start", [b"", b"NRRD0009\n", b"NRRD", b"hello"])
def test_what_does_not_begin_as_nrrd_is_refused(tmp_path, start):
    (tmp_path / "ct.nrrd").write_bytes(start)
    with pytest.raises(InputError, match="does not begin with NRRD"):
        read_ct(tmp_path / "ct.nrrd")


# -- the grid


@pytest.mark.parametrize(
    ("space", "orientation", "origin"),
    [
        ("left-posterior-superior", "LPS", (-1, -2, 3)),
        ("LPS", "LPS", (-1, -2, 3)),
        ("left-anterior-superior", "LAS", (-1, 2, 3)),
        ("las", "LAS", (-1, 2, 3)),
        ("Right-Anterior-Superior", "RAS", (1, 2, 3)),
        ("RAS", "RAS", (1, 2, 3)),
    ],
)
def test_every_space_of_a_patient_is_known(tmp_path, space, orientation, origin):
    geometry = read_geometry(write(tmp_path / "ct.nrrd", space=space))
    assert geometry.orientation == orientation
    assert tuple(geometry.affine[:3, 3]) == origin
    assert geometry.findings == ()


@pytest.mark.parametrize("space", ["left-posterior-superior-time", "LPST"])
def test_time_may_be_a_fourth_axis_of_one(tmp_path, space):
    path = write(
        tmp_path / "ct.nrrd",
        space=space,
        dimension="4",
        sizes="4 3 2 1",
        space_directions="(2,0,0,0) (0,3,0,0) (0,0,4,0) (0,0,0,1)",
        space_origin="(1,2,3,0)",
    )
    volume = read_ct(path)
    np.testing.assert_array_equal(volume.array, VOXELS)
    assert volume.orientation == "LPS"
    assert tuple(volume.affine[:3, 3]) == (-1, -2, 3)
    assert volume.findings == ()


BOTH = ["orientation_unknown", "spacing_unknown"]


@pytest.mark.parametrize(
    ("changes", "codes", "spacing"),
    [
        ({"space": None, "space_dimension": "3"}, BOTH[:1], (4, 3, 2)),
        ({"space": "LPST"}, BOTH[:1], (4, 3, 2)),
        ({"space": "scanner-xyz"}, BOTH[:1], (4, 3, 2)),
        ({"space": "3D-right-handed"}, BOTH[:1], (4, 3, 2)),
        ({"space_directions": None, "spacings": "5 6 7"}, BOTH[:1], (7, 6, 5)),
        ({"space_directions": None}, BOTH, (1, 1, 1)),
        ({"space_directions": None, "spacings": "nan nan nan"}, BOTH, (1, 1, 1)),
        ({"space_directions": None, "spacings": "5 6 nan"}, BOTH, (1, 1, 1)),
        ({"space_units": '"mm" "mm" "mm"'}, [], (4, 3, 2)),
        ({"space_units": '"cm" "cm" "cm"'}, ["spacing_implausible"], (4, 3, 2)),
    ],
)
def test_what_a_header_leaves_out_is_found(tmp_path, changes, codes, spacing):
    path = write(tmp_path / "ct.nrrd", **changes)
    for read in (read_geometry, read_ct, read_label):
        volume = read(path)
        assert [finding.code for finding in volume.findings] == codes
        assert volume.spacing == spacing
        assert volume.orientation == "LPS"


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        (
            {"sizes": "3 4 2 1", "kinds": "RGB-color domain domain domain"},
            "single numbers, got 3",
        ),
        ({"sizes": "4 3 1 2", "kinds": "domain domain domain time"}, "three dimensions"),
        ({"sizes": "4 3 1 2", "kinds": "domain domain domain list"}, "three dimensions"),
    ],
)
def test_what_is_no_single_volume_is_refused(tmp_path, changes, reason):
    path = write(tmp_path / "ct.nrrd", dimension="4", space_directions=None, **changes)
    with pytest.raises(InputError, match=reason):
        read_ct(path)
