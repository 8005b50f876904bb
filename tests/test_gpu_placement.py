"""What runs on a GPU in a training step, as far as it can be told without one."""

from __future__ import annotations

import pytest
import tensorflow as tf
from gpu_kernels import large_on_host, needs_cuda_build

from fcnseg.config import PRESETS, override
from fcnseg.records import Dataset
from fcnseg.training.assembly import build_model, make_step, patches_maker

# OrganDice counts classes on the host; it is the only use of int32 voxels outside of XLA. Its
# kernel for GPUs is refused where operations must be deterministic.
COUNTED_ON_THE_HOST = {("Reshape", "int32"), ("Equal", "bool")}


@pytest.mark.slow
@needs_cuda_build
def test_voxels_of_a_training_step_stay_on_the_gpu(dataset):
    """With augmentation in the step, deep supervision, instance norm and residual blocks."""
    config = override(
        PRESETS["fcn_m"],
        {
            "model.filters": [2, 2, 4],
            "model.residual_blocks": [1, 1, 1],
            "model.deep_supervision": 1,
            "patches.size": [8, 8, 8],
            "patches.shuffle_buffer": 2,
            "augmentation.run_on": "device",
            "inference.overlap": [2, 2, 2],
        },
    )
    data = Dataset.open(dataset)
    batch = next(iter(patches_maker(config, data, replicas=1)()))
    step = make_step(config, build_model(config, data.info), data.info)
    concrete = tf.function(step.on_replica).get_concrete_function(batch)
    assert large_on_host(concrete, least=8**3) == COUNTED_ON_THE_HOST


@needs_cuda_build
def test_a_gather_of_voxels_that_leaves_the_gpu_is_seen():
    voxels = tf.TensorSpec([1000], tf.uint8)
    places = tf.TensorSpec([1000], tf.int32)
    concrete = tf.function(tf.gather).get_concrete_function(voxels, places)
    assert large_on_host(concrete, least=1000) == {("GatherV2", "uint8")}
