"""The JSON of a request's body, as RapidJSON reads it, and of values in messages."""

from __future__ import annotations

from typing import Any

import rapidjson

from .statuses import invalid

# 64-bit integers; those beyond are floats. NaN, Infinity and Inf are numbers.
_NUMBERS = rapidjson.NM_NATIVE | rapidjson.NM_NAN
_TRAILING = "The document root must not be followed by other values."
_MAX_SHOWN = 1000  # characters of a value in a message; the real server has no limit

_TYPE_NAMES = {
    type(None): "Null",
    dict: "Object",
    list: "Array",
    str: "String",
    int: "Number",
    float: "Number",
}


def parse_body(body: bytes) -> dict[str, Any]:
    """Parses a body whose root is an object; what follows it is left out.

    Raises:
        StatusError: If it is not JSON, or no object.
    """
    if not body:
        raise invalid("JSON Parse error: The document is empty")
    try:
        value = _parsed(body)
    except rapidjson.JSONDecodeError as error:
        offset, reason = _offset_and_reason(error)
        if reason != _TRAILING:
            raise invalid(f"JSON Parse error: {reason} at offset: {offset}") from error
        value = _parsed(body[:offset])
    except RecursionError as error:
        raise invalid("JSON Parse error: The document is nested too deeply.") from error
    except UnicodeDecodeError as error:
        reason = f"Invalid encoding in string. at offset: {error.start}"
        raise invalid(f"JSON Parse error: {reason}") from error
    if not isinstance(value, dict):
        raise invalid(f"JSON Value: {shown(value)} Is not object")
    return value


def shown(value: Any) -> str:
    """A value in a message: indented JSON, cut after a thousand characters."""
    try:
        text = rapidjson.dumps(value, indent=4, ensure_ascii=False, number_mode=_NUMBERS)
    except RecursionError:
        text = "[" * _MAX_SHOWN
    return text if len(text) <= _MAX_SHOWN else f"{text[:_MAX_SHOWN]}..."


def type_of(value: Any) -> str:
    """The real server's name for the type of a value."""
    return str(value) if isinstance(value, bool) else _TYPE_NAMES[type(value)]


def is_base64(value: Any) -> bool:
    """Tells whether a value is `{"b64": "..."}`."""
    return isinstance(value, dict) and len(value) == 1 and isinstance(value.get("b64"), str)


def _parsed(body: bytes) -> Any:
    return rapidjson.loads(body, number_mode=_NUMBERS)


def _offset_and_reason(error: rapidjson.JSONDecodeError) -> tuple[int, str]:
    """Takes `Parse error at offset 5: Invalid value.` apart."""
    place, _, reason = str(error).partition(": ")
    for bracket in "}]":  # in C++ RapidJSON has them without quotes
        reason = reason.replace(f"'{bracket}'", bracket)
    return int(place.rsplit(" ", 1)[1]), reason
