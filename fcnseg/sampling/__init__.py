"""Sampling of training batches and complete volumes from records, all inside tf.data."""

from fcnseg.sampling.datasets import Batch, make_training_dataset, make_volume_dataset
from fcnseg.sampling.folds import Fold

__all__ = ["Batch", "Fold", "make_training_dataset", "make_volume_dataset"]
