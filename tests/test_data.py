"""Patches and volumes from records."""

from __future__ import annotations

import dataclasses
import itertools
import json

import keras
import numpy as np
import pytest
import tensorflow as tf
from small_records import make_record, write_dataset, write_small_dataset

from fcnseg.config import AugmentationConfig, PatchConfig
from fcnseg.errors import DatasetError
from fcnseg.records import COMPLETED_FILE, INFO_FILE, Dataset, encode_record, read_tfrecord
from fcnseg.records.decoding import decode_record
from fcnseg.sampling import make_training_dataset, make_volume_dataset
from fcnseg.sampling.augmentation import Augmentation
from fcnseg.sampling.centres import CentreRule, draw_centre
from fcnseg.sampling.patches import cut_patch
from fcnseg.training.step import TrainingStep
from fcnseg.training.strategy import distributed, make_strategy
from fcnseg.volumes import AIR_HU, LabelMap

CONFIG = PatchConfig(size=(8, 10, 12), batch_size=2, samples_per_volume=3, shuffle_buffer=6)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return write_small_dataset(tmp_path_factory.mktemp("data") / "records")


def batches(directory, count=6, config=CONFIG, **kwargs):
    dataset = make_training_dataset(Dataset.open(directory), config, **{"seed": 0, **kwargs})
    return [tf.nest.map_structure(np.array, batch) for batch in itertools.islice(dataset, count)]


def draw(
    record,
    count=1,
    *,
    size=(8, 8, 8),
    label_size=None,
    foreground_fraction=1.0,
    translation=(0, 0, 0),
):
    """So many patches of a record: HU (count, z, y, x) and labels."""
    decoded = decode_record(encode_record(record))
    rule = CentreRule(label_size or size, foreground_fraction, translation=translation)

    def draw_one(seed):
        centre = draw_centre(decoded, tf.stack([7, seed]), rule)
        return cut_patch(decoded, centre, size=size, label_size=label_size or size)

    patches = tf.data.Dataset.range(count).map(draw_one).batch(count).get_single_element()
    return [part.numpy() for part in patches]


def test_batches_have_the_promised_form(dataset):
    for hu, label, _ in batches(dataset, num_replicas=2):
        assert hu.shape == (4, 8, 10, 12, 1)
        assert hu.dtype == np.float32
        assert label.shape == (4, 8, 10, 12)
        assert label.dtype == np.uint8


def test_seed_decides_everything(dataset):
    first, again, other = batches(dataset), batches(dataset), batches(dataset, seed=1)
    for (hu, label, _), (hu_again, label_again, _) in zip(first, again, strict=True):
        np.testing.assert_array_equal(hu, hu_again)
        np.testing.assert_array_equal(label, label_again)
    assert all(
        (hu != hu_other).any() for (hu, *_), (hu_other, *_) in zip(first, other, strict=True)
    )
    assert (first[0][0] != first[-1][0]).any()


MOVED = AugmentationConfig(
    rotation_degrees=(20, 20, 20),
    translation_voxels=(3, 2, 1),
    noise_hu=30,
    intensity_probability=1,
)


@pytest.mark.parametrize("run_on", ["host", "device"])
@pytest.mark.parametrize("start", [1, 4, 9])
def test_batches_go_on_from_any_step(dataset, run_on, start):
    """Blocks have 4 steps: start within the first, on the border, and in the third."""
    config = dataclasses.replace(CONFIG, shuffle_buffer=8)
    settings = {"augmentation": dataclasses.replace(MOVED, run_on=run_on), "with_case_ids": True}
    everything = batches(dataset, start + 3, config, **settings)
    went_on = batches(dataset, 3, config, start_step=start, **settings)
    for part, again in zip(
        tf.nest.flatten(everything[start:]), tf.nest.flatten(went_on), strict=True
    ):
        np.testing.assert_array_equal(part, again)


def test_host_and_device_make_the_same_patches(dataset):
    """In whole HU; where XLA's last digits fall on either side of a half, 1 HU apart."""
    augmentation = Augmentation(
        dataclasses.replace(MOVED, run_on="device"), CONFIG.size, CONFIG.size, (2.0, 2.0, 2.0)
    )
    step = TrainingStep(keras.Model(), augmentation)
    on_host = batches(dataset, 3, augmentation=MOVED)
    in_front = batches(dataset, 3, augmentation=augmentation.config)
    for (hu, label, _), batch in zip(on_host, in_front, strict=True):
        assert batch.hu.shape[1:] == batch.label.shape[1:] == augmentation.source_size
        in_step, classes = step.augmented(batch)
        assert (in_step.dtype, in_step.shape) == (tf.float32, hu.shape)
        np.testing.assert_array_equal(in_step, np.round(in_step))
        difference = np.abs(hu - in_step)
        assert difference.max() <= 1
        assert (difference == 0).mean() > 0.999
        assert (label == classes).numpy().mean() > 0.999


def test_augmentation_changes_patches_and_keeps_their_form(dataset):
    (plain, *_), *_ = batches(dataset, 1)
    (hu, label, _), *_ = batches(dataset, 1, augmentation=MOVED, label_size=(4, 6, 8))
    assert (hu.dtype, hu.shape) == (np.float32, plain.shape)
    assert (label.dtype, label.shape) == (np.uint8, (2, 4, 6, 8))
    assert np.abs(hu - plain).mean() > 10


def test_translation_moves_the_organ_off_the_centre():
    record = make_record("case", seed=0, shape=(60, 60, 60))
    label = np.zeros(record.shape, np.uint8)
    label[30, 30, 30] = 1
    record = dataclasses.replace(
        record,
        label=label,
        foreground_coordinates=np.array([[30, 30, 30]], np.int32),
        foreground_counts=np.array([0, 1, 0]),
    )
    _, patches = draw(record, 300, size=(20, 20, 20), translation=(5, 2, 0))
    found = np.argwhere(patches)[:, 1:] - 10
    assert len(found) == 300
    assert found.min(axis=0).tolist() == [-5, -2, 0]
    assert found.max(axis=0).tolist() == [5, 2, 0]
    assert len(np.unique(found, axis=0)) > 45  # of 11 * 5, each with 5 in 300


def test_translation_stays_within_the_volume():
    record = make_record("case", seed=0, shape=(16, 18, 20))
    hu, label = draw(record, 50, size=(3, 3, 3), translation=(30, 30, 30))
    assert (hu[:, 1, 1, 1] != AIR_HU).all()
    assert label.any(axis=(1, 2, 3)).all()


def test_batches_tell_their_cases_on_request(dataset):
    volumes = {
        record["case_id"].numpy(): set(record["image"].numpy().ravel())
        for record in make_volume_dataset(Dataset.open(dataset), "train")
    }
    for (hu, *_), case_ids in batches(dataset, 5, with_case_ids=True):
        for patch, case_id in zip(hu, case_ids, strict=True):
            assert set(patch.astype(int).ravel()) - {AIR_HU} <= volumes[case_id]


def test_patch_is_a_part_of_its_volume():
    """Every voxel has the HU and the class of the same place; beyond the border are air and 0."""
    record = make_record("case", seed=0, shape=(10, 12, 14))
    place = np.arange(10 * 12 * 14).reshape(record.shape)  # each voxel tells where it is
    record = dataclasses.replace(
        record, image=place.astype(np.int16), label=(place % 200).astype(np.uint8)
    )
    hung_over = 0
    for hu, label in zip(*draw(record, 40, size=(8, 16, 6)), strict=True):
        inside = hu != AIR_HU
        np.testing.assert_array_equal(label[inside], hu[inside] % 200)
        np.testing.assert_array_equal(label[~inside], 0)
        z, y, x = np.nonzero(inside)
        steps = hu[inside].astype(int) - (z * 12 * 14 + y * 14 + x)
        assert len(set(steps)) == 1
        hung_over += not inside.all()
    assert hung_over == 40  # 16 voxels do not fit into 12


def test_organs_are_drawn_alike_whatever_their_size():
    record = make_record("case", seed=0)
    assert record.class_histogram[1] > 5 * record.class_histogram[2]
    centres = list(draw(record, 300)[1][:, 4, 4, 4])
    # Binomial with n = 300, p = 1/2: standard deviation 8.7.
    assert 150 - 35 < centres.count(1) < 150 + 35
    assert centres.count(1) + centres.count(2) == 300


def test_share_of_patches_without_organ_at_the_centre():
    record = make_record("case", seed=0)
    share = record.class_histogram[0] / record.class_histogram.sum()
    centres = list(draw(record, 300, foreground_fraction=0.5)[1][:, 4, 4, 4])
    expected = 300 * 0.5 * share  # about 130; standard deviation 8.6
    assert expected - 35 < centres.count(0) < expected + 35


def test_uniform_centres_reach_every_part_of_the_volume():
    record = make_record("case", seed=0, shape=(4, 4, 4))
    record = dataclasses.replace(record, image=np.arange(64, dtype=np.int16).reshape(4, 4, 4))
    hu, _ = draw(record, 600, size=(1, 1, 1), foreground_fraction=0.0)
    assert set(hu.ravel()) == set(range(64))


def test_case_without_organs_is_drawn_uniformly():
    record = make_record("empty", seed=0, organs=())
    hu, label = draw(record)
    assert (label == 0).all()
    assert (hu != AIR_HU).any()


@pytest.mark.parametrize("size", [(8, 8, 8), (9, 8, 11)])
def test_label_of_a_network_without_padding_is_the_middle(size):
    record = make_record("case", seed=0, shape=(30, 30, 30))
    label_size = tuple(length - 4 for length in size)
    hu, whole = draw(record, 5, size=size)
    hu_again, middle = draw(record, 5, size=size, label_size=label_size)
    np.testing.assert_array_equal(hu, hu_again)
    np.testing.assert_array_equal(middle, whole[:, 2:-2, 2:-2, 2:-2])


def test_training_dataset_crops_labels(dataset):
    (_, whole, _), *_ = batches(dataset)
    (_, middle, _), *_ = batches(dataset, label_size=(4, 6, 8))
    np.testing.assert_array_equal(middle, whole[:, 2:-2, 2:-2, 2:-2])


def test_every_case_is_read(dataset):
    """Each case is made of its own noise: a patch tells its case by its HU."""
    volumes = {}
    for record in make_volume_dataset(Dataset.open(dataset), "train"):
        volumes[record["case_id"].numpy().decode()] = set(record["image"].numpy().ravel())
    seen = set()
    dataset_of_patches = make_training_dataset(Dataset.open(dataset), CONFIG, seed=0)
    for hu, *_ in itertools.islice(dataset_of_patches.unbatch(), 30):
        values = set(hu.numpy().astype(int).ravel()) - {AIR_HU}
        seen |= {case for case, hus in volumes.items() if values <= hus}
    assert seen == set(volumes) == {"case_0", "case_1", "case_2"}


def test_volumes_come_whole_and_in_order(dataset):
    records = list(make_volume_dataset(Dataset.open(dataset), "train"))
    assert [record["case_id"].numpy() for record in records] == [b"case_0", b"case_1", b"case_2"]
    for seed, record in enumerate(records):
        np.testing.assert_array_equal(record["image"], make_record("", seed=seed).image)
        np.testing.assert_array_equal(record["label"], make_record("", seed=seed).label)


def test_cases_of_several_records_are_read_as_if_they_were_one(dataset, tmp_path):
    divided = write_small_dataset(tmp_path / "records", max_record_bytes=12_000)
    shard = divided / "train-00000-of-00002.tfrecord"
    assert len(list(read_tfrecord(shard))) == 2 * 4  # of two cases of 40 kB
    for whole, joined in zip(batches(dataset), batches(divided), strict=True):
        np.testing.assert_array_equal(whole[0], joined[0])
        np.testing.assert_array_equal(whole[1], joined[1])
    for whole, joined in zip(
        make_volume_dataset(Dataset.open(dataset), "train"),
        make_volume_dataset(Dataset.open(divided), "train"),
        strict=True,
    ):
        for name, value in whole.items():
            np.testing.assert_array_equal(value, joined[name])


def test_tensorflow_tunes_nothing(dataset):
    """Its tuner may hold up the end of an iterator by a minute, also by that for devices."""
    opened = Dataset.open(dataset)
    patches = make_training_dataset(opened, PatchConfig(size=(4, 4, 4)), seed=0)
    for made in (patches, make_volume_dataset(opened, "train")):
        assert made.options().autotune.enabled is False
    assert isinstance(distributed(patches, make_strategy(("CPU:0",))), tf.data.Iterator)


def test_cases_without_labels_are_read_but_not_trained_on(tmp_path):
    folder = write_small_dataset(tmp_path / "records")
    info = (folder / INFO_FILE).read_text()
    (folder / INFO_FILE).write_text(info.replace('"labelled": true', '"labelled": false'))
    (record,) = make_volume_dataset(Dataset.open(folder), "validation")
    assert "label" not in record
    with pytest.raises(DatasetError, match="training needs labels, and the cases of .*have none"):
        make_training_dataset(Dataset.open(folder), CONFIG, seed=0)


@pytest.mark.parametrize("make", [make_training_dataset, make_volume_dataset])
def test_what_cannot_be_read_is_named(tmp_path, make):
    def read(directory, split="train"):
        if make is make_volume_dataset:
            return make(Dataset.open(directory), split)
        return make(Dataset.open(directory), CONFIG, split=split, seed=0)

    with pytest.raises(DatasetError, match="no such folder of records: .*nowhere"):
        read(tmp_path / "nowhere")
    folder = write_small_dataset(tmp_path / "records")
    with pytest.raises(DatasetError, match="the test split of .*records has no cases"):
        read(folder, split="test")
    (folder / "train-00001-of-00002.tfrecord").unlink()
    with pytest.raises(DatasetError, match="file of the dataset is missing: .*train-00001-of"):
        read(folder)
    (folder / COMPLETED_FILE).unlink()
    with pytest.raises(DatasetError, match="COMPLETED is missing"):
        read(folder)


def test_many_classes_are_read_as_uint16(tmp_path):
    record = make_record("case", seed=0)
    wide = dataclasses.replace(record, label=record.label.astype(np.uint16) + 299)
    folder = write_dataset(tmp_path / "records", {"train": [[wide]]})
    info = (folder / INFO_FILE).read_text()
    label_map = LabelMap.consecutive(["background", *(f"organ {index}" for index in range(300))])
    changes = {"class_names": label_map.class_names, "label_map": label_map.to_mapping()}
    (folder / INFO_FILE).write_text(json.dumps(json.loads(info) | changes))
    (_, label, _), *_ = batches(folder, 1)
    assert label.dtype == np.uint16
    assert set(label.ravel()) >= {299, 300}
