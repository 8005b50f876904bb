"""What ends a job on an engine, in one line where the cause is one of ours."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator

from fcnseg.errors import FcnsegError, OutputError

# Beam hands the error of a worker on as text, its traceback before it and the step behind it.
_OF_WORKER = re.compile(
    r"fcnseg\.errors\.OutputError: (.*?)(?: \[while running .*)?$", re.MULTILINE
)


@contextlib.contextmanager
def naming_failures() -> Iterator[None]:
    """Turns the failure of a worker that could not write into the error that it was.

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
        told = _OF_WORKER.findall(str(error))
        if not told:
            raise
        raise OutputError(told[-1]) from error
