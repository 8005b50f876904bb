"""Sampling of training batches and complete volumes from records, all inside tf.data."""

from fcnseg.sampling.tf_datasets import Batch, make_training_dataset, make_volume_dataset

__all__ = ["Batch", "make_training_dataset", "make_volume_dataset"]
