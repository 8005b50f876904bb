"""The paths of TensorFlow Serving's REST interface."""

from __future__ import annotations

import dataclasses
import re
from urllib.parse import unquote

from tensorflow_serving.apis import model_pb2

from .statuses import invalid

_CHOICE = r"(?:(?:/versions/(?P<version>\d+))|(?:/labels/(?P<label>[^/:]+)))?"
_RUN = re.compile(
    rf"/v1/models/(?P<name>[^/:]+){_CHOICE}:(?P<method>classify|regress|predict)",
    re.IGNORECASE | re.ASCII,
)
_TELL = re.compile(
    rf"/v1/models(?:/(?P<name>[^/:]+))?{_CHOICE}(?:/(?P<method>metadata))?",
    re.IGNORECASE | re.ASCII,
)
_API = re.compile(r"(?:https?://[^/]*)?(/v1/.*)", re.IGNORECASE | re.DOTALL)
_MAX_VERSION = 2**63 - 1  # int64


@dataclasses.dataclass(frozen=True)
class RestPath:
    """The part of the API that a request asks for.

    Attributes:
        spec: The model and its version.
        method: `predict`, `classify`, `regress`, `metadata` or `status`.
    """

    spec: model_pb2.ModelSpec
    method: str


def api_path(target: str) -> str | None:
    """Gives the path of a request's target if it is one of the API."""
    match = _API.fullmatch(target)
    return None if match is None else match[1]


def parse_path(http_method: str, path: str) -> RestPath:
    """Finds out what a request asks for.

    Raises:
        StatusError: If the path is not one of the API for this method.
    """
    match = {"POST": _RUN, "GET": _TELL}.get(http_method, re.compile(r"(?!)")).fullmatch(path)
    method = "" if match is None else match["method"] or "status"
    # The letters of a path may be of either case, but not those of the method.
    known = ("predict", "classify", "regress") if http_method == "POST" else ("metadata", "status")
    if match is None or (http_method == "POST" and method not in known):
        raise invalid(f"Malformed request: {http_method} {path}")
    if match["name"] is None:
        raise invalid("Missing model name in request.")
    spec = model_pb2.ModelSpec(name=unquote(match["name"], errors="replace"))
    if match["version"]:
        digits = match["version"].lstrip("0") or "0"
        if len(digits) > len(str(_MAX_VERSION)) or int(digits) > _MAX_VERSION:
            raise invalid(f"Failed to convert version: {match['version']} to numeric.")
        spec.version.value = int(digits)
    if match["label"]:
        spec.version_label = unquote(match["label"], errors="replace")
    return RestPath(spec, method if method in known else "status")
