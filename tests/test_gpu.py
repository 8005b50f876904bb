"""What only a GPU can show: `pytest -m gpu`. `make gpu-check` measures the same at full size."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from killed_training import train_and_die
from scripts import output_of
from small_models import CONFIG, make_hu, make_info, make_network, write_run
from small_runs import ALL_STATE, assert_same_runs

from fcnseg.config import PRESETS, override, write_config
from fcnseg.inference import make_segmenter
from fcnseg.networks.build import build_fcn
from fcnseg.records import Dataset
from fcnseg.saved_model.export import export_run
from fcnseg.training import read_run
from fcnseg.training.assembly import build_model, make_average, make_step, patches_maker
from fcnseg.training.step import make_steps
from tuning.trials import Progress

ROOT = Path(__file__).parent.parent
GPUS = tf.config.list_physical_devices("GPU")
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.timeout(900),
    pytest.mark.skipif(not GPUS, reason="TensorFlow sees no GPU"),
]
SMALL = {
    "model.filters": [8, 16, 32, 32],
    "patches.size": [16, 32, 32],
    "patches.shuffle_buffer": 4,
    "inference.overlap": [4, 4, 4],
    "training.tensorboard": False,
}


def losses_of(config, dataset, *, steps=20):
    """The losses of steps on one batch, the mean of the epoch so far."""
    data = Dataset.open(dataset)
    model = build_model(config, data.info, devices=["GPU:0"])
    do_steps = make_steps(make_step(config, model, data.info), make_average(config, model))
    batch = next(iter(patches_maker(config, data, replicas=1)()))
    one = tf.data.Dataset.from_tensors(batch).repeat()
    feed = iter(model.distribute_strategy.experimental_distribute_dataset(one))
    return [float(do_steps(feed, number, 1)[0]["loss"]) for number in range(1, steps + 1)]


@pytest.mark.parametrize("jit_compile", [False, True], ids=["plain", "XLA"])
@pytest.mark.parametrize("precision", ["float32", "mixed_bfloat16", "mixed_float16"])
@pytest.mark.parametrize("preset", ["demo", "roth2018", "fcn_m"])
def test_presets_learn_in_each_precision(dataset, preset, precision, jit_compile):
    changes = {"training.precision": precision, "training.jit_compile": jit_compile}
    losses = losses_of(override(PRESETS[preset], {**SMALL, **changes}), dataset)
    assert np.isfinite(losses).all()
    assert losses[-1] < losses[0]


def test_augmentation_on_the_gpu_gives_the_patches_of_the_host(dataset):
    data = Dataset.open(dataset)
    patches = []
    for run_on in ("host", "device"):
        config = override(PRESETS["fcn_m"], {**SMALL, "augmentation.run_on": run_on})
        step = make_step(config, build_model(config, data.info, devices=["GPU:0"]), data.info)
        batch = next(iter(patches_maker(config, data, replicas=1)()))
        with tf.device("GPU:0"):
            patches.append([np.array(part) for part in tf.function(step.augmented)(batch)])
    (hu, label), (other_hu, other_label) = patches
    assert np.mean(np.abs(hu - other_hu) <= 1) > 0.999
    assert np.mean(label == other_label) > 0.999


def test_masks_of_gpu_and_cpu_are_the_same():
    segmenter = make_segmenter(make_network(), make_info())
    volume, spacing = make_hu((40, 41, 39)), np.array((1.5, 2.5, 3.0), np.float32)
    masks = []
    for device in ("GPU:0", "CPU:0"):
        with tf.device(device):
            masks.append(segmenter.segment_volume(volume, spacing)["labels"].numpy())
    assert np.mean(masks[0] == masks[1]) > 0.9999


EXPORT_WITH_ALL_MEMORY = """
import os, sys
os.environ["TF_FORCE_GPU_ALLOW_GROWTH"] = "false"
import tensorflow as tf
from fcnseg.saved_model.export import export_run

tf.zeros(())  # takes nearly all memory of the GPU
print(export_run(*sys.argv[1:]).name)
"""


@pytest.mark.parametrize("precision", ["float32", "mixed_bfloat16", "mixed_float16"])
def test_a_process_that_holds_all_memory_exports(tmp_path, precision):
    """The check before publication starts a second process, and is on the CPU."""
    run_dir = write_run(tmp_path / "run")
    network = build_fcn(CONFIG.model, num_classes=3, precision=precision)
    network.save(run_dir / "best.keras")
    assert output_of(EXPORT_WITH_ALL_MEMORY, run_dir, tmp_path / "models").split()[-1] == "1"


SEGMENT_BY_SESSION = """
import os, sys
os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")  # as the commands of fcnseg do
import numpy as np
from small_models import make_hu
from fcnseg.saved_model.session import SavedModelSession

version, answer = sys.argv[1:]
spacing = np.array((1.5, 2.5, 3.0), np.float32)
inputs = {"volume": make_hu((40, 41, 39)), "spacing": spacing}
np.save(answer, SavedModelSession(version).run("segment_volume", inputs)["labels"])
"""


def test_masks_of_a_saved_model_in_the_runtime_of_the_server_are_those_of_the_cpu(
    tmp_path, monkeypatch
):
    version = export_run(write_run(tmp_path / "run"), tmp_path / "models")
    masks = []
    for name, visible in (("gpu", None), ("cpu", "-1")):
        with monkeypatch.context() as patch:
            if visible is not None:
                patch.setenv("CUDA_VISIBLE_DEVICES", visible)
            output_of(SEGMENT_BY_SESSION, version, tmp_path / f"{name}.npy")
        masks.append(np.load(tmp_path / f"{name}.npy"))
    assert np.mean(masks[0] == masks[1]) > 0.9999


USED_MEMORY = """
import subprocess
import tensorflow as tf

with tf.device("GPU:0"):
    tf.zeros(()).numpy()
query = ["nvidia-smi", "--query-gpu=memory.used,memory.total", "--format=csv,noheader,nounits"]
print(subprocess.run(query, capture_output=True, text=True, check=True).stdout.splitlines()[0])
"""


@pytest.mark.skipif(shutil.which("nvidia-smi") is None, reason="nvidia-smi is not there")
@pytest.mark.parametrize(("growth", "takes_all"), [("true", False), ("false", True)])
def test_a_process_takes_nearly_all_memory_only_without_growth(monkeypatch, growth, takes_all):
    monkeypatch.setenv("TF_FORCE_GPU_ALLOW_GROWTH", growth)
    used, total = map(int, output_of(USED_MEMORY).splitlines()[-1].split(","))
    assert (used > 0.8 * total) == takes_all


def search(config, dataset, folder):
    """A search of two trials, in a process of its own."""
    folder.mkdir()
    space = folder / "space.yaml"
    space.write_text("training.learning_rate: {choice: [0.001, 0.01]}")
    command = [sys.executable, "-m", "tuning.search", "--config", config, "--data", dataset]
    words = [*command, "--space", space, "--max_trials", 2, "--output", folder / "search"]
    return subprocess.Popen(list(map(str, words)), cwd=ROOT, stderr=subprocess.PIPE, text=True)


def assert_all_succeed(processes):
    for process in processes:
        _, messages = process.communicate()
        assert process.returncode == 0, messages


def test_trials_of_two_searches_share_a_gpu(dataset, tmp_path):
    """A trial has a process of its own, which takes memory as it needs it."""
    write_config(ALL_STATE, tmp_path / "config.yaml")
    both = [search(tmp_path / "config.yaml", dataset, tmp_path / name) for name in ("one", "two")]
    assert_all_succeed(both)
    for name in ("one", "two"):
        for trial in Progress.read(tmp_path / name / "search").trials:
            run = read_run(tmp_path / name / "search/trials" / trial.trial_id)
            assert all("GPU" in device for device in run.devices)


def start(config, dataset, run_dir, *flags, **environment):
    command = [sys.executable, "-m", "fcnseg", "train", "--config", config, "--data", dataset]
    words = map(str, [*command, "--run_dir", run_dir, *flags])
    return subprocess.Popen(
        list(words), cwd=ROOT, env={**os.environ, **environment}, stderr=subprocess.PIPE, text=True
    )


def test_two_trainings_share_a_gpu(dataset, tmp_path):
    """Commands take memory as they need it."""
    write_config(ALL_STATE, tmp_path / "config.yaml")
    both = [start(tmp_path / "config.yaml", dataset, tmp_path / name) for name in ("one", "two")]
    assert_all_succeed(both)


@pytest.mark.parametrize("precision", ["float32", "mixed_float16"])
def test_a_killed_run_resumes_to_the_bit_with_deterministic_operations(
    dataset, tmp_path, precision
):
    """The scale of the loss is in the checkpoint too."""
    config = override(ALL_STATE, {"training.precision": precision})
    write_config(config, tmp_path / "config.yaml")

    def run(name, *, last_step=-1):
        place = (tmp_path / "config.yaml", dataset, tmp_path / name)
        return train_and_die(*place, last_step=last_step)

    assert run("complete") == 0
    assert run("killed", last_step=7) == -signal.SIGKILL
    assert run("killed") == 0
    assert_same_runs(tmp_path / "complete", tmp_path / "killed")
