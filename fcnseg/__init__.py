"""fcnseg: 3D fully convolutional segmentation of abdominal CT, from scans to a served model.

Importing the package is fast and silent: each name below is imported on first use, together with
TensorFlow, Beam or matplotlib if its module needs them.
"""

from __future__ import annotations

import importlib
import os
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

# TensorFlow reads this on import. By itself it uses oneDNN only where a CPU has AVX512-VNNI or
# newer; on one with AVX2 a training step takes a quarter of the CPU time with it (demo's network).
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")

__version__ = version("fcnseg")

if TYPE_CHECKING:
    from fcnseg.client import SegmentationClient
    from fcnseg.config import PRESETS, Config, read_config, write_config
    from fcnseg.errors import FcnsegError
    from fcnseg.evaluation import Evaluation, score_organs
    from fcnseg.inference import load_run, make_segmenter, predict_volume
    from fcnseg.losses import build_loss
    from fcnseg.networks.build import build_fcn
    from fcnseg.planning import propose
    from fcnseg.records import Dataset
    from fcnseg.runs import ModelInfo, Run
    from fcnseg.sampling import make_training_dataset, make_volume_dataset
    from fcnseg.saved_model.export import export_run
    from fcnseg.training import train
    from fcnseg.volumes import LabelMap, Volume, read_ct, read_label, write_mask

_MODULES = {
    "fcnseg.client": ("SegmentationClient",),
    "fcnseg.config": ("PRESETS", "Config", "read_config", "write_config"),
    "fcnseg.errors": ("FcnsegError",),
    "fcnseg.evaluation": ("Evaluation", "score_organs"),
    "fcnseg.inference": ("load_run", "make_segmenter", "predict_volume"),
    "fcnseg.losses": ("build_loss",),
    "fcnseg.networks.build": ("build_fcn",),
    "fcnseg.planning": ("propose",),
    "fcnseg.records": ("Dataset",),
    "fcnseg.runs": ("ModelInfo", "Run"),
    "fcnseg.sampling": ("make_training_dataset", "make_volume_dataset"),
    "fcnseg.saved_model.export": ("export_run",),
    "fcnseg.training": ("train",),
    "fcnseg.volumes": ("LabelMap", "Volume", "read_ct", "read_label", "write_mask"),
}
_MODULE_OF = {name: module for module, names in _MODULES.items() for name in names}

__all__ = [
    "PRESETS",
    "Config",
    "Dataset",
    "Evaluation",
    "FcnsegError",
    "LabelMap",
    "ModelInfo",
    "Run",
    "SegmentationClient",
    "Volume",
    "__version__",
    "build_fcn",
    "build_loss",
    "export_run",
    "load_run",
    "make_segmenter",
    "make_training_dataset",
    "make_volume_dataset",
    "predict_volume",
    "propose",
    "read_config",
    "read_ct",
    "read_label",
    "score_organs",
    "train",
    "write_config",
    "write_mask",
]


def __getattr__(name: str) -> Any:
    """Imports a name of `__all__` when it is first used."""
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_MODULE_OF[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
