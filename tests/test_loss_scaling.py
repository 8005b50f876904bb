"""Loss scaling of float16: steps that overflow are skipped, on all replicas, also after a resume.

A CPU convolves in float16, but does not pool: these networks have no pooling.
"""

from __future__ import annotations

import json

import keras
import numpy as np
import pytest
import tensorflow as tf
from scripts import output_of

from fcnseg.config import TrainingConfig
from fcnseg.networks.keras_compat import IS_KERAS_3
from fcnseg.sampling import Batch
from fcnseg.training.checkpoints import Checkpoints, RunProgress
from fcnseg.training.compiled_model import make_state, state_of
from fcnseg.training.optimizer import build_optimizer
from fcnseg.training.step import TrainingStep

old_line = pytest.mark.skipif(IS_KERAS_3, reason="tensorflow-addons needs Keras 2")

SIZE = (4, 4, 4)
TOO_LARGE = 2.0**40  # float16 ends at 65504


def make_step(*, optimizer="sgd", **options):
    """A convolution of float16 with plain gradient descent of rate 1."""
    keras.utils.set_random_seed(0)
    settings = TrainingConfig(
        precision="mixed_float16",
        optimizer=optimizer,
        momentum=0.0,
        learning_rate=1.0 if optimizer == "sgd" else 1e-2,
        schedule="constant",
        warmup_steps=0,
    )
    model = keras.Sequential(
        [keras.Input((*SIZE, 1)), keras.layers.Conv3D(2, 1, dtype="mixed_float16")]
    )
    model.compile(
        optimizer=build_optimizer(settings),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    make_state(model, size=SIZE, label_size=SIZE)
    return TrainingStep(model, **options)


def scale_of(optimizer):
    """The variable of the scale."""
    return optimizer.dynamic_scale if IS_KERAS_3 else optimizer._loss_scale._current_loss_scale


def make_batch(number=0):
    rng = np.random.default_rng(number)
    hu = rng.normal(0, 1, (2, *SIZE, 1)).astype(np.float32)
    return Batch(tf.constant(hu), tf.constant(rng.integers(0, 2, (2, *SIZE)).astype(np.uint8)), {})


def weights_of(step):
    return [np.array(weight) for weight in step.model.trainable_weights]


@pytest.mark.parametrize("options", [{}, {"clip_norm": 1e-3}, {"micro_batches": 2}], ids=str)
def test_step_that_overflows_is_skipped_and_halves_the_scale(options):
    step = make_step(**options)
    optimizer = step.model.optimizer
    scale_of(optimizer).assign(TOO_LARGE)
    before = weights_of(step)
    step.on_replica(make_batch())
    for old, new in zip(before, weights_of(step), strict=True):
        np.testing.assert_array_equal(new, old)
    assert float(scale_of(optimizer)) == TOO_LARGE / 2
    # In Keras 3 the learning rate's schedule waits too.
    assert int(optimizer.iterations) == (0 if IS_KERAS_3 else 1)
    for _ in range(40):
        step.on_replica(make_batch())
    after = weights_of(step)
    assert all(np.isfinite(weight).all() for weight in after)
    assert any((new != old).any() for new, old in zip(after, before, strict=True))
    assert 1 < float(scale_of(optimizer)) < TOO_LARGE


def test_scale_doubles_after_steps_without_overflow():
    step = make_step()
    optimizer = step.model.optimizer
    if IS_KERAS_3:
        optimizer.dynamic_growth_steps = 3
    else:
        optimizer._loss_scale._growth_steps = 3
    scales = []
    for number in range(3):
        step.on_replica(make_batch(number))
        scales.append(float(scale_of(optimizer)))
    assert scales == [2**15, 2**15, 2**16]


def test_scale_does_not_change_the_step():
    """Gradients are divided by it before the clipping and the update."""
    moved = []
    for scale in (1.0, 2.0**10):
        step = make_step(clip_norm=0.1)
        scale_of(step.model.optimizer).assign(scale)
        before = weights_of(step)
        step.on_replica(make_batch())
        moved.append([new - old for new, old in zip(weights_of(step), before, strict=True)])
    for one, other in zip(*moved, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-4)


@pytest.mark.parametrize("optimizer", ["adam", pytest.param("radam", marks=old_line)])
def test_resume_restores_the_scale(tmp_path, optimizer):
    """Steps 1 to 3 of an overflow, a checkpoint, and steps 4 to 6, against six without a stop."""

    def checkpoints(step):
        return Checkpoints(
            tmp_path / "checkpoint.npz", state_of(step.model), tf.distribute.get_strategy(), {}
        )

    def train(step, numbers):
        for number in numbers:
            step.on_replica(make_batch(number))

    complete = make_step(optimizer=optimizer)
    scale_of(complete.model.optimizer).assign(2.0**19)
    train(complete, range(3))
    checkpoints(complete).save(RunProgress("2026-01-01", step=3))
    scale = float(scale_of(complete.model.optimizer))
    assert scale < 2**19
    train(complete, range(3, 6))
    resumed = make_step(optimizer=optimizer)
    assert checkpoints(resumed).restore().step == 3
    assert float(scale_of(resumed.model.optimizer)) == scale
    train(resumed, range(3, 6))
    for one, other in zip(state_of(complete.model), state_of(resumed.model), strict=True):
        np.testing.assert_array_equal(np.array(one), np.array(other))


OVERFLOW_ON_ONE_REPLICA = """
import json
import keras
import numpy as np
import tensorflow as tf
from fcnseg.sampling import Batch
from fcnseg.training.step import TrainingStep
from fcnseg.training.strategy import make_strategy
from test_loss_scaling import scale_of

(cpu,) = tf.config.list_physical_devices("CPU")
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
strategy = make_strategy()
with strategy.scope():
    network = keras.Sequential([keras.Input((1, 1, 1, 1)), keras.layers.Conv3D(2, 1)])
    optimizer = keras.mixed_precision.LossScaleOptimizer(keras.optimizers.SGD(1.0))
    network.compile(optimizer, keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    optimizer.build(network.trainable_variables)
    network.set_weights([np.reshape([-1.0, 1.0], (1, 1, 1, 1, 2)), np.zeros(2)])  # wrong class
step = TrainingStep(network)
network.compute_metrics = lambda *_: {"loss": 0.0}

def on_replica(hu):
    step.on_replica(Batch(hu, tf.zeros(hu.shape[:-1], tf.uint8), {}))

def values(context):
    number = context.replica_id_in_sync_group
    return tf.fill([1, 1, 1, 1, 1], largest if number == 1 else 1.0)

found = []
for largest in (1e37, 1.0):
    before = [np.array(weight) for weight in network.trainable_weights]
    hu = strategy.experimental_distribute_values_from_function(values)
    strategy.run(tf.function(on_replica), args=(hu,))
    after = [np.array(weight) for weight in network.trainable_weights]
    found.append({
        "finite": all(bool(np.isfinite(each).all()) for each in after),
        "moved": any(bool((a != b).any()) for a, b in zip(before, after)),
        "scale": float(np.array(scale_of(optimizer))),
    })
print(json.dumps(found))
"""


def test_overflow_on_one_replica_is_skipped_on_all():
    """Of the second of two devices: Keras itself looks at the first one alone."""
    overflow, usual = json.loads(output_of(OVERFLOW_ON_ONE_REPLICA).splitlines()[-1])
    assert overflow == {"finite": True, "moved": False, "scale": 2.0**14}
    assert usual == {"finite": True, "moved": True, "scale": 2.0**14}
