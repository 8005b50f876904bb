"""Broken files of a dataset are named, with their cases, by all that reads them."""

from __future__ import annotations

import pytest
from small_records import make_record, write_dataset

from fcnseg.errors import DatasetError
from fcnseg.records import INFO_FILE, Dataset, TFRecordWriter, read_cases, read_dataset_info
from fcnseg.records.damage import check_files, find_damage
from pipelines.inspect import verify

FIRST, LAST = "train-00000-of-00002.tfrecord", "train-00001-of-00002.tfrecord"


@pytest.fixture
def records(tmp_path):
    """Cases a and b in one file, c in the other, and d to validate; b takes several records."""
    cases = {name: make_record(name, seed=seed) for seed, name in enumerate("abcd")}
    return write_dataset(
        tmp_path / "records",
        {"train": [[cases["a"], cases["b"]], [cases["c"]]], "validation": [[cases["d"]]]},
        max_record_bytes=10_000,
    )


def flip(path, place):
    content = bytearray(path.read_bytes())
    content[place if isinstance(place, int) else content.rindex(place)] ^= 255
    path.write_bytes(content)


def records_of(path):
    """Where the records of a file begin."""
    content, starts, at = path.read_bytes(), [], 0
    while at < len(content):
        starts.append(at)
        at += 16 + int.from_bytes(content[at : at + 8], "little")
    return starts


def other_dataset(records):
    """A file of other voxels and as many bytes."""
    case = make_record("c", seed=77, organs=(2, 1))
    other = write_dataset(
        records.parent / "other", {"train": [[], [case]]}, max_record_bytes=10_000
    )
    return (other / LAST).read_bytes()


# What is done to a file, what is said of it, and which cases are lost.
DAMAGES = {
    "one byte of a volume": (
        FIRST,
        lambda path, folder: flip(path, 3000),
        "wrong checksum of a record, or a cut one",
        ["a"],
    ),
    "one byte of a later record": (
        FIRST,
        lambda path, folder: flip(path, records_of(path)[-1] + 3000),
        "wrong checksum of a record, or a cut one",
        ["b"],
    ),
    "the name of the case": (
        FIRST,
        lambda path, folder: flip(path, path.read_bytes().index(b"case_id") + 16),
        "wrong checksum of a record, or a cut one",
        ["a"],
    ),
    "the length of the first record": (
        FIRST,
        lambda path, folder: flip(path, 0),
        "wrong checksum of a record's length",
        ["a", "b"],
    ),
    "cut within a record": (
        FIRST,
        lambda path, folder: path.write_bytes(path.read_bytes()[:-5]),
        "wrong checksum of a record, or a cut one",
        ["b"],
    ),
    "cut between two cases": (
        FIRST,
        lambda path, folder: path.write_bytes(
            path.read_bytes()[: records_of(path)[len(records_of(path)) // 2]]
        ),
        "it has .* bytes, and dataset_info.json says",
        ["a", "b"],
    ),
    "empty": (
        LAST,
        lambda path, folder: path.write_bytes(b""),
        "it has 0 bytes, and dataset_info.json says",
        ["c"],
    ),
    "zeros": (
        LAST,
        lambda path, folder: path.write_bytes(bytes(path.stat().st_size)),
        "wrong checksum of a record's length",
        ["c"],
    ),
    "missing": (LAST, lambda path, folder: path.unlink(), "it is missing", ["c"]),
    "of another dataset": (
        LAST,
        lambda path, folder: path.write_bytes(other_dataset(folder)),
        "its checksum is not that in dataset_info.json",
        ["c"],
    ),
    "of the other split": (
        LAST,
        lambda path, folder: path.write_bytes(next(folder.glob("validation*")).read_bytes()),
        "its checksum is not that in dataset_info.json",
        ["c"],
    ),
}
# Where the records that are left are right, and only the size or the checksum of the file is not:
# the cases that a reader of the file alone finds.
SOUND_RECORDS = {
    "cut between two cases": ["a"],
    "empty": [],
    "of another dataset": ["c"],
    "of the other split": ["d"],
}


@pytest.fixture(params=DAMAGES)
def damaged(request, records):
    name, damage, reason, cases = DAMAGES[request.param]
    damage(records / name, records)
    return request.param, records, records / name, reason, cases


def test_verification_finds_the_file_and_its_cases(damaged, capsys):
    _, folder, path, reason, cases = damaged
    (damage,) = find_damage(folder, read_dataset_info(folder))
    assert damage.path == str(path)
    assert list(damage.cases) == cases
    with pytest.raises(DatasetError, match=rf"1 of 3 files are broken; first: {path} is broken: "):
        verify(folder)
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith(f"{path.name}: ")
    assert line.endswith(f"; cases: {', '.join(cases)}")
    with pytest.raises(DatasetError, match=reason):
        verify(folder)


def test_every_broken_file_is_listed(records, capsys):
    for path in records.glob("*.tfrecord"):
        path.unlink()
    with pytest.raises(DatasetError, match="3 of 3 files are broken"):
        verify(records)
    assert capsys.readouterr().out.splitlines() == [
        f"{FIRST}: it is missing; cases: a, b, c",  # which of them in which file nobody knows
        f"{LAST}: it is missing; cases: a, b, c",
        "validation-00000-of-00001.tfrecord: it is missing; cases: d",
    ]


def test_sound_dataset_is_whole(records, caplog):
    assert list(find_damage(records, read_dataset_info(records))) == []
    check_files(records, read_dataset_info(records), ["train", "validation", "test"])
    with caplog.at_level("INFO"):
        verify(records)
    assert caplog.messages == [f"all 3 files of {records} are intact: 4 cases"]


def test_readers_without_tensorflow_name_file_and_case(damaged):
    kind, _, path, _, cases = damaged
    if kind in SOUND_RECORDS:
        assert [case.case_id for case in read_cases(path)] == SOUND_RECORDS[kind]
        return
    with pytest.raises(DatasetError, match=path.name) as caught:
        list(read_cases(path))
    if kind.startswith("one byte"):
        assert str(caught.value).endswith(f"(case {cases[0]})")


def test_file_of_another_size_is_refused_unread(damaged):
    _, folder, path, _, _ = damaged
    info = read_dataset_info(folder)
    sizes = {shard.name: shard.bytes for shard in info.splits["train"].shards}
    if path.exists() and path.stat().st_size == sizes[path.name]:
        check_files(folder, info, ["train"])
        return
    with pytest.raises(DatasetError, match=rf"{path}"):
        check_files(folder, info, ["train"])
    check_files(folder, info, ["validation"])


@pytest.mark.parametrize("content", [b"", bytes(300), b"{", b"[]"], ids=len)
def test_broken_manifest_is_named(records, content):
    (records / INFO_FILE).write_bytes(content)
    with pytest.raises(DatasetError, match=f"{INFO_FILE} is not a manifest"):
        verify(records)


def test_record_of_something_else_is_refused(records):
    for content in (b"", b"text", b"\x0a\x00", bytes(100)):
        with (records / "other.tfrecord").open("wb") as file:
            TFRecordWriter(file).write(content)
        with pytest.raises(DatasetError, match=r"record of .*other\.tfrecord is none of fcnseg's"):
            list(read_cases(records / "other.tfrecord"))


# -- with TensorFlow


def reading(records):
    """Each way to read the records, by name."""
    from small_runs import make_config

    from fcnseg.cli.bench import measure
    from fcnseg.cli.preview import PreviewCommand
    from fcnseg.config import ModelConfig, override
    from fcnseg.records import Fold
    from fcnseg.training import train

    config = make_config(ModelConfig(filters=(2, 4)), epochs=1, steps_per_epoch=12)
    config = override(config, {"patches.samples_per_volume": 1, "patches.shuffle_buffer": 2})
    run = records.parent / "run"
    page = PreviewCommand(records, records.parent / "page.html", count=12, config=config)
    return {
        "training": lambda: train(config, records, run),
        "training on a fold": lambda: train(config, records, run, fold=Fold(0, 2)),
        "preview": page.run,
        "bench": lambda: measure(config, records, steps=6),
    }


@pytest.mark.parametrize(
    ("way", "kind"),
    [
        ("training", "one byte of a volume"),
        ("training", "the length of the first record"),
        ("training", "cut between two cases"),
        ("training on a fold", "one byte of a volume"),
        ("preview", "one byte of a volume"),
        ("bench", "one byte of a volume"),
    ],
)
def test_tensorflow_s_error_becomes_a_line(records, way, kind):
    name, damage, _, _ = DAMAGES[kind]
    damage(records / name, records)
    with pytest.raises(DatasetError, match=rf"{name}\b") as caught:
        reading(records)[way]()
    assert "\n" not in str(caught.value)
    if kind == "one byte of a volume":
        assert "(case a)" in str(caught.value)
    assert not (records.parent / "page.html").exists()


def test_broken_validation_case_is_named(records):
    flip(next(records.glob("validation*")), 3000)
    with pytest.raises(DatasetError, match=r"validation-.*\(case d\); copy or convert"):
        reading(records)["training"]()


def test_error_of_another_cause_stays_as_it_is(records):
    import tensorflow as tf

    from fcnseg.sampling.damaged_files import naming_broken_files

    with (
        pytest.raises(tf.errors.DataLossError, match="other"),
        naming_broken_files(Dataset.open(records)),
    ):
        raise tf.errors.DataLossError(None, None, "other")
