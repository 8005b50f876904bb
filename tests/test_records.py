import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from fcnseg.errors import DatasetError, InputError
from fcnseg.records import (
    COMPLETED_FILE,
    INFO_FILE,
    DatasetInfo,
    Record,
    ShardInfo,
    SplitInfo,
    TFRecordWriter,
    encode_chunks,
    encode_record,
    parts_of,
    read_cases,
    read_dataset_info,
    read_tfrecord,
)
from fcnseg.records.decoding import decode_record, join_records


def make_record(label_dtype=np.uint8) -> Record:
    rng = np.random.default_rng(3)
    return Record(
        case_id="liver_017",
        patient_id="Müller",
        image=rng.integers(-1024, 3000, (4, 5, 6), dtype=np.int16),
        label=rng.integers(0, 3, (4, 5, 6)).astype(label_dtype),
        affine=rng.normal(size=(4, 4)),
        spacing=(3.0, 1.5, 0.75),
        source_shape=(8, 5, 6),
        source_affine=rng.normal(size=(4, 4)),
        class_histogram=np.array([40, 50, 30]),
        foreground_coordinates=np.array([[0, 1, 2], [3, 4, 5]], dtype=np.int32),
        foreground_counts=np.array([0, 1, 1]),
    )


@pytest.mark.parametrize("label_dtype", [np.uint8, np.uint16])
def test_decoding_gives_back_what_was_encoded(label_dtype):
    record = make_record(label_dtype)

    decoded = decode_record(encode_record(record), label_dtype=tf.as_dtype(label_dtype))

    assert decoded.keys() == {field.name for field in dataclasses.fields(Record)} | {"shape"}
    assert decoded["patient_id"].numpy().decode() == record.patient_id
    for name in decoded.keys() - {"case_id", "patient_id"}:
        np.testing.assert_array_equal(decoded[name], getattr(record, name), strict=False)
    assert decoded["image"].dtype == tf.int16
    assert decoded["label"].dtype == tf.as_dtype(label_dtype)


def test_a_record_of_several_megabytes_is_read_by_tensorflow():
    # Lengths beyond 2**21 take four bytes on the wire.
    hu = np.zeros((130, 128, 128), dtype=np.int16)
    record = dataclasses.replace(make_record(), image=hu, label=hu.astype(np.uint8))
    assert decode_record(encode_record(record))["image"].shape == hu.shape


def test_an_array_of_any_memory_layout_gives_the_same_bytes():
    record = make_record()
    turned = dataclasses.replace(record, image=np.asfortranarray(record.image))
    assert encode_record(turned) == encode_record(record)


def test_record_refuses_image_and_label_of_different_shapes():
    with pytest.raises(InputError, match=r"one shape, got \(4, 5, 6\) and \(3, 5, 6\).*liver_017"):
        dataclasses.replace(make_record(), label=make_record().label[1:])


def test_record_refuses_an_image_that_is_not_int16():
    with pytest.raises(InputError, match="int16 HU.*got float64"):
        dataclasses.replace(make_record(), image=np.zeros((4, 5, 6)))


def write_tfrecord(path, records) -> TFRecordWriter:
    with path.open("wb") as file:
        writer = TFRecordWriter(file)
        for record in records:
            writer.write(record)
    return writer


def test_tensorflow_reads_our_files_and_we_read_tensorflows(tmp_path):
    records = [b"", b"one", bytes(range(256)) * 100]
    ours, theirs = tmp_path / "ours.tfrecord", tmp_path / "theirs.tfrecord"
    write_tfrecord(ours, records)
    with tf.io.TFRecordWriter(str(theirs)) as writer:
        for record in records:
            writer.write(record)

    assert ours.read_bytes() == theirs.read_bytes()
    assert [item.numpy() for item in tf.data.TFRecordDataset(str(ours))] == records
    assert list(read_tfrecord(theirs)) == records


def test_writer_counts_what_it_wrote(tmp_path):
    import google_crc32c

    with (tmp_path / "a.tfrecord").open("wb") as file:
        writer = TFRecordWriter(file)
        writer.write(b"1234", b"56789")
        writer.write(b"x")
    content = (tmp_path / "a.tfrecord").read_bytes()
    assert list(read_tfrecord(tmp_path / "a.tfrecord")) == [b"123456789", b"x"]
    assert (writer.records, writer.bytes) == (2, len(content))
    assert writer.crc32c == f"{google_crc32c.value(content):08x}"


# -- cases of several records


@pytest.mark.parametrize(
    ("depth", "max_bytes", "expected"),
    [
        (10, 100, [(0, 10)]),
        (10, 99, [(0, 5), (5, 10)]),
        (10, 49, [(0, 3), (3, 6), (6, 10)]),  # no more than four slices each
        (3, 1, [(0, 1), (1, 2), (2, 3)]),  # a slice is never divided
    ],
)
def test_a_case_is_divided_into_records_of_about_equal_size(depth, max_bytes, expected):
    parts = parts_of(depth, slice_bytes=10, max_bytes=max_bytes)
    assert [(part.start, part.stop) for part in parts] == expected
    assert [(part.index, part.count) for part in parts] == [
        (index, len(expected)) for index in range(len(expected))
    ]


def named(case_id: str, shape=(7, 5, 6), label_dtype=np.uint8) -> Record:
    record = make_record(label_dtype)
    rng = np.random.default_rng(len(case_id))
    image = rng.integers(-1024, 3000, shape, dtype=np.int16)
    label = rng.integers(0, 3, shape).astype(label_dtype)
    return dataclasses.replace(record, case_id=case_id, image=image, label=label)


def test_a_label_counts_among_the_bytes_of_a_slice():
    """180 bytes are two slices of 5 x 6 voxels of two bytes and one, or three of two alone."""
    record = named("case")
    assert len(record.parts(180)) == 4
    assert len(dataclasses.replace(record, label=None).parts(180)) == 3


def write_cases(path, cases: list[tuple[Record, int]]):
    """Each with the number of slices that a record may have."""
    with path.open("wb") as file:
        writer = TFRecordWriter(file)
        for record, most in cases:
            for part in parts_of(len(record.image), slice_bytes=1, max_bytes=most):
                writer.write(*encode_chunks(record, part))


def same(found, record: Record) -> None:
    for field in dataclasses.fields(Record):
        value = found[field.name] if isinstance(found, dict) else getattr(found, field.name)
        if isinstance(value, tf.Tensor):
            value = value.numpy()
            value = value.decode() if isinstance(value, bytes) else value
        np.testing.assert_array_equal(value, getattr(record, field.name))


@pytest.mark.parametrize("label_dtype", [np.uint8, np.uint16])
def test_records_of_one_case_are_joined_with_and_without_tensorflow(tmp_path, label_dtype):
    cases = [
        (named("a", label_dtype=label_dtype), 99),
        (named("bb", label_dtype=label_dtype), 2),
        (named("ccc", shape=(4, 5, 6), label_dtype=label_dtype), 1),  # as many records as before it
        (named("dddd", shape=(1, 2, 3), label_dtype=label_dtype), 1),
    ]
    path = tmp_path / "a.tfrecord"
    write_cases(path, cases)
    assert len(list(read_tfrecord(path))) == 1 + 4 + 4 + 1

    joined = join_records(tf.data.TFRecordDataset(str(path))).map(
        lambda serialized: decode_record(serialized, label_dtype=tf.as_dtype(label_dtype))
    )
    for found, plain, (record, _) in zip(joined, read_cases(path), cases, strict=True):
        same(found, record)
        same(plain, record)
        assert found["label"].dtype == tf.as_dtype(label_dtype)
        assert plain.label.dtype == label_dtype


def test_a_case_whose_records_are_not_all_there_is_refused(tmp_path):
    record = named("bb")
    parts = parts_of(len(record.image), slice_bytes=1, max_bytes=2)
    with (tmp_path / "a.tfrecord").open("wb") as file:
        writer = TFRecordWriter(file)
        for part in parts[:-1]:
            writer.write(*encode_chunks(record, part))
    with pytest.raises(DatasetError, match=r"got 3 of 4 in .*a.tfrecord \(case bb\)"):
        list(read_cases(tmp_path / "a.tfrecord"))


# -- damaged files


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda content: content[:-3], "a cut one"),
        (lambda content: content[:15], "a cut one"),
        (lambda content: content[:7], "wrong checksum of a record's length"),
        (lambda content: content[:14] + b"X" + content[15:], "wrong checksum of a record,"),
        (lambda content: b"\xff" + content[1:], "wrong checksum of a record's length"),
    ],
)
def test_a_damaged_file_is_refused_by_name(tmp_path, damage, message):
    path = tmp_path / "a.tfrecord"
    write_tfrecord(path, [b"some bytes"])
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(DatasetError, match=f"{message}.*a.tfrecord"):
        list(read_tfrecord(path))


INFO = DatasetInfo(
    spacing_mm=(2.0, 1.5, 1.5),
    class_names=("background", "liver"),
    label_map={"unlisted": "reject", "classes": {"background": [0], "liver": [5]}},
    seed=0,
    splits={
        "train": SplitInfo(
            cases=1,
            case_ids=("a",),
            shards=(ShardInfo("train-00000-of-00001.tfrecord", 1, 100, "0123abcd"),),
            class_histogram=(90, 10),
        ),
        "validation": SplitInfo(0, (), (), (0, 0)),
        "test": SplitInfo(0, (), (), (0, 0)),
    },
)


def test_manifest_round_trip(tmp_path):
    (tmp_path / INFO_FILE).write_text(INFO.to_json())
    (tmp_path / COMPLETED_FILE).touch()
    assert read_dataset_info(tmp_path) == INFO


def test_a_folder_without_the_marker_is_not_a_dataset(tmp_path):
    (tmp_path / INFO_FILE).write_text(INFO.to_json())
    with pytest.raises(DatasetError, match="not a finished dataset: COMPLETED is missing"):
        read_dataset_info(tmp_path)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"schema_version": 2', '"schema_version": 99', "schema version 2, got 99"),
        ('"spacing_mm"', '"spacing"', "spacing_mm: Field required"),
        ("{", "", "is not a manifest"),
    ],
)
def test_a_manifest_of_another_form_is_refused(old, new, message):
    with pytest.raises(DatasetError, match=message):
        DatasetInfo.from_json(INFO.to_json().replace(old, new, 1))


@pytest.mark.parametrize("folder", ["missing", "."])
def test_a_folder_that_holds_no_dataset_is_named(tmp_path, folder):
    with pytest.raises(DatasetError, match=str(tmp_path)):
        read_dataset_info(tmp_path / folder)
