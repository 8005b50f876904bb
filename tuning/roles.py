"""The role of a process in a search on several machines, as environment variables say.

KerasTuner's are KERASTUNER_ORACLE_IP and KERASTUNER_ORACLE_PORT, the address of the chief, and
KERASTUNER_TUNER_ID, which is `chief` or the name of a worker. A supervisor of several workers tells
each its number, so that each takes its share of the machine.
"""

from __future__ import annotations

import os
import re
from typing import Literal

from fcnseg.errors import InputError

CHIEF = "chief"
"""Name of the process that has the oracle."""
NAME_VARIABLE = "KERASTUNER_TUNER_ID"
"""Variable with the name of this process."""
NUMBER_VARIABLE, COUNT_VARIABLE = "FCNSEG_WORKER_NUMBER", "FCNSEG_WORKER_COUNT"
"""Variables with the number of a worker on its machine, and the number of workers there."""

_ADDRESS_VARIABLES = ("KERASTUNER_ORACLE_IP", "KERASTUNER_ORACLE_PORT")
_LAST_PORT = 65535


Role = Literal["chief", "worker"]


def role() -> Role | None:
    """Reads the role of this process; None in a search on one machine.

    Raises:
        InputError: If a variable is missing or wrong.
    """
    if not any(name in os.environ for name in (*_ADDRESS_VARIABLES, NAME_VARIABLE)):
        return None
    check_address()
    name = os.environ.get(NAME_VARIABLE, "")
    if name == CHIEF:
        return "chief"
    check_name(name, argument=NAME_VARIABLE)
    return "worker"


def check_address() -> None:
    """Checks the variables with the address of the chief.

    Raises:
        InputError: If one is missing or wrong.
    """
    for name in _ADDRESS_VARIABLES:
        if not os.environ.get(name):
            raise InputError(f"{name} must be set to the address of the chief")
    port = os.environ[_ADDRESS_VARIABLES[1]]
    if not (port.isdecimal() and 1 <= int(port) <= _LAST_PORT):
        raise InputError(f"{_ADDRESS_VARIABLES[1]} must be from 1 to {_LAST_PORT}, got {port}")


def check_name(name: str, *, argument: str) -> None:
    """Checks the name of a worker, which is that of a file too.

    Args:
        name: The name.
        argument: Name given by the user, for the error.

    Raises:
        InputError: If it is empty, has other characters, or would be a chief to KerasTuner.
    """
    if not re.fullmatch(r"\w[\w.-]*", name):
        raise InputError(f"{argument} must be chief, or letters, digits and . _ -, got {name!r}")
    if CHIEF in name:
        raise InputError(f"{argument} of a worker must not contain {CHIEF}, got {name}")


def number_and_count() -> tuple[int, int]:
    """The number of this worker on its machine, from 0, and the number of workers there."""
    return int(os.environ.get(NUMBER_VARIABLE, "0")), int(os.environ.get(COUNT_VARIABLE, "1"))
