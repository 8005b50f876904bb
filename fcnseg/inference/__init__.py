"""Segmentation of complete volumes: sliding window and resampling, both inside the graph.

One `Segmenter` serves validation, prediction and the exported signatures.
"""

from fcnseg.inference.prediction import (
    Coarse,
    load_run,
    load_runs,
    predict_probabilities,
    predict_volume,
)
from fcnseg.inference.segmenter import Segmenter, make_segmenter

__all__ = [
    "Coarse",
    "Segmenter",
    "load_run",
    "load_runs",
    "make_segmenter",
    "predict_probabilities",
    "predict_volume",
]
