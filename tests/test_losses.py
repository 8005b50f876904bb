"""The losses, against values worked out by hand and against MONAI's."""

from __future__ import annotations

import json
import math

import keras
import numpy as np
import pytest
import tensorflow as tf
from monai_losses import CASES, TABLE, make_case

from fcnseg.config import SETTINGS_OF_LOSS, LossConfig
from fcnseg.losses import (
    CrossEntropyLoss,
    DiceCrossEntropyLoss,
    FocalLoss,
    SoftDiceLoss,
    TopKCrossEntropyLoss,
    TverskyLoss,
    build_loss,
)

# Four voxels of classes 0, 0, 1, 1, in a patch of shape (1, 1, 1, 4).
TRUTH = np.array([[[[0, 0, 1, 1]]]], np.uint8)
WEIGHTS = ["uniform", "simple", "square"]
PROBABILITIES = [[0.9, 0.1], [0.6, 0.4], [0.2, 0.8], [0.5, 0.5]]
RIGHT = np.array([0.9, 0.6, 0.8, 0.5])  # of these, at the true class
LOSSES = {
    "dice": SoftDiceLoss,
    "dice_cross_entropy": DiceCrossEntropyLoss,
    "tversky": TverskyLoss,
    "cross_entropy": CrossEntropyLoss,
    "focal": FocalLoss,
    "top_k_cross_entropy": TopKCrossEntropyLoss,
}
OVERLAPS = ["dice", "tversky"]


def logits_of(probabilities):
    """Logits whose softmax is a list of one distribution a voxel."""
    return np.log(np.array([[[probabilities]]], np.float32))


def certain(classes, num_classes):
    """Logits that leave no doubt about the class of each voxel."""
    return 100 * np.eye(num_classes, dtype=np.float32)[np.asarray(classes)]


def noise(*shape, classes=3, seed=0):
    """Labels of so many classes and logits, both random."""
    rng = np.random.default_rng(seed)
    reference = rng.integers(0, classes, shape).astype(np.uint8)
    return reference, rng.normal(0, 2, (*shape, classes)).astype(np.float32)


# Class 0: S = 0.9 + 0.6 = 1.5, P = 0.9 + 0.6 + 0.2 + 0.5 = 2.2, G = 2: Dice 3 / 4.2.
# Class 1: S = 0.8 + 0.5 = 1.3, P = 0.1 + 0.4 + 0.8 + 0.5 = 1.8, G = 2: Dice 2.6 / 3.8.
# So class 0 has 0.7 invented and 0.5 missed, and class 1 the other way round.
BY_HAND = {
    "dice": (SoftDiceLoss(), 1 - (3 / 4.2 + 2.6 / 3.8) / 2),
    "dice, one class": (SoftDiceLoss(include_background=False), 1 - 2.6 / 3.8),
    "dice, weighed": (SoftDiceLoss([3, 1]), 1 - (3 * 3 / 4.2 + 2.6 / 3.8) / 4),
    "tversky": (
        TverskyLoss(alpha=0.2, beta=0.8),
        1 - (1.5 / (1.5 + 0.2 * 0.7 + 0.8 * 0.5) + 1.3 / (1.3 + 0.2 * 0.5 + 0.8 * 0.7)) / 2,
    ),
    "cross_entropy": (CrossEntropyLoss(), -np.log(RIGHT).mean()),
    "cross_entropy, weighed": (
        CrossEntropyLoss([1, 3]),
        -(np.log(0.9 * 0.6) + 3 * np.log(0.8 * 0.5)) / (1 + 1 + 3 + 3),
    ),
    # Both classes have two voxels, so balance changes nothing.
    "cross_entropy, balanced": (CrossEntropyLoss(class_balance=0.5), -np.log(RIGHT).mean()),
    # A tenth of the reference is halved between the classes.
    "cross_entropy, smoothed": (
        CrossEntropyLoss(label_smoothing=0.1),
        -(0.9 * np.log(RIGHT) + 0.1 * np.log(PROBABILITIES).mean(axis=1)).mean(),
    ),
    "dice_cross_entropy": (
        DiceCrossEntropyLoss(),
        1 - (3 / 4.2 + 2.6 / 3.8) / 2 - np.log(RIGHT).mean(),
    ),
    "focal": (FocalLoss(gamma=2.0), -(np.array([0.1, 0.4, 0.2, 0.5]) ** 2 @ np.log(RIGHT)) / 4),
    "top_k_cross_entropy": (TopKCrossEntropyLoss(fraction=0.5), -np.log([0.5, 0.6]).mean()),
    # Times its weight, the voxel of 0.8 comes before that of 0.6: 4 * 0.22 is more than 0.51.
    "top_k_cross_entropy, weighed": (
        TopKCrossEntropyLoss([1, 4], fraction=0.5),
        -np.log([0.5, 0.8]).mean(),
    ),
    "top_k_cross_entropy, one at least": (TopKCrossEntropyLoss(fraction=0.01), -np.log(0.5)),
}


@pytest.mark.parametrize("case", BY_HAND)
def test_value_worked_out_by_hand(case):
    loss, expected = BY_HAND[case]
    assert float(loss(TRUTH, logits_of(PROBABILITIES))) == pytest.approx(expected, rel=1e-6)


def test_every_loss_is_worked_out_by_hand():
    assert {case.split(",")[0] for case in BY_HAND} == LOSSES.keys() == SETTINGS_OF_LOSS.keys()


@pytest.mark.parametrize("weights", WEIGHTS)
def test_equally_frequent_classes_weigh_alike(weights):
    logits = logits_of(PROBABILITIES)
    expected = BY_HAND["dice"][1]
    assert float(SoftDiceLoss(weights)(TRUTH, logits)) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(
    ("balance", "share_of_rare"),
    # One voxel of 17 is rare: a class of G voxels counts G^(1 - balance), 16 to 1 at first.
    [(0.0, 1 / 17), (0.5, 1 / 5), (1.0, 1 / 2)],
)
def test_class_balance_lies_between_voxels_and_classes(balance, share_of_rare):
    reference = np.zeros((1, 1, 1, 17), np.uint8)
    reference[..., -1] = 1
    logits = logits_of([[0.9, 0.1]] * 16 + [[0.7, 0.3]])
    expected = -((1 - share_of_rare) * np.log(0.9) + share_of_rare * np.log(0.3))
    loss = CrossEntropyLoss(class_balance=balance)
    assert float(loss(reference, logits)) == pytest.approx(expected, rel=1e-5)


def test_class_balance_reaches_an_organ_that_the_network_gave_up():
    # One voxel of 1000 has p = 1e-6; the gradient of its own logit, against that of Dice.
    reference = np.zeros((1, 10, 10, 10), np.uint8)
    reference[0, 5, 5, 5] = 1
    logits = tf.constant(np.tile(np.log([1 - 1e-6, 1e-6]), (1, 10, 10, 10, 1)), tf.float32)
    gradients = {}
    for name, loss in {
        "dice": SoftDiceLoss(),
        "voxels alike": DiceCrossEntropyLoss(),
        "balanced": DiceCrossEntropyLoss(class_balance=0.5),
    }.items():
        with tf.GradientTape() as tape:
            tape.watch(logits)
            value = loss(reference, logits)
        gradients[name] = -float(tape.gradient(value, logits)[0, 5, 5, 5, 1])
    # Dice: p (1 - p) 2 / (P + G) / 2 = 1e-6. Cross-entropy: 1 / 1000, and 1 / (sqrt(999) + 1).
    assert gradients["dice"] == pytest.approx(1e-6, rel=0.1)
    assert gradients["voxels alike"] == pytest.approx(1 / 1000, rel=0.01)
    assert gradients["balanced"] == pytest.approx(1 / (np.sqrt(999) + 1), rel=0.01)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_class_balance_of_ignored_voxels_alone_is_zero(smoothing):
    reference, logits = noise(1, 2, 2, 2)
    loss = CrossEntropyLoss(class_balance=0.5, ignore_label=2, label_smoothing=smoothing)
    assert float(loss(np.full_like(reference, 2), logits)) == 0


@pytest.mark.parametrize("balance", [0.0, 0.5, 1.0])
def test_balanced_and_smoothed_loss_is_least_at_the_smoothed_reference(balance):
    """One of 32 voxels is of an organ, and six of eight classes are absent, as in many batches."""
    reference = np.zeros((1, 1, 1, 32), np.uint8)
    reference[..., -1] = 1
    logits = tf.constant(logits_of(0.9 * np.eye(8)[reference.ravel()] + 0.1 / 8))
    with tf.GradientTape() as tape:
        tape.watch(logits)
        value = CrossEntropyLoss(class_balance=balance, label_smoothing=0.1)(reference, logits)
    np.testing.assert_allclose(tape.gradient(value, logits), 0, atol=1e-7)


@pytest.mark.parametrize(
    ("weights", "weight_of_rare"), [("uniform", 1), ("simple", 3), ("square", 9), ([1.0, 5.0], 5)]
)
def test_rare_class_counts_more(weights, weight_of_rare):
    # Class 0 three times as frequent as class 1: 1 / f is 3 times, 1 / f^2 9 times as large.
    reference = np.array([[[[0, 0, 0, 1]]]], np.uint8)
    logits = logits_of([[0.9, 0.1], [0.9, 0.1], [0.9, 0.1], [0.3, 0.7]])
    dice = 2 * 2.7 / (3 + 3), 2 * 0.7 / (1 + 1)
    expected = 1 - (dice[0] + weight_of_rare * dice[1]) / (1 + weight_of_rare)
    assert float(SoftDiceLoss(weights)(reference, logits)) == pytest.approx(expected, rel=1e-5)


def test_dice_per_sample_is_the_mean_of_the_samples():
    reference, logits = noise(3, 2, 3, 4)
    alone = [float(SoftDiceLoss()(reference[i : i + 1], logits[i : i + 1])) for i in range(3)]
    per_sample = SoftDiceLoss(batch_dice=False)(reference, logits)
    assert float(per_sample) == pytest.approx(np.mean(alone), rel=1e-6)
    pooled = SoftDiceLoss()(reference.reshape(1, 6, 3, 4), logits.reshape(1, 6, 3, 4, 3))
    assert float(SoftDiceLoss()(reference, logits)) == pytest.approx(float(pooled), rel=1e-6)
    assert float(per_sample) != pytest.approx(float(pooled), rel=1e-4)


def test_focal_loss_takes_no_smoothing():
    with pytest.raises(ValueError, match="label_smoothing must be 0 here, got 0.1"):
        FocalLoss(label_smoothing=0.1)


def test_losses_meet_where_their_definitions_do():
    reference, logits = noise(2, 3, 4, 5)
    same = [
        (TverskyLoss(alpha=0.5, beta=0.5), SoftDiceLoss()),
        (FocalLoss([1, 2, 3], gamma=0.0), CrossEntropyLoss([1, 2, 3])),
        (TopKCrossEntropyLoss(fraction=1.0), CrossEntropyLoss()),
        (CrossEntropyLoss([2, 4, 6]), CrossEntropyLoss([1, 2, 3])),
        (SoftDiceLoss([2, 4, 6]), SoftDiceLoss([1, 2, 3])),
        (CrossEntropyLoss([1, 1, 1]), CrossEntropyLoss()),
    ]
    for one, other in same:
        expected = float(other(reference, logits))
        assert float(one(reference, logits)) == pytest.approx(expected, rel=1e-5), one.name


@pytest.mark.parametrize("name", OVERLAPS)
@pytest.mark.parametrize("weights", WEIGHTS)
def test_perfect_is_0_and_all_wrong_is_1(name, weights):
    loss = LOSSES[name](weights)
    assert float(loss(TRUTH, certain(TRUTH, 2))) == pytest.approx(0, abs=1e-6)
    assert float(loss(TRUTH, certain(1 - TRUTH, 2))) == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("name", OVERLAPS)
@pytest.mark.parametrize("weights", WEIGHTS)
def test_absent_class_has_no_weight(name, weights):
    """A third class that no voxel has, and that is not predicted either."""
    loss = LOSSES[name](weights)
    assert float(loss(TRUTH, certain(TRUTH, 3))) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("ignored", [255, 0], ids=["a label of its own", "the background"])
def test_ignored_voxels_count_nowhere(name, ignored):
    """Neither value nor gradient know of them: the rest alone, in another shape, gives the same."""
    reference, logits = noise(2, 4, 3, 5)
    reference[:, :2] = np.where(reference[:, :2], reference[:, :2], 1)
    reference[:, 2:] = ignored
    logits[:, 2:] *= 1000
    logits = tf.Variable(logits)
    loss = LOSSES[name](ignore_label=ignored)
    with tf.GradientTape() as tape:
        value = loss(reference, logits)
    gradient = tape.gradient(value, logits).numpy()
    expected = LOSSES[name]()(reference[:, :2], logits[:, :2])
    assert float(value) == pytest.approx(float(expected), rel=1e-5)
    assert (gradient[:, 2:] == 0).all()
    assert np.isfinite(gradient).all()
    assert (gradient[:, :2] != 0).any()


@pytest.mark.parametrize("name", LOSSES)
def test_nothing_counted_is_0_without_gradient(name):
    reference, logits = np.full((2, 1, 2, 3), 255, np.uint8), tf.Variable(tf.ones((2, 1, 2, 3, 3)))
    with tf.GradientTape() as tape:
        value = LOSSES[name](ignore_label=255)(reference, logits)
    assert float(value) == 0
    assert (tape.gradient(value, logits).numpy() == 0).all()


@pytest.mark.parametrize("name", LOSSES)
def test_one_weight_a_class_is_asked_for(name):
    with pytest.raises(ValueError, match="class_weights must be .* got 2 for 3 classes"):
        LOSSES[name]([1.0, 2.0])(*noise(1, 2, 2, 2))


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


@pytest.mark.parametrize("name", LOSSES)
def test_gradient_points_to_the_reference(name):
    logits = tf.Variable(np.zeros((1, 1, 1, 4, 2), np.float32))
    loss = LOSSES[name](**({"fraction": 1.0} if name == "top_k_cross_entropy" else {}))
    with tf.GradientTape() as tape:
        value = loss(TRUTH, logits)
    gradient = tape.gradient(value, logits).numpy()[0, 0, 0]
    assert (np.sign(gradient) == [[-1, 1], [-1, 1], [1, -1], [1, -1]]).all()


@pytest.mark.parametrize("name", LOSSES)
def test_what_is_surely_right_has_a_finite_gradient(name):
    """Where 1 - p is 0 in float32, a power of it below 1 would have none."""
    logits = tf.Variable(certain(TRUTH, 2))
    with tf.GradientTape() as tape:
        value = LOSSES[name](**({"gamma": 0.5} if name == "focal" else {}))(TRUTH, logits)
    assert float(value) == pytest.approx(0, abs=1e-6)
    assert np.isfinite(tape.gradient(value, logits)).all()


@pytest.mark.parametrize("weights", WEIGHTS)
@pytest.mark.parametrize("dtype", [tf.float16, tf.bfloat16, tf.float32], ids=lambda d: d.name)
def test_large_patches_in_half_precision_stay_finite(weights, dtype):
    """At 128^3 sums of probabilities overflow float16, which ends at 65504."""
    reference = np.zeros((1, 128, 128, 128), np.uint8)
    reference[0, 0, 0, :2] = 1  # two voxels: 1 / f^2 is 1e12
    logits = tf.cast(tf.stack([tf.zeros(reference.shape), tf.ones(reference.shape)], -1), dtype)
    with tf.GradientTape() as tape:
        tape.watch(logits)
        loss = SoftDiceLoss(weights)(reference, logits)
    gradient = tf.cast(tape.gradient(loss, logits), tf.float32)
    assert loss.dtype == tf.float32
    share, voxels = 1 / (1 + np.e), reference.size
    dice = 2 * share * (voxels - 2) / (share * voxels + voxels - 2)
    rare = 2 * (1 - share) * 2 / ((1 - share) * voxels + 2)
    ratio = ((voxels - 2) / 2) ** {"uniform": 0, "simple": 1, "square": 2}[weights]
    expected = 1 - (dice + ratio * rare) / (1 + ratio)
    assert float(loss) == pytest.approx(expected, rel=1e-3)
    assert np.isfinite(gradient).all()


def float64_loss(name, reference, logits):
    """The definition in numpy's float64, for uniform weights: an independent second writing."""
    logits = logits.reshape(-1, logits.shape[-1]).astype(np.float64)
    reference = reference.ravel()
    p = np.exp(logits - logits.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    right = p[np.arange(reference.size), reference]
    shared = np.bincount(reference, right)
    predicted, true = p.sum(0), np.bincount(reference)
    dice = (2 * shared / (predicted + true)).mean()
    tversky = (shared / (0.3 * predicted + 0.7 * true)).mean()
    cross_entropy = -np.log(right)
    return {
        "dice": 1 - dice,
        "dice_cross_entropy": 1 - dice + cross_entropy.mean(),
        "tversky": 1 - tversky,
        "cross_entropy": cross_entropy.mean(),
        "focal": ((1 - right) ** 2 * cross_entropy).mean(),
        "top_k_cross_entropy": np.sort(cross_entropy)[-round(0.1 * reference.size) :].mean(),
    }[name]


@pytest.fixture(scope="module")
def large():
    """One patch of 128^3 with a rare class, and its logits, of which many are nearly certain."""
    rng = np.random.default_rng(0)
    reference = (rng.random((1, 128, 128, 128)) < 0.001).astype(np.uint8)
    logits = rng.normal(0, 3, (*reference.shape, 2)).astype(np.float32)
    return reference, logits


@pytest.mark.slow
@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize(
    ("dtype", "accuracy"),
    [(tf.float16, 1e-3), (tf.bfloat16, 1e-3), (tf.float32, 1e-4)],
    ids=["float16", "bfloat16", "float32"],
)
def test_sums_at_128_cubed_are_those_of_float64(large, name, dtype, accuracy):
    """Of the very logits that the network gave, however few digits they have."""
    reference, logits = large
    rounded = tf.cast(logits, dtype)
    loss = LOSSES[name]()
    with tf.GradientTape() as tape:
        tape.watch(rounded)
        value = loss(reference, rounded)
    expected = float64_loss(name, reference, tf.cast(rounded, tf.float32).numpy())
    assert float(value) == pytest.approx(expected, rel=accuracy)
    assert np.isfinite(tf.cast(tape.gradient(value, rounded), tf.float32)).all()


@pytest.mark.parametrize("case", CASES)
def test_value_is_that_of_monai(case):
    table = json.loads(TABLE.read_text())
    reference, logits = make_case()
    name, settings = CASES[case]
    value = float(LOSSES[name](**settings)(reference, logits))
    assert value == pytest.approx(table["values"][case], rel=1e-5)


@pytest.mark.slow
def test_monai_still_gives_these_values():
    pytest.importorskip("monai", reason="MONAI is not installed: pip install -e '.[bench]'")
    from monai_losses import values_of_monai

    assert values_of_monai() == pytest.approx(json.loads(TABLE.read_text())["values"], rel=1e-5)


@pytest.mark.parametrize("name", LOSSES)
def test_configuration_builds_the_loss_that_it_names(name):
    """The one with the value worked out by hand, which no other loss has."""
    settings = {
        "tversky": {"alpha": 0.2, "beta": 0.8},
        "focal": {"gamma": 2.0},
        "top_k_cross_entropy": {"fraction": 0.5},
    }
    loss = build_loss(LossConfig(name=name, **settings.get(name, {})))
    value = float(loss(TRUTH, logits_of(PROBABILITIES)))
    near = {each for each in LOSSES if value == pytest.approx(BY_HAND[each][1], rel=1e-5)}
    assert near == {name}


def test_settings_reach_the_loss():
    settings = {"class_weights": (1.0, 2.0), "ignore_label": 255}
    overlap = {**settings, "batch_dice": False, "include_background": False}
    cases = [
        ("tversky", {**overlap, "alpha": 0.1, "beta": 0.9}),
        ("dice_cross_entropy", {**overlap, "class_balance": 0.75, "label_smoothing": 0.1}),
        ("cross_entropy", {**settings, "class_balance": 0.25, "label_smoothing": 0.1}),
        ("focal", {**settings, "gamma": 1.5}),
        ("top_k_cross_entropy", {**settings, "fraction": 0.2, "label_smoothing": 0.1}),
    ]
    for name, values in cases:
        config = build_loss(LossConfig(name=name, **values)).get_config()
        for key, value in values.items():
            assert config[key] == (list(value) if isinstance(value, tuple) else value)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"name": "dice", "gamma": 1.0}, "loss.gamma must be left alone where .* is dice, got 1.0"),
        (
            {"name": "focal", "batch_dice": False},
            "loss.batch_dice must be left alone where .* is focal",
        ),
        ({"name": "dice", "label_smoothing": 0.1}, "loss.label_smoothing must .* is dice, got 0.1"),
        ({"name": "focal", "class_balance": 0.0}, "loss.class_balance must .* is focal, got 0.0"),
        (
            {"name": "focal", "class_weights": "square"},
            "loss.class_weights must be uniform or numbers where loss.name is focal, got square",
        ),
    ],
)
def test_setting_that_the_loss_does_not_have_is_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        LossConfig(**settings)


ONLY_BACKGROUND = (1.0, 0.0, 0.0)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"class_weights": (0, 0, 0)}, r"must not be 0 for all that counts, got \(0.0, 0.0, 0.0\)"),
        ({"class_weights": ()}, r"must not be 0 for all that counts, got \(\)"),
        ({"class_weights": (0, 0), "name": "focal"}, "must not be 0 for all that counts"),
        ({"class_weights": ONLY_BACKGROUND, "include_background": False}, "the background aside"),
        (
            {
                "class_weights": ONLY_BACKGROUND,
                "include_background": False,
                "name": "dice_cross_entropy",
            },
            "the background aside",
        ),
        ({"class_weights": (0, 1, 0), "ignore_label": 1}, "class 1 is ignored"),
        ({"class_weights": ONLY_BACKGROUND, "ignore_label": 0}, "class 0 is ignored"),
        ({"class_weights": (1, math.nan)}, "finite number"),
        ({"class_weights": (1, math.inf)}, "finite number"),
        ({"class_weights": (1, -1)}, "greater than or equal to 0"),
        ({"name": "tversky", "alpha": 0, "beta": 0}, "alpha and loss.beta must not both be 0"),
        ({"name": "tversky", "alpha": math.inf}, "finite number"),
        ({"name": "focal", "gamma": math.inf}, "finite number"),
        ({"name": "top_k_cross_entropy", "fraction": 0}, "greater than 0"),
        ({"level_weights": (0, 0)}, "level_weights must be above 0 for the first output"),
        ({"level_weights": (0, 1)}, "level_weights must be above 0 for the first output"),
    ],
)
def test_loss_that_teaches_nothing_is_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        LossConfig(**settings)


@pytest.mark.parametrize(
    ("settings", "counting"),
    [
        ({}, {0, 1, 2}),
        ({"include_background": False}, {1, 2}),
        ({"ignore_label": 2}, {0, 1}),
        ({"class_weights": (1, 0, 2)}, {0, 2}),
        ({"class_weights": (1, 0, 2), "include_background": False}, {2}),
        ({"class_weights": "square", "include_background": False, "ignore_label": 1}, {2}),
        ({"name": "cross_entropy", "class_weights": (0, 0, 0.5)}, {2}),
    ],
)
def test_classes_that_count(settings, counting):
    config = LossConfig(**settings)
    assert {index for index in range(3) if config.counts(index)} == counting


@pytest.mark.parametrize("name", LOSSES)
def test_survives_serialisation(name):
    loss = LOSSES[name]([1.0, 2.0], ignore_label=255, name="other")
    again = keras.losses.deserialize(keras.losses.serialize(loss))
    assert type(again) is type(loss)
    assert again.get_config() == loss.get_config()
