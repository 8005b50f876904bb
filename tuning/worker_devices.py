"""The GPUs or cores of a machine, shared out among workers."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import tensorflow as tf

from fcnseg.errors import InputError
from fcnseg.storage.folder_lock import locked_folder
from fcnseg.storage.whole_file import make_folder, write_whole

from .memory import host_bytes
from .trials import DEVICES_FILE, WORKERS_FOLDER
from .workers import Share

_LOCK_SECONDS = 60.0  # for another worker that writes a number


def shares(workers: int, devices: Sequence[str] = ()) -> list[Share]:
    """Shares out the GPUs, or without one the CPU cores, evenly.

    Each worker has equally many GPUs, as a batch is per GPU; those that are left over stay idle.

    Args:
        workers: Trials at a time.
        devices: Number of GPUs, or their names, as `GPU:0`; by default all.

    Raises:
        InputError: If `workers` is below 1 or above the number of GPUs, or there are no such GPUs.
    """
    if workers < 1:
        raise InputError(f"workers must be at least 1, got {workers}")
    gpus = _gpus(devices)
    if not gpus:
        return _of_cores(workers)
    if workers > len(gpus):
        raise InputError(f"workers must be at most the {len(gpus)} GPUs, got {workers}")
    each = len(gpus) // workers
    return [
        Share(gpus=tuple(gpus[number::workers][:each]), memory_bytes=_gpu_bytes())
        for number in range(workers)
    ]


def keep_devices(folder: Path, share: Share) -> None:
    """Checks that trials have as many devices as the first ones of the search, or notes how many.

    A batch is per device, so trials on different numbers of them cannot be compared, and a
    checkpoint is bound to its number.

    Args:
        folder: Folder of the search.
        share: Share of a worker.

    Raises:
        InputError: If there are more or fewer.
    """
    devices = len(share.gpus or ()) or 1
    path = folder / DEVICES_FILE
    workers = make_folder(folder / WORKERS_FOLDER, argument="output")
    with locked_folder(workers, argument="output", wait_seconds=_LOCK_SECONDS):
        if not path.exists():
            write_whole(path, f"{devices}\n")
        began = path.read_text(encoding="utf-8").strip()
    if began != str(devices):
        raise InputError(
            f"workers and devices must leave each trial {began} GPUs, as the first trials had,"
            f" got {devices}"
        )


def _of_cores(workers: int) -> list[Share]:
    """Shares of the cores; all of them for each worker where there are fewer than workers."""
    memory_bytes = host_bytes() // workers
    if workers == 1 or not hasattr(os, "sched_getaffinity"):
        return [Share(memory_bytes=memory_bytes)] * workers
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < workers:
        return [Share(memory_bytes=memory_bytes)] * workers
    return [
        Share(cores=tuple(cores[number::workers]), threads=len(cores), memory_bytes=memory_bytes)
        for number in range(workers)
    ]


def _gpus(devices: Sequence[str]) -> list[str]:
    """Identifiers of the GPUs to use, as CUDA_VISIBLE_DEVICES has them."""
    count = len(tf.config.list_physical_devices("GPU"))
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    known = [str(number) for number in range(count)] if not visible else visible.split(",")[:count]
    if not devices:
        return known
    names = [f"GPU:{number}" for number in range(count)]
    if len(devices) == 1 and devices[0].isdecimal():
        wanted = names[: int(devices[0])] if 1 <= int(devices[0]) <= count else []
    else:
        wanted = [name.upper() for name in devices]
    if not wanted or not set(wanted) <= set(names) or len(set(wanted)) < len(wanted):
        raise InputError(
            f"devices must be a number or names of the GPUs {', '.join(names) or '(none)'}, got"
            f" {' '.join(devices)}"
        )
    return [known[names.index(name)] for name in wanted]


def _gpu_bytes() -> int | None:
    """The memory of the smallest GPU; None where NVIDIA's tool does not say."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return None
    query = [tool, "--query-gpu=memory.total", "--format=csv,noheader,nounits"]
    answer = subprocess.run(query, capture_output=True, text=True, check=False).stdout
    sizes = [int(line) for line in answer.split() if line.isdecimal()]
    return min(sizes) * 2**20 if sizes else None
