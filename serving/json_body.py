"""The JSON of a request's body, as RapidJSON reads it, and of values in messages."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from typing import Any

import rapidjson

from .statuses import invalid

# 64-bit integers; those beyond are floats. NaN, Infinity and Inf are numbers.
_NUMBERS = rapidjson.NM_NATIVE | rapidjson.NM_NAN
_TRAILING = "The document root must not be followed by other values."
_MAX_SHOWN = 1000  # characters of a value in a message; the real server has no limit
_MAX_SHOWN_DEPTH = 32  # down to which the spaces before values are more characters than that

# Memory for each of these characters, measured of Python 3.11: of a number in a list and in an
# array, a list, an object, and a name in it. Characters within text count too.
_BYTES_OF = {b",": 72, b"[": 100, b"{": 180, b":": 110}
_ESCAPE = b"\\"
_NOT_COUNTED = bytes(set(range(256)) - set(b"".join(_BYTES_OF)) - set(_ESCAPE))
# Text takes as many bytes as in the body, unless a character in it needs four: then all do, and a
# short text has a longer head.
_WIDE_TEXT = 8

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


def parsed_bytes(body: bytes) -> int:
    """Bytes of memory that the values of a body take at most, besides text of one byte each."""
    counted = body.translate(None, _NOT_COUNTED)  # a file in base64 is read once, not five times
    values = sum(counted.count(character) * size for character, size in _BYTES_OF.items())
    has_wide_text = not body.isascii() or (_ESCAPE in counted and b"\\u" in body)
    return values + (_WIDE_TEXT * len(body) if has_wide_text else 0)


def shown(value: Any) -> str:
    """A value in a message: indented JSON, cut after a thousand characters."""
    start = _Start().of(value)  # indented, all of it may be gigabytes
    text = rapidjson.dumps(start, indent=4, ensure_ascii=False, number_mode=_NUMBERS)
    return text if len(text) <= _MAX_SHOWN else f"{text[:_MAX_SHOWN]}..."


class _Start:
    """The start of a value, whose text begins with the same thousand characters."""

    def __init__(self) -> None:
        self._left = _MAX_SHOWN  # values, each of which has a character at least

    def of(self, value: Any, depth: int = 0) -> Any:
        """Gives a value without what is not shown of it."""
        self._left -= 1
        if depth > _MAX_SHOWN_DEPTH:
            return None
        if isinstance(value, str):
            return value[: _MAX_SHOWN + 1]
        if isinstance(value, list):
            return [self.of(item, depth + 1) for item in self._first(value)]
        if isinstance(value, dict):
            items = self._first(value.items())
            return {key[: _MAX_SHOWN + 1]: self.of(item, depth + 1) for key, item in items}
        return value

    def _first(self, items: Iterable[Any]) -> Iterable[Any]:
        return itertools.takewhile(lambda _: self._left >= 0, items)


def type_of(value: Any) -> str:
    """The real server's name for the type of a value."""
    return str(value) if isinstance(value, bool) else _TYPE_NAMES[type(value)]


def is_base64(value: Any) -> bool:
    """Tells whether a value is `{"b64": "..."}`."""
    return isinstance(value, dict) and len(value) == 1 and isinstance(value.get("b64"), str)


class _Decoder(rapidjson.Decoder):  # type: ignore[misc, unused-ignore]
    """Decodes JSON; of equal names in an object the first one counts, as RapidJSON finds it."""

    def start_object(self) -> list[tuple[str, Any]]:
        """Gives the list for an object's members."""
        return []

    def end_object(self, members: list[tuple[str, Any]]) -> dict[str, Any]:
        """Makes the object."""
        found: dict[str, Any] = {}
        for name, value in members:
            found.setdefault(name, value)
        return found


def _parsed(body: bytes) -> Any:
    return _Decoder(number_mode=_NUMBERS)(body)


def _offset_and_reason(error: rapidjson.JSONDecodeError) -> tuple[int, str]:
    """Takes `Parse error at offset 5: Invalid value.` apart."""
    place, _, reason = str(error).partition(": ")
    for bracket in "}]":  # in C++ RapidJSON has them without quotes
        reason = reason.replace(f"'{bracket}'", bracket)
    return int(place.rsplit(" ", 1)[1]), reason
