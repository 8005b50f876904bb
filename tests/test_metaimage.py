"""A MetaImage file gives the voxels that its header promises, or is refused."""

from __future__ import annotations

import gzip
import math
import os
import zlib

import numpy as np
import pytest
import SimpleITK as sitk

from fcnseg.errors import InputError
from fcnseg.volumes import read_ct, read_geometry, read_label

VOXELS = np.arange(2 * 3 * 4, dtype=np.int16).reshape(2, 3, 4)
RAW = VOXELS.tobytes()
PACKED = zlib.compress(RAW)


def write(path, data=RAW, *, name="LOCAL", data_name=None, **changes):
    """A header with some entries changed, or left out where None, and its data."""
    entries = {
        "ObjectType": "Image",
        "NDims": "3",
        "BinaryData": "True",
        "BinaryDataByteOrderMSB": "False",
        "CompressedData": "False",
        "TransformMatrix": "1 0 0 0 1 0 0 0 1",
        "Offset": "0 0 0",
        "ElementSpacing": "2 3 4",
        "DimSize": "4 3 2",
        "ElementType": "MET_SHORT",
    } | changes
    lines = [f"{key} = {value}" for key, value in entries.items() if value is not None]
    header = "\n".join([*lines, f"ElementDataFile = {name}\n"]).encode()
    if name.upper() == "LOCAL":
        path.write_bytes(header + data)
    else:
        path.write_bytes(header)
        (path.parent / (data_name or name)).write_bytes(data)
    return path


# -- sizes


@pytest.mark.parametrize("size", [None, "0", "1", "20", "999999"])
@pytest.mark.parametrize("name", ["LOCAL", "ct.zraw"])
def test_packed_data_are_the_files_own_whatever_size_it_claims(tmp_path, size, name):
    """The checksum and the count of bytes tell, so the claim is not needed."""
    packed = {"CompressedData": "True", "CompressedDataSize": size}
    path = write(tmp_path / "ct.mha", PACKED, name=name, **packed)
    np.testing.assert_array_equal(read_ct(path).array, VOXELS)


def test_packed_data_may_be_wrapped_as_gzip(tmp_path):
    path = write(tmp_path / "ct.mha", gzip.compress(RAW), CompressedData="True")
    np.testing.assert_array_equal(read_ct(path).array, VOXELS)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (RAW[:-1], "47 bytes of data, where its header promises 48"),
        (RAW + b"\0", "49 bytes of data, where its header promises 48"),
        (b"", "0 bytes of data"),
    ],
)
@pytest.mark.parametrize("name", ["LOCAL", "ct.raw"])
def test_raw_data_are_as_long_as_promised(tmp_path, name, data, reason):
    path = write(tmp_path / "ct.mhd", data, name=name)
    with pytest.raises(InputError, match=reason):
        read_ct(path)
    assert read_geometry(path).shape == (2, 3, 4)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (zlib.compress(RAW[:-2]), "48 bytes of voxels expected, 46 found"),
        (zlib.compress(RAW + b"\0"), "more data than the 48 bytes"),
        (PACKED + b"\0", "bytes follow its compressed data"),
        (PACKED[:-1], "compressed data end early"),
        (PACKED[:-4] + b"\0\0\0\0", "incorrect data check"),
        (b"", "0 bytes of compressed data cannot make 48"),
        (RAW, "unknown compression method"),
    ],
)
def test_packed_data_are_as_long_as_promised_and_right(tmp_path, data, reason):
    path = write(tmp_path / "ct.mha", data, CompressedData="True")
    with pytest.raises(InputError, match=reason):
        read_ct(path)


def test_no_more_is_unpacked_than_was_promised(tmp_path):
    """16 MB of zeros where 48 bytes are promised."""
    path = write(tmp_path / "ct.mha", zlib.compress(bytes(2**24)), CompressedData="True")
    with pytest.raises(InputError, match="more data than the 48 bytes"):
        read_ct(path)


def test_no_room_is_made_for_a_size_that_cannot_be(tmp_path):
    path = write(tmp_path / "ct.mha", PACKED, CompressedData="True", DimSize="99999 99999 9999")
    with pytest.raises(InputError, match="cannot make"):
        read_ct(path)


# -- names of data files


@pytest.mark.parametrize(
    "name",
    [
        "ct_75%_sharp.raw",
        "x%s.raw",
        "x%n%n%n.raw",
        "scan 60% phase.raw",
        "LISTER.raw",
        "größe.raw",
        "a b.raw",
        "%03d.raw 1 2 1",
    ],
)
def test_a_name_of_a_data_file_is_a_name(tmp_path, name):
    path = write(tmp_path / "ct.mhd", name=name)
    np.testing.assert_array_equal(read_ct(path).array, VOXELS)


def test_a_name_may_be_of_other_bytes_than_utf_8(tmp_path):
    path = write(tmp_path / "ct.mhd", name="x.raw")
    path.write_bytes(path.read_bytes().replace(b"x.raw", b"gr\xf6\xdfe.raw"))
    with pytest.raises(InputError, match="no such file: .*which") as caught:
        read_ct(path)
    str(caught.value).encode()  # a report can be written
    (tmp_path / "x.raw").rename(tmp_path / os.fsdecode(b"gr\xf6\xdfe.raw"))
    np.testing.assert_array_equal(read_ct(path).array, VOXELS)


@pytest.mark.parametrize("name", ["Local", "local", "LOCAL"])
def test_local_data_are_known_in_any_case(tmp_path, name):
    np.testing.assert_array_equal(read_ct(write(tmp_path / "ct.mha", name=name)).array, VOXELS)


@pytest.mark.parametrize("name", ["LIST", "LIST 2", "slice%03d.raw 1 2 1", "list"])
def test_data_in_several_files_are_refused(tmp_path, name):
    path = write(tmp_path / "ct.mhd", name=name, data_name="other")
    with pytest.raises(InputError, match="several files"):
        read_ct(path)


@pytest.mark.parametrize("name", ["../ct.raw", "sub/../../ct.raw", "/etc/hostname", "a\0b"])
def test_a_name_leads_nowhere_else(tmp_path, name):
    folder = tmp_path / "folder"
    folder.mkdir()
    (tmp_path / "ct.raw").write_bytes(RAW)
    path = write(folder / "ct.mhd", name=name, data_name="unused")
    with pytest.raises(InputError, match="its data must lie in its folder"):
        read_geometry(path)


def test_data_in_a_folder_below_are_read(tmp_path):
    (tmp_path / "raw").mkdir()
    path = write(tmp_path / "ct.mhd", name="raw/ct.raw")
    np.testing.assert_array_equal(read_ct(path).array, VOXELS)


@pytest.mark.parametrize(("size", "data"), [("5", b"12345" + RAW), ("-1", b"any" + RAW)])
def test_a_header_before_the_data_is_skipped_where_it_is_described(tmp_path, size, data):
    path = write(tmp_path / "ct.mhd", data, name="ct.raw", HeaderSize=size)
    np.testing.assert_array_equal(read_ct(path).array, VOXELS)


# -- values


@pytest.mark.parametrize("order", ["BinaryDataByteOrderMSB", "ElementByteOrderMSB"])
@pytest.mark.parametrize("yes", ["True", "true", "1"])
def test_both_byte_orders_are_read(tmp_path, order, yes):
    other = {"BinaryDataByteOrderMSB": None} | {order: yes}
    path = write(tmp_path / "ct.mha", VOXELS.astype(">i2").tobytes(), **other)
    np.testing.assert_array_equal(read_ct(path).array, VOXELS)


@pytest.mark.parametrize(
    ("kind", "dtype"),
    [
        ("CHAR", "i1"),
        ("UCHAR", "u1"),
        ("USHORT", "u2"),
        ("INT", "i4"),
        ("UINT", "u4"),
        ("LONG_LONG", "i8"),
        ("ULONG_LONG", "u8"),
        ("FLOAT", "f4"),
        ("DOUBLE", "f8"),
    ],
)
def test_every_type_is_read(tmp_path, kind, dtype):
    path = write(tmp_path / "ct.mha", VOXELS.astype(dtype).tobytes(), ElementType=f"MET_{kind}")
    np.testing.assert_array_equal(read_ct(path).array, VOXELS)
    np.testing.assert_array_equal(read_label(path).array, VOXELS)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"NDims": "2"}, "NDims is 2, but DimSize 4 3 2"),
        ({"NDims": None}, "has no NDims"),
        ({"DimSize": "4 3 -2"}, "DimSize must be positive"),
        ({"DimSize": "4 3 0"}, "DimSize must be positive"),
        ({"DimSize": "4 3 1_0"}, "whole numbers"),
        ({"DimSize": "4 3 ٣"}, "whole numbers"),
        ({"DimSize": "999999999 999999999 999999999"}, "possible volume"),
        ({"ElementSpacing": "2 3"}, "ElementSpacing must be 3 numbers"),
        ({"ElementSpacing": "2 3 4 5"}, "ElementSpacing must be 3 numbers"),
        ({"Offset": "a b c"}, "Offset must be 3 numbers"),
        ({"TransformMatrix": "1 0 0"}, "TransformMatrix must be 9 numbers"),
        ({"TransformMatrix": "2 0 0 0 2 0 0 0 2"}, "length 1, got .2.0, 2.0, 2.0."),
        ({"Position": "1 2 3"}, "Position = 1 2 3 and Offset = 0 0 0"),
        ({"ElementType": "MET_LONG"}, "of 4 bytes or of 8"),
        ({"ElementType": "MET_STRING"}, "not read"),
        ({"ElementType": "MET_UCHAR_ARRAY"}, "not read"),
        ({"ElementNumberOfChannels": "3"}, "single numbers, got 3"),
        ({"BinaryData": "False"}, "as text are not read"),
        ({"CompressedData": "maybe"}, "must be True or False"),
        ({"ObjectType": "Tube"}, "ObjectType must be Image"),
        ({"HeaderSize": "7"}, "HeaderSize must be 0"),
        ({"ElementToIntensityFunctionSlope": "2"}, "must be 1, as programs do not apply it"),
        ({"\nDimSize": "4 2 3"}, "has DimSize twice"),
        ({"ElementSpacing": "2 0 4"}, "finite and invertible"),
        ({"ElementSpacing": "2 nan 4"}, "finite and invertible"),
    ],
)
def test_a_header_that_breaks_a_rule_is_refused(tmp_path, changes, reason):
    path = write(tmp_path / "ct.mha", **changes)
    with pytest.raises(InputError, match=reason) as caught:
        read_ct(path)
    assert "\n" not in str(caught.value)


# -- the grid


@pytest.mark.parametrize(
    ("changes", "codes", "spacing"),
    [
        ({}, [], (4, 3, 2)),
        ({"ElementSpacing": None}, ["spacing_unknown"], (1, 1, 1)),
        ({"ElementSpacing": None, "ElementSize": "5 6 7"}, [], (7, 6, 5)),
        ({"ElementSize": "5 6 7"}, [], (4, 3, 2)),
        ({"TransformMatrix": None}, ["orientation_unknown"], (4, 3, 2)),
        ({"TransformMatrix": None, "Rotation": "1 0 0 0 1 0 0 0 1"}, [], (4, 3, 2)),
        ({"DistanceUnits": "mm"}, [], (4, 3, 2)),
        ({"DistanceUnits": "cm"}, ["spacing_implausible"], (4, 3, 2)),
    ],
)
def test_what_a_header_leaves_out_is_found(tmp_path, changes, codes, spacing):
    path = write(tmp_path / "ct.mha", **changes)
    for read in (read_geometry, read_ct, read_label):
        volume = read(path)
        assert [finding.code for finding in volume.findings] == codes
        assert volume.spacing == spacing
        assert volume.orientation == "LPS"


def test_axes_lie_where_itk_puts_them(tmp_path):
    turn, tilt = math.radians(20), math.radians(7)
    matrix = np.array(
        [[math.cos(turn), -math.sin(turn), 0], [math.sin(turn), math.cos(turn), 0], [0, 0, 1]]
    ) @ [[1, 0, 0], [0, math.cos(tilt), -math.sin(tilt)], [0, math.sin(tilt), math.cos(tilt)]]
    text = " ".join(map(str, matrix.T.ravel()))
    path = write(tmp_path / "ct.mha", TransformMatrix=text, Offset="-5 7 11")
    image = sitk.ReadImage(str(path))
    affine = read_geometry(path).affine
    for index in ((0, 0, 0), (3, 0, 0), (0, 2, 0), (1, 2, 1)):
        point = np.array(image.TransformIndexToPhysicalPoint(index)) * (-1, -1, 1)
        np.testing.assert_allclose((affine @ (*index, 1))[:3], point, atol=1e-9)
