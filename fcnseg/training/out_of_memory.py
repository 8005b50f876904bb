"""Translation of TensorFlow's error of exhausted memory into the settings that reduce memory."""

from __future__ import annotations

import contextlib
import errno
import os
import re
from collections.abc import Iterator

import tensorflow as tf

from fcnseg.config import Config
from fcnseg.errors import FcnsegError, OutputError, one_line

_TENSOR = re.compile(r"shape\s?\[([\d,]+)\].*?/device:(\w+:\d+)", re.DOTALL)


class OutOfMemoryError(FcnsegError, MemoryError):
    """A network with its patches does not fit in the memory of a device."""


@contextlib.contextmanager
def naming_memory_settings(config: Config) -> Iterator[None]:
    """Names the settings to lower when a training runs out of memory.

    Files are left as they are: the last checkpoint is that of a step before.

    Args:
        config: Settings of the training.

    Raises:
        OutOfMemoryError: If the block exhausts the memory of a device, or of the host.
        OutputError: If a disk is full.
    """
    try:
        yield
    except (tf.errors.ResourceExhaustedError, MemoryError) as error:
        if os.strerror(errno.ENOSPC) in str(error):  # the same error of TensorFlow
            raise OutputError(f"cannot write the events of the run: {one_line(error)}") from error
        raise OutOfMemoryError(_message(config, str(error))) from error


def _message(config: Config, said: str) -> str:
    found = _TENSOR.search(said)
    tensor = f" for a tensor ({found[1].replace(',', ', ')}) on {found[2]}" if found else ""
    patches, levers = config.patches, []
    if patches.batch_size > 1:
        levers.append(
            f"patches.batch_size, now {patches.batch_size} (training.accumulate_steps makes up for"
            " it)"
        )
    levers.append(f"patches.size, now {' x '.join(map(str, patches.size))}")
    levers.append(f"model.filters, now {' '.join(map(str, config.model.filters))}")
    return (
        f"out of memory{tensor}: lower {', '.join(levers)}; fcnseg plan --memory_gib proposes"
        " settings that fit"
    )
