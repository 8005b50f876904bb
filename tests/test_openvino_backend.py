"""Windows by OpenVINO: the probabilities and the masks of TensorFlow."""

from __future__ import annotations

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import keras
import nibabel as nib
import numpy as np
import pytest
import tensorflow as tf
from small_models import (
    CONFIG,
    CROP,
    in_bfloat16,
    make_hu,
    make_info,
    make_network,
    make_oblique_volume,
    write_run,
)

from fcnseg.cli.predict import PredictCommand
from fcnseg.config import ModelConfig
from fcnseg.errors import ModelError
from fcnseg.inference import make_segmenter, predict_volume
from fcnseg.networks.build import build_fcn
from fcnseg.networks.precision import with_precision
from fcnseg.saved_model.export import export_segmenter
from fcnseg.saved_model.signatures import ServedModel
from fcnseg.volumes import write_volume

pytest.importorskip("openvino", reason="extra openvino")

from fcnseg.inference.computed_precision import openvino_core
from fcnseg.inference.openvino_backend import (
    graph_with_rounded_kernels,
    openvino_graph,
    predictor_by_openvino,
)

WINDOW = (20, 28, 20)
NETWORKS = {
    "batch norm": ModelConfig(filters=(4, 8, 12)),
    "leaky ReLU": ModelConfig(filters=(4, 8), activation="leaky_relu"),
    "instance norm, residual blocks": ModelConfig(
        filters=(4, 8), norm="instance", residual_blocks=(1, 2), widen="first"
    ),
    "group norm": ModelConfig(filters=(8, 16), norm="group"),
    "no norm, sums": ModelConfig(filters=(4, 8), norm="none", skip="sum"),
    "linear upsampling": ModelConfig(filters=(4, 8), upsampling="linear"),
    "strides": ModelConfig(filters=(4, 8), strides=((1, 2, 2),)),
    "dropout": ModelConfig(filters=(4, 8), dropout=0.3),
    "pyramid": ModelConfig(filters=(4, 8), pyramid=2),
    "no padding": ModelConfig(filters=(2, 4), padding="valid"),
}


def make_windows(count=3, window=WINDOW):
    hu = np.stack([make_hu(window, seed=seed) for seed in range(count)])
    return hu[..., np.newaxis].astype(np.float32)


def with_random_moments(model):
    """So that batch norm's averages count."""
    rng = np.random.default_rng(0)
    model.set_weights(
        [
            weight + rng.uniform(0, 0.2, weight.shape).astype(np.float32)
            for weight in model.get_weights()
        ]
    )
    return model


def probabilities(model, windows):
    return tf.nn.softmax(tf.cast(model(windows, training=False), tf.float32)).numpy()


@pytest.mark.parametrize("name", NETWORKS)
def test_probabilities_are_those_of_tensorflow(name):
    keras.utils.set_random_seed(0)
    model = with_random_moments(build_fcn(NETWORKS[name], num_classes=3))
    predict = predictor_by_openvino(model, WINDOW)
    for count in (3, 1):  # the last batch of a volume is smaller
        windows = make_windows(count)
        found = tf.function(predict)(tf.constant(windows)).numpy()
        np.testing.assert_allclose(found, probabilities(model, windows), atol=2e-4)


def test_a_network_of_bfloat16_predicts_in_it():
    """In bfloat16 where the CPU has it, and in float32 elsewhere; either way nearly the same."""
    model = with_precision(make_network(), "mixed_bfloat16")
    windows = make_windows()
    found = predictor_by_openvino(model, WINDOW)(tf.constant(windows)).numpy()
    expected = probabilities(with_precision(model, "float32"), windows)
    np.testing.assert_allclose(found, expected, atol=0.05)
    has_bfloat16 = "BF16" in openvino_core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    assert (np.abs(found - expected).max() > 1e-4) == has_bfloat16


def kernels_of(graph):
    """Those of its convolutions, each (filters, channels, z, y, x)."""
    return [
        operation.input_value(1).get_node().get_data().copy()
        for operation in graph.get_ordered_ops()
        if operation.get_type_name() == "Convolution"
    ]


@pytest.mark.parametrize("name", ["batch norm", "instance norm, residual blocks"])
def test_kernels_in_bfloat16_keep_the_sums_of_their_taps(name):
    model = with_random_moments(build_fcn(NETWORKS[name], num_classes=3))
    graph = openvino_graph(model, WINDOW)
    before = kernels_of(graph)
    rounded = kernels_of(graph_with_rounded_kernels(graph))
    assert len(rounded) == len(before) > 4
    for kernel, found in zip(before, rounded, strict=True):
        np.testing.assert_array_equal(found, in_bfloat16(found))
        error = np.abs((found - kernel).sum((2, 3, 4), dtype=np.float64))
        assert error.max() <= 2**-8 * np.abs(kernel).max()
    for kernel, found in zip(before, kernels_of(graph), strict=True):
        np.testing.assert_array_equal(found, kernel)


def test_threads_may_share_a_segmenter():
    segmenter = make_segmenter(make_network(), make_info(), backend="openvino")
    batches = [make_windows(count, CONFIG.patches.size) for count in (1, 2, 3, 2)]

    def predict(batch):
        return segmenter.predict_patches(batch)["probabilities"].numpy()

    expected = [predict(batch) for batch in batches]
    with ThreadPoolExecutor(len(batches)) as threads:
        for found in threads.map(predict, batches * 25):
            np.testing.assert_array_equal(found, expected.pop(0))
            expected.append(found)


@pytest.fixture(scope="module")
def segmenters():
    """Those of TensorFlow and of OpenVINO, which average two networks and flips."""
    models = [make_network(seed=seed) for seed in range(2)]
    return [
        make_segmenter(models, make_info(), flips=("z", "x"), backend=backend)
        for backend in ("tensorflow", "openvino")
    ]


def test_masks_are_those_of_tensorflow(segmenters):
    volume = make_oblique_volume((31, 40, 37))
    expected, found = (predict_volume(each, volume) for each in segmenters)
    assert len(np.unique(expected)) > 1
    assert (found == expected).mean() >= 0.9999


def test_a_run_of_patches_that_overlap_no_window(segmenters):
    """A volume smaller than a window is padded as in TensorFlow."""
    volume = make_oblique_volume((5, 4, 6))
    expected, found = (predict_volume(each, volume) for each in segmenters)
    np.testing.assert_array_equal(found, expected)


@pytest.mark.slow
def test_the_command_writes_the_masks_of_tensorflow(tmp_path):
    run_dir = write_run(tmp_path / "run")
    write_volume(make_oblique_volume((15, 14, 18)), tmp_path / "image.nii.gz")
    masks = {}
    for backend in ("tensorflow", "openvino"):
        output = tmp_path / backend
        image = tmp_path / "image.nii.gz"
        PredictCommand(
            (run_dir,),
            images=image,
            output=output,
            accept=CROP,
            backend=backend,
            precision="float32",
            coarse_run_dir=run_dir,
        ).run()
        masks[backend] = np.asarray(nib.load(output / "image.nii.gz").dataobj)
    np.testing.assert_array_equal(masks["openvino"], masks["tensorflow"])
    made_with = json.loads((tmp_path / "openvino" / "image.json").read_text())["made_with"]
    assert (made_with["backend"], made_with["precision"]) == ("openvino", "float32")


SIGNALLED = """
import gc, os, signal
from fcnseg.inference.openvino_backend import predictor_by_openvino
from fcnseg.networks.build import build_fcn
from fcnseg.config import ModelConfig

signal.signal(signal.SIGTERM, lambda *_: print("stopped"))
model = build_fcn(ModelConfig(filters=(2, 4)), num_classes=2)
first, second = (predictor_by_openvino(model, (4, 4, 4)) for _ in range(2))
del first
gc.collect()
del second
gc.collect()
os.kill(os.getpid(), signal.SIGTERM)
"""


@pytest.mark.slow
def test_a_signal_is_handled_after_networks_were_deleted():
    done = subprocess.run([sys.executable, "-c", SIGNALLED], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "stopped\n"), done.stderr


def test_an_export_runs_in_tensorflow(tmp_path):
    segmenter = make_segmenter(make_network(), make_info(), backend="openvino")
    with pytest.raises(
        ModelError, match="an export runs in TensorFlow, got a segmenter of openvin"
    ):
        export_segmenter(segmenter, tmp_path / "model")
    assert not (tmp_path / "model").exists()


@pytest.mark.slow
def test_openvino_reads_an_export(tmp_path):
    """The default signature of the SavedModel, which OpenVINO Model Server serves."""
    segmenter = make_segmenter(make_network(), make_info())
    ServedModel(segmenter).write(tmp_path / "model")
    model = openvino_core().read_model(tmp_path / "model")
    windows = make_windows(2, CONFIG.patches.size)
    expected = segmenter.predict_patches(windows)["probabilities"]
    found = openvino_core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})(
        windows
    )
    np.testing.assert_allclose(found[0], expected, atol=1e-4)
