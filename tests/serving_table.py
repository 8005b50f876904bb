"""Requests whose answer by TensorFlow Serving is known from its sources, word for word.

The model `m` is that of `served_model`: version 1 with the label `stable`, and version 2, which
adds 10 instead of 2.
"""

from __future__ import annotations

import base64
import dataclasses
import gzip
import json
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.core.example import example_pb2
from tensorflow.core.framework import tensor_pb2
from tensorflow_serving.apis import (
    classification_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    inference_pb2,
    model_management_pb2,
    predict_pb2,
    regression_pb2,
)

PREDICT = "/v1/models/m/versions/1:predict"
CLASSIFY, REGRESS = "/v1/models/m/versions/1:classify", "/v1/models/m/versions/1:regress"
NOT_FOUND_7 = "Servable not found for request: Specific(m, 7)"
EMPTY = "JSON Parse error: The document is empty"
HUGE_VERSION = "18446744073709551615"


@dataclasses.dataclass(frozen=True)
class Rest:
    """A REST request and its answer.

    Attributes:
        path: Path and query.
        body: Of a POST; an object is written as JSON.
        status: HTTP status.
        error: The whole message of an error, or its end after three dots.
        reply: The whole text of the answer, or the object that it stands for.
        method: POST if there is a body, else GET.
        headers: Beside those of the body.
        why_local: Why the local server's answer is another one than the real server's, if so.
    """

    path: str
    body: Any = None
    status: int = 200
    error: str | None = None
    reply: Any = None
    method: str = ""
    headers: tuple[tuple[str, str], ...] = ()
    why_local: str = ""


@dataclasses.dataclass(frozen=True)
class Grpc:
    """A gRPC request and its answer.

    Attributes:
        request: The message, whose type tells the call.
        code: Name of the status.
        message: The whole message of an error, its end after three dots, its start before them.
        reply: Fields of the reply by path, as `outputs.y.float_val`.
        why_local: Why the local server's answer is another one than the real server's, if so.
    """

    request: Any
    code: str = "OK"
    message: str = ""
    reply: tuple[tuple[str, Any], ...] = ()
    why_local: str = ""


def named(signature: str, **fields: Any) -> dict[str, Any]:
    return {"signature_name": signature, **fields}


def identity(dtype: str, *values: Any, form: str = "instances") -> dict[str, Any]:
    return named(f"id_{dtype}", **{form: list(values)})


def row_error(number: int, reason: str, key: str | None = None) -> str:
    named = "" if key is None else f" key: {key}"
    return (
        f"Failed to process element: {number}{named} of 'instances' list. Error:"
        f" INVALID_ARGUMENT: {reason}"
    )


def shown(value: Any) -> str:
    return json.dumps(value, indent=4)


def mistyped(value: str, kind: str, dtype: str) -> str:
    return f"JSON Value: {value} Type: {kind} is not of expected type: {dtype}"


def rows(*values: str) -> str:
    return '{\n    "predictions": [' + ", ".join(values) + "\n    ]\n}"


def deep(value: Any, depth: int) -> Any:
    for _ in range(depth):
        value = [value]
    return value


HALF = {"instances": [2.0]}
TWO_ROWS = [{"a": 1, "t": "x"}, {"a": 2, "t": "y"}]
B64 = base64.b64encode(bytes(range(256)) * 2).decode()
LINES = base64.encodebytes(bytes(range(256)) * 2).decode()
ECHO = named("two", inputs={"a": [1], "t": [{"b64": B64}]})
ECHO_REPLY = {"outputs": {"s": [2.0], "t_bytes": [{"b64": B64}], "u": None}}

PATHS = {
    "no name": Rest("/v1/models", status=400, error="Missing model name in request."),
    "no name, metadata": Rest(
        "/v1/models/metadata", status=404, error="Could not find any versions of model metadata"
    ),
    "version beyond int64": Rest(
        f"/v1/models/m/versions/{HUGE_VERSION}",
        status=400,
        error=f"Failed to convert version: {HUGE_VERSION} to numeric.",
    ),
    "version beyond int64, predict": Rest(
        f"/v1/models/m/versions/{HUGE_VERSION}:predict",
        HALF,
        400,
        f"Failed to convert version: {HUGE_VERSION} to numeric.",
    ),
    "version with zeros": Rest("/v1/models/m/versions/0001:predict", HALF, reply=rows("3.0")),
    "encoded name": Rest("/v1/models/%6D/versions/1:predict", HALF, reply=rows("3.0")),
    "encoded name that is none": Rest(
        "/v1/models/%2E%2E%2Fm:predict",
        HALF,
        404,
        "Servable not found for request: Latest(../m)",
    ),
    "query": Rest(f"{PREDICT}?a=1", HALF, reply=rows("3.0")),
    "query of status": Rest("/v1/models/m/versions/7?a=1", status=404, error="...7 of model m"),
    "letters of another case": Rest("/V1/Models/m/Versions/1:predict", HALF, reply=rows("3.0")),
    "method of another case": Rest(
        "/v1/models/m:PREDICT", HALF, 400, "Malformed request: POST /v1/models/m:PREDICT"
    ),
    "newest": Rest("/v1/models/m:predict", HALF, reply=rows("11.0")),
    "label": Rest("/v1/models/m/labels/stable:predict", HALF, reply=rows("3.0")),
    "encoded label": Rest("/v1/models/m/labels/st%61ble:predict", HALF, reply=rows("3.0")),
    "unknown label": Rest(
        "/v1/models/m/labels/no:predict", HALF, 400, "Unrecognized servable version label: no"
    ),
    "label of status": Rest("/v1/models/m/labels/stable", reply={"versions": ["2", "1"]}),
    "unknown label of status": Rest("/v1/models/m/labels/no", reply={"versions": ["2", "1"]}),
    "status of a version": Rest("/v1/models/m/versions/1", reply={"versions": ["1"]}),
    "status of no model": Rest(
        "/v1/models/no", status=404, error="Could not find any versions of model no"
    ),
    "status of no version": Rest(
        "/v1/models/m/versions/7", status=404, error="Could not find version 7 of model m"
    ),
    "metadata of no model": Rest(
        "/v1/models/no/metadata", status=404, error="Servable not found for request: Latest(no)"
    ),
    "metadata of no version": Rest(
        "/v1/models/m/versions/7/metadata", status=404, error=NOT_FOUND_7
    ),
    "no model": Rest(
        "/v1/models/no:predict", HALF, 404, "Servable not found for request: Latest(no)"
    ),
    "no version": Rest("/v1/models/m/versions/7:predict", HALF, 404, NOT_FOUND_7),
    "no call": Rest("/v1/models/m:run", HALF, 400, "Malformed request: POST /v1/models/m:run"),
    "no path": Rest("/v1/foo", {}, 400, "Malformed request: POST /v1/foo"),
    "version that is no number": Rest(
        "/v1/models/m/versions/x",
        status=400,
        error="Malformed request: GET /v1/models/m/versions/x",
    ),
    "POST to status": Rest("/v1/models/m", {}, 400, "Malformed request: POST /v1/models/m"),
    "GET of predict": Rest(
        "/v1/models/m:predict", status=400, error="Malformed request: GET /v1/models/m:predict"
    ),
    "slash at the end": Rest(
        "/v1/models/m/", status=400, error="Malformed request: GET /v1/models/m/"
    ),
    "path in the name": Rest(
        "/v1/models/../../etc/passwd",
        status=400,
        error="Malformed request: GET /v1/models/../../etc/passwd",
    ),
    "DELETE": Rest(
        "/v1/models/m", None, 400, "Malformed request: DELETE /v1/models/m", method="DELETE"
    ),
    "PUT": Rest(PREDICT, HALF, 400, f"Malformed request: PUT {PREDICT}", method="PUT"),
    "PATCH": Rest(PREDICT, HALF, 400, f"Malformed request: PATCH {PREDICT}", method="PATCH"),
    "OPTIONS": Rest(
        PREDICT, None, 200, method="OPTIONS", headers=(("Origin", "http://localhost"),), reply=""
    ),
    "OPTIONS without origin": Rest(PREDICT, None, 400, method="OPTIONS"),
    "other path": Rest("/index.html", status=404),
    "other path, POST": Rest("/v2/models/m", {}, 404),
}

BODIES = {
    "empty": Rest(PREDICT, b"", 400, EMPTY),
    "spaces": Rest(PREDICT, b"   ", 400, "JSON Parse error: The document is empty. at offset: 3"),
    "cut": Rest(
        PREDICT, b"{", 400, "JSON Parse error: Missing a name for object member. at offset: 1"
    ),
    "python": Rest(
        PREDICT, b"instances = [1, 2]", 400, "JSON Parse error: Invalid value. at offset: 0"
    ),
    "comma at the end": Rest(
        PREDICT, b'{"instances":[1,]}', 400, "JSON Parse error: Invalid value. at offset: 16"
    ),
    "no comma": Rest(
        PREDICT,
        b'{"instances":[1 2]}',
        400,
        "JSON Parse error: Missing a comma or ] after an array element. at offset: 16",
    ),
    "no colon": Rest(
        PREDICT,
        b'{"instances" [1]}',
        400,
        "JSON Parse error: Missing a colon after a name of object member. at offset: 13",
    ),
    "no quote": Rest(
        PREDICT,
        b'{"instances": ["x',
        400,
        "JSON Parse error: Missing a closing quotation mark in string. at offset: 17",
    ),
    "bad escape": Rest(
        PREDICT,
        b'{"x": "\\q"}',
        400,
        "JSON Parse error: Invalid escape character in string. at offset: 7",
    ),
    "half a surrogate": Rest(
        PREDICT,
        b'{"x": "\\ud800"}',
        400,
        "JSON Parse error: The surrogate pair in string is invalid. at offset: 7",
    ),
    "number too big": Rest(
        PREDICT,
        b'{"instances": [1e309]}',
        400,
        "JSON Parse error: Number too big to be stored in double. at offset: 15",
    ),
    "list": Rest(PREDICT, b"[1]", 400, f"JSON Value: {shown([1])} Is not object"),
    "number": Rest(PREDICT, b"1", 400, "JSON Value: 1 Is not object"),
    "trailing garbage": Rest(PREDICT, b'{"instances":[2.0]} trailing', reply=rows("3.0")),
    "a name twice": Rest(PREDICT, b'{"instances":[2.0],"instances":[4.0]}', reply=rows("3.0")),
    "a signature's name twice": Rest(
        PREDICT,
        b'{"signature_name":"serving_default","signature_name":"zz","instances":[2.0]}',
        reply=rows("3.0"),
    ),
    "NaN and infinities": Rest(
        PREDICT,
        b'{"instances":[NaN, Inf, -Infinity]}',
        reply=rows("NaN", "Infinity", "-Infinity"),
    ),
    "beyond float": Rest(
        PREDICT, b'{"instances":[1.7976931348623157e+308]}', reply=rows("Infinity")
    ),
    "20 digits": Rest(
        PREDICT, b'{"instances":[123456789012345678901]}', reply=rows("6.17283948e+19")
    ),
    "no key": Rest(PREDICT, {}, 400, "Missing 'inputs' or 'instances' key"),
    "both keys": Rest(
        PREDICT,
        {"inputs": [1], "instances": [1]},
        400,
        f"JSON Value: {shown({'inputs': [1], 'instances': [1]})} Not formatted correctly expecting"
        " only one of 'inputs' or 'instances' keys to exist ",
    ),
    "instances is a number": Rest(
        PREDICT,
        {"instances": 5},
        400,
        f"JSON Value: {shown({'instances': 5})} Expecting 'instances' to be an list/array",
    ),
    "no instances": Rest(
        PREDICT,
        {"instances": []},
        400,
        f"JSON Value: {shown({'instances': []})} No values in 'instances' array",
    ),
    "signature of no text": Rest(
        PREDICT,
        {"signature_name": 1},
        400,
        f"JSON Value: {shown({'signature_name': 1})} not formatted correctly. 'signature_name' key"
        " must be a string value.",
    ),
    "unknown signature": Rest(
        PREDICT,
        named("no", instances=[1]),
        400,
        'Serving signature name: "no" not found in signature def',
    ),
    "empty signature": Rest(PREDICT, named("", **HALF), reply=rows("3.0")),
    "gzip": Rest(
        PREDICT,
        gzip.compress(b'{"instances":[2]}'),
        reply=rows("3.0"),
        headers=(("Content-Encoding", "gzip"),),
    ),
    "x-gzip": Rest(
        PREDICT,
        gzip.compress(b'{"instances":[2]}'),
        reply=rows("3.0"),
        headers=(("Content-Encoding", "x-gzip"),),
    ),
    "no gzip": Rest(PREDICT, b"{}", 400, EMPTY, headers=(("Content-Encoding", "gzip"),)),
    "cut gzip": Rest(
        PREDICT,
        gzip.compress(b'{"instances":[2]}')[:-6],
        400,
        EMPTY,
        headers=(("Content-Encoding", "gzip"),),
    ),
    "gzip bomb": Rest(
        PREDICT,
        gzip.compress(bytes(101 * 2**20)),
        400,
        EMPTY,
        headers=(("Content-Encoding", "gzip"),),
    ),
    "very deep": Rest(
        PREDICT,
        b'{"instances":[2],"u":' + b"[" * 500_000 + b"]" * 500_000 + b"}",
        400,
        "JSON Parse error: The document is nested too deeply.",
        why_local="takes a thousand levels",
    ),
    "bytes of no text": Rest(
        PREDICT,
        b'{"instances":[2],"u":"\xff"}',
        400,
        "JSON Parse error: Invalid encoding in string. at offset: 22",
        why_local="takes UTF-8 only",
    ),
}

VALUES = {
    "rows": Rest(PREDICT, {"instances": [2.0, 3]}, reply=rows("3.0", "3.5")),
    "rows of rows": Rest(
        PREDICT, {"instances": [[1, 2], [3, 4]]}, reply=rows("[2.5, 3.0]", "[3.5, 4.0]")
    ),
    "named rows": Rest(PREDICT, {"instances": [{"x": 2}]}, reply=rows("3.0")),
    "column": Rest(PREDICT, {"inputs": [2.0]}, reply='{\n    "outputs": [\n        3.0\n    ]\n}'),
    "scalar": Rest(PREDICT, {"inputs": 2}, reply='{\n    "outputs": 3.0\n}'),
    "named column": Rest(
        PREDICT, {"inputs": {"x": [2]}}, reply='{\n    "outputs": [\n        3.0\n    ]\n}'
    ),
    "many digits": Rest(PREDICT, {"instances": [0.4, 1 / 3]}, reply=rows("2.2", "2.16666675")),
    "six digits": Rest(PREDICT, {"instances": [2e9, 17999998]}, reply=rows("1e+09", "9000001.0")),
    "double": Rest(PREDICT, identity("float64", 0.1, 1 / 3), reply=rows("0.1", f"{1 / 3:.17g}")),
    "bool for float": Rest(
        PREDICT, {"instances": [True, 1.5]}, 400, row_error(0, mistyped("true", "True", "float"))
    ),
    "text for float": Rest(
        PREDICT, {"instances": [1, "a"]}, 400, row_error(1, mistyped('"a"', "String", "float"))
    ),
    "null for float": Rest(
        PREDICT, {"instances": [None]}, 400, row_error(0, mistyped("null", "Null", "float"))
    ),
    "object for float": Rest(
        PREDICT, {"inputs": [{"z": 1}]}, 400, mistyped(shown({"z": 1}), "Object", "float")
    ),
    "bool for uint8": Rest(
        PREDICT, identity("uint8", 7, True), 400, row_error(1, mistyped("true", "True", "uint8"))
    ),
    "300 for int8": Rest(PREDICT, identity("int8", 300), reply=rows("44")),
    "-1 for uint8": Rest(PREDICT, identity("uint8", -1), reply=rows("255")),
    "40000 for int16": Rest(PREDICT, identity("int16", 40000), reply=rows("-25536")),
    "beyond int32": Rest(
        PREDICT,
        identity("int32", 2**31),
        400,
        row_error(0, mistyped("2147483648", "Number", "int32")),
    ),
    "1.5 for int32": Rest(
        PREDICT, identity("int32", 1.5), 400, row_error(0, mistyped("1.5", "Number", "int32"))
    ),
    "1.0 for int64": Rest(
        PREDICT, identity("int64", 1.0), 400, row_error(0, mistyped("1.0", "Number", "int64"))
    ),
    "int64": Rest(PREDICT, identity("int64", -(2**63)), reply=rows(str(-(2**63)))),
    "uint32": Rest(PREDICT, identity("uint32", 2**32 - 1), reply=rows(str(2**32 - 1))),
    "-1 for uint32": Rest(
        PREDICT, identity("uint32", -1), 400, row_error(0, mistyped("-1", "Number", "uint32"))
    ),
    "uint64": Rest(PREDICT, identity("uint64", 2**64 - 1), reply=rows(str(2**64 - 1))),
    "bool": Rest(PREDICT, identity("bool", True, False), reply=rows("true", "false")),
    "1 for bool": Rest(
        PREDICT, identity("bool", 1), 400, row_error(0, mistyped("1", "Number", "bool"))
    ),
    "half in": Rest(
        PREDICT,
        identity("float16", 1, form="inputs"),
        501,
        "Conversion of JSON Value: 1 to type: half",
    ),
    "bfloat16 in": Rest(
        PREDICT,
        identity("bfloat16", 1, form="inputs"),
        501,
        "Conversion of JSON Value: 1 to type: bfloat16",
    ),
    "uint16 in": Rest(
        PREDICT,
        identity("uint16", 1, form="inputs"),
        501,
        "Conversion of JSON Value: 1 to type: uint16",
    ),
    "lists of different lengths": Rest(
        PREDICT,
        {"instances": [[1, 2], [3]]},
        400,
        row_error(1, "Expecting tensor size: 2 but got: 1"),
    ),
    "lists of different depths": Rest(
        PREDICT, {"instances": [1, [1]]}, 400, row_error(1, "Expecting shape [] but got: [1]")
    ),
    "column of different lengths": Rest(
        PREDICT,
        {"inputs": [[1, 2], [3]]},
        400,
        "Encountered list at unexpected size: 1 at level: 1 expected size: 2",
    ),
    "column of different depths": Rest(
        PREDICT, {"inputs": [1, [2]]}, 400, "Encountered list at unexpected level: 1 expected < 1"
    ),
    "value among lists": Rest(
        PREDICT,
        {"inputs": [[1], 2]},
        400,
        "JSON Value: 2 found at incorrect level: 2 in the JSON DOM. Expected at level: 2",
    ),
    "objects, then a list": Rest(
        PREDICT,
        named("two", instances=[TWO_ROWS[0], [1]]),
        400,
        "Expecting object but got list at item 1 of input list",
    ),
    "list, then an object": Rest(
        PREDICT,
        {"instances": [1, {"x": 1}]},
        400,
        "Expecting value/list but got object at item 1 of input list",
    ),
    "unknown key": Rest(
        PREDICT,
        named("two", instances=[{"a": 1, "t": "x", "q": 1}]),
        400,
        row_error(0, "JSON object: does not have named input: q", "q"),
    ),
    "missing key": Rest(
        PREDICT,
        named("two", instances=[{"a": 1}]),
        400,
        "Failed to process element: 0 of 'instances' list. JSON object:"
        f" {shown({'a': 1})} must only have keys: a,t",
    ),
    "plain list for two inputs": Rest(
        PREDICT,
        named("two", instances=[1]),
        400,
        "instances is a plain list, but expecting list of objects as multiple input tensors"
        " required as per tensorinfo_map",
    ),
    "plain column for two inputs": Rest(
        PREDICT,
        named("two", inputs=[1]),
        400,
        "inputs is a plain value/list, but expecting an object as multiple input tensors required"
        " as per tensorinfo_map",
    ),
    "missing column": Rest(
        PREDICT, named("two", inputs={"a": [1]}), 400, "Missing named input: t in 'inputs' object."
    ),
    "extra column": Rest(
        PREDICT, {"inputs": {"x": [2], "q": 1}}, reply='{\n    "outputs": [\n        3.0\n    ]\n}'
    ),
    "base64": Rest(PREDICT, ECHO, reply=ECHO_REPLY),
    "base64 with lines": Rest(
        PREDICT, named("two", inputs={"a": [1], "t": [{"b64": LINES}]}), reply=ECHO_REPLY
    ),
    "base64 without padding": Rest(
        PREDICT, named("two", inputs={"a": [1], "t": [{"b64": B64.rstrip("=")}]}), reply=ECHO_REPLY
    ),
    "no base64": Rest(
        PREDICT,
        named("two", inputs={"a": [1], "t": [{"b64": "?"}]}),
        400,
        "Unable to base64 decode",
    ),
    "base64 with another key": Rest(
        PREDICT,
        named("two", inputs={"a": [1], "t": [{"b64": "YQ==", "x": 1}]}),
        400,
        f"JSON Value: {shown({'b64': 'YQ==', 'x': 1})} not formatted correctly for base64 data",
    ),
    "number for text": Rest(
        PREDICT, identity("string", 1), 400, row_error(0, mistyped("1", "Number", "string"))
    ),
    "text": Rest(PREDICT, identity("string", "é", '\n"\\'), reply=rows('"é"', '"\\n\\"\\\\"')),
    "nothing of uint16 out": Rest(
        PREDICT,
        identity("uint16", form="inputs"),
        200,
        reply='{\n    "outputs": []\n}',
    ),
    **{
        f"{dtype} out": Rest(
            PREDICT,
            named(f"to_{dtype}", instances=[1]),
            400,
            f"Failed to write JSON value for tensor type: {dtype}",
        )
        for dtype in ("uint16", "bfloat16", "complex64")
    },
    "half out": Rest(
        PREDICT,
        named("to_float16", instances=[1]),
        400,
        "Failed to write JSON value for tensor type: half",
    ),
    "total in rows": Rest(
        PREDICT, named("total", instances=[1]), 400, "Tensor name: total has no shape information "
    ),
    "no rows": Rest(PREDICT, named("uneven", inputs=[1]), reply={"outputs": {"y": [1.0], "z": []}}),
    "uneven rows": Rest(
        PREDICT,
        named("uneven", instances=[1, 2, 3]),
        400,
        "Tensor name: z has inconsistent batch size: 2 expecting: 3",
    ),
    "rows that are none": Rest(
        PREDICT, named("uneven", instances=[1]), 400, "Tensor name: z has invalid batch size: 0"
    ),
    "many axes": Rest(
        PREDICT,
        {"inputs": deep(1, 40)},
        400,
        "a tensor must have at most 32 axes, got 40",
        why_local="numpy has 32 axes",
    ),
    "refused in the graph": Rest(
        PREDICT,
        named("positive", instances=[-1]),
        400,
        "assertion failed: [x must be positive. ...",
    ),
}

EXAMPLES = {
    "classify": Rest(
        CLASSIFY,
        named("scores", examples=[{"x": 2.0}, {"x": 5.0}]),
        reply={"results": [[["", 3.0]], [["", 4.5]]]},
    ),
    "classify, with labels": Rest(
        CLASSIFY, named("classify", examples=[{"x": 2.0}]), reply={"results": [[["c", 3.0]]]}
    ),
    "regress": Rest(
        REGRESS,
        named("regress", examples=[{"x": 2.0}, {"x": 5.0}]),
        reply='{\n    "results": [3.0, 4.5]\n}',
    ),
    "context": Rest(
        REGRESS,
        named("regress", context={"x": 4.0}, examples=[{}, {"x": 2.0}]),
        reply='{\n    "results": [4.0, 3.0]\n}',
    ),
    "70 MB of one context": Rest(
        REGRESS,
        named("regress", context={"t": "x" * 10_000}, examples=[{}] * 7_000),
        400,
        "7000 examples with a context of 10018 bytes must take at most 67108864 bytes",
        why_local="fills 64 MiB at most",
    ),
    "no examples": Rest(
        REGRESS,
        {},
        400,
        f"JSON Value: {shown({})} When method is classify, key 'examples' is expected and was not"
        " found",
    ),
    "examples is a number": Rest(
        REGRESS,
        {"examples": 1},
        400,
        f"JSON Value: {shown({'examples': 1})} Expecting 'examples' value to be an list/array",
    ),
    "empty examples": Rest(
        REGRESS,
        {"examples": []},
        400,
        f"JSON Value: {shown({'examples': []})} 'examples' value is an empty array",
    ),
    "example is a list": Rest(
        REGRESS, {"examples": [[1]]}, 400, "Example must be JSON object but got JSON Array"
    ),
    "feature of null": Rest(
        REGRESS,
        {"examples": [{"x": None}]},
        400,
        "Feature: x has element with unexpected JSON type: Null",
    ),
    "feature of lists": Rest(
        REGRESS,
        {"examples": [{"x": [[1]]}]},
        400,
        "Feature: x has element with unexpected JSON type: Array",
    ),
    "feature beyond int64": Rest(
        REGRESS,
        {"examples": [{"x": 2**63}]},
        400,
        "Feature: x has uint64 element. Only int64 is supported.",
    ),
    "feature of two types": Rest(
        REGRESS,
        {"examples": [{"x": [1.5, "a"]}]},
        400,
        "Unexpected element type in feature: x expecting type: float",
    ),
    "classify by a signature of regression": Rest(
        CLASSIFY,
        named("regress", examples=[{}]),
        400,
        '...contain at least one of "classes" or "scores". Signature was: ...',
    ),
    "regress by a signature of two outputs": Rest(
        REGRESS, named("classify", examples=[{}]), 400, "Expected one output Tensor."
    ),
    "regress by a signature of two inputs": Rest(
        REGRESS, named("two", examples=[{}]), 400, "Expected one input Tensor."
    ),
    "regress by no signature": Rest(
        REGRESS, named("no", examples=[{}]), 400, "No signature was found with the name: no"
    ),
}

REST = {
    **{f"path: {name}": row for name, row in PATHS.items()},
    **{f"body: {name}": row for name, row in BODIES.items()},
    **{f"value: {name}": row for name, row in VALUES.items()},
    **{f"example: {name}": row for name, row in EXAMPLES.items()},
}


def spec(request: Any, name="m", signature="", version=1, label=None) -> Any:
    """Fills the specification of a model into a request."""
    request.model_spec.name = name
    request.model_spec.signature_name = signature
    if label is not None:
        request.model_spec.version_label = label
    elif version is not None:
        request.model_spec.version.value = version
    return request


def predict(signature="", *, output_filter=(), inputs=None, **given: Any) -> Any:
    """A request to predict; `inputs` are arrays or messages."""
    request = predict_pb2.PredictRequest(output_filter=output_filter)
    for name, value in (inputs or {}).items():
        is_message = isinstance(value, tensor_pb2.TensorProto)
        request.inputs[name].CopyFrom(value if is_message else tf.make_tensor_proto(value))
    return spec(request, signature=signature, **given)


def tensor(shape, dtype=tf.float32, **fields: Any) -> tensor_pb2.TensorProto:
    """A message whose shape may be none of its values."""
    message = tensor_pb2.TensorProto(dtype=getattr(dtype, "as_datatype_enum", dtype), **fields)
    for size in shape:
        message.tensor_shape.dim.add(size=size)
    return message


def echo(shape, dtype, **fields: Any) -> Any:
    name = getattr(dtype, "name", "float64")
    return predict(f"id_{name}", inputs={"x": tensor(shape, dtype, **fields)})


def examples(kind: Any, *values: float, signature: str, **given: Any) -> Any:
    """A request to classify or to regress examples."""
    request = kind()
    for value in values:
        example = example_pb2.Example()
        example.features.feature["x"].float_list.value.append(value)
        request.input.example_list.examples.append(example)
    return spec(request, signature=signature, **given)


def tasks(*signatures: tuple[str, str], name="m") -> Any:
    request = inference_pb2.MultiInferenceRequest()
    for signature, method in signatures:
        task = request.tasks.add(method_name=f"tensorflow/serving/{method}")
        spec(task, name, signature)
    example = request.input.example_list.examples.add()
    example.features.feature["x"].float_list.value.append(2.0)
    return request


def metadata(*fields: str, **given: Any) -> Any:
    request = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=fields)
    return spec(request, **given)


def status(**given: Any) -> Any:
    return spec(get_model_status_pb2.GetModelStatusRequest(), **given)


def reload(*models: dict[str, Any]) -> Any:
    request = model_management_pb2.ReloadConfigRequest()
    for model in models:
        request.config.model_config_list.config.add(**model)
    request.config.model_config_list.SetInParent()
    return request


X = np.array([2.0], np.float32)
Classification, Regression = (
    classification_pb2.ClassificationRequest,
    regression_pb2.RegressionRequest,
)
FAKE = {"name": "q", "base_path": "/q", "model_platform": "tensorflow"}

CALLS = {
    "predict": Grpc(
        predict(inputs={"x": X}),
        reply=(
            ("outputs.y.float_val", [3.0]),
            ("model_spec.name", "m"),
            ("model_spec.version.value", 1),
            ("model_spec.signature_name", "serving_default"),
        ),
    ),
    "newest": Grpc(
        predict(inputs={"x": X}, version=None), reply=(("model_spec.version.value", 2),)
    ),
    "label": Grpc(
        predict(inputs={"x": X}, label="stable"), reply=(("model_spec.version.value", 1),)
    ),
    "unknown label": Grpc(
        predict(inputs={"x": X}, label="no"),
        "INVALID_ARGUMENT",
        "Unrecognized servable version label: no",
    ),
    "no spec": Grpc(predict_pb2.PredictRequest(), "INVALID_ARGUMENT", "Missing ModelSpec"),
    "no name": Grpc(
        predict(name="", inputs={"x": X}), "INVALID_ARGUMENT", "ModelSpec has no name specified."
    ),
    "no model": Grpc(
        predict(name="no", version=None, inputs={"x": X}),
        "NOT_FOUND",
        "Servable not found for request: Latest(no)",
    ),
    "no version": Grpc(predict(version=7, inputs={"x": X}), "NOT_FOUND", NOT_FOUND_7),
    "no signature": Grpc(
        predict("no", inputs={"x": X}),
        "FAILED_PRECONDITION",
        'Serving signature key "no" not found.',
    ),
    "no input": Grpc(
        predict(),
        "INVALID_ARGUMENT",
        "input size does not match signature: 0!=1 len({}) != len({x}). Sent extra: {}. Missing but"
        " required: {x}.",
    ),
    "extra input": Grpc(
        predict(inputs={"x": X, "q": X}),
        "INVALID_ARGUMENT",
        "input size does not match signature: 2!=1 len({q,x}) != len({x}). Sent extra: {q}. Missing"
        " but required: {}.",
    ),
    "other input": Grpc(
        predict(inputs={"q": X}),
        "INVALID_ARGUMENT",
        "input tensor alias not found in signature: q. Inputs expected to be in the set {x}.",
    ),
    "filter": Grpc(
        predict("two", output_filter=["s"], inputs={"a": X, "t": [b"x"]}),
        reply=(("outputs.s.float_val", [3.0]),),
    ),
    "unknown filter": Grpc(
        predict(output_filter=["z"], inputs={"x": X}),
        "INVALID_ARGUMENT",
        "output tensor alias not found in signature: z Outputs expected to be in the set {y}.",
    ),
    "filter twice": Grpc(
        predict(output_filter=["y", "y"], inputs={"x": X}),
        "INVALID_ARGUMENT",
        "duplicate output tensor alias: y",
    ),
    "refused in the graph": Grpc(
        predict("positive", inputs={"x": -X}),
        "INVALID_ARGUMENT",
        "assertion failed: [x must be positive. ...",
    ),
    "classify": Grpc(
        examples(Classification, 2.0, signature="scores"),
        reply=(("result.classifications.0.classes.0.score", 3.0),),
    ),
    "regress": Grpc(
        examples(Regression, 2.0, signature="regress"),
        reply=(("result.regressions.0.value", 3.0),),
    ),
    "classify, no spec": Grpc(Classification(), "INVALID_ARGUMENT", "Missing ModelSpec"),
    "regress, no spec": Grpc(Regression(), "INVALID_ARGUMENT", "Missing ModelSpec"),
    "regress nothing": Grpc(
        examples(Regression, signature="regress"), "INVALID_ARGUMENT", "Input is empty."
    ),
    "regress by no signature": Grpc(
        examples(Regression, 2.0, signature="no"),
        "INVALID_ARGUMENT",
        "No signature was found with the name: no",
    ),
    "regress by two outputs": Grpc(
        examples(Regression, 2.0, signature="classify"),
        "INVALID_ARGUMENT",
        "Expected one output Tensor.",
    ),
    "several": Grpc(
        tasks(("scores", "classify"), ("regress", "regress")),
        "INVALID_ARGUMENT",
        "Input tensor must be the same for all Signatures.",
    ),
    "one of several": Grpc(
        tasks(("scores", "classify")),
        reply=(
            ("results.0.classification_result.classifications.0.classes.0.score", 3.0),
            ("results.0.model_spec.version.value", 1),
        ),
    ),
    "none of several": Grpc(
        inference_pb2.MultiInferenceRequest(),
        "INVALID_ARGUMENT",
        "ModelSpec has no name specified.",
    ),
    "same of several": Grpc(
        tasks(("scores", "classify"), ("scores", "classify")),
        "INVALID_ARGUMENT",
        "Duplicate evaluation of signature: scores",
    ),
    "unknown of several": Grpc(
        tasks(("no", "classify")),
        "INVALID_ARGUMENT",
        "Requested signature not found in model graph: no",
    ),
    "predict of several": Grpc(
        tasks(("scores", "predict")),
        "UNIMPLEMENTED",
        "Unsupported signature method_name: tensorflow/serving/predict",
    ),
    "metadata": Grpc(metadata("signature_def"), reply=(("model_spec.version.value", 1),)),
    "metadata, no spec": Grpc(
        get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=["signature_def"]),
        "INVALID_ARGUMENT",
        "Missing ModelSpec",
    ),
    "no metadata": Grpc(
        metadata(),
        "INVALID_ARGUMENT",
        "GetModelMetadataRequest must specify at least one metadata_field",
    ),
    "other metadata": Grpc(metadata("x"), "INVALID_ARGUMENT", "Metadata field ..."),
    "metadata of no model": Grpc(
        metadata("signature_def", name="no", version=None),
        "NOT_FOUND",
        "Servable not found for request: Latest(no)",
    ),
    "status": Grpc(
        status(),
        reply=(("model_version_status.0.state", 30), ("model_version_status.0.version", 1)),
    ),
    "status of all": Grpc(status(version=None), reply=(("model_version_status.1.version", 1),)),
    "status, label": Grpc(status(label="no"), reply=(("model_version_status.0.version", 2),)),
    "status, no spec": Grpc(
        get_model_status_pb2.GetModelStatusRequest(), "INVALID_ARGUMENT", "Missing ModelSpec"
    ),
    "status, no name": Grpc(
        status(name="", version=None), "NOT_FOUND", "Could not find any versions of model "
    ),
    "status of no model": Grpc(
        status(name="no", version=None), "NOT_FOUND", "Could not find any versions of model no"
    ),
    "status of no version": Grpc(
        status(version=7), "NOT_FOUND", "Could not find version 7 of model m"
    ),
    "reload nothing": Grpc(
        model_management_pb2.ReloadConfigRequest(),
        "INVALID_ARGUMENT",
        "ServerModelConfig type not supported by HandleReloadConfigRequest. Only ModelConfigList is"
        " currently supported",
    ),
    "reload twice the same": Grpc(
        reload(FAKE, FAKE),
        "INVALID_ARGUMENT",
        "Illegal to list model q multiple times in config list",
    ),
    "reload no platform": Grpc(
        reload({**FAKE, "model_platform": ""}),
        "INVALID_ARGUMENT",
        "Illegal setting neither ModelServerConfig::model_type (deprecated) nor"
        " ModelServerConfig::model_platform.",
    ),
    "reload relative": Grpc(
        reload({**FAKE, "base_path": "q"}),
        "INVALID_ARGUMENT",
        "Expected model q to have an absolute path or URI; got base_path()=q",
    ),
    "reload an unavailable label": Grpc(
        reload({**FAKE, "version_labels": {"l": 9}}),
        "FAILED_PRECONDITION",
        "Request to assign label to version 9 of model q, which is not currently available for"
        " inference",
    ),
}

PARSING = "tensor parsing error: x..."
TENSORS = {
    "bool for float": Grpc(
        predict(inputs={"x": [True]}),
        "INVALID_ARGUMENT",
        "Expects arg[0] to be float but bool is provided",
    ),
    "300 for int8": Grpc(echo([1], tf.int8, int_val=[300]), reply=(("outputs.y.int_val", [44]),)),
    "70000 for int16": Grpc(
        echo([1], tf.int16, int_val=[70000]), reply=(("outputs.y.int_val", [4464]),)
    ),
    "last repeats": Grpc(
        echo([3], tf.int16, int_val=[1, 2]), reply=(("outputs.y.int_val", [1, 2, 2]),)
    ),
    "none given": Grpc(echo([2], tf.int16), reply=(("outputs.y.int_val", [0, 0]),)),
    "too many given": Grpc(
        echo([1], tf.int16, int_val=[5, 6, 7]), reply=(("outputs.y.int_val", [5]),)
    ),
    "empty": Grpc(echo([0], tf.int16), reply=(("outputs.y.tensor_shape.dim.0.size", 0),)),
    "scalar": Grpc(
        echo([], tf.float64, double_val=[1.5]), reply=(("outputs.y.double_val", [1.5]),)
    ),
    "content": Grpc(
        echo([2], tf.int16, tensor_content=b"\1\0\2\0"), reply=(("outputs.y.int_val", [1, 2]),)
    ),
    "int32": Grpc(echo([1], tf.int32, int_val=[-5]), reply=(("outputs.y.int_val", [-5]),)),
    "int64": Grpc(echo([1], tf.int64, int64_val=[-5]), reply=(("outputs.y.int64_val", [-5]),)),
    "uint32": Grpc(echo([1], tf.uint32, uint32_val=[5]), reply=(("outputs.y.uint32_val", [5]),)),
    "uint64": Grpc(echo([1], tf.uint64, uint64_val=[5]), reply=(("outputs.y.uint64_val", [5]),)),
    "uint16": Grpc(echo([1], tf.uint16, int_val=[65535]), reply=(("outputs.y.int_val", [65535]),)),
    "bool": Grpc(echo([1], tf.bool, bool_val=[True]), reply=(("outputs.y.bool_val", [True]),)),
    "text": Grpc(
        echo([1], tf.string, string_val=[b"\xff"]), reply=(("outputs.y.string_val", [b"\xff"]),)
    ),
    "half": Grpc(echo([1], tf.half, half_val=[0x3C00]), reply=(("outputs.y.half_val", [0x3C00]),)),
    "bfloat16": Grpc(
        echo([1], tf.bfloat16, half_val=[0x3F80]), reply=(("outputs.y.half_val", [0x3F80]),)
    ),
    "complex64": Grpc(
        echo([1], tf.complex64, scomplex_val=[1, 2]),
        reply=(("outputs.y.scomplex_val", [1.0, 2.0]),),
    ),
    "negative sizes": Grpc(echo([-1, -1], tf.int16, int_val=[1]), "INVALID_ARGUMENT", PARSING),
    "too few bytes": Grpc(echo([3], tf.int16, tensor_content=b"1234"), "INVALID_ARGUMENT", PARSING),
    "odd bytes": Grpc(echo([3], tf.int16, tensor_content=b"123"), "INVALID_ARGUMENT", PARSING),
    "too many bytes": Grpc(
        echo([1], tf.int16, tensor_content=b"1234"), "INVALID_ARGUMENT", PARSING
    ),
    "no type": Grpc(echo([1], 0), "INVALID_ARGUMENT", PARSING),
    "reference type": Grpc(echo([1], 105), "INVALID_ARGUMENT", PARSING),
    "unknown type": Grpc(echo([1], 99), "INVALID_ARGUMENT", PARSING),
    "2 TB": Grpc(echo([2**20, 2**20], tf.int16, int_val=[1]), "INVALID_ARGUMENT", PARSING),
    "overflow": Grpc(echo([2**40, 2**40], tf.int16, int_val=[1]), "INVALID_ARGUMENT", PARSING),
    "1 GB of one value": Grpc(
        echo([2**29], tf.int16, int_val=[1]),
        "INVALID_ARGUMENT",
        PARSING,
        why_local="fills 64 MiB at most",
    ),
    "200 MB of one text": Grpc(
        echo([20_000], tf.string, string_val=[b"x" * 10_000]),
        "INVALID_ARGUMENT",
        PARSING,
        why_local="fills 64 MiB at most",
    ),
    "4 million texts of no value": Grpc(
        echo([2**22], tf.string), "INVALID_ARGUMENT", PARSING, why_local="fills 64 MiB at most"
    ),
    "3 MB of one text": Grpc(
        echo([300], tf.string, string_val=[b"x" * 10_000]),
        reply=(("outputs.y.string_val", [b"x" * 10_000] * 300),),
    ),
    "many axes": Grpc(
        echo([1] * 40, tf.int16, int_val=[1]), "INVALID_ARGUMENT", PARSING, why_local="32 axes"
    ),
    "very many axes": Grpc(echo([1] * 300, tf.int16, int_val=[1]), "INVALID_ARGUMENT", PARSING),
}

GRPC = {
    **{f"call: {name}": row for name, row in CALLS.items()},
    **{f"tensor: {name}": row for name, row in TENSORS.items()},
}
