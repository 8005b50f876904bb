"""Measurements of fcnseg for `bench_gpu.py`; each function is the job of a process of its own."""

from __future__ import annotations

import csv
import dataclasses
import math
import os
import signal
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from gpu_data import CLASSES, SPACING_MM, preset, small_run, write_records
from gpu_sizes import SIZES, Sizes, emit, one_line

from fcnseg import __version__  # before tensorflow, which it sets up
from fcnseg.config import PRESETS, AugmentationConfig, Config, ModelConfig
from fcnseg.inference import load_run, make_segmenter
from fcnseg.networks.build import build_fcn
from fcnseg.records import Dataset
from fcnseg.runs import ModelInfo, Run
from fcnseg.sampling import make_training_dataset
from fcnseg.sampling.patch_order import Blocks
from fcnseg.saved_model.export import export_run
from fcnseg.saved_model.session import SavedModelSession
from fcnseg.training import train
from fcnseg.training.assembly import build_model, make_average, make_step, patches_maker
from fcnseg.training.loop import TrainingLoop
from fcnseg.training.step import make_steps

import tensorflow as tf  # isort: skip

_VERSIONS = ("cuda_version", "cudnn_version")
_RESUMED_TOLERANCE = 0.02  # of the loss of an epoch, without deterministic operations
_VARIABLES = ("TF_FORCE_GPU_ALLOW_GROWTH", "XLA_FLAGS", "CUDA_VISIBLE_DEVICES")


def device(size: str, data: str) -> None:
    """Describes the machine, and writes the records.

    Args:
        size: One of `SIZES`.
        data: Folder of records.
    """
    gpus = tf.config.list_physical_devices("GPU")
    build = tf.sysconfig.get_build_info()
    emit(
        "device",
        gpus=[tf.config.experimental.get_device_details(each) for each in gpus],
        cores=len(os.sched_getaffinity(0)),
        fcnseg=__version__,
        tensorflow=tf.__version__,
        python=sys.version.split()[0],
        built_with={name: build.get(name) for name in _VERSIONS},
        environment={name: os.environ.get(name) for name in _VARIABLES},
    )
    write_records(Path(data), SIZES[size])


def steps(size: str, data: str, cases: Sequence[Sequence[Any]]) -> None:
    """Measures training steps on one batch, which is in memory.

    Args:
        size: One of `SIZES`.
        data: Folder of records.
        cases: Preset, precision, XLA, and the device of the augmentation of each measurement.
    """
    sizes, dataset = SIZES[size], Dataset.open(data)
    for name, precision, jit_compile, run_on in cases:
        settings = {
            "training.precision": precision,
            "training.jit_compile": jit_compile,
            "augmentation.run_on": run_on,
        }
        emit("begins", case=[name, precision, jit_compile, run_on])
        facts: dict[str, Any] = {"preset": name, "augmentation_on": run_on}
        try:
            config = preset(name, sizes, **settings)
            batch = next(iter(patches_maker(config, dataset, replicas=1)()))
            one = tf.data.Dataset.from_tensors(batch).repeat()
            facts |= _time_steps(config, dataset, one, warmup=sizes.warmup_steps, count=sizes.steps)
        except Exception as error:
            facts["error"] = one_line(error)
        emit("step", **facts, precision=precision, jit_compile=jit_compile)
        tf.keras.backend.clear_session()


def _time_steps(
    config: Config, dataset: Dataset, batches: tf.data.Dataset, *, warmup: int, count: int
) -> dict[str, Any]:
    """Trains as `fcnseg train` does, one step per call."""
    model = build_model(config, dataset.info)
    do_steps = make_steps(make_step(config, model, dataset.info), make_average(config, model))
    feed = iter(model.distribute_strategy.experimental_distribute_dataset(batches))
    _peak_mib()
    ends, losses = [time.perf_counter()], []
    for number in range(warmup + count):
        logs, _ = do_steps(feed, 1 + number, 1)
        losses.append(float(logs["loss"]))
        ends.append(time.perf_counter())
    durations = np.diff(ends)
    seconds = statistics.median(durations[warmup:])
    return {
        "patch": config.patches.size,
        "batch": config.patches.batch_size,
        "step_ms": 1000 * seconds,
        "mean_step_ms": 1000 * float(np.mean(durations[warmup:])),
        "steps_s": 1 / seconds,
        "patches_s": config.patches.batch_size / seconds,
        "first_step_s": float(durations[0]),
        "peak_mib": _peak_mib(),
        "losses": [losses[0], losses[-1]],
        "finite": all(map(math.isfinite, losses)),
        "parameters": sum(math.prod(weight.shape) for weight in model.trainable_weights),
    }


def _peak_mib() -> float | None:
    """Largest memory of the first GPU since the last call; None without one."""
    if not tf.config.list_physical_devices("GPU"):
        return None
    peak: float = tf.config.experimental.get_memory_info("GPU:0")["peak"] / 2**20
    tf.config.experimental.reset_memory_stats("GPU:0")
    return peak


def data_rates(size: str, data: str) -> None:
    """Measures patches per second of the input pipeline, with nothing else running."""
    sizes, dataset = SIZES[size], Dataset.open(data)
    for name, augmentation in _augmentations():
        facts = {"augmentation": name, "augmentation_on": augmentation.run_on}
        config = dataclasses.replace(preset("roth2018", sizes), augmentation=augmentation)
        patches = config.patches
        block = Blocks.of(patches, batch_size=patches.batch_size).steps
        batches = iter(make_training_dataset(dataset, patches, seed=0, augmentation=augmentation))
        for _ in range(block):
            next(batches)
        count, started = 0, time.perf_counter()
        while time.perf_counter() - started < sizes.seconds or count % block:
            next(batches)
            count += 1
        rate = count * patches.batch_size / (time.perf_counter() - started)
        emit("data", **facts, patch=patches.size, patches_s=rate)


def _augmentations() -> Iterator[tuple[str, AugmentationConfig]]:
    yield "none", AugmentationConfig()
    for name in ("roth2018", "fcn_m"):
        for run_on in ("host", "device"):
            augmentation = PRESETS[name].augmentation
            yield name, dataclasses.replace(augmentation, run_on=run_on)


def joint(size: str, data: str, augmentation_on: Sequence[str]) -> None:
    """Measures training steps with the input pipeline, as in training.

    Args:
        size: One of `SIZES`.
        data: Folder of records.
        augmentation_on: Where the patches of each measurement are augmented, host or device.
    """
    sizes, dataset = SIZES[size], Dataset.open(data)
    for run_on in augmentation_on:
        settings = {"training.precision": "mixed_bfloat16", "augmentation.run_on": run_on}
        facts: dict[str, Any] = {"preset": "roth2018", "augmentation_on": run_on}
        try:
            config = preset("roth2018", sizes, **settings)
            block = Blocks.of(config.patches, batch_size=config.patches.batch_size).steps
            batches = patches_maker(config, dataset, replicas=1)()
            facts |= _time_steps(config, dataset, batches, warmup=2 * block, count=2 * block)
        except Exception as error:
            facts["error"] = one_line(error)
        emit("joint", **facts, precision="mixed_bfloat16")
        tf.keras.backend.clear_session()


def window(size: str) -> None:
    """Measures the segmentation of a whole volume by sliding window."""
    sizes = SIZES[size]
    hu = np.random.default_rng(0).normal(0, 200, sizes.volume).astype(np.int16)
    for precision in ("float32", "mixed_bfloat16"):
        for batch in sizes.batches:
            facts: dict[str, Any] = {"precision": precision, "batch": batch}
            try:
                segmenter = _segmenter(sizes, precision, batch)
                _peak_mib()
                seconds = [_seconds_of_segmentation(segmenter, hu) for _ in range(sizes.rounds + 1)]
                facts |= {"first_s": seconds[0], "seconds": statistics.median(seconds[1:])}
                facts["peak_mib"] = _peak_mib()
            except Exception as error:
                facts["error"] = one_line(error)
            emit("window", contender="fcnseg", **facts, volume=sizes.volume)
            tf.keras.backend.clear_session()


def _segmenter(sizes: Sizes, precision: str, batch: int) -> Any:
    config = ModelConfig(filters=sizes.filters)
    model = build_fcn(config, num_classes=len(CLASSES), precision=precision)
    info = ModelInfo(
        class_names=CLASSES,
        spacing_mm=SPACING_MM,
        hu_window=config.hu_window,
        window=(sizes.window,) * 3,
        overlap=(sizes.overlap,) * 3,
        batch_size=batch,
        max_voxels=math.prod(sizes.volume),
        skip_air=False,
    )
    return make_segmenter(model, info)


def _seconds_of_segmentation(segmenter: Any, hu: Any) -> float:
    started = time.perf_counter()
    ids = segmenter.segment_model_grid(hu).numpy()
    seconds = time.perf_counter() - started
    assert ids.shape == hu.shape, f"{ids.shape} of {hu.shape} voxels"
    return seconds


def run(
    size: str,
    data: str,
    run_dir: str,
    *,
    precision: str = "float32",
    deterministic: bool = False,
    kill_at: int = 0,
    resume: bool = False,
) -> None:
    """Trains a small run; with `kill_at` the process kills itself before that step."""
    if deterministic:
        tf.config.experimental.enable_op_determinism()
    if kill_at:
        run_steps = TrainingLoop.run_steps

        def run_steps_and_die(loop: TrainingLoop, *arguments: Any) -> None:
            if loop.progress.step + 1 == kill_at:
                os.kill(os.getpid(), signal.SIGKILL)
            run_steps(loop, *arguments)

        TrainingLoop.run_steps = run_steps_and_die  # type: ignore[method-assign, assignment]
    config = small_run(SIZES[size], **{"training.precision": precision})
    train(config, data, run_dir, resume=resume)


def compare(run_dirs: Sequence[str], **facts: Any) -> None:
    """Compares a run that was killed and resumed with one that was not."""
    runs = [Run.open(folder) for folder in run_dirs]
    weights = [load_run(each)[0].get_weights() for each in runs]
    differences = [float(np.max(np.abs(a - b))) for a, b in zip(*weights, strict=True)]
    losses = [_losses(Path(folder) / "history.csv") for folder in run_dirs]
    is_near = np.allclose(losses[0], losses[1], rtol=_RESUMED_TOLERANCE)
    emit(
        "resume",
        **facts,
        same_bits=runs[0].manifest.weights_sha256 == runs[1].manifest.weights_sha256,
        within_tolerance=bool(is_near),
        largest_weight=max(float(np.max(np.abs(each))) for each in weights[0]),
        largest_difference=max(differences),
        losses=losses,
        best_dice=[each.manifest.best_dice for each in runs],
        devices=runs[0].manifest.devices,
    )


def _losses(history: Path) -> list[float]:
    with history.open() as file:
        return [float(row["loss"]) for row in csv.DictReader(file)]


def export(run_dir: str, model_dir: str, *, fills_gpu: bool) -> None:
    """Exports a run, whose check is a second process.

    Args:
        run_dir: Folder of a finished run.
        model_dir: Folder of the versions.
        fills_gpu: True if this process has taken all memory of the GPU, as the parent says.
    """
    facts: dict[str, Any] = {"fills_gpu": fills_gpu}
    started = time.perf_counter()
    try:
        facts["version"] = export_run(run_dir, model_dir).name
        facts["seconds"] = time.perf_counter() - started
    except Exception as error:
        facts["error"] = one_line(error)
    emit("export", **facts)


def session(size: str, version: str, answer: str) -> None:
    """Segments a volume by a SavedModel in the server's runtime, and stores the mask."""
    shape = tuple(length // 2 for length in SIZES[size].volume)
    hu = np.random.default_rng(0).normal(-100, 100, shape).astype(np.int16)
    hu[tuple(slice(length // 4, length // 2) for length in shape)] += 240
    saved = SavedModelSession(version)
    spacing = np.array(SPACING_MM, np.float32)
    inputs: dict[str, npt.NDArray[Any]] = {"volume": hu, "spacing": spacing}
    seconds = []
    for _ in range(3):
        started = time.perf_counter()
        labels = saved.run("segment_volume", inputs)["labels"]
        seconds.append(time.perf_counter() - started)
    np.save(answer, labels)
    kind = "GPU" if tf.config.list_physical_devices("GPU") else "CPU"
    emit("session", device=kind, seconds=seconds, classes=np.unique(labels).tolist())


JOBS: dict[str, Callable[..., None]] = {
    each.__name__: each
    for each in (device, steps, data_rates, joint, window, run, compare, export, session)
}
