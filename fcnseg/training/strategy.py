"""The devices of a run, and their strategy."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import tensorflow as tf

from fcnseg.errors import InputError


def make_strategy(devices: Sequence[str] = ()) -> tf.distribute.Strategy:
    """Makes a `MirroredStrategy`, also for a single device.

    Args:
        devices: Number of GPUs, or of CPU devices if there is no GPU, as in `("2",)`; or their
            names, as in `("GPU:0", "GPU:2")`. By default all.

    Raises:
        InputError: If there are fewer devices, or none of such a name.
    """
    names = device_names(devices)
    paths = [f"/device:{name}" for name in names]
    if names[0].startswith("GPU"):
        return tf.distribute.MirroredStrategy(paths)
    # Given explicitly: TensorFlow would choose the same, with a warning.
    return tf.distribute.MirroredStrategy(paths, tf.distribute.ReductionToOneDevice())


def distributed(batches: tf.data.Dataset, strategy: tf.distribute.Strategy) -> Iterator[Any]:
    """Iterates over batches, each divided over the replicas and copied to their devices ahead.

    A single CPU takes them as they are: the iterator that copies leaves itself to TensorFlow's
    tuner, which may hold up its end (see `fcnseg.sampling.tf_datasets`).
    """
    first, *others = strategy.extended.worker_devices
    if "CPU" in first and not others:
        return iter(batches)
    return iter(strategy.experimental_distribute_dataset(batches))


def device_names(devices: Sequence[str] = ()) -> list[str]:
    """Gives the names of devices, such as `GPU:0`, all of one kind.

    Args:
        devices: Devices as `make_strategy` takes them.

    Raises:
        InputError: If there are fewer devices, or none of such a name.
    """
    gpus = _names("GPU")
    known = gpus or _names("CPU")
    if len(devices) == 1 and devices[0].isdecimal():
        return _first(known, int(devices[0]))
    return _checked(devices, [*gpus, *_names("CPU")]) or known


def _names(kind: str) -> list[str]:
    """Devices as `GPU:0`."""
    return [device.name.removeprefix("/device:") for device in tf.config.list_logical_devices(kind)]


def _first(known: list[str], count: int) -> list[str]:
    if not 1 <= count <= len(known):
        raise InputError(
            f"devices must be 1 to {len(known)}, as there are {', '.join(known)}, got {count}"
        )
    return known[:count]


def _checked(devices: Sequence[str], known: list[str]) -> list[str]:
    names = [name.upper() for name in devices]
    unknown = [name for name in names if name not in known]
    if unknown:
        raise InputError(f"devices must be among {', '.join(known)}, got {', '.join(unknown)}")
    if len(set(names)) < len(names) or len({name.split(":")[0] for name in names}) > 1:
        raise InputError(f"devices must be of one kind, each named once, got {', '.join(names)}")
    return names
