"""Half precision is refused where its gradients are wrong."""

from __future__ import annotations

import dataclasses

import pytest
import tensorflow as tf
from small_models import write_run

from fcnseg.config import Config, InferenceConfig, ModelConfig, PatchConfig, TrainingConfig
from fcnseg.errors import ConfigError, InputError
from fcnseg.inference import prediction
from fcnseg.inference.prediction import load_runs
from fcnseg.networks.onednn_faults import has_narrow_stride, is_affected
from fcnseg.training import read_run
from fcnseg.training.half_precision import (
    check_half_precision,
    check_known_errors,
    gradient_error,
    kernel_gradient,
)


def config(*, depth=16, batch_size=2, precision="mixed_bfloat16"):
    """A network of three levels, the lowest a quarter as deep as the patch."""
    return Config(
        model=ModelConfig(filters=(4, 8, 8)),
        patches=PatchConfig(size=(depth, 16, 16), batch_size=batch_size),
        training=TrainingConfig(precision=precision),
        inference=InferenceConfig(overlap=(2, 4, 4)),
    )


@pytest.mark.parametrize("dtype", [tf.bfloat16, tf.float16])
@pytest.mark.parametrize("depth", [1, 3, 4])
def test_right_gradients_pass(depth, dtype):
    assert gradient_error((2, depth, 8, 8, 8), dtype) < 0.02


def test_a_gradient_with_garbage_is_seen():
    def gradient(inputs, kernel, outputs):
        right = kernel_gradient(inputs, kernel, outputs)
        return right if inputs.dtype == tf.float32 else right + tf.reduce_max(right)

    assert gradient_error((2, 4, 8, 8, 4), tf.bfloat16, gradient=gradient) > 0.9


def test_a_gradient_that_is_no_number_is_refused():
    def gradient(inputs, kernel, outputs):
        right = tf.zeros_like(kernel) + 1
        return right if inputs.dtype == tf.float32 else right * float("nan")

    with pytest.raises(ConfigError, match=r"must be float32 on CPU:0: in mixed_bfloat16 the grad"):
        check_half_precision(config(), ["CPU:0"], num_classes=3, gradient=gradient)


def test_each_device_is_tested(tmp_path):
    """A machine may have one GPU that is broken."""
    calls = []

    def right(inputs, kernel, outputs):
        calls.append(inputs.dtype)
        return kernel_gradient(inputs, kernel, outputs)

    options = {"num_classes": 3, "cpuinfo": tmp_path / "none"}
    check_half_precision(config(), ["CPU:0"], gradient=right, **options)
    of_one_device = len(calls)

    def wrong_on_the_second(inputs, kernel, outputs):
        is_wrong = len(calls) >= 2 * of_one_device and inputs.dtype == tf.bfloat16
        return right(inputs, kernel, outputs) * (2 if is_wrong else 1)

    with pytest.raises(ConfigError, match="must be float32 on CPU:0: in mixed_bfloat16 the grad"):
        check_half_precision(config(), ["CPU:0", "CPU:0"], gradient=wrong_on_the_second, **options)


@pytest.mark.parametrize(
    ("settings", "device", "flags", "is_refused"),
    [
        ({"depth": 8}, "CPU:0", "flags : avx2 avx512_bf16", True),
        ({"depth": 8}, "CPU:0", "flags : avx2 amx_bf16", True),
        ({"depth": 8}, "CPU:0", "flags : avx2", False),
        ({"depth": 16}, "CPU:0", "flags : avx2 avx512_bf16", False),  # levels of 16, 8, 4
        ({"depth": 8, "batch_size": 1}, "CPU:0", "flags : avx512_bf16", False),
        ({"depth": 8, "precision": "float32"}, "CPU:0", "flags : avx512_bf16", False),
    ],
)
def test_two_slices_are_refused_on_affected_cpus(
    tmp_path, monkeypatch, settings, device, flags, is_refused
):
    (tmp_path / "cpuinfo").write_text(flags)
    monkeypatch.delenv("TF_ENABLE_ONEDNN_OPTS", raising=False)
    options = {
        "num_classes": 3,
        "cpuinfo": tmp_path / "cpuinfo",
        "gradient": lambda inputs, kernel, outputs: tf.ones_like(kernel),
    }
    if not is_refused:
        check_half_precision(config(**settings), [device], **options)
        return
    with pytest.raises(ConfigError, match=r"got mixed_bfloat16 and levels of 2, 4, 8 slices"):
        check_half_precision(config(**settings), [device], **options)


@pytest.mark.parametrize("off", ["0", "false", "False"])
def test_without_onednn_no_cpu_is_affected(tmp_path, monkeypatch, off):
    (tmp_path / "cpuinfo").write_text("flags : avx512_bf16")
    monkeypatch.setenv("TF_ENABLE_ONEDNN_OPTS", off)
    assert not is_affected(tmp_path / "cpuinfo")
    monkeypatch.delenv("TF_ENABLE_ONEDNN_OPTS")
    assert is_affected(tmp_path / "cpuinfo")
    assert not is_affected(tmp_path / "no such file")


def residual(*, filters=(4, 8, 8, 8), strides=(), kernels=()):
    blocks = (1,) * len(filters)
    return ModelConfig(filters=filters, residual_blocks=blocks, strides=strides, kernels=kernels)


FLAT = ((2, 2, 2), (2, 2, 2), (2, 2, 1))  # the last is none along x


@pytest.mark.parametrize(
    ("model", "width", "is_narrow"),
    [
        (residual(), 8, True),
        (residual(), 16, False),
        (residual(strides=FLAT), 8, False),
        (residual(strides=FLAT), 4, True),
        (ModelConfig(filters=(4, 8, 8, 8)), 8, False),  # it pools
    ],
)
def test_a_stride_to_one_voxel_along_x_is_found(model, width, is_narrow):
    assert has_narrow_stride(model, (32, 16, width)) == is_narrow


def narrow(*, batch_size=2):
    return dataclasses.replace(
        config(),
        model=residual(),
        patches=PatchConfig(size=(32, 16, 8), batch_size=batch_size),
        inference=InferenceConfig(overlap=(2, 4, 2)),
    )


@pytest.mark.parametrize("batch_size", [1, 2])
def test_a_stride_to_one_voxel_along_x_is_refused_on_affected_cpus(tmp_path, batch_size):
    (tmp_path / "cpuinfo").write_text("flags : amx_bf16")
    options = {"num_classes": 3, "cpuinfo": tmp_path / "cpuinfo"}
    with pytest.raises(ConfigError, match=r"must be float32 where .* patches of 8 voxels along x"):
        check_known_errors(narrow(batch_size=batch_size), "CPU:0", **options)


def test_it_is_refused_in_prediction_too(tmp_path, monkeypatch):
    run = write_run(tmp_path / "run", window=(32, 16, 8))
    dataclasses.replace(read_run(run), config=narrow()).write(run)
    monkeypatch.setattr(prediction, "is_affected", lambda: True)
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: [])
    with pytest.raises(InputError, match=r"must be float32, .* of 8 voxels along x of .*run"):
        load_runs([run], precision="bfloat16")
    monkeypatch.setattr(prediction, "is_affected", lambda: False)
    load_runs([run], precision="bfloat16")


@pytest.mark.skipif(not is_affected(), reason="needs a CPU with AVX512-BF16 or AMX")
def test_no_other_stride_is_computed_wrongly():
    """The narrowest that is not refused: two voxels along x."""
    inputs = tf.random.stateless_normal((2, 4, 4, 4, 8), (0, 0))
    kernel = tf.random.stateless_normal((3, 3, 3, 8, 8), (0, 1)) / 10
    expected, found = (
        tf.nn.conv3d(tf.cast(inputs, dtype), tf.cast(kernel, dtype), [1, 2, 2, 2, 1], "SAME")
        for dtype in (tf.float32, tf.bfloat16)
    )
    assert float(tf.reduce_max(tf.abs(tf.cast(found, tf.float32) - expected))) < 0.1
