"""Windows computed by OpenVINO, which takes less time than TensorFlow on a CPU."""

from __future__ import annotations

import logging
import tempfile
from pathlib import Path
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

from fcnseg.extras import require_extra
from fcnseg.inference.averaging import PredictPatches
from fcnseg.inference.computed_precision import openvino_core, precision_by_openvino
from fcnseg.networks.bfloat16_kernels import rounded_kernel
from fcnseg.networks.layers.upsampling import NonOverlappingConv3DTranspose
from fcnseg.networks.precision import Precision, precision_of, with_precision
from fcnseg.volumes import Shape

logger = logging.getLogger(__name__)


class _GroupNormalization(keras.layers.GroupNormalization):
    """Keras's layer in the operations that OpenVINO joins into one, its `MVN`.

    Those of Keras become a mean over six axes, which OpenVINO computes ten times as slowly.
    """

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        """Normalises (batch, z, y, x, channels)."""
        if self.groups not in (-1, inputs.shape[-1]):
            return super().call(inputs)
        voxels = [1, 2, 3]
        centred = inputs - tf.reduce_mean(inputs, voxels, keepdims=True)
        variance = tf.reduce_mean(centred * centred, voxels, keepdims=True)
        scale, shift = map(tf.convert_to_tensor, (self.gamma, self.beta))
        return centred / tf.sqrt(variance + self.epsilon) * scale + shift


_PLAIN = {
    keras.layers.GroupNormalization: _GroupNormalization,
    NonOverlappingConv3DTranspose: keras.layers.Conv3DTranspose,
}
"""Layers in whose place OpenVINO gets others with the same weights, of operations that it joins."""


def predictor_by_openvino(model: keras.Model, window: Shape) -> PredictPatches:
    """Makes the function from windows to probabilities; it has the weights that a network has now.

    It runs in the precision of the network, or in float32 on a CPU that does not compute in
    bfloat16, and can be called in a `tf.function`, but not exported.

    Args:
        model: From HU float32 (batch, z, y, x, 1) to logits (batch, z, y, x, classes).
        window: Voxels (z, y, x) of each patch.

    Raises:
        MissingExtraError: If OpenVINO is not installed.
    """
    return predictor_of(openvino_graph(model, window), precision_of(model))


def openvino_graph(model: keras.Model, window: Shape) -> Any:
    """Gives a network as `openvino.Model`, with the weights that it has now, in float32.

    Args:
        model: See `predictor_by_openvino`.
        window: Voxels (z, y, x) of each patch.

    Returns:
        From `patches`, HU float32 (batch, z, y, x, 1), to `probabilities`, float32
        (batch, z, y, x, classes).

    Raises:
        MissingExtraError: If OpenVINO is not installed.
    """
    core = openvino_core()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "network.pb")
        path.write_bytes(_frozen(model, window))
        graph = core.read_model(path)
    _append_softmax(graph)
    _compute_kernels(graph)
    graph.input().set_names({"patches"})
    graph.output().set_names({"probabilities"})
    return graph


def _append_softmax(graph: Any) -> None:
    """Makes logits probabilities: OpenVINO has the classes before the voxels.

    A softmax over the last axis takes four times as long.
    """
    operations = require_extra("openvino.opset13")
    (result,) = graph.get_results()
    logits = operations.transpose(result.input_value(0), [0, 4, 1, 2, 3])
    probabilities = operations.transpose(operations.softmax(logits, 1), [0, 2, 3, 4, 1])
    result.input(0).replace_source_output(probabilities.output(0))
    graph.validate_nodes_and_infer_types()


def _compute_kernels(graph: Any) -> None:
    """Multiplies factors of batch norms into kernels, which are constants then."""
    passes = require_extra("openvino.passes")
    manager = passes.Manager()
    manager.register_pass(passes.ConstantFolding())
    manager.run_passes(graph)


def predictor_of(graph: Any, precision: Precision) -> PredictPatches:
    """Makes the function from windows to probabilities of an `openvino.Model`, for any threads.

    Args:
        graph: As `openvino_graph` gives it; layers in int8 stay so.
        precision: Precision of all other layers; float32 on a CPU that has no bfloat16.

    Raises:
        MissingExtraError: If OpenVINO is not installed.
    """
    compiled = _compile(graph, precision)

    def infer(patches: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        request = compiled.create_infer_request()  # one for all calls would refuse a second thread
        found = request.infer(patches, share_inputs=True, share_outputs=True)
        probabilities: npt.NDArray[np.float32] = found[0]
        return probabilities

    _, *shape = graph.output().partial_shape

    def predict(patches: tf.Tensor) -> tf.Tensor:
        probabilities = tf.numpy_function(infer, [patches], tf.float32, stateful=False)
        return tf.ensure_shape(probabilities, [None, *(size.get_length() for size in shape)])

    return predict


def _compile(graph: Any, precision: Precision) -> Any:
    """Compiles a graph for this CPU; gives `openvino.CompiledModel`."""
    computed = precision_by_openvino(precision)
    if computed != precision:
        logger.info("OpenVINO computes in float32, as this CPU has no bfloat16")
    if computed == "bfloat16":
        graph = graph_with_rounded_kernels(graph)
    options = {
        "INFERENCE_PRECISION_HINT": {"float32": "f32", "bfloat16": "bf16"}[computed],
        "PERFORMANCE_HINT": "LATENCY",
    }
    return openvino_core().compile_model(graph, "CPU", options)


def graph_with_rounded_kernels(graph: Any) -> Any:
    """Rounds kernels to bfloat16, as OpenVINO would, but by `rounded_kernel`.

    Args:
        graph: As `openvino_graph` gives it; it stays as it is, as do kernels in int8.

    Returns:
        An `openvino.Model`.

    Raises:
        MissingExtraError: If OpenVINO is not installed.
    """
    operations = require_extra("openvino.opset13")
    rounded = graph.clone()
    for operation in rounded.get_ordered_ops():
        if operation.get_type_name() != "Convolution":
            continue
        kernel = operation.input_value(1).get_node()
        if kernel.get_type_name() == "Constant":
            weights = operations.constant(rounded_kernel(kernel.get_data(), taps=(2, 3, 4)))
            operation.input(1).replace_source_output(weights.output(0))
    return rounded


def _frozen(model: keras.Model, window: Shape) -> bytes:
    """Gives the graph of a network and its weights, in float32: OpenVINO has its own casts."""
    network = _in_plain_operations(with_precision(model, "float32"))
    patches = tf.TensorSpec([None, *window, 1], tf.float32)
    logits = tf.function(lambda hu: network(hu, training=False), input_signature=[patches])
    frozen = convert_variables_to_constants_v2(logits.get_concrete_function())
    graph: bytes = frozen.graph.as_graph_def().SerializeToString()
    return graph


def _in_plain_operations(model: keras.Model) -> keras.Model:
    """Builds a network again with the layers of `_PLAIN`."""

    def plain(layer: keras.layers.Layer) -> keras.layers.Layer:
        kind = _PLAIN.get(type(layer), type(layer))
        return kind.from_config(layer.get_config())

    network = keras.models.clone_model(model, clone_function=plain)
    network.set_weights(model.get_weights())
    return network
