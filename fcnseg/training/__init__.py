"""Training, and the run folder it writes."""

from fcnseg.runs.run_folder import RunManifest, read_run
from fcnseg.training.dataset_checks import check_dataset, check_each_organ
from fcnseg.training.loop import LossError
from fcnseg.training.preemption import TrainingStoppedError
from fcnseg.training.training import TrainingResult, train

__all__ = [
    "LossError",
    "RunManifest",
    "TrainingResult",
    "TrainingStoppedError",
    "check_dataset",
    "check_each_organ",
    "read_run",
    "train",
]
