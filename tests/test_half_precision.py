"""Half precision is refused where its gradients are wrong."""

from __future__ import annotations

import pytest
import tensorflow as tf

from fcnseg.config import Config, InferenceConfig, ModelConfig, PatchConfig, TrainingConfig
from fcnseg.errors import ConfigError
from fcnseg.training.half_precision import (
    check_half_precision,
    gradient_error,
    is_affected,
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

    assert gradient_error((2, 2, 8, 8, 4), tf.bfloat16, gradient=gradient) > 0.9


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
