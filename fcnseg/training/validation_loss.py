"""The loss of patches of the validation cases, to compare with that of training."""

from __future__ import annotations

import keras
import tensorflow as tf

from fcnseg.config import Config
from fcnseg.networks import output_shape
from fcnseg.networks.keras_compat import compute_loss
from fcnseg.records import Dataset, Fold
from fcnseg.sampling import Batch, make_training_dataset

_PATCHES = 32  # a few hundred megabytes at most; their mean hardly moves with more
_SEED = 0  # of the patches: equal in every run on a dataset


class ValidationLoss:
    """The mean loss of patches that stay the same throughout a run, and from run to run.

    They are drawn like those of training, without augmentation. The loss has the same terms as that
    of training, deep supervision and weight decay included.
    """

    def __init__(self, model: keras.Model, patches: tf.data.Dataset) -> None:
        """Takes the patches.

        Args:
            model: Compiled model.
            patches: A finite dataset of `Batch`.
        """
        self._model = model
        self._patches = patches.cache()

    def __call__(self) -> float:
        """Computes the loss for the present weights."""
        losses = [float(self._loss(batch)) for batch in self._patches]
        return sum(losses) / len(losses)

    @tf.function
    def _loss(self, batch: Batch) -> tf.Tensor:
        """The loss of a batch; each replica computes its share of the same one."""
        strategy = self._model.distribute_strategy
        shares = strategy.run(self._of_replica, args=(batch,))
        return strategy.reduce(tf.distribute.ReduceOp.SUM, shares, axis=None)

    def _of_replica(self, batch: Batch) -> tf.Tensor:
        logits = self._model(batch.hu, training=False)
        return compute_loss(self._model, batch.hu, batch.label, logits, training=False)


def make_validation_loss(
    model: keras.Model, config: Config, dataset: Dataset, *, fold: Fold | None
) -> ValidationLoss:
    """Makes the validation loss of a run.

    Args:
        model: Compiled model.
        config: All settings.
        dataset: A finished dataset.
        fold: Fold that reassigns the cases for training and for validation.
    """
    patches = make_training_dataset(
        dataset,
        config.patches,
        seed=_SEED,
        split="validation",
        fold=fold,
        label_size=output_shape(config.model, config.patches.size),
    )
    return ValidationLoss(model, patches.take(max(1, _PATCHES // config.patches.batch_size)))
