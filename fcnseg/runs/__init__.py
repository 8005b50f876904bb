"""Runs: the output folder of a training, its manifest, and the facts of a trained model."""

from fcnseg.runs.model_info import ModelInfo
from fcnseg.runs.run import Run
from fcnseg.runs.run_folder import RunManifest, read_run

__all__ = ["ModelInfo", "Run", "RunManifest", "read_run"]
