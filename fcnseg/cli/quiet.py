"""TensorFlow, imported without its log lines."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator

from fcnseg.extras import require_extra

_STDERR = 2


def load_tensorflow() -> None:
    """Imports TensorFlow and Keras.

    Raises:
        MissingExtraError: If one is not installed.
    """
    with quiet_stderr():
        for module in ("tensorflow", "keras"):
            require_extra(module)
    for name in ("tensorflow", "absl"):  # their INFO is for their developers
        logging.getLogger(name).setLevel(logging.WARNING)


@contextlib.contextmanager
def quiet_stderr() -> Iterator[None]:
    """Discards what is written to stderr inside, by libraries in C++ too.

    On import TensorFlow logs there before it looks at its log level.
    """
    before, nowhere = os.dup(_STDERR), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, _STDERR)
    try:
        yield
    finally:
        os.dup2(before, _STDERR)
        os.close(before)
        os.close(nowhere)
