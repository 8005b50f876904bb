"""Twelve steps of each optimizer in each wrapper of tensorflow-addons; as a script, on devices.

`python addons_replicas.py DEVICES RESULTS.npz` writes weights and wrappers' slots, by
`optimizer/wrapper`.
"""

from __future__ import annotations

import sys

import numpy as np
import tensorflow as tf

from fcnseg.config import TrainingConfig
from fcnseg.networks.addons import ORIGINS
from fcnseg.networks.keras_compat import apply_gradients, build_optimizer_state
from fcnseg.training.optimizer import build_optimizer
from fcnseg.training.strategy import make_strategy

STEPS = 12
SLOTS = {"none": None, "lookahead": "slow", "swa": "average", "moving_average": "average"}


def results_of(optimizer: str, wrapper: str) -> np.ndarray:
    """The weights, and the wrapper's slots, of all replicas after some steps.

    The gradient is the sum of two, which one device has alone and two devices share.
    """
    settings = TrainingConfig(
        epochs=4,
        steps_per_epoch=STEPS // 4,
        optimizer=optimizer,
        optimizer_wrapper=wrapper,
        learning_rate=0.1,
        warmup_steps=2,
        ema_decay=0.5 if wrapper == "moving_average" else 0.0,
        swa_start=0.25,
    )
    strategy = make_strategy()
    with strategy.scope():
        weight = tf.Variable([2.0, 1.0, -1.0])
        made = build_optimizer(settings)
        build_optimizer_state(made, [weight])
    gradients = tf.constant(np.random.default_rng(0).normal(0, 1, (STEPS, 2, 3)), tf.float32)

    @tf.function
    def run():
        def step(number):
            context = tf.distribute.get_replica_context()
            share = tf.split(gradients[number], context.num_replicas_in_sync)
            of_replica = tf.stack(share)[context.replica_id_in_sync_group]
            apply_gradients(made, [tf.reduce_sum(of_replica, axis=0)], [weight])

        for number in tf.range(STEPS):
            strategy.run(step, (number,))

    run()
    slot = SLOTS[wrapper]
    kept = [weight] if slot is None else [weight, made.get_slot(weight, slot)]
    copies = [strategy.experimental_local_results(each) for each in kept]
    assert all(np.array_equal(of_one[0], of_one[-1]) for of_one in copies)
    return np.concatenate([of_one[0].numpy() for of_one in copies])


def main(devices: str, path: str) -> None:
    """Writes all results with some logical CPU devices."""
    (cpu,) = tf.config.list_physical_devices("CPU")
    logical = [tf.config.LogicalDeviceConfiguration()] * int(devices)
    tf.config.set_logical_device_configuration(cpu, logical)
    results = {
        f"{optimizer}/{wrapper}": results_of(optimizer, wrapper)
        for optimizer, origin in ORIGINS["training.optimizer"].items()
        for wrapper in SLOTS
        if wrapper == "none" or origin.wrapped
    }
    np.savez(path, **results)


if __name__ == "__main__":
    main(*sys.argv[1:])
