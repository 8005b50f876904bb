"""Export of a trained run as a SavedModel for TensorFlow Serving: checked, then published.

The model is written to a hidden folder, loaded in a fresh process by the server's runtime, compared
there with the results of this process, and only then renamed to the next version number.
"""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from fcnseg.errors import ModelError
from fcnseg.inference import Segmenter, load_run, make_segmenter
from fcnseg.inference.segmenter import PATCHES, SPACING, VOLUME
from fcnseg.networks.keras_compat import write_archive
from fcnseg.saved_model.session import DEFAULT_SIGNATURE
from fcnseg.storage.whole_file import make_folder, naming_output, put_in_place

logger = logging.getLogger(__name__)

SEGMENT_VOLUME = "segment_volume"
MODEL_INFO = "model_info"
# TensorFlow Serving refuses a request without inputs, so even `model_info` has one.
UNUSED = tf.TensorSpec(None, tf.int32, name="unused")
# Probabilities of the two runtimes may differ in the last bits: the graph is optimised differently.
_TOLERANCE = 1e-5

Arrays = dict[str, npt.NDArray[Any]]


def export_run(run_dir: str | os.PathLike[str], model_dir: str | os.PathLike[str]) -> Path:
    """Publishes the best network of a run as the next version of a served model.

    A network of float16 is published in float32: a server without a GPU could not run it.

    Args:
        run_dir: Folder of a finished training run.
        model_dir: The served model's base folder, made if missing; versions are its children.

    Returns:
        The version's folder.

    Raises:
        InputError: If the run is missing or unfinished, or the folder cannot be written to.
        ModelError: If the results of the server's runtime differ from those of this process;
            nothing is published then.
    """
    network, info = load_run(run_dir, runs_on_cpu=True)
    return export_segmenter(make_segmenter(network, info), model_dir)


def export_segmenter(segmenter: Segmenter, model_dir: str | os.PathLike[str]) -> Path:
    """Publishes a segmenter as the next version; see `export_run`."""
    base = make_folder(model_dir, argument="model_dir")
    with tempfile.TemporaryDirectory(prefix=".tmp-", dir=base) as folder:
        saved = Path(folder) / "model"
        write_saved_model(segmenter, saved)
        check_saved_model(segmenter, saved)
        return _publish(saved, base)


def write_saved_model(segmenter: Segmenter, directory: Path) -> None:
    """Writes the SavedModel with its three signatures, unchecked."""
    info_json = segmenter.info.to_json()

    def model_info(unused: tf.Tensor) -> dict[str, tf.Tensor]:
        del unused
        return {"info_json_bytes": tf.constant(info_json)}

    archive = keras.export.ExportArchive()
    for model in segmenter.models:
        archive.track(model)
    archive.add_endpoint(DEFAULT_SIGNATURE, segmenter.predict_patches, [PATCHES])
    archive.add_endpoint(SEGMENT_VOLUME, segmenter.segment_volume, [VOLUME, SPACING])
    archive.add_endpoint(MODEL_INFO, model_info, [UNUSED])
    write_archive(archive, directory)


def example_requests(segmenter: Segmenter) -> dict[str, Arrays]:
    """Makes a small request for each signature, always the same: HU from air to bone.

    The volume has another spacing than the model and needs several windows along z.
    """
    info = segmenter.info
    draw = np.random.default_rng(0)
    shape = (info.window[0] * 3 // 2, info.window[1] // 2, info.window[2] // 2)
    return {
        DEFAULT_SIGNATURE: {
            "patches": draw.uniform(-1000, 1000, (1, *info.window, 1)).astype(np.float32)
        },
        SEGMENT_VOLUME: {
            "volume": draw.integers(-1000, 1000, shape).astype(np.int16),
            "spacing": np.array(info.spacing_mm, np.float32) * np.float32(1.25),
        },
        MODEL_INFO: {"unused": np.zeros((), np.int32)},
    }


def check_saved_model(segmenter: Segmenter, directory: Path) -> None:
    """Compares each signature, in a fresh process with the server's runtime, with the segmenter.

    Both compute on the CPU. This process may hold the memory of the GPU, and two processes on one
    differ by more than the last bits: float32 convolutions are in TF32, by the algorithm that was
    fastest when each process tried them.

    Raises:
        ModelError: If a signature fails there, or its results differ.
    """
    requests = example_requests(segmenter)
    replies = _replay_in_fresh_process(directory, requests)
    with tf.device("CPU:0"):
        expected = {
            DEFAULT_SIGNATURE: segmenter.predict_patches(**requests[DEFAULT_SIGNATURE]),
            SEGMENT_VOLUME: segmenter.segment_volume(**requests[SEGMENT_VOLUME]),
            MODEL_INFO: {"info_json_bytes": np.array(segmenter.info.to_json().encode())},
        }
    for signature, outputs in expected.items():
        for name, value in outputs.items():
            _check_equal(np.asarray(value), replies[f"{signature}/{name}"], f"{signature}: {name}")


def _replay_in_fresh_process(directory: Path, requests: dict[str, Arrays]) -> Arrays:
    """Gives replies, by `signature/output`, of a process that has only the SavedModel."""
    with tempfile.TemporaryDirectory() as folder:
        sent, got = Path(folder) / "requests.npz", Path(folder) / "replies.npz"
        arrays: dict[str, Any] = {
            f"{signature}/{name}": value
            for signature, inputs in requests.items()
            for name, value in inputs.items()
        }
        np.savez(sent, **arrays)
        script = "import sys; from fcnseg.saved_model.session import replay; replay(*sys.argv[1:])"
        done = subprocess.run(
            [sys.executable, "-c", script, directory, sent, got],
            env={**os.environ, "CUDA_VISIBLE_DEVICES": "-1"},
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
        if done.returncode:
            last = (done.stderr.strip().splitlines() or ["no message"])[-1]
            raise ModelError(f"the exported model fails in the server's runtime: {last}")
        with np.load(got) as replies:
            return dict(replies)


def _check_equal(expected: npt.NDArray[Any], reply: npt.NDArray[Any], what: str) -> None:
    if expected.dtype.kind == "f":
        is_equal = np.allclose(expected, reply, rtol=0, atol=_TOLERANCE)
    else:
        is_equal = np.array_equal(expected, reply)
    if not is_equal:
        raise ModelError(f"the exported model gives another {what} in the server's runtime")


def _publish(saved: Path, base: Path) -> Path:
    """Renames a complete SavedModel to the next version; a server sees all of it or nothing."""
    versions = [int(child.name) for child in base.iterdir() if child.name.isdecimal()]
    version = base / str(max(versions, default=0) + 1)
    with naming_output(version):
        put_in_place(saved, version)
    logger.info("published %s", version)
    return version
