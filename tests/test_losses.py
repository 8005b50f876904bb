"""Soft Dice and the Dice metric, against values worked out by hand."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from fcnseg.models import DiceCrossEntropyLoss, OrganDice, SoftDiceLoss

# Four voxels of classes 0, 0, 1, 1, in a patch of shape (1, 1, 1, 4).
TRUTH = np.array([[[[0, 0, 1, 1]]]], np.uint8)
WEIGHTS = ["uniform", "simple", "square"]


def logits_of(probabilities):
    """Logits whose softmax is a list of one distribution a voxel."""
    return np.log(np.array([[[probabilities]]], np.float32))


def certain(classes, num_classes):
    """Logits that leave no doubt about the class of each voxel."""
    return 100 * np.eye(num_classes, dtype=np.float32)[np.asarray(classes)]


def test_value_worked_out_by_hand():
    # Class 0: p g = 0.9 + 0.6 = 1.5, p = 0.9 + 0.6 + 0.2 + 0.5 = 2.2, g = 2: Dice 3 / 4.2.
    # Class 1: p g = 0.8 + 0.5 = 1.3, p = 0.1 + 0.4 + 0.8 + 0.5 = 1.8, g = 2: Dice 2.6 / 3.8.
    logits = logits_of([[0.9, 0.1], [0.6, 0.4], [0.2, 0.8], [0.5, 0.5]])
    expected = 1 - (3 / 4.2 + 2.6 / 3.8) / 2
    for weights in WEIGHTS:  # the two classes are equally frequent
        assert float(SoftDiceLoss(weights)(TRUTH, logits)) == pytest.approx(expected, rel=1e-6)


def test_cross_entropy_is_added():
    logits = logits_of([[0.9, 0.1], [0.6, 0.4], [0.2, 0.8], [0.5, 0.5]])
    cross_entropy = -np.mean(np.log([0.9, 0.6, 0.8, 0.5]))
    expected = float(SoftDiceLoss()(TRUTH, logits)) + cross_entropy
    assert float(DiceCrossEntropyLoss()(TRUTH, logits)) == pytest.approx(expected, rel=1e-6)


def test_organ_given_up_has_a_gradient_only_by_cross_entropy():
    """All voxels are surely class 0: the softmax of class 1 is e^-30, and so is Dice's gradient."""
    logits = tf.Variable(30 * np.eye(2, dtype=np.float32)[np.zeros_like(TRUTH)])
    pulls = []
    for loss in (SoftDiceLoss(), DiceCrossEntropyLoss()):
        with tf.GradientTape() as tape:
            value = loss(TRUTH, logits)
        pulls.append(float(tf.reduce_max(tf.abs(tape.gradient(value, logits)))))
    assert pulls[0] < 1e-9
    assert pulls[1] == pytest.approx(1 / TRUTH.size, rel=1e-3)


@pytest.mark.parametrize(
    ("weights", "weight_of_rare"), [("uniform", 1), ("simple", 3), ("square", 9)]
)
def test_rare_class_counts_more(weights, weight_of_rare):
    # Class 0 three times as frequent as class 1: 1 / f is 3 times, 1 / f^2 9 times as large.
    truth = np.array([[[[0, 0, 0, 1]]]], np.uint8)
    logits = logits_of([[0.9, 0.1], [0.9, 0.1], [0.9, 0.1], [0.3, 0.7]])
    dice = 2 * 2.7 / (3 + 3), 2 * 0.7 / (1 + 1)
    expected = 1 - (dice[0] + weight_of_rare * dice[1]) / (1 + weight_of_rare)
    assert float(SoftDiceLoss(weights)(truth, logits)) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("weights", WEIGHTS)
def test_perfect_is_0_and_all_wrong_is_1(weights):
    loss = SoftDiceLoss(weights)
    assert float(loss(TRUTH, certain(TRUTH, 2))) == pytest.approx(0, abs=1e-6)
    assert float(loss(TRUTH, certain(1 - TRUTH, 2))) == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("weights", WEIGHTS)
def test_absent_class_has_no_weight(weights):
    """A third class that no voxel has, and that is not predicted either."""
    loss = SoftDiceLoss(weights)
    assert float(loss(TRUTH, certain(TRUTH, 3))) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("weights", WEIGHTS)
@pytest.mark.parametrize("dtype", [tf.float16, tf.bfloat16, tf.float32], ids=lambda d: d.name)
def test_large_patches_in_half_precision_stay_finite(weights, dtype):
    """At 128^3 sums of probabilities overflow float16, which ends at 65504."""
    truth = np.zeros((1, 128, 128, 128), np.uint8)
    truth[0, 0, 0, :2] = 1  # two voxels: 1 / f^2 is 1e12
    logits = tf.cast(tf.stack([tf.zeros(truth.shape), tf.ones(truth.shape)], -1), dtype)
    with tf.GradientTape() as tape:
        tape.watch(logits)
        loss = SoftDiceLoss(weights)(truth, logits)
    gradient = tf.cast(tape.gradient(loss, logits), tf.float32)
    assert loss.dtype == tf.float32
    share, voxels = 1 / (1 + np.e), truth.size
    dice = 2 * share * (voxels - 2) / (share * voxels + voxels - 2)
    rare = 2 * (1 - share) * 2 / ((1 - share) * voxels + 2)
    ratio = ((voxels - 2) / 2) ** {"uniform": 0, "simple": 1, "square": 2}[weights]
    expected = 1 - (dice + ratio * rare) / (1 + ratio)
    assert float(loss) == pytest.approx(expected, rel=1e-3)
    assert np.isfinite(gradient).all()


def test_gradient_points_to_the_truth():
    logits = tf.Variable(np.zeros((1, 1, 1, 4, 2), np.float32))
    with tf.GradientTape() as tape:
        loss = SoftDiceLoss()(TRUTH, logits)
    gradient = tape.gradient(loss, logits).numpy()[0, 0, 0]
    assert (np.sign(gradient) == [[-1, 1], [-1, 1], [1, -1], [1, -1]]).all()


@pytest.mark.parametrize(
    "thing",
    [
        SoftDiceLoss("square", name="other"),
        DiceCrossEntropyLoss("simple"),
        OrganDice(3, name="other"),
    ],
    ids=["dice", "dice_cross_entropy", "metric"],
)
def test_survives_serialisation(thing):
    module = keras.losses if isinstance(thing, keras.losses.Loss) else keras.metrics
    again = module.deserialize(module.serialize(thing))
    assert type(again) is type(thing)
    assert again.get_config() == thing.get_config()


def test_metric_pools_voxels_over_batches():
    # Organ 1: batch one has 1 voxel, found; batch two has 3, of which 1 is found and 1 invented.
    # Together 2 * 2 / (4 + 3); the mean of the batches' Dice (1 and 0.4) would be another.
    metric = OrganDice(2)
    metric.update_state(np.array([[[[1, 0, 0, 0, 0]]]]), certain([[[[1, 0, 0, 0, 0]]]], 2))
    assert float(metric.result()) == pytest.approx(1)
    metric.update_state(np.array([[[[1, 1, 1, 0, 0]]]]), certain([[[[1, 0, 0, 1, 0]]]], 2))
    assert float(metric.result()) == pytest.approx(4 / 7)
    metric.reset_state()
    metric.update_state(np.array([[[[1, 1, 1, 0, 0]]]]), certain([[[[1, 0, 0, 1, 0]]]], 2))
    assert float(metric.result()) == pytest.approx(2 / 5)


def test_metric_leaves_out_background_and_organs_never_seen():
    metric = OrganDice(4)
    assert metric.result() == 0
    # Organ 1 half found (2 * 1 / (2 + 1)), organ 2 only invented (0), organ 3 nowhere.
    metric.update_state(np.array([[[[0, 0, 1, 1]]]]), certain([[[[0, 2, 1, 0]]]], 4))
    np.testing.assert_allclose(metric.per_class(), [2 * 1 / 4, 2 / 3, 0, np.nan])
    assert float(metric.result()) == pytest.approx((2 / 3 + 0) / 2)


def test_metric_counts_beyond_float32():
    metric = OrganDice(2)
    metric.sizes.assign([2**25, 2**25])
    metric.update_state(np.array([[[[0, 1]]]]), certain([[[[0, 1]]]], 2))
    np.testing.assert_array_equal(metric.sizes.numpy(), [2**25 + 2, 2**25 + 2])


def test_metric_refuses_weights():
    with pytest.raises(ValueError, match="no sample_weight"):
        OrganDice(2).update_state(TRUTH, certain(TRUTH, 2), sample_weight=np.ones(1))
