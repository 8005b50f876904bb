"""Segmentation of complete volumes: sliding window and resampling, both inside the graph.

One `Segmenter` serves validation, prediction and the exported signatures. Each name below is
imported, and TensorFlow with it, on first use: the modules of files need none.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fcnseg.inference.prediction import (
        load_run,
        load_runs,
        predict_probabilities,
        predict_volume,
    )
    from fcnseg.inference.segmentation import Coarse
    from fcnseg.inference.segmenter import Segmenter, make_segmenter

_MODULE_OF = {
    **dict.fromkeys(("Segmenter", "make_segmenter"), "fcnseg.inference.segmenter"),
    "Coarse": "fcnseg.inference.segmentation",
    **dict.fromkeys(
        ("load_run", "load_runs", "predict_probabilities", "predict_volume"),
        "fcnseg.inference.prediction",
    ),
}

__all__ = [
    "Coarse",
    "Segmenter",
    "load_run",
    "load_runs",
    "make_segmenter",
    "predict_probabilities",
    "predict_volume",
]


def __getattr__(name: str) -> Any:
    """Imports a name of `__all__` when it is first used."""
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_MODULE_OF[name]), name)
