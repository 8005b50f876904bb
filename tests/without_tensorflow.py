"""A job in a process of its own where TensorFlow cannot be imported, as on a Beam worker."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).parent.parent
_SCRIPT = """
import runpy, sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("tensorflow", "keras"):
            raise ImportError(name + " is blocked")

sys.meta_path.insert(0, Blocker())
del sys.argv[0]
runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
"""


def run_without_tensorflow(
    module: str, *argv: str, env: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Runs a job as `python -m` does; a warning is an error.

    Args:
        module: Such as `pipelines.convert_ct`.
        argv: Its arguments.
        env: Environment variables instead of this process's.
    """
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", _SCRIPT, module, *argv],
        cwd=ROOT,
        env=env,
        capture_output=True,
        text=True,
    )
