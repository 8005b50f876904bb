"""Augmentation of training patches: drawn parameters, one resampling, changes of HU.

`draw_parameters` draws on the host, patch by patch; `Augmentation` applies the drawn parameters to
a batch, by tensor operations that depend on nothing else. So the same seed gives the same patches
whether the tensors are on the CPU or on an accelerator, compiled by XLA or not (its random numbers
are not TensorFlow's).
"""

from fcnseg.sampling.augmentation.augmentation import Augmentation

__all__ = ["Augmentation"]
