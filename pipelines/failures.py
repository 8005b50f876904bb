"""Errors of workers that end a job, reduced to one line if the cause is an error of fcnseg."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator

from fcnseg.errors import FcnsegError, OutputError

# Beam passes the error of a worker on as text, between its traceback and the step.
_OF_WORKER = re.compile(
    r"fcnseg\.errors\.OutputError: (.*?)(?: \[while running .*)?$", re.MULTILINE
)


@contextlib.contextmanager
def naming_failures() -> Iterator[None]:
    """Turns the failure of a worker that could not write back into its original error.

    Raises:
        OutputError: If a worker could not write, as on a full disk.
    """
    try:
        yield
    except OutputError as error:
        raise OutputError(str(error).partition(" [while running ")[0]) from error
    except FcnsegError:
        raise
    except Exception as error:
        messages = _OF_WORKER.findall(str(error))
        if not messages:
            raise
        raise OutputError(messages[-1]) from error
