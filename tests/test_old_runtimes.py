"""Exports in older TensorFlow: loaded, run, and compared with the results of this one.

The interpreters are those of environments of their own (`make test-old-runtimes`).
"""

from __future__ import annotations

import json
import os
import subprocess

import pytest
from exported_ops import known_ops, ops_of
from small_models import make_info, make_network

from fcnseg.config import Config, ModelConfig
from fcnseg.inference import make_segmenter
from fcnseg.networks.precision import with_precision
from fcnseg.saved_model.self_check import check_saved_model
from fcnseg.saved_model.session import DEFAULT_SIGNATURE
from fcnseg.saved_model.signatures import ALL, ServedModel

pytestmark = pytest.mark.old_runtime

RUNTIMES = os.environ.get("FCNSEG_OLD_RUNTIMES", "").split()
_OPS = """
import json, sys
from tensorflow.python.framework import op_def_registry
print(json.dumps([name for name in json.loads(sys.argv[1]) if op_def_registry.get(name) is None]))
"""


def segmenter_of(model=None, *, policy="float32", flips=(), networks=1, **info):
    """Small networks of a configuration, and what serves them."""
    config = Config(model=model or ModelConfig(filters=(4, 8)))
    made = [make_network(config, seed=seed) for seed in range(networks)]
    models = [with_precision(each, policy) for each in made]
    return make_segmenter(models, make_info(**info), flips=flips)


# Between them, the layers of all networks, and the options of an export.
EXPORTS = {
    "batch norm": {},
    "instance norm": {
        "model": ModelConfig(
            filters=(4, 8),
            norm="instance",
            activation="leaky_relu",
            upsampling="linear",
            skip="concat",
        )
    },
    "residual blocks": {
        "model": ModelConfig(filters=(4, 8), norm="group", residual_blocks=(1, 1), dropout=0.1)
    },
    "no padding": {
        "model": ModelConfig(filters=(4, 8), padding="valid", norm="none"),
        "window": (20, 24, 22),
        "overlap": (1, 3, 0),
    },
    "pyramid": {"model": ModelConfig(filters=(4, 8), pyramid=2), "window": (8, 12, 12)},
    "flips of two networks": {"flips": ("z", "x"), "networks": 2},
    "bfloat16": {"policy": "mixed_bfloat16"},
}


# What surrounds the network is the same for all others.
NAMES = {"batch norm": ALL, "no padding": ALL, "flips of two networks": ALL, "bfloat16": ALL}


@pytest.fixture(scope="module", params=EXPORTS)
def exported(request, tmp_path_factory):
    """A model, the folder of its SavedModel, and the signatures in it."""
    names = NAMES.get(request.param, (DEFAULT_SIGNATURE,))
    model = ServedModel(segmenter_of(**EXPORTS[request.param]))
    folder = tmp_path_factory.mktemp("old") / "model"
    model.write(folder, names=names)
    return model, folder, names


def test_ops_are_those_of_the_list(exported):
    _, folder, _ = exported
    assert ops_of(folder) <= known_ops()


def test_runtimes_are_given():
    assert RUNTIMES, "make test-old-runtimes gives FCNSEG_OLD_RUNTIMES"


@pytest.mark.parametrize("python", RUNTIMES)
def test_export_gives_in_an_older_runtime_what_it_gives_here(exported, python):
    model, folder, names = exported
    check_saved_model(model, folder, names=names, python=python)


@pytest.mark.parametrize("python", RUNTIMES)
def test_older_runtime_has_each_op_of_the_list(python):
    command = [python, "-c", _OPS, json.dumps(sorted(known_ops()))]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout.splitlines()[-1]) == []
