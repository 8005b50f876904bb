"""A conversion in a process of its own that is killed at a chosen moment, as by kill -9."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

ROOT = Path(__file__).parent.parent


def run_and_kill(argv: Sequence[str], *, when: Callable[[], bool], seconds: float = 120) -> bool:
    """Runs a conversion and kills it as soon as something is so.

    The workers of the job are left alone until it is dead, then killed too.

    Args:
        argv: Arguments of `pipelines.convert_ct`.
        when: Looked at again and again.
        seconds: How long to wait for it.

    Returns:
        Whether the job was still at work when it was killed.
    """
    process = subprocess.Popen(
        [sys.executable, "-m", "pipelines.convert_ct", *argv],
        cwd=ROOT,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    deadline = time.monotonic() + seconds
    while process.poll() is None and not when():
        assert time.monotonic() < deadline, "the moment to kill the job did not come"
        time.sleep(0.001)
    at_work = process.poll() is None
    process.kill()
    process.wait()
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    return at_work
