"""Cross-validation: which cases train and which validate in a fold."""

from __future__ import annotations

import dataclasses
import itertools
import re

import numpy as np
import pytest
from small_records import make_record, write_dataset
from small_runs import assert_same_runs, make_config, stop_after

from fcnseg.cli.command import run_command
from fcnseg.cli.train import TrainCommand
from fcnseg.config import ModelConfig, write_config
from fcnseg.errors import DatasetError, InputError
from fcnseg.records import Dataset, Fold
from fcnseg.records.listing import ListedCase, list_cases
from fcnseg.sampling import make_training_dataset, make_volume_dataset
from fcnseg.sampling.shards import shards_of
from fcnseg.training import check_dataset, read_run, train

CONFIG = make_config(
    ModelConfig(filters=(2, 4)), epochs=1, steps_per_epoch=3, checkpoint_every=1, tensorboard=False
)
SHAPE = (8, 12, 12)
TESTED = "case_9"


def of_patient(case_id, patient_id, *, organs=(1, 2)):
    record = make_record(case_id, seed=int(case_id[-1]), shape=SHAPE, organs=organs)
    return dataclasses.replace(record, patient_id=patient_id)


def write_six_patients(folder, **options):
    """Two cases of one patient and five of others in four files, and one case to test on."""
    cases = [of_patient(f"case_{n}", f"patient_{max(n, 1)}") for n in range(7)]
    train_split = [cases[:3], cases[3:4], cases[4:5]]
    tested = [[of_patient(TESTED, "tested")]]
    splits = {"train": train_split, "validation": [cases[5:]], "test": tested}
    return write_dataset(folder, splits, **options)


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    return write_six_patients(tmp_path_factory.mktemp("folds") / "records")


def validating(records, fold):
    volumes = make_volume_dataset(Dataset.open(records), "validation", fold=fold)
    return [record["case_id"].numpy().decode() for record in volumes]


def training(records, fold, *, steps=20, start=0):
    """The case ids of the batches of some steps."""
    batches = make_training_dataset(
        Dataset.open(records),
        CONFIG.patches,
        seed=0,
        fold=fold,
        with_case_ids=True,
        start_step=start,
    )
    return [[case.decode() for case in ids.numpy()] for _, ids in batches.take(steps)]


@pytest.mark.parametrize("count", [2, 3, 6])
@pytest.mark.parametrize("max_record_bytes", [2**30, 2000], ids=["whole", "divided"])
def test_each_case_validates_once_and_trains_in_the_other_folds(tmp_path, count, max_record_bytes):
    """The two cases of one patient stay together; that of the test split is in no fold."""
    records = write_six_patients(tmp_path / "records", max_record_bytes=max_record_bytes)
    every = {f"case_{n}" for n in range(7)}
    seen = []
    for number in range(count):
        fold = Fold(number, count)
        validates = validating(records, fold)
        assert {"case_0", "case_1"} & set(validates) in (set(), {"case_0", "case_1"})
        assert 6 // count <= len(validates) <= 6 // count + 1
        assert set(itertools.chain(*training(records, fold))) == every - set(validates)
        seen += validates
    assert sorted(seen) == sorted(every)
    tested = make_volume_dataset(Dataset.open(records), "test", fold=Fold(0, count))
    assert [record["case_id"].numpy().decode() for record in tested] == [TESTED]


def test_files_without_a_case_of_the_fold_are_not_opened(records):
    for split in ("train", "validation"):
        shards = shards_of(Dataset.open(records), split, fold=Fold(0, 6))
        assert all(shard.cases == sum(shard.read) > 0 for shard in shards)
    assert len(shards) <= 2  # of four, as one or two cases validate


@pytest.mark.parametrize("start", [1, 5, 13])
def test_training_in_a_fold_goes_on_from_any_step(records, start):
    everything = training(records, Fold(1, 3))
    assert training(records, Fold(1, 3), steps=5, start=start) == everything[start : start + 5]


def test_dealing_is_even_and_by_the_seed_alone():
    patients = [f"p{n}" for n in range(23)]

    def deal(names, seed):
        return [Fold(number, 5).validating(names, seed=seed) for number in range(5)]

    folds = deal(patients, 0)
    assert sorted(len(fold) for fold in folds) == [4, 4, 5, 5, 5]
    assert folds == deal(patients[::-1] * 2, 0)
    assert folds != deal(patients, 1)
    assert folds != [set(patients[number::5]) for number in range(5)]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ((3, 3), "fold must be 0 to 2 for 3 folds, got 3"),
        ((-1, 3), "fold must be 0 to 2 for 3 folds, got -1"),
        ((0, 1), "folds must be at least 2, got 1"),
        ((0, None), "fold and folds belong together"),
        ((None, 3), "fold and folds belong together"),
    ],
)
def test_numbers_out_of_range_are_named(flags, message):
    with pytest.raises(InputError, match=message):
        Fold.of(*flags)


def test_too_few_patients_are_named(records, tmp_path):
    with pytest.raises(DatasetError, match="folds must be at most as many as patients, 6, got 7"):
        train(CONFIG, records, tmp_path / "run", fold=Fold(0, 7))
    assert not (tmp_path / "run").exists()


def test_fold_without_organs_is_named(tmp_path):
    cases = [[of_patient("case_0", "a"), of_patient("case_1", "b", organs=())]]
    records = write_dataset(tmp_path / "records", {"train": cases})  # a fold needs no other split
    messages = set()
    for number in range(2):
        with pytest.raises(DatasetError, match="of fold . of 2 of .* no voxel of any organ") as e:
            check_dataset(Dataset.open(records), fold=Fold(number, 2))
        messages.add(re.search(r"cases for (\w+)", str(e.value)).group(1))
    assert messages == {"train", "validation"}


@pytest.mark.slow
def test_run_of_a_fold_says_so_and_goes_on(records, tmp_path, monkeypatch):
    write_config(CONFIG, tmp_path / "config.yaml")

    def run(name, *flags):
        argv = ["--config", tmp_path / "config.yaml", "--data", records]
        argv += ["--run_dir", tmp_path / name, "--fold", 1, "--folds", 3, *flags]
        run_command(TrainCommand, list(map(str, argv)))

    run("undisturbed")
    manifest = read_run(tmp_path / "undisturbed")
    assert (manifest.fold, manifest.folds) == (1, 3)
    assert manifest.validation_cases == tuple(sorted(validating(records, Fold(1, 3))))
    with monkeypatch.context() as patch:
        stop_after(patch, 2)
        with pytest.raises(SystemExit):
            run("run")
    with pytest.raises(InputError, match="began with: fold was 1 of 3, got 2 of 3"):
        train(CONFIG, records, tmp_path / "run", fold=Fold(2, 3), resume=True)
    run("run", "--resume")
    assert_same_runs(tmp_path / "undisturbed", tmp_path / "run")
    with pytest.raises(InputError, match="began with: fold was 1 of 3, got None"):
        train(CONFIG, records, tmp_path / "run", resume=True)


def test_listing_tells_of_cases_and_reads_no_volume(tmp_path):
    cases = [of_patient("case_0", "a"), of_patient("case_1", "b", organs=())]
    folder = write_dataset(tmp_path / "records", {"train": [cases]}, max_record_bytes=2000)
    (path,) = folder.glob("train-*")
    voxels = [tuple(map(int, case.class_histogram)) for case in cases]
    expected = [ListedCase("case_0", "a", voxels[0]), ListedCase("case_1", "b", voxels[1])]
    assert list_cases(path) == expected
    content = bytearray(path.read_bytes())
    image = content.index(np.ascontiguousarray(cases[0].image[0]).tobytes())
    content[image] ^= 255
    path.write_bytes(content)
    assert list_cases(path) == expected
    path.write_bytes(content[:-1])
    with pytest.raises(DatasetError, match="a cut record in .*train"):
        list_cases(path)
    content[0] ^= 255
    path.write_bytes(content)
    with pytest.raises(DatasetError, match="wrong checksum of a record's length"):
        list_cases(path)
    path.write_bytes(b"")
    with pytest.raises(DatasetError, match="cannot be read: cannot mmap an empty file"):
        list_cases(path)
