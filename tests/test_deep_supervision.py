"""A loss at each resolution: weights, labels, and that Keras trains with them."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from fcnseg.errors import ConfigError
from fcnseg.losses import CrossEntropyLoss, DeeplySupervised, OrganDice, SoftDiceLoss, level_weights
from fcnseg.losses.deep_supervision import shrink_label


def test_each_level_has_half_of_the_one_before():
    assert level_weights(3) == pytest.approx([4 / 7, 2 / 7, 1 / 7])
    assert level_weights(1) == [1]


def test_given_weights_are_proportions():
    assert level_weights(2, (3, 1)) == [0.75, 0.25]
    for weights in ((1, 1, 1), (0, 0)):
        with pytest.raises(ConfigError, match="level_weights must be one number an output"):
            level_weights(2, weights)


@pytest.mark.parametrize(
    ("length", "size", "places"),
    [
        (8, 8, [0, 1, 2, 3, 4, 5, 6, 7]),
        (8, 4, [0, 3, 4, 7]),  # the centre is between two voxels, which take turns: mean 3.5
        (8, 2, [1, 6]),
        (9, 3, [1, 4, 7]),
        (8, 1, [3]),
    ],
)
def test_label_shrinks_to_the_voxels_at_the_centres(length, size, places):
    label = np.arange(length, dtype=np.uint8).reshape(1, length, 1, 1)
    shrunk = shrink_label(tf.constant(label), tf.zeros((1, size, 1, 1, 2)))
    assert shrunk.dtype == tf.uint8
    assert shrunk.numpy().ravel().tolist() == places
    across = shrink_label(tf.constant(label.transpose(0, 2, 3, 1)), tf.zeros((1, 1, 1, size, 2)))
    assert across.numpy().ravel().tolist() == places


def two_levels():
    hu = keras.Input((4, 4, 4, 1))
    fine = keras.layers.Conv3D(3, 1, name="fine")(hu)
    coarse = keras.layers.Conv3D(3, 2, strides=2, name="coarse")(hu)
    return DeeplySupervised(hu, [fine, coarse])


@pytest.mark.parametrize("loss", [SoftDiceLoss(), CrossEntropyLoss(ignore_label=2)])
def test_fit_minimises_the_weighted_sum(loss):
    keras.utils.set_random_seed(0)
    model = two_levels()
    metric = OrganDice(("background", "liver", "spleen"))
    model.compile(
        loss=[loss] * 2,
        loss_weights=level_weights(2),
        metrics=[metric],
        optimizer=keras.optimizers.Adam(0.1),
        jit_compile=False,
    )
    rng = np.random.default_rng(0)
    hu = rng.normal(0, 1, (2, 4, 4, 4, 1)).astype(np.float32)
    label = (hu[..., 0] > 0).astype(np.uint8) + (hu[..., 0] > 1)
    fine, coarse = model(hu)
    shrunk = label[:, 0::3, 0::3, 0::3]  # of four voxels the first and the last
    expected = 2 / 3 * loss(label, fine) + 1 / 3 * loss(shrunk, coarse)
    logs = model.evaluate(hu, label, verbose=0, return_dict=True)
    assert logs["loss"] == pytest.approx(float(expected), rel=1e-5)
    metric.reset_state()
    metric.update_state(label, fine)
    assert logs["dice"] == pytest.approx(float(metric.result()["dice"]))
    history = model.fit(hu, label, epochs=10, verbose=0).history
    assert history["loss"][0] == pytest.approx(float(expected), rel=1e-5)
    assert history["loss"][-1] < 0.8 * history["loss"][0]


def test_first_output_predicts(tmp_path):
    model = two_levels()
    network = keras.Model(model.input, model.outputs[0])
    hu = np.ones((1, 4, 4, 4, 1), np.float32)
    network.save(tmp_path / "network.keras")
    loaded = keras.models.load_model(tmp_path / "network.keras")
    np.testing.assert_array_equal(loaded(hu), model(hu)[0])
