"""Records to training batches and to whole volumes, all inside tf.data."""

from fcnseg.data.datasets import make_training_dataset, make_volume_dataset

__all__ = ["make_training_dataset", "make_volume_dataset"]
