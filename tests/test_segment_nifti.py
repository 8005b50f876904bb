"""Masks of NIfTI bytes, in the graph: byte for byte the files of `predict`, and its refusals."""

from __future__ import annotations

import dataclasses
import gzip
import itertools
import struct
import zlib

import nibabel as nib
import numpy as np
import pytest
import tensorflow as tf
from bad_files import set_fields
from small_models import AFFINE, CROP, make_hu, make_info, make_network
from test_nifti_header import HEADERS

from fcnseg.conversion.check_options import CheckOptions
from fcnseg.conversion.gate import Gate
from fcnseg.errors import InputError
from fcnseg.evaluation.class_names import workbench_table
from fcnseg.inference import make_segmenter, predict_volume
from fcnseg.saved_model.nifti.signature import make_segment_nifti
from fcnseg.volumes import read_label, write_mask

SHAPE = (9, 7, 6)  # (i, j, k)
HU = make_hu(SHAPE[::-1]).T
OPEN = ("orientation_unknown", "spacing_unknown")
TYPES = ["u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8", "f4", "f8"]
KINDS = {"1": nib.Nifti1Image, "2": nib.Nifti2Image}


@pytest.fixture(scope="module")
def segmenter():
    return make_segmenter(make_network(), make_info())


@dataclasses.dataclass(frozen=True)
class Both:
    """Segments files in the graph and as `fcnseg predict` does."""

    segmenter: object
    accept: tuple[str, ...]
    in_graph: object
    folder: object

    def of(self, content, *, suffix=".nii"):
        """The two masks' bytes; of a refusal, its message."""
        return self.served(content), self.predicted(content, suffix)

    def served(self, content):
        try:
            return self.in_graph(tf.constant(content))["labels_nifti_bytes"].numpy()
        except tf.errors.InvalidArgumentError as error:
            return error.message

    def predicted(self, content, suffix):
        path = self.folder / f"image{suffix}"
        path.write_bytes(content)
        gate = Gate(CheckOptions(accept=self.accept))
        try:
            gate.inspect(str(path), case_id="image")
            volume, _ = gate.read(str(path), case_id="image")
            mask = predict_volume(self.segmenter, volume)
        except InputError as error:
            return str(error)
        table = workbench_table(self.segmenter.info.class_names)
        write_mask(mask, self.folder / "mask.nii", like=volume, label_table=table)
        return (self.folder / "mask.nii").read_bytes()


def make_both(segmenter, folder, *accept):
    return Both(segmenter, accept, make_segment_nifti(segmenter, accept=accept), folder)


@pytest.fixture(scope="module")
def both(segmenter, tmp_path_factory):
    """Accepts a crop of a CT, which the small volumes here are."""
    return make_both(segmenter, tmp_path_factory.mktemp("files"), *CROP)


@pytest.fixture(scope="module")
def lenient(segmenter, tmp_path_factory):
    """Accepts headers that leave something open too."""
    codes = (*CROP, *OPEN, "missing_rescale", "windowed_image")
    return make_both(segmenter, tmp_path_factory.mktemp("open"), *codes)


def file_of(hu=HU, affine=AFFINE, *, kind=nib.Nifti1Image, dtype="i2", big=False, scale=(1, 0)):
    """The bytes of a `.nii` file."""
    image = kind(hu, affine, kind.header_class(endianness=">" if big else "<"))
    image.set_sform(affine, code=1)
    image.set_qform(affine, code=1)
    stored = (hu.astype(np.float64) - scale[1]) / scale[0]
    dtype = np.dtype(dtype)
    if dtype.kind in "iu":
        limits = np.iinfo(dtype)
        stored = np.clip(np.rint(stored), max(limits.min, -(2**60)), min(limits.max, 2**60))
    image = kind(stored.astype(dtype), None, image.header)
    image.header.set_data_dtype(dtype)
    image.header.set_slope_inter(*scale)
    return image.to_bytes()


def assert_same_mask(both, content, *, suffix=".nii"):
    served, predicted = both.of(content, suffix=suffix)
    assert isinstance(predicted, bytes), predicted
    assert isinstance(served, bytes), served
    assert served == predicted


def with_fields(tmp_path, content, **fields):
    path = tmp_path / "changed.nii"
    path.write_bytes(content)
    set_fields(path, **fields)
    return path.read_bytes()


@pytest.mark.parametrize("scale", [(1, 0), (5, -600), (40, -1024.25)])
@pytest.mark.parametrize(("dtype", "big"), [*itertools.product(TYPES, (False, True))])
def test_each_type_and_scale_of_either_byte_order_gives_the_mask_of_predict(
    both, lenient, dtype, big, scale
):
    content = file_of(dtype=dtype, big=big, scale=scale)
    # Unsigned numbers without an intercept have no HU of air or fat.
    is_positive = dtype.startswith("u") and scale[1] == 0
    assert_same_mask(lenient if is_positive else both, content)


@pytest.mark.parametrize("big", [False, True])
def test_second_version_of_nifti(both, big):
    assert_same_mask(both, file_of(kind=nib.Nifti2Image, big=big))


TURNS = [*itertools.product(itertools.permutations(range(3)), itertools.product((1, -1), repeat=3))]


@pytest.mark.parametrize(("order", "signs"), TURNS)
def test_each_order_and_direction_of_axes(both, order, signs):
    turned = AFFINE[:, [*order, 3]] * np.array([*signs, 1])
    assert_same_mask(both, file_of(affine=turned))


@pytest.mark.parametrize("seed", range(10))
def test_oblique_grids(both, seed):
    draw = np.random.default_rng(seed)
    rotation, _ = np.linalg.qr(draw.normal(size=(3, 3)))
    oblique = nib.affines.from_matvec(rotation * draw.uniform(0.5, 4, 3), draw.normal(0, 100, 3))
    assert_same_mask(both, file_of(affine=oblique))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", HEADERS)
def test_what_a_header_leaves_open_is_refused_or_taken_as_predict_does(
    both, lenient, tmp_path, name, kind
):
    affine = np.array([[-2.0, 0, 0, 30], [0, -3, 0, 20], [0, 0, 4, -10], [0, 0, 0, 1]])
    content = file_of(affine=affine, kind=KINDS[kind])
    content = with_fields(tmp_path, content, **HEADERS[name].fields)
    assert_same_mask(lenient, content)
    served, predicted = both.of(content)
    assert isinstance(served, bytes) == isinstance(predicted, bytes) == (not HEADERS[name].codes)


def test_four_dimensions_of_which_the_last_is_one(both):
    assert_same_mask(both, file_of(HU[..., np.newaxis]))


def test_texts_of_the_header_stay_behind(both):
    image = nib.Nifti1Image.from_bytes(file_of())
    image.header["descrip"] = b"name of a patient"
    image.header.extensions.append(nib.nifti1.Nifti1Extension("comment", b"name of a patient"))
    content = image.to_bytes()
    assert b"name of a patient" in content
    assert_same_mask(both, content)
    assert b"name of a patient" not in both.served(content)


PLAIN = file_of()
PACKED = gzip.compress(PLAIN)


def bgzip(content, block=500):
    """Compresses as bgzip does: members that tell their size, and an empty one at the end."""
    members = []
    for start in [*range(0, len(content), block), len(content)]:
        piece = content[start : start + block]
        packer = zlib.compressobj(wbits=-15)
        packed = packer.compress(piece) + packer.flush()
        head = b"\x1f\x8b\x08\x04\0\0\0\0\0\xff\x06\0BC\x02\0"
        head += struct.pack("<H", len(head) + 2 + len(packed) + 8 - 1)
        members.append(head + packed + struct.pack("<II", zlib.crc32(piece), len(piece)))
    return b"".join(members)


NAMED_EMPTY = b"\x1f\x8b\x08\x08" + bytes(6) + b"empty.nii\0" + b"\x03\0" + bytes(8)


def test_voxels_that_look_like_an_empty_member_stay(both):
    member = gzip.compress(b"", mtime=0)
    content = PLAIN[:352] + member + PLAIN[352 + len(member) :]
    assert_same_mask(both, gzip.compress(content, compresslevel=0), suffix=".nii.gz")


@pytest.mark.parametrize(
    "packed",
    [
        PACKED,
        gzip.compress(PLAIN[:700]) + gzip.compress(PLAIN[700:]),
        gzip.compress(PLAIN + b"end"),
        bgzip(PLAIN),
        bgzip(PLAIN, block=2**16),
        PACKED + gzip.compress(b"") * 2,
        gzip.compress(b"") + PACKED,
        PACKED + NAMED_EMPTY,
        PACKED + gzip.compress(b"", compresslevel=0),
        PACKED + bytes(1),
        PACKED + bytes(512),
        bgzip(PLAIN) + bytes(512),
        gzip.compress(PLAIN[:700]) + gzip.compress(PLAIN[700:]) + bytes(3),
        gzip.compress(PLAIN[:10]) + gzip.compress(b"") + gzip.compress(PLAIN[10:]),
    ],
    ids=[
        *("one member", "two members", "more than the voxels", "bgzip", "bgzip, one block"),
        *("empty members behind", "empty member before", "named empty member"),
        *("stored empty member", "a zero behind", "zeros behind", "bgzip, zeros behind"),
        *("two members, zeros behind", "an empty member within the header"),
    ],
)
def test_packed_files(both, packed):
    assert gzip.decompress(packed).startswith(PLAIN)
    assert_same_mask(both, packed, suffix=".nii.gz")


@pytest.mark.parametrize("zeros", [0, 1, 700])
def test_sizes_of_packed_files_are_told_from_zeros_behind_them(both, zeros):
    """Files of every length modulo 256, so that sizes in trailers end with zeros or not."""
    for added in (0, 1, 100, 255 - len(PLAIN) % 256, 256 - len(PLAIN) % 256):
        assert_same_mask(both, gzip.compress(PLAIN + bytes(added)) + bytes(zeros), suffix=".nii.gz")


BROKEN_FILES = {
    "nothing": b"",
    "not NIfTI": b"not a NIfTI file, " * 100,
    "half a header": PLAIN[:300],
    "a header alone": PLAIN[:352],
    "cut": PLAIN[:-1],
    "packed: nothing": PACKED[:2],
    "packed: cut in the header": PACKED[:20],
    "packed: cut in the voxels": PACKED[: len(PACKED) // 2],
    "packed: cut in the trailer": PACKED[:-1],
    "packed: no trailer": PACKED[:-8],
    "packed: a wrong byte": PACKED[:400] + bytes([PACKED[400] ^ 1]) + PACKED[401:],
    "packed: a wrong checksum": PACKED[:-6] + bytes([PACKED[-6] ^ 1]) + PACKED[-5:],
    "packed: more than is promised": gzip.compress(PLAIN + bytes(2**21)),
}


@pytest.mark.parametrize("name", BROKEN_FILES)
def test_broken_files_are_refused_in_a_sentence(both, name):
    served, predicted = both.of(
        BROKEN_FILES[name], suffix=".nii.gz" if name.startswith("packed") else ".nii"
    )
    assert "assertion failed" in served
    assert "NIfTI" in served or "corrupt volume" in served or "promises" in served
    # What follows the voxels is harmless to predict, which reads slab by slab.
    assert isinstance(predicted, bytes) == name.endswith("than is promised")


BAD_FIELDS = {
    "no voxels": {"dim": [3, 9, 0, 6, 1, 1, 1, 1]},
    "negative": {"dim": [3, 9, -7, 6, 1, 1, 1, 1]},
    "two dimensions": {"dim": [2, 9, 7, 1, 1, 1, 1, 1]},
    "four dimensions": {"dim": [4, 9, 7, 3, 2, 1, 1, 1]},
    "no dimensions": {"dim": [0] * 8},
    "more voxels than the file": {"dim": [3, 9, 7, 60, 1, 1, 1, 1]},
    "too many voxels": {"dim": [3, 100, 100, 11, 1, 1, 1, 1]},
    "complex numbers": {"datatype": 32},
    "colours": {"datatype": 128},
    "bits": {"datatype": 1},
    "long doubles": {"datatype": 1536},
    "no type": {"datatype": 3},
    "voxels in the header": {"vox_offset": 0},
    "voxels before the header": {"vox_offset": -352},
    "voxels at half a byte": {"vox_offset": 352.5},
    "voxels nowhere": {"vox_offset": np.nan},
    "voxels far away": {"vox_offset": 1e9},
    "no slope": {"scl_slope": np.nan},
    "no intercept": {"scl_inter": np.inf},
    "a pair": {"magic": b"ni1"},
    "qfac": {"sform_code": 0, "pixdim": [-2, 1, 1, 1, 0, 0, 0, 0]},
    "no rotation": {"sform_code": 0, "quatern_b": 1, "quatern_c": 1},
    "singular": {"qform_code": 0, "srow_x": [0, 0, 0, 0]},
    "no number in the affine": {"qform_code": 0, "srow_x": [np.nan, 0, 0, 0]},
    "infinity in the affine": {"qform_code": 0, "srow_y": [0, np.inf, 0, 0]},
    "two grids": {"srow_z": [0, 0, 2.5, 12]},
    "two spacings": {"qform_code": 0, "pixdim": [1, 9, 9, 9, 0, 0, 0, 0]},
}


@pytest.mark.parametrize("name", BAD_FIELDS)
def test_bad_headers_are_refused_as_predict_does(both, tmp_path, name):
    served, predicted = both.of(with_fields(tmp_path, PLAIN, **BAD_FIELDS[name]))
    assert isinstance(predicted, str)
    assert "assertion failed" in served


IMPLAUSIBLE = {
    "field_of_view_implausible": file_of(),
    "spacing_implausible": file_of(affine=np.diag([11.0, 11, 11, 1])),
    "sheared_grid": file_of(
        affine=np.diag([9.0, 12, 9, 1]) @ (np.eye(4) + 0.1 * np.eye(4, k=1) * [1, 1, 1, 0])
    ),
    "constant_image": file_of(np.full((12, 12, 12), 7), np.diag([9.0, 9, 9, 1])),
    "scaled_image": file_of(HU / 1000, np.diag([9.0, 12, 9, 1]), dtype="f4"),
    "windowed_image": file_of((HU + 1200) / 20, np.diag([9.0, 12, 9, 1]), dtype="u1"),
    "missing_rescale": file_of(HU + 1024, np.diag([9.0, 12, 9, 1])),
    "no_tissue": file_of(HU // 4 - 700, np.diag([9.0, 12, 9, 1])),
}


@pytest.fixture(scope="module")
def strict(segmenter, tmp_path_factory):
    return make_both(segmenter, tmp_path_factory.mktemp("strict"))


@pytest.mark.parametrize("code", IMPLAUSIBLE)
def test_what_is_no_ct_is_refused_as_predict_does(strict, code):
    served, predicted = strict.of(IMPLAUSIBLE[code])
    assert isinstance(predicted, str), code
    sentence = predicted.partition(" HU: no tissue")[0].split(", got")[0].split(", but")[0]
    assert sentence.split(" and 99 %")[0] in served.replace("\n", " ")


def test_what_is_no_number_is_refused(both):
    hu = HU.astype(np.float32)
    hu[3, 2, 1] = np.nan
    served, predicted = both.of(file_of(hu, dtype="f4", scale=(1, 0)))
    assert "voxels must be finite" in served
    assert "voxels must be finite" in predicted


@pytest.mark.parametrize("value", [[], [PLAIN], [PLAIN, PLAIN], [[PLAIN]]])
def test_an_input_that_is_not_one_string_is_refused(both, value):
    with pytest.raises((tf.errors.InvalidArgumentError, TypeError, ValueError)):
        both.in_graph(tf.constant(value, tf.string))


@pytest.mark.slow
@pytest.mark.real_data
@pytest.mark.parametrize("turn", ["as it is", "turned", "flipped", "oblique"])
def test_masks_of_a_real_scan_are_those_of_predict(real_data, tmp_path, turn):
    """At its own spacing, and at the network's: the two resamplings are done by the same graph."""
    info = make_info(max_voxels=10**8, spacing_mm=(4.0, 4.0, 4.0), overlap=(2, 2, 2))
    both = make_both(make_segmenter(make_network(), info), tmp_path, *CROP)
    scan = nib.load(real_data / "abdomen_ct_sm" / "ct.nii.gz")
    affine = scan.affine.copy()
    if turn == "turned":
        affine = affine[[1, 2, 0, 3]]
    elif turn == "flipped":
        affine = np.diag([-1.0, -1, 1, 1]) @ affine
    elif turn == "oblique":
        cosine, sine = np.cos(0.3), np.sin(0.3)
        affine = (
            np.array([[cosine, -sine, 0, 0], [sine, cosine, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
            @ affine
        )
    image = nib.Nifti1Image(np.asarray(scan.dataobj), affine, scan.header)
    image.set_sform(affine, code=1)
    image.set_qform(affine, code=1)
    served, predicted = both.of(gzip.compress(image.to_bytes(), 1), suffix=".nii.gz")
    (tmp_path / "served.nii").write_bytes(served)
    (tmp_path / "predicted.nii").write_bytes(predicted)
    masks = [read_label(tmp_path / f"{name}.nii") for name in ("served", "predicted")]
    np.testing.assert_array_equal(masks[0].affine, masks[1].affine)
    assert (masks[0].array == masks[1].array).mean() >= 0.9999
    assert len(np.unique(masks[0].array)) == 3
