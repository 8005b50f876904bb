"""Scripts in processes of their own, whose memory nobody else has used."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path


def output_of(script: str, *arguments: object) -> str:
    """What a script prints, which may import what tests share."""
    path = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-c", script, *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout


def peak_bytes() -> int:
    """The most memory that this process has held.

    The resource module's ru_maxrss begins with what the parent held when it started the process.
    """
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) * 1024  # KiB
