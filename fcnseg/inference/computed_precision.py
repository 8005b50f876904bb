"""The precision in which a machine computes a network: not each has bfloat16, or a GPU."""

from __future__ import annotations

import functools
from typing import Any

from fcnseg.extras import require_extra
from fcnseg.inference.backend import Backend
from fcnseg.networks.precision import Precision
from fcnseg.runs.run import Run


@functools.cache
def openvino_core() -> Any:
    """Gives the one `openvino.Core` of this process, which is never deleted.

    Each core's CPU plugin gives the thread that loads it a stack for signals, and frees it with the
    core. Of two cores the second restores the stack of the first, which may be freed by then: the
    next signal, such as that of Ctrl-C, would end the process with SIGSEGV.

    Raises:
        MissingExtraError: If OpenVINO is not installed.
    """
    return require_extra("openvino").Core()


def precision_by_openvino(precision: Precision) -> Precision:
    """Gives the precision in which OpenVINO computes layers on this CPU.

    Args:
        precision: Precision asked for.

    Raises:
        MissingExtraError: If OpenVINO is not installed.
    """
    has_bfloat16 = "BF16" in openvino_core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    return precision if has_bfloat16 else "float32"


def computed_precision(run: Run, *, backend: Backend, precision: Precision | None) -> str:
    """Gives the precision in which this machine computes the layers of a run's network.

    Args:
        run: The run.
        backend: Runtime that computes it.
        precision: Precision asked for; None means the run's own.

    Raises:
        InputError: If the description of a version for OpenVINO is missing or broken.
        MissingExtraError: If the backend is not installed.
    """
    if backend == "openvino":
        return precision_by_openvino(precision or run.precision)
    if precision is None and run.is_of_float16:
        devices = require_extra("tensorflow").config.list_physical_devices("GPU")
        return "float16" if devices else "float32"
    return precision or run.precision
