"""Voxels come from a file whole and right, or not at all."""

from __future__ import annotations

import gzip
import sys
import zlib

import nibabel as nib
import numpy as np
import pytest

from fcnseg.errors import InputError, LabelError
from fcnseg.volumes import Volume, read_ct, read_label, write_volume
from fcnseg.volumes.formats import raw_voxels as module
from fcnseg.volumes.formats.raw_voxels import FileVoxels

SHAPE = (5, 40, 30)


@pytest.fixture(params=["isal", "zlib"])
def unpacker(request, monkeypatch):
    """Each of the two that may unpack: the fast one where it is installed."""
    if request.param == "isal":
        pytest.importorskip("isal")
    else:
        monkeypatch.setattr(module, "open_gzip", gzip.open)


@pytest.fixture
def small_reads(monkeypatch):
    """A few bytes at a time, as if the volume were large."""
    monkeypatch.setattr(module, "READ_BYTES", 4096)


def numbers(dtype) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 120, SHAPE).astype(dtype)


def write(path, array, *, byte_order="<", slope=1, intercept=0):
    """Stored numbers, slope and intercept as they are: nibabel would choose its own."""
    header = nib.Nifti1Header(endianness=byte_order)
    header.set_data_dtype(array.dtype)
    header.set_data_shape(array.shape[::-1])
    header.set_sform(np.eye(4), code=1)
    header.set_slope_inter(slope, intercept)
    header["vox_offset"] = 352
    packed = (
        header.binaryblock + bytes(4) + array.astype(array.dtype.newbyteorder(byte_order)).tobytes()
    )
    path.write_bytes(gzip.compress(packed) if path.suffix == ".gz" else packed)


@pytest.mark.parametrize("name", ["ct.nii", "ct.nii.gz"])
@pytest.mark.parametrize("byte_order", ["<", ">"])
@pytest.mark.parametrize("dtype", ["i2", "u2", "u1", "i4", "f4", "f8"])
@pytest.mark.parametrize(("slope", "intercept"), [(1, 0), (2, -1024)])
@pytest.mark.usefixtures("small_reads")
def test_every_type_and_byte_order_gives_the_same_values(
    tmp_path, name, byte_order, dtype, slope, intercept
):
    write(tmp_path / name, numbers(dtype), byte_order=byte_order, slope=slope, intercept=intercept)
    expected = numbers("i8") * slope + intercept
    for read in (read_ct, read_label):
        array = read(tmp_path / name).array
        np.testing.assert_array_equal(array, expected)
        assert array.dtype.isnative
        assert array.dtype.itemsize <= 2


PACKED = gzip.compress(bytes(352) + numbers("i2").tobytes())
DAMAGED = {
    "cut in the middle": PACKED[:-1000],
    "without its checksum": PACKED[:-8],
    "a wrong checksum": PACKED[:-8] + b"\0\1\2\3" + PACKED[-4:],
    "a wrong length": PACKED[:-4] + b"\0\1\2\3",
    "a spoilt stream": PACKED[:2000] + b"\xff" * 99 + PACKED[2099:],
    "too few voxels": gzip.compress(gzip.decompress(PACKED)[:-2]),
}


@pytest.mark.parametrize("damage", DAMAGED)
@pytest.mark.usefixtures("unpacker", "small_reads")
def test_damage_is_found(tmp_path, damage):
    path = tmp_path / "ct.nii.gz"
    voxels = FileVoxels(str(path), 352, SHAPE, np.dtype("<i2"))
    path.write_bytes(PACKED)
    np.testing.assert_array_equal(voxels.read(), numbers("i2"))
    np.testing.assert_array_equal(np.concatenate([*map(np.copy, voxels.slabs())]), numbers("i2"))

    path.write_bytes(DAMAGED[damage])
    with pytest.raises(module.NOT_WHOLE):
        voxels.read()
    with pytest.raises(module.NOT_WHOLE):
        for _ in voxels.slabs():
            pass


@pytest.mark.parametrize("read", [read_ct, read_label])
@pytest.mark.parametrize("dtype", ["i2", "f4"])
def test_a_wrong_checksum_is_an_error_with_the_name_of_the_file(tmp_path, read, dtype):
    path = tmp_path / "scan.nii.gz"
    write(path, numbers(dtype))
    packed = path.read_bytes()
    path.write_bytes(packed[:-8] + bytes(4) + packed[-4:])
    with pytest.raises(
        InputError, match=r"incomplete or corrupt volume: .*scan\.nii\.gz: .*\(case a\)"
    ):
        read(path, case_id="a")


def test_either_unpacker_s_errors_are_known():
    assert zlib.error in module.NOT_WHOLE
    if "isal" in sys.modules:
        assert sys.modules["isal.isal_zlib"].error in module.NOT_WHOLE


@pytest.mark.parametrize(
    ("most", "dtype"), [(127, np.int8), (128, np.int16), (40_000, np.int32), (-129, np.int16)]
)
@pytest.mark.usefixtures("small_reads")
def test_ids_stored_long_take_as_few_bytes_as_they_need(tmp_path, most, dtype):
    ids = np.zeros(SHAPE, np.float64)
    ids[-1, -1, -1] = most
    write(tmp_path / "label.nii", ids)
    label = read_label(tmp_path / "label.nii").array
    assert label.dtype == dtype
    np.testing.assert_array_equal(label, ids)


def test_ids_of_more_than_32_bits_are_refused(tmp_path):
    write(tmp_path / "label.nii", np.full(SHAPE, 1e30))
    with pytest.raises(LabelError, match=r"at most 32 bits, got 1e\+30 to 1e\+30 in .*label\.nii"):
        read_label(tmp_path / "label.nii")


def test_a_volume_of_one_voxel_is_read(tmp_path):
    write_volume(Volume(np.full((1, 1, 1), -7, np.int16), np.eye(4)), tmp_path / "ct.nii.gz")
    assert read_ct(tmp_path / "ct.nii.gz").array.tolist() == [[[-7]]]
