"""The check of an exported model: in the server's runtime it gives what it gives here."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from fcnseg.errors import ModelError, one_line
from fcnseg.saved_model.session import PEAK_BYTES, as_array, bytes_as_numbers
from fcnseg.saved_model.signatures import ALL, Arrays, ServedModel

# Probabilities of the two runtimes may differ in the last bits: the graph is optimised differently.
_TOLERANCE = 1e-5


class Replies(NamedTuple):
    """The replies of a process.

    Attributes:
        outputs: Arrays by `signature/output`.
        peak_bytes: Largest memory of the process.
    """

    outputs: Arrays
    peak_bytes: int


def check_saved_model(
    model: ServedModel,
    directory: Path,
    *,
    names: Collection[str] = ALL,
    python: str | os.PathLike[str] = sys.executable,
) -> None:
    """Compares each signature, in a fresh process with the server's runtime, with the segmenter.

    Both compute on the CPU. This process may hold the memory of the GPU, and two processes on a GPU
    differ by more than the last bits: float32 convolutions are in TF32, by the algorithm that was
    fastest when each process tried them.

    Args:
        model: The model.
        directory: The SavedModel.
        names: The signatures that it has.
        python: Interpreter of that process, which may have another TensorFlow.

    Raises:
        ModelError: If a signature fails there, or its results differ.
    """
    requests = {name: model.example_requests()[name] for name in names}
    with ThreadPoolExecutor(1) as pool:
        replay = pool.submit(replay_in_fresh_process, directory, requests, python=python)
        with tf.device("CPU:0"):
            results = {name: _result(model, name, requests[name]) for name in names}
        replies = replay.result().outputs
    for name, outputs in results.items():
        for output, value in outputs.items():
            expected = bytes_as_numbers(as_array(value.numpy()))
            _check_equal(expected, replies[f"{name}/{output}"], f"{name}: {output}")


def _result(model: ServedModel, name: str, request: Arrays) -> dict[str, tf.Tensor]:
    """The outputs of a signature.

    Raises:
        ModelError: If it refuses its example, as the voxels of a small scan are too many for it.
    """
    try:
        outputs: dict[str, tf.Tensor] = model.signatures[name](**request)
    except tf.errors.InvalidArgumentError as error:
        reason = one_line(error).partition("assertion failed: ")[2] or one_line(error)
        raise ModelError(
            f"the model must take the small scan that each export is checked with, but {name}"
            f" refuses it: {reason}; raise inference.max_voxels of the run, or --max_memory_gib"
        ) from error
    return outputs


def replay_in_fresh_process(
    directory: Path,
    requests: Mapping[str, Arrays],
    *,
    python: str | os.PathLike[str] = sys.executable,
) -> Replies:
    """Runs requests in a process that has only the SavedModel, and sees no GPU.

    Raises:
        ModelError: If a signature fails there.
    """
    with tempfile.TemporaryDirectory() as folder:
        sent, got = Path(folder) / "requests.npz", Path(folder) / "replies.npz"
        arrays: dict[str, Any] = {
            f"{signature}/{name}": bytes_as_numbers(value)
            for signature, inputs in requests.items()
            for name, value in inputs.items()
        }
        np.savez(sent, **arrays)
        script = "import sys; from fcnseg.saved_model.session import replay; replay(*sys.argv[1:])"
        done = subprocess.run(
            [python, "-c", script, directory, sent, got],
            env={**os.environ, "CUDA_VISIBLE_DEVICES": "-1"},
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
        if done.returncode:
            last = (done.stderr.strip().splitlines() or ["no message"])[-1]
            raise ModelError(f"the exported model fails in the server's runtime: {last}")
        with np.load(got) as replies:
            outputs = dict(replies)
        return Replies(outputs, int(outputs.pop(PEAK_BYTES)))


def _check_equal(expected: npt.NDArray[Any], reply: npt.NDArray[Any], what: str) -> None:
    if expected.dtype.kind == "f":
        is_equal = np.allclose(expected, reply, rtol=0, atol=_TOLERANCE)
    else:
        is_equal = np.array_equal(expected, reply)
    if not is_equal:
        raise ModelError(f"the exported model gives another {what} in the server's runtime")
