"""Replies of the REST interface, in the very text that the real server's writer gives."""

from __future__ import annotations

import base64
import inspect
import itertools
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import rapidjson
import tensorflow as tf
from google.protobuf.json_format import MessageToDict
from tensorflow_serving.apis import classification_pb2, get_model_metadata_pb2, regression_pb2

from .statuses import invalid
from .tensors import type_name

Array = npt.NDArray[Any]

_INDENT = "    "
_BYTES_SUFFIX = "_bytes"  # an output of bytes is base64 only if its name ends this way
_FLOATS = {"float32": "%.9g", "float64": "%.17g"}  # digits that give a value back exactly
# Protobuf 4, which TensorFlow 2.15 needs, has another name for it.
_PRINT_DEFAULTS = (
    {"always_print_fields_with_no_presence", "including_default_value_fields"}
    & set(inspect.signature(MessageToDict).parameters)
).pop()
_INTEGERS = {"int8", "int16", "int32", "int64", "uint8", "uint32", "uint64"}


def outputs_to_json(outputs: Mapping[str, Array], *, in_rows: bool) -> str:
    """Writes the reply of a request, in the form of the request.

    Raises:
        StatusError: If a type has no JSON form, or rows are wanted and the outputs have no
            common number of them.
    """
    rows = _number_of_rows(outputs) if in_rows else 0
    texts = {name: _texts(name, array) for name, array in outputs.items()}
    if not in_rows:
        return _object({"outputs": _columnar(outputs, texts)})
    depth = 2 if len(outputs) == 1 else 3
    indent = "\n" + _INDENT * depth
    parts = [
        _row_texts(array.shape[1:], [t.replace("\n@", indent) for t in texts[name]], rows)
        for name, array in outputs.items()
    ]
    if len(parts) == 1:
        items = parts[0]
        return _object({"predictions": "[" + ", ".join(items) + f"\n{_INDENT}]"})
    names = [_quoted(name) for name in outputs]
    items = [_row_object(names, row) for row in zip(*parts, strict=True)]
    inner = ",".join(f"\n{_INDENT * 2}{item}" for item in items)
    return _object({"predictions": f"[{inner}\n{_INDENT}]"})


def classifications_to_json(result: classification_pb2.ClassificationResult) -> str:
    """Writes labels and scores: a list for each example."""
    rows = [
        [f"[{_quoted(c.label)}, {_float(c.score)}]" for c in classifications.classes]
        for classifications in result.classifications
    ]
    items = [f"[{', '.join(row)}]" for row in rows]
    inner = ", ".join(items)
    return _object({"results": f"[{inner}\n{_INDENT}]"})


def regressions_to_json(result: regression_pb2.RegressionResult) -> str:
    """Writes a value for each example."""
    return _object({"results": f"[{', '.join(_float(r.value) for r in result.regressions)}]"})


def error_to_json(message: str) -> str:
    """Writes the reply that tells of an error."""
    return _object({"error": _quoted(message)})


def status_to_json(response: Any) -> str:
    """Writes the states of versions."""
    return _message(response)


def metadata_to_json(response: get_model_metadata_pb2.GetModelMetadataResponse) -> str:
    """Writes the signatures of a version."""
    signatures = get_model_metadata_pb2.SignatureDefMap()
    response.metadata["signature_def"].Unpack(signatures)
    spec, signature_def = _message(response.model_spec), _message(signatures)
    return f'{{\n"model_spec":{spec},\n"metadata": {{"signature_def": {signature_def}}}\n}}\n'


def _message(message: Any) -> str:
    fields = MessageToDict(message, preserving_proto_field_name=True, **{_PRINT_DEFAULTS: True})
    text: str = rapidjson.dumps(fields, indent=1, ensure_ascii=False)
    return text + "\n"


def _object(members: Mapping[str, str]) -> str:
    inner = ",".join(f"\n{_INDENT}{_quoted(name)}: {text}" for name, text in members.items())
    return f"{{{inner}\n}}"


def _quoted(text: str) -> str:
    quoted: str = rapidjson.dumps(text, ensure_ascii=False)
    return quoted


def _number_of_rows(outputs: Mapping[str, Array]) -> int:
    rows = 0
    for name, array in outputs.items():
        if array.ndim == 0:
            raise invalid(f"Tensor name: {name} has no shape information ")
        if len(array) < 1:
            raise invalid(f"Tensor name: {name} has invalid batch size: {len(array)}")
        if rows not in (0, len(array)):
            raise invalid(
                f"Tensor name: {name} has inconsistent batch size: {len(array)} expecting: {rows}"
            )
        rows = len(array)
    return rows


def _texts(name: str, array: Array) -> list[str]:
    """The values of an array, one by one."""
    if not array.size:
        return []
    kind = "string" if array.dtype == object else array.dtype.name
    if kind == "string":
        return [_bytes_text(value, name) for value in array.ravel().tolist()]
    if kind in _FLOATS:
        return _float_texts(array.ravel())
    if kind == "bool":
        return ["true" if value else "false" for value in array.ravel().tolist()]
    if kind in _INTEGERS:
        return list(map(str, array.ravel().tolist()))
    dtype = type_name(tf.as_dtype(array.dtype).as_datatype_enum)
    raise invalid(f"Failed to write JSON value for tensor type: {dtype}")


def _bytes_text(value: bytes, name: str) -> str:
    if name.endswith(_BYTES_SUFFIX):
        return f'{{\n@    "b64": "{base64.b64encode(value).decode()}"\n@}}'
    return _quoted(value.decode(errors="replace"))


def _float(value: float) -> str:
    (text,) = _float_texts(np.array([value], np.float32))
    return text


def _float_texts(values: Array) -> list[str]:
    """Six digits where they give the value back, else all; a whole number ends in `.0`."""
    texts = [f"{value:g}" for value in values.tolist()]
    with np.errstate(over="ignore"):
        again = np.array(list(map(float, texts)), np.float64).astype(values.dtype)
    exact = _FLOATS[values.dtype.name]
    for place in np.flatnonzero((again != values) | ~np.isfinite(values)):
        texts[place] = _special(float(values[place])) or exact % values[place]
    return [t if "." in t or "e" in t or not t[-1].isdigit() else f"{t}.0" for t in texts]


def _special(value: float) -> str:
    if np.isnan(value):
        return "NaN"
    if np.isinf(value):
        return "Infinity" if value > 0 else "-Infinity"
    return ""


def _columnar(outputs: Mapping[str, Array], texts: Mapping[str, list[str]]) -> str:
    """Each value on a line of its own, indented by its depth."""
    if len(outputs) == 1:
        ((name, array),) = outputs.items()
        return _nested(array.shape, iter(texts[name]), depth=1)
    members = [
        f"\n{_INDENT * 2}{_quoted(name)}: {_nested(array.shape, iter(texts[name]), depth=2)}"
        for name, array in outputs.items()
    ]
    return "{" + ",".join(members) + f"\n{_INDENT}}}"


def _nested(shape: tuple[int, ...], texts: Iterator[str], *, depth: int) -> str:
    if not shape:
        return next(texts).replace("\n@", "\n" + _INDENT * depth)
    if not shape[0]:
        return "[]"
    indent = "\n" + _INDENT * (depth + 1)
    if len(shape) == 1:
        items = (t.replace("\n@", indent) for t in itertools.islice(texts, shape[0]))
    else:
        items = (_nested(shape[1:], texts, depth=depth + 1) for _ in range(shape[0]))
    return "[" + indent + ("," + indent).join(items) + "\n" + _INDENT * depth + "]"


def _row_texts(shape: tuple[int, ...], texts: list[str], rows: int) -> list[str]:
    """Each row on one line."""
    each = len(texts) // rows
    return [_one_line(shape, iter(texts[n * each : (n + 1) * each])) for n in range(rows)]


def _one_line(shape: tuple[int, ...], texts: Iterator[str]) -> str:
    if not shape:
        return next(texts)
    if len(shape) == 1:
        return "[" + ", ".join(itertools.islice(texts, shape[0])) + "]"
    return "[" + ", ".join(_one_line(shape[1:], texts) for _ in range(shape[0])) + "]"


def _row_object(names: list[str], values: tuple[str, ...]) -> str:
    inner = ",".join(
        f"\n{_INDENT * 3}{name}: {value}" for name, value in zip(names, values, strict=True)
    )
    return f"{{{inner}\n{_INDENT * 2}}}"
