"""nnU-Net as a contender of `bench_learning.py`: its own trainer, preprocessing and predictor.

Its own fingerprint, plan and preprocessing of the same files; the plan is then given the size of
network, patch and batch that all contenders have. The trainer is configured with the length of the
training and to validate on one batch per epoch, and reports the time of its steps. All else is its
default: SGD with a momentum of 0.99, its augmentation and mirroring, which its prediction averages
over too. `nnunet_adam` is its variant nnUNetTrainerVanillaAdam1en3.

Runs in the Python that has nnU-Net, with its variables in the environment:
`python learning_nnunet.py TASK`.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from learning_task import BATCH, FILTERS, IMAGES, LABELS, ORGANS, PATCH, SPACING_MM, Task
from nnunetv2.experiment_planning import plan_and_preprocess_api as planning
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.paths import nnUNet_preprocessed, nnUNet_raw
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.training.nnUNetTrainer.variants.optimizer.nnUNetTrainerAdam import (
    nnUNetTrainerVanillaAdam1en3,
)

DATASET_ID, DATASET = 1, "Dataset001_phantoms"
CONFIGURATION, PLANS = "3d_fullres", "nnUNetPlans"
_DEVICE = torch.device("cpu")


class TimedTrainer(nnUNetTrainer):
    """nnU-Net's trainer, with the time of its steps and checkpoints of its weights."""

    seconds = 0.0
    keep_after: frozenset[int] = frozenset()  # epochs
    kept: dict[int, dict[str, Any]] = {}  # noqa: RUF012 - replaced, never changed

    def on_train_epoch_start(self) -> None:
        """Starts the clock, before the first batch is waited for."""
        super().on_train_epoch_start()
        self._started = time.perf_counter()

    def on_train_epoch_end(self, train_outputs: list[dict[str, Any]]) -> None:
        """Stops the clock, before validation."""
        self.seconds += time.perf_counter() - self._started
        super().on_train_epoch_end(train_outputs)

    def on_epoch_end(self) -> None:
        """Saves the weights at checkpoints."""
        super().on_epoch_end()
        if self.current_epoch in self.keep_after:
            weights = {name: value.clone() for name, value in self.network.state_dict().items()}
            self.kept = {**self.kept, self.current_epoch: weights}


class TimedAdamTrainer(TimedTrainer, nnUNetTrainerVanillaAdam1en3):
    """The timed trainer with nnU-Net's variant for Adam."""


TRAINERS = {"nnunet": TimedTrainer, "nnunet_adam": TimedAdamTrainer}


def prepare(task: Task) -> None:
    """Makes the dataset in nnU-Net's form, planned and preprocessed; once for all runs."""
    raw, preprocessed = Path(nnUNet_raw) / DATASET, Path(nnUNet_preprocessed) / DATASET
    if (preprocessed / "splits_final.json").exists():
        return
    shutil.rmtree(raw, ignore_errors=True)
    shutil.rmtree(preprocessed, ignore_errors=True)
    learnt = task.cases("train") + task.cases("validation")
    write_raw(task, raw, learnt)
    workers = len(os.sched_getaffinity(0))
    planning.extract_fingerprints([DATASET_ID], num_processes=workers, show_progress_bar=False)
    planning.plan_experiments([DATASET_ID])
    set_sizes(preprocessed / f"{PLANS}.json")
    planning.preprocess(
        [DATASET_ID], PLANS, [CONFIGURATION], num_processes=[workers], show_progress_bar=False
    )
    splits = [{"train": task.cases("train"), "val": task.cases("validation")}]
    (preprocessed / "splits_final.json").write_text(json.dumps(splits))


def write_raw(task: Task, raw: Path, case_ids: list[str]) -> None:
    """Links the files, and writes the dataset's description."""
    for folder in ("imagesTr", "labelsTr"):
        (raw / folder).mkdir(parents=True)
    for case_id in case_ids:
        name = f"{case_id}.nii.gz"
        (raw / "imagesTr" / f"{case_id}_0000.nii.gz").symlink_to(task.data / IMAGES / name)
        (raw / "labelsTr" / name).symlink_to(task.data / LABELS / name)
    description = {
        "channel_names": {"0": "CT"},
        "labels": {name: index for index, name in enumerate(("background", *ORGANS))},
        "numTraining": len(case_ids),
        "file_ending": ".nii.gz",
    }
    (raw / "dataset.json").write_text(json.dumps(description))


def set_sizes(path: Path) -> None:
    """Gives the plan the sizes that all contenders have."""
    plans = json.loads(path.read_text())
    configuration = plans["configurations"][CONFIGURATION]
    planned = configuration["spacing"]
    assert np.allclose(planned, SPACING_MM, atol=1e-3), f"nnU-Net would resample to {planned}"
    levels = len(FILTERS)
    configuration |= {"spacing": [SPACING_MM] * 3, "patch_size": PATCH, "batch_size": BATCH}
    architecture = configuration["architecture"]
    assert architecture["network_class_name"].endswith("PlainConvUNet")
    architecture["arch_kwargs"] |= {
        "n_stages": levels,
        "features_per_stage": FILTERS,
        "kernel_sizes": [[3, 3, 3]] * levels,
        "strides": [[1, 1, 1]] + [[2, 2, 2]] * (levels - 1),
        "n_conv_per_stage": [2] * levels,
        "n_conv_per_stage_decoder": [2] * (levels - 1),
    }
    path.write_text(json.dumps(plans, indent=2))


def make_trainer(task: Task) -> Any:
    """Makes the trainer with the length of its training."""
    preprocessed = Path(nnUNet_preprocessed) / DATASET
    plans = json.loads((preprocessed / f"{PLANS}.json").read_text())
    description = json.loads((preprocessed / "dataset.json").read_text())
    trainer = TRAINERS[task.contender](
        {**plans, "continue_training": False}, CONFIGURATION, 0, description, _DEVICE
    )
    trainer.num_epochs = task.epochs
    trainer.num_iterations_per_epoch = task.steps_per_epoch
    trainer.num_val_iterations_per_epoch = 1
    trainer.keep_after = frozenset(step // task.steps_per_epoch for step in task.checkpoints)
    return trainer


def predict(task: Task, trainer: Any, weights: dict[str, Any], step: int) -> None:
    """Segments the unseen images with nnU-Net's predictor and its defaults."""
    trainer.set_deep_supervision_enabled(False)
    trainer.network.load_state_dict(weights)
    predictor = nnUNetPredictor(device=_DEVICE, allow_tqdm=False)
    predictor.manual_initialization(
        trainer.network,
        trainer.plans_manager,
        trainer.configuration_manager,
        [weights],
        trainer.dataset_json,
        type(trainer).__name__,
        trainer.inference_allowed_mirroring_axes,
    )
    task.masks(step).mkdir(exist_ok=True)
    case_ids = task.cases("test")
    predictor.predict_from_files_sequential(
        [[str(task.data / IMAGES / f"{case_id}.nii.gz")] for case_id in case_ids],
        [str(task.masks(step) / case_id) for case_id in case_ids],
    )


def main() -> None:
    task = Task.from_json(Path(sys.argv[1]).read_text())
    prepare(task)
    torch.set_num_threads(len(os.sched_getaffinity(0)))  # as in its command on a CPU
    random.seed(task.seed)
    np.random.seed(task.seed)  # noqa: NPY002 - nnU-Net's generator
    torch.manual_seed(task.seed)
    trainer = make_trainer(task)
    trainer.run_training()
    for epoch, weights in trainer.kept.items():
        predict(task, trainer, weights, epoch * task.steps_per_epoch)
    parameters = sum(weight.numel() for weight in trainer.network.parameters())
    task.finish(seconds=trainer.seconds, parameters=parameters)


if __name__ == "__main__":
    main()
