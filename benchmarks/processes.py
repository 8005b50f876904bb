"""Packages and memory of a contender's process."""

from __future__ import annotations

import subprocess
from pathlib import Path


def has_module(python: str, module: str) -> bool:
    """Tells whether a Python can import a module."""
    found = subprocess.run([python, "-c", f"import {module}"], capture_output=True)
    return found.returncode == 0


def memory_mib(field: str) -> float:
    """Gives the MiB that this process holds (VmRSS), or its peak (VmHWM).

    The resource module's ru_maxrss may be that of its parent.
    """
    status = Path("/proc/self/status").read_text()
    return int(status.split(f"{field}:")[1].split()[0]) / 1024
