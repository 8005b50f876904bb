"""Where TensorFlow's CUDA build keeps tensors, read from its registry of kernels: needs no GPU."""

from __future__ import annotations

import math

import pytest
import tensorflow as tf
from tensorflow.python.framework import kernels, op_def_registry

# Kernels of the second kind are for every device.
_KINDS = {"GPU", "DEFAULT"}
needs_cuda_build = pytest.mark.skipif(
    not tf.test.is_built_with_cuda(), reason="this TensorFlow has no kernels for GPUs"
)


def large_on_host(concrete, *, least: int) -> set[tuple[str, str]]:
    """Ops of a concrete function, with the type, whose large outputs are in host memory on a GPU.

    For one that is in the input pipeline or is compiled by XLA this does not matter.

    Args:
        concrete: The function; of the functions that it calls nothing is seen.
        least: Elements of an output that is large.
    """
    return {
        (op.type, output.dtype.name)
        for op in concrete.graph.get_operations()
        if _kernels(op.type) and op.type != "Placeholder"
        for number, output in enumerate(op.outputs)
        if _elements(output) >= least and _is_on_host(op, number)
    }


def _elements(tensor) -> int:
    return math.prod(tensor.shape) if tensor.shape.is_fully_defined() else 0


def _kernels(op: str) -> list:
    """Registered kernels; none for calls of functions."""
    return list(kernels.get_registered_kernels_for_op(op).kernel)


def _is_on_host(op, number: int) -> bool:
    """Tells where an output lies: on the host without a kernel for it, or if the kernel says so."""
    fitting = [each for each in _kernels(op.type) if each.device_type in _KINDS]
    fitting = [each for each in fitting if _accepts(each, op.node_def)]
    if not fitting:
        return True
    best = max(fitting, key=lambda each: (each.priority, each.device_type == "GPU"))
    outputs = op_def_registry.get(op.type).output_arg
    name = outputs[min(number, len(outputs) - 1)].name  # a list of outputs has one name
    return name in best.host_memory_arg


def _accepts(kernel, node) -> bool:
    for constraint in kernel.constraint:
        value = node.attr[constraint.name]
        types = [value.type] if value.type else value.list.type
        if any(each not in constraint.allowed_values.list.type for each in types):
            return False
    return True
