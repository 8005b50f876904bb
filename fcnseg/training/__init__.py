"""Training, and the folder that a run leaves."""

from fcnseg.run_folder import RunManifest, read_run
from fcnseg.training.training import TrainingResult, check_dataset, train

__all__ = ["RunManifest", "TrainingResult", "check_dataset", "read_run", "train"]
