"""The failures of calls to a model server, each as one sentence that says what to do."""

from __future__ import annotations

import dataclasses
import re

from fcnseg.errors import FcnsegError, InputError

# HTTP statuses to gRPC's codes, as TensorFlow Serving and nginx use them.
CODES_OF_HTTP = {
    400: "INVALID_ARGUMENT",  # or FAILED_PRECONDITION, or OUT_OF_RANGE
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    408: "DEADLINE_EXCEEDED",
    413: "RESOURCE_EXHAUSTED",
    429: "RESOURCE_EXHAUSTED",
    500: "INTERNAL",
    501: "UNIMPLEMENTED",
    502: "UNAVAILABLE",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}


class CallError(Exception):
    """A call that failed, as a transport saw it.

    Attributes:
        code: Name of gRPC's status code, which REST's statuses are turned into.
        details: The server's or the transport's words.
        is_begun: False if the server has surely not begun to answer.
    """

    def __init__(self, code: str, details: str, *, is_begun: bool = True) -> None:
        super().__init__(details)
        self.code = code
        self.details = details
        self.is_begun = is_begun


class ServerError(FcnsegError, ConnectionError):
    """A server is unreachable, lacks the model, or returns what no model of fcnseg does.

    Attributes:
        status: Name of gRPC's status code of the failed call; empty if the call did not fail.
    """

    def __init__(self, message: str, *, status: str = "") -> None:
        super().__init__(message)
        self.status = status

    @property
    def is_gone(self) -> bool:
        """True if no request would be answered now."""
        return self.status in ("UNAVAILABLE", "NOT_FOUND", "UNAUTHENTICATED", "PERMISSION_DENIED")


class TooBusyError(ServerError):
    """A server has as much to do as it takes on."""


@dataclasses.dataclass(frozen=True)
class _Known:
    """A known failure.

    Attributes:
        codes: Status codes, separated by spaces.
        pattern: What the details contain.
        sentence: Its fields are {server}, {model}, {timeout_s}, {details} and, as {0}, {1}, the
            groups of the pattern.
        is_input: True if the request is to blame.
    """

    codes: str
    pattern: str
    sentence: str
    is_input: bool = False


PLAIN_TO_TLS = "The plain HTTP request was sent to HTTPS port"
"""The answer of nginx to HTTP at a port of HTTPS."""

# The first that fits counts. Where the words come from: gRPC core (message sizes, connections),
# TensorFlow (types, memory), TensorFlow Serving (signatures, servables), nginx (413, 504).
_KNOWN = (
    _Known(
        "RESOURCE_EXHAUSTED INTERNAL",
        r"larger than max \((\d+) vs\. (\d+)\)",
        "{server} takes messages of at most {1} bytes, and this one has {0}: raise the limit of the"
        " server, or of the proxy in front of it",
    ),
    _Known(
        "RESOURCE_EXHAUSTED",
        r"Request Entity Too Large|Payload Too Large|Content Too Large",
        "{server} takes no body as large as this request's: raise the limit of the proxy in front"
        " of it (client_max_body_size of nginx)",
    ),
    _Known(
        "RESOURCE_EXHAUSTED INTERNAL",
        r"OOM when allocating|[Oo]ut of memory|bad_alloc|failed to allocate",
        "{server} ran out of memory: {details}",
    ),
    _Known("DEADLINE_EXCEEDED", r"^sent$", "no answer from {server} within {timeout_s:g} s"),
    _Known(
        "DEADLINE_EXCEEDED",
        r"",
        "{server} ended the call at a limit of its own: {details}; raise --rest_api_timeout_in_ms"
        " of the server, or proxy_read_timeout of the proxy in front of it",
    ),
    _Known("UNAUTHENTICATED", r"", "{server} asks for a user and a password: {details}"),
    _Known("PERMISSION_DENIED", r"", "{server} refuses this user: {details}"),
    _Known(
        "UNAVAILABLE INTERNAL UNKNOWN",
        r"CERTIFICATE_VERIFY_FAILED|certificate verify failed",
        "the certificate of {server} is not trusted: give its authority as ca_file: {details}",
    ),
    _Known(
        "UNAVAILABLE INTERNAL UNKNOWN UNIMPLEMENTED",
        r"http1\.x server|BadStatusLine|not JSON|Received http2 header with status",
        "{server} does not answer as a model server does: gRPC has HOST:8500, REST"
        " http://HOST:8501: {details}",
    ),
    _Known(
        "UNAVAILABLE",
        r"Socket closed|[Cc]onnection reset|closed connection|Broken pipe|GOAWAY|Stream removed",
        "{server} closed the connection before it answered: it stopped, perhaps for lack of"
        " memory, or a proxy did: {details}",
    ),
    _Known("UNAVAILABLE", r"", "no server at {server}: {details}"),
    _Known(
        "FAILED_PRECONDITION INVALID_ARGUMENT",
        r'[Ss]ignature (?:key|name:) "([^"]*)" not found',
        "{model} has no signature {0}: export it with fcnseg export, or use segment_tiled",
    ),
    _Known("INVALID_ARGUMENT", r"Unrecognized servable version label", "no {model}: {details}"),
    _Known(
        "INVALID_ARGUMENT FAILED_PRECONDITION",
        r"(Expects arg\[\d+\] to be \w+ but \w+ is provided|expected type: \w+|"
        r"not of expected type: \w+)",
        "{model} takes another type of input than fcnseg sends: {0}",
        is_input=True,
    ),
    _Known("INVALID_ARGUMENT", PLAIN_TO_TLS, "{server} takes TLS alone: give https://HOST:PORT"),
    _Known(
        "INVALID_ARGUMENT FAILED_PRECONDITION OUT_OF_RANGE",
        r"",
        "{model} refused the volume: {details}",
        is_input=True,
    ),
    _Known("NOT_FOUND", r"", "no {model}: {details}"),
    _Known(
        "CANCELLED",
        r"was cancelled",  # TensorFlow's words for a session that is closed
        "{server} ended the call, as it does when it stops or takes a version away: {details}",
    ),
)
# What a server answers that has admitted enough: the local one, Triton and others.
_BUSY = "{server} is busy: {details}"


def explained(
    error: CallError, *, server: str, model: str, timeout_s: float
) -> ServerError | InputError:
    """Makes the error that a user sees of a failed call.

    Args:
        error: The failed call.
        server: Address of the server.
        model: Name of the model, in words.
        timeout_s: Seconds that the call was given.
    """
    first = error.details.strip().partition("\n")[0].removeprefix("assertion failed: ")
    details = "".join(each if each.isprintable() else "\N{REPLACEMENT CHARACTER}" for each in first)
    shown_s = round(timeout_s, 1 if timeout_s >= 1 else 2)
    words = {"server": server, "model": model, "timeout_s": shown_s, "details": details}
    for known in _KNOWN:
        match = re.search(known.pattern, error.details)
        if error.code in known.codes.split() and match:
            message = known.sentence.format(*match.groups(), **words)
            return (
                InputError(message) if known.is_input else ServerError(message, status=error.code)
            )
    if error.code == "RESOURCE_EXHAUSTED":
        return TooBusyError(_BUSY.format(**words), status=error.code)
    return ServerError(f"{model} failed: {error.code}: {details}", status=error.code)
