"""Packages, memory and cores of the processes of contenders."""

from __future__ import annotations

import os
import queue
import subprocess
import sys
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")


def has_module(python: str, module: str) -> bool:
    """Tells whether a Python has a module, without importing it: OpenVINO reports each import."""
    script = f"import importlib.util, sys; sys.exit(importlib.util.find_spec({module!r}) is None)"
    found = subprocess.run([python, "-c", script], capture_output=True)
    return found.returncode == 0


def pythons_of(
    modules: Mapping[str, Sequence[str]], *, peers: Collection[str], peer_python: str
) -> dict[str, str]:
    """Gives the Python of each contender; one that lacks a module is named and left out.

    Args:
        modules: The modules that each contender imports, by its name.
        peers: The contenders that run in `peer_python`; the others run in this Python.
        peer_python: Python of the peers.
    """
    pythons = {}
    for name, needed in modules.items():
        python = peer_python if name in peers else sys.executable
        missing = [module for module in needed if not has_module(python, module)]
        if missing:
            print(f"{name} is left out: {python} does not have {missing[0]}", file=sys.stderr)
        else:
            pythons[name] = python
    return pythons


def memory_mib(field: str) -> float:
    """Gives the MiB that this process holds (VmRSS), or its peak (VmHWM).

    The resource module's ru_maxrss may be that of its parent.
    """
    status = Path("/proc/self/status").read_text()
    return int(status.split(f"{field}:")[1].split()[0]) / 1024


def side_by_side(calls: Sequence[Callable[[], T]], jobs: int) -> Iterator[T]:
    """Runs calls concurrently, each on cores of its own; yields their results in order.

    A call's thread is bound to its share of the cores, and so are the processes that it starts.
    """
    cores = sorted(os.sched_getaffinity(0))
    shares: queue.Queue[set[int]] = queue.Queue()
    for job in range(jobs):
        shares.put(set(cores[job::jobs]))
    with ThreadPoolExecutor(
        jobs, initializer=lambda: os.sched_setaffinity(0, shares.get())
    ) as pool:
        running = [pool.submit(call) for call in calls]
        for call in running:
            yield call.result()
