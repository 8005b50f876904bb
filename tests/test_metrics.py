"""Dice in training, against values worked out by hand."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from fcnseg.losses import CrossEntropyLoss, OrganDice

CLASSES = ("background", "liver", "spleen", "kidney")


def certain(classes, num_classes):
    """Logits that leave no doubt about the class of each voxel."""
    return 100 * np.eye(num_classes, dtype=np.float32)[np.asarray(classes)]


def mean_of(metric):
    return float(metric.result()["dice"])


def test_metric_pools_voxels_over_batches():
    # Organ 1: batch one has 1 voxel, found; batch two has 3, of which 1 is found and 1 invented.
    # Together 2 * 2 / (4 + 3); the mean of the batches' Dice (1 and 0.4) would be another.
    metric = OrganDice(CLASSES[:2])
    metric.update_state(np.array([[[[1, 0, 0, 0, 0]]]]), certain([[[[1, 0, 0, 0, 0]]]], 2))
    assert mean_of(metric) == pytest.approx(1)
    metric.update_state(np.array([[[[1, 1, 1, 0, 0]]]]), certain([[[[1, 0, 0, 1, 0]]]], 2))
    assert mean_of(metric) == pytest.approx(4 / 7)
    metric.reset_state()
    metric.update_state(np.array([[[[1, 1, 1, 0, 0]]]]), certain([[[[1, 0, 0, 1, 0]]]], 2))
    assert mean_of(metric) == pytest.approx(2 / 5)


def test_metric_leaves_out_background_and_organs_never_seen():
    metric = OrganDice(CLASSES)
    assert mean_of(metric) == 0
    # Organ 1 half found (2 * 1 / (2 + 1)), organ 2 only invented (0), organ 3 nowhere.
    metric.update_state(np.array([[[[0, 0, 1, 1]]]]), certain([[[[0, 2, 1, 0]]]], 4))
    np.testing.assert_allclose(metric.per_class(), [2 * 1 / 4, 2 / 3, 0, np.nan])
    assert mean_of(metric) == pytest.approx((2 / 3 + 0) / 2)


def test_metric_counts_beyond_float32():
    metric = OrganDice(CLASSES[:2])
    metric.sizes.assign([2**25, 2**25])
    metric.update_state(np.array([[[[0, 1]]]]), certain([[[[0, 1]]]], 2))
    np.testing.assert_array_equal(metric.sizes.numpy(), [2**25 + 2, 2**25 + 2])


def test_metric_refuses_weights():
    reference = np.zeros((1, 1, 1, 4), np.uint8)
    with pytest.raises(ValueError, match="no sample_weight"):
        OrganDice(CLASSES[:2]).update_state(
            reference, certain(reference, 2), sample_weight=np.ones(1)
        )


def test_ignored_voxels_are_not_counted():
    # Without the last two voxels, organ 1 is half found: 2 * 1 / (2 + 1).
    metric = OrganDice(CLASSES[:2], ignore_label=255)
    reference = np.array([[[[0, 0, 1, 1, 255, 255]]]], np.uint8)
    metric.update_state(reference, certain([[[[0, 0, 1, 0, 1, 0]]]], 2))
    assert mean_of(metric) == pytest.approx(2 / 3)
    np.testing.assert_allclose(metric.per_class(), [2 * 2 / (2 + 3), 2 / 3])


def test_result_names_each_organ():
    metric = OrganDice(CLASSES[:3], name="dice")
    metric.update_state(np.array([[[[0, 0, 1, 1]]]]), certain([[[[0, 0, 1, 0]]]], 3))
    result = {name: float(value) for name, value in metric.result().items()}
    assert list(result) == metric.columns == ["dice", "dice_liver", "dice_spleen"]
    assert result == pytest.approx(
        {"dice": 2 / 3, "dice_liver": 2 / 3, "dice_spleen": np.nan}, nan_ok=True
    )


def test_fit_logs_the_dice_of_the_whole_epoch():
    """Two batches of one voxel each: the mean of their Dice would be 0.5, not 2 / 3."""
    hu = keras.Input((1, 1, 1, 2))
    identity = keras.layers.Dense(2, kernel_initializer="identity", use_bias=False)
    model = keras.Model(hu, identity(hu))
    metrics = [OrganDice(CLASSES[:2])]
    model.compile(
        loss=CrossEntropyLoss(),
        metrics=metrics,
        optimizer=keras.optimizers.SGD(1e-9),
        jit_compile=False,
    )
    reference = np.array([1, 1])[:, None, None, None]
    predicted = certain(np.array([1, 0])[:, None, None, None], 2)
    history = model.fit(predicted, reference, batch_size=1, verbose=0, epochs=2).history
    assert history["dice"] == history["dice_liver"] == pytest.approx([2 / 3, 2 / 3])
    logs = model.evaluate(predicted, reference, batch_size=1, verbose=0, return_dict=True)
    assert logs["dice_liver"] == pytest.approx(2 / 3)


def test_survives_serialisation():
    metric = OrganDice(CLASSES, ignore_label=255, name="other")
    again = keras.metrics.deserialize(keras.metrics.serialize(metric))
    assert type(again) is OrganDice
    assert again.get_config() == metric.get_config()
