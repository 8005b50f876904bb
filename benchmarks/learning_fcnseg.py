"""fcnseg as a contender of `bench_learning.py`, through the commands of its users."""

from __future__ import annotations

import contextlib
import json
import shutil
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path

from bench_seeds import call
from learning_task import UNSEEN, Task

from fcnseg.runs.run_folder import BEST_MODEL_FILE, MANIFEST_FILE, TENSORBOARD_FOLDER

_POLL_S = 0.3  # a network exists for an epoch at least before a better one replaces it


def train_and_predict(task: Task) -> None:
    """Trains, and segments the unseen images with the network of each checkpoint.

    The time is that of the run without validation; the graph is built in its first step.
    """
    run, kept = task.output / "run", task.output / "kept"
    with _keeping(run / BEST_MODEL_FILE, kept):
        call(
            *("fcnseg", "train", "--config", "demo", "--data", task.data / "records"),
            *("--run_dir", run, "--resume", "--training.seed", task.seed),
            *("--training.epochs", task.epochs, "--training.steps_per_epoch", task.steps_per_epoch),
            *("--training.validate_every", task.validate_every, *task.options["set"]),
        )
    networks = {int(path.stem) * task.steps_per_epoch: path for path in kept.iterdir()}
    for step in task.checkpoints:
        # The network that its user would have then: the best one so far.
        best = networks[max(at for at in networks if at <= step)]
        call(
            *("fcnseg", "predict", "--run_dir", _run_with(best, run), "--output", task.masks(step)),
            *("--images", task.data / UNSEEN, "--resume"),
        )
    manifest = json.loads((run / MANIFEST_FILE).read_text())
    seconds = manifest["seconds"] - manifest["validation_seconds"]
    task.finish(seconds=seconds, parameters=manifest["parameters"])


def _run_with(network: Path, run: Path) -> Path:
    """Makes the folder of a run with another network."""
    folder = network.parent.parent / f"run_{network.stem}"
    without = shutil.ignore_patterns(TENSORBOARD_FOLDER)
    shutil.copytree(run, folder, ignore=without, dirs_exist_ok=True)
    shutil.copy(network, folder / BEST_MODEL_FILE)
    return folder


@contextlib.contextmanager
def _keeping(network: Path, kept: Path) -> Iterator[None]:
    """Keeps a copy, EPOCH.keras, of each network that is the best for a while."""
    kept.mkdir(parents=True, exist_ok=True)
    ended = threading.Event()
    keeper = threading.Thread(target=_keep_until, args=(ended, network, kept))
    keeper.start()
    try:
        yield
    finally:
        ended.set()
        keeper.join()


def _keep_until(ended: threading.Event, network: Path, kept: Path) -> None:
    seen = 0
    last = False
    while not last:
        last = ended.wait(_POLL_S)  # one more look after the end
        if network.exists() and (changed := network.stat().st_mtime_ns) != seen:
            seen = changed
            unfinished = kept.parent / "unfinished.keras"
            shutil.copy(network, unfinished)  # a complete one: it is renamed into place
            with zipfile.ZipFile(unfinished) as archive:
                epoch = json.loads(archive.read("validation.json"))["epoch"]
            unfinished.rename(kept / f"{epoch}.keras")
