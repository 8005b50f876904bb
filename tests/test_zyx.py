"""A triple (z, y, x) is a tuple wherever one is expected."""

from __future__ import annotations

import copy
import dataclasses
import json
import pickle

import numpy as np
import pydantic
import pytest

from fcnseg.config import Config, read_config, write_config
from fcnseg.volumes import Zyx

SIZE = Zyx(iter((32, 48, 64)))


def test_it_equals_the_plain_tuple():
    assert SIZE == (32, 48, 64)
    assert hash(SIZE) == hash((32, 48, 64))
    assert str(SIZE) == f"{SIZE}" == "(32, 48, 64)"  # as errors show sizes
    assert json.dumps({"size": SIZE}) == '{"size": [32, 48, 64]}'
    assert np.zeros(SIZE)[SIZE[0] - 1].shape == SIZE[1:]


@pytest.mark.parametrize(("form", "text"), [("d", "32 x 48 x 64"), (".1f", "32.0 x 48.0 x 64.0")])
def test_its_format_is_that_of_each_value(form, text):
    assert format(SIZE, form) == text


@pytest.mark.parametrize("values", [(), (1, 2), (1, 2, 3, 4)])
def test_it_has_three_values(values):
    with pytest.raises(ValueError, match="values to unpack"):
        Zyx(values)


@pytest.mark.parametrize(
    "copied", [copy.copy, copy.deepcopy, lambda s: pickle.loads(pickle.dumps(s))]
)
def test_copies_are_of_its_type(copied):
    found = copied(SIZE)
    assert (type(found), found) == (Zyx, SIZE)


def test_settings_take_it_and_give_plain_tuples_back(tmp_path):
    config = Config()
    config = dataclasses.replace(config, patches=dataclasses.replace(config.patches, size=SIZE))
    write_config(config, tmp_path / "config.yaml")
    found = read_config(tmp_path / "config.yaml")
    assert found == config
    assert type(found.patches.size) is tuple
    assert pydantic.TypeAdapter(tuple[int, int, int]).validate_python(SIZE, strict=True) == SIZE
    assert dataclasses.asdict(config)["patches"]["size"] == SIZE


def test_tensorflow_takes_it_for_a_shape():
    tf = pytest.importorskip("tensorflow")
    assert tf.zeros(SIZE).shape == SIZE
    assert tf.TensorShape(SIZE).as_list() == [*SIZE]
    assert tf.nest.map_structure(lambda length: length // 2, SIZE) == (16, 24, 32)
