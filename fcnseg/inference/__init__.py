"""Segmenting whole volumes: the sliding window and the resampling, both inside the graph.

One `Segmenter` serves validation, prediction and the exported signatures.
"""

from fcnseg.inference.prediction import load_run, predict_volume
from fcnseg.inference.segmenter import Segmenter, make_segmenter

__all__ = ["Segmenter", "load_run", "make_segmenter", "predict_volume"]
