"""The codes of TensorFlow Serving's errors, and the HTTP statuses that stand for them."""

from __future__ import annotations

from fcnseg.saved_model.session import StatusError

HTTP_STATUS = {
    "OK": 200,
    "CANCELLED": 499,
    "INVALID_ARGUMENT": 400,
    "DEADLINE_EXCEEDED": 504,
    "NOT_FOUND": 404,
    "ALREADY_EXISTS": 409,
    "PERMISSION_DENIED": 403,
    "RESOURCE_EXHAUSTED": 429,
    "FAILED_PRECONDITION": 400,
    "ABORTED": 409,
    "OUT_OF_RANGE": 400,
    "UNIMPLEMENTED": 501,
    "UNAVAILABLE": 503,
    "UNAUTHENTICATED": 401,
}
OTHER_HTTP_STATUS = 500  # UNKNOWN, INTERNAL, DATA_LOSS


def invalid(message: str) -> StatusError:
    """Makes an error of a request that is not valid."""
    return StatusError("INVALID_ARGUMENT", message)


def deadline_exceeded() -> StatusError:
    """Makes an error of a call whose time is over before it runs."""
    return StatusError("DEADLINE_EXCEEDED", "Deadline Exceeded")


def stopping() -> StatusError:
    """Makes an error of a call that a server which stops no longer takes."""
    return StatusError("UNAVAILABLE", "the server is stopping")
