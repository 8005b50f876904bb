"""Every layer, loss, metric and preset keeps every guarantee of the table in conformance.py."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from conformance import (
    CLASSES,
    FUNCTIONS,
    IGNORED,
    NOT_APPLICABLE,
    REPLICAS,
    SUBJECTS,
    applies,
)
from conformance_replicas import results_of

from fcnseg import losses
from fcnseg.config import PRESETS
from fcnseg.networks import layers
from fcnseg.networks.keras_compat import tensorflow_variables, write_archive


def assert_same(got, expected, *, tolerance=1e-5):
    """Equal up to a share of the largest value."""
    for one, other in zip(got, expected, strict=True):
        largest = max(np.abs(other).max(), 1e-2)
        np.testing.assert_allclose(one, other, rtol=0, atol=tolerance * largest)


def survives_its_config(subject, tmp_path):
    thing = subject.make("float32")
    again = type(thing).from_config(thing.get_config())
    assert configs_of(subject, again) == configs_of(subject, thing)
    inputs = subject.inputs()
    expected = subject.outputs(thing, inputs)
    if subject.kind in ("layer", "network"):
        again(*inputs)
        again.set_weights(thing.get_weights())
    assert_same(subject.outputs(again, inputs), expected)


def configs_of(subject, thing):
    """Of a network those of its layers: Keras 2 adds to its own how some of them were built."""
    parts = thing.layers if subject.kind == "network" else [thing]
    return [part.get_config() for part in parts]


def survives_a_file(subject, tmp_path):
    """In a model, alone or as what it is compiled with."""
    thing = subject.make("float32")
    model = model_with(subject, thing)
    if subject.kind in ("loss", "metric"):
        model.train_on_batch(*reversed(subject.inputs()))
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    assert type(again) is type(model)
    if subject.kind in ("layer", "network"):
        hu = subject.inputs()
        assert_same(tf.nest.flatten(again(*hu)), tf.nest.flatten(model(*hu)))
        return
    labels, logits = subject.inputs()
    expected, got = (
        each.evaluate(logits, labels, verbose=0, return_dict=True) for each in (model, again)
    )
    assert got == pytest.approx(expected)


def model_with(subject, thing):
    """A Keras model that is, or holds, or is compiled with, a subject."""
    if subject.kind == "network":
        return thing
    if subject.kind == "layer":
        hu = keras.Input((*subject.size, 1))
        return keras.Model(hu, thing(hu))
    logits = keras.Input((*subject.size, len(CLASSES)))
    model = keras.Model(logits, keras.layers.Dense(len(CLASSES))(logits))
    of_model = {"loss": losses.CrossEntropyLoss(ignore_label=IGNORED), "metrics": []}
    given = {"loss": thing} if subject.kind == "loss" else {"metrics": [thing]}
    model.compile(optimizer="sgd", jit_compile=False, **{**of_model, **given})
    return model


def equals_its_saved_model(subject, tmp_path):
    thing = subject.make("float32")
    inputs = subject.inputs()
    expected = subject.outputs(thing, inputs)
    signature = [tf.TensorSpec([None, *x.shape[1:]], x.dtype) for x in inputs]
    names = [f"output_{index}" for index in range(len(expected))]

    @tf.function(input_signature=signature)
    def serve(*tensors):
        return dict(zip(names, subject.outputs(thing, tensors), strict=True))

    if subject.kind in ("layer", "network"):
        archive = keras.export.ExportArchive()
        archive.track(thing)
        archive.add_endpoint("serve", serve, signature)
        write_archive(archive, tmp_path / "saved")
    else:
        module = tf.Module()
        module.counts = tensorflow_variables(getattr(thing, "variables", []))
        module.serve = serve
        tf.saved_model.save(module, str(tmp_path / "saved"))
    loaded = tf.saved_model.load(str(tmp_path / "saved"))  # its variables live as long as it does
    got = loaded.serve(*inputs)
    assert_same([got[name] for name in names], expected)


def is_finite_in_half_precision(subject, tmp_path):
    is_model = subject.kind in ("layer", "network")
    # A CPU pools no float16; losses and metrics meet it nevertheless.
    for precision in ("bfloat16",) if is_model else ("bfloat16", "float16"):
        thing = subject.make(f"mixed_{precision}")
        *labels, last = subject.inputs()
        # One sample: of several two slices deep, oneDNN's gradient in bfloat16 holds what was in
        # the memory before (docs/training.md).
        last = last[:1] if is_model else tf.cast(last, precision)
        first, *others = subject.outputs(thing, (*labels, last), gradients=True)
        if subject.kind != "layer":
            assert first.dtype in (tf.float32, tf.float64)
        for output in (first, *others):
            assert np.isfinite(tf.cast(output, tf.float32)).all()


def is_the_same_compiled(subject, tmp_path):
    thing = subject.make("float32")
    inputs = [tf.constant(x) for x in subject.inputs()]
    expected = subject.outputs(thing, inputs)
    compiled = tf.function(lambda *x: subject.outputs(thing, x), jit_compile=True)
    assert_same(compiled(*inputs), expected, tolerance=1e-4)


def is_the_same_on_two_replicas(subject, expected):
    assert_same(results_of(subject, tf.distribute.get_strategy()), expected, tolerance=1e-4)


GUARANTEES = {
    "config round trip": survives_its_config,
    ".keras round trip": survives_a_file,
    "SavedModel equals eager": equals_its_saved_model,
    "mixed precision finite": is_finite_in_half_precision,
    "jit_compile on and off equal": is_the_same_compiled,
}


def cells():
    """Of one process: (subject, guarantee), those slow that take a network seconds."""
    for name, subject in SUBJECTS.items():
        for guarantee in GUARANTEES:
            is_slow = subject.kind == "network" and guarantee != "config round trip"
            if applies(name, guarantee):
                yield pytest.param(name, guarantee, marks=[pytest.mark.slow] * is_slow)


@pytest.mark.parametrize(("name", "guarantee"), list(cells()))
def test_guarantee(name, guarantee, tmp_path):
    GUARANTEES[guarantee](SUBJECTS[name], tmp_path)


@pytest.fixture(scope="module")
def on_two_replicas(tmp_path_factory):
    """Results of all subjects from a process of their own: TensorFlow fixes its devices once."""
    path = tmp_path_factory.mktemp("replicas") / "results.npz"
    tests = Path(__file__).parent
    subprocess.run(
        [sys.executable, "-W", "ignore", tests / "conformance_replicas.py", path],
        check=True,
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "2", "PYTHONPATH": str(tests.parent)},
    )
    with np.load(path) as results:
        return dict(results)


@pytest.mark.slow
@pytest.mark.timeout(900)  # the first one waits for the results of all
@pytest.mark.parametrize("name", [name for name in SUBJECTS if applies(name, REPLICAS)])
def test_one_replica_equals_two(name, on_two_replicas):
    expected = [value for key, value in on_two_replicas.items() if key.split("/")[0] == name]
    is_the_same_on_two_replicas(SUBJECTS[name], expected)


def test_table_is_complete():
    """Each loss and layer that is exported or registered has a row, and so has each preset."""
    rows = {name for name in SUBJECTS if not name.startswith("preset ")}
    registered = {
        thing.__qualname__
        for thing in keras.saving.get_custom_objects().values()
        if thing.__module__.startswith(("fcnseg.losses.", "fcnseg.networks."))
    }
    assert {*losses.__all__, *layers.__all__} - FUNCTIONS <= rows
    assert registered == rows
    presets = [name.split()[1:] for name in SUBJECTS.keys() - rows]
    assert sorted(itertools.chain(*presets)) == sorted(PRESETS)


def test_cells_that_do_not_apply_are_of_the_table():
    for (name, guarantee), reason in NOT_APPLICABLE.items():
        assert name in SUBJECTS
        assert guarantee in {*GUARANTEES, REPLICAS}
        assert reason
