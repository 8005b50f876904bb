"""Training, and the folder that a run leaves."""

from fcnseg.run_folder import RunManifest, read_run
from fcnseg.training.training import TrainingResult, train

__all__ = ["RunManifest", "TrainingResult", "read_run", "train"]
