"""The memory that a body of JSON takes, and the start of a value in a message."""

from __future__ import annotations

import json
import tracemalloc

import numpy as np
import pytest

from serving.json_body import parse_body, parsed_bytes, shown
from serving.json_tensors import dense_tensor

COUNT = 20_000
VALUES = {
    "empty lists": "[]",
    "short lists": "[1]",
    "lists in lists": "[[1]]",
    "empty objects": "{}",
    "objects": '{"a":1}',
    "objects of six": '{"a":1,"b":1,"c":1,"d":1,"e":1,"f":1}',
    "small numbers": "1",
    "numbers": "1000",
    "large numbers": "12345678901234",
    "reals": "1.5",
    "text": '"ab"',
    "wide text": '"a\N{OLD ITALIC LETTER A}"',
    "base64": '{"b64":"AAAA"}',
}


def peak_of(work):
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("value", VALUES)
def test_values_take_no_more_memory_than_is_counted(value):
    body = f'{{"inputs":[{",".join([VALUES[value]] * COUNT)}]}}'.encode()
    assert peak_of(lambda: parse_body(body)) <= parsed_bytes(body) + len(body)


def test_objects_with_names_of_their_own_take_no_more_memory_than_is_counted():
    body = json.dumps([{f"k{number}": 1} for number in range(COUNT)])
    body = f'{{"inputs":{body},"u":{json.dumps({f"n{n}": 1 for n in range(COUNT)})}}}'.encode()
    assert peak_of(lambda: parse_body(body)) <= parsed_bytes(body) + len(body)


@pytest.mark.parametrize(("value", "type_"), [("1000", "int16"), ("1.5", "float")])
def test_their_tensor_is_counted_too(value, type_):
    body = f'{{"inputs":[{",".join([f"[{value},{value},{value}]"] * COUNT)}]}}'.encode()
    peak = peak_of(lambda: dense_tensor(parse_body(body)["inputs"], type_))
    assert peak <= parsed_bytes(body) + len(body)


def test_bytes_in_base64_are_not_counted_again():
    assert parsed_bytes(b'{"inputs":{"b64":"' + b"A" * 10**6 + b'"}}') < 1000


def nested(value, depth):
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize(
    "value",
    [
        *(1, "a", None, [], {}, {"a": {"b": [1.5, True, "\N{OLD ITALIC LETTER A}"]}}),
        *("x" * 2000, {"k" * 2000: 1}, list(range(2000)), [[[1] * 30] * 30] * 30),
        *({f"k{number}": [number] for number in range(2000)}, nested([1, 2], 60)),
    ],
)
def test_value_in_a_message_is_the_start_of_all_of_it(value):
    text = json.dumps(value, indent=4, ensure_ascii=False)
    assert shown(value) == (text if len(text) <= 1000 else f"{text[:1000]}...")


def test_value_in_a_message_takes_little_memory_and_time():
    """Its whole text would have 16 GB, nearly all of it spaces."""
    value = nested(np.arange(10**6).tolist(), 4000)
    assert peak_of(lambda: shown(value)) < 2**20
