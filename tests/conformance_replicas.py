"""What each subject of the table gives under a distribution strategy; as a script, on two devices.

`python conformance_replicas.py RESULTS.npz` writes what all give on two logical CPU devices.
"""

from __future__ import annotations

import sys
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from conformance import CLASSES, IGNORED, REPLICAS, SUBJECTS, Subject, applies, make_labels

from fcnseg.losses import CrossEntropyLoss, OrganDice, level_weights
from fcnseg.training.strategy import make_strategy

SAMPLES = 4


def results_of(subject: Subject, strategy: tf.distribute.Strategy) -> list[np.ndarray]:
    """What a subject gives for one global batch, or two steps of training with it."""
    with strategy.scope():
        thing = subject.make("float32")
    if subject.kind == "network":
        return train(subject, thing, strategy)
    inputs = [share_out(values, strategy) for values in subject.inputs(SAMPLES)]
    if subject.kind == "metric":
        tf.function(lambda *x: strategy.run(thing.update_state, x))(*inputs)
        return [np.asarray(value) for value in thing.result().values()]
    outputs = tf.function(lambda *x: strategy.run(lambda *y: subject.outputs(thing, y), x))(*inputs)
    parts = [strategy.experimental_local_results(output) for output in outputs]
    return [np.concatenate([np.asarray(each) for each in part]) for part in parts]


def share_out(values: np.ndarray, strategy: tf.distribute.Strategy) -> Any:
    """An equal part of a batch for each replica."""
    parts = np.split(values, strategy.num_replicas_in_sync)
    return strategy.experimental_distribute_values_from_function(
        lambda context: tf.constant(parts[context.replica_id_in_sync_group])
    )


def train(
    subject: Subject, model: keras.Model, strategy: tf.distribute.Strategy
) -> list[np.ndarray]:
    """Loss and Dice of two steps, and the weights after them."""
    levels = len(model.outputs)
    loss = CrossEntropyLoss(ignore_label=IGNORED)
    with strategy.scope():
        model.compile(
            optimizer=keras.optimizers.SGD(1e-2),
            loss=loss if levels == 1 else [loss] * levels,
            loss_weights=None if levels == 1 else level_weights(levels),
            metrics=[OrganDice(CLASSES, ignore_label=IGNORED)],
            jit_compile=False,
        )
    (hu,) = subject.inputs(SAMPLES)
    fine, *_ = tf.nest.flatten(model(hu))
    labels = make_labels(tuple(fine.shape[:-1]))
    batches = tf.data.Dataset.from_tensors((hu, labels)).repeat(2)
    logs = model.fit(batches, epochs=1, steps_per_epoch=2, shuffle=False, verbose=0).history
    return [np.array(logs["loss"] + logs["dice"]), *model.get_weights()]


def main(path: str) -> None:
    """Writes the results on two devices, by `subject/index`."""
    (cpu,) = tf.config.list_physical_devices("CPU")
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    strategy = make_strategy()
    assert strategy.num_replicas_in_sync == 2
    np.savez(
        path,
        **{
            f"{name}/{index}": value
            for name, subject in SUBJECTS.items()
            if applies(name, REPLICAS)
            for index, value in enumerate(results_of(subject, strategy))
        },
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
