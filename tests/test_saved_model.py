"""The server's runtime: what it gives, what it says, and what it refuses to load."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import tensorflow as tf

from fcnseg.errors import ModelError
from fcnseg.saved_model.session import SavedModelSession, StatusError


class Adder(tf.Module):
    """x + 1 and its text; with `jit_compile` what the real server cannot run."""

    def __init__(self, *, jit_compile=False):
        super().__init__()

        def add(x):
            return {"y": x + 1, "text_bytes": tf.strings.as_string(tf.reduce_sum(x))}

        def compiled(x):
            return {"y": tf.function(lambda value: value + 1, jit_compile=True)(x)}

        spec = tf.TensorSpec([None], tf.float32, name="x")
        self.add = tf.function(compiled if jit_compile else add, input_signature=[spec])


@pytest.fixture(scope="module")
def session(tmp_path_factory):
    folder = tmp_path_factory.mktemp("adder")
    module = Adder()
    tf.saved_model.save(module, folder, signatures={"serving_default": module.add})
    return SavedModelSession(folder)


def test_runs_a_signature(session):
    outputs = session.run("serving_default", {"x": np.array([1, 2], np.float32)})
    np.testing.assert_array_equal(outputs["y"], [2, 3])
    assert outputs["text_bytes"].item() == b"3.000000"


def test_output_filter_chooses(session):
    inputs = {"x": np.zeros(1, np.float32)}
    assert set(session.run("serving_default", inputs, output_filter=["y"])) == {"y"}


def test_runs_in_several_threads_at_once(session):
    def add(number):
        return session.run("serving_default", {"x": np.full(1000, number, np.float32)})["y"]

    with ThreadPoolExecutor(8) as pool:
        for number, y in enumerate(pool.map(add, range(100))):
            np.testing.assert_array_equal(y, np.full(1000, number + 1))


X = np.zeros(1, np.float32)


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("other", {}), "FAILED_PRECONDITION", 'Serving signature key "other" not found.'),
        (
            ("serving_default", {}),
            "INVALID_ARGUMENT",
            "input size does not match signature: 0!=1 len({}) != len({x}). Sent extra: {}."
            " Missing but required: {x}.",
        ),
        (
            ("serving_default", {"z": X}),
            "INVALID_ARGUMENT",
            "input tensor alias not found in signature: z. Inputs expected to be in the set {x}.",
        ),
        (("serving_default", {"x": X.astype(int)}), "INVALID_ARGUMENT", "float"),
    ],
)
def test_wrong_request_gets_the_servers_answer(session, arguments, code, message):
    with pytest.raises(StatusError) as caught:
        session.run(*arguments)
    assert caught.value.code == code
    assert message in caught.value.message


@pytest.mark.skipif(np.__version__.startswith("1."), reason="numpy 1 has at most 32 axes")
def test_request_with_too_many_axes_is_refused(session):
    with pytest.raises(StatusError, match="input tensor x must have at most 32 axes, got 33"):
        session.run("serving_default", {"x": X.reshape([1] * 33)})


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        (["z"], "output tensor alias not found in signature: z Outputs expected to be in the set"),
        (["y", "y"], "duplicate output tensor alias: y"),
    ],
)
def test_wrong_output_filter_gets_the_servers_answer(session, wanted, message):
    with pytest.raises(StatusError, match=f"INVALID_ARGUMENT: {message}"):
        session.run("serving_default", {"x": X}, output_filter=wanted)


def test_model_that_needs_xla_is_refused(tmp_path):
    module = Adder(jit_compile=True)
    tf.saved_model.save(module, tmp_path, signatures={"serving_default": module.add})
    with pytest.raises(ModelError, match="must not need XLA"):
        SavedModelSession(tmp_path)


def test_folder_without_a_model_is_refused(tmp_path):
    with pytest.raises(ModelError, match=f"not a SavedModel: {tmp_path}"):
        SavedModelSession(tmp_path)


@pytest.mark.real_data
@pytest.mark.parametrize("name", ["half_plus_two_cpu", "half_plus_two_tf2_cpu"])
def test_runs_the_models_of_the_servers_own_tests(real_data, name):
    folder = real_data / "tfserving_testdata" / f"saved_model_{name}" / "00000123"
    outputs = SavedModelSession(folder).run(
        "serving_default", {"x": np.array([[1.0], [5.0]], np.float32)}
    )
    np.testing.assert_allclose(outputs["y"].ravel(), [2.5, 4.5])
